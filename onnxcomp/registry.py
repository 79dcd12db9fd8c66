"""Pass names and the classes behind them. Ours are a static table; third parties add theirs by entry point.

A package offers a pass with ``[project.entry-points."onnxcomp.passes"] my-pass = "my_package.my_module:MyPass"``.
Nothing is imported before it is asked for.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from onnxcomp.errors import RecipeError
from onnxcomp.passbase import Pass

__all__ = ["BUILT_IN", "names", "pass_class"]

_GROUP = "onnxcomp.passes"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "deduplicate-initializers": "onnxcomp.passes.cleanup.deduplicate:DeduplicateInitializers",
        "expand-hard-swish": "onnxcomp.passes.cleanup.expand_hard_swish:ExpandHardSwish",
        "fold-batch-norm": "onnxcomp.passes.cleanup.batch_norm:FoldBatchNorm",
        "fold-bias": "onnxcomp.passes.cleanup.bias:FoldBias",
        "fold-constants": "onnxcomp.passes.cleanup.fold_constants:FoldConstants",
        "fuse-attention": "onnxcomp.passes.cleanup.fuse_attention:FuseAttention",
        "fuse-gelu": "onnxcomp.passes.cleanup.gelu:FuseGelu",
        "fuse-hard-swish": "onnxcomp.passes.cleanup.hard_swish:FuseHardSwish",
        "fuse-layer-norm": "onnxcomp.passes.cleanup.layer_norm:FuseLayerNorm",
        "hoist-loop-invariants": "onnxcomp.passes.cleanup.loop_invariants:HoistLoopInvariants",
        "lift-constants": "onnxcomp.passes.cleanup.constants:LiftConstants",
        "remove-dead-code": "onnxcomp.passes.cleanup.dead_code:RemoveDeadCode",
        "remove-identities": "onnxcomp.passes.cleanup.identities:RemoveIdentities",
        "simplify-activations": "onnxcomp.passes.cleanup.activations:SimplifyActivations",
        "unshare-initializers": "onnxcomp.passes.cleanup.unshare:UnshareInitializers",
        "upgrade-opset": "onnxcomp.passes.cleanup.upgrade_opset:UpgradeOpset",
        "prune-channels": "onnxcomp.passes.prune.channels:PruneChannels",
        "prune-blocks": "onnxcomp.passes.prune.blocks:PruneBlocks",
        "prune-weights": "onnxcomp.passes.prune.weights:PruneWeights",
        "recover": "onnxcomp.passes.prune.recover:Recover",
        "distill": "onnxcomp.passes.prune.distill:Distill",
        "bias-correct": "onnxcomp.passes.quantize.bias_correct:BiasCorrect",
        "equalize": "onnxcomp.passes.quantize.equalize:Equalize",
        "quantize-dynamic": "onnxcomp.passes.quantize.dynamic:QuantizeDynamic",
        "smooth": "onnxcomp.passes.quantize.smooth:Smooth",
        "split-outliers": "onnxcomp.passes.quantize.split_outliers:SplitOutliers",
        "quantize-static": "onnxcomp.passes.quantize.static:QuantizeStatic",
        "round-weights": "onnxcomp.passes.quantize.rounding:RoundWeights",
        "quantize-weights": "onnxcomp.passes.quantize.weight_only:QuantizeWeights",
        "convert-float16": "onnxcomp.passes.quantize.half:ConvertFloat16",
        "share-weights": "onnxcomp.passes.share.share_weights:ShareWeights",
        "store-float16": "onnxcomp.passes.quantize.float16:StoreFloat16",
    }
)


def names() -> tuple[str, ...]:
    """Return the name of every pass, ours first."""
    return (*BUILT_IN, *(e.name for e in entry_points(group=_GROUP) if e.name not in BUILT_IN))


def pass_class(name: str) -> type[Pass[Any]]:
    """Return the class of a pass.

    Raises:
        RecipeError: There is no such pass, or the package that offers it can't be imported.
    """
    place = BUILT_IN.get(name) or next((e.value for e in entry_points(group=_GROUP) if e.name == name), None)
    if place is None:
        raise RecipeError(f"there is no pass {name!r}", hint=f"passes: {', '.join(names())}")
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise RecipeError(f"pass {name!r} can't be loaded from {place}: {err}") from err
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise RecipeError(f"pass {name!r}: {place} is not a Pass")
    return found
