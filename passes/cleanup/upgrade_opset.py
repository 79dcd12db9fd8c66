"""Bring the default operator set to a version that later passes need.

Before, after::

    opset 11: Softmax(x, axis=1), Squeeze(x, axes=[2])
    opset 13: Softmax(x, axis=1), Squeeze(x, [2])

onnx's own version converter does the work. It is not always right, which is why this is a pass: its result is executed
and rolled back where the outputs changed. The constants that it makes become initializers, where other passes look.
Declines: models with functions of their own.
"""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxcomp.errors import RecipeError
from onnxcomp.facts import opset
from onnxcomp.model import upgrade_opset
from onnxcomp.passbase import Pass, PassContext, PassStats

from .constants import LiftConstants

__all__ = ["UpgradeOpset", "UpgradeOpsetConfig"]


@dataclass(frozen=True, slots=True)
class UpgradeOpsetConfig:
    """Settings.

    Attributes:
        minimum: The version to reach; a model that is there already is left alone.
    """

    minimum: int = 13

    def __post_init__(self) -> None:
        if not 7 <= self.minimum <= 26:
            raise RecipeError(f"minimum must be in [7, 26], got {self.minimum}")


class UpgradeOpset(Pass[UpgradeOpsetConfig]):
    """Convert to a newer opset."""

    name: ClassVar[str] = "upgrade-opset"
    Config = UpgradeOpsetConfig
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Convert, or do nothing where the opset is new enough."""
        before = opset(model)
        modified = upgrade_opset(model, self.config.minimum)
        if modified:
            LiftConstants().run(model, ctx)
        return PassStats(modified=modified, counters={f"opset {before} to {opset(model)}": 1} if modified else {})
