"""The table of ``quantize --mode``: for each mode the pass that does it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from onnxcomp import registry
from onnxcomp.errors import UsageError
from onnxcomp.recipe import Step
from onnxcomp.target import Target

__all__ = ["MODES", "Mode", "get_mode"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to quantize by hand.

    Attributes:
        name: As given to ``--mode``.
        work: Name of the pass that quantizes.
        front: Exact steps before it.
        ops: Which of its settings names operator types.
        computing: Name of the pass that quantizes where ``form`` is ``compute``.
    """

    name: str
    work: str
    front: tuple[Step, ...] = ()
    ops: str = "ops"
    computing: str | None = None

    def formed(self, form: str | None, target: Target) -> tuple["Mode", str | None]:
        """Return the mode whose pass has the form that is asked for, and what is left of it for the pass.

        Raises:
            UsageError: The mode has forms of its own, and this is none of them.
        """
        if self.computing is None:
            return self, form
        if form not in (None, *_FLOAT16_FORMS):
            raise UsageError(f"mode {self.name} has no form {form!r}", hint=f"one of: {', '.join(_FLOAT16_FORMS)}")
        computes = form == "compute" or (form != "store" and target.float16)
        return dataclasses.replace(self, work=self.computing if computes else self.work), None

    def step(self, options: Mapping[str, Any], *, ops: Sequence[str] | None, exclude: Sequence[str]) -> Step:
        """Return the quantizing step with the settings that were asked for.

        Args:
            options: By the name of the command-line option; None and False mean the pass's default.
            ops: Operator types; None or nothing: all that the pass knows.
            exclude: Names of nodes.

        Raises:
            UsageError: The mode has no such setting, or names are given as one text.
            RecipeError: A value is wrong.
        """
        if isinstance(ops, str) or isinstance(exclude, str):
            raise UsageError("ops and exclude are lists of names, not one text", hint="pass ['name']")
        known = {field.name for field in dataclasses.fields(registry.pass_class(self.work).Config)}
        settings: dict[str, Any] = {}
        for option, value in {**options, "ops": list(ops or ()), "exclude": list(exclude)}.items():
            setting = {"per-tensor": "per_channel", "ops": self.ops}.get(option, option.replace("-", "_"))
            if value is None or value is False or value == []:
                continue
            if setting not in known:
                raise UsageError(f"mode {self.name} has no --{option}", hint=f"onnxcomp passes {self.work}")
            settings[setting] = value if option != "per-tensor" else False
        step = Step(self.work, settings)
        step.make()
        return step

    def in_front(self, step: Step) -> tuple[Step, ...]:
        """Return the exact steps that a quantizing step needs before it."""
        new_types = step.settings.get("bits") == 4 or step.settings.get("form") == "dequantize"
        return (*self.front, *([_NEW_TYPES] if new_types else []))


_FLOAT16_FORMS = ("auto", "store", "compute")
_NEW_TYPES = Step("upgrade-opset", {"minimum": 21})  # 4-bit integers, and scales of blocks

MODES: Mapping[str, Mode] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            Mode("static", "quantize-static", (Step("upgrade-opset", {"minimum": 13}),), ops="anchors"),
            Mode("dynamic", "quantize-dynamic", (Step("upgrade-opset", {"minimum": 11}),)),
            Mode("weight-only", "quantize-weights"),
            Mode("float16", "store-float16", computing="convert-float16"),
        )
    }
)


def get_mode(name: str) -> Mode:
    """Return the mode of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in MODES:
        raise UsageError(f"unknown mode {name!r}", hint=f"one of: {', '.join(MODES)}")
    return MODES[name]
