"""What `optimize` tries: named recipes. Every one starts from the same cleaned-up model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnxcomp.recipe import Recipe, Step
from onnxcomp.target import Goal, Target, Technique

__all__ = [
    "ATTENTION",
    "ROUNDED",
    "Candidate",
    "attended",
    "cleanup",
    "computed",
    "corrected",
    "prepared",
    "pruned",
    "quantized",
    "retuned",
    "wanted",
    "weight_only",
]

_CLEANUP_PASSES = (
    "lift-constants",
    "hoist-loop-invariants",
    "remove-identities",
    "fold-constants",
    "fold-bias",  # Conv -> Add -> BatchNormalization
    "fold-batch-norm",
    "fold-bias",  # BatchNormalization -> Mul -> Add
    "simplify-activations",
    "fuse-hard-swish",
    "fuse-gelu",
    "fuse-layer-norm",
    "remove-identities",
    "deduplicate-initializers",
    "remove-dead-code",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe to try on the cleaned-up model."""

    name: str
    recipe: Recipe


ATTENTION = Candidate("attention", Recipe((Step("fuse-attention"),)))
ROUNDED = Candidate("rounded", Recipe((Step("round-weights"),)))

_UPGRADE = Step("upgrade-opset", {"minimum": 13})
_DYNAMIC = Step("quantize-dynamic")
_EXPAND = Step("expand-hard-swish")
_TECHNIQUES: dict[str, Technique] = {
    "prune-channels": "prune",
    "quantize-static": "static",
    "quantize-dynamic": "dynamic",
    "quantize-weights": "weights",
    "share-weights": "weights",
    "store-float16": "weights",
    "convert-float16": "float16",
}
_FUSE = Step("fuse-hard-swish")  # where a node stays float, so does its activation
_STATIC = Step("quantize-static", {"method": "percentile"})
_INT4_TYPES = Step("upgrade-opset", {"minimum": 21})
_INT4 = Step("quantize-weights", {"bits": 4})
_INT8 = Step("quantize-weights")
_SHARE = Step("share-weights", {"bits": 4})
_FLOAT16 = Step("store-float16")  # of what the steps before it left in float32
_COMPUTE = Step("convert-float16")
_PRODUCTS = ["Gemm", "MatMul"]
_EQUALIZE = Step("equalize")
_CORRECT = Step("bias-correct", {"runs": 24})
_COSTS = {"macs": "MACs", "params": "parameters"}
_OTHER_METHODS = ("mmse", "kl")  # on some models one of them loses nothing where percentile loses points
_STATIC_CONV = Step("quantize-static", {"method": "percentile", "anchors": ["Conv"]})


def cleanup() -> Recipe:
    """Return the exact rewrites that every candidate starts from."""
    return Recipe(tuple(Step(name) for name in _CLEANUP_PASSES))


def prepared() -> Recipe:
    """Return all exact rewrites that stand between clean-up and static quantization: they make tensors of their own."""
    return Recipe((_UPGRADE, _EXPAND))


def quantized(*, calibrated: bool) -> list[Candidate]:
    """Return the INT8 candidates, from mild to bold.

    Args:
        calibrated: Whether there are calibration samples: static INT8 needs them.
    """
    found = [Candidate("dynamic", Recipe((_DYNAMIC,)))]
    if calibrated:
        found += [
            Candidate("static-conv+dynamic", Recipe((_UPGRADE, _STATIC_CONV, _DYNAMIC))),
            Candidate("static", Recipe((_UPGRADE, _STATIC))),
            Candidate("static+dynamic", Recipe((_UPGRADE, _STATIC, _DYNAMIC))),
            Candidate("static, expanded", Recipe((_UPGRADE, _EXPAND, _STATIC, _FUSE))),
        ]
    return found


def weight_only() -> list[Candidate]:
    """Return the candidates whose weights alone are compressed, from mild to bold."""
    return [
        Candidate("float16 weights", Recipe((_FLOAT16,))),
        Candidate("int8 weights", Recipe((_INT8, _FLOAT16))),
        Candidate("int4 weights", Recipe((_INT4_TYPES, _INT4, _INT8, _FLOAT16))),
        Candidate("4-bit shared weights", Recipe((_INT4_TYPES, _SHARE, _INT8, _FLOAT16))),
    ]


def computed(target: Target) -> list[Candidate]:
    """Return the candidates that compute in float16, from mild to bold; none where that is not faster.

    In the bold ones products read weights of 8 or 4 bits, where there is a kernel for that.
    """
    if not target.float16:
        return []
    found = [Candidate("float16", Recipe((_COMPUTE,)))]
    for bits in (8, 4) if target.block_products else ():
        products = Step(_INT8.name, {"bits": bits, "ops": _PRODUCTS})
        found.append(Candidate(f"float16, int{bits} products", Recipe((_COMPUTE, products))))
    return found


def wanted(
    recipe: Recipe | None,
    target: Target,
    *,
    calibrated: bool,
    techniques: Collection[Technique] | None = None,
    goal: Goal = "latency",
) -> list[Candidate]:
    """Return what `optimize` builds first; what it learns from them leads to others.

    Args:
        recipe: The user's own, tried instead of the built-in ones.
        target: Where the model will run.
        calibrated: Whether there are calibration samples.
        techniques: The only ones to use; None: all.
        goal: For ``latency`` weights alone are not tried, unless asked for: dynamic INT8 is as small, and faster.
    """
    if recipe is not None:
        return [Candidate("recipe", recipe)]
    found = [*computed(target), *quantized(calibrated=calibrated), ATTENTION]
    if goal != "latency" or (techniques is not None and "weights" in techniques):
        found += weight_only()
    return [c for c in found if techniques is None or _used(c.recipe) <= set(techniques)]


def _used(recipe: Recipe) -> set[Technique]:
    return {_TECHNIQUES[step.name] for step in recipe.steps if step.name in _TECHNIQUES}


def attended(name: str, recipe: Recipe) -> Candidate:
    """Return a candidate that fuses attention before it follows a recipe: its two products stay float then."""
    return Candidate(f"{name}, {ATTENTION.name}", Recipe((*ATTENTION.recipe.steps, *recipe.steps)))


def retuned(name: str, recipe: Recipe, *, rounded: bool) -> list[Candidate]:
    """Return a recipe with other weights and thresholds that are worth a try; none where it does not calibrate.

    Args:
        name: Of the candidate.
        recipe: Its own.
        rounded: Whether weights can be rounded with respect to what their layers read: that takes samples.
    """
    static = _STATIC.name
    if all(step.name != static for step in recipe.steps):
        return []
    found = [Candidate(f"{name}, equalized", _with_exact(recipe, _EQUALIZE))]
    if rounded:
        name, recipe = f"{name}, {ROUNDED.name}", _with_exact(recipe, *ROUNDED.recipe.steps)
        found.append(Candidate(name, recipe))
    for method in _OTHER_METHODS:
        steps = (Step(s.name, {**s.settings, "method": method}) if s.name == static else s for s in recipe.steps)
        found.append(Candidate(f"{name}, {method}", Recipe(tuple(steps))))
    return found


def pruned(name: str, recipe: Recipe, kept: Mapping[str, float]) -> Candidate:
    """Return a candidate that prunes channels and recovers what it can before it follows a recipe.

    Args:
        name: Of the candidate whose recipe it is; none where nothing follows.
        recipe: What follows.
        kept: The share of ``macs`` or ``params`` that is to be left.
    """
    ((what, share),) = kept.items()
    title = f"pruned to {share:.0%} of the {_COSTS[what]}"
    steps = (Step("prune-channels", kept), Step("recover"), *recipe.steps)
    return Candidate(f"{name}, {title}" if name else title, Recipe(steps))


def corrected(name: str, recipe: Recipe) -> Candidate:
    """Return a recipe that corrects biases at its end."""
    return Candidate(f"{name}, bias-corrected", Recipe((*recipe.steps, _CORRECT)))


def _with_exact(recipe: Recipe, *steps: Step) -> Recipe:
    """Put steps before the static quantization, behind the exact rewrites: what they compare with has answers then."""
    at = next(i for i, step in enumerate(recipe.steps) if step.name == _STATIC.name)
    return Recipe((*recipe.steps[:at], *steps, *recipe.steps[at:]))
