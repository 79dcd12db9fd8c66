"""Wrong use, as a table: what each says, with which exit code, and that no file is changed or made.

Exit code 2: the command line, a path or the samples are wrong, 3: the model is. A model path that can't be read is a
wrong path, so 2; what is in the file is the model's fault, so 3.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from onnxcomp.cli.app import build_app, run
from tests.cli.bad_files import FILES, make

LONG = "n" * 300
EVAL = "optimize m.onnx --eval labelled.npz --metric"


class Bad(NamedTuple):
    """A command line; the files that it names are made for it, where ``bad_files`` has them."""

    line: str
    code: int
    says: str
    hint: bool = True  # False: what to do is in the message, as in "must be in [0, 1]"


TABLE: dict[str, Bad] = {
    # the path of the model
    "unknown technique": Bad("optimize m.onnx --technique magic", 2, "'magic' is not one of 'prune', 'static'"),
    "no model": Bad("optimize", 2, "missing argument 'MODEL...'"),
    "model missing": Bad("optimize missing.onnx", 2, "cannot read missing.onnx: No such file"),
    "model in a folder that is missing": Bad("optimize nowhere/m.onnx -o o.onnx", 2, "nowhere/m.onnx: No such file"),
    "model is a folder": Bad("optimize folder.onnx -o out", 2, "folder.onnx: no .onnx file in this folder"),
    "model is a pipe": Bad("optimize pipe.onnx", 2, "pipe.onnx: it is not a regular file"),
    "model is the root": Bad("optimize / -o o.onnx", 2, "/: it is a directory"),
    "model is a ring of links": Bad("optimize ring.onnx -o o.onnx", 2, "ring.onnx: Too many levels"),
    "model name too long": Bad(f"optimize {LONG}.onnx -o o.onnx", 2, "name too long"),
    # no model in it
    "NaN in a weight": Bad(
        "optimize nan-weight.onnx", 3, "the original gives nothing but NaN for all evaluation samples"
    ),
    "empty": Bad("optimize empty.onnx", 3, "empty.onnx is empty"),
    "text": Bad("optimize text.onnx", 3, "text.onnx is not an ONNX model"),
    "picture": Bad("optimize png.onnx", 3, "png.onnx is not an ONNX model"),
    "zeros": Bad("optimize zeros.onnx", 3, "zeros.onnx is not an ONNX model"),
    "zip": Bad("optimize zip.onnx", 3, "zip.onnx is not an ONNX model"),
    "samples for the model": Bad("optimize rows.npz", 3, "rows.npz is not an ONNX model"),
    "a tensor": Bad("optimize tensor.onnx", 3, "tensor.onnx is not an ONNX model"),
    "cut early": Bad("optimize cut-early.onnx", 3, "cut-early.onnx is not an ONNX model, or is cut short"),
    "cut at half": Bad("optimize cut-half.onnx", 3, "cut-half.onnx is not an ONNX model, or is cut short"),
    "cut late": Bad("optimize cut-late.onnx", 3, "cut-late.onnx is not an ONNX model, or is cut short"),
    # external data
    "external data missing": Bad("optimize external-missing.onnx", 3, "external data file w.bin is missing"),
    "external data too short": Bad("optimize external-short.onnx", 3, "external data file w.bin is cut short"),
    "external data of another tensor": Bad("optimize external-less.onnx", 3, "needs 320 bytes, its external data has"),
    "external data in ..": Bad("optimize external-parent.onnx", 3, "of w lies outside the model's folder: '../w.bin'"),
    "external data at /": Bad("optimize external-absolute.onnx", 3, "lies outside the model's folder: '/etc/hostname'"),
    "external data behind a link": Bad("optimize external-link.onnx", 3, "lies outside the model's folder: 'w.link'"),
    "external data nowhere": Bad("optimize external-offset.onnx", 3, "of w has no valid offset and length"),
    # graphs
    "no graph": Bad("optimize no-graph.onnx", 3, "no graph with an output"),
    "no output": Bad("optimize no-output.onnx", 3, "no graph with an output"),
    "no node": Bad("optimize no-node.onnx", 3, "Graph output (y) does not exist"),
    "input of a node missing": Bad("optimize dangling.onnx", 3, "Node input 'nowhere' is not"),
    "cycle": Bad("optimize cycle.onnx", 3, "cycle.onnx is malformed: ValueError: Graph contains a cycle"),
    "tensor made twice": Bad("optimize twice.onnx", 3, "Output 'y' is redeclared"),
    "unknown operator": Bad("optimize unknown-op.onnx", 3, "NoSuchOp"),
    "unknown domain": Bad("optimize unknown-domain.onnx", 3, "my.domain:Op"),
    "opset too new": Bad("optimize new-opset.onnx", 3, "the model uses opset 99"),
    "types that do not fit": Bad("optimize wrong-type.onnx", 3, "tensor(float) and tensor(int64)"),
    "shapes that do not fit": Bad("optimize wrong-shape.onnx", 3, "Incompatible dimensions"),
    "weight of 4 EB": Bad("optimize huge-weight.onnx", 3, "needs 4611686018427387904 bytes, and has 4"),
    "weight of negative size": Bad("optimize negative-weight.onnx", 3, "dimensions"),
    "weight with few bytes": Bad(
        "optimize short-weight.onnx", 3, "tensor w of the dimensions [8, 10] needs 320 bytes, and has 4"
    ),
    "weight of unknown type": Bad("optimize odd-weight.onnx", 3, "of the data type 77, which is not known"),
    # inputs that can't be made up
    "string input without data": Bad("optimize texts.onnx", 2, "input 'x' is no numeric tensor"),
    "rank unknown without data": Bad("optimize rankless.onnx", 2, "input 'x' has no known rank"),
    # samples
    "samples missing": Bad("optimize m.onnx --eval missing.npz", 2, "missing.npz: no such file or folder"),
    "samples of another form": Bad("optimize m.onnx --eval samples.csv", 2, "samples.csv: not a form of samples"),
    "samples are text": Bad("optimize m.onnx --eval text.npz", 2, "text.npz: this is no .npz file"),
    "samples are cut short": Bad("optimize m.onnx --eval cut.npz", 2, "cut.npz: this is no .npz file"),
    "samples are another zip": Bad("optimize m.onnx --eval zip.npz", 2, "'readme.txt' is no array"),
    "samples are Python objects": Bad("optimize m.onnx --eval objects.npz", 2, "'x': holds Python objects"),
    "no array": Bad("optimize m.onnx --eval no-array.npz", 2, "no array for the input 'x'"),
    "no rows": Bad("optimize m.onnx --eval no-rows.npz", 2, "there are no samples in it (0 rows)"),
    "no such input": Bad("optimize m.onnx --calibration other-name.npz", 2, "for the input 'x' (it has 'picture')"),
    "one input too many": Bad("optimize m.onnx --calibration two-names.npz", 2, "the model has no input 'mask'"),
    "float64 for float32": Bad("optimize m.onnx --calibration float64.npz", 2, "takes float32, the array is float64"),
    "bytes for float32": Bad("optimize m.onnx --calibration bytes.npz", 2, "takes float32, the array is uint8"),
    "texts for float32": Bad("optimize m.onnx --calibration texts.npz", 2, "'x' takes float32, the array is"),
    "wrong shape": Bad("optimize m.onnx --calibration wide.npz", 2, "takes [?, 8], the array is [4, 9]"),
    "wrong rank": Bad("optimize m.onnx --calibration rank.npz", 2, "takes [?, 8], the array is [4, 8, 1]"),
    "scalar": Bad("optimize m.onnx --calibration scalar.npz", 2, "'x' has no axis that counts samples"),
    "NaN in the samples": Bad("optimize m.onnx --calibration nan.npz", 2, "nan.npz, row 7: input 'x' holds NaN"),
    "infinity in the samples": Bad("optimize m.onnx --eval infinity.npz", 2, "row 7: input 'x' holds infinity"),
    "empty folder": Bad("optimize m.onnx --eval empty-folder", 2, "empty-folder: an empty folder"),
    "folder of text": Bad(
        "optimize m.onnx --eval text-folder", 2, "text-folder: neither .npz files nor images in the folder"
    ),
    "folder with one bad file": Bad("optimize m.onnx --eval half-good", 2, "half-good/b.npz: no array for the input"),
    # labels
    "labels of another length": Bad("optimize m.onnx --eval short-labels.npz", 2, "x 12, labels 5"),
    "one label for all": Bad("optimize m.onnx --eval one-label.npz", 2, "'labels' is one value"),
    "half of the labels": Bad("optimize m.onnx --eval half-labelled", 2, "b.npz: no 'labels', though 1 other"),
    "labels are no classes": Bad("optimize m.onnx --eval float-labels.npz", 2, "labels that are no class numbers"),
    "float labels for top1": Bad("optimize m.onnx --eval float-labels.npz --metric top1", 2, "not class numbers"),
    "labels above the classes": Bad("optimize m.onnx --eval large-labels.npz", 2, "labels from 100 to 100, but 10"),
    # metrics
    "metric without labels": Bad("optimize m.onnx --eval rows.npz --metric top1", 2, "a metric needs labels"),
    "metric without samples": Bad("optimize m.onnx --metric top1", 2, "a metric needs labelled samples"),
    "metric unknown": Bad(f"{EVAL} best", 2, "there is no metric 'best'"),
    "metric file missing": Bad(f"{EVAL} nowhere.py:f", 2, "nowhere.py: no such file"),
    "metric module missing": Bad(f"{EVAL} no_module:f", 2, "No module named 'no_module'"),
    "metric function missing": Bad(f"{EVAL} score.py:points", 2, "score.py has no function 'points'"),
    "metric is a number": Bad(f"{EVAL} number.py:score", 2, "number.py has no function 'score'"),
    "metric does not parse": Bad(f"{EVAL} syntax.py:score", 2, "SyntaxError: '(' was never closed (syntax.py, line 1)"),
    "metric needs a package": Bad(f"{EVAL} imports.py:score", 2, "No module named 'no_such_package_of_anyone'"),
    "metric raises": Bad(f"{EVAL} raises.py:score", 2, "failed: KeyError: 'speed'"),
    "metric exits": Bad(f"{EVAL} exits.py:score", 2, "failed: SystemExit: 0"),
    "metric returns NaN": Bad(f"{EVAL} nan.py:score", 2, "returned nan, a score must be finite"),
    "metric returns text": Bad(f"{EVAL} string.py:score", 2, "returned str, no number"),
    "metric returns nothing": Bad(f"{EVAL} nothing.py:score", 2, "returned NoneType, no number"),
    # recipes
    "recipe missing": Bad("optimize m.onnx --recipe missing.toml", 2, "missing.toml: No such file"),
    "recipe is a folder": Bad("optimize m.onnx --recipe empty-folder", 2, "empty-folder: Is a directory"),
    "recipe is no TOML": Bad("optimize m.onnx --recipe text.toml", 2, "text.toml is not valid TOML"),
    "recipe is no UTF-8": Bad("optimize m.onnx --recipe latin.toml", 2, "'utf-8' codec can't decode"),
    "recipe of another version": Bad("optimize m.onnx --recipe version.toml", 2, "schema_version must be 1, got 9"),
    "recipe with an unknown key": Bad("optimize m.onnx --recipe key.toml", 2, "unknown key 'passes'"),
    "recipe without names": Bad("optimize m.onnx --recipe nameless.toml", 2, "pass 1 has no name"),
    "recipe with an unknown pass": Bad("optimize m.onnx --recipe pass.toml", 2, "there is no pass 'quantize-magic'"),
    "recipe with an unknown setting": Bad("optimize m.onnx --recipe setting.toml", 2, "has no setting 'speed'"),
    "recipe with a wrong type": Bad("optimize m.onnx --recipe type.toml", 2, "per_channel must be bool, got 'yes'"),
    "recipe with a wrong value": Bad("optimize m.onnx --recipe value.toml", 2, "unknown calibration method 'guess'"),
    "recipe that excludes nothing": Bad("optimize m.onnx --recipe exclude.toml", 2, "exclude names 'haed', and there"),
    "recipe without samples": Bad("optimize m.onnx --recipe static.toml", 2, "the recipe needs calibration samples"),
    # options
    "unknown command": Bad("optimise m.onnx", 2, "no such command 'optimise'"),
    "unknown option": Bad("optimize m.onnx --turbo", 2, "no such option: --turbo"),
    "one argument too many": Bad("quantize m.onnx rows.npz --mode dynamic", 2, "unexpected extra argument"),
    "option without its value": Bad("optimize m.onnx -o", 2, "'-o' requires an argument"),
    "flag with a value": Bad("optimize m.onnx --overwrite=yes", 2, "'--overwrite' does not take a value"),
    "unknown goal": Bad("optimize m.onnx --goal beauty", 2, "'--goal': 'beauty' is not one of 'latency'"),
    "unknown format": Bad("optimize m.onnx --format xml", 2, "'--format': 'xml' is not one of 'text'"),
    "unknown target": Bad("optimize m.onnx --target abacus", 2, "unknown target 'abacus'"),
    "target of another machine": Bad("optimize m.onnx --target tensorrt", 2, "latency on tensorrt can't be measured"),
    "drop is text": Bad("optimize m.onnx --max-drop little", 2, "'--max-drop'"),
    "drop too large": Bad("optimize m.onnx --max-drop 7", 2, "max-drop must be in [0, 1], got 7", hint=False),
    "drop negative": Bad("optimize m.onnx --max-drop -0.1", 2, "max-drop must be in [0, 1], got -0.1", hint=False),
    "drop is NaN": Bad("optimize m.onnx --max-drop nan", 2, "max-drop must be a number, got nan", hint=False),
    "agreement too large": Bad("optimize m.onnx --min-agreement 1.5", 2, "min-agreement must be in [0, 1]", hint=False),
    "SQNR is NaN": Bad("optimize m.onnx --min-sqnr nan", 2, "min-sqnr must be a number, got nan", hint=False),
    "latency ratio 0": Bad("optimize m.onnx --max-latency-ratio 0", 2, "ratio must be positive, got 0.0", hint=False),
    "latency ratio NaN": Bad("optimize m.onnx --max-latency-ratio nan", 2, "must be a number, got nan", hint=False),
    "size is text": Bad("optimize m.onnx --max-size small", 2, "not a size: 'small'"),
    "size in odd units": Bad("optimize m.onnx --max-size 5XB", 2, "not a size: '5XB'"),
    "size without its unit": Bad("optimize m.onnx --max-size 5", 2, "a size of 5 bytes"),
    "size negative": Bad("optimize m.onnx --max-size -1", 2, "not a size: '-1'"),
    "size of nothing": Bad("optimize m.onnx --max-size 0", 2, "max-size must be positive, got 0", hint=False),
    "threads are text": Bad("optimize m.onnx --threads many", 2, "'--threads'"),
    "threads negative": Bad("optimize m.onnx --threads -1", 2, "'--threads'"),
    "too many threads": Bad("optimize m.onnx --threads 10000", 2, "the cores of this machine, got 10000"),
    "batch 0": Bad("optimize m.onnx --batch 0", 2, "'--batch'"),
    "batch beyond the memory": Bad("optimize m.onnx --batch 99999999999", 2, "of shape [99999999999, 8] can't be made"),
    "seed negative": Bad("optimize m.onnx --seed -1", 2, "'--seed'"),
    "time budget negative": Bad("optimize m.onnx --time-budget -1", 2, "must be positive, got -1.0", hint=False),
    "time budget NaN": Bad("optimize m.onnx --time-budget nan", 2, "must be positive, got nan", hint=False),
    # outputs
    "output exists": Bad("optimize m.onnx -o old.onnx", 2, "the output old.onnx exists"),
    "output is the input": Bad("optimize m.onnx -o m.onnx --overwrite", 2, "is the input itself"),
    "output is the input by another path": Bad("optimize m.onnx -o out/../m.onnx --overwrite", 2, "the input itself"),
    "output is a link to the input": Bad("optimize m.onnx -o link.onnx --overwrite", 2, "is the input itself"),
    "output is a hard link to the input": Bad("optimize m.onnx -o hard.onnx --overwrite", 2, "is the input itself"),
    "input is a link to the output": Bad("optimize link.onnx -o m.onnx --overwrite", 2, "is the input itself"),
    "output is the samples": Bad("optimize m.onnx --eval rows.npz -o rows.npz --overwrite", 2, "is the input itself"),
    "output is the metric": Bad(f"{EVAL} score.py:score -o score.py --overwrite", 2, "is the input itself"),
    "output folder missing": Bad("optimize m.onnx -o nowhere/o.onnx", 2, "nowhere/o.onnx does not exist"),
    "output in a file": Bad("optimize m.onnx -o file/o.onnx", 2, "the folder of the output file/o.onnx"),
    "output is a folder": Bad("optimize m.onnx -o out --overwrite", 2, "the output out is a folder"),
    "output is a pipe": Bad("optimize m.onnx -o pipe.txt --overwrite", 2, "pipe.txt is not a regular file"),
    "output is a device": Bad("optimize m.onnx -o /dev/full --overwrite", 2, "/dev/full is not a regular file"),
    "output is stdout": Bad("optimize m.onnx -o -", 2, "standard output is not supported"),
    "output is a ring of links": Bad("optimize m.onnx -o ring.onnx --overwrite", 2, "cannot write ring.onnx: Too many"),
    "output name too long": Bad(f"optimize m.onnx -o {LONG}", 2, "File name too long"),
    "output on a read-only system": Bad("optimize m.onnx -o /proc/o.onnx", 2, "nothing can be written to its folder"),
    "output in a locked folder": Bad("optimize m.onnx -o locked/o.onnx", 2, "nothing can be written to its folder"),
    "report of an unknown form": Bad("optimize m.onnx --report out/r.pdf", 2, "can't be written as r.pdf"),
    "report folder missing": Bad("optimize m.onnx --report nowhere/r.json", 2, "nowhere/r.json does not exist"),
    "report is the output": Bad("optimize m.onnx -o out/r.json --report out/r.json", 2, "two outputs have the same"),
    "two reports are one": Bad("optimize m.onnx --report a.json --report out/../a.json", 2, "two outputs have the"),
    "report exists": Bad("optimize m.onnx --report old.json", 2, "the output old.json exists"),
    "report is the input": Bad("optimize old.json --report old.json --overwrite", 2, "is the input itself"),
    "report on a read-only system": Bad("optimize m.onnx --report /proc/r.json", 2, "nothing can be written to"),
    # other commands
    "bench: model missing": Bad("bench missing.onnx", 2, "cannot read missing.onnx"),
    "bench: text": Bad("bench text.onnx", 3, "text.onnx is not an ONNX model"),
    "compare: second model missing": Bad("compare m.onnx missing.onnx", 2, "cannot read missing.onnx"),
    "compare: cycle": Bad("compare m.onnx cycle.onnx", 3, "Graph contains a cycle"),
    "inspect: cut at half": Bad("inspect cut-half.onnx", 3, "cut-half.onnx is not an ONNX model"),
    "inspect: input of a node missing": Bad("inspect dangling.onnx", 3, "the model is malformed"),
    "calibrate: no samples": Bad("calibrate m.onnx", 2, "there are no samples to measure"),
    "calibrate: wrong shape": Bad("calibrate m.onnx --calibration wide.npz", 2, "takes [?, 8], the array is [4, 9]"),
    "quantize: unknown mode": Bad("quantize m.onnx --mode magic", 2, "unknown mode 'magic'"),
    "quantize: excludes nothing": Bad(
        "quantize m.onnx --mode dynamic --exclude haed", 2, "exclude names 'haed', and there is no such node"
    ),
    "doctor: unknown format": Bad("doctor --format xml", 2, "'--format': 'xml' is not one of 'text'"),
    "unknown pass": Bad("passes nothing", 2, "there is no pass 'nothing'"),
}
NEEDED = {"/proc/": Path("/proc"), "/dev/full": Path("/dev/full")}  # what only some systems have


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; temporary files go elsewhere, and are looked for there."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return work


def prepare(line: str, folder: Path) -> list[str]:
    """Make the files that a command line names; return its arguments."""
    for word in re.split(r"[ =:/]", line):
        if word in FILES and not os.path.lexists(folder / word):
            make(word, folder)
    return line.split()


def snapshot(folder: Path) -> dict[str, object]:
    """Everything below a folder, with its kind, its time of change, and its content or where it leads."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def check(bad: Bad, code: int, out: str, err: str) -> None:
    lines = [line for line in err.splitlines() if not line.endswith(" ...")]  # without progress
    assert code == bad.code, err
    assert (out == "") == (code != 1)  # a missed gate shows what was measured
    assert [line.partition(":")[0] for line in lines] == (["error", "hint"] if bad.hint else ["error"]), err
    assert bad.says in lines[0]
    assert "Value error" not in err


@pytest.mark.parametrize("name", TABLE)
def test_bad_input(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = TABLE[name]
    if any(mark in bad.line and not path.exists() for mark, path in NEEDED.items()):
        pytest.skip("the system has no such path")
    if "locked" in bad.line and os.access("/", os.W_OK):
        pytest.skip("nothing is locked for the superuser")
    arguments = prepare(bad.line, folder)
    before = snapshot(folder)
    code = run(build_app(), arguments)
    check(bad, code, *capfd.readouterr())
    assert snapshot(folder) == before
    assert list((folder.parent / "temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["text", "wrong rank", "unknown goal", "input of a node missing", "output exists"])
def test_bad_input_in_a_process_of_its_own(name: str, folder: Path) -> None:
    bad = TABLE[name]
    arguments = prepare(bad.line, folder)
    before = snapshot(folder)
    done = subprocess.run(
        [sys.executable, "-c", "from onnxcomp.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(folder.parent / "temporary"), "CI": "1"},
    )
    check(bad, done.returncode, done.stdout, done.stderr)
    assert snapshot(folder) == before
    assert list((folder.parent / "temporary").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_full_disk(folder: Path) -> None:
    """The stand-in: no file may grow beyond 300 bytes, and the model has more."""
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))"
    arguments = prepare("optimize m.onnx -o out/o.onnx --report out/r.json", folder)
    before = snapshot(folder)
    unmeasured = {
        k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_PROCESS")
    }  # it writes a larger file
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nfrom onnxcomp.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**unmeasured, "TMPDIR": str(folder.parent / "temporary"), "CI": "1"},
    )
    check(Bad("", 2, "o.onnx: File too large"), done.returncode, done.stdout, done.stderr)
    after = snapshot(folder)
    assert after.keys() == before.keys()
    assert {n: v for n, v in after.items() if n != "out"} == {n: v for n, v in before.items() if n != "out"}


WORKS: dict[str, tuple[str, str]] = {
    # odd, but not for us to refuse: what the report says of it
    "infinite activations": ("optimize infinite.onnx --calibration rows.npz -v", "y is not a number (NaN)"),
    "a graph without inputs": ("optimize no-input.onnx -v", "no samples: judged by fidelity on made-up inputs"),
    "nodes in any order": ("optimize unsorted.onnx -v", "no samples: judged by fidelity on made-up inputs"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", WORKS)
def test_what_is_odd_and_works(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line, says = WORKS[name]
    arguments = prepare(line, folder)
    before = snapshot(folder)
    assert run(build_app(), arguments) == 0
    out, _ = capfd.readouterr()
    assert says in out
    after = snapshot(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_the_files_are_all_used() -> None:
    lines = [bad.line for bad in TABLE.values()] + [line for line, _ in WORKS.values()]
    assert set(FILES) - set(re.split(r"[ =:/]", " ".join(lines))) == set()
