"""What all results that commands print and save have in common."""

import dataclasses
import datetime
import hashlib
import html
import json
import math
import os
import platform
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

from onnxcomp.measure import device_name
from onnxcomp.runtime import Provider
from onnxcomp.target import cpu_name

__all__ = ["SCHEMA_VERSION", "Document", "Written", "machine", "now", "versions"]

SCHEMA_VERSION = 1
_PACKAGES = ("onnxcomp", "onnxruntime", "onnxruntime-gpu", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """A file that was written.

    Attributes:
        path: As it was named.
        size: Bytes of the file itself.
        sha256: Of its content; a model of more than 2 GB has its weights in another file beside it.
    """

    path: str
    size: int
    sha256: str

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "Written":
        """Read what was written."""
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(os.fspath(path), file.tell(), digest)


class Document(ABC):
    """A result as text, as JSON and in a notebook. What inherits from it is a dataclass.

    `tools/report_schema.py` makes the schema of the JSON from the types of the fields.

    Attributes:
        kind: What it is the result of; with `SCHEMA_VERSION` it tells a reader of the JSON which keys there are.
    """

    __slots__ = ()
    kind: ClassVar[str]

    @abstractmethod
    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; `verbose`: also what is left out as a rule."""

    def markdown(self) -> str:
        """Return Markdown, for a page that shows it."""
        fence = "```"
        return f"### onnxcomp {self.kind}\n\n{fence}\n{self.render()}{fence}\n"

    def html(self, *, command: str | None = None) -> str:
        """Return one page of HTML that needs nothing else; `command`: the command line that made this."""
        from onnxcomp.report.html import render_html

        return render_html(self.to_dict(), command=command)

    def content(self) -> dict[str, Any]:
        """Return what the JSON holds beside kind and schema version: the fields."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def content_types(cls) -> dict[str, Any]:
        """Return the types of what `content` returns, by name; the published schema is made from them."""
        hints = get_type_hints(cls)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; JSON has no infinity, so an infinite number is null."""
        found = _plain({"schema_version": SCHEMA_VERSION, "kind": self.kind, **self.content()})
        assert isinstance(found, dict)
        return found

    def to_json(self) -> str:
        """Return the JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def __str__(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return f"<pre>{html.escape(self.render())}</pre>"


def versions() -> dict[str, str]:
    """Return the versions of the packages involved, by name."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine(provider: Provider = "cpu") -> dict[str, str]:
    """Return what this machine is: processor, architecture, system, Python, and the device of a provider."""
    device = None if provider == "cpu" else device_name()
    return {
        "processor": cpu_name(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **({} if device is None else {"device": device}),
    }


def now() -> str:
    """Return the time as ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """Turn dataclasses, tuples and numbers that JSON lacks into plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "items"):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
