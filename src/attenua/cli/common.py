"""What the commands share: options that mean the same everywhere, the device, results, progress, skipped inputs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import click

from attenua.cli import errors

if TYPE_CHECKING:
    import torch  # at run time only where a device is chosen: the help of a command needs none

    from attenua.data import ImageSet
    from attenua.tasks import Generation

__all__ = [
    "OneOf",
    "Skipped",
    "Update",
    "check_folder",
    "check_model",
    "check_output",
    "device_option",
    "emit",
    "json_option",
    "load_data",
    "load_model",
    "model_option",
    "overwrite_option",
    "own_seed_option",
    "progress",
    "quiet_option",
    "resolve_device",
    "seed_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


@runtime_checkable  # so that the tests' type checker can see it
class Update(Protocol):
    """Tells how far the work is."""

    def __call__(self, done: float, total: int | None = None) -> None:
        """Take what is done so far, and the whole (None: as before, or not known); parts move the bar alone."""


class OneOf(click.Choice[str]):
    """A choice of names; the error for another one gives the closest and lists all."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the sentence for an unknown name."""
        return errors.unknown("value", str(value), self.choices)


def device_option(command: Command) -> Command:
    """Add `--device` (parameter `device`, a name for `resolve_device`)."""
    line = "Where to compute: auto, cpu, cuda, cuda:N or mps; auto takes the first GPU, or the CPU."
    return click.option("--device", default="auto", show_default=True, metavar="DEVICE", help=line)(command)


def seed_option(command: Command) -> Command:
    """Add `--seed` (parameter `seed`, from 0 to 2^63 - 1: what torch's generators take)."""
    line = "Seed of everything random, from 0; the same seed gives the same result."
    return click.option("--seed", type=int, default=0, show_default=True, metavar="N", callback=_check_seed, help=line)(
        command
    )


def own_seed_option(command: Command) -> Command:
    """Add `--seed` for a command whose configuration has a seed already (parameter `seed`, None where not given)."""
    line = "Seed of everything random, from 0; the same seed gives the same result.  [default: 0]"
    return click.option("--seed", type=int, metavar="N", callback=_check_seed, help=line)(command)


def _check_seed(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value is not None and not 0 <= value < 2**63:
        raise click.BadParameter(f"{value} is not from 0 to 2^63 - 1", ctx, param)
    return value


def json_option(command: Command) -> Command:
    """Add `--json` (parameter `as_json`): the result on stdout is one JSON object."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")(command)


def quiet_option(command: Command) -> Command:
    """Add `--quiet` (parameter `quiet`): nothing on stderr but errors."""
    return click.option("--quiet", is_flag=True, help="Show no progress; errors are still shown.")(command)


def overwrite_option(command: Command) -> Command:
    """Add `--overwrite` (parameter `overwrite`, for `check_output`)."""
    return click.option("--overwrite", is_flag=True, help="Replace an output that exists already.")(command)


def model_option(command: Command) -> Command:
    """Add `--model MODEL` (parameter `model`, a name or a file, or None)."""
    line = "In place of the argument MODEL: a model's name or its file of weights."
    return click.option("--model", metavar="MODEL", help=line)(command)


def resolve_device(name: str) -> torch.device:
    """Return the device that `--device` names: auto, cpu, cuda, cuda:N or mps.

    `auto` is cuda where there is one, else mps, else cpu; under torchrun `auto` and `cuda` are the process's own GPU
    (LOCAL_RANK). Raises ValueError for another name, and for a device that is not there: it lists those that are.
    """
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    present = ["auto", "cpu", *(["cuda"] if gpus else []), *gpus, *mps]
    if name not in present:
        raise ValueError(f"there is no device {name!r} here: --device must be one of {', '.join(present)}")
    if name in ("auto", "cuda") and gpus:
        own = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
        if own not in gpus:
            raise ValueError(f"this process should use {own}, but there are {', '.join(gpus)}: start fewer processes")
        return torch.device(own)
    return torch.device((mps or ["cpu"])[0] if name == "auto" else name)


def check_output(path: Path, *, overwrite: bool) -> Path:
    """Return `path` if a file can be written there, before the work for it is done.

    Raises FileExistsError where it exists and `overwrite` is false, FileNotFoundError where its folder does not
    exist, PermissionError where that cannot be written.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: name another output, or give --overwrite to replace it")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} of the output {path.name} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {folder} of the output {path.name} cannot be written")
    return path


def check_folder(path: Path) -> Path:
    """Return `path` if it is a folder that can be written, or one can be made there, before the work for it is done.

    Raises NotADirectoryError where a file is in the way, PermissionError where nothing can be written.
    """
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, so {path} cannot be a folder: name another output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {there} of the output {path} cannot be written")
    return path


def emit(result: Mapping[str, Any], *, as_json: bool, text: str | Sequence[str]) -> None:
    """Print a result on stdout: one JSON object with `--json`, else the text (a line, or a line each).

    Raises ValueError for a number that JSON does not have (nan, infinity).
    """
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False, default=_plain))
    else:
        click.echo(text if isinstance(text, str) else "\n".join(text))


@contextmanager
def progress(title: str, *, total: int | None = None, unit: str = "", quiet: bool = False) -> Iterator[Update]:
    """Show progress on stderr: a bar on a terminal, one line at the end elsewhere, nothing with `quiet`.

    total: the whole, where it is known beforehand. unit: what is counted ("images"); "bytes" is shown in megabytes.
    Yields the function to call as the work goes on. There is no line at the end where the work
    fails, or where there was none.
    """
    count = _Count(title, unit, total)
    if quiet:
        yield count.update
        return
    if sys.stderr.isatty():
        with _bar(count) as update:
            yield update
    else:
        yield count.update
    if count.done:
        click.echo(count.line(), err=True)


@dataclass
class Skipped:
    """Inputs that could not be used: each is named on stderr, the rest is done, and the exit code is 1.

    strict: the first one is an error instead (exit code 2).
    """

    strict: bool = False
    reasons: dict[Path, str] = field(default_factory=dict)

    def __call__(self, path: Path, reason: str) -> None:
        """Note an input and why it is left out. Raises ValueError with `strict`."""
        if self.strict:
            raise ValueError(f"{path}: {reason}")
        self.reasons[path] = reason
        click.echo(f"attenua: skipped {path}: {reason}", err=True)

    def finish(self) -> None:
        """End the command: with a count and exit code 1 where something was left out. Call it after the results."""
        if self.reasons:
            number = len(self.reasons)
            click.echo(f"attenua: {number} input{'s were' if number > 1 else ' was'} skipped", err=True)
            raise click.exceptions.Exit(errors.BAD_INPUTS)


@dataclass
class _Count:
    """How far the work is."""

    title: str
    unit: str
    total: int | None
    done: float = 0
    started: float = field(default_factory=time.monotonic)

    def update(self, done: float, total: int | None = None) -> None:
        self.done, self.total = done, self.total if total is None else total

    def amounts(self) -> str:
        if self.unit == "bytes":
            return f"{self.done / 1e6:.1f}" + (f" of {self.total / 1e6:.1f} MB" if self.total else " MB")
        return (
            f"{int(self.done)}" + (f" of {self.total}" if self.total else "") + (f" {self.unit}" if self.unit else "")
        )

    def line(self) -> str:
        return f"{self.title}: {self.amounts()} in {time.monotonic() - self.started:.1f} s"


@contextmanager
def _bar(count: _Count) -> Iterator[Update]:
    """A bar of rich on stderr that goes away at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amounts]}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(count.title, total=count.total, amounts="")

        def update(done: float, total: int | None = None) -> None:
            count.update(done, total)
            bar.update(task, completed=done, total=count.total, amounts=count.amounts())

        yield update


def _plain(value: object) -> str:
    """Paths are strings in JSON; nothing else is converted."""
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def check_model(name: str | None, option: str | None) -> Path:
    """Return the file of the model that MODEL or `--model` names, without torch and without reading it.

    Raises ValueError where neither or both are given, or the name is unknown; FileNotFoundError where there is no file.
    """
    from attenua import weights

    if (name is None) == (option is None):
        given = "neither is given" if name is None else f"MODEL is {name!r} and --model is {option!r}"
        known = ", ".join(weights.catalogue())
        raise ValueError(f"one of MODEL ({known}, or a file of weights) and --model is needed: {given}")
    return weights.find(str(option if name is None else name))


def load_model(name: str | None, option: str | None, device: str) -> Generation:
    """Return the model that MODEL or `--model` names, on the device; errors as for `check_model`."""
    file = check_model(name, option)
    from attenua.tasks import load

    return load(str(file), resolve_device(device))


def load_data(path: Path, skipped: Callable[[Path, str], None], *, strict: bool, size: int | None = None) -> ImageSet:
    """Return the training pictures that `--data` or `--images` names; size: crop and resize them to it.

    Raises FileNotFoundError, with the ways to data, where there are none; the rest as `attenua.data.load`.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        found = "is empty" if path.exists() else "does not exist"
        raise FileNotFoundError(
            f"{path} {found}: bring CIFAR-10 there with `attenua data cifar10 --root {path}`, "
            "or name a folder or zip of images"
        )
    from attenua.data import load

    return load(path, size=size, strict=strict, on_skip=skipped)
