"""What other diffusion models predict, as preconditionings: the same path, network and solvers under their objectives.

Every Gaussian path is this one up to its clock and its scale, so a model that predicts noise or velocity is an
attenuation model with other coefficients. EDM's own preconditioning is the linear-Gaussian rule (heads.Rule).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attenua.process.heads import Linear, Pair, TwoHeads


@dataclass(frozen=True)
class OneTarget(TwoHeads):
    """Both heads say the same thing; a combination takes one of them, or their mean."""

    @abstractmethod
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the factors of x_t and of the head in x0, and in eps; float64, shaped like t."""

    def image_pair(self, t: Tensor) -> Pair:
        """Return what follows from F."""
        x0_state, x0_head, eps_state, eps_head = self.scales(t)
        zero = torch.zeros_like(x0_state)
        return Pair(Linear(x0_state, x0_head, zero), Linear(eps_state, eps_head, zero))

    def noise_pair(self, t: Tensor) -> Pair:
        """Return what follows from G."""
        x0_state, x0_head, eps_state, eps_head = self.scales(t)
        zero = torch.zeros_like(x0_state)
        return Pair(Linear(x0_state, zero, x0_head), Linear(eps_state, zero, eps_head))

    def image_head(self, t: Tensor) -> Linear:
        """Return x0 as F has it."""
        return self.image_pair(t).x0

    def noise_head(self, t: Tensor) -> Linear:
        """Return eps as G has it."""
        return self.noise_pair(t).eps


@dataclass(frozen=True)
class Epsilon(OneTarget):
    """The head is the noise (DDPM, Ho et al. 2020), of a state of variance a^2 + sigma^2 = 1 after c_in.

    x0 = (x_t - sigma F) / a: near t = 1 nothing of the image is left to divide by, and a is held at 1e-4.
    """

    name: ClassVar[str] = "epsilon"
    floor: ClassVar[float] = 1e-4

    def c_in(self, t: Tensor) -> Tensor:
        """Return 1 / sqrt(a^2 + sigma^2)."""
        return torch.rsqrt(self.process.a(t) ** 2 + self.process.sigma(t) ** 2)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return 1/a, -sigma/a, 0 and 1."""
        a = torch.clamp(self.process.a(t), min=self.floor)
        return 1 / a, -self.process.sigma(t) / a, torch.zeros_like(a), torch.ones_like(a)

    def targets(self, x0: Tensor, eps: Tensor, t: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the noise, for either head."""
        return eps, eps


@dataclass(frozen=True)
class Velocity(OneTarget):
    """The head is the velocity eps - x_0 of the straight path (rectified flow, Liu et al. 2022).

    That path is (1 - s) x_0 + s eps with s = sigma/(a + sigma): the state over a + sigma.
    """

    name: ClassVar[str] = "velocity"

    def c_in(self, t: Tensor) -> Tensor:
        """Return 1 / (a + sigma)."""
        return 1 / (self.process.a(t) + self.process.sigma(t))

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return those of x0 = x_s - s F and eps = x_s + (1 - s) F, with x_s = x_t/(a + sigma)."""
        a, sigma = self.process.a(t), self.process.sigma(t)
        whole = a + sigma
        return 1 / whole, -sigma / whole, 1 / whole, a / whole

    def targets(self, x0: Tensor, eps: Tensor, t: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the velocity, for either head."""
        return eps - x0, eps - x0
