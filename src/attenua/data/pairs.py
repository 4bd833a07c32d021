"""Pictures with maps over the same pixels (edges, saliency): read from folders, cut and turned together on a device."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from attenua import images
from attenua.data import heldout
from attenua.data.folder import TERMS, OnSkip, reporter

__all__ = ["DRAWS", "Augmentation", "PairSet", "folder_pairs", "gather", "load"]

DRAWS = 7
"""Columns of a draw, each even in [0, 1): which pair; top; left; symmetry; rotation; scale; which of its maps.

Rotation and scale are done where their number is below their share, and how far is then the number over the share.
"""

FOREGROUND = 128
"""From this byte on, a pixel of a mask is foreground."""

_IMAGES = frozenset({"image", "images", "img", "imgs", "picture", "pictures"})
_MASKS = frozenset({"mask", "masks", "map", "maps", "gt", "edge", "edges", "label", "labels"})
_SUFFIXES = ("_mask", "-mask", "_map", "-map", "_gt", "-gt", "_edge", "-edge", "_edges", "-edges")

Pair = tuple[str, Tensor, Tensor]
"""A name, the picture uint8 [3, H, W] and its maps uint8 [K, H, W]."""


@dataclass(frozen=True)
class Augmentation:
    """How crops are drawn.

    symmetries: 1 (as it is), 2 (mirrored left and right half of the time) or 8 (also upside down and on its side).
    rotated: the share that is rotated, by angles even within +- `angle` degrees, 180: any. scaled: the share that is
    enlarged by a factor between `scales` (its logarithm is even). Raises ValueError for other numbers.
    """

    symmetries: int = 8
    rotated: float = 0.5
    angle: float = 180.0
    scaled: float = 0.5
    scales: tuple[float, float] = (0.5, 1.5)

    def __post_init__(self) -> None:
        if self.symmetries not in (1, 2, 8):
            raise ValueError(f"symmetries must be 1, 2 or 8, not {self.symmetries}")
        for name, share in (("rotated", self.rotated), ("scaled", self.scaled)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], not {share}")
        if not 0 <= self.angle <= 180:
            raise ValueError(f"angle must be in [0, 180] degrees, not {self.angle}")
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"scales must be a range above 0, not {self.scales[0]} .. {self.scales[1]}")


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pictures of any sizes and their maps, each as one row of bytes.

    pixels: uint8, picture i as [H_i, W_i, 3]; maps: uint8, those of picture i as [K_i, H_i, W_i], 255 where a map says
    yes; sizes: int64 [N, 2], height and width; counts: int64 [N], K_i >= 1; names: N.
    """

    pixels: Tensor
    maps: Tensor
    sizes: Tensor
    counts: Tensor
    names: tuple[str, ...]
    name: str
    terms: str

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.sizes)

    @property
    def offsets(self) -> tuple[Tensor, Tensor]:
        """Where each picture and where its maps begin, int64 [N] both."""
        area = self.sizes.prod(1)
        pixels, maps = area * 3, area * self.counts
        return pixels.cumsum(0) - pixels, maps.cumsum(0) - maps

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Picture `index`, uint8 [3, H, W], and its maps, uint8 [K, H, W]."""
        height, width = self.sizes[index].tolist()
        count, area = int(self.counts[index]), height * width
        first, start = (int(each[index]) for each in self.offsets)
        picture = self.pixels[first : first + area * 3].view(height, width, 3).permute(2, 0, 1)
        return picture, self.maps[start : start + area * count].view(count, height, width)

    def __iter__(self) -> Iterator[Pair]:
        for index, name in enumerate(self.names):
            yield name, *self.pair(index)

    def mean(self) -> PairSet:
        """The same pictures with one map each: the mean of theirs, to the nearest byte."""
        maps = bytearray()
        for index in range(len(self)):
            maps += self.pair(index)[1].cpu().float().mean(0).round().byte().numpy().data
        flat = torch.frombuffer(maps, dtype=torch.uint8).to(self.maps.device)
        return replace(self, maps=flat, counts=torch.ones_like(self.counts))

    def sha256(self) -> str:
        """The SHA-256 (hex) of sizes, counts, pictures and maps."""
        digest = hashlib.sha256()
        for part in (self.sizes, self.counts, self.pixels, self.maps):
            digest.update(part.cpu().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> PairSet:
        """The same set on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("pixels", "maps", "sizes", "counts")}
        return replace(self, **moved)

    def crops(self, draws: Tensor, side: int, augmentation: Augmentation | None = None) -> tuple[Tensor, Tensor]:
        """Cut a square a row of draws: pictures uint8 [B, 3, side, side] and one map each, uint8 [B, 1, side, side].

        draws: float64 [B, DRAWS] in [0, 1), see `DRAWS`; augmentation: None for `Augmentation()`. Both are resampled
        bilinearly at the same places; where neither rotated nor scaled the bytes are the pictures' own. The square
        stays within the picture where it can; what lies outside is reflected (the border pixel is not repeated).
        Nothing is copied to the host. Raises ValueError for draws of another width.
        """
        if draws.ndim != 2 or draws.shape[1] != DRAWS:
            raise ValueError(f"draws must be [B, {DRAWS}], not {list(draws.shape)}")
        which = (draws[:, 0] * len(self)).long()
        height, width = self.sizes[which].unbind(1)
        y, x = _positions(draws, side, height, width, augmentation or Augmentation())
        first, start = (each[which] for each in self.offsets)
        chosen = (draws[:, 6] * self.counts[which]).long()
        planes = torch.arange(3, device=draws.device)[None, :, None, None]
        size = (height[:, None, None], width[:, None, None])

        def pixel(rows: Tensor, columns: Tensor) -> Tensor:
            place = first[:, None, None] + (rows * size[1] + columns) * 3
            return self.pixels[place[:, None] + planes]

        def mark(rows: Tensor, columns: Tensor) -> Tensor:
            place = (start + chosen * height * width)[:, None, None] + rows * size[1] + columns
            return self.maps[place[:, None]]

        return _bilinear(pixel, y, x, size), _bilinear(mark, y, x, size)


def _positions(
    draws: Tensor, side: int, height: Tensor, width: Tensor, augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """Where each pixel of the crops comes from: rows and columns of the pictures, float32 [B, side, side]."""
    angle, scale = _angle(draws[:, 4], augmentation), _scale(draws[:, 5], augmentation)
    reach = side / (2 * scale) * (angle.cos().abs() + angle.sin().abs())
    centre_y, centre_x = _centre(draws[:, 1], height, reach), _centre(draws[:, 2], width, reach)
    place = torch.arange(side, device=draws.device, dtype=torch.float64) - (side - 1) / 2
    rows, columns = place[None, :, None], place[None, None, :]
    code = _symmetry(draws[:, 3], augmentation.symmetries)[:, None, None]
    columns = torch.where(code & 1 == 1, -columns, columns)
    rows = torch.where(code & 2 == 2, -rows, rows)
    rows, columns = torch.where(code & 4 == 4, columns, rows), torch.where(code & 4 == 4, rows, columns)
    cos, sin = (angle.cos() / scale)[:, None, None], (angle.sin() / scale)[:, None, None]
    y = centre_y[:, None, None] + cos * rows - sin * columns
    x = centre_x[:, None, None] + sin * rows + cos * columns
    return y.float(), x.float()


def _centre(draw: Tensor, length: Tensor, reach: Tensor) -> Tensor:
    """The middle of a crop, in pixels: whole steps of the crop's edge, so that an unchanged crop has whole pixels."""
    room = length - 2 * reach
    edge = torch.where(room > 0, torch.minimum((draw * (room + 1)).floor(), room), (room / 2).floor())
    return edge + reach - 0.5


def _angle(draw: Tensor, augmentation: Augmentation) -> Tensor:
    """The rotation of each crop in radians, 0 where it is not rotated."""
    share = augmentation.rotated
    if not share:
        return torch.zeros_like(draw)
    return torch.where(draw < share, (2 * draw / share - 1) * math.radians(augmentation.angle), 0.0)


def _scale(draw: Tensor, augmentation: Augmentation) -> Tensor:
    """The enlargement of each crop, 1 where it is not scaled."""
    share, (low, high) = augmentation.scaled, augmentation.scales
    if not share:
        return torch.ones_like(draw)
    return torch.where(draw < share, low * (high / low) ** (draw / share), 1.0)


def _symmetry(draw: Tensor, symmetries: int) -> Tensor:
    """Bits: 1 mirrored left and right, 2 upside down, 4 rows and columns exchanged."""
    return (draw * symmetries).long()


def _bilinear(read: Callable[[Tensor, Tensor], Tensor], y: Tensor, x: Tensor, size: tuple[Tensor, Tensor]) -> Tensor:
    """Resample uint8 [B, C, side, side]; read(rows, columns): the bytes there."""
    top, left = y.floor(), x.floor()
    down, right = (y - top)[:, None], (x - left)[:, None]
    rows = [_reflected(top.long() + step, size[0]) for step in (0, 1)]
    columns = [_reflected(left.long() + step, size[1]) for step in (0, 1)]
    above, below = (torch.lerp(read(row, columns[0]).float(), read(row, columns[1]).float(), right) for row in rows)
    return torch.lerp(above, below, down).round().byte()


def _reflected(place: Tensor, length: Tensor) -> Tensor:
    """Places within 0 .. length - 1, reflected at both ends as often as needed."""
    last = (length - 1).clamp(min=1)
    return ((place % (2 * last) - last).abs() - last).abs().minimum(length - 1)


def gather(pairs: Iterable[Pair], *, name: str, terms: str = TERMS) -> PairSet:
    """Put pairs into one set. Raises ValueError where there is none, or where maps have another size."""
    pixels, maps, sizes, counts, names = bytearray(), bytearray(), [], [], []
    for title, picture, own in pairs:
        if own.shape[1:] != picture.shape[1:] or not own.numel():
            raise ValueError(f"the maps of {title} are {list(own.shape)}, but its picture is {list(picture.shape)}")
        pixels += picture.permute(1, 2, 0).contiguous().numpy().data
        maps += own.contiguous().numpy().data
        sizes.append(tuple(picture.shape[1:]))
        counts.append(len(own))
        names.append(title)
    if not sizes:
        raise ValueError(f"{name} has no pair of a picture and a map that can be used")
    flat = [torch.frombuffer(each, dtype=torch.uint8) for each in (pixels, maps)]
    shape = [torch.tensor(each, dtype=torch.int64) for each in (sizes, counts)]
    return PairSet(flat[0], flat[1], shape[0], shape[1], tuple(names), name, terms)


def load(
    path: str | Path,
    *,
    split: str = "train",
    longest: int | None = None,
    strict: bool = False,
    on_skip: OnSkip | None = None,
) -> PairSet:
    """Read the pairs of a folder, see `folder_pairs`; the maps are grey, 255 where the mask is white.

    split: "train" or "test"; where the folder has both `train` and `test`, the one named, else all are "train".
    longest: pictures whose longer side is longer (pixels) are reduced to it, and their maps. A pair that cannot be
    used is left out and told to `on_skip` (a warning where that is None), with `strict` it is an error: a file that
    cannot be read or has no partner, a mask of another size than its picture or without foreground (a pixel from 128).

    Raises ValueError where no pair is left, for another split, and where `path` is held out from training
    (`heldout.check`); FileNotFoundError or NotADirectoryError where it is no folder.
    """
    tell = reporter(strict, on_skip)
    return gather(read(files(path, split, tell), tell, longest), name=f"{Path(path).resolve().name}-{split}")


def files(path: str | Path, split: str, tell: OnSkip) -> list[tuple[str, Path, Path]]:
    """The pairs that `load` reads, unread: name, picture and mask, by name. Errors as for `load`."""
    path = Path(path)
    heldout.check(path, split)
    return folder_pairs(_split(path, split), tell)


def read(found: Iterable[tuple[str, Path, Path]], tell: OnSkip, longest: int | None = None) -> Iterator[Pair]:
    """Read pairs of files (name, picture, mask); what cannot be used, a mask without foreground too, is told."""
    for name, file, mask in found:
        try:
            picture, marks = images.read(file), images.read(mask).float().mean(0, keepdim=True).round().byte()
        except (ValueError, OSError) as error:
            tell(file, str(error))
            continue
        (height, width), (rows, columns) = picture.shape[1:], marks.shape[1:]
        if (rows, columns) != (height, width):
            tell(mask, f"{mask} is {columns} x {rows} pixels, but its picture {file} is {width} x {height}")
        elif not bool((marks >= FOREGROUND).any()):
            tell(mask, f"{mask} has no foreground: no pixel is {FOREGROUND} or more")
        else:
            yield name, _reduced(picture, longest), _reduced(marks, longest)


def _split(path: Path, split: str) -> Path:
    """The folder of a split."""
    if split not in ("train", "test"):
        raise ValueError(f"there is no split {split!r}: it must be one of train, test")
    if all((path / each).is_dir() for each in ("train", "test")):
        return path / split
    if split != "train":
        raise ValueError(f"{path} has no split {split!r}: for that it must hold folders train and test")
    return path


def folder_pairs(path: Path, tell: OnSkip) -> list[tuple[str, Path, Path]]:
    """The pairs of a folder (name, picture, mask) by name; a file without partner is told.

    Either two sub-folders, one named image, images, img, imgs, picture or pictures, the other mask, masks, map, maps,
    gt, edge, edges, label or labels, whose files have equal names up to the ending; or one folder (and those below)
    where NAME.jpg goes with NAME_mask.png (also -mask, _map, _gt, _edge, _edges). Raises ValueError for neither.
    """
    files = images.list_images(path)
    below = {each.name.lower(): each for each in path.iterdir() if each.is_dir()}
    tops = [sorted(name for name in below if name in kind) for kind in (_IMAGES, _MASKS)]
    if all(tops):
        if any(len(names) > 1 for names in tops):
            found = ", ".join(below[name].name for names in tops for name in names)
            raise ValueError(f"{path} has several folders of pictures or masks ({found}): leave one of each")
        return paired(below[tops[0][0]], below[tops[1][0]], tell)
    plain = {_key(file, path): file for file in files if _base(file) is None}
    marked = {_key(file.with_name(f"{_base(file)}.x"), path): file for file in files if _base(file) is not None}
    if not marked:
        raise ValueError(
            f"{path} has no pairs: it must hold folders images and masks, or NAME.jpg beside NAME_mask.png"
        )
    return _matched(plain, marked, tell)


def paired(pictures: Path, masks: Path, tell: OnSkip) -> list[tuple[str, Path, Path]]:
    """The pairs of two folders by equal names up to the ending; a file without partner is told."""
    sides = [{_key(file, folder): file for file in images.list_images(folder)} for folder in (pictures, masks)]
    return _matched(sides[0], sides[1], tell)


def _matched(plain: dict[str, Path], marked: dict[str, Path], tell: OnSkip) -> list[tuple[str, Path, Path]]:
    for name in sorted(plain.keys() - marked.keys()):
        tell(plain[name], f"{plain[name]} has no mask")
    for name in sorted(marked.keys() - plain.keys()):
        tell(marked[name], f"{marked[name]} has no picture")
    return [(name, plain[name], marked[name]) for name in sorted(plain.keys() & marked.keys())]


def _key(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _base(file: Path) -> str | None:
    """The name of the picture whose mask this is by its suffix, or None."""
    for suffix in _SUFFIXES:
        if file.stem.lower().endswith(suffix) and len(file.stem) > len(suffix):
            return file.stem[: -len(suffix)]
    return None


def _reduced(picture: Tensor, longest: int | None) -> Tensor:
    """A picture uint8 [C, H, W] whose longer side is at most `longest` pixels, by an area-weighted (box) filter."""
    height, width = picture.shape[1:]
    if longest is None or max(height, width) <= longest:
        return picture
    share = longest / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    planes = [Image.fromarray(plane.numpy()).resize(size, Image.Resampling.BOX) for plane in picture]
    return torch.stack([torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8) for each in planes]).view(
        len(planes), size[1], size[0]
    )
