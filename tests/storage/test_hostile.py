"""Containers that mean harm, each refused for what it does, before anything is written."""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxcomp.errors import ModelError, OutputError
from onnxcomp.storage import pack_file, unpack_file
from tests.storage.models import MODELS
from tests.storage.mutate import Parts
from tests.storage.test_round_trip import external, files


def parts(folder: Path, *, with_files: bool = False) -> Parts:
    source = external(folder / "a") if with_files else MODELS["int8"]()
    pack_file(source, folder / "m.onnxz", producer="a test", threads=1)
    return Parts.of((folder / "m.onnxz").read_bytes())


def _path(path: str) -> Callable[[Parts], object]:
    return lambda p: p.manifest["files"][1].__setitem__(0, path)


def _group(**changes: object) -> Callable[[Parts], object]:
    return lambda p: p.manifest["groups"][0].update(changes)


def _begun(p: Parts) -> None:
    """Make groups of two tensors each, nine of which are begun before the first one ends."""
    group = p.manifest["groups"][0]
    p.manifest["groups"] = [{**group, "members": [[700, 0, n], [800, 0, 20 + n]]} for n in range(9)]
    p.groups *= 9


OUTSIDE = "leads out of the model's folder"
FILES: dict[str, tuple[str, str]] = {
    "absolute": ("/x", OUTSIDE),
    "up": ("../x", OUTSIDE),
    "up inside": ("a/../../x", OUTSIDE),
    "drive": ("C:x", OUTSIDE),
    "backslash": ("..\\x", OUTSIDE),
    "NUL": ("a\0b", OUTSIDE),
    "line break": ("a\nb", OUTSIDE),
    "empty part": ("a//b", OUTSIDE),
    "too long": ("n" * 300, OUTSIDE),
    "the model's": ("", "wrong list of files"),
}
CHANGES: dict[str, tuple[Callable[[Parts], object], str]] = {
    "newer reader": (lambda p: p.metadata.update(min_reader="3"), "needs a reader of format 3"),
    "older format": (lambda p: p.metadata.update(min_reader="1"), "is of format 1"),
    "no reader": (lambda p: p.metadata.pop("min_reader"), "does not say which reader"),
    "another format": (lambda p: p.metadata.update(format="pt"), "no container"),
    "size above the limit": (_group(members=[[10**12, 0, 0]]), "allowed are"),
    "sizes that are too large together": (_group(members=[[10**9, 0, n] for n in range(20)]), "allowed are"),
    "files above the limit": (lambda p: p.manifest["files"][0].__setitem__(1, 10**12), "allowed are"),
    "negative size": (_group(members=[[-1, 0, 0]]), "no size"),
    "unknown codec": (_group(codec=9), "not known"),
    "width": (_group(width=3), "elements of 3 bytes"),
    "no member": (_group(members=[]), "has no place"),
    "empty member": (_group(members=[[]]), "without a size"),
    "no place": (_group(members=[[1500]]), "has no place"),
    "half a place": (_group(members=[[1500, 0]]), "of an odd length"),
    "place twice": (_group(members=[[1500, 0, 0, 0, 0]]), "at the same place"),
    "place of two members": (_group(members=[[700, 0, 0], [800, 0, 0]]), "at the same place"),
    "several places in a group": (_group(members=[[700, 0, 0, 0, 1], [800, 0, 2]]), "belongs to several places"),
    "place in no file": (_group(members=[[1500, 7, 0]]), "belongs to file 7"),
    "another tensor of the graph": (_group(members=[[1500, 0, 1]]), "SHA-256"),
    "members larger than the data": (_group(members=[[700, 0, 0], [900, 0, 1]]), "streams of a tensor"),
    "large group": (_group(members=[[1 << 22, 0, 0], [1, 0, 1]]), "is too large"),
    "groups that are all begun": (_begun, "too many groups"),
    "too many tensors": (_group(members=[[1, 0, n] for n in range(100_001)]), "too many tensors"),
    "wrong sum": (_group(sha256="0" * 64), "SHA-256"),
    "graph bomb": (lambda p: setattr(p, "graph", bytes(1 << 26)), "not as large as it must be"),
    "manifest bomb": (lambda p: p.manifest.update(more="x" * (1 << 25)), "not as large as it must be"),
    "no manifest": (lambda p: setattr(p, "manifest", 3), "no JSON object"),
    "graph that is none": (lambda p: setattr(p, "graph", b"\xff" * p.manifest["graph"]), "its graph"),
    "more parts than tensors": (lambda p: p.groups.append(b"more"), "not those that its manifest names"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_fields_are_refused(name: str, tmp_path: Path) -> None:
    found = parts(tmp_path)
    change, says = CHANGES[name]
    change(found)
    with pytest.raises(ModelError, match=says) as raised:
        unpack_file(found.to_bytes(), tmp_path / "o.onnx")
    assert raised.value.hint
    assert files(tmp_path) == ["m.onnxz"]


@pytest.mark.parametrize("name", FILES)
def test_hostile_paths_are_refused(name: str, tmp_path: Path) -> None:
    found = parts(tmp_path, with_files=True)
    path, says = FILES[name]
    found.manifest["files"][1][0] = path
    before = files(tmp_path)
    with pytest.raises(ModelError, match=says):
        unpack_file(found.to_bytes(), tmp_path / "o.onnx")
    assert files(tmp_path) == before


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    content = parts(tmp_path, with_files=True).to_bytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "b" / "w.bin").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="out of the folder"):
        unpack_file(content, tmp_path / "b" / "o.onnx")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    with pytest.raises(OutputError, match="the name of the model"):
        unpack_file(content, tmp_path / "w.bin")


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    found = parts(tmp_path)
    content = found.to_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'{"__metadata__"', b'{"0": 3, "__metadata__"')
    twice = len(header).to_bytes(8, "little") + header + content[8 + size :]
    with pytest.raises(ModelError, match="twice"):
        unpack_file(twice, tmp_path / "o.onnx")


def test_deep_json_is_refused(tmp_path: Path) -> None:
    header = b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    content = len(header).to_bytes(8, "little") + header
    with pytest.raises(ModelError, match="no JSON"):
        unpack_file(content, tmp_path / "o.onnx")


def test_a_small_file_can_not_claim_a_large_tensor(tmp_path: Path) -> None:
    """rANS codes one symbol in no bits, but each chunk of it must be there."""
    found = parts(tmp_path)
    entry = found.manifest["groups"][0]
    entry.update(members=[[10**9, 0, 0]], codec=4)
    entry["streams"] = [[4, 10**9, False, 1, 0, [4, zlib.crc32(b"\0\0\1\0")]]]
    found.groups[0] = b"\0\0\1\0"
    with pytest.raises(ModelError, match="chunks, where 954 are needed"):
        unpack_file(found.to_bytes(), tmp_path / "o.onnx")
