"""Models of scikit-learn, exported by skl2onnx: operators of the domain ``ai.onnx.ml``, string inputs, maps."""

from pathlib import Path

import numpy as np
import skl2onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

__all__ = ["export"]

_OPSET = 18
_FLOATS = [("x", FloatTensorType([None, 6]))]


def export(folder: Path) -> list[str]:
    """Fit and export every model; return the file names."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    classes = (rows[:, 0] + rows[:, 1] > 0).astype(np.int64) + (rows[:, 2] > 1)
    words = rng.choice(["red", "green", "blue"], (200, 1))
    mixed = np.concatenate([words.astype(object), rows[:, :2].astype(object)], axis=1)
    columns = ColumnTransformer([("word", OneHotEncoder(), [0]), ("numbers", StandardScaler(), [1, 2])])
    table = [("word", StringTensorType([None, 1])), ("numbers", FloatTensorType([None, 2]))]
    models = {
        "boosting": (GradientBoostingClassifier(n_estimators=10, max_depth=3, random_state=0), rows, _FLOATS, False),
        "forest": (RandomForestRegressor(n_estimators=8, max_depth=4, random_state=0), rows, _FLOATS, False),
        "logistic": (LogisticRegression(), rows, _FLOATS, True),
        "pipeline": (make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=50, random_state=0)), rows, _FLOATS,
                     False),
        "strings": (make_pipeline(columns, LogisticRegression()), mixed, table, False),
    }  # fmt: skip
    names = []
    for name, (model, inputs, types, maps) in models.items():
        model.fit(inputs, rows[:, 0] if name == "forest" else classes)
        options = {} if name == "forest" else {"zipmap": maps}
        last = model[-1] if hasattr(model, "steps") else model
        proto = skl2onnx.to_onnx(
            model, initial_types=types, target_opset={"": _OPSET, "ai.onnx.ml": 3},
            options={id(last): options} if options else None,
        )  # fmt: skip
        file = f"sklearn_{name}.onnx"
        (folder / file).write_bytes(proto.SerializeToString())
        names.append(file)
    return names
