"""Random changes of files: of any bytes, and of the structure of a format with its checksums set right."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 30_000, 2**31 - 1, 2**31, 2**32 - 1, 2**24, 65_500)
HOSTILE = (
    *(None, True, 0, -1, 2, 5, 2.5, 1e300, 10**30, -(10**400), 2**31, 2**63, "", "a", "../a", "\ud800", "\0"),
    *(float("nan"), float("inf"), [], {}, [[]], [1, 2, 3, 4, 5, 6], "9" * 400, "é" * 50, ["a"], {"a": 1}),
)


def mutated(kind: str, content: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """(changed file, whether its checksums fit the change, so that no reader can notice it)."""
    special = next((change for start, change in SPECIAL.items() if kind.startswith(start)), None)
    if special is not None and rng.random() < 0.45:
        return special(content, rng), True
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        content = any_bytes(content, rng)
    return content, False


def any_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, set, cut, repeat, insert, exchange or extend bytes."""
    data = bytearray(content or b"\0")
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 2, 4, 8, 30, 200)))
    kind = rng.randrange(9)
    if kind == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del data[start:stop]
    elif kind == 3:
        data[start:start] = data[start:stop]
    elif kind == 4:
        data[start:start] = rng.randbytes(stop - start)
    elif kind == 5:
        del data[start:]
    elif kind == 6:
        data[start:stop] = bytes(stop - start)
    elif kind == 7:
        value = rng.choice(EXTREMES)
        data[start : start + 4] = struct.pack(rng.choice("<>") + "I", value)
    else:
        data += rng.randbytes(rng.choice((1, 10, 1000)))
    return bytes(data)


def png(content: bytes, rng: random.Random) -> bytes:
    """Change the chunks of a PNG."""
    chunks, place = [], 8
    while place < len(content):
        (size,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    index, kind = rng.randrange(len(chunks)), rng.randrange(6)
    name, data = chunks[index]
    if kind == 0:
        del chunks[index]
    elif kind == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), (name, data))
    elif kind == 2:
        chunks[index] = (name, any_bytes(data, rng))
    elif kind == 3:
        head = bytearray(chunks[0][1])
        field, value = rng.choice(((0, 4), (4, 4), (8, 1), (9, 1), (12, 1))), rng.choice(EXTREMES)
        head[field[0] : sum(field)] = struct.pack(">I", value)[-field[1] :]
        chunks[0] = (b"IHDR", bytes(head))
    elif kind == 4:
        text = rng.choice((b"tRNS", b"PLTE", b"gAMA", b"iCCP", b"eXIf", b"acTL", b"zTXt", b"sBIT"))
        chunks.insert(1, (text, rng.randbytes(rng.choice((0, 1, 3, 4, 6, 50)))))
    else:
        rng.shuffle(chunks)
    joined = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return content[:8] + b"".join(joined)


def zipped(content: bytes, rng: random.Random) -> bytes:
    """Change members of a zip file; the archive is written anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    index, kind = rng.randrange(len(members)), rng.randrange(4)
    info, data = members[index]
    if kind == 0:
        del members[index]
    elif kind == 1:
        members.append((copy.copy(info), any_bytes(data, rng)))
        members[-1][0].filename = rng.choice((info.filename, "../x.npy", "x", "/a.npy", "archive/data/9"))
    else:
        change = npy if info.filename.endswith(".npy") and kind == 2 else any_bytes
        members[index] = (info, change(data, rng))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for info, data in members:
            archive.writestr(info.filename, data, info.compress_type)
    return file.getvalue()


def npy(content: bytes, rng: random.Random) -> bytes:
    """Change the header of a NumPy file, whose length stays right."""
    size = int.from_bytes(content[8:10], "little")
    text = content[10 : 10 + size].decode("latin-1").strip()
    numbers = [found.span(1) for found in re.finditer(r"[(, ](\d+)", text)]
    start, stop = rng.choice(numbers or [(0, 0)])
    kind = rng.randrange(4)
    if kind == 0:
        text = text[:start] + str(rng.choice((0, -1, 1, 7, 2**31, 2**40, 2**62, 10**30))) + text[stop:]
    elif kind == 1:
        types = ("<f8", "|O", ">f4", "|S0", "<U9", "<c16", "|V4", "<M8[s]", "<f2", "|b1", "junk", "<i8")
        text = text.replace("<f4", rng.choice(types))
    elif kind == 2:
        text = text.replace("False", rng.choice(("True", "None", "1", "[]")))
    else:
        text = any_bytes(text.encode("latin-1"), rng).decode("latin-1")
    header = text.encode("latin-1") + b"\n"
    return content[:8] + struct.pack("<H", len(header) & 0xFFFF) + header + content[10 + size :]


def mat(content: bytes, rng: random.Random) -> bytes:
    """Change variables of a MATLAB file and pack them anew, where they were packed."""
    variables, place = [], 128
    while place < len(content):
        kind, size = struct.unpack_from("<II", content, place)
        data = content[place + 8 : place + 8 + size]
        variables.append((kind, zlib.decompress(data) if kind == 15 else data))
        place += 8 + size
    index = rng.randrange(len(variables))
    kind, data = variables[index]
    if rng.random() < 0.5:
        start = 4 * rng.randrange(len(data) // 4)
        data = data[:start] + struct.pack("<I", rng.choice(EXTREMES)) + data[start + 4 :]
    else:
        data = any_bytes(data, rng)
    variables[index] = (kind, data)
    packed = [(kind, zlib.compress(data) if kind == 15 else data) for kind, data in variables]
    return content[:128] + b"".join(struct.pack("<II", kind, len(data)) + data for kind, data in packed)


def tiff(content: bytes, rng: random.Random) -> bytes:
    """Set the type, number or value of a tag to an extreme."""
    data = bytearray(content)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    place = start + 2 + 12 * rng.randrange(count)
    size, offset = rng.choice(((2, 2), (4, 4), (4, 8)))
    value = rng.choice((*EXTREMES, start, len(data) - 1))
    data[place + offset : place + offset + size] = struct.pack("<I", value)[:size]
    return bytes(data)


def jpeg(content: bytes, rng: random.Random) -> bytes:
    """Set a field of the frame's header to an extreme, or remove or repeat a segment."""
    segments, place = [], 2
    while content[place + 1] != 0xDA:
        size = 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        segments.append(bytearray(content[place : place + size]))
        place += size
    index, kind = rng.randrange(len(segments)), rng.randrange(3)
    if kind == 0:
        frame = next(item for item in segments if item[1] in (0xC0, 0xC1, 0xC2))
        offset = rng.choice((4, 5, 7, 9, 10, 11, 12))
        value = struct.pack(">H", rng.choice(EXTREMES) & 0xFFFF)
        frame[offset : offset + 2] = (
            value if offset in (5, 7) else value[-1:] + frame[offset + 1 : offset + 2]
        )
    elif kind == 1:
        del segments[index]
    else:
        segments.insert(rng.randrange(len(segments)), segments[index])
    return content[:2] + b"".join(segments) + content[place:]


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Paths of everything inside a JSON value."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def json_text(content: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or exchange values of a JSON file; sometimes its whole form."""
    tree = json.loads(content)
    if rng.random() < 0.1:
        deep = b"[" * 100_000
        wrapped = (json.dumps([tree]).encode(), b"null", b"-1", deep, b"9" * 5000, content + content, b"")
        return rng.choice((*wrapped, content.decode().encode("utf-16"), b"\xef\xbb\xbf" + content))
    for _ in range(rng.randrange(1, 4)):
        found = list(places(tree))
        if not found:
            break
        *parents, key = rng.choice(found)
        node = tree
        for step in parents:
            node = node[step]
        kind = rng.randrange(5)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node[key], int | float):
            node[key] += rng.choice((-100, -1, 0.5, 1, 1000))
        elif kind == 2 and isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
        else:
            node[key] = copy.deepcopy(rng.choice(HOSTILE))
    return json.dumps(tree).encode()


def zipped_json(content: bytes, rng: random.Random) -> bytes:
    """As `json_text`, of a file packed by gzip."""
    return gzip.compress(json_text(gzip.decompress(content), rng), mtime=0)


def safetensors(content: bytes, rng: random.Random) -> bytes:
    """Change the header of a safetensors file, whose length stays right."""
    size = int.from_bytes(content[:8], "little")
    header = json_text(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def lines(content: bytes, rng: random.Random) -> bytes:
    """Change the lines of a text."""
    odd = (b"", b"../../etc/passwd", b"\xff\xfe", b"a", b"\0", b"x" * 5000, "é".encode(), b"/a", b"nobody")
    found = content.splitlines()
    found.insert(rng.randrange(len(found) + 1), rng.choice(odd))
    rng.shuffle(found)
    return rng.choice((b"\n", b"\r\n", b"\r", b"\n\n")).join(found)


SPECIAL: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "png": png,
    "npz": zipped,
    "checkpoint_pth": zipped,
    "npy": npy,
    "manifest": json_text,
    "mat": mat,
    "coco_gzip": zipped_json,
    "coco": json_text,
    "record": json_text,
    "tiff": tiff,
    "jpeg": jpeg,
    "safetensors": safetensors,
    "ids": lines,
}
"""{how a kind begins: the change of its structure}; the first that fits counts."""
