"""`attenua inpaint IN... --mask MASK -o OUT`: fill holes in pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attenua.cli import pictures

if TYPE_CHECKING:
    from torch import Tensor

    from attenua.photos import Photo

__all__ = ["command"]

Box = tuple[int, int, int, int]


class Inpaint(pictures.Treatment):
    """Fill the hole of a mask, or of boxes, or of both; what is outside stays as it is."""

    command = "inpaint"
    task = "inpainting"
    lossless = True

    def __init__(self, inputs: Sequence[Path], mask: Path | None, boxes: Sequence[Box], mean: bool) -> None:
        self.inputs, self.mask, self.boxes, self.faithful = inputs, mask, boxes, mean

    def beside(self, source: Path) -> Path | None:
        """Return the picture's mask."""
        return None if self.mask is None else self._mask_of(source)

    def settings(self, source: Path) -> dict[str, str]:
        """Return what the hole is."""
        told = {"boxes": " ".join(",".join(map(str, box)) for box in self.boxes)} if self.boxes else {}
        if self.mask is not None:
            told["mask_sha256"] = hashlib.sha256(self._mask_of(source).read_bytes()).hexdigest()
        return told

    def prepare(self, source: Path, photo: Photo) -> Tensor:
        """Return RGB and the mask, [4, H, W]. Raises ValueError for a hole that is empty, everything, or elsewhere."""
        import torch

        from attenua.data import masks

        height, width = photo.pixels.shape[1:]
        hole = torch.zeros(height, width, dtype=torch.bool)
        if self.mask is not None:
            hole |= masks.read(self._mask_of(source), (height, width))
        for x, y, wide, high in self.boxes:
            if x + wide > width or y + high > height:
                told = f"--box {x},{y},{wide},{high} reaches beyond the picture"
                raise ValueError(f"{told}, which is {width} x {height} pixels")
            hole[y : y + high, x : x + wide] = True
        if bool(hole.all()):
            raise ValueError("the hole is the whole picture: something must be kept to go by")
        return torch.cat([pictures.rgb(photo), hole[None].float()])

    def finish(self, output: Tensor, photo: Photo, picture: Tensor) -> Photo:
        """Return the filled picture; its transparency stays as it is."""
        import torch

        filled = pictures.like(photo, output).pixels
        pixels = torch.where(picture[3] > 0.5, filled, photo.pixels)
        return pictures.like(photo, pixels.expand(3, -1, -1), photo.alpha)

    def _mask_of(self, source: Path) -> Path:
        """Return a picture's mask. Raises FileNotFoundError where a folder of masks has none, ValueError for two."""
        assert self.mask is not None
        if not self.mask.is_dir():
            return self.mask
        above = [folder for folder in self.inputs if folder.is_dir() and source.is_relative_to(folder)]
        place = self.mask / (source.relative_to(above[0]) if above else source.name)
        if place.is_file():
            return place
        from attenua.photos import SUFFIXES

        found = [each for each in sorted(place.parent.glob(f"{_literal(place.stem)}.*")) if each.stem == place.stem]
        found = [each for each in found if each.suffix.lower() in SUFFIXES]
        if not found:
            raise FileNotFoundError(f"there is no mask {place}, nor one of another ending")
        if len(found) > 1:
            raise ValueError(f"both {found[0]} and {found[1]} may be its mask: leave one")
        return found[0]


def _literal(name: str) -> str:
    """Return a pattern that stands for the name itself."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)


def _boxes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Box, ...]:
    """Return x,y,w,h of every box, in whole pixels."""
    boxes = []
    for value in values:
        try:
            x, y, wide, high = (int(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not four whole numbers x,y,w,h", ctx, param) from None
        if min(x, y) < 0 or min(wide, high) < 1:
            raise click.BadParameter(f"{value!r} is no box: x and y are from 0, w and h from 1", ctx, param)
        boxes.append((x, y, wide, high))
    return tuple(boxes)


@click.command("inpaint")
@click.option(
    "--mask",
    type=click.Path(exists=True, path_type=Path),
    metavar="MASK",
    help="A picture of the input's size, white where the hole is; or a folder of them, named as the inputs are.",
)
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="x,y,w,h",
    callback=_boxes,
    help="A hole from column x and row y, w pixels wide and h high (repeat for several; a mask may be added).",
)
@pictures.options(model="inpaint", steps=5)
@click.option(
    "--mean",
    is_flag=True,
    help="Fill with the mean of all that fits, smooth and by one network call, rather than with one of them.",
)
def command(options: pictures.Options, mask: Path | None, boxes: tuple[Box, ...], mean: bool) -> None:
    """Fill holes in pictures: files, or folders of them.

    What is outside the hole comes back bit for bit, as far as the output's format holds it: so in a folder the outputs
    of JPEG and WebP files are PNG. Positions are those of the upright picture, after its EXIF orientation. The paths of
    the outputs are printed. One that is there already with the same settings is kept, so the same command goes on where
    it was stopped. Of several pictures, those that cannot be used are named and the others done (exit code 1).
    """
    if mask is None and not boxes:
        raise ValueError("where is the hole? --mask MASK or --box x,y,w,h is needed")
    pictures.check_mean(options, mean)
    pictures.run(options, Inpaint(options.inputs, mask, boxes, mean))
