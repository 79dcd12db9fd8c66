"""Damaged and hostile containers: real ones with other bytes, or with other fields and the checksums put right."""

import copy
import json
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from onnxcomp.coding import pack_bytes, unpack_bytes

__all__ = ["MUTATIONS", "Parts", "mutated"]

_NUMBERS = (0, 1, 2, 3, 5, 7, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 1 << 20, 1 << 31, 1 << 32, 1 << 62, 1 << 64,
            10**30, -1, 1.5, 1e300)  # fmt: skip
_VALUES = (
    *_NUMBERS,
    None,
    True,
    False,
    "",
    "text",
    "../x",
    "/etc/x",
    "a/../../x",
    "C:x",
    "a\\b",
    "a\0b",
    [],
    {},
    [[]],
    [0],
)


@dataclass
class Parts:
    """A container taken apart: what its header says beside the parts, the manifest, and the parts' bytes."""

    metadata: dict[str, Any]
    manifest: Any
    graph: bytes
    groups: list[bytes]

    @classmethod
    def of(cls, content: bytes) -> "Parts":
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        metadata = header.pop("__metadata__")
        found = {n: content[8 + length + e["data_offsets"][0] : 8 + length + e["data_offsets"][1]]
                 for n, e in header.items()}  # fmt: skip
        graph, manifest = found.pop("__onnx__"), found.pop("__manifest__")
        plain = [unpack_bytes(part, 1 << 30, exact=False) for part in (manifest, graph)]
        return cls(metadata, json.loads(plain[0]), plain[1], list(found.values()))

    def to_bytes(
        self,
        edit: Callable[[dict[str, Any]], object] = lambda _: None,
        *,
        instead: Mapping[str, bytes] = MappingProxyType({}),
    ) -> bytes:
        """Put it together; `edit` changes the header, other bytes may stand instead of a part."""
        named = {
            "__onnx__": pack_bytes(self.graph),
            "__manifest__": pack_bytes(json.dumps(self.manifest).encode()),
        }
        named |= {str(index): data for index, data in enumerate(self.groups)}
        named |= instead
        header: dict[str, Any] = {"__metadata__": self.metadata}
        at = 0
        for name, data in named.items():
            header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
            at += len(data)
        edit(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + b"".join(named.values())


def _flip(rng: random.Random, content: bytes) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def _longer(rng: random.Random, content: bytes) -> bytes:
    return content + rng.randbytes(rng.choice((1, 8, 1000)))


def _span(rng: random.Random, content: bytes) -> bytes:
    """Remove, repeat, zero or shuffle some bytes."""
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice((1, 2, 4, 16, 300)))
    piece = content[start:stop]
    new = rng.choice((b"", piece * 2, bytes(len(piece)), bytes(rng.sample(piece, len(piece)))))
    return content[:start] + new + content[stop:]


def _length(rng: random.Random, content: bytes) -> bytes:
    (size,) = struct.unpack("<Q", content[:8])
    wrong = rng.choice((0, 1, size - 1, size + 1, len(content), len(content) * 2, 1 << 24, 1 << 40, (1 << 64) - 1))
    return struct.pack("<Q", wrong) + content[8:]


def _changed(rng: random.Random, value: Any) -> None:
    """Change something inside of a value of JSON."""
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        found = pending.pop()
        keys = list(found) if isinstance(found, dict) else range(len(found))
        places += [(found, key) for key in keys]
        pending += [found[key] for key in keys if isinstance(found[key], dict | list)]
    if not places:
        return
    owner, key = rng.choice(places)
    old = owner[key]
    choice = rng.random()
    if choice < 0.15:
        del owner[key]
    elif choice < 0.25 and isinstance(owner, list):
        owner.append(copy.deepcopy(old))
    elif choice < 0.3 and isinstance(owner, dict):
        owner["more"] = old
    elif choice < 0.6 and type(old) is int:
        owner[key] = old + rng.choice((-1, 1, -8, 8, 1000, old))
    else:
        owner[key] = rng.choice(_VALUES)


def _header(rng: random.Random, content: bytes) -> bytes:
    return Parts.of(content).to_bytes(lambda header: _changed(rng, header))


def _manifest(rng: random.Random, content: bytes) -> bytes:
    parts = Parts.of(content)
    for _ in range(rng.choice((1, 1, 2))):
        _changed(rng, parts.manifest)
    return parts.to_bytes()


def _graph(rng: random.Random, content: bytes) -> bytes:
    parts = Parts.of(content)
    parts.graph = rng.choice((_flip, _cut, _longer, _span))(rng, parts.graph)
    if rng.random() < 0.5:
        parts.manifest["graph"] = len(parts.graph)
    return parts.to_bytes()


def _chunks(rng: random.Random, content: bytes) -> bytes:
    """Change coded data, and put its checksum and lengths right."""
    parts = Parts.of(content)
    if not parts.groups:
        return _flip(rng, content)
    index = rng.randrange(len(parts.groups))
    entry, data, at = parts.manifest["groups"][index], parts.groups[index], 0
    out = b""
    target = rng.randrange(len(entry["streams"]))
    for number, stream in enumerate(entry["streams"]):
        head, at = data[at : at + stream[4]], at + stream[4]
        if number == target and head and rng.random() < 0.5:
            plain = bytearray(zlib.decompress(head))
            for _ in range(rng.choice((1, 2, 5))):
                plain[rng.randrange(len(plain))] = rng.choice((0, 1, 12, 13, 15, 16, 255, rng.randrange(256)))
            head = zlib.compress(bytes(plain))
            stream[4] = len(head)
        out += head
        for n in range(0, len(stream[5]), 2):
            chunk, at = data[at : at + stream[5][n]], at + stream[5][n]
            if number == target and chunk and rng.random() < 0.7:
                chunk = rng.choice((_flip, _flip, _cut, _longer, _span))(rng, chunk)
            stream[5][n : n + 2] = [len(chunk), zlib.crc32(chunk)]
            out += chunk
    if rng.random() < 0.2:
        stream = entry["streams"][target]
        stream[rng.randrange(4)] = rng.choice((0, 1, 2, 3, 4, 5, True, False, stream[1] + 1, 512, 1 << 30))
    parts.groups[index] = out
    return parts.to_bytes()


def _bomb(rng: random.Random, content: bytes) -> bytes:
    """Claim or hold far more than there is."""
    parts = Parts.of(content)
    choice = rng.randrange(4)
    if choice == 0:
        parts.graph = bytes(1 << 24)
    elif choice == 1:
        parts.manifest["files"] += [[f"f{n}", 0, "0" * 64] for n in range(1000)]
    elif choice == 2:
        parts.manifest = [[]] * (1 << 20)
    elif parts.groups:
        entry = rng.choice(parts.manifest["groups"])
        rng.choice(entry["members"])[0] = rng.choice((1 << 40, 1 << 61, 99_000_000, 1 << 22))
    return parts.to_bytes()


def _trade(rng: random.Random, content: bytes) -> bytes:
    """Swap two tensors, move one to another group, or take one for two."""
    parts = Parts.of(content)
    places = [(group["members"], n) for group in parts.manifest["groups"] for n in range(len(group["members"]))]
    if len(places) < 2:
        return _manifest(rng, content)
    (first, m), (second, n) = rng.sample(places, 2)
    choice = rng.randrange(4)
    if choice == 0:
        first[m], second[n] = second[n], first[m]
    elif choice == 1:
        first[m][1:], second[n][1:] = second[n][1:], first[m][1:]
    elif choice == 2:
        second.append(first.pop(m))
    else:
        size = rng.randrange(first[m][0] + 1)
        first[m : m + 1] = [[size, *first[m][1:]], [first[m][0] - size, 0, rng.randrange(20)]]
    return parts.to_bytes()


def _packed(rng: random.Random, content: bytes) -> bytes:
    """Change the bytes of the packed graph or manifest, or what they say of themselves."""
    parts = Parts.of(content)
    plain = rng.choice((parts.graph, json.dumps(parts.manifest).encode()))
    packed = bytearray(pack_bytes(plain))
    if rng.random() < 0.5:
        packed[rng.randrange(13)] = rng.choice((0, 1, 127, 224, 225, 255))
    else:
        packed = bytearray(rng.choice((_flip, _cut, _longer, _span))(rng, bytes(packed)))
    name = "__onnx__" if plain == parts.graph else "__manifest__"
    return parts.to_bytes(instead={name: bytes(packed)})


MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "longer": _longer,
    "span": _span,
    "length": _length,
    "header": _header,
    "manifest": _manifest,
    "graph": _graph,
    "chunks": _chunks,
    "chunks of others": _chunks,
    "bomb": _bomb,
    "trade": _trade,
    "packed": _packed,
}


def mutated(content: bytes, seed: int) -> tuple[str, bytes]:
    """Return the name of a mutation and the mutated container."""
    rng = random.Random(seed)
    name = rng.choice(list(MUTATIONS))
    return name, MUTATIONS[name](rng, content)
