"""PNG with 16-bit samples, which Pillow would cut to 8 bits.

A filter of PNG works on bytes and refers to the same byte of the pixels left and above. So the upper bytes of a 16-bit
picture, with its filter bytes, are the rows of an 8-bit PNG, and so are the lower ones: a fast decoder of 8-bit PNG,
such as Pillow's, decodes both. Source: PNG Specification, third edition (W3C), sections 7, 8, 9.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIGNATURE", "chunks", "depth", "encode16", "halves"]

Samples = NDArray[Any]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type; those with a palette have no 16 bits
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7
_DEPENDENT = (b"tRNS", b"bKGD", b"sBIT", b"hIST")  # chunks whose meaning changes with the depth


def depth(file: io.BufferedReader | io.BytesIO) -> int:
    """The bits of one sample of the PNG file at hand; 0 where the header is not there."""
    file.seek(0)
    head = file.read(26)
    return head[24] if len(head) == 26 and head[:8] == SIGNATURE and head[12:16] == b"IHDR" else 0


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG file, (type, content), up to the last; raises ValueError where one is cut or damaged."""
    place = 8
    while True:
        if place + 12 > len(data):
            raise ValueError("it ends too early")
        (size,) = struct.unpack(">L", data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        if len(content) < size or place + 12 + size > len(data):
            raise ValueError("it ends too early")
        if struct.unpack(">L", data[place + 8 + size : place + 12 + size])[0] != zlib.crc32(kind + content):
            raise ValueError(f"its chunk {kind.decode('ascii', 'replace')} is damaged")
        yield kind, content
        if kind == b"IEND":
            return
        place += 12 + size


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def halves(data: bytes) -> tuple[bytes, bytes, tuple[int, ...] | None]:
    """A 16-bit PNG file as two 8-bit ones, of the upper and of the lower bytes of all samples.

    The first keeps every chunk that does not depend on the depth (profile, EXIF, text). The third result is the colour
    that is transparent, one number a channel, 0..65535, or None. Raises ValueError for a file that is damaged.
    """
    parts = list(chunks(data))
    header = dict(parts).get(b"IHDR", b"")
    if len(header) != 13:
        raise ValueError("its header is damaged")
    width, height, bits, colour, compression, filtering, interlaced = struct.unpack(">LLBBBBB", header)
    if bits != 16 or colour not in _SAMPLES or compression or filtering or interlaced > 1:
        raise ValueError("its header is damaged")
    count = _SAMPLES[colour]
    steps = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in steps]
    blocks = [(rows, 1 + 2 * count * columns) for columns, rows in sizes if columns > 0 and rows > 0]
    raw = _inflate([content for kind, content in parts if kind == b"IDAT"], sum(rows * size for rows, size in blocks))
    ancillary = [part for part in parts if part[0] not in (b"IHDR", b"IDAT", b"IEND", *_DEPENDENT)]
    header = header[:8] + b"\x08" + header[9:]
    upper = _file(header, ancillary, _half(raw, blocks, 0))
    lower = _file(header, [], _half(raw, blocks, 1))
    key = dict(parts).get(b"tRNS")
    if key is not None and count % 2 and len(key) != 2 * count:
        raise ValueError("its chunk tRNS is damaged")
    return upper, lower, struct.unpack(f">{count}H", key) if key is not None and count % 2 else None


def _inflate(parts: list[bytes], size: int) -> Samples:
    """The `size` bytes of the filtered rows; more are never made, whatever the file holds."""
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(b"".join(parts), size + 1)  # one more byte, so that the checksum is read as well
    except zlib.error as error:
        raise ValueError(f"its samples are damaged ({error})") from None
    if len(raw) < size:
        raise ValueError("it ends too early")
    return np.frombuffer(raw, np.uint8, size)


def _half(raw: Samples, blocks: list[tuple[int, int]], half: int) -> bytes:
    """The filter byte and the upper (0) or lower (1) bytes of every row, in the zlib format, not compressed."""
    parts, start = [], 0
    for rows, size in blocks:
        block = raw[start : start + rows * size].reshape(rows, size)
        parts.append(np.concatenate([block[:, :1], block[:, 1 + half :: 2]], axis=1).tobytes())
        start += rows * size
    return zlib.compress(b"".join(parts), 0)


def _file(header: bytes, ancillary: list[tuple[bytes, bytes]], idat: bytes) -> bytes:
    parts = [(b"IHDR", header), *ancillary, (b"IDAT", idat), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(*part) for part in parts)


def encode16(picture: Samples, ancillary: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of uint16 [H, W, C], C = 1 grey, 2 with alpha, 3 RGB, 4 with alpha, with the ancillary chunks given.

    Each row has the filter (none, left, above, Paeth) with the least sum of absolute bytes, as the standard advises.
    """
    height, width, count = picture.shape
    compressor = zlib.compressobj(3)
    parts, step = [], max(1, 2**20 // (width * count * 2))
    above = np.zeros((1, width * count * 2), np.uint8)
    for top in range(0, height, step):
        rows = picture[top : top + step].astype(">u2").view(np.uint8).reshape(-1, width * count * 2)
        parts.append(compressor.compress(_filtered(rows, np.concatenate([above, rows[:-1]]), count * 2)))
        above = rows[-1:]
    parts.append(compressor.flush())
    colour = next(kind for kind, samples in _SAMPLES.items() if samples == count)
    return _file(struct.pack(">LLBBBBB", width, height, 16, colour, 0, 0, 0), ancillary, b"".join(parts))


def _filtered(rows: Samples, above: Samples, pixel: int) -> bytes:
    """Rows uint8 [R, N] with a filter each, given the rows above them; `pixel`: bytes a pixel."""
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel:], corner[:, pixel:] = rows[:, :-pixel], above[:, :-pixel]
    choices = {0: rows, 1: rows - left, 2: rows - above, 4: rows - _paeth(left, above, corner)}
    costs = [np.abs(each.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64) for each in choices.values()]
    best = np.argmin(costs, axis=0)
    kept = np.stack(list(choices.values()))[best, np.arange(len(rows))]
    return np.concatenate([np.array(list(choices), np.uint8)[best, None], kept], axis=1).tobytes()


def _paeth(left: Samples, above: Samples, corner: Samples) -> Samples:
    """The neighbour that is nearest to left + above - corner; on ties left, then above."""
    a, b, c = (each.astype(np.int16) for each in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    second = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, second)
