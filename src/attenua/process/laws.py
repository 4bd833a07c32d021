"""Attenuation laws: how the image goes to zero, x_t = x_0 + H_t + sigma_t eps (theory: ADM paper, section 3).

A deterministic law is H_t = -m(t) x_0 with m(0) = 0, m(1) = 1, m increasing; a(t) = 1 - m(t) is what is left of the
image. `a` has a formula of its own in every law: 1 - m(t) would lose its digits near t = 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

SLOPE_VARIANCE = 0.5160585509617133
"""Variance of a standard normal variable clamped to [-1, 1]: the K of the free-slope law."""


class Law(ABC):
    """How the image is attenuated. Times: float64 tensors of any shape in [0, 1]; results have their shape."""

    name: ClassVar[str]
    deterministic: ClassVar[bool] = True

    @abstractmethod
    def m(self, t: Tensor) -> Tensor:
        """Return the attenuated part of the image, 0 at t = 0 and 1 at t = 1."""

    @abstractmethod
    def a(self, t: Tensor) -> Tensor:
        """Return what is left of the image, 1 - m(t), to full relative precision up to t = 1."""

    @abstractmethod
    def dm(self, t: Tensor) -> Tensor:
        """Return dm/dt; the law's rate is h_t = -m'(t) x_0."""


@dataclass(frozen=True)
class Constant(Law):
    """h_t = -x_0, m = t: the paper's constant law."""

    name: ClassVar[str] = "constant"

    def m(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def a(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def dm(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class LinearRising(Law):
    """h_t = -2 t x_0, m = t^2: slow at the image, fast at the noise."""

    name: ClassVar[str] = "linear_rising"

    def m(self, t: Tensor) -> Tensor:
        """Return t^2."""
        return t * t

    def a(self, t: Tensor) -> Tensor:
        """Return (1 - t)(1 + t)."""
        return (1 - t) * (1 + t)

    def dm(self, t: Tensor) -> Tensor:
        """Return 2 t."""
        return 2 * t


@dataclass(frozen=True)
class LinearFalling(Law):
    """h_t = -2 (1 - t) x_0, m = 1 - (1 - t)^2: fast at the image, slow at the noise."""

    name: ClassVar[str] = "linear_falling"

    def m(self, t: Tensor) -> Tensor:
        """Return t (2 - t)."""
        return t * (2 - t)

    def a(self, t: Tensor) -> Tensor:
        """Return (1 - t)^2."""
        return (1 - t) ** 2

    def dm(self, t: Tensor) -> Tensor:
        """Return 2 (1 - t)."""
        return 2 * (1 - t)


@dataclass(frozen=True)
class Quadratic(Law):
    """h_t = -3 t^2 x_0, m = t^3."""

    name: ClassVar[str] = "quadratic"

    def m(self, t: Tensor) -> Tensor:
        """Return t^3."""
        return t**3

    def a(self, t: Tensor) -> Tensor:
        """Return (1 - t)(1 + t + t^2)."""
        return (1 - t) * (1 + t + t * t)

    def dm(self, t: Tensor) -> Tensor:
        """Return 3 t^2."""
        return 3 * t * t


@dataclass(frozen=True)
class SquareRoot(Law):
    """h_t = -(3/2) sqrt(t) x_0, m = t^(3/2)."""

    name: ClassVar[str] = "square_root"

    def m(self, t: Tensor) -> Tensor:
        """Return t^(3/2)."""
        return t * t.sqrt()

    def a(self, t: Tensor) -> Tensor:
        """Return 1 - t^(3/2) = (1 - t)(1 + t + sqrt t)/(1 + sqrt t), which does not cancel."""
        root = t.sqrt()
        return (1 - t) * (1 + t + root) / (1 + root)

    def dm(self, t: Tensor) -> Tensor:
        """Return (3/2) sqrt(t)."""
        return 1.5 * t.sqrt()


@dataclass(frozen=True)
class Exponential(Law):
    """h_t = -k e^(-kt) x_0 / (1 - e^(-k)), with the rate k > 0."""

    rate: float = 4.0
    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"rate of the exponential law is {self.rate!r}; allowed is a finite number above 0")

    def m(self, t: Tensor) -> Tensor:
        """Return expm1(-k t) / expm1(-k)."""
        return torch.expm1(-self.rate * t) / math.expm1(-self.rate)

    def a(self, t: Tensor) -> Tensor:
        """Return (e^(-kt) - e^(-k)) / (1 - e^(-k)), with e^(-kt) taken out: it neither cancels nor overflows."""
        k = self.rate
        return torch.exp(-k * t) * torch.expm1(-k * (1 - t)) / math.expm1(-k)

    def dm(self, t: Tensor) -> Tensor:
        """Return k e^(-kt) / (1 - e^(-k))."""
        return self.rate * torch.exp(-self.rate * t) / -math.expm1(-self.rate)


Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Custom(Law):
    """A user's own law, given by m; a and dm may be given where 1 - m or automatic differentiation is not enough.

    m: an increasing function of a float64 tensor with m(0) = 0 and m(1) = 1, of torch operations.
    Raises ValueError if m misses its ends or falls on a grid of 1,001 times, or the remainder is not 1 - m there.
    """

    function: Function
    remainder: Function | None = None
    derivative: Function | None = None
    label: str = "custom"
    name: ClassVar[str] = "custom"
    tolerance: ClassVar[float] = 1e-9
    checked: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        if not self.checked:
            return
        grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
        values = self.m(grid)
        ends = (float(values[0]), float(values[-1]))
        if not (abs(ends[0]) <= self.tolerance and abs(ends[1] - 1) <= self.tolerance):  # a NaN is refused, too
            raise ValueError(f"law {self.label!r} has m(0) = {ends[0]:g} and m(1) = {ends[1]:g}; they must be 0 and 1")
        if not bool((values.diff() > 0).all()):
            at = float(grid[int(values.diff().argmin())])
            raise ValueError(f"law {self.label!r} does not increase at t = {at:g}; m must be strictly increasing")
        apart = (self.a(grid) + values - 1).abs()
        if not bool((apart <= self.tolerance).all()):
            at = float(grid[int(apart.argmax())])
            raise ValueError(f"law {self.label!r} has a remainder that is not 1 - m at t = {at:g}; they must agree")

    def m(self, t: Tensor) -> Tensor:
        """Return the user's m(t)."""
        return self.function(t)

    def a(self, t: Tensor) -> Tensor:
        """Return the user's remainder, or 1 - m(t), not below 0 where m(1) is rounded to more than 1."""
        return torch.clamp(1 - self.function(t), min=0) if self.remainder is None else self.remainder(t)

    def dm(self, t: Tensor) -> Tensor:
        """Return the user's derivative, or the automatic one. Raises ValueError where torch cannot differentiate m."""
        if self.derivative is not None:
            return self.derivative(t)
        with torch.inference_mode(False), torch.enable_grad():
            leaf = t.clone().detach().requires_grad_()
            values = self.m(leaf)
            if not values.requires_grad:
                raise ValueError(f"law {self.label!r} cannot be differentiated by torch; give its derivative")
            (slope,) = torch.autograd.grad(values.sum(), leaf)
        return slope


@dataclass(frozen=True)
class FreeSlope(Law):
    """The paper's linear law h_t = K t + C with a random slope K, so H_t = K t^2/2 + C t and C = -x_0 - K/2.

    K ~ N(0, 1) clamped to [-1, 1] entry by entry; x_t = (1 - t) x_0 + b K + sigma eps with b = (t^2 - t)/2.
    m, a and dm describe the mean part.
    """

    name: ClassVar[str] = "free_slope"
    deterministic: ClassVar[bool] = False

    def m(self, t: Tensor) -> Tensor:
        """Return t: the mean part of the attenuation."""
        return t

    def a(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def dm(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def b(self, t: Tensor) -> Tensor:
        """Return the weight of K in x_t, -t (1 - t)/2."""
        return -t * (1 - t) / 2


LAWS: dict[str, type[Law]] = {
    law.name: law for law in (Constant, LinearRising, LinearFalling, Quadratic, SquareRoot, Exponential, FreeSlope)
}
"""Every law that a configuration can name."""


def law(name: str, **fields: Any) -> Law:
    """Return the law of that name (see LAWS), with its fields. Raises ValueError on an unknown name or field."""
    if name not in LAWS:
        raise ValueError(f"unknown law {name!r}; known: {', '.join(LAWS)}")
    try:
        return LAWS[name](**fields)
    except TypeError as error:
        raise ValueError(f"law {name!r} does not take the fields {sorted(fields)}") from error
