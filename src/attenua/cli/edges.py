"""`attenua edges IN... -o OUT`: draw the edges of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from attenua.cli import pictures

if TYPE_CHECKING:
    from torch import Tensor

    from attenua.photos import Photo

__all__ = ["command"]


class Edges(pictures.Treatment):
    """A grey map of the lines that a person would draw, white on black."""

    command = "edges"
    task = "edges"
    opaque = True
    lossless = True

    def __init__(self, invert: bool, thin: bool, mean: bool) -> None:
        self.invert, self.thin, self.faithful = invert, thin, mean

    def settings(self, source: Path) -> dict[str, str]:
        """Return how the map is shown."""
        return {name: "yes" for name, chosen in (("invert", self.invert), ("thin", self.thin)) if chosen}

    def prepare(self, source: Path, photo: Photo) -> Tensor:
        """Return the picture, grey as RGB."""
        return pictures.rgb(photo)

    def finish(self, output: Tensor, photo: Photo, picture: Tensor) -> Photo:
        """Return the map."""
        from attenua.photos import Photo
        from attenua.tasks.edges import thinned

        shown = thinned(output) if self.thin else output
        return Photo(-shown if self.invert else shown)


@click.command("edges")
@pictures.options(model="edges", steps=2, tile=512)
@click.option("--invert", is_flag=True, help="Draw black on white.")
@click.option("--thin", is_flag=True, help="Make every line one pixel wide, as strong as it is at its middle.")
@click.option(
    "--mean",
    is_flag=True,
    help="Write the mean of all maps that fit the picture, by one network call, rather than one of them.",
)
def command(options: pictures.Options, invert: bool, thin: bool, mean: bool) -> None:
    """Draw the edges of pictures: files, or folders of them.

    Outputs are grey, 8 bits, PNG where the input was JPEG or WebP: how sure it is that a person would draw a line
    there, white on black. The paths of the outputs are printed. One that is there already with the same settings is
    kept. Of several pictures, those that cannot be used are named and the others done (exit code 1).
    """
    pictures.check_mean(options, mean)
    pictures.run(options, Edges(invert, thin, mean))
