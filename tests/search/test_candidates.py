from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.candidates import ROUNDED, corrected, quantized, retuned


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
