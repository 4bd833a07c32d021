"""`attenua info MODEL`: what a model is, how it was trained, on what, and how good it is."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from attenua.cli import common

if TYPE_CHECKING:
    from attenua.config import ModelConfig

__all__ = ["command"]


@click.command("info")
@click.argument("name", metavar="[MODEL]", required=False)
@common.model_option
@common.json_option
def command(name: str | None, model: str | None, as_json: bool) -> None:
    """Show the configuration, size, training record, data and its terms, scores and SHA-256 of MODEL or of a file."""
    path = common.check_model(name, model)
    from attenua import weights
    from attenua.config import to_dict

    header = weights.read_header(path)
    entry = next((item for item in weights.catalogue().values() if item["sha256"] == header.sha256), {})
    parameters, flops = _size(header.config)
    result: dict[str, Any] = {
        "model": str(name or model),
        "file": header.path,
        "bytes": header.bytes,
        "sha256": header.sha256,
        "kind": header.kind,
        "parameters": parameters,
        "flops_per_call": flops,
        "config": to_dict(header.config),
        "sampling": to_dict(header.sampling),
        "record": dict(header.record),
        "scores": entry.get("scores", []),
        "remarks": entry.get("remarks", []),
    }
    common.emit(result, as_json=as_json, text=[line for name, text in _table(result) for line in _wrap(name, text)])


def _size(config: ModelConfig) -> tuple[int, int]:
    """Return the parameters, and the operations of a network call on one picture, without memory for either."""
    import torch

    from attenua.model import AttenuationModel

    with torch.device("meta"):
        model = AttenuationModel(config)
    return model.parameter_count(), model.flops()


def _table(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts, as (name, text)."""
    config, record = result["config"], result["record"]
    numbers = f"{result['parameters']:,} parameters, {result['flops_per_call'] / 1e9:.3g} GFLOP a network call"
    sampling = {key: value for key, value in result["sampling"].items() if not isinstance(value, list)}
    return [
        ("model", str(result["model"])),
        ("file", f"{result['file']}, {result['bytes'] / 1e6:.2f} MB ({result['kind']})"),
        ("SHA-256", result["sha256"]),
        ("size", numbers),
        ("network", _line(config["network"])),
        ("process", f"{_line(config['process'])}, s_d {config['s_d']:g}"),
        ("sampling", _line(sampling)),
        *[("fitted", f"a grid for {item['steps']} steps of {item['solver']}") for item in result["sampling"]["fitted"]],
        ("training", _training(record)),
        ("data", f"{record.get('data', 'not told')}; terms: {record.get('terms', 'not told')}"),
        *[("score", _score(row)) for row in result["scores"]],
        *([] if result["scores"] else [("score", "none measured for this file")]),
        *[("remark", line) for line in result["remarks"]],
    ]


def _training(record: dict[str, Any]) -> str:
    """How a model was trained, as far as its record tells."""
    if "images" not in record:
        return "not told"
    settings = record.get("training") or {}
    told = [f"{key} {settings[key]}" for key in ("batch", "rate", "precision", "seed") if key in settings]
    if record.get("ema") is not None:
        told.append(f"average of relative width {record['ema']:g}")
    minutes = record.get("seconds", 0) / 60
    length = f"{minutes:.0f} min" if minutes >= 1 else f"{record.get('seconds', 0):.0f} s"
    told.insert(0, f"{record['images']:,} images in {length} on {record.get('device', 'an unknown device')}")
    return ", ".join(told) + (f"; before that: {_training(record['start'])}" if record.get("start") else "")


def _wrap(name: str, text: str) -> list[str]:
    """Lines of at most 110 columns, the text in a column of its own."""
    return textwrap.wrap(
        f"{name:10} {text}", 110, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False
    )


def _line(section: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in section.items() if value is not None)


def _score(row: dict[str, Any]) -> str:
    """A figure and how it was taken: of samples against a set, or of outputs for a set's pictures."""
    mean = row.get("output") == "mean" or row.get("maps") == "mean"
    how = ["mean"] if mean else [str(row["solver"]), str(row["grid"])]
    how += [str(row["mode"])] if row.get("mode") else []
    calls = f"{row['nfe']} call{'s' if row['nfe'] != 1 else ''}"
    pictures = "output" in row or "maps" in row
    count = f"{row['samples']:,} " + (f"pictures of {row['data']}" if pictures else f"samples against {row['data']}")
    return f"{row['metric'].upper()} {row['value']:.4g} at {calls} ({', '.join(how)}), {count}"
