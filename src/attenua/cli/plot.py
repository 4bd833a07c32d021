"""`attenua plot FILE`: draw a report's figures against network calls."""

from __future__ import annotations

from pathlib import Path

import click

from attenua.cli import common

__all__ = ["command"]


@click.command("plot")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metric", metavar="NAME", help="The figure to draw; the first row's.")
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="The .svg to write.  [default: beside FILE]"
)
@common.overwrite_option
@common.json_option
def command(files: tuple[Path, ...], metric: str | None, out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Draw the figures of reports (JSON) against network calls, on log axes: a line a model, solver and grid.

    Names that are the same in all rows are left out of the legend.
    """
    path = out or files[0].with_suffix(".svg")
    if path.suffix.lower() != ".svg":
        raise ValueError(f"--out {path} ends in {path.suffix!r}; allowed is .svg")
    common.check_output(path, overwrite=overwrite)
    from attenua import files as writer
    from attenua import plots, reports

    rows = [row for file in files for row in reports.read_rows(file)]
    chosen = metric or str(rows[0]["metric"])
    lines = reports.lines(rows, chosen)
    labels = {"fid": "FID", "kid": "KID", "distance": "distance to the reference"}
    label = labels.get(chosen, chosen)
    svg = plots.chart(lines, title=f"{label} against network calls", x="network calls", y=label)
    writer.write_bytes(path, svg.encode())
    common.emit({"out": path, "lines": list(lines), "metric": chosen}, as_json=as_json, text=str(path))
