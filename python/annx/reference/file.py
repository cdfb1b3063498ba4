# SPDX-License-Identifier: Apache-2.0
"""The file format again, to read it, to write it, and to test against.

``docs/file-format.md`` describes every byte. Here a file is a kind, a dictionary of
meta entries and a dictionary of sections; ``decode(encode(...))`` is the identity, and
``encode(*decode(data))`` gives back the very bytes that the native writer made.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from annx.errors import FormatError

__all__ = ["VERSION", "File", "checksum", "decode", "encode"]

VERSION = 1

MAGIC = b"\x89ANNX\r\n\x1a"
HEADER = struct.Struct("<8sIIQQ24s")  # and its checksum
ROW = struct.Struct("<32sQQQQ")
ENTRY = struct.Struct("<32sII")
NUMBER, REAL, TEXT = 1, 2, 3
ALIGNMENT = 64
PAGE = 4096
BIG = 65536

MASK = 2**64 - 1
A = 0x9E3779B97F4A7C15
B = 0xD1342543DE82EF95


class File(NamedTuple):
    """What a file holds; in meta an int is a number, a float a real, a str a text."""

    kind: str
    meta: dict[str, int | float | str]
    sections: dict[str, bytes]


def checksum(data: bytes) -> int:
    """Return the 64-bit checksum of the bytes.

    Parameters
    ----------
    data : bytes
        Any number of them.

    Returns
    -------
    int
        In [0, 2**64).

    Notes
    -----
    The bytes, padded with zeros to whole blocks of 64, are little-endian words; word j
    of each block feeds lane j of eight,

        lane[j] <- rotl(lane[j] ^ (word * A), 29) * B       lane[j] = mix64(j + 1) first

    and at the end h <- length * A, then for each lane in turn h <- mix64(h ^ lane[j]),
    all modulo 2**64. Every step is a bijection, so a change within one word is always
    noticed. O(len(data)).

    Examples
    --------
    >>> checksum(b"annx") == checksum(b"annx" + bytes(1))
    False
    """
    padded = data + bytes(-len(data) % 64)
    words = np.frombuffer(padded, dtype="<u8").reshape(-1, 8)
    lanes = np.array([_mix64(j + 1) for j in range(8)], dtype=np.uint64)
    a, b = np.uint64(A), np.uint64(B)
    left, right = np.uint64(29), np.uint64(35)
    for block in words * a:
        x = lanes ^ block
        lanes = ((x << left) | (x >> right)) * b
    h = len(data) * A & MASK
    for lane in lanes.tolist():
        h = _mix64(h ^ lane)
    return h


def encode(
    kind: str, meta: dict[str, int | float | str], sections: dict[str, bytes]
) -> bytes:
    """Return the bytes of a file.

    Parameters
    ----------
    kind : str
        1 to 24 printable ASCII characters.
    meta : dict of str to int, float or str
        The entries, in this order. Names have 1 to 32 characters.
    sections : dict of str to bytes
        The sections, in this order; none may be called ``"meta"``.

    Returns
    -------
    bytes
        Alike for the same arguments.
    """
    everything = {"meta": _encode_meta(meta), **sections}
    end = 64 + 64 * len(everything)
    table = b""
    body = b""
    for name, data in everything.items():
        alignment = PAGE if len(data) >= BIG else ALIGNMENT
        gap = -end % alignment
        table += ROW.pack(name.encode(), end + gap, len(data), checksum(data), 0)
        body += bytes(gap) + data
        end += gap + len(data)
    gap = -end % ALIGNMENT
    header = HEADER.pack(
        MAGIC, VERSION, len(everything), end + gap, checksum(table), kind.encode()
    )
    return header + struct.pack("<Q", checksum(header)) + table + body + bytes(gap)


def decode(data: bytes) -> File:
    """Return what a file holds, after checking every byte of it.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    File
        Kind, meta and sections.

    Raises
    ------
    FormatError
        A byte is not what the format asks for.
    """
    _require(len(data) >= 64 and data[:8] == MAGIC, "not an annx file")
    _, version, count, length, table_checksum, kind = HEADER.unpack_from(data)
    _require(data[56:64] == struct.pack("<Q", checksum(data[:56])), "header: damaged")
    _require(version == VERSION, f"header: format version {version}")
    _require(length == len(data), "header: the length differs")
    _require(1 <= count <= (length - 64) // 64, "header: too many sections")
    table = data[64 : 64 + 64 * count]
    _require(checksum(table) == table_checksum, "table: damaged")
    sections: dict[str, bytes] = {}
    end = 64 + 64 * count
    for row in range(count):
        field, offset, size, expected, reserved = ROW.unpack_from(table, 64 * row)
        name = _name(field)
        _require(name not in sections and reserved == 0, f"table: row {row}")
        _require((name == "meta") == (row == 0), "table: meta comes first, once")
        _require(
            offset % ALIGNMENT == 0 and end <= offset < end + PAGE, f"{name}: offset"
        )
        _require(offset <= length and size <= length - offset, f"{name}: length")
        _require(not any(data[end:offset]), f"{name}: the gap before is not zero")
        sections[name] = data[offset : offset + size]
        _require(checksum(sections[name]) == expected, f"{name}: damaged")
        end = offset + size
    _require(length == end + -end % ALIGNMENT, "the sections do not fill the file")
    _require(not any(data[end:]), "the end is not zero")
    return File(_name(kind), _decode_meta(sections.pop("meta")), sections)


def _encode_meta(meta: dict[str, int | float | str]) -> bytes:
    result = b""
    for name, value in meta.items():
        if isinstance(value, str):
            kind, data = TEXT, value.encode()
        elif isinstance(value, float):
            kind, data = REAL, struct.pack("<d", value)
        else:
            kind, data = NUMBER, struct.pack("<Q", value)
        result += ENTRY.pack(name.encode(), kind, len(data))
        result += data + bytes(-len(data) % 8)
    return result


def _decode_meta(data: bytes) -> dict[str, int | float | str]:
    meta: dict[str, int | float | str] = {}
    at = 0
    while at < len(data):
        _require(len(data) - at >= ENTRY.size, "meta: an entry is cut off")
        field, kind, size = ENTRY.unpack_from(data, at)
        name = _name(field)
        at += ENTRY.size
        value = data[at : at + size]
        gap = data[at + size : at + size + -size % 8]
        _require(len(value) + len(gap) == size + -size % 8, f"meta: {name} is cut off")
        _require(not any(gap) and name not in meta, f"meta: {name}")
        at += len(value) + len(gap)
        _require(kind in (NUMBER, REAL, TEXT), f"meta: the type of {name}")
        _require(kind == TEXT or size == 8, f"meta: the length of {name}")
        if kind == TEXT:
            meta[name] = _text(name, value)
        else:
            meta[name] = struct.unpack("<Q" if kind == NUMBER else "<d", value)[0]
    return meta


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"meta: {name} is not UTF-8") from error


def _name(field: bytes) -> str:
    name = field.rstrip(b"\0")
    _require(bool(name) and all(0x20 < c < 0x7F for c in name), "a name is malformed")
    return name.decode()


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise FormatError(what)


def _mix64(x: int) -> int:
    """Return the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)
