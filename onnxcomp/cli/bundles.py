"""Options that go together: a command takes them as one value, its command line as one option each.

::

    @expanded
    def command(model: options.Model, *, images: Images, delivery: Delivery) -> None: ...
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

from onnxcomp.cli import options

if TYPE_CHECKING:
    from onnxcomp import target
    from onnxcomp.cli import output
    from onnxcomp.data import ImageOptions

__all__ = ["Bundle", "Delivery", "DryDelivery", "Gates", "Images", "QualityGates", "expanded"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What stands for a parameter of a command: options by name, each with its type and default, and what they make."""

    parts: Mapping[str, tuple[Any, Any]]
    make: Callable[..., Any]


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the options of its bundles in place of the bundles."""
    parameters: list[inspect.Parameter] = []
    bundles: dict[str, Bundle] = {}
    for parameter in inspect.signature(command).parameters.values():
        bundle = next((extra for extra in get_args(parameter.annotation)[1:] if isinstance(extra, Bundle)), None)
        if bundle is None:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        bundles[parameter.name] = bundle
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, (kind, default) in bundle.parts.items()
        ]

    @functools.wraps(command)
    def taking_each(**given: Any) -> None:
        for name, bundle in bundles.items():
            given[name] = bundle.make(**{part: given.pop(part) for part in bundle.parts})
        command(**given)

    taking_each.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    taking_each.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return taking_each


def _images(**given: Any) -> "ImageOptions | None":
    from onnxcomp.cli.images import image_options

    return image_options(size=given.pop("image_size"), **given)


def _gates(*, max_size: str | None = None, **bounds: float | None) -> "target.Gates":
    from onnxcomp.cli.sizes import parse_size
    from onnxcomp.target import Gates

    return Gates(max_size=None if max_size is None else parse_size(max_size), **bounds)


def _delivery(**given: Any) -> "output.Delivery":
    from onnxcomp.cli.output import Delivery

    return Delivery(**given)


_IMAGES: Mapping[str, tuple[Any, Any]] = {
    "image_size": (options.ImageSize, None),
    "mean": (options.ImageMean, None),
    "std": (options.ImageStd, None),
    "layout": (options.ImageLayout, None),
    "resize": (options.ImageResize, None),
}
_QUALITY: Mapping[str, tuple[Any, Any]] = {
    "max_drop": (options.MaxDropGate, None),
    "min_agreement": (options.MinAgreementGate, None),
    "min_sqnr": (options.MinSqnrGate, None),
}
_ALL = {
    **_QUALITY,
    "max_size": (options.MaxSizeGate, None),
    "max_latency_ratio": (options.MaxLatencyGate, None),
}
_DELIVERY: Mapping[str, tuple[Any, Any]] = {
    "report": (options.Reports, None),
    "overwrite": (options.Overwrite, False),
    "output_format": (options.OutputFormat, options.Format.TEXT),
    "verbose": (options.Verbose, False),
    "quiet": (options.Quiet, False),
}

# How images of a folder become inputs; None where nothing was said of it
Images = Annotated["ImageOptions | None", Bundle(_IMAGES, _images)]
# Bounds of commands that make or judge one model
QualityGates = Annotated["target.Gates", Bundle(_QUALITY, _gates)]
Gates = Annotated["target.Gates", Bundle(_ALL, _gates)]
# Where a command's results go; the second one is for commands that write a model
Delivery = Annotated["output.Delivery", Bundle(_DELIVERY, _delivery)]
DryDelivery = Annotated["output.Delivery", Bundle({**_DELIVERY, "dry_run": (options.DryRun, False)}, _delivery)]
