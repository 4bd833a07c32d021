"""`attenua saliency IN... -o OUT`: find what stands out in pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attenua.cli import pictures

if TYPE_CHECKING:
    from torch import Tensor

    from attenua.photos import Photo

__all__ = ["command"]


class Saliency(pictures.Treatment):
    """A grey map of what stands out, white on black, or the picture with that map as its transparency."""

    command = "saliency"
    task = "saliency"
    lossless = True

    def __init__(self, cutout: bool, mean: bool) -> None:
        self.cutout, self.opaque, self.faithful = cutout, not cutout, mean

    def settings(self, source: Path) -> dict[str, str]:
        """Return what is written."""
        return {"cutout": "yes"} if self.cutout else {}

    def prepare(self, source: Path, photo: Photo) -> Tensor:
        """Return the picture, grey as RGB, at a size that the model sees as a whole."""
        from attenua.tasks.saliency import reduce

        return reduce(pictures.rgb(photo))

    def resize(self, output: Tensor, photo: Photo) -> Tensor:
        """Return a map at the picture's own size."""
        from attenua.tasks.saliency import enlarge

        height, width = photo.pixels.shape[1:]
        return enlarge(output, (height, width))

    def finish(self, output: Tensor, photo: Photo, picture: Tensor) -> Photo:
        """Return the map, or the picture cut out; what was transparent stays so."""
        from attenua.photos import Photo

        if not self.cutout:
            return Photo(output)
        share = (output + 1) / 2
        return dataclasses.replace(photo, alpha=share if photo.alpha is None else share * photo.alpha)


@click.command("saliency")
@pictures.options(model="saliency", steps=1, tile=320)
@click.option("--cutout", is_flag=True, help="Write the picture itself, with the map as its transparency.")
@click.option(
    "--mean",
    is_flag=True,
    help="Write the mean of all maps that fit the picture, by one network call, rather than one of them.",
)
def command(options: pictures.Options, cutout: bool, mean: bool) -> None:
    """Find what stands out in pictures: files, or folders of them.

    Outputs are grey, 8 bits, PNG where the input was JPEG or WebP: white is what stands out. The network sees pictures
    at 320 pixels of their longer side at most; maps come at the picture's own size. The paths of the outputs are
    printed. One that is there already with the same settings is kept. Of several pictures, those that cannot be used
    are named and the others done (exit code 1).
    """
    pictures.check_mean(options, mean)
    if cutout and options.out.suffix.lower() in (".jpg", ".jpeg"):
        allowed = ".png, .webp or .tif"
        raise ValueError(f"--cutout writes transparency, which JPEG does not hold: {options.out} must be {allowed}")
    pictures.run(options, Saliency(cutout, mean))
