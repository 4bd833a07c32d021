"""What the tests of the process share: every pair of laws, and linear bookkeeping of what a state is made of."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attenua.process import LAWS, NOISES, Custom, Process, law, noise

ORACLES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "process.json").read_text())
"""Reference values computed with 40 digits."""

DETERMINISTIC = [name for name in LAWS if name != "free_slope"]
PAIRS = list(itertools.product(DETERMINISTIC, NOISES))
TIMES = [0.0, 1e-8, 1e-4, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.9999, 1 - 1e-8, 1.0]


def build(law_name: str, noise_name: str) -> Process:
    """Return the process of two names."""
    return Process(law(law_name), noise(noise_name))


def sine() -> Custom:
    """A user's own law: m = sin^2(pi t / 2), with its remainder."""
    return Custom(lambda t: torch.sin(t * torch.pi / 2) ** 2, remainder=lambda t: torch.cos(t * torch.pi / 2) ** 2)


def unit(position: int, of: int) -> Tensor:
    """Return the basis vector of one ingredient of a state, as a picture [1, 1, 1, of] of float64.

    Every step of the process is linear in x_t, x0, eps and z: run on basis vectors, it says what a state is made of.
    """
    vector = torch.zeros(1, 1, 1, of, dtype=torch.float64)
    vector[..., position] = 1
    return vector


def basis(of: int) -> tuple[Tensor, ...]:
    """Return all basis vectors."""
    return tuple(unit(position, of) for position in range(of))


def number(value: float) -> Tensor:
    """Return a time as a float64 tensor."""
    return torch.tensor(value, dtype=torch.float64)
