"""`attenua sample MODEL`: generate images."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from attenua.cli import common

if TYPE_CHECKING:
    from attenua.shapes import Bytes

__all__ = ["command", "solver_options"]

Function = TypeVar("Function", bound=Callable[..., Any])


def solver_options(function: Function) -> Function:
    """Add `--steps`, `--solver`, `--grid` and `--eta`, whose defaults are the model's own."""
    for option in (
        click.option(
            "--eta", type=float, metavar="ETA", help="Noise level of the solver posterior, from 0.  [default: 1]"
        ),
        click.option(
            "--grid",
            metavar="GRID",
            help="Times of the calls: fitted (the default where the model has one), karras, uniform, logsnr or "
            "released; NAME+mean starts with the data mean.",
        ),
        click.option(
            "--solver",
            metavar="SOLVER",
            help="multistep, dpmpp-3m, unipc-2, unipc-3, deis-2 to deis-4, ipndm-2 to ipndm-4, heun, ode; with fresh "
            "noise: posterior, ancestral, sde-dpmpp-2m, released.",
        ),
        click.option(
            "--steps", type=int, metavar="N", help="Network calls an image, from 1; the model's own, often 10."
        ),
    ):
        function = option(function)
    return function


@click.command("sample")
@click.argument("name", metavar="[MODEL]", required=False)
@click.option("--num", type=int, default=16, show_default=True, metavar="N", help="How many images, from 1.")
@solver_options
@click.option(
    "--out",
    "-o",
    type=click.Path(),
    default="samples.png",
    show_default=True,
    help="A .png for one grid of all images, or a folder (folder/) for one file an image.",
)
@click.option("--batch", type=int, metavar="N", help="Images a network call; changes the speed, never the images.")
@click.option(
    "--label",
    "labels",
    type=int,
    multiple=True,
    metavar="N",
    help="Class of the images, from 0 (repeat for several, in turn); for models with classes.",
)
@common.model_option
@common.seed_option
@common.device_option
@common.overwrite_option
@common.quiet_option
@common.json_option
def command(
    name: str | None,
    num: int,
    steps: int | None,
    solver: str | None,
    grid: str | None,
    eta: float | None,
    out: str,
    batch: int | None,
    labels: tuple[int, ...],
    model: str | None,
    seed: int,
    device: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Generate images from MODEL (see `attenua models`) or a file given by --model.

    Image i depends on the seed and on i alone: more images, another batch size or another number of devices leave the
    others as they are. The path of what was written is printed.
    """
    if num < 1:
        raise ValueError(f"num is {num}; allowed is a whole number from 1")
    common.check_model(name, model)
    output = _Output(out, num, overwrite)
    generation = common.load_model(name, model, device)
    settings = generation.settings(generation.choose(steps, solver, grid, eta), seed)
    chosen = [labels[index % len(labels)] for index in range(num)] if labels else None
    started, calls = time.perf_counter(), 0
    size = generation.batch_size(batch)
    with common.progress(
        "sampling", total=-(-num // size) * settings["nfe"], unit="network calls", quiet=quiet
    ) as update:

        def advance(_step: Any) -> None:
            nonlocal calls
            calls += 1
            update(calls)

        for images in generation.batches(
            num, steps=steps, seed=seed, solver=solver, grid=grid, eta=eta, batch=size, labels=chosen, callback=advance
        ):
            output.add(images, settings)
    output.finish(settings)
    result = {
        "out": output.path,
        "images": num,
        **settings,
        "device": str(generation.device),
        "seconds": round(time.perf_counter() - started, 3),
    }
    common.emit(result, as_json=as_json, text=str(output.path))


class _Output:
    """Where the images go: one grid, kept until the end, or a folder, written as they come.

    Raises ValueError for another ending than .png, OSError where something is in the way, before any work is done.
    """

    def __init__(self, out: str, num: int, overwrite: bool) -> None:
        self.path, self.overwrite, self.done = Path(out), overwrite, 0
        self.kept: list[Bytes] = []
        self.folder = out.endswith(("/", os.sep)) or not self.path.suffix or self.path.is_dir()
        if not self.folder:
            if self.path.suffix.lower() != ".png":
                raise ValueError(f"--out {out} ends in {self.path.suffix}; allowed are a .png, or a folder ({out}/)")
            common.check_output(self.path, overwrite=overwrite)
            return
        common.check_folder(self.path)
        for index in range(num):
            if not overwrite and self._target(index).exists():
                common.check_output(self._target(index), overwrite=False)

    def _target(self, index: int) -> Path:
        return self.path / f"{index:06d}.png"

    def add(self, images: Bytes, settings: dict[str, Any]) -> None:
        """Take the next images."""
        from attenua import images as pictures

        if not self.folder:
            self.kept.append(images)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for image in images:
            note = _note({**settings, "index": self.done})
            pictures.write(self._target(self.done), image, overwrite=self.overwrite, metadata=note)
            self.done += 1

    def finish(self, settings: dict[str, Any]) -> None:
        """Write the grid."""
        if self.kept:
            import torch

            from attenua import images as pictures

            whole = pictures.grid(torch.cat(self.kept))
            pictures.write(self.path, whole, overwrite=self.overwrite, metadata=_note(settings))


def _note(settings: dict[str, Any]) -> dict[str, str]:
    """What a picture says of how it was made."""
    return {"attenua": " ".join(f"{key}={value}" for key, value in settings.items() if value is not None)}
