"""A reader of ``.onnxz`` files written from docs/format.md alone: standard library only, nothing of onnxcomp."""

import hashlib
import json
import lzma
import struct
import zlib

FIELDS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 10: "Tensor", 6: "Graph", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
CHUNK = 1048576


def read(content: bytes) -> dict[str, bytes]:
    """Return the files in a container, by path; the model's is empty."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__")["min_reader"] == "2"
    parts = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        parts[name] = content[8 + length + begin : 8 + length + end]
    manifest = json.loads(lzma.decompress(parts["__manifest__"]))
    graph = lzma.decompress(parts["__onnx__"])
    places: dict[int, dict[int, bytes]] = {number: {} for number in range(len(manifest["files"]))}
    for index, entry in enumerate(manifest["groups"]):
        data = group(parts[str(index)], entry)
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        start = 0
        for size, *numbers in entry["members"]:
            for file, position in zip(numbers[::2], numbers[1::2], strict=True):
                places[file][position] = data[start : start + size]
            start += size
        assert start == len(data)
    found = {}
    for number, (path, size, sha256) in enumerate(manifest["files"]):
        if number == 0:
            found[path] = rebuilt(graph, "Model", places[0], [0])
        else:
            file = bytearray(size)
            for position, data in places[number].items():
                file[position : position + len(data)] = data
            found[path] = bytes(file)
        assert hashlib.sha256(found[path]).hexdigest() == sha256
    return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def as_varint(value: int) -> bytes:
    found = []
    while value > 127:
        found.append(value % 128 + 128)
        value //= 128
    return bytes([*found, value])


def rebuilt(message: bytes, kind: str, stored: dict[int, bytes], counter: list[int]) -> bytes:
    if kind == "Tensor":
        data = stored.get(counter[0])
        counter[0] += 1
        if data is None:
            return message
    out, at = b"", 0
    while at < len(message):
        begin = at
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            value = at
            size, at = varint(message, at)
            inner = message[at : at + size]
            at += size
            tag_bytes = message[begin:value]
            if kind == "Tensor" and number in (4, 5, 7, 9, 10, 11) and size == 0:
                out += tag_bytes + as_varint(len(data)) + data
                continue
            if kind != "Tensor" and number in FIELDS[kind]:
                new = rebuilt(inner, FIELDS[kind][number], stored, counter)
                out += message[begin:at] if new == inner else tag_bytes + as_varint(len(new)) + new
                continue
        elif wire == 0:
            _, at = varint(message, at)
        else:
            at += {1: 8, 5: 4}[wire]
        out += message[begin:at]
    return out


def group(part: bytes, entry: dict) -> bytes:
    coders = {0: raw, 1: huffman, 4: rans, 5: deflate}
    at, streams = 0, []
    for coder, size, paired, lanes, head_size, table in entry["streams"]:
        head = part[at : at + head_size]
        at += head_size
        left = (size + 1) // 2 if paired else size
        symbols: list[int] = []
        for length, crc in zip(table[::2], table[1::2], strict=True):
            chunk = part[at : at + length]
            at += length
            assert zlib.crc32(chunk) == crc
            symbols += coders[coder](chunk, head, lanes, min(left, CHUNK), len(symbols))
            left -= CHUNK
        if paired:
            symbols = [half for pair in symbols for half in (pair % 16, pair // 16)][:size]
        assert len(symbols) == size
        streams.append(bytes(symbols))
    assert at == len(part)
    codec, width = entry["codec"], entry["width"]
    if codec not in (2, 3):
        return streams[0]
    planes = streams[1:] if codec == 2 else streams
    elements = [int.from_bytes(values, "little") for values in zip(*planes, strict=True)]
    if entry["rotated"]:
        elements = [e >> 1 | (e & 1) << (8 * width - 1) for e in elements]
    if codec == 2:
        count = sum(member[0] for member in entry["members"]) // width
        values = iter(elements)
        bits = [streams[0][n // 8] >> n % 8 & 1 for n in range(count)]
        elements = [next(values) if bit else 0 for bit in bits]
    return b"".join(e.to_bytes(width, "little") for e in elements)


def raw(chunk: bytes, _head: bytes, _lanes: int, _count: int, _first: int) -> list[int]:
    return list(chunk)


def deflate(chunk: bytes, _head: bytes, _lanes: int, _count: int, _first: int) -> list[int]:
    return list(zlib.decompress(chunk))


def huffman(chunk: bytes, head: bytes, lanes: int, count: int, _first: int) -> list[int]:
    lengths = [half for byte in zlib.decompress(head) for half in (byte % 16, byte // 16)]
    code, before, table = 0, 0, {}
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - before
        table[format(code, f"0{length}b")] = symbol
        code += 1
        before = length
    sizes = struct.unpack(f"<{lanes}H", chunk[: 2 * lanes])
    at, found = 2 * lanes, [0] * count
    for lane, size in enumerate(sizes):
        bits = "".join(format(byte, "08b") for byte in chunk[at : at + size])
        at += size
        position = 0
        for n in range(lane, count, lanes):
            end = position + 1
            while bits[position:end] not in table:
                end += 1
            found[n] = table[bits[position:end]]
            position = end
        assert set(bits[position:]) <= {"0"}
    return found


def rans(chunk: bytes, head: bytes, lanes: int, count: int, first: int) -> list[int]:
    content = zlib.decompress(head)
    top, matrices = struct.unpack("<BI", content[:5])
    sizes = struct.unpack(f"<{2 * matrices}I", content[5 : 5 + 8 * matrices])
    rows, columns = sizes[::2], sizes[1::2]
    content = content[5 + 8 * matrices :]
    row_levels, column_levels = content[: sum(rows)], content[sum(rows) : sum(rows) + sum(columns)]
    content = content[sum(rows) + sum(columns) :]
    low, high = content[: (top + 1) * 256], content[(top + 1) * 256 :]
    classes = []
    for m in range(matrices if top else 0):
        of_rows, of_columns = row_levels[sum(rows[:m]) :][: rows[m]], column_levels[sum(columns[:m]) :][: columns[m]]
        classes += [min(row + column, top) for row in of_rows for column in of_columns]
    slots = []
    for of in range(top + 1):
        start = 0
        slots.append([])
        for symbol in range(256):
            frequency = low[of * 256 + symbol] + 256 * high[of * 256 + symbol]
            slots[-1] += [(symbol, frequency, start)] * frequency
            start += frequency
    states = list(struct.unpack(f"<{lanes}I", chunk[: 4 * lanes]))
    words = iter(struct.unpack(f"<{(len(chunk) - 4 * lanes) // 2}H", chunk[4 * lanes :]))
    found = []
    for n in range(count):
        x = states[n % lanes]
        of = classes[first + n] if top else 0
        symbol, frequency, start = slots[of][x & 4095]
        x = frequency * (x >> 12) + (x & 4095) - start
        if x < 65536:
            x = (x << 16) | next(words)
        states[n % lanes] = x
        found.append(symbol)
    assert set(states) == {65536}
    assert next(words, None) is None
    return found
