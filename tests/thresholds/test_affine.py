import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxcomp.thresholds import Affine, affine, quantize_weights

LARGEST = float(np.finfo(np.float32).max)
bounds = st.floats(-LARGEST, LARGEST, width=32)
ranges = st.tuples(bounds, bounds).map(sorted)
KINDS = st.sampled_from([("uint8", False), ("int8", False), ("int8", True)])  # levels, and whether symmetric


def quantize(x: np.ndarray, quantizer: Affine) -> np.ndarray:
    """QuantizeLinear, in float64."""
    info = np.iinfo(quantizer.zero_point.dtype)
    return np.clip(np.rint(x / np.float64(quantizer.scale)) + int(quantizer.zero_point), info.min, info.max)


def dequantize(levels: np.ndarray, quantizer: Affine) -> np.ndarray:
    return (levels - int(quantizer.zero_point)) * np.float64(quantizer.scale)


@given(ranges, KINDS)
def test_error_is_half_a_step_inside_the_range(limits: list[float], kind: tuple[str, bool]) -> None:
    (low, high), (dtype, symmetric) = limits, kind
    quantizer = affine(low, high, dtype, symmetric=symmetric)
    assert quantizer.scale.dtype == np.float32
    assert quantizer.zero_point.dtype == np.dtype(dtype)
    assert np.isfinite(quantizer.scale)
    assert quantizer.scale > 0
    x = np.linspace(low, high, 1001)
    error = np.abs(dequantize(quantize(x, quantizer), quantizer) - x)
    assert error.max() <= 0.5 * float(quantizer.scale) * (1 + 1e-4)


@given(ranges, KINDS)
def test_zero_is_exact(limits: list[float], kind: tuple[str, bool]) -> None:
    quantizer = affine(*limits, kind[0], symmetric=kind[1])
    assert dequantize(quantize(np.zeros(1), quantizer), quantizer) == 0


@given(ranges, st.sampled_from(["uint8", "int8"]))
def test_all_levels_are_used(limits: list[float], dtype: str) -> None:
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if high - low < 1e-27:  # under the smallest scale
        return
    quantizer = affine(low, high, dtype)
    first, last = quantize(np.array([low, high]), quantizer)
    assert last - first >= 254


@given(ranges, KINDS)
def test_values_outside_saturate(limits: list[float], kind: tuple[str, bool]) -> None:
    quantizer = affine(*limits, kind[0], symmetric=kind[1])
    info = np.iinfo(kind[0])
    reach = 300 * float(quantizer.scale)
    assert quantize(np.array([-reach, reach]), quantizer).tolist() == [info.min, info.max]


@pytest.mark.parametrize(
    ("low", "high", "dtype", "scale", "zero_point"),
    [
        (0.0, 0.0, "uint8", 1.0, 0),
        (0.0, 0.0, "int8", 1.0, -128),
        (0.0, 25.5, "int8", 0.1, -128),
        (-12.8, 12.7, "int8", 0.1, 0),
        (0.0, 25.5, "uint8", 0.1, 0),
        (5.1, 25.5, "uint8", 0.1, 0),  # widened to contain 0
        (-25.5, 0.0, "uint8", 0.1, 255),
        (-25.5, -5.1, "uint8", 0.1, 255),
        (-12.8, 12.7, "uint8", 0.1, 128),
        (0.0, 1e-40, "uint8", 1e-30, 0),  # no denormal scales
    ],
)
def test_known_quantizers(low: float, high: float, dtype: str, scale: float, zero_point: int) -> None:
    quantizer = affine(low, high, dtype)
    assert quantizer.scale == pytest.approx(scale, rel=1e-6)
    assert quantizer.zero_point == zero_point


@pytest.mark.parametrize(("low", "high", "scale"), [(0.0, 0.0, 1.0), (-12.7, 1.0, 0.1), (-1.0, 12.7, 0.1)])
def test_known_symmetric_quantizers(low: float, high: float, scale: float) -> None:
    quantizer = affine(low, high, "int8", symmetric=True)
    assert quantizer.scale == pytest.approx(scale, rel=1e-6)
    assert quantizer.zero_point == 0
    with pytest.raises(ValueError, match="below 0"):
        affine(low, high, "uint8", symmetric=True)


@pytest.mark.parametrize("limits", [(1.0, 0.0), (np.nan, 1.0), (0.0, np.nan), (-np.inf, 0.0), (0.0, np.inf)])
def test_no_range(limits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no quantizer"):
        affine(*limits, "uint8")


weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=5, max_side=5),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(weights, st.data(), st.sampled_from([7, 8]))
def test_weights_per_channel_and_whole(w: np.ndarray, data: st.DataObject, bits: int) -> None:
    axis = data.draw(st.one_of(st.none(), st.integers(-w.ndim, w.ndim - 1)))
    levels, scale = quantize_weights(w, axis=axis, bits=bits)
    most = 2 ** (bits - 1) - 1
    assert levels.dtype == np.int8
    assert scale.dtype == np.float32
    assert levels.shape == w.shape
    assert np.abs(levels.astype(int)).max(initial=0) <= most
    rows = [(w, levels, scale[()])] if axis is None else []
    if axis is not None:
        assert scale.shape == (w.shape[axis],)
        rows = list(zip(np.moveaxis(w, axis, 0), np.moveaxis(levels, axis, 0), scale, strict=True))
    for channel, quantized, step in rows:
        error = np.abs(quantized.astype(np.float64) * float(step) - channel)
        assert error.max() <= 0.5 * float(step) * (1 + 1e-4)
        largest = np.abs(channel).max()
        if largest > 1e-25:
            assert np.abs(quantized.astype(int)).max() == most
        elif largest == 0:
            assert step == 1


@given(
    weights=hnp.arrays(np.float32, (4, 3), elements=st.floats(-1, 1, width=32)),
    bias=hnp.arrays(np.float32, 4, elements=st.floats(-1e6, 1e6, width=32)),
    exponent=st.floats(-12, 2),
)
def test_the_bias_fits_int32(weights: np.ndarray, bias: np.ndarray, exponent: float) -> None:
    input_scale = float(np.float32(10**exponent))
    levels, scale = quantize_weights(weights, axis=0, input_scale=input_scale, bias=bias)
    assert (np.abs(bias.astype(np.float64)) / (input_scale * scale.astype(np.float64)) < 2**31).all()
    alone, smallest = quantize_weights(weights, axis=0)
    assert (scale >= smallest * np.where((weights == 0).all(1), 0, 1)).all()
    kept = scale == smallest
    assert (levels[kept] == alone[kept]).all()  # only channels whose bias needs it change


def test_one_scale_for_all_fits_the_largest_bias() -> None:
    bias = np.array([1e3, -1e6, 0.0, 1.0], np.float32)
    levels, scale = quantize_weights(np.ones((4, 3), np.float32), axis=None, input_scale=1e-6, bias=bias)
    assert scale.shape == ()
    assert 1e6 / (1e-6 * float(scale)) < 2**31
    assert (levels == 0).all()


def test_a_channel_of_zeros_can_express_its_bias() -> None:
    bias = np.array([0.5, 0.0], np.float32)
    levels, scale = quantize_weights(np.zeros((2, 3), np.float32), axis=0, input_scale=0.01, bias=bias)
    assert not levels.any()
    assert scale[1] == 1
    step = 0.01 * float(scale[0])
    assert round(0.5 / step) * step == pytest.approx(0.5, rel=1e-6)


def test_the_scale_of_the_bias_is_no_denormal() -> None:
    _, scale = quantize_weights(np.full((2, 3), 1e-35, np.float32), axis=0, input_scale=1e-30, bias=np.zeros(2))
    product = np.float32(1e-30) * scale
    assert (product >= np.finfo(np.float32).tiny).all()


def test_no_weights_at_all() -> None:
    levels, scale = quantize_weights(np.zeros((3, 0), np.float32), axis=0)
    assert levels.shape == (3, 0)
    assert scale.tolist() == [1, 1, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights_that_are_not_finite(bad: float, axis: int | None) -> None:
    w = np.ones((2, 3), np.float32)
    w[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        quantize_weights(w, axis=axis)
