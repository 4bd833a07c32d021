"""`attenua data NAME`: bring a data set to this machine."""

from __future__ import annotations

from pathlib import Path

import click

from attenua.cli import common

__all__ = ["DATASETS", "command"]

DATASETS = ("cifar10", "set5", "set14", "bsds500", "div2k", "lfw", "duts")


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

    Every file is checked against its published sum, where there is one, and gets its name only when it is whole. What
    is there already is kept, so the same command goes on after an interruption. The folder is printed, and on stderr
    the terms under which the data may be used.

    NAME: cifar10 (60,000 labelled pictures of 32 x 32 pixels; 170 MB to download, 185 MB on disk), set5 and set14
    (tests of super-resolution; 6 MB), bsds500 (500 pictures with boundaries drawn by people; 70 MB), div2k (900 large
    photographs; 4 GB), lfw (13,233 faces; 110 MB), duts (15,572 pictures with masks of what stands out; 400 MB).
    """
    from attenua.data import cifar10, sources  # torch comes with them

    with common.progress(name, unit="bytes", quiet=quiet) as update:
        if name == "cifar10":
            folder, terms = cifar10.fetch(root, progress=update), cifar10.TERMS
        else:
            known = sources.DATASETS[name]
            folder, terms = sources.fetch(known, root, progress=update), known.terms
    if not quiet:
        click.echo(f"terms: {terms}", err=True)
    common.emit({"data": name, "path": folder, "terms": terms}, as_json=as_json, text=str(folder))
