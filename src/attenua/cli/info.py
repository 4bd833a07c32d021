"""`attenua info MODEL`: what a model is, how it was trained, on what, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from attenua.cli import common

__all__ = ["command"]


@click.command("info")
@click.argument("name", metavar="MODEL", required=False)
@common.model_option
@common.json_option
def command(name: str | None, model: Path | None, as_json: bool) -> None:
    """Show the configuration, size, training record, data and its terms, scores and SHA-256 of MODEL or of a file."""
    if (name is None) == (model is None):
        raise ValueError("one of MODEL and --model PATH is needed")
    from attenua import weights
    from attenua.config import to_dict

    header = weights.read_header(weights.find(str(name or model)))
    entry = next((item for item in weights.catalogue().values() if item["sha256"] == header.sha256), {})
    record = dict(header.record)
    result: dict[str, Any] = {
        "model": str(name or model),
        "file": header.path.name,
        "bytes": header.bytes,
        "sha256": header.sha256,
        "kind": header.kind,
        "config": to_dict(header.config),
        "sampling": to_dict(header.sampling),
        "record": record,
        "scores": entry.get("scores", []),
        "remarks": entry.get("remarks", []),
    }
    minutes = record.get("seconds", 0) / 60
    text = [
        f"{result['model']}: {header.path.name}, {header.bytes / 1e6:.2f} MB ({header.kind})",
        f"SHA-256    {header.sha256}",
        f"network    {_line(result['config']['network'])}",
        f"process    {_line(result['config']['process'])}, s_d {header.config.s_d:g}",
        f"sampling   {_line(result['sampling'])}",
        f"training   {record.get('images', 0):,} images in {minutes:.0f} min on {record.get('device')}",
        f"data       {record.get('data')}: {record.get('terms')}",
        *(f"score      {_score(row)}" for row in result["scores"]),
        *(f"remark     {line}" for line in result["remarks"]),
    ]
    if not result["scores"]:
        text.append("score      none measured for this file")
    common.emit(result, as_json=as_json, text=text)


def _line(section: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in section.items() if value is not None)


def _score(row: dict[str, Any]) -> str:
    what = f"{row['metric'].upper()} {row['value']:.4g} at {row['nfe']} calls ({row['solver']}, {row['grid']})"
    return f"{what}, {row['samples']:,} samples against {row['data']}"
