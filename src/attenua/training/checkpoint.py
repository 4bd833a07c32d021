"""Checkpoints: one atomic safetensors file holds all that a run needs to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attenua.files import write_bytes

PATTERN = "checkpoint-*.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and plain values: counters, configuration, the data's checksum."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any] = field(default_factory=dict)


def name(images: int) -> str:
    """Return the file name of the checkpoint at an image count."""
    return f"checkpoint-{images:012d}.safetensors"


def write(folder: Path, images: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint atomically, then remove all but the newest `keep`. Returns its path.

    Raises OSError (a full disk, say) with every earlier checkpoint untouched.
    """
    path = folder / name(images)
    tensors = {key: value.detach().cpu().contiguous() for key, value in checkpoint.tensors.items()}
    write_bytes(path, save(tensors, metadata={"attenua": json.dumps(dict(checkpoint.values))}))
    for old in sorted(folder.glob(PATTERN))[:-keep]:
        old.unlink()
    return path


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run, or None."""
    return max(folder.glob(PATTERN), default=None)


def read(path: Path) -> Checkpoint:
    """Return a checkpoint. Raises ValueError on a damaged file, saying how to go on."""
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["attenua"])
            return Checkpoint({key: file.get_tensor(key) for key in file.keys()}, values)  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"the checkpoint {path} is damaged ({error}); remove it to go on from the one before"
        ) from None
