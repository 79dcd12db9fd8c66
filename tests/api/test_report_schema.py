"""The published schema of the reports: made from the code of today, and kept by what every command really prints."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run
from onnxcomp.report.html import render_html
from tools import report_schema

jsonschema = pytest.importorskip("jsonschema")

COMMANDS = {
    "bench": "bench {dense} {dense} --seconds 0.2 --profile --streams 1",
    "diff": "inspect {dense} {resnet}",
    "bundle": "bench {dense} --bundle {bundle}",
    "calibrate": "calibrate {dense} --calibration {calibration} -o {statistics}",
    "check": "check {dense} --baseline {dense} --eval {eval} --min-agreement 1 --max-latency-ratio 9 --seconds 0.2",
    "compare": "compare {dense} {dense} --eval {eval} --perturb noise=0.1 --layers",
    "doctor": "doctor",
    "inspect": "inspect {dense} --histograms --nodes --quantization",
    "optimize": "optimize {dense} --eval {eval} --perturb noise=0.5 -o {out}",
    "optimize-many": "optimize {models} -o {folder}",
    "pack": "pack {dense} -o {out}",
    "plan": "optimize {dense} --eval {eval} --dry-run",
    "prune": "prune {dense} --ratio 0.5 --eval {eval} -o {out}",
    "quantize": "quantize {dense} --mode dynamic --eval {eval} -o {out}",
    "sensitivity": "sensitivity {dense} --calibration {calibration} --eval {eval} -o {report}",
    "share": "share {dense} --bits 4 --eval {eval} -o {out}",
    "unpack": "unpack {packed} -o {out}",
}
OTHERS = {
    "bench of one model": "bench {dense} --seconds 0.2",
    "compare without data": "compare {dense} {dense}",
    "check of the size alone": "check {dense} --max-size 10MB",
    "inspect": "inspect {dense}",
    "optimize that delivers the original": "optimize {dense} --min-agreement 1 --min-sqnr 300 -o {out}",
    "sensitivity without data": "sensitivity {dense} -o {report}",
    "share, bits chosen": "share {dense} --calibration {calibration} --eval {eval} --no-bench -o {out}",
    "quantize, calibrated": "quantize {dense} --mode static --calibration {calibration} --dry-run",
}
FAILURES = {
    "optimize": "optimize {dense} --max-size 1kB -o {out} --report {report}",
    "prune": "prune {dense} --max-size 1kB -o {out} --report {report}",
    "quantize": "quantize {dense} --mode dynamic --max-size 1kB -o {out} --report {report}",
    "check": "check {dense} --baseline {resnet} --min-agreement 1 --report {report}",
    "share": "share {dense} --bits 2 --max-size 1kB -o {out} --report {report}",
    "compare": "compare {dense} {resnet} --min-agreement 1 --report {report}",
}

# What the page of a command's report has a part for
PARTS = {
    "bench": ["Speed"],
    "check": ["Gates"],
    "compare": ["Under disturbance", "Layers"],
    "inspect": ["Operators"],
    "optimize": ["Candidates", "Under disturbance"],
    "prune": ["Groups", "Layers", "Bytes", "Time"],
    "quantize": ["Layers", "Bytes", "Time", "What was done"],
    "sensitivity": ["Units alone"],
    "share": ["Layers", "Bytes", "What was done"],
}
MORE_PARTS = {OTHERS["quantize, calibrated"]: ["Calibration"], OTHERS["share, bits chosen"]: ["Bits"]}

Names = dict[str, str]


@pytest.fixture(scope="module")
def validator() -> Any:
    published = json.loads(report_schema.FILE.read_text(encoding="utf-8"))
    kind = jsonschema.validators.validator_for(published)
    kind.check_schema(published)
    return kind(published)


@pytest.fixture
def names(dense: Path, sample_models: Path, data: dict[str, Path], tmp_path: Path) -> Names:
    resnet = sample_models / "resnet8" / "model.onnx"
    paths = {"dense": dense, "resnet": resnet, "out": tmp_path / "o.onnx", "report": tmp_path / "r.json", **data}
    paths["packed"] = tmp_path / "p.onnxz"
    onnxcomp.pack(dense, paths["packed"])
    paths["statistics"] = tmp_path / "s.npz"
    paths["bundle"] = tmp_path / "device"
    paths["models"], paths["folder"] = tmp_path / "models", tmp_path / "many"
    paths["models"].mkdir()
    for name, model in (("dense", dense), ("resnet", resnet)):
        shutil.copyfile(model, paths["models"] / f"{name}.onnx")
    return {name: str(path) for name, path in paths.items()}


def call(line: str, names: Names) -> int:
    return run(build_app(), [word.format(**names) for word in line.split()])


def test_the_published_schema_is_that_of_the_code() -> None:
    published = json.loads(report_schema.FILE.read_text(encoding="utf-8"))
    assert published == report_schema.schema(), "run python tools/report_schema.py"


def test_every_kind_of_report_is_validated_here() -> None:
    assert set(report_schema.kinds()) == set(COMMANDS)


@pytest.mark.parametrize("line", [*COMMANDS.values(), *OTHERS.values()])
def test_reports_keep_the_schema(
    line: str, names: Names, validator: Any, times: Callable[[float], None], capfd: pytest.CaptureFixture[str]
) -> None:
    times(0.5)
    assert call(f"{line} --format json", names) == 0
    found = json.loads(capfd.readouterr().out)
    validator.validate(found)
    kinds = {command: kind for kind, command in COMMANDS.items()}
    assert found["kind"] == kinds.get(line, line.split(maxsplit=1)[0])
    page = render_html(found, command="onnxcomp <made by>")
    assert "<code>onnxcomp &lt;made by&gt;</code>" in page
    parts = PARTS.get(found["kind"], []) if line == COMMANDS[found["kind"]] else MORE_PARTS.get(line, [])
    assert [part for part in parts if f">{part}</h2>" not in page] == []


@pytest.mark.parametrize("command", FAILURES)
def test_reports_of_missed_gates_keep_the_schema(command: str, names: Names, validator: Any) -> None:
    assert call(FAILURES[command], names) == 1
    found = json.loads(Path(names["report"]).read_text(encoding="utf-8"))
    validator.validate(found)
    assert found["missed"]
    assert found.get("output") is None
    assert 'class="badge bad"' in render_html(found)


@pytest.mark.parametrize("change", ["extra", "missing", "kind", "inside", "type"])
def test_the_schema_refuses_other_reports(
    change: str, names: Names, validator: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("compare {dense} {dense} --format json", names) == 0
    found = json.loads(capfd.readouterr().out)
    validator.validate(copy.deepcopy(found))
    match change:
        case "extra":
            found["extra"] = 1
        case "missing":
            del found["agreement"]
        case "kind":
            found["kind"] = "bench"
        case "inside":
            found["outputs"]["logits"]["extra"] = 1
        case "type":
            found["runs"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(found)
