"""Which tensors are stored together, and what that costs a reader."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcomp.storage import Archive, pack_file, unpack_file
from onnxcomp.storage.container import GROUP, OPEN_GROUPS, GroupEntry
from tests.storage.test_round_trip import external

RNG = np.random.default_rng(0)


def model(*arrays: np.ndarray) -> bytes:
    value = helper.make_tensor_value_info
    x, y = (value(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    initializers = [numpy_helper.from_array(array, f"w{n}") for n, array in enumerate(arrays)]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y], initializers)
    return bytes(helper.make_model(graph).SerializeToString())


def groups(folder: Path, *arrays: np.ndarray) -> Sequence[GroupEntry]:
    content = model(*arrays)
    pack_file(content, folder / "m.onnxz")
    unpack_file(folder / "m.onnxz", folder / "m.onnx")
    assert (folder / "m.onnx").read_bytes() == content
    return Archive(memoryview((folder / "m.onnxz").read_bytes()), name="m").manifest.groups


def int8(*shape: int, scale: float = 20) -> np.ndarray:
    return np.clip(np.round(RNG.normal(size=shape) * scale), -127, 127).astype(np.int8)


def test_small_tensors_of_one_type_share_a_group(tmp_path: Path) -> None:
    arrays = [int8(30, 40) if n % 2 else RNG.normal(size=200).astype(np.float32) for n in range(20)]
    found = groups(tmp_path, *arrays)
    assert sorted(len(group.members) for group in found) == [10, 10]
    assert {place for group in found for m in group.members for place in m.places} == {(0, n) for n in range(20)}


def test_matrices_of_other_scales_share_one_too(tmp_path: Path) -> None:
    (group,) = groups(tmp_path, *(int8(40, 50, scale=scale) for scale in np.geomspace(3, 50, 9)))
    assert len(group.members) == 9


def test_what_differs_too_much_does_not(tmp_path: Path) -> None:
    some = [np.arange(n, n + 40_000).astype(np.uint8) % 7 for n in range(2)]
    others = [(np.arange(n, n + 40_000) % 100 + 100).astype(np.uint8) for n in range(2)]
    found = groups(tmp_path, some[0], others[0], some[1], others[1])
    assert [group.members[0].places for group in found] == [((0, 0),), ((0, 1),)]
    assert [len(group.members) for group in found] == [2, 2]


def test_groups_have_a_limit_and_large_tensors_are_alone(tmp_path: Path) -> None:
    found = groups(tmp_path, *(int8(1000, 1500) for _ in range(6)), int8(GROUP + 1))
    assert [len(group.members) for group in found] == [2, 2, 2, 1]
    assert all(group.size <= GROUP for group in found[:-1])


def test_only_some_groups_are_begun_at_once(tmp_path: Path) -> None:
    """Twelve types in turns: a reader would have to keep twelve groups."""
    kinds = [
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        "bool",
    ]
    arrays = [np.round(RNG.normal(size=300) * 3).astype(kind) for _ in range(4) for kind in kinds]
    found = groups(tmp_path, *arrays)
    spans = [(min(m.places for m in g.members), max(m.places for m in g.members)) for g in found if len(g.members) > 1]
    begun = [sum(first <= at <= last for first, last in spans) for at in (((0, n),) for n in range(len(arrays)))]
    assert max(begun) <= OPEN_GROUPS


def test_a_reader_decodes_each_group_once_and_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model(*(int8(30, 40) if n % 2 else RNG.normal(size=200).astype(np.float32) for n in range(20)))
    pack_file(content, tmp_path / "m.onnxz")
    decoded = []
    decode = Archive.group
    monkeypatch.setattr(Archive, "group", lambda self, index, *a: decoded.append(index) or decode(self, index, *a))
    archive = Archive(memoryview((tmp_path / "m.onnxz").read_bytes()), name="m")
    parts = bytearray()
    archive.write(0, parts.extend)
    assert parts == content
    assert sorted(decoded) == [0, 1]
    assert not archive._open


def test_small_tensors_that_are_equal_stay_in_the_graph(tmp_path: Path) -> None:
    ones, other = np.ones(30, np.float32), RNG.normal(size=30).astype(np.float32)
    (group,) = groups(tmp_path, ones, other, ones)
    assert [member.places for member in group.members] == [((0, 1),)]


def test_tensors_of_external_files_share_groups(tmp_path: Path) -> None:
    pack_file(external(tmp_path / "a"), tmp_path / "m.onnxz")
    (group,) = Archive(memoryview((tmp_path / "m.onnxz").read_bytes()), name="m").manifest.groups
    assert [place for member in group.members for place, *_ in [member.places]] == [
        (1, at) for at in sorted(at for m in group.members for _, at in m.places)
    ]


def test_a_container_is_smaller_than_its_model_packed_whole(sample_models: Path, tmp_path: Path) -> None:
    """The tables, the manifest and the graph do not eat up what the coders gain, even where the model is small."""
    import lzma

    for path in sample_models.glob("*/model.onnx"):
        packed = pack_file(path, tmp_path / "m.onnxz")
        assert packed.size < len(lzma.compress(path.read_bytes(), preset=9)), path
