"""`attenua train PRESET`: train a model, or go on with one that was interrupted."""

from __future__ import annotations

import json
import os
import signal
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attenua.cli import common

if TYPE_CHECKING:
    from attenua.config import Config
    from attenua.data import ImageSet
    from attenua.training import Progress, Trainer

__all__ = ["command"]


@click.command("train")
@click.argument("preset", metavar="PRESET")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="CIFAR-10's folder, or a folder or zip of images.",
)
@click.option(
    "--run-dir", type=click.Path(file_okay=False, path_type=Path), help="Where it works.  [default: runs/PRESET]"
)
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a field: training.batch=256.")
@click.option("--init", metavar="MODEL", help="Start from a model's weights: its name or file (fine-tuning).")
@click.option("--resize", is_flag=True, help="Crop images to squares and resize them to the network's size.")
@click.option("--strict", is_flag=True, help="Stop at an image that cannot be read instead of leaving it out.")
@click.option("--dry-run", is_flag=True, help="Show configuration, parameters, operations and memory, and end.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", help="Seed of everything random.  [default: 0]")
@common.device_option
@common.quiet_option
@common.json_option
def command(
    preset: str,
    data: Path,
    run_dir: Path | None,
    settings: tuple[str, ...],
    init: str | None,
    resize: bool,
    strict: bool,
    dry_run: bool,
    seed: int | None,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train PRESET (cifar10, cifar10-cpu, cifar10-paper); the same command again resumes.

    On several GPUs: torchrun --nproc-per-node N -m attenua train PRESET. Ctrl-C and SIGTERM save a checkpoint first.
    The path of the trained model is printed.
    """
    from attenua import presets
    from attenua.config import override

    config = override(presets.preset(preset), [*settings, *([] if seed is None else [f"training.seed={seed}"])])
    chosen = common.resolve_device(device)
    if dry_run:
        _describe(config, chosen, as_json)
        return
    from attenua import weights
    from attenua.training import Trainer, distributed

    start = None if init is None else weights.read(weights.find(init))
    skipped = common.Skipped(strict)
    pictures = _load(data, config, resize, skipped)
    world = distributed.connect(chosen)
    folder = run_dir or Path("runs") / preset
    try:
        with common.progress(f"training {preset}", total=config.training.images, unit="images", quiet=quiet) as update:
            reporter = _Reporter(update, quiet)
            trainer = Trainer(
                config,
                pictures,
                folder,
                world=world,
                init=start,
                perceptual=_perceptual(config, world.device),
                evaluate=_evaluation(config, pictures),
                on_progress=reporter if world.leads else None,
            )
            update(trainer.seen)
            complete, told = _run(trainer)
    finally:
        distributed.disconnect()
    if not complete:
        click.echo(f"attenua: saved at {trainer.seen:,} images; the same command goes on from there", err=True)
        raise click.exceptions.Exit(130 if told == signal.SIGINT else 0)
    if world.leads:
        model = folder / "model.safetensors"
        result = {"model": model, "images": trainer.seen, "seconds": round(trainer.seconds, 1), "loss": reporter.loss}
        common.emit(result, as_json=as_json, text=str(model))
    skipped.finish()


class _Reporter:
    """Moves the progress line, and keeps the last loss."""

    def __init__(self, update: common.Update, quiet: bool) -> None:
        self.update, self.quiet, self.loss = update, quiet, None

    loss: float | None

    def __call__(self, progress: Progress) -> None:
        self.loss = progress.loss
        self.update(progress.images, progress.total)
        if not self.quiet:
            left = f"{progress.seconds_left / 60:.0f} min left"
            speed = f"{progress.images_per_second:,.0f} images/s"
            click.echo(f"{progress.images:,} images, loss {progress.loss:.4f}, {speed}, {left}", err=True)


def _run(trainer: Trainer) -> tuple[bool, int | None]:
    """Run with SIGTERM and SIGINT turned into a saved stop; a second SIGINT ends at once."""
    told: int | None = None

    def stop(number: int, _frame: types.FrameType | None) -> None:
        nonlocal told
        if told == signal.SIGINT == number:
            raise KeyboardInterrupt("the run goes on from its last checkpoint with the same command")
        told = number
        trainer.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return trainer.run(), told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _load(data: Path, config: Config, resize: bool, skipped: common.Skipped) -> ImageSet:
    from attenua.data import load

    leads = os.environ.get("RANK", "0") == "0"
    return load(
        data,
        size=config.model.network.image_size if resize else None,
        strict=skipped.strict,
        on_skip=skipped if leads else lambda path, reason: None,
    )


def _perceptual(config: Config, device: Any) -> Any:
    """Return LPIPS with VGG16 on the device where the objective asks for it."""
    if not config.objective.perceptual:
        return None
    from attenua import weights
    from attenua.metrics.perceptual import Perceptual

    return Perceptual("vgg", cache=weights.cache()).to(device)


def _evaluation(config: Config, pictures: ImageSet) -> Any:
    """Return the function that scores the averaged model, where training.fid_every asks for it."""
    if not config.training.fid_every:
        return None
    from attenua.tasks.evaluation import Evaluation

    return Evaluation(pictures, num=config.training.fid_samples, sampling=config.sampling).figures


def _describe(config: Config, device: Any, as_json: bool) -> None:
    """Print what a run would be."""
    from attenua.config import to_dict
    from attenua.training.estimate import estimate

    plan = estimate(config, device)
    result = {"config": to_dict(plan.config), **plan.figures()}
    text = [
        json.dumps(to_dict(plan.config), indent=2),
        f"parameters        {plan.parameters:,}",
        f"FLOPs an image    {plan.flops / 1e9:.2f} G forward, {3 * plan.flops / 1e9:.2f} G in training",
        f"memory expected   {plan.memory / 2**30:.2f} GiB on {device} at {plan.micro_batch} images at once",
        f"length            {config.training.images:,} images, {plan.steps:,} steps of {config.training.batch}",
    ]
    common.emit(result, as_json=as_json, text=text)
