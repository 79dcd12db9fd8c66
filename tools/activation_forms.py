"""What becomes of activation functions between two convolutions in static INT8: ``python tools/activation_forms.py``.

Prints a table: the operators that onnxruntime runs for each function after quantization, and the time of the model
as a share of the float model's, and of the quantized model with a Relu in its place, which costs nothing.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from onnxcomp import quantize
from onnxcomp.measure import Ratio, interleave
from onnxcomp.model import load, open_session, serialized
from onnxcomp.runtime import optimized_graph

__all__ = ["FORMS", "kernels", "made", "main"]

FORMS: Mapping[str, str] = {
    "Relu": "y = Relu(a)",
    "Clip": "y = Clip(a, zero, six)",
    "Min of Max": "r = Max(a, zero)  y = Min(r, six)",
    "LeakyRelu": "y = LeakyRelu(a)",
    "PRelu, one slope": "y = PRelu(a, slope)",
    "PRelu, slope by channel": "y = PRelu(a, slopes)",
    "Sigmoid": "y = Sigmoid(a)",
    "SiLU": "s = Sigmoid(a)  y = Mul(a, s)",
    "HardSigmoid": "y = HardSigmoid(a)",
    "HardSwish": "y = HardSwish(a)",
    "Tanh": "y = Tanh(a)",
    "Elu": "y = Elu(a)",
    "Gelu": "y = Gelu(a)",
    "Mish": "y = Mish(a)",
}
_CHANNELS = 32
_SHELL = {"QLinearConv": 2, "QuantizeLinear": 1, "DequantizeLinear": 1}  # of the convolutions themselves


def made(form: str, side: int) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    """Return a model of two convolutions with a function between them, and four inputs.

    Args:
        form: The function, from ``a`` to ``y``, in the syntax of ``onnx.parser``.
        side: Of the image.
    """
    rng = np.random.default_rng(0)
    shape = (1, _CHANNELS, side, side)
    head = f"g (float[{', '.join(map(str, shape))}] x) => (float[{', '.join(map(str, shape))}] z)"
    body = f"a = Conv <pads = [1, 1, 1, 1]> (x, w, b)  {form}  z = Conv <pads = [1, 1, 1, 1]> (y, v)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 22]> {head} {{ {body} }}')
    kernel = (_CHANNELS, _CHANNELS, 3, 3)
    constants = {
        "w": rng.normal(size=kernel) / 17,
        "v": rng.normal(size=kernel) / 17,
        "b": rng.normal(size=_CHANNELS) / 4,
        "slope": np.array([0.25]),
        "slopes": np.abs(rng.normal(size=(_CHANNELS, 1, 1))) / 4,
        "zero": np.array(0.0),
        "six": np.array(6.0),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items() if name in used
    )
    feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(4)]
    return model.SerializeToString(), feeds


def kernels(form: str, side: int = 8) -> Counter[str]:
    """Return what onnxruntime runs for a function in the quantized model."""
    model, feeds = made(form, side)
    found = quantize(model, mode="static", calibration=feeds, bench=False).model
    graph = onnx.load_from_string(optimized_graph(serialized(found))).graph
    return Counter(node.op_type for node in graph.node) - Counter(_SHELL)


def _ratios(form: str, side: int, seconds: float) -> tuple[Ratio, Ratio]:
    """Return the time of the quantized model over that of the float one, and over that with a Relu."""
    (model, feeds), (plain, _) = made(form, side), made(FORMS["Relu"], side)
    integer, relu = (quantize(m, mode="static", calibration=feeds, bench=False).model for m in (model, plain))
    sessions = {"float": load(model), "int8": integer, "relu": relu}
    contenders = {name: partial(open_session(m, threads=1).run, feeds[0]) for name, m in sessions.items()}
    over = [
        interleave(contenders, baseline=name, max_seconds=seconds, seed=0).ratios["int8"] for name in ("float", "relu")
    ]
    return over[0], over[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=56, help="of the image; it has 32 channels")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each of two comparisons")
    args = parser.parse_args()
    print("| function | what runs for it | time over float | time over Relu |\n| --- | --- | --- | --- |")
    for name, form in FORMS.items():
        runs = ", ".join(f"{count} {kind}" for kind, count in kernels(form).items()) or "nothing"
        whole, alone = (f"{r.ratio:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in _ratios(form, args.side, args.seconds))
        print(f"| {name} | {runs} | {whole} | {alone} |", flush=True)


if __name__ == "__main__":
    main()
