from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.candidates import ROUNDED, computed, corrected, quantized, retuned, wanted
from onnxcomp.target import TARGETS, Goal


def test_weights_are_changed_behind_the_exact_rewrites() -> None:
    """An exact pass is compared with the original's answers: behind a lossy one it would be rolled back."""
    tried = []
    for candidate in quantized(calibrated=True):
        for other in retuned(candidate.name, candidate.recipe, rounded=True):
            exact = [step.make().exact for step in other.recipe.steps]
            at = next(i for i, step in enumerate(other.recipe.steps) if step.name == "quantize-static")
            assert other.recipe.steps[at - 1] in (*ROUNDED.recipe.steps, Step("equalize"))
            assert all(exact[: at - 1])
            tried.append(other.name.removeprefix(candidate.name))
    assert sorted(set(tried)) == [", equalized", ", rounded", ", rounded, kl", ", rounded, mmse"]
    assert len(tried) == 16


def test_only_what_calibrates_is_tuned_anew() -> None:
    assert retuned("dynamic", Recipe((Step("quantize-dynamic"),)), rounded=True) == []
    found = retuned("static", Recipe((Step("quantize-static"),)), rounded=False)
    assert [other.name for other in found] == ["static, equalized", "static, mmse", "static, kl"]


def test_biases_are_corrected_at_the_end() -> None:
    found = corrected("static", Recipe((Step("quantize-static"),)))
    assert [step.name for step in found.recipe.steps] == ["quantize-static", "bias-correct"]


def test_what_a_gpu_is_made_for_is_built_first() -> None:
    halves = [one.name for one in computed(TARGETS["cuda"])]
    assert halves == ["float16", "float16, int8 products", "float16, int4 products"]
    goals: tuple[Goal, ...] = ("latency", "size")
    for goal in goals:
        assert [one.name for one in wanted(None, TARGETS["cuda"], calibrated=True, goal=goal)][:3] == halves
    assert [one.name for one in computed(TARGETS["tensorrt"])] == ["float16"]
    assert computed(TARGETS["cpu-x86-vnni"]) == []
    without = wanted(None, TARGETS["cuda"], calibrated=False, techniques=["float16"])
    assert [one.name for one in without if one.recipe.steps[-1].name != "fuse-attention"] == ["float16"]
