"""Keras models, exported by tf2onnx: channels last, transposes, Keras's own LSTM."""

from pathlib import Path

import tensorflow as tf
import tf2onnx
from tensorflow.keras import Model, Sequential, layers

__all__ = ["export"]

_OPSET = 17


def _models() -> dict[str, tuple[Model, tf.TensorSpec]]:
    cnn = Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
            layers.Conv2D(16, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    lstm = Sequential([layers.Input((12,)), layers.Embedding(40, 16), layers.LSTM(24), layers.Dense(4)])
    up = Sequential(
        [
            layers.Input((8, 8, 4)),
            layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu"),
            layers.UpSampling2D(),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )
    return {
        "cnn": (cnn, tf.TensorSpec((None, 16, 16, 3), tf.float32, name="x")),
        "lstm": (lstm, tf.TensorSpec((None, 12), tf.float32, name="x")),
        "upsample": (up, tf.TensorSpec((None, 8, 8, 4), tf.float32, name="x")),
    }


def export(folder: Path) -> list[str]:
    """Export every model; return the file names."""
    tf.keras.utils.set_random_seed(0)
    names = []
    for name, (model, spec) in _models().items():
        file = f"keras_{name}.onnx"
        tf2onnx.convert.from_keras(model, input_signature=[spec], opset=_OPSET, output_path=str(folder / file))
        names.append(file)
    return names
