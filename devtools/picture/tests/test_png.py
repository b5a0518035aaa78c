"""A packed picture is the same picture."""

from __future__ import annotations

import struct
import zlib

import pytest

from devtools.picture.png import packed

BEGIN = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def grey(width: int, height: int) -> tuple[bytes, bytes]:
    """A picture that is compressed badly, in two pieces, and its pixels."""
    pixels = b"".join(b"\0" + bytes(x % 7 for x in range(width)) for _ in range(height))
    data = zlib.compress(pixels, 0)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [
        chunk(b"IHDR", header),
        chunk(b"tEXt", b"Comment\0nobody sees it"),
        chunk(b"IDAT", data[:50]),
        chunk(b"IDAT", data[50:]),
        chunk(b"IEND", b""),
    ]
    return BEGIN + b"".join(chunks), pixels


def test_the_pixels_are_the_same_in_fewer_bytes() -> None:
    picture, pixels = grey(200, 50)
    made = packed(picture)
    assert len(made) < len(picture) / 5
    assert made.startswith(BEGIN + chunk(b"IHDR", struct.pack(">IIBBBBB", 200, 50, 8, 0, 0, 0, 0)))
    assert made.endswith(chunk(b"IEND", b""))
    at = made.index(b"IDAT")
    (length,) = struct.unpack(">I", made[at - 4 : at])
    assert zlib.decompress(made[at + 4 : at + 4 + length]) == pixels
    assert b"nobody" not in made
    assert packed(made) == made


def test_what_is_no_png() -> None:
    with pytest.raises(ValueError, match="no PNG"):
        packed(b"GIF89a")
