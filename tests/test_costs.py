"""Multiply-accumulate operations of single nodes, against counts by hand."""

import onnx.parser
import onnx_ir as ir
import pytest

from onnxcomp.costs import macs

CASES = {
    # inputs with shapes, node, output shape, expected
    "conv": ("float[1,6,10,10] x, float[8,3,3,3] w", "Conv <group=2> (x, w)", "float[1,8,8,8] y", 8 * 8 * 8 * 3 * 9),
    "conv 1-d": ("float[2,4,10] x, float[8,4,3] w", "Conv (x, w)", "float[2,8,8] y", 2 * 8 * 8 * 4 * 3),
    "conv transpose": (
        "float[1,4,5,5] x, float[4,2,3,3] w",
        "ConvTranspose (x, w)",
        "float[1,2,7,7] y",
        4 * 25 * 2 * 9,
    ),
    "gemm": ("float[5,7] x, float[3,7] w", "Gemm <transB=1> (x, w)", "float[5,3] y", 5 * 7 * 3),
    "matmul": ("float[2,1,5,7] x, float[4,7,3] w", "MatMul (x, w)", "float[2,4,5,3] y", 2 * 4 * 5 * 7 * 3),
    "matmul of vectors": ("float[7] x, float[7] w", "MatMul (x, w)", "float y", 7),
    "matmul of one vector": ("float[5,7] x, float[7] w", "MatMul (x, w)", "float[5] y", 35),
    "lstm": (
        "float[6,2,5] x, float[1,12,5] w, float[1,12,3] r",
        "LSTM <hidden_size=3> (x, w, r)",
        "float[6,1,2,3] y",
        6 * 2 * 4 * 3 * (5 + 3),
    ),
    "gru, both ways": (
        "float[6,2,5] x, float[2,9,5] w, float[2,9,3] r",
        'GRU <hidden_size=3, direction="bidirectional"> (x, w, r)',
        "float[6,2,2,3] y",
        6 * 2 * 2 * 3 * 3 * (5 + 3),
    ),
    "einsum": (
        "float[2,5,7] x, float[2,7,3] w",
        'Einsum <equation="bij,bjk->bik"> (x, w)',
        "float[2,5,3] y",
        2 * 5 * 7 * 3,
    ),
    "integers": ("uint8[5,7] x, int8[7,3] w", "MatMulInteger (x, w)", "int32[5,3] y", 105),
    "sum": ("float[5,7] x, float[5,7] w", "Add (x, w)", "float[5,7] y", 0),
    "unknown size": ("float[N,7] x, float[7,3] w", "MatMul (x, w)", "float[N,3] y", None),
    "unknown shape": ("float[] x, float[7,3] w", "MatMul (x, w)", "float[] y", None),
    "shapes that do not fit": ("float[2,5,7] x, float[3,7,3] w", "MatMul (x, w)", "float[2,5,3] y", None),
    "einsum of three": (
        "float[2,3] x, float[3,4] w",
        'Einsum <equation="ij,jk,kl->il"> (x, w, w)',
        "float[2,4] y",
        None,
    ),
    "a domain that nobody knows": ("float[2,3] x, float[3,4] w", "other.Product (x, w)", "float[2,4] y", None),
    "fused product": ("float[5,7] x, float[3,7] w", "com.microsoft.FusedMatMul <transB=1> (x, w)", "float[5,3] y", 105),
    "linear, of ai.onnx.ml": (
        "float[5,3] x, float[1] w",
        "ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0, 3.0], targets = 1> (x)",
        "float[5,1] y",
        15,
    ),
    "scaling, of ai.onnx.ml": ("float[5,3] x, float[1] w", "ai.onnx.ml.Scaler (x)", "float[5,3] y", 0),
    "kernels, of ai.onnx.ml": ("float[5,3] x, float[1] w", "ai.onnx.ml.SVMRegressor (x)", "float[5,1] y", None),
    "not counted": ("float[2,4,8] x, int64 w", "DFT (x, w)", "float[2,4,8,2] y", None),
}


@pytest.mark.parametrize("name", CASES)
def test_counts(name: str) -> None:
    inputs, node, output, expected = CASES[name]
    header = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "other": 1, "ai.onnx.ml": 2]>'
    model = ir.from_proto(onnx.parser.parse_model(f"{header} g ({inputs}) => ({output}) {{ y = {node} }}"))
    assert macs(next(iter(model.graph))) == expected
