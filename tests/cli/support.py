"""What the tests of commands share: a model small enough to run in an instant, pictures on disk, and one line."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from attenua import images, weights
from attenua.config import ModelConfig, SamplingConfig
from attenua.model import AttenuationModel
from tests.networks.support import small, stir

RECORD = {"images": 4_000, "seconds": 90.0, "device": "CPU", "data": "smooth-train", "terms": "made for tests"}


def content(sampling: SamplingConfig | None = None, **network: Any) -> weights.Weights:
    """Return a model of one level for 8 x 8 pictures that says something."""
    fields: dict[str, Any] = {"width": 8, "multipliers": (1,), "attention": ()}
    config = ModelConfig(small(**(fields | network)), s_d=0.3)
    model = AttenuationModel(config)
    stir(model, 0.1)
    model.mu.copy_(torch.tensor([0.1, -0.2, 0.3]))
    return weights.Weights(config, dict(model.state_dict()), sampling or SamplingConfig(steps=3), RECORD)


def model_file(path: Path, sampling: SamplingConfig | None = None, **network: Any) -> Path:
    """Write such a model."""
    return weights.write(path, content(sampling, **network), "int8")


def pictures(count: int, size: int = 8, seed: int = 5) -> torch.Tensor:
    """Return smooth random pictures, uint8 [count, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 2, 2, generator=generator)
    return (torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear") * 255).to(torch.uint8)


def folder(path: Path, count: int, size: int = 8, seed: int = 5) -> Path:
    """Write pictures into a folder, one file each."""
    path.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures(count, size, seed)):
        images.write(path / f"{index:03d}.png", picture)
    return path


def zipped(source: Path, path: Path) -> Path:
    """Pack a folder of pictures."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(source.iterdir()):
            archive.write(file, file.name)
    return path


def error(text: str) -> str:
    """Return the sentence of an error that is told in one line, as all are."""
    assert text.startswith("attenua: error: "), text
    assert text.count("\n") == 1, text
    return text.removeprefix("attenua: error: ").rstrip("\n")
