"""`attenua models`: what is shipped, cached and known."""

from __future__ import annotations

import click

from attenua.cli import common

__all__ = ["command"]


@click.command("models")
@common.json_option
def command(as_json: bool) -> None:
    """List the models by name: where each lies, its size and what it is for."""
    from attenua import weights

    rows = []
    for name, entry in weights.catalogue().items():
        if (weights.packaged() / entry["file"]).is_file():
            place = "shipped"
        elif (weights.cache() / "models" / entry["file"]).is_file():
            place = "cached"
        else:
            place = "to download"
        rows.append({"name": name, "place": place, "bytes": entry["bytes"], "summary": entry["summary"]})
    text = [f"{row['name']:16} {row['place']:12} {row['bytes'] / 1e6:6.1f} MB  {row['summary']}" for row in rows]
    common.emit({"models": rows, "cache": weights.cache()}, as_json=as_json, text=text)
