"""`check`: each gate kept and missed, times that decide and times that do not, what was saved held against what is."""

import dataclasses
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

import onnxcomp
from onnxcomp.api import benchmark
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import DataError, EnvironmentUnavailable, GateFailed, MetricError, UsageError
from onnxcomp.measure import Comparison, Ratio, Timing
from onnxcomp.report import CheckReport, annotations, junit_xml
from onnxcomp.target import Gates

Parse = Callable[..., onnx.ModelProto]
Times = Callable[..., None]
LINEAR = "g (float[N,3] x) => (float[N,3] y) { y = Add(x, b) }"


@pytest.fixture
def project(parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an original, a model that errs in 10 of 100 answers, and labelled rows."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-0.1, 0.1, (100, 3)).astype(np.float32)
    rows[:, 0] += np.where(np.arange(100) < 10, 0.5, 2)
    np.savez(tmp_path / "eval.npz", x=rows, labels=np.zeros(100, np.int64))
    np.savez(tmp_path / "unlabelled.npz", x=rows)
    for name, bias in (("original", [0.0, 0, 0]), ("small", [0.0, 1, 0])):
        (tmp_path / f"{name}.onnx").write_bytes(parse(LINEAR, {"b": bias}).SerializeToString())
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tmp_path


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Make up what interleaved runs find out, one after the other; the last one again and again."""

    def set_times(*found: tuple[float, float, float]) -> None:
        left = list(found)

        def interleave(contenders: Mapping[str, Callable[[], object]], *, baseline: str, **_: Any) -> Comparison:
            ratio = Ratio(*(left.pop(0) if len(left) > 1 else left[0]))
            timings = tuple(Timing(name, 0.001, 0.002, 0.003, 10, 0.001) for name in contenders)
            ratios = {name: ratio for name in contenders if name != baseline}
            return Comparison(timings, ratios, rounds=10, seconds=0.1, settled=True)

        monkeypatch.setattr(benchmark, "interleave", interleave)

    def unknown(*_: object, **__: object) -> None:
        raise EnvironmentUnavailable("no process for it")

    monkeypatch.setattr(benchmark, "peak_memory", unknown)
    set_times((0.5, 0.49, 0.51))
    return set_times


def call(line: str) -> int:
    return run(build_app(), line.split())


def checked(gates: Gates, **settings: Any) -> CheckReport:
    """Check the small model; return the report, of a failure too."""
    try:
        return onnxcomp.check("small.onnx", baseline="original.onnx", gates=gates, **settings)
    except GateFailed as err:
        return cast(CheckReport, err.report)


def statuses(report: CheckReport) -> dict[str, str]:
    return {result.name: result.status for result in report.results}


@pytest.mark.parametrize(
    ("name", "kept", "missed", "value"),
    [
        ("max_size", 1000, 100, None),
        ("max_size_ratio", 1.0, 0.99, 1.0),
        ("max_drop", 0.1, 0.09, 0.1),
        ("min_agreement", 0.9, 0.91, 0.9),
        ("min_sqnr", 5.0, 50.0, None),
        ("max_latency_ratio", 0.6, 0.4, 0.5),
    ],
)
@pytest.mark.usefixtures("project", "times")
def test_each_gate_kept_and_missed(name: str, kept: float, missed: float, value: float | None) -> None:
    report = onnxcomp.check("small.onnx", baseline="original.onnx", eval="eval.npz", gates=Gates(**{name: kept}))
    (result,) = report.results
    assert (result.name, result.status, result.reason) == (name.replace("_", "-"), "passed", "")
    assert report.missed == ()
    with pytest.raises(GateFailed) as caught:
        onnxcomp.check("small.onnx", baseline="original.onnx", eval="eval.npz", gates=Gates(**{name: missed}))
    failed = caught.value.report
    assert isinstance(failed, CheckReport)
    (result,) = failed.results
    assert (result.status, result.bound) == ("failed", missed)
    assert result.reason
    assert caught.value.exit_code == 1
    if value is not None:
        assert result.value == pytest.approx(value)


@pytest.mark.usefixtures("project")
def test_a_drop_comes_with_its_interval_and_samples() -> None:
    (result,) = checked(Gates(max_drop=0.01), eval="eval.npz").results
    assert result.low is not None
    assert result.high is not None
    assert 0 < result.low < 0.1 < result.high < 0.2
    assert result.samples == 100


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ((0.79, 0.78, 0.8), "passed"),
        ((0.79, 0.78, 0.81), "undecided"),
        ((0.82, 0.8, 0.84), "undecided"),
        ((0.82, 0.81, 0.83), "failed"),
        ((0.5, 0.0, float("inf")), "undecided"),
    ],
)
@pytest.mark.usefixtures("project")
def test_times_fail_only_where_all_of_the_interval_is_over_the_bound(
    times: Times, found: tuple[float, float, float], status: str
) -> None:
    times(found)
    report = checked(Gates(max_latency_ratio=0.8))
    assert statuses(report) == {"max-latency-ratio": status}
    assert bool(report.missed) == (status == "failed")
    strict = checked(Gates(max_latency_ratio=0.8), strict=True)
    assert bool(strict.missed) == (status != "passed")


@pytest.mark.usefixtures("project")
def test_a_close_call_is_timed_again_with_new_sessions(times: Times) -> None:
    times((0.81, 0.805, 0.815), (0.79, 0.785, 0.795), (0.8, 0.795, 0.805))
    (result,) = checked(Gates(max_latency_ratio=0.8)).results
    assert (result.status, result.value, result.low, result.high) == ("undecided", 0.8, 0.785, 0.815)
    assert "holds the bound 0.8: not decided within 30 s" in result.reason
    times((0.5, 0.49, 0.51), (5, 5, 5))
    (result,) = checked(Gates(max_latency_ratio=0.8)).results
    assert (result.status, result.value) == ("passed", 0.5)


@pytest.mark.usefixtures("project")
def test_no_sqnr_without_floats(parse: Parse) -> None:
    text = "g (float[N,3] x) => (int64[N] y) { y = ArgMax <axis: int = 1, keepdims: int = 0> (x) }"
    content = parse(text).SerializeToString()
    report = onnxcomp.check(content, baseline=content, gates=Gates(min_sqnr=20, min_agreement=1))
    assert statuses(report) == {"min-agreement": "passed", "min-sqnr": "not measured"}
    assert (report.model, report.baseline, report.baseline_sha256) == ("the model", "the original", None)
    with pytest.raises(GateFailed, match="no output of floats"):
        onnxcomp.check(content, baseline=content, gates=Gates(min_sqnr=20), strict=True)


@pytest.mark.usefixtures("project")
def test_a_size_alone_needs_no_original() -> None:
    report = onnxcomp.check("small.onnx", gates=Gates(max_size=10_000))
    assert statuses(report) == {"max-size": "passed"}
    assert (report.baseline, report.evaluation, report.latency) == (None, None, None)


@pytest.mark.usefixtures("project")
def test_wrong_settings() -> None:
    with pytest.raises(UsageError, match="there is no gate"):
        onnxcomp.check("small.onnx", baseline="original.onnx")
    with pytest.raises(UsageError, match="min-agreement needs the original"):
        onnxcomp.check("small.onnx", gates=Gates(min_agreement=0.9, max_size=1))
    with pytest.raises(MetricError, match="max-drop needs labels"):
        onnxcomp.check("small.onnx", baseline="original.onnx", eval="unlabelled.npz", gates=Gates(max_drop=0.1))
    with pytest.raises(UsageError, match="tolerance must be 0 or more"):
        onnxcomp.check("small.onnx", gates=Gates(max_size=1), tolerance=-1)
    with pytest.raises(UsageError, match="seconds"):
        onnxcomp.check("small.onnx", gates=Gates(max_size=1), seconds=float("nan"))


ALL = "check small.onnx --baseline original.onnx --eval eval.npz"
ERRORS = {
    "no gate": (ALL, 2, "there is no gate"),
    "no original": ("check small.onnx --max-drop 0.1", 2, "--baseline ORIGINAL"),
    "model missing": ("check none.onnx --max-size 1MB", 2, "cannot read none.onnx"),
    "original missing": ("check small.onnx --baseline none.onnx --max-size-ratio 1", 2, "cannot read none.onnx"),
    "model of another kind": ("check eval.npz --max-size 1MB", 3, "is not an ONNX model"),
    "size": (f"{ALL} --max-size big", 2, "not a size"),
    "ratio": (f"{ALL} --max-size-ratio 0", 2, "max-size-ratio must be positive"),
    "not a number": (f"{ALL} --max-drop nan", 2, "max-drop must be a number"),
    "unknown option": (f"{ALL} --max-weight 3", 2, "--max-weight"),
    "report over the model": (f"{ALL} --max-drop 1 --junit small.onnx --overwrite", 2, "the input itself"),
    "outputs alike": (f"{ALL} --max-drop 1 --junit r.json --report r.json", 2, "the same path"),
    "baseline as text": (f"{ALL} --max-drop 1 --save-baseline b.txt", 2, "end it in .json"),
    "nothing saved": (f"{ALL} --against none.json", 2, "cannot read the saved baseline none.json"),
    "something else saved": (f"{ALL} --against eval.npz", 2, "cannot read the saved baseline eval.npz"),
    "saved onto itself": (f"{ALL} --against eval.json --save-baseline eval.json --overwrite", 2, "the input itself"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "eval.json").write_text("{}", encoding="utf-8")
    before = sorted(path.name for path in project.iterdir())
    line, code, says = ERRORS[name]
    assert call(line) == code
    out, err = capfd.readouterr()
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(path.name for path in project.iterdir()) == before


def test_the_command_writes_its_reports_where_a_gate_fails_too(
    project: Path, times: Times, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    times((0.8, 0.7, 0.9))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "page.md")
    line = f"{ALL} --max-drop 0.01 --max-latency-ratio 0.8 --max-size 1MB --format json"
    assert call(f"{line} --report r.md --report r.json --junit r.xml --save-baseline b.json") == 1
    out, err = capfd.readouterr()
    printed = json.loads(out)
    assert printed == json.loads((project / "r.json").read_text(encoding="utf-8"))
    found = {result["name"]: result["status"] for result in printed["results"]}
    assert found == {"max-size": "passed", "max-drop": "failed", "max-latency-ratio": "undecided"}
    text = (project / "r.md").read_text(encoding="utf-8")
    assert (project / "page.md").read_text(encoding="utf-8") == f"{text}\n"
    assert "| max-drop | **failed** | 0.0100 | 0.1000 |" in text
    failed, undecided = (line for line in err.splitlines() if line.startswith("::"))
    assert failed.startswith("::error title=onnxcomp check%3A max-drop failed::small.onnx: the metric drops by 0.1000")
    assert undecided.startswith("::warning title=onnxcomp check%3A max-latency-ratio undecided::small.onnx: 0.800")
    assert "95 %25 interval [0.700, 0.900]" in undecided
    assert not (project / "b.json").exists()  # a failure is no baseline


def test_no_annotations_outside_of_github(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(f"{ALL} --max-drop 0.01") == 1
    out, err = capfd.readouterr()
    assert "::" not in out + err
    assert "FAILED: 0 of 1 gate passed; failed: max-drop" in out


def test_junit_has_a_case_per_gate(project: Path, times: Times) -> None:
    times((0.8, 0.7, 0.9))
    line = f"{ALL} --max-drop 0.01 --max-latency-ratio 0.8 --max-size 1MB --junit r.xml --overwrite -q"
    assert call(line) == 1
    suites = ET.parse(project / "r.xml").getroot()
    (suite,) = suites
    assert (suites.tag, suite.tag, suite.get("name")) == ("testsuites", "testsuite", "small.onnx")
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "1"]
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {
        "max-size": ["system-out"],
        "max-drop": ["failure", "system-out"],
        "max-latency-ratio": ["skipped", "system-out"],
    }
    assert call(f"{line} --strict") == 1
    (suite,) = ET.parse(project / "r.xml").getroot()
    assert [suite.get(name) for name in ("failures", "skipped")] == ["2", "0"]


HOSTILE = "a<b>&\"'\n::error::x\r%0A\x1b[31m\x00]]>\udcff|.onnx"


@pytest.mark.usefixtures("project")
def test_names_can_not_break_out(parse: Parse) -> None:
    report = dataclasses.replace(checked(Gates(max_drop=0.01), eval="eval.npz"), model=HOSTILE, baseline=HOSTILE)
    (suite,) = ET.fromstring(junit_xml(report).encode())
    assert suite.get("name") == HOSTILE.encode("unicode_escape").decode()
    for text in (report.render(), report.markdown()):
        text.encode()
        assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
        assert "\x1b" not in text
    (command,) = annotations(report).splitlines()
    command.encode()
    assert command.startswith("::error title=onnxcomp check%3A max-drop failed::a<b>&")
    assert "%250A" in command
    (row,) = (line for line in report.markdown().splitlines() if line.startswith("- model"))
    assert "a&lt;b>" in row
    assert "\\|" in row


def test_options_come_from_the_file_and_the_command_line_wins(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.onnxcomp.check]\nbaseline = "original.onnx"\neval = "eval.npz"\nmax-drop = 0.05\nmax-size = "1MB"\n',
        encoding="utf-8",
    )
    assert call("check small.onnx") == 1
    assert "max-drop: the metric drops by 0.1000, allowed is 0.05" in capfd.readouterr().err
    assert call("check small.onnx --max-drop 0.2") == 0
    assert f" config  {project / 'pyproject.toml'}\n" in capfd.readouterr().out
    (project / "onnxcomp.toml").write_text("[check]\nmax-dorp = 0.05\n", encoding="utf-8")
    assert call("check small.onnx") == 2
    assert "'check.max-drop'" in capfd.readouterr().err
    assert call("--no-config check small.onnx") == 2


@pytest.fixture
def saved(project: Path, times: Times) -> Path:
    """What the model reached at an earlier commit."""
    assert call(f"{ALL} --max-drop 0.2 --save-baseline saved.json -q") == 0
    return project / "saved.json"


def changed(path: Path, **values: Any) -> Path:
    """Write other figures into a saved baseline."""
    found = json.loads(path.read_text(encoding="utf-8"))
    for name, value in values.items():
        inner, _, key = name.partition("__")
        if key:
            found[inner][key] = value
        else:
            found[name] = value
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_no_worse_than_what_was_saved(saved: Path, times: Times) -> None:
    report = checked(Gates(), eval="eval.npz", against=saved)
    names = ("size-growth", "score-loss", "agreement-loss", "latency-growth")
    assert statuses(report) == dict.fromkeys(names, "passed")
    times((0.6, 0.59, 0.61))
    (result,) = (r for r in checked(Gates(), eval="eval.npz", against=saved).results if r.status != "passed")
    assert (result.name, result.status) == ("latency-growth", "failed")
    assert result.low == pytest.approx(0.59 / 0.51)
    assert checked(Gates(), eval="eval.npz", against=saved, tolerance=0.3).missed == ()


@pytest.mark.parametrize(
    ("values", "name", "status"),
    [
        ({"size": 100}, "size-growth", "failed"),
        ({"score__candidate": 0.95}, "score-loss", "failed"),
        ({"agreement": 0.95}, "agreement-loss", "failed"),
        ({"score__metric": "other"}, "score-loss", "not measured"),
        ({"evaluation": "others.npz"}, "score-loss", "not measured"),
        ({"machine__processor": "abacus"}, "latency-growth", "not measured"),
        ({"settings__threads": 2}, "latency-growth", "not measured"),
        ({"versions__onnxruntime": "0.1"}, "latency-growth", "not measured"),
        ({"baseline_sha256": "0"}, "latency-growth", "not measured"),
        ({"latency__high": None}, "latency-growth", "passed"),
        ({"latency__low": 0.0}, "latency-growth", "undecided"),
    ],
)
def test_what_was_saved_and_is_other_now(saved: Path, values: dict[str, Any], name: str, status: str) -> None:
    report = checked(Gates(), eval="eval.npz", against=changed(saved, **values))
    assert statuses(report)[name] == status
    assert bool(report.missed) == (status == "failed")
    if status == "not measured":
        (reason,) = (result.reason for result in report.results if result.name == name)
        assert reason in report.render()
        assert statuses(report)["size-growth"] == "passed"


def test_another_machine_is_named(saved: Path) -> None:
    report = checked(Gates(), eval="eval.npz", against=changed(saved, machine__processor="abacus"))
    assert "measured on another kind of machine: abacus" in report.render()


@pytest.mark.usefixtures("project")
def test_only_the_size_can_be_compared_without_the_original(saved: Path) -> None:
    report = onnxcomp.check("small.onnx", against=saved)
    assert set(statuses(report).values()) == {"passed", "not measured"}
    assert statuses(report)["size-growth"] == "passed"


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "bench"},
        {"schema_version": 99},
        {"size": 0},
        {"size": "many"},
        {"score": 3},
        {"score__candidate": "good"},
        {"latency__low": 0.9},
        {"machine": {}},
        {"versions": []},
        {"agreement": True},
        {"evaluation": 3},
    ],
)
@pytest.mark.usefixtures("project")
def test_a_saved_baseline_that_is_none(saved: Path, values: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"saved\.json"):
        onnxcomp.check("small.onnx", against=changed(saved, **values))


@pytest.mark.usefixtures("project")
def test_a_container_counts_as_it_lies_on_disk(sample_models: Path, project: Path) -> None:
    onnxcomp.pack(sample_models / "lenet5" / "model.onnx", project / "packed.onnxz")
    report = onnxcomp.check("packed.onnxz", gates=Gates(max_size=10_000_000))
    assert report.size == (project / "packed.onnxz").stat().st_size


@pytest.mark.usefixtures("project")
def test_no_difference_has_no_sign() -> None:
    report = onnxcomp.check("small.onnx", baseline="small.onnx", eval="eval.npz", gates=Gates(max_drop=0.1))
    assert "-0.0000" not in report.render()


def test_what_was_saved_can_not_break_out(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changed(saved, evaluation=HOSTILE)
    assert call(f"{ALL} --against saved.json --strict") == 1
    out, err = capfd.readouterr()
    assert "the samples were others: a<b>" in err
    assert not [line for line in (out + err).splitlines() if line.startswith("::")]
