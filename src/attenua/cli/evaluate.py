"""`attenua evaluate MODEL`: FID and KID of a model, or of a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from attenua.cli import common
from attenua.cli.sample import solver_options

__all__ = ["command"]


@click.command("evaluate")
@click.argument("name", metavar="MODEL", required=False)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Score this folder or zip of images instead of a model."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="The reference: CIFAR-10's folder, or a folder or zip of images.",
)
@click.option("--num", type=int, default=50_000, show_default=True, metavar="N", help="How many samples of the model.")
@click.option(
    "--reference-num", type=int, metavar="N", help="Use the reference's first N images: quicker, not the protocol."
)
@solver_options
@click.option("--batch", type=int, metavar="N", help="Images a network call.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this JSON file too.")
@click.option("--strict", is_flag=True, help="Stop at an image that cannot be read instead of leaving it out.")
@common.model_option
@common.seed_option
@common.device_option
@common.overwrite_option
@common.quiet_option
@common.json_option
def command(
    name: str | None,
    images: Path | None,
    data: Path,
    num: int,
    reference_num: int | None,
    steps: int | None,
    solver: str | None,
    grid: str | None,
    eta: float | None,
    batch: int | None,
    out: Path | None,
    strict: bool,
    model: Path | None,
    seed: int,
    device: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score MODEL, a model file (--model) or a folder of images (--images) against the training images of --data.

    FID takes at least 2,048 images on both sides; below that there is KID alone. The published figures take 50,000
    samples and the whole training set; the report says whether that was so. Images stream: no folder is needed.
    """
    if images is not None and (name is not None or model is not None):
        raise ValueError("--images scores a folder, MODEL and --model a model: give one of them")
    if num < 1:
        raise ValueError(f"num is {num}; allowed is a whole number from 1")
    if out is not None:
        common.check_output(out, overwrite=overwrite)
    skipped = common.Skipped(strict)
    import torch

    from attenua import reports
    from attenua.data import load

    generation = None if images is not None else common.load_model(name, model, device)
    if generation is not None:
        rule = generation.rule(solver, eta)
        settings: dict[str, Any] = generation.settings(steps, rule, generation.times(rule, grid), seed)
        settings["model"] = name or Path(str(model)).name
        settings["default"] = solver is None and grid is None and eta is None
        network = generation.model.config.network
        size, count = network.image_size, num
    else:
        folder = load(Path(str(images)), strict=strict, on_skip=skipped)
        settings, size, count = {"images": folder.name}, folder.images.shape[-1], len(folder)
    reference = load(data, strict=strict, on_skip=skipped)
    if reference.images.shape[-1] != size:
        raise ValueError(f"the reference's images are {reference.images.shape[-1]} pixels wide, those to score {size}")
    from attenua.tasks.evaluation import Evaluation

    with common.progress("evaluating", unit="images", quiet=quiet) as update:
        evaluation = Evaluation(
            reference,
            reference_num=reference_num,
            device=common.resolve_device(device),
            report=lambda _what, done, of: update(done, of),
        )
        if generation is None:
            figures = evaluation.score(torch.split(folder.images, 500), count)
        else:
            figures = evaluation.model(generation, num, steps=steps, seed=seed, solver=rule, grid=grid, batch=batch)
    rows = evaluation.rows(figures, settings)
    protocol = evaluation.protocol(count)
    result: dict[str, Any] = {"figures": figures, "rows": rows, "protocol": protocol}
    if out is not None:
        result = reports.write_report(out, "evaluate", rows, protocol)
    kind = "the published protocol" if protocol["published"] else "screening, not the published protocol"
    text = [f"{row['metric'].upper():4} {row['value']:.4f}" for row in rows]
    text.append(f"{count:,} images against {protocol['reference_images']:,} of {evaluation.data.name} ({kind})")
    common.emit(result, as_json=as_json, text=text)
    skipped.finish()
