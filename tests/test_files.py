import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxcomp.errors import OutputError
from onnxcomp.files import check_output, copy_file, replacing

NO_ROOM = OSError(28, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, content: bytes = b"new") -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


class TestCheckOutput:
    def test_a_new_file(self, tmp_path: Path) -> None:
        check_output(tmp_path / "new.onnx", inputs=(tmp_path / "in.onnx",), overwrite=False)
        assert names(tmp_path) == []

    def test_exists(self, tmp_path: Path) -> None:
        path = tmp_path / "old.onnx"
        path.write_bytes(b"")
        with pytest.raises(OutputError, match="exists") as caught:
            check_output(path, inputs=(), overwrite=False)
        assert "--overwrite" in str(caught.value.hint)
        check_output(path, inputs=(), overwrite=True)

    def test_is_the_input(self, tmp_path: Path) -> None:
        source = tmp_path / "in.onnx"
        source.write_bytes(b"")
        (tmp_path / "link.onnx").symlink_to(source)
        (tmp_path / "hard.onnx").hardlink_to(source)
        (tmp_path / "folder").symlink_to(tmp_path)
        for name in ("in.onnx", "link.onnx", "hard.onnx", "folder/in.onnx"):
            with pytest.raises(OutputError, match="is the input itself"):
                check_output(tmp_path / name, inputs=(source,), overwrite=True)

    def test_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OutputError, match="does not exist") as caught:
            check_output(tmp_path / "missing" / "m.onnx", inputs=(), overwrite=True)
        assert "mkdir" in str(caught.value.hint)
        with pytest.raises(OutputError, match="is a folder"):
            check_output(tmp_path, inputs=(), overwrite=True)

        def fail(**_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "TemporaryFile", fail)
        with pytest.raises(OutputError, match="nothing can be written to its folder: Permission denied"):
            check_output(tmp_path / "m.onnx", inputs=(), overwrite=False)

    def test_standard_output(self) -> None:
        with pytest.raises(OutputError, match="standard output is not supported"):
            check_output(Path("-"), inputs=(), overwrite=True)

    def test_names_that_no_file_can_have(self, tmp_path: Path) -> None:
        for name in ("n" * 300 + ".onnx", "a\0b"):
            with pytest.raises(OutputError, match="cannot write"):
                check_output(tmp_path / name, inputs=(), overwrite=False)
            check_output(tmp_path / "o.onnx", inputs=(tmp_path / name,), overwrite=False)


@pytest.mark.skipif(sys.platform == "win32", reason="makes a named pipe")
def test_an_output_is_a_regular_file_or_nothing(tmp_path: Path) -> None:
    fifo, link, file = tmp_path / "pipe.onnx", tmp_path / "link.onnx", tmp_path / "file.onnx"
    os.mkfifo(fifo)
    file.write_bytes(b"old")
    link.symlink_to(fifo)
    for path in (fifo, link):
        with pytest.raises(OutputError, match="is not a regular file"):
            check_output(path, inputs=(), overwrite=True)
        with pytest.raises(OutputError, match="is not a regular file"):
            write(path)
        with pytest.raises(OutputError, match="is not a regular file"):
            copy_file(file, path)
    assert fifo.is_fifo()
    link.unlink()
    link.symlink_to(file)
    check_output(link, inputs=(), overwrite=True)


class TestReplacing:
    @pytest.mark.parametrize("name", ["m.onnx", "n" * 250, "\u00fc" * 120, "*?[x].onnx"])
    def test_all_or_nothing(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b"old")
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            assert path.read_bytes() == b"old"
            temporary.write_bytes(b"new")
        assert path.read_bytes() == b"new"
        assert names(tmp_path) == [name]

    @pytest.mark.parametrize("failing", ["replace", "fsync"])
    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(b"old")

        def fail(*_: object) -> None:
            raise NO_ROOM

        monkeypatch.setattr(os, failing, fail)
        actions: list[Callable[[], None]] = [lambda: write(path), lambda: copy_file(path, tmp_path / "copy.onnx")]
        for action in actions:
            with pytest.raises(OutputError, match="No space left"):
                action()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["m.onnx"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
    def test_what_goes_wrong_inside(self, tmp_path: Path, error: type[BaseException]) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(b"old")

        def fail(temporary: Path) -> None:
            temporary.write_bytes(b"ne")
            raise error

        with pytest.raises(error), replacing(path) as temporary:
            fail(temporary)
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["m.onnx"]

    def test_folders_that_are_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        for folder in ("missing", "file"):
            with pytest.raises(OutputError, match="cannot write"):
                write(tmp_path / folder / "m.onnx")
            with pytest.raises(OutputError, match="cannot write"):
                copy_file(tmp_path / "file", tmp_path / folder / "m.onnx")

    def test_copy_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"content")
        (tmp_path / "b").write_bytes(b"old")
        copy_file(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"content"


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks that end with their process")
class TestLeftovers:
    def test_those_of_a_process_that_ended_are_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        killed = f"""
import os, signal
from pathlib import Path
from onnxcomp.files import replacing
with replacing(Path({str(path)!r})) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
        (left,) = names(tmp_path)
        assert left.startswith(".m.onnx.")
        write(tmp_path / "other.onnx")
        assert names(tmp_path) == [left, "other.onnx"]  # not its business
        write(path)
        assert names(tmp_path) == ["m.onnx", "other.onnx"]

    def test_those_that_are_in_use_are_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        with replacing(path) as outer:
            outer.write_bytes(b"outer")
            write(path, b"inner")
            assert path.read_bytes() == b"inner"
        assert path.read_bytes() == b"outer"
        assert names(tmp_path) == ["m.onnx"]

    def test_what_only_looks_like_one(self, tmp_path: Path) -> None:
        (tmp_path / ".m.onnx.file.tmp").write_bytes(b"precious")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "precious").write_bytes(b"")
        (tmp_path / ".m.onnx.link.tmp").symlink_to(tmp_path / "elsewhere")
        before = names(tmp_path)
        write(tmp_path / "m.onnx")
        assert names(tmp_path) == sorted([*before, "m.onnx"])
        assert names(tmp_path / "elsewhere") == ["precious"]

    def test_one_that_is_taken_away_before_it_is_locked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[str] = []
        make, lock = tempfile.mkdtemp, fcntl.flock

        def recorded(*args: str, **kwargs: str) -> str:
            made.append(make(*args, **kwargs))
            return made[-1]

        def taken_away(descriptor: int, operation: int) -> None:
            if len(made) == 1:
                Path(made[0]).rmdir()
            lock(descriptor, operation)

        monkeypatch.setattr(tempfile, "mkdtemp", recorded)
        monkeypatch.setattr(fcntl, "flock", taken_away)
        write(tmp_path / "m.onnx")
        assert len(made) == 2
        assert names(tmp_path) == ["m.onnx"]

    def test_without_locks_nothing_is_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        (tmp_path / ".m.onnx.left.tmp").mkdir()
        monkeypatch.setattr(fcntl, "flock", fail)
        write(tmp_path / "m.onnx")
        assert names(tmp_path) == [".m.onnx.left.tmp", "m.onnx"]
