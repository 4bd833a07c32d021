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
    from attenua.config import Config, TrainingConfig
    from attenua.data import ImageSet
    from attenua.training import Progress, Trainer
    from attenua.training.distributed import World
    from attenua.training.source import Source

__all__ = ["command"]


@click.command("train")
@click.argument("preset", metavar="PRESET")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="CIFAR-10's folder, a folder or zip of images or photographs, BSDS500, DUTS, or a folder of pairs.",
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The run's folder: checkpoints, logs, samples and the model.  [default: runs/PRESET]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of the configuration, as in --set training.batch=256 (repeat for several).",
)
@click.option("--scale", type=int, metavar="N", help="Factor of super-resolution, from 2.  [default: 4]")
@click.option("--init", metavar="MODEL", help="Start from a model's weights: its name or file (fine-tuning).")
@click.option("--resize", is_flag=True, help="Crop images to squares and resize them to the network's size.")
@click.option("--strict", is_flag=True, help="Stop at an image that cannot be read instead of leaving it out.")
@click.option("--dry-run", is_flag=True, help="Show configuration, parameters, operations and memory, and end.")
@common.own_seed_option
@common.device_option
@common.quiet_option
@common.json_option
def command(
    preset: str,
    data: Path,
    run_dir: Path | None,
    settings: tuple[str, ...],
    scale: int | None,
    init: str | None,
    resize: bool,
    strict: bool,
    dry_run: bool,
    seed: int | None,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train PRESET; the same command again resumes.

    PRESET is one of cifar10, cifar10-cpu, cifar10-paper, super-resolution, inpainting, edges and saliency: a
    configuration. --dry-run shows all its fields, and --set changes any of them. On several GPUs: torchrun
    --nproc-per-node N -m attenua train PRESET. Ctrl-C and SIGTERM save a checkpoint first. The path of the trained
    model is printed.
    """
    from attenua.config import override

    config = override(_preset(preset, scale), [*settings, *([] if seed is None else [f"training.seed={seed}"])])
    chosen = common.resolve_device(device)
    if chosen.type == "mps":
        if device != "auto":
            raise ValueError("training draws times in float64, which mps does not have: --device must be cpu or cuda")
        chosen = common.resolve_device("cpu")
    if dry_run:
        _describe(config, chosen, as_json)
        return
    from attenua import weights
    from attenua.training import Trainer, distributed

    folder = common.check_folder(run_dir or Path("runs") / preset)
    start = None if init is None else weights.read(weights.find(init))
    skipped = common.Skipped(strict)
    pictures = _load(data, config, resize, skipped)
    world = distributed.connect(chosen)
    try:
        reporter = _Reporter(config.training, quiet or not world.leads)
        with common.progress(
            f"training {preset}", total=reporter.total, unit="images", quiet=quiet or not world.leads
        ) as update:
            trainer = Trainer(
                config,
                pictures,
                folder,
                world=world,
                init=start,
                features=None if start is not None else _features(config, folder),
                perceptual=_perceptual(config, world.device),
                evaluate=_evaluation(config, pictures, world) if world.leads else None,
                on_progress=reporter if world.leads else None,
            )
            reporter.start(trainer.seen, update)
            complete, told = _run(trainer)
    finally:
        distributed.disconnect()
    if not complete:
        if world.leads:
            click.echo(f"attenua: saved at {trainer.seen:,} images; the same command goes on from there", err=True)
        raise click.exceptions.Exit(130 if told == signal.SIGINT else 0)
    if world.leads:
        model = folder / "model.safetensors"
        loss = _last_loss(folder)
        result = {"model": model, "images": trainer.seen, "seconds": round(trainer.seconds, 1), "loss": loss}
        common.emit(result, as_json=as_json, text=str(model))
    skipped.finish()


def _preset(name: str, scale: int | None) -> Config:
    """Return the preset; ValueError for a scale that it does not have."""
    from attenua import presets

    if scale is None:
        return presets.preset(name)
    if name != "super-resolution":
        raise ValueError(f"--scale {scale} belongs to the preset super-resolution, not to {name}")
    return presets.super_resolution(scale)


class _Reporter:
    """Moves the progress bar, and writes a line at every log line; silent with `quiet`."""

    def __init__(self, training: TrainingConfig, quiet: bool) -> None:
        self.total = -(-training.images // training.batch) * training.batch  # whole batches
        self.quiet = quiet

    update: common.Update

    def start(self, seen: int, update: common.Update) -> None:
        """Take the bar, and tell where the run stands."""
        self.update = update
        if seen and not self.quiet:
            state = "complete already" if seen >= self.total else "resumed"
            click.echo(f"{state} at {seen:,} of {self.total:,} images", err=True)
        if 0 < seen < self.total:
            update(seen)

    def __call__(self, progress: Progress) -> None:
        """Take a log line of the trainer's."""
        self.update(progress.images)
        if not self.quiet:
            speed = f"{progress.images_per_second:,.0f} images/s"
            left = f"{_duration(progress.seconds_left)} left"
            click.echo(f"{progress.images:,} images, loss {progress.loss:.4f}, {speed}, {left}", err=True)


def _duration(seconds: float) -> str:
    """Seconds as 40 s, 12 min or 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _last_loss(folder: Path) -> float | None:
    """Return the mean loss of the last log line; None where there is none."""
    from attenua import reports
    from attenua.training import checkpoint

    log = folder / checkpoint.METRICS  # a complete run whose log was taken away still has its model
    losses = [line["loss"] for line in reports.read_lines(log) if "loss" in line] if log.exists() else []
    last = losses[-1] if losses else None
    return last if isinstance(last, float) else None


def _run(trainer: Trainer) -> tuple[bool, int | None]:
    """Run with SIGTERM and SIGINT turned into a saved stop; a second SIGINT ends at once.

    Not so among several processes: torchrun passes on the SIGINT that the terminal has sent to each of them already.
    """
    told: int | None = None

    def stop(number: int, _frame: types.FrameType | None) -> None:
        nonlocal told
        if told == signal.SIGINT == number and trainer.world.size == 1:
            raise KeyboardInterrupt("the run goes on from its last checkpoint with the same command")
        told = number
        trainer.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return trainer.run(), told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _load(data: Path, config: Config, resize: bool, skipped: common.Skipped) -> ImageSet | Source:
    """Read the training set. Raises ValueError, with the ways out, where it does not fit the network."""
    side = config.model.network.image_size
    leads = os.environ.get("RANK", "0") == "0"
    tell = skipped if leads or skipped.strict else lambda path, reason: None
    if config.model.task.name != "generation":
        from attenua.tasks import task_of

        if resize:
            raise ValueError(
                f"--resize is for generation; {config.model.task.name} cuts crops from pictures of any size"
            )
        return task_of(config.model).dataset(data, config, strict=skipped.strict, on_skip=tell)
    pictures = common.load_data(data, tell, strict=skipped.strict, size=side if resize else None)
    height, width = pictures.images.shape[-2:]
    if (height, width) != (side, side):
        ways = "give --resize" + (f", or --set model.network.image_size={height}" if height == width else "")
        raise ValueError(
            f"the images of {data} have {height} x {width} pixels, the network takes {side} x {side}: {ways}"
        )
    return pictures


def _perceptual(config: Config, device: Any) -> Any:
    """Return LPIPS with VGG16 on the device where the objective asks for it."""
    if not config.objective.perceptual:
        return None
    from attenua import weights
    from attenua.metrics.perceptual import Perceptual

    return Perceptual("vgg", cache=weights.cache()).to(device)


def _features(config: Config, folder: Path) -> Any:
    """Return the pretrained weights that a new run's features start from. Raises ValueError where they are not there.

    A run that goes on has them in its checkpoint.
    """
    from attenua import weights
    from attenua.data import pretrained
    from attenua.training import checkpoint

    name = config.model.network.features
    if name == "none" or checkpoint.newest(folder) is not None:
        return None
    try:
        if name == "vgg16":
            from attenua.metrics.perceptual import vgg16

            return vgg16(weights.cache())
        return pretrained.efficientnet_lite0(weights.cache())
    except ValueError as error:
        raise ValueError(f"{error}; --set model.network.features=none trains without") from None


def _evaluation(config: Config, pictures: ImageSet | Source, world: World) -> Any:
    """Return the function that scores the averaged model, where training.fid_every asks for it."""
    from attenua.data import ImageSet

    if not config.training.fid_every:
        return None
    if not isinstance(pictures, ImageSet):
        raise ValueError(f"training.fid_every is for generation, not for {config.model.task.name}")
    from attenua.tasks.evaluation import Evaluation

    training = config.training
    return Evaluation(pictures, num=training.fid_samples, sampling=config.sampling, device=world.device).figures


def _describe(config: Config, device: Any, as_json: bool) -> None:
    """Print what a run would be."""
    from attenua.config import to_dict
    from attenua.training.estimate import estimate

    plan = estimate(config, device)
    result = {"config": to_dict(plan.config), "device": str(device), **plan.figures()}
    text = [
        json.dumps(to_dict(plan.config), indent=2),
        f"parameters        {plan.parameters:,}",
        f"FLOPs an image    {plan.flops / 1e9:.2f} G forward, {3 * plan.flops / 1e9:.2f} G in training",
        f"memory, expected  {plan.memory / 2**30:.2f} GiB on {device}, {plan.micro_batch} images at once; data apart",
        f"length            {config.training.images:,} images, {plan.steps:,} steps of {config.training.batch}",
    ]
    common.emit(result, as_json=as_json, text=text)
