from onnxcomp.recipe import Recipe, Step
from onnxcomp.search.candidates import ROUNDED, quantized, retuned


def test_weights_are_rounded_behind_the_exact_rewrites() -> None:
    """An exact pass is compared with the original's answers: behind a lossy one it would be rolled back."""
    tried = 0
    for candidate in quantized(calibrated=True):
        for other in retuned(candidate.name, candidate.recipe, rounded=True):
            exact = [step.make().exact for step in other.recipe.steps]
            at = other.recipe.steps.index(ROUNDED.recipe.steps[0])
            assert all(exact[:at])
            assert other.recipe.steps[at + 1].name == "quantize-static"
            tried += 1
    assert tried == 12


def test_only_what_calibrates_is_tuned_anew() -> None:
    assert retuned("dynamic", Recipe((Step("quantize-dynamic"),)), rounded=True) == []
    found = retuned("static", Recipe((Step("quantize-static"),)), rounded=False)
    assert [other.name for other in found] == ["static, mmse", "static, kl"]
