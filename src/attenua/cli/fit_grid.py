"""`attenua fit-grid MODEL`: find the times of few network calls for a model, and store them with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attenua.cli import common

if TYPE_CHECKING:
    from torch import Tensor

    from attenua.tasks.generation import Generation

__all__ = ["command"]


@click.command("fit-grid")
@click.argument("name", metavar="MODEL", required=False)
@click.option(
    "--steps", default="3,4,5,6,8,10", show_default=True, metavar="N,N,...", help="Numbers of network calls, from 2."
)
@click.option("--solver", metavar="SOLVER", help="A deterministic solver; the model's own.")
@click.option(
    "--trajectories", type=int, default=256, show_default=True, metavar="N", help="Images that are fitted to, from 1."
)
@click.option(
    "--held-out", type=int, default=64, show_default=True, metavar="N", help="Other images, which measure the result."
)
@click.option(
    "--reference", type=int, default=64, show_default=True, metavar="N", help="Network calls of the reference, from 8."
)
@click.option(
    "--distance",
    "measure",
    type=click.Choice(["pixels", "lpips"]),
    default="pixels",
    show_default=True,
    help="What is compared of end points; lpips needs the eval extra.",
)
@click.option("--batch", type=int, metavar="N", help="Images a network call.")
@click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The model file to write.  [default: MODEL-fitted.safetensors]",
)
@common.model_option
@common.seed_option
@common.device_option
@common.overwrite_option
@common.quiet_option
@common.json_option
def command(
    name: str | None,
    steps: str,
    solver: str | None,
    trajectories: int,
    held_out: int,
    reference: int,
    measure: str,
    batch: int | None,
    out: Path | None,
    model: str | None,
    seed: int,
    device: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find, for each number of network calls, the times (and weights) that end nearest to many steps.

    The result is MODEL with these grids in its metadata, where they end nearer to the reference than the grid karras
    does; `attenua sample` uses them by default. The distance is the root mean square over pixels of end points, in
    picture values (-1 to 1), or the root of the mean LPIPS (of VGG16), on images that the fit did not see.
    """
    numbers = list(dict.fromkeys(_number(text) for text in steps.split(",")))
    path = out or Path(f"{Path(str(model or name)).stem}-fitted.safetensors")
    common.check_output(path, overwrite=overwrite)
    from dataclasses import replace

    from attenua import weights
    from attenua.config import to_dict
    from attenua.sampling import Fit, check_fit, fit

    generation = common.load_model(name, model, device)
    rule = generation.choose(solver=solver).solver
    for number in numbers:
        check_fit(generation.model, rule, number)
    size = generation.batch_size(batch)
    look = _look(measure, generation)
    found = []
    with common.progress("fitting", unit="evaluations", quiet=quiet) as update:
        work = Fit(generation.model, trajectories, held_out, reference, seed, size, look, measure)
        for number in numbers:
            found.append(fit(work, rule, number, report=lambda *_: update(work.evaluations)))
    better = [item for item in found if item.distance is None or item.unfitted is None or item.distance < item.unfitted]
    kept = [item for item in generation.sampling.fitted if (item.solver, item.steps) not in _keys(found)]
    fitted = tuple(sorted([*kept, *better], key=lambda item: (item.solver, item.steps)))
    sampling = replace(generation.sampling, fitted=fitted)
    weights.write_sampling(generation.header.path, path, sampling, overwrite=overwrite)
    text = [
        f"{item.steps:3} steps of {item.solver}: {item.unfitted:.4f} -> {item.distance:.4f}"
        + ("" if item in better else " (no better than karras, not stored)")
        for item in found
    ]
    result: dict[str, Any] = {
        "out": path,
        "fitted": [{**to_dict(item), "stored": item in better} for item in found],
        "trajectories": trajectories,
    }
    common.emit(result, as_json=as_json, text=[*text, str(path)])


def _look(measure: str, generation: Generation) -> Callable[[Tensor], Tensor] | None:
    """Return the features that are compared (None: pixels). Raises ValueError where LPIPS cannot look at the images."""
    if measure == "pixels":
        return None
    import torch

    from attenua import weights
    from attenua.metrics.perceptual import Perceptual

    look = Perceptual("vgg", cache=weights.cache()).to(generation.device).embed
    network = generation.model.config.network
    look(torch.zeros(1, network.channels, network.image_size, network.image_size, device=generation.device))
    return look


def _number(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 2:
        raise ValueError(f"--steps has {text!r}; allowed are whole numbers from 2 with commas between them")
    return int(text)


def _keys(found: list[Any]) -> set[tuple[str, int]]:
    return {(item.solver, item.steps) for item in found}
