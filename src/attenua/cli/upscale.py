"""`attenua upscale IN... -o OUT`: enlarge pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from attenua.cli import common, pictures

if TYPE_CHECKING:
    from torch import Tensor

    from attenua.photos import Photo
    from attenua.tasks import Conditional

__all__ = ["command"]


class Upscale(pictures.Treatment):
    """Enlarge by the model's scale; transparency is enlarged by bicubic interpolation."""

    command = "upscale"
    task = "super-resolution"

    def __init__(self, scale: int | None, faithful: bool) -> None:
        self.scale, self.faithful = scale, faithful

    def check(self, model: Conditional) -> None:
        """Raise ValueError for another scale than the model's."""
        if self.scale is not None and self.scale != model.task.scale:
            raise ValueError(f"--scale is {self.scale}, but {model.header.path} enlarges by {model.task.scale}")

    def prepare(self, source: Path, photo: Photo) -> Tensor:
        """Return the picture, grey as RGB."""
        return pictures.rgb(photo)

    def finish(self, output: Tensor, photo: Photo, picture: Tensor) -> Photo:
        """Return the enlarged picture."""
        from torch.nn.functional import interpolate

        alpha = photo.alpha
        if alpha is not None:
            alpha = interpolate(alpha[None], size=tuple(output.shape[1:]), mode="bicubic")[0].clamp(0, 1)
        return pictures.like(photo, output, alpha)


@click.command("upscale")
@pictures.options(model="sr4", steps=5)
@click.option("--scale", type=int, metavar="N", help="What to enlarge by: it must be the model's.  [default: its own]")
@click.option(
    "--mode",
    type=common.OneOf(["detailed", "faithful"]),
    default="detailed",
    show_default=True,
    help="detailed: one of the pictures that may have been, with texture. faithful: the mean of them all, closest in "
    "mean square and smoother, by one network call.",
)
def command(options: pictures.Options, scale: int | None, mode: str) -> None:
    """Enlarge pictures: files, or folders of them.

    PNG, JPEG, WebP and TIFF are read and written, with 16 bits, grey, transparency, colour profile and EXIF as they
    are; pictures turned by their EXIF orientation come out upright. The paths of the outputs are printed. One that is
    there already with the same settings is kept, so the same command goes on where it was stopped. Of several pictures,
    those that cannot be used are named and the others done (exit code 1).
    """
    if mode == "faithful":
        if options.uncertainty is not None:
            raise ValueError("--mode faithful gives the mean of all samples: a map of uncertainty needs detailed ones")
        if options.steps is not None:
            raise ValueError(f"--mode faithful is one network call; --steps {options.steps} is for detailed")
    pictures.run(options, Upscale(scale, mode == "faithful"))
