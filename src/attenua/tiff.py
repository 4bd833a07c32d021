"""TIFF directories, in TIFF files and in EXIF blocks, and TIFF's 16-bit samples, which Pillow would cut to 8 bits.

Source: TIFF 6.0 (Adobe, 1992) and its Technical Notes; BigTIFF; EXIF 2.32 (CIPA DC-008) for what a camera adds.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

__all__ = ["Directory", "Entry", "File", "Source", "bits", "decode16", "directory", "encode", "exif_of", "is_tiff"]
__all__ += ["number", "pages", "upright"]

Samples = NDArray[Any]
"""uint8 or uint16 [H, W, C]."""

File = io.BufferedReader | io.BytesIO
"""An open file, or bytes taken for one."""

# Tags
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION = 256, 257, 258, 259, 262, 266, 274
OFFSETS, SAMPLES, ROWS, COUNTS, PLANAR, PREDICTOR, TILE_WIDTH = 273, 277, 278, 279, 284, 317, 322
TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT, XMP, ICC = 323, 324, 325, 338, 339, 700, 34675
KIND, EXIF, GPS, INTEROPERABILITY, RAW = 254, 34665, 34853, 40965, 50706
EXIF_WIDTH, EXIF_HEIGHT = 40962, 40963

# What describes a picture and not how its file is laid out: name, camera, resolution, software, dates, people, terms.
_DESCRIPTIVE = frozenset(
    {269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}
)

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate", 34925: "LZMA", 50000: "Zstd"}
_GROUP = 2**25  # bytes decoded at once: bounds the memory, and stays below the sizes that Pillow warns of


@dataclass(frozen=True)
class Entry:
    """One field of a directory: its TIFF type, how many values, and their bytes in the file's own order."""

    kind: int
    count: int
    value: bytes


Directory = dict[int, "Entry | Directory"]
"""The fields of one directory by tag; where a field points to another directory, that directory."""


class Source:
    """A TIFF file or block of which pieces are taken; every piece is checked to lie within it.

    order: "<" or ">"; big: BigTIFF; first: where the first directory begins. Raises ValueError for another header.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        head = self.take(0, 8)
        if not is_tiff(head):
            raise ValueError("it has no TIFF header")
        self._left = 2 * self.size  # fields may point to the same bytes, and must not be more than the file
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = 43 in head[2:4]
        self.first: int = self.unpack("Q", self.take(8, 8))[0] if self.big else self.unpack("L", head[4:])[0]

    def take(self, offset: int, count: int) -> bytes:
        """The `count` bytes from `offset` on; raises ValueError where they are not all there."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ValueError("it ends too early or points beyond its end")
        self.file.seek(offset)
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError("it ends too early")
        return data

    def unpack(self, code: str, data: bytes) -> tuple[int, ...]:
        """Whole numbers from bytes in the order of this source."""
        return struct.unpack(self.order + code, data)

    def fields(self, offset: int) -> Iterator[tuple[int, int, Entry]]:
        """The fields of the directory at `offset`: (where it lies, tag, entry); those of unknown type are left out."""
        count = self.unpack("Q", self.take(offset, 8))[0] if self.big else self.unpack("H", self.take(offset, 2))[0]
        step, code, room, at = (20, "HHQ", 8, offset + 8) if self.big else (12, "HHL", 4, offset + 2)
        table = self.take(at, count * step)
        for start in range(0, count * step, step):
            tag, kind, number = self.unpack(code, table[start : start + step - room])
            if kind not in _SIZES:
                continue
            size = number * _SIZES[kind]
            place = at + start + step - room
            if size > room:
                self._left -= size
                if self._left < 0:
                    raise ValueError("its fields claim more bytes than it has")
                place = self.unpack("Q" if self.big else "L", self.take(place, room))[0]
            yield at + start, tag, Entry(kind, number, self.take(place, size))

    def after(self, offset: int) -> tuple[int, int]:
        """Where the directory at `offset` notes the next one, and what it notes: 0 for none."""
        if self.big:
            place = offset + 8 + 20 * self.unpack("Q", self.take(offset, 8))[0]
            return place, self.unpack("Q", self.take(place, 8))[0]
        place = offset + 2 + 12 * self.unpack("H", self.take(offset, 2))[0]
        return place, self.unpack("L", self.take(place, 4))[0]

    def numbers(self, entry: Entry) -> tuple[int, ...]:
        """The whole numbers of an entry; raises ValueError where it holds others."""
        if entry.kind not in _NUMBERS:
            raise ValueError(f"a field of type {entry.kind} stands where whole numbers belong")
        return self.unpack(f"{entry.count}{_NUMBERS[entry.kind]}", entry.value)


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with these bytes (4 or more) is TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directory(source: Source, offset: int) -> dict[int, Entry]:
    """The fields of one directory by tag; of repeated ones the first."""
    found: dict[int, Entry] = {}
    for _, tag, entry in source.fields(offset):
        found.setdefault(tag, entry)
    return found


def pages(source: Source) -> list[dict[int, Entry]]:
    """The directories of all pictures in a file, in order; raises ValueError for a chain without end."""
    found: list[dict[int, Entry]] = []
    seen: set[int] = set()
    offset = source.first
    while offset:
        if offset in seen or len(seen) == 1000:
            raise ValueError("its chain of pages has no end")
        seen.add(offset)
        found.append(directory(source, offset))
        offset = source.after(offset)[1]
    return found


def number(source: Source, page: dict[int, Entry], tag: int, default: int | None = None) -> int:
    """The first number of a field, or `default`; raises ValueError where the field is not there and has none."""
    if tag not in page and default is not None:
        return default
    if tag not in page or not (values := source.numbers(page[tag])):
        raise ValueError(f"its field {tag} is missing")
    return values[0]


def bits(source: Source, page: dict[int, Entry]) -> tuple[int, ...]:
    """The bits of each sample of a pixel; one bit where nothing is noted."""
    return source.numbers(page[BITS]) if BITS in page else (1,)


# ---- 16-bit pictures


def decode16(source: Source, page: dict[int, Entry]) -> Samples:
    """Decode a grey or RGB picture of 16-bit samples to uint16 [H, W, C]; C = 2 or 4 where there is an alpha channel.

    The bytes are decompressed by libtiff (they are shown to it as 8-bit grey strips, which it cannot spoil); order,
    prediction, planes and tiles are put right here. Associated alpha is divided out; channels beyond are left out.
    Raises ValueError for what is damaged or of another kind.
    """
    photometric, count = number(source, page, PHOTOMETRIC), number(source, page, SAMPLES, 1)
    colours = {0: 1, 1: 1, 2: 3}.get(photometric)
    signs = source.numbers(page[FORMAT]) if FORMAT in page else (1,)
    if colours is None or not colours <= count <= 16 or any(sign not in (1, 4) for sign in signs):
        raise ValueError(f"16-bit samples of kind {photometric} or with a sign are not read, only grey and RGB")
    extra = source.numbers(page[EXTRA]) if EXTRA in page else ()
    alpha = bool(extra) and extra[0] in (1, 2) and count > colours
    whole = _samples(source, page, count)[..., : colours + alpha]
    if photometric == 0:
        whole[..., 0] = 65535 - whole[..., 0]
    if alpha and extra[0] == 1:
        opacity = whole[..., colours:].astype(np.float64) / 65535
        plain = whole[..., :colours] / np.maximum(opacity, 1 / 65535)
        whole[..., :colours] = np.minimum(np.rint(plain), 65535)
    return whole


def _samples(source: Source, page: dict[int, Entry], count: int) -> Samples:
    """All samples, uint16 [H, W, count], from strips or tiles, chunky or in planes."""
    width, height = number(source, page, WIDTH), number(source, page, HEIGHT)
    tiled = TILE_WIDTH in page
    across = number(source, page, TILE_WIDTH) if tiled else width
    down = number(source, page, TILE_HEIGHT) if tiled else min(number(source, page, ROWS, height), height)
    if not (across > 0 and down > 0) or across * down > 4 * max(width * height, 2**20):
        raise ValueError(f"its tiles of {across} x {down} pixels make no sense")
    planes = count if number(source, page, PLANAR, 1) == 2 else 1
    per = count // planes
    grid = planes, -(-height // down), -(-width // across)
    offsets = source.numbers(page[TILE_OFFSETS if tiled else OFFSETS])
    counts = source.numbers(page[TILE_COUNTS if tiled else COUNTS])
    if not len(offsets) == len(counts) == grid[0] * grid[1] * grid[2]:
        raise ValueError("its table of strips or tiles does not fit its size")
    whole = np.empty((planes, height, width, per), np.uint16)
    places = list(np.ndindex(grid))
    batch = max(1, _GROUP // (down * across * per * 2))
    for start in range(0, len(places), batch):
        pieces = slice(start, start + batch)
        heights = [down if tiled else min(down, height - row * down) for _, row, _ in places[pieces]]
        _place(source, page, whole, places[pieces], offsets[pieces], counts[pieces], heights, (down, across))
    return whole.transpose(1, 2, 0, 3).reshape(height, width, count)


def _place(
    source: Source,
    page: dict[int, Entry],
    whole: Samples,
    places: Sequence[tuple[int, ...]],
    offsets: Sequence[int],
    counts: Sequence[int],
    heights: Sequence[int],
    size: tuple[int, int],
) -> None:
    """Decode neighbouring pieces and put them where they belong in `whole` [planes, H, W, per]."""
    (down, across), per = size, whole.shape[-1]
    predictor = number(source, page, PREDICTOR, 1)
    if predictor not in (1, 2):
        raise ValueError(f"its prediction of kind {predictor} is not for whole numbers")
    start = 0
    while start < len(places):  # a strip that is shorter ends a plane, and so a batch of equal pieces
        end = start + 1
        while end < len(places) and heights[end] == heights[start]:
            end += 1
        data = [source.take(*each) for each in zip(offsets[start:end], counts[start:end], strict=True)]
        raw = _inflate(data, across * per * 2, heights[start], source, page)
        pieces = raw.view(source.order + "u2").reshape(end - start, heights[start], across, per).astype(np.uint16)
        if predictor == 2:
            np.cumsum(pieces, axis=2, dtype=np.uint16, out=pieces)
        for (plane, row, column), piece in zip(places[start:end], pieces, strict=True):
            target = whole[plane, row * down : (row + 1) * down, column * across : (column + 1) * across]
            target[...] = piece[: target.shape[0], : target.shape[1]]
        start = end


def _inflate(data: Sequence[bytes], width: int, rows: int, source: Source, page: dict[int, Entry]) -> Samples:
    """Decompress pieces of `rows` rows of `width` bytes each to uint8 [len(data) * rows, width]."""
    compression = number(source, page, COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        allowed = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ValueError(f"16-bit samples compressed by method {compression} are not read, only {allowed}")
    if compression == 1 and number(source, page, FILL_ORDER, 1) == 1:
        if any(len(each) < width * rows for each in data):
            raise ValueError("it ends too early")
        return np.frombuffer(b"".join(each[: width * rows] for each in data), np.uint8).reshape(-1, width)
    tags = {WIDTH: [width], HEIGHT: [rows * len(data)], BITS: [8], COMPRESSION: [compression], PHOTOMETRIC: [1]}
    tags |= {FILL_ORDER: [number(source, page, FILL_ORDER, 1)], SAMPLES: [1], ROWS: [rows]}
    starts = np.cumsum([8] + [len(each) for each in data]).tolist()
    fields: Directory = {tag: _longs(values, "<") for tag, values in tags.items()}
    fields |= {OFFSETS: _longs(starts[:-1], "<"), COUNTS: _longs([len(each) for each in data], "<")}
    file = b"".join([struct.pack("<2sHL", b"II", 42, starts[-1]), *data, _pack(fields, "<", starts[-1])])
    with TiffImagePlugin.TiffImageFile(io.BytesIO(file)) as picture:  # not Image.open, which limits a strip's size
        return np.asarray(picture)


# ---- writing


def _longs(values: Sequence[int], order: str, kind: int = 4) -> Entry:
    """Whole numbers as an entry."""
    return Entry(kind, len(values), struct.pack(f"{order}{len(values)}{_NUMBERS[kind]}", *values))


def _pack(fields: Directory, order: str, at: int) -> bytes:
    """A directory, and those it points to, as bytes that begin at `at` in their file (classic TIFF; no next page)."""
    table, rest = [struct.pack(order + "H", len(fields))], b""
    after = at + 2 + 12 * len(fields) + 4
    for tag in sorted(fields):
        entry = fields[tag]
        if isinstance(entry, dict):
            rest += b"\0" * (len(rest) % 2)
            place, below = after + len(rest), _pack(entry, order, after + len(rest))
            entry, rest = _longs([place], order), rest + below
        value = entry.value
        if len(value) > 4:
            rest += b"\0" * (len(rest) % 2)
            value, rest = struct.pack(order + "L", after + len(rest)), rest + value
        table.append(struct.pack(order + "HHL4s", tag, entry.kind, entry.count, value))
    return b"".join([*table, bytes(4), rest])


def encode(picture: Samples, *, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """A TIFF file of uint8 or uint16 [H, W, C], C = 1 grey, 3 RGB, 2 or 4 with alpha (not associated).

    Deflate with horizontal prediction, in strips; byte order and description are those of `exif`.
    Raises ValueError where the file would pass TIFF's 4 GB.
    """
    order, fields = _described(exif)
    height, width, count = picture.shape
    depth, alpha = picture.dtype.itemsize * 8, count % 2 == 0
    rows = max(1, 2**20 // (width * count * depth // 8))
    strips = []
    for top in range(0, height, rows):
        strip = picture[top : top + rows].copy()
        strip[:, 1:] -= picture[top : top + rows, :-1]
        strips.append(zlib.compress(strip.astype(f"{order}u{depth // 8}").tobytes(), 6))
        strips[-1] += b"\0" * (len(strips[-1]) % 2)
    starts = np.cumsum([8] + [len(each) for each in strips]).tolist()
    if starts[-1] > 2**32 - 2**24:
        raise ValueError(f"a TIFF file holds 4 GB, less than this picture of {width} x {height} pixels needs")
    tags = {
        WIDTH: [width],
        HEIGHT: [height],
        ROWS: [rows],
        OFFSETS: starts[:-1],
        COUNTS: [len(each) for each in strips],
    }
    fields |= {tag: _longs(values, order) for tag, values in tags.items()}
    small = {BITS: [depth] * count, COMPRESSION: [8], PHOTOMETRIC: [1 if count < 3 else 2], SAMPLES: [count]}
    small |= {PLANAR: [1], PREDICTOR: [2], ORIENTATION: [1], **({EXTRA: [2]} if alpha else {})}
    fields |= {tag: _longs(values, order, 3) for tag, values in small.items()}
    for tag, block, kind in ((ICC, icc, 7), (XMP, xmp, 1)):
        if block is not None:
            fields[tag] = Entry(kind, len(block), block)
    head = struct.pack(order + "2sHL", b"II" if order == "<" else b"MM", 42, starts[-1])
    return b"".join([head, *strips, _pack(fields, order, starts[-1])])


# ---- EXIF


def exif_of(source: Source, page: dict[int, Entry]) -> bytes | None:
    """What a TIFF file says of its picture, camera and place as an EXIF block; None where it says nothing."""
    fields = _describing(source, page)
    if not fields:
        return None
    mark = b"II" if source.order == "<" else b"MM"
    return b"Exif\0\0" + struct.pack(source.order + "2sHL", mark, 42, 8) + _pack(fields, source.order, 8)


def _describing(source: Source, page: dict[int, Entry]) -> Directory:
    """The descriptive fields of a page and the directories of EXIF, GPS and interoperability."""
    fields: Directory = {tag: entry for tag, entry in page.items() if tag in _DESCRIPTIVE}
    for tag in (EXIF, GPS):
        if tag in page and (below := directory(source, number(source, page, tag))):
            inner: Directory = dict(below)
            if INTEROPERABILITY in below:
                inner[INTEROPERABILITY] = dict(directory(source, number(source, below, INTEROPERABILITY)))
            fields[tag] = inner
    return fields


def _described(exif: bytes | None) -> tuple[str, Directory]:
    """The byte order and the descriptive fields of an EXIF block; raises ValueError for none."""
    if exif is None:
        return "<", {}
    source = Source(io.BytesIO(exif[6:]))
    return source.order, _describing(source, directory(source, source.first))


def upright(exif: bytes, width: int, height: int) -> bytes:
    """An EXIF block for a picture that is upright and of this size, without a thumbnail; every other byte stays.

    (So the maker's notes, which refer to places in the block, stay valid.) exif: begins with "Exif\\0\\0".
    Raises ValueError where it cannot be parsed.
    """
    block = bytearray(exif[6:])
    source = Source(io.BytesIO(exif[6:]))
    tags = {ORIENTATION: 1, WIDTH: width, HEIGHT: height, EXIF_WIDTH: width, EXIF_HEIGHT: height}
    offsets = [source.first]
    for offset in offsets:
        for place, tag, entry in source.fields(offset):
            if tag in tags:
                kind = 3 if tag == ORIENTATION else 4
                number = struct.pack(source.order + "HHL", tag, kind, 1) + _longs([tags[tag]], source.order, kind).value
                block[place : place + 12] = number.ljust(12, b"\0")
            elif tag == EXIF and offset == source.first:
                offsets.extend(source.numbers(entry)[:1])
    place, _ = source.after(source.first)
    block[place : place + 4] = bytes(4)
    return b"Exif\0\0" + bytes(block)
