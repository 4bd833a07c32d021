"""`attenua data NAME`: bring a data set to this machine."""

from __future__ import annotations

from pathlib import Path

import click

from attenua.cli import common

__all__ = ["DATASETS", "command"]

DATASETS = ("cifar10",)


@click.command("data")
@click.argument("name", metavar="NAME", type=common.OneOf(DATASETS))
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="The folder to put it in; it is made where it does not exist.",
)
@common.quiet_option
@common.json_option
def command(name: str, root: Path, quiet: bool, as_json: bool) -> None:
    """Bring the data set NAME to this machine.

    Every file is checked against its published sum and gets its name only when it is whole. What is there already is
    kept, so the same command goes on after an interruption. The folder is printed.

    NAME: cifar10 (60,000 labelled pictures of 32 x 32 pixels; 170 MB to download, 185 MB on disk).
    """
    from attenua.data import cifar10  # torch comes with it

    with common.progress(name, unit="bytes", quiet=quiet) as update:
        folder = cifar10.fetch(root, progress=update)
    common.emit({"data": name, "path": folder, "terms": cifar10.TERMS}, as_json=as_json, text=str(folder))
