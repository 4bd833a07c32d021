"""Checkpoints: one atomic safetensors file holds all that a run needs to go on, and only the same run takes it up.

By name: `network.` and the parameter; `ema`, the average's width, a dot and the parameter; `optimizer.`, the number of
the parameter among the optimizer's, a dot and what is kept of it. Plain values stand in the metadata, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attenua import reports, weights
from attenua.config import Config, from_dict, to_dict
from attenua.files import write_bytes
from attenua.training.ema import Average

PATTERN = "checkpoint-*.safetensors"
"""The names of a run folder's checkpoints: by name is by images seen."""

METRICS = "metrics.jsonl"
"""The log in a run folder, a line an event."""

FREE_TO_CHANGE = (
    "log_every",
    "checkpoint_every",
    "keep",
    "sample_every",
    "fid_every",
    "fid_samples",
    "compile",
    "micro_batch",
)
"""Training fields that a run may change when it resumes: they do not touch the weights."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and plain values: counters, configuration, the data's checksum."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Learned:
    """What a run has learned: parameters by name, their averages, and an optimizer over the same parameters."""

    parameters: Mapping[str, torch.nn.Parameter]
    averages: Sequence[Average]
    optimizer: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it as a checkpoint's tensors: not copies, each of its own shape, type and device."""
        tensors: dict[str, Tensor] = {f"network.{key}": value for key, value in self.parameters.items()}
        for average in self.averages:
            tensors |= {
                f"ema{average.width:g}.{key}": value
                for key, value in zip(self.parameters, average.tensors, strict=True)
            }
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take all of it from a checkpoint's tensors, in place.

        Raises ValueError that names the parameters that differ in name or shape; nothing is taken then.
        """
        weights.compare(
            {f"network.{key}": tuple(value.shape) for key, value in self.parameters.items()},
            {name: tuple(value.shape) for name, value in tensors.items() if name.startswith("network.")},
        )
        for key, parameter in self.parameters.items():
            parameter.copy_(tensors[f"network.{key}"])
        for average in self.averages:
            for key, value in zip(self.parameters, average.tensors, strict=True):
                value.copy_(tensors[f"ema{average.width:g}.{key}"])
        device = next(iter(self.parameters.values())).device
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor if key == "step" else tensor.to(device)
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


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


def resumed(folder: Path, config: Config, data_sha256: str) -> Checkpoint | None:
    """Return the newest checkpoint of a run folder, or None where there is none.

    Raises ValueError on a damaged file, and on one of other pictures or another configuration: all fields but
    `sampling` and those that are FREE_TO_CHANGE must be as they were.
    """
    path = newest(folder)
    if path is None:
        return None
    stored = read(path)
    if stored.values["data_sha256"] != data_sha256:
        raise ValueError(f"{path} was trained on other pictures; choose another run folder for these")
    _same_run(path, config, from_dict(Config, stored.values["config"]))
    return stored


def unlog(folder: Path, seen: int) -> None:
    """Drop what a killed run logged after its checkpoint of `seen` images: they are trained, and logged, again."""

    def before(event: dict[str, object]) -> bool:
        images = event.get("images")
        return not isinstance(images, int) or images <= seen

    with contextlib.suppress(FileNotFoundError, ValueError):  # a log that is gone or damaged stops no training
        reports.keep_lines(folder / METRICS, before)


def write_config(folder: Path, config: Config) -> None:
    """Write config.json into a run folder, where none is there yet. Raises OSError where it cannot."""
    path = folder / "config.json"
    if not path.exists():
        write_bytes(path, json.dumps(to_dict(config), indent=2).encode())


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str = "") -> str:
    """Return which of our plain values are others there, as "rate (0.002 there, 0.01 here), ..."; "" where none is.

    where: what stands before the names; numbers that differ by rounding alone (a relative 1e-9) are the same.
    """
    found = []
    for key, value in ours.items():
        other = theirs.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            inner = differences(value, other, f"{where}{key}.")
            found += [inner] if inner else []
        elif value != other and not (isinstance(value, float) and other is not None and math.isclose(value, other)):
            found.append(f"{where}{key} ({other!r} there, {value!r} here)")
    return ", ".join(found)


def _same_run(path: Path, config: Config, stored: Config) -> None:
    ours, theirs = to_dict(config), to_dict(stored)
    for field_name in FREE_TO_CHANGE:
        ours["training"].pop(field_name), theirs["training"].pop(field_name)
    for values in (ours, theirs):
        values.pop("sampling")
    different = differences(ours, theirs)
    if different:
        raise ValueError(f"{path} was trained with another configuration: {different}; choose another run folder")
