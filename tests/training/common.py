"""A run small enough to repeat: an 8 x 8 data set and a network of a few thousand weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from attenua.config import Config, ModelConfig, NetworkConfig, TrainingConfig, override
from attenua.data import ImageSet
from attenua.training import checkpoint

LAST = checkpoint.name(96)
"""The last checkpoint of a run of `config`."""


def pictures(count: int = 48, size: int = 8) -> ImageSet:
    """Smooth random pictures."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, 2, 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return ImageSet((smooth * 255).to(torch.uint8), None, (), "smooth", "made for tests")


def config(settings: Sequence[str] = ()) -> Config:
    """A float64 run of 12 steps of 8."""
    network = NetworkConfig(image_size=8, width=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2, dropout=0.0)
    training = TrainingConfig(
        images=96,
        batch=8,
        rate=2e-3,
        warmup=16,
        precision="float64",
        log_every=16,
        checkpoint_every=32,
        sample_every=0,
        snapshots=4,
    )
    return override(Config(model=ModelConfig(network=network), training=training), settings)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model or checkpoint file."""
    from safetensors.torch import load_file

    return load_file(path)
