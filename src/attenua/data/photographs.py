"""Photographs of any sizes in one piece of memory, from which crops are cut on the device that trains."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attenua.data import faces, heldout, shards
from attenua.data.folder import TERMS, Entry, OnSkip, choose_split, decoded, list_entries, reporter

__all__ = ["PhotoSet", "chosen", "evenly", "load", "read"]

_LAYOUTS = (
    {"train": ("DIV2K_train_HR",), "test": ("DIV2K_valid_HR",)},
    {"train": ("images/train",), "test": ("images/test",)},  # BSDS500; its val pictures are BSD100
)
"""Folders of official layouts: where all of one row are there, a split is what lies in its own."""


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Photographs as one row of bytes: picture i is pixels[offsets[i] : ...] as [H_i, W_i, 3].

    pixels: uint8 [P]; sizes: int64 [N, 2], height and width; offsets: int64 [N]; names: N, or none.
    """

    pixels: Tensor
    sizes: Tensor
    name: str
    terms: str
    names: tuple[str, ...] = ()

    @property
    def offsets(self) -> Tensor:
        """Where each photograph begins, int64 [N]."""
        lengths = self.sizes.prod(1) * 3
        return lengths.cumsum(0) - lengths

    def __len__(self) -> int:
        """The number of photographs."""
        return len(self.sizes)

    def picture(self, index: int) -> Tensor:
        """Photograph `index`, uint8 [3, H, W]."""
        height, width = self.sizes[index].tolist()
        first = int(self.offsets[index])
        return self.pixels[first : first + height * width * 3].view(height, width, 3).permute(2, 0, 1)

    def sha256(self) -> str:
        """The SHA-256 (hex) of the sizes and then the pixels."""
        digest = hashlib.sha256(self.sizes.cpu().numpy().tobytes())
        digest.update(self.pixels.cpu().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> PhotoSet:
        """The same set on a device."""
        return PhotoSet(self.pixels.to(device), self.sizes.to(device), self.name, self.terms, self.names)

    def crops(self, draws: Tensor, side: int, where: str = "any") -> Tensor:
        """Cut one square a row of draws, uint8 [B, 3, side, side], turned and mirrored; nothing is copied to the host.

        draws: float64 [B, 4] in [0, 1): which photograph (by area), top, left, and which of the square's eight
        symmetries. where: "any"; "upright", mirrored at most; "middle", upright and at most an eighth of the side away
        from the middle, along each axis.
        """
        area = self.sizes.prod(1).double().cumsum(0)
        which = torch.searchsorted(area, draws[:, 0] * area[-1], right=True).clamp(max=len(self.sizes) - 1)
        height, width = self.sizes[which, 0], self.sizes[which, 1]
        top, left = (
            _start(draws[:, column], free, side // 8 if where == "middle" else None)
            for column, free in ((1, height - side), (2, width - side))
        )
        place = torch.arange(side, device=draws.device)
        symmetry = (draws[:, 3] * (8 if where == "any" else 2)).long()[:, None, None]
        rows, columns = place[None, :, None], place[None, None, :]
        columns = torch.where(symmetry & 1 == 1, side - 1 - columns, columns)
        rows = torch.where(symmetry & 2 == 2, side - 1 - rows, rows)
        rows, columns = torch.where(symmetry & 4 == 4, columns, rows), torch.where(symmetry & 4 == 4, rows, columns)
        y, x = top[:, None, None] + rows, left[:, None, None] + columns
        first = self.offsets[which][:, None, None] + (y * width[:, None, None] + x) * 3
        return self.pixels[first[:, None] + torch.arange(3, device=draws.device)[None, :, None, None]]


def _start(draws: Tensor, free: Tensor, within: int | None) -> Tensor:
    """Return where squares begin, 0..free; at most `within` pixels from the middle."""
    low = torch.zeros_like(free) if within is None else (free // 2 - within).clamp(min=0)
    high = free if within is None else torch.minimum(free // 2 + within, free)
    return low + (draws * (high - low + 1)).long()


def load(
    path: str | Path, side: int, *, split: str = "train", strict: bool = False, on_skip: OnSkip | None = None
) -> PhotoSet:
    """Read all photographs of a split, see `chosen`, whose sides are at least `side` pixels.

    Raises ValueError where none is large enough, and what `read` raises.
    """
    pixels, sizes, names, small = bytearray(), [], [], 0
    for name, picture in read(path, split=split, strict=strict, on_skip=on_skip):
        height, width = picture.shape[1:]
        if min(height, width) < side:
            small += 1
            continue
        pixels += picture.permute(1, 2, 0).contiguous().numpy().data  # grows in place: never held twice
        sizes.append((height, width))
        names.append(name)
    if not sizes:
        raise ValueError(f"{path} has no photograph of at least {side} x {side} pixels ({small} are smaller)")
    title = Path(path).stem if Path(path).is_file() else Path(path).resolve().name
    flat = torch.frombuffer(pixels, dtype=torch.uint8)
    return PhotoSet(flat, torch.tensor(sizes, dtype=torch.int64), title, terms(Path(path), names), tuple(names))


def read(
    path: str | Path,
    *,
    split: str = "train",
    num: int | None = None,
    strict: bool = False,
    on_skip: OnSkip | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, uint8 [3, H, W]) of the photographs of a split, of any sizes.

    num: so many of them, taken evenly by their names, and the others are not read (None: all). A picture that cannot
    be read, or is held out from training, is left out and told to `on_skip` (a warning where that is None); with
    `strict` it is an error. Raises what `chosen` raises.
    """
    path = Path(path)
    tell = reporter(strict, on_skip)
    with chosen(path, split, on_skip=tell) as entries:
        yield from decoded(path, (entries[index] for index in evenly(len(entries), num)), tell)


def evenly(count: int, num: int | None) -> list[int]:
    """Return `num` numbers (None: all) taken evenly from 0 to count - 1."""
    number = min(num or count, count)
    return [index * count // number for index in range(number)]


@contextmanager
def chosen(path: str | Path, split: str, *, on_skip: OnSkip | None = None) -> Iterator[list[Entry]]:
    """The pictures of a split as (name, how to read the bytes), by name; nothing is decoded.

    path: a folder (with all below it), a zip file, a .tar shard or a folder of shards. split: "train" or "test".
    Official layouts are known by their names: DIV2K (DIV2K_train_HR and DIV2K_valid_HR), BSDS500 (images/train and
    images/test; images/val is used for nothing here), CelebA-HQ (30,000 numbered files, the last 2,000 are the test
    set), LFW (a person is in one split alone). Else `train` and `test` folders are the splits, and where there are
    none, all pictures are "train". From "train", what `heldout.reason` knows is left out and told to `on_skip` (no
    word where that is None).

    Raises ValueError for a split that is not there, no pictures, a damaged zip or tar file, and where `path` itself is
    held out from training; FileNotFoundError where `path` is nothing.
    """
    path = Path(path)
    if split not in ("train", "test"):
        raise ValueError(f"there is no split {split!r}: it must be one of train, test")
    if not path.exists():
        raise FileNotFoundError(f"there is no data at {path}")
    heldout.check(path, split)
    with _all(path) as entries:
        kept = _split(path, entries, split)
        if split == "train":
            kept = _allowed(path, kept, on_skip)
        yield kept


def has_split(path: str | Path) -> bool:
    """Whether `path` has a split "test", by an official layout or by folders `train` and `test`; see `chosen`."""
    with _all(Path(path)) as entries:
        names = [name for name, _ in entries]
    rows = [[any(_within(name, folders) for name in names) for folders in layout.values()] for layout in _LAYOUTS]
    tops = {name.partition("/")[0] for name in names if "/" in name}
    known = faces.is_celeba(names) or faces.is_lfw(names)
    return known or any(map(all, rows)) or tops.issuperset({"train", "test"})


@contextmanager
def _all(path: Path) -> Iterator[list[Entry]]:
    """All pictures of a folder, its shards included, of a zip file or of one shard, by name."""
    if path.is_file() and shards.is_shard(path):
        yield sorted(shards.entries(path), key=_name)
        return
    with list_entries(path) as entries:
        inside = [] if path.is_file() else [each for each in sorted(path.rglob("*")) if shards.is_shard(each)]
        packed = [
            (f"{shard.relative_to(path).as_posix()}/{name}", content)
            for shard in inside
            for name, content in shards.entries(shard)
        ]
        yield sorted([*entries, *packed], key=_name)


def _name(entry: Entry) -> str:
    return entry[0]


def _split(path: Path, entries: list[Entry], split: str) -> list[Entry]:
    """The entries of one split, by the layout that their names show."""
    names = [name for name, _ in entries]
    for layout in _LAYOUTS:
        parts = {key: [name for name in names if _within(name, folders)] for key, folders in layout.items()}
        if all(parts.values()):
            return _picked(entries, parts[split])
    if faces.is_celeba(names):
        return _picked(entries, faces.celeba_split(names, split))
    if faces.is_lfw(names):
        return _picked(entries, faces.lfw_split(names, split))
    return choose_split(path, entries, split)


def _within(name: str, folders: tuple[str, ...]) -> bool:
    """Whether a file lies in one of the folders, wherever those are below the top."""
    return any(f"/{folder}/" in f"/{name}" for folder in folders)


def _picked(entries: list[Entry], names: list[str]) -> list[Entry]:
    wanted = set(names)
    return [entry for entry in entries if entry[0] in wanted]


def _allowed(path: Path, entries: list[Entry], on_skip: OnSkip | None) -> list[Entry]:
    """Those that may be trained on."""
    kept, last = [], None
    for entry in entries:
        why = heldout.reason(path.absolute() / entry[0])
        if why is None:
            kept.append(entry)
            continue
        last = f"{path / entry[0]} {why}"
        if on_skip is not None:
            on_skip(path / entry[0], last)
    if not kept and last is not None:
        raise ValueError(f"{path} has nothing to train on: {last}")
    return kept


def terms(path: Path, names: list[str]) -> str:
    """The terms of the pictures `names` at a path, as far as its layout tells them."""
    if faces.is_lfw(names):
        return faces.LFW_TERMS
    with _all(path) as entries:
        return faces.CELEBA_TERMS if faces.is_celeba([name for name, _ in entries]) else TERMS
