"""Files or folders of pictures in, pictures out: what upscale, inpaint, edges and saliency share.

A command is a Treatment and the options around it:

    @click.command("edges")
    @pictures.options(model="edges", steps=5)          # IN... -o OUT and all that follows, as one Options
    @click.option("--thin", is_flag=True, help="...")  # its own
    def command(options: Options, thin: bool) -> None:
        pictures.run(options, Edges(thin))

`run` plans, reads, draws, writes, counts and reports; a Treatment says only what the network is told of a picture, and
what becomes of its output.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from attenua.cli import common
from attenua.cli.plan import Item, compare, plan, skip

if TYPE_CHECKING:  # at run time where the work begins: the help of a command needs none of it
    from torch import Tensor

    from attenua.photos import Photo
    from attenua.tasks import Conditional

__all__ = ["SAMPLES", "Options", "Treatment", "check_mean", "heat", "like", "options", "rgb", "run"]

SAMPLES = 8
"""Samples behind a map of uncertainty, where `--samples` does not say."""

WHITE = 32.0
"""The deviation, in levels of 0..255, that is white in a map of uncertainty."""

_HEAT = ((0, 0, 0), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (255, 255, 255))


@dataclass(frozen=True)
class Options:
    """What the command line says, the same for every command; see the help of each."""

    inputs: tuple[Path, ...]
    out: Path
    model: str
    steps: int | None
    seed: int
    tile: int
    samples: int | None
    uncertainty: Path | None
    device: str
    overwrite: bool
    strict: bool
    quiet: bool
    as_json: bool

    @property
    def draws(self) -> int:
        """How many samples are drawn of a picture."""
        return 1 if self.uncertainty is None else self.samples or SAMPLES


class Treatment(ABC):
    """What a command does with a picture. Any method may raise ValueError: that picture is skipped and named."""

    command: ClassVar[str]
    """The command's name, stored with every output."""
    task: ClassVar[str]
    """The task that the model must be for, which is also the preset that trains one."""
    opaque: bool = False
    """Whether outputs have no transparency, whatever the input has."""
    lossless: bool = False
    """Whether outputs in a folder are PNG where the input was JPEG or WebP."""
    faithful: bool = False
    """Whether the mean is drawn, by one network call, and not a sample."""

    def check(self, model: Conditional) -> None:
        """Raise ValueError, before any picture is read, where the model is not the right one."""
        return

    def beside(self, source: Path) -> Path | None:
        """Return another file that the picture takes, such as its mask: no output may replace it."""
        return None

    def settings(self, source: Path) -> dict[str, str]:
        """Return what changes an output beside model, sampling and input: a second run compares it."""
        return {}

    @abstractmethod
    def prepare(self, source: Path, photo: Photo) -> Tensor:
        """Return what the network is told of a picture, float32 [C', h, w]."""

    def resize(self, output: Tensor, photo: Photo) -> Tensor:
        """Return an output [C, H, W] at the size at which it is written, and so for a map of uncertainty [1, H, W]."""
        return output

    @abstractmethod
    def finish(self, output: Tensor, photo: Photo, picture: Tensor) -> Photo:
        """Return what is written: from an output, float32 [C, H, W] in [-1, 1], its input, and what `prepare` gave."""


def options(*, model: str, steps: int, tile: int = 256) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `IN... -o OUT` and the options of Options, as its first argument `options`.

    model: the default of `--model`; steps: what the default model's steps are (told in the help); tile: in pixels of
    the input.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        names = [field.name for field in dataclasses.fields(Options)]

        @functools.wraps(function)
        def call(**values: Any) -> None:
            given = Options(**{name: values.pop(name) for name in names})
            _check(given)
            function(given, **values)

        wrapped: Callable[..., None] = call
        for add in reversed(_parameters(model, steps, tile)):
            wrapped = add(wrapped)
        return wrapped

    return decorate


def _parameters(model: str, steps: int, tile: int) -> list[Callable[[Callable[..., None]], Callable[..., None]]]:
    path = click.Path(path_type=Path)
    return [
        click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=path),
        click.option(
            "-o",
            "--out",
            type=path,
            required=True,
            metavar="OUT",
            help="A file (.png, .jpg, .webp, .tif) for one picture; a folder for several, which keep their names.",
        ),
        click.option(
            "--model", default=model, show_default=True, metavar="MODEL", help="A model's name or its file of weights."
        ),
        click.option(
            "--steps", type=int, metavar="N", help=f"Network calls a picture, from 1; the model's own, often {steps}."
        ),
        click.option(
            "--tile",
            type=click.IntRange(min=16),
            default=tile,
            show_default=True,
            metavar="N",
            help="Side of the tiles that are computed one by one, in pixels of the input; less needs less memory.",
        ),
        click.option(
            "--uncertainty",
            type=path,
            metavar="OUT",
            help="Write a map as well: how much several samples differ, a pixel; black is not at all, white is "
            f"{WHITE:g} levels of 255 or more. A file for one picture, a folder for several.",
        ),
        click.option(
            "--samples",
            type=click.IntRange(min=2),
            metavar="K",
            help=f"Samples behind that map; OUT is the first of them, not their mean.  [default: {SAMPLES}]",
        ),
        common.seed_option,
        common.device_option,
        click.option("--strict", is_flag=True, help="Stop at a picture that cannot be used, rather than go on."),
        click.option(
            "--overwrite",
            is_flag=True,
            help="Replace outputs that exist, an input by its own output included; without it, outputs made with the "
            "same settings are kept, and others are an error.",
        ),
        common.quiet_option,
        common.json_option,
    ]


def _check(given: Options) -> None:
    if given.steps is not None and given.steps < 1:
        raise ValueError(f"steps is {given.steps}; allowed is a whole number from 1")
    if given.samples is not None and given.uncertainty is None:
        raise ValueError(f"--samples {given.samples} is for the map of --uncertainty, which is not asked for")


def check_mean(given: Options, mean: bool) -> None:
    """Raise ValueError where the mean of all samples is asked for together with what samples need."""
    if mean and given.uncertainty is not None:
        raise ValueError("--mean is the mean of all samples: a map of uncertainty needs samples")
    if mean and given.steps is not None:
        raise ValueError(f"--mean is one network call; --steps {given.steps} is for samples")


def rgb(photo: Photo) -> Tensor:
    """Return a photo's pixels as three channels, float32 [3, H, W]; grey three times."""
    return photo.pixels.expand(3, -1, -1)


def like(photo: Photo, pixels: Tensor, alpha: Tensor | None = None) -> Photo:
    """Return a photo of new pixels [3, H, W], grey where the old one is, with its depth, profile and EXIF.

    alpha: [1, H, W] in [0, 1], or None for none.
    """
    own = pixels.mean(0, keepdim=True) if photo.grey else pixels
    return dataclasses.replace(photo, pixels=own, alpha=alpha)


def heat(deviation: Tensor) -> Tensor:
    """Return deviations [H, W], in picture values (-1 to 1), as colours [3, H, W] in [-1, 1]: black 0, white WHITE."""
    import torch

    table = torch.tensor(_HEAT, dtype=torch.float32).T / 127.5 - 1
    place = (deviation.float() * (127.5 / WHITE)).clamp(0, 1) * (table.shape[1] - 1)
    low = place.floor().clamp(max=table.shape[1] - 2).long()
    share = place - low
    return table[:, low] * (1 - share) + table[:, low + 1] * share


# ---- the run


def run(given: Options, treatment: Treatment) -> None:
    """Do a command's work: plan, load the model, treat every picture, report; exit code 1 where some were skipped.

    Raises ValueError or OSError where nothing can be done: inputs or a model that are not there, one file alone that is
    no picture, outputs that would be overwritten, a disk that is full (what was written before stays).
    """
    started = time.perf_counter()
    items = plan(
        given.inputs,
        given.out,
        given.uncertainty,
        beside=treatment.beside,
        lossless=treatment.lossless,
        overwrite=given.overwrite,
        quiet=given.quiet,
    )
    file = _model_file(given, treatment)
    model = _load(given, treatment, file)
    skipped = common.Skipped(given.strict or (len(given.inputs) == 1 and given.inputs[0].is_file()))
    shared = _sampling(given, treatment, model)

    def settings(source: Path) -> dict[str, str]:
        return {**shared, **treatment.settings(source)}

    todo = compare(items, settings, skipped, overwrite=given.overwrite, quiet=given.quiet)
    calls = (1 if treatment.faithful else given.steps or model.sampling.steps) * given.draws
    with common.progress(treatment.command, total=calls * len(todo), unit="network calls", quiet=given.quiet) as update:
        bar = _Bar(update, calls, len(todo))
        for item in todo:
            _one(given, treatment, model, item, skipped, bar)
    _report(given, items, str(model.device), calls, time.perf_counter() - started)
    skipped.finish()


class _Bar:
    """Counts network calls over all pictures, in parts as tiles are computed; one that ends early leaves the total."""

    def __init__(self, update: common.Update, calls: int, pictures: int) -> None:
        self.update, self.calls, self.total, self.done, self.own = update, calls, calls * pictures, 0, 0

    def __call__(self, step: Any) -> None:
        """Count one call."""
        self.done, self.own = self.done + 1, self.own + 1
        self.update(self.done, self.total)

    def tile(self, done: int, tiles: int) -> None:
        """Show how many of a call's tiles are computed."""
        self.update(self.done + done / tiles, self.total)

    def end(self) -> None:
        """End a picture."""
        self.total -= self.calls - self.own
        self.own = 0
        self.update(self.done, self.total)


def _model_file(given: Options, treatment: Treatment) -> Path:
    """Return the model's file. Raises ValueError that says which models there are, and how to make one."""
    from attenua import weights
    from attenua.config import closest

    ways = f"`attenua train {treatment.task} --data FOLDER` makes one, and --model FILE names it"
    known = weights.catalogue()
    path = Path(given.model)
    if not path.is_file() and given.model not in known and not path.suffix and len(path.parts) == 1:
        hint = closest(given.model, known)
        raise ValueError(f"there is no model {given.model!r}{hint}; the known ones are {', '.join(known)}; {ways}")
    return weights.find(given.model)


def _load(given: Options, treatment: Treatment, file: Path) -> Conditional:
    """Return the model on its device. Raises ValueError where it is for another task."""
    from attenua import weights
    from attenua.tasks.conditional import Conditional

    task = weights.read_header(file).config.task.name
    if task != treatment.task:
        raise ValueError(f"{file} is a model for {task}; `attenua {treatment.command}` needs one for {treatment.task}")
    model = Conditional(file, common.resolve_device(given.device))
    treatment.check(model)
    return model


def _sampling(given: Options, treatment: Treatment, model: Conditional) -> dict[str, str]:
    """Return the settings that all pictures share."""
    steps = 1 if treatment.faithful else given.steps or model.sampling.steps
    told = model.settings(model.choose(steps), given.seed)
    told["mode"] = "faithful" if treatment.faithful else "detailed"
    if treatment.faithful:
        told = {key: told[key] for key in ("model_sha256", "nfe", "mode")}  # the mean has no noise and no times
    told |= {"command": treatment.command, "tile": given.tile}
    if given.uncertainty is not None:
        told["samples"] = given.draws
    return {key: str(value) for key, value in told.items() if value is not None}


def _one(
    given: Options, treatment: Treatment, model: Conditional, item: Item, skipped: common.Skipped, bar: _Bar
) -> None:
    """Treat one picture. Raises OSError where its output cannot be written: then none of the others could."""
    import torch

    started = time.perf_counter()
    try:
        photo, deviation = _made(given, treatment, model, item, bar)
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        skip(item, error, skipped)
        return
    except RuntimeError as error:
        if "allocate" not in str(error):  # how torch tells that the processor's memory does not suffice
            raise
        skip(item, MemoryError("there is not enough memory for it"), skipped)
        return
    finally:
        bar.end()
    try:
        _write(item, photo, deviation)
    except ValueError as error:  # this picture does not fit its format; the next ones may
        skip(item, error, skipped)
        return
    item.status, item.seconds = "written", round(time.perf_counter() - started, 3)


def _made(
    given: Options, treatment: Treatment, model: Conditional, item: Item, bar: _Bar
) -> tuple[Photo, Tensor | None]:
    """Return a picture's output, and how much its samples differ, [H, W], where that is asked for."""
    from attenua import photos

    photo = photos.read(item.source)
    picture = treatment.prepare(item.source, photo)
    _fits(item.target, photo, model.task.scale, opaque=treatment.opaque)
    outputs = model.draw(
        picture,
        samples=given.draws,
        steps=given.steps,
        seed=given.seed,
        faithful=treatment.faithful,
        tile=given.tile,
        callback=bar,
        on_tile=bar.tile,
    )
    made = treatment.finish(treatment.resize(outputs[0], photo), photo, picture)
    if item.map is None:
        return made, None
    deviation = outputs.std(0).square().mean(0, keepdim=True).sqrt()
    return made, treatment.resize(deviation, photo)[0]


def _fits(target: Path, photo: Photo, scale: int, *, opaque: bool) -> None:
    """Raise ValueError, before the work, where the format or any memory has no place for the output."""
    from attenua import photos
    from attenua.images import MAX_PIXELS

    height, width = (side * scale for side in photo.pixels.shape[1:])
    if height * width > MAX_PIXELS:
        raise ValueError(f"its output would have {width} x {height} pixels, more than the limit, {MAX_PIXELS}")
    kind = photos.SUFFIXES[target.suffix.lower()]
    longest = photos.LONGEST.get(kind)
    if longest is not None and max(height, width) > longest:
        raise ValueError(f"its output would have {width} x {height} pixels, and {kind} holds {longest} a side")
    if kind == "JPEG" and not opaque and photo.alpha is not None and round(float(photo.alpha.min()) * 255) < 255:
        raise ValueError("it has transparent parts, which JPEG does not hold: choose PNG, WebP or TIFF")


def _write(item: Item, photo: Photo, deviation: Tensor | None) -> None:
    """Write the map, then the picture; what was there was compared before, or may be replaced."""
    from attenua import photos

    if deviation is not None:
        assert item.map is not None
        photos.write(item.map, photos.Photo(heat(deviation)), overwrite=True, settings=item.settings)
    photos.write(item.target, photo, overwrite=True, settings=item.settings)


def _report(given: Options, items: list[Item], device: str, calls: int, seconds: float) -> None:
    """Print the outputs, those that were there already included; with `--json` everything."""
    counts = {name: sum(item.status == name for item in items) for name in ("written", "kept", "skipped")}
    result = {"files": [item.told() for item in items], **counts}
    result |= {"nfe": calls, "device": device, "seconds": round(seconds, 3)}
    text = [str(item.target) for item in items if item.status in ("written", "kept")]
    if text or given.as_json:
        common.emit(result, as_json=given.as_json, text=text)
