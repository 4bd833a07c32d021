"""What the tests of networks share: small configurations, and networks that say something."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attenua.config import NetworkConfig


def small(**fields: Any) -> NetworkConfig:
    """Return the configuration of a network of two levels for 8 x 8 pictures, with the fields given."""
    defaults: dict[str, Any] = {
        "image_size": 8, "width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "heads": 2, "dropout": 0.0
    }  # fmt: skip
    return NetworkConfig(**(defaults | fields))


def stir(module: nn.Module, size: float = 0.05, seed: int = 0) -> None:
    """Move every parameter by seeded noise, so that nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
