"""Noise laws: how the noise comes, sigma(t) from 0 at t = 0 to 1 at t = 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


class Noise(ABC):
    """Brownian motion on the clock sigma^2(t). Times: float64 tensors of any shape in [0, 1]."""

    name: ClassVar[str]

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the standard deviation of the noise at t."""

    @abstractmethod
    def variance_between(self, u: Tensor, t: Tensor) -> Tensor:
        """Return sigma_t^2 - sigma_u^2 for u <= t, without cancellation."""


@dataclass(frozen=True)
class Wiener(Noise):
    """sigma = sqrt(t): the paper's."""

    name: ClassVar[str] = "wiener"

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(t)."""
        return torch.sqrt(t)

    def variance_between(self, u: Tensor, t: Tensor) -> Tensor:
        """Return t - u."""
        return t - u


@dataclass(frozen=True)
class Linear(Noise):
    """sigma = t: the authors' later variant."""

    name: ClassVar[str] = "linear"

    def sigma(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def variance_between(self, u: Tensor, t: Tensor) -> Tensor:
        """Return (t - u)(t + u)."""
        return (t - u) * (t + u)


NOISES: dict[str, type[Noise]] = {noise.name: noise for noise in (Wiener, Linear)}
"""Every noise law that a configuration can name."""


def noise(name: str) -> Noise:
    """Return the noise law of that name. Raises ValueError on an unknown name."""
    if name not in NOISES:
        raise ValueError(f"unknown noise {name!r}; known: {', '.join(NOISES)}")
    return NOISES[name]()
