"""`attenua sample MODEL`: generate images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from attenua.cli import common

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["command", "solver_options"]

Function = TypeVar("Function", bound=Callable[..., Any])


def solver_options(function: Function) -> Function:
    """Add `--steps`, `--solver`, `--grid` and `--eta`, whose defaults are the model's own."""
    for option in (
        click.option(
            "--eta", type=float, metavar="ETA", help="Noise level of the solver posterior, from 0.  [default: 1]"
        ),
        click.option("--grid", metavar="GRID", help="Times of the calls: karras, uniform, logsnr or released."),
        click.option(
            "--solver",
            metavar="SOLVER",
            help="multistep, dpmpp-3m, unipc-2..3, deis-2..4, ipndm-2..4, heun, ode (deterministic); posterior, ancestral, "
            "sde-dpmpp-2m, released (with fresh noise).",
        ),
        click.option(
            "--steps", type=int, metavar="N", help="Network calls an image, from 1; the model's own, often 10."
        ),
    ):
        function = option(function)
    return function


@click.command("sample")
@click.argument("name", metavar="MODEL", required=False)
@click.option("--num", type=int, default=16, show_default=True, metavar="N", help="How many images, from 1.")
@solver_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples.png"),
    show_default=True,
    help="A .png for one grid of all images, or a folder for one file an image.",
)
@click.option("--batch", type=int, metavar="N", help="Images a network call; changes the speed, never the images.")
@click.option(
    "--label", "labels", type=int, multiple=True, metavar="N", help="Class of the images (repeat for several)."
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
    out: Path,
    batch: int | None,
    labels: tuple[int, ...],
    model: Path | None,
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
    folder = not out.suffix or out.is_dir()
    if num < 1:
        raise ValueError(f"num is {num}; allowed is a whole number from 1")
    if not folder:
        if out.suffix.lower() != ".png":
            raise ValueError(f"--out {out} ends in {out.suffix}; allowed are a .png or a folder")
        common.check_output(out, overwrite=overwrite)
    from attenua import images as pictures

    generation = common.load_model(name, model, device)
    targets = [out / f"{index:06d}.png" for index in range(num)] if folder else []
    for path in targets:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already: name another output, or give --overwrite to replace it")
    rule = generation.rule(solver, eta)
    settings = generation.settings(steps, rule, generation.times(rule, grid), seed)
    note = {"attenua": " ".join(f"{key}={value}" for key, value in settings.items())}
    chosen = [labels[index % len(labels)] for index in range(num)] if labels else None
    made: list[Tensor] = []
    started, done = time.perf_counter(), 0
    if folder:
        out.mkdir(parents=True, exist_ok=True)
    with common.progress("sampling", total=num * settings["nfe"], unit="image calls", quiet=quiet) as update:

        def advance(step: Any) -> None:
            nonlocal done
            done += len(step.x)
            update(done)

        for images in generation.batches(
            num, steps=steps, seed=seed, solver=rule, grid=grid, batch=batch, labels=chosen, callback=advance
        ):
            if folder:
                for image in images:
                    pictures.write(targets[len(made)], image, overwrite=overwrite, metadata=note)
                    made.append(image)
            else:
                made.extend(images)
    if not folder:
        import torch

        pictures.write(out, pictures.grid(torch.stack(made)), overwrite=overwrite, metadata=note)
    result = {
        "out": out,
        "images": num,
        **settings,
        "device": str(generation.device),
        "seconds": round(time.perf_counter() - started, 3),
    }
    common.emit(result, as_json=as_json, text=str(out))
