"""Preconditioning: from the network's raw heads to a Prediction, as linear maps with coefficients that have no poles.

Every combination of the heads is x0 = p . (x_t, F, G) and eps = q . (x_t, F, G) (theory, section 3).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from attenua.process.laws import Constant, FreeSlope
from attenua.process.noise import Wiener
from attenua.process.process import Prediction, Process, as_time, spread

COMBINATIONS = ("mean", "image", "noise", "paper", "released")
"""mean, image, noise and paper keep x_t = a x0 + sigma eps; released pairs the paper's x0 with the raw noise head."""

RATIO_RANGE = (1e-4, 1e4)
"""The network's time is clamped to its values at these noise-to-signal ratios."""


class Linear(NamedTuple):
    """Coefficients of x_t and of the raw heads (F, G); float64, shaped like the time."""

    x: Tensor
    f: Tensor
    g: Tensor

    def __call__(self, x_t: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """Return the combination in the state's type."""
        return spread(self.x, x_t) * x_t + spread(self.f, x_t) * f + spread(self.g, x_t) * g

    def plus(self, other: Linear, weight: float | Tensor = 1.0) -> Linear:
        """Return self + weight * other."""
        return Linear(self.x + weight * other.x, self.f + weight * other.f, self.g + weight * other.g)

    def times(self, weight: float | Tensor) -> Linear:
        """Return weight * self."""
        return Linear(weight * self.x, weight * self.f, weight * self.g)


class Pair(NamedTuple):
    """A combination: how x0 and eps come from the state and the heads."""

    x0: Linear
    eps: Linear


@dataclass(frozen=True)
class Precondition(ABC):
    """How raw heads of unit size become estimates. s_d: deviation of the data (> 0)."""

    process: Process
    s_d: float = 0.5
    name: ClassVar[str]
    heads: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.s_d) and self.s_d > 0):
            raise ValueError(f"s_d is {self.s_d!r}; allowed is a finite number above 0")

    @abstractmethod
    def c_in(self, t: Tensor) -> Tensor:
        """Return the factor on x_t at the network's input."""

    def network_time(self, t: Tensor) -> Tensor:
        """Return the time as the network sees it, finite on [0, 1]: ln(n)/4, clamped to n in RATIO_RANGE."""
        return torch.log(torch.clamp(self.process.ratio(t), *RATIO_RANGE)) / 4

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, raw: tuple[Tensor, ...], combination: str) -> Prediction:
        """Return the Prediction of raw heads, each [B, C, H, W]. Raises ValueError on an unknown combination."""

    @abstractmethod
    def targets(self, x0: Tensor, eps: Tensor, t: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return what each raw head should say: one tensor a head, [B, C, H, W]."""


@dataclass(frozen=True)
class TwoHeads(Precondition):
    """What the rules for deterministic laws share: an image head F and a noise head G."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.process.require_deterministic(f"precondition {self.name!r}")

    @abstractmethod
    def image_head(self, t: Tensor) -> Linear:
        """Return x0_hat as a combination of x_t and F."""

    @abstractmethod
    def noise_head(self, t: Tensor) -> Linear:
        """Return eps_hat as a combination of x_t and G."""

    @abstractmethod
    def image_pair(self, t: Tensor) -> Pair:
        """Return the consistent pair that follows from the image head alone."""

    @abstractmethod
    def noise_pair(self, t: Tensor) -> Pair:
        """Return the consistent pair that follows from the noise head alone."""

    def pair(self, t: Tensor, combination: str) -> Pair:
        """Return the combination of that name (see COMBINATIONS)."""
        if combination == "image":
            return self.image_pair(t)
        if combination == "noise":
            return self.noise_pair(t)
        image, noise = self.image_pair(t), self.noise_pair(t)
        if combination == "mean":
            return Pair(image.x0.times(0.5).plus(noise.x0, 0.5), image.eps.times(0.5).plus(noise.eps, 0.5))
        if combination in ("paper", "released"):
            # x_t + m x0_hat - sigma eps_hat = m (image pair's x0) + a (noise pair's x0), and so for the noise.
            m, a = self.process.law.m(t), self.process.law.a(t)
            x0 = image.x0.times(m).plus(noise.x0, a)
            return Pair(x0, self.noise_head(t) if combination == "released" else image.eps.times(m).plus(noise.eps, a))
        raise ValueError(f"unknown combination {combination!r}; known: {', '.join(COMBINATIONS)}")

    def predict(self, x_t: Tensor, t: Tensor, raw: tuple[Tensor, ...], combination: str) -> Prediction:
        """Return the Prediction of the heads (F, G)."""
        f, g = raw
        pair = self.pair(as_time(t), combination)
        return Prediction(pair.x0(x_t, f, g), pair.eps(x_t, f, g))


@dataclass(frozen=True)
class Rule(TwoHeads):
    """The linear-Gaussian rule: every head's target has unit variance at every t (theory, section 3).

    The skip is the best one for data of deviation s_c = skip_deviation * s_d, and the factor on a head the one that
    gives its target unit variance on data of deviation s_d. With D = a^2 s_c^2 + sigma^2 and
    Q^2 = sigma^2 s_d^2 + a^2 s_c^4:

    x0_hat = (a s_c^2/D) x_t + (sigma Q/D) F, eps_hat = (sigma/D) x_t + (a Q/D) G.

    skip_deviation 1: nothing is known of x_0 but s_d, and Q = s_d sqrt D. A condition leaves less open: between n = s_c
    and s_d the state is then a bad guess of the image, whose noise F would have to take out again, and a skip for s_c
    keeps it out. skip_deviation -> 0 is x0_hat = s_d F.
    """

    skip_deviation: float = 1.0
    name: ClassVar[str] = "rule"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.001 <= self.skip_deviation <= 1:
            raise ValueError(f"skip_deviation is {self.skip_deviation!r}; allowed is a number from 0.001 to 1")

    def _terms(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a, sigma, D and Q / s_d."""
        a, sigma = self.process.a(t), self.process.sigma(t)
        left = a * self.s_d * self.skip_deviation
        return a, sigma, left**2 + sigma**2, torch.sqrt((left * self.skip_deviation) ** 2 + sigma**2)

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the factors on x_t and on the head: those of x0_hat, then those of eps_hat."""
        a, sigma, d, q = self._terms(t)
        root = torch.sqrt(d)
        more = q / root  # 1 to the bit where skip_deviation is 1
        skip = a * (self.s_d * self.skip_deviation) ** 2 / d
        return skip, self.s_d * sigma / root * more, sigma / d, self.s_d * a / root * more

    def c_in(self, t: Tensor) -> Tensor:
        """Return 1 / sqrt(a^2 s_d^2 + sigma^2)."""
        return torch.rsqrt((self.process.a(t) * self.s_d) ** 2 + self.process.sigma(t) ** 2)

    def image_head(self, t: Tensor) -> Linear:
        """Return the coefficients of x0_hat."""
        skip, out, _, _ = self._scales(t)
        return Linear(skip, out, torch.zeros_like(out))

    def noise_head(self, t: Tensor) -> Linear:
        """Return the coefficients of eps_hat."""
        _, _, skip, out = self._scales(t)
        return Linear(skip, torch.zeros_like(out), out)

    def image_pair(self, t: Tensor) -> Pair:
        """Return F_eff = F."""
        _, _, skip, out = self._scales(t)
        return Pair(self.image_head(t), Linear(skip, -out, torch.zeros_like(out)))

    def noise_pair(self, t: Tensor) -> Pair:
        """Return F_eff = -G."""
        skip, out, _, _ = self._scales(t)
        return Pair(Linear(skip, torch.zeros_like(out), -out), self.noise_head(t))

    def targets(self, x0: Tensor, eps: Tensor, t: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return F* = (sigma x_0 - a s_c^2 eps) / Q and G* = -F*."""
        a, sigma, _, q = self._terms(as_time(t))
        scale = self.s_d * q
        f = spread(sigma / scale, x0) * x0 - spread(a * (self.s_d * self.skip_deviation) ** 2 / scale, x0) * eps
        return f, -f


@dataclass(frozen=True)
class Published(TwoHeads):
    """The authors' first public code (2023-11), for reproduction: constant law, wiener noise, data of any s_d.

    C_hat = (t - 1) x_t + (t / sqrt(1 + t)) F with x0_hat = -C_hat; eps_hat = sqrt(t) x_t + sqrt((1 - t)/(1 + t)) G.
    The noise head alone determines no image at t = 1; its 1/sqrt(1 - t) is held at its value at 1 - t = 1e-4.
    """

    name: ClassVar[str] = "paper"
    floor: ClassVar[float] = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.process.law, Constant) and isinstance(self.process.noise, Wiener)):
            names = f"{self.process.law.name!r} and {self.process.noise.name!r}"
            raise ValueError(f"precondition 'paper' needs the law 'constant' with 'wiener' noise, not {names}")

    def c_in(self, t: Tensor) -> Tensor:
        """Return 1 / sqrt(1 + t)."""
        return torch.rsqrt(1 + t)

    def network_time(self, t: Tensor) -> Tensor:
        """Return ln t, clamped at t = 1e-8 (n = 1e-4)."""
        return torch.log(torch.clamp(t, min=1e-8))

    def image_head(self, t: Tensor) -> Linear:
        """Return the coefficients of x0_hat = -C_hat."""
        return Linear(1 - t, -t * torch.rsqrt(1 + t), torch.zeros_like(t))

    def noise_head(self, t: Tensor) -> Linear:
        """Return the coefficients of eps_hat."""
        return Linear(torch.sqrt(t), torch.zeros_like(t), torch.sqrt((1 - t) / (1 + t)))

    def image_pair(self, t: Tensor) -> Pair:
        """Return eps = (x_t - (1 - t) x0_hat) / sqrt(t), divided out."""
        zero, root = torch.zeros_like(t), torch.sqrt(t)
        return Pair(self.image_head(t), Linear(root * (2 - t), (1 - t) * root * torch.rsqrt(1 + t), zero))

    def noise_pair(self, t: Tensor) -> Pair:
        """Return x0 = (x_t - sqrt(t) eps_hat) / (1 - t), divided out."""
        zero, left = torch.zeros_like(t), torch.clamp(1 - t, min=self.floor)
        return Pair(Linear(torch.ones_like(t), zero, -torch.sqrt(t / (left * (1 + t)))), self.noise_head(t))

    def targets(self, x0: Tensor, eps: Tensor, t: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return F* and G* that make x0_hat = x_0 and eps_hat = eps, with the poles of the published code.

        F* = -sqrt(1 + t) (x0 - (1 - t) x_t)/t = -sqrt(1 + t) ((2 - t) x0 - (1 - t) eps/sqrt(t)), held at t >= 1e-4;
        G* = sqrt(1 + t) (eps - sqrt(t) x_t)/sqrt(1 - t) = sqrt((1 + t)(1 - t)) (eps - sqrt(t) x0).
        """
        time = as_time(t)
        grow = torch.sqrt(1 + time)
        pole = torch.rsqrt(torch.clamp(time, min=self.floor))
        f = spread(-grow * (2 - time), x0) * x0 + spread(grow * (1 - time) * pole, x0) * eps
        g = spread(torch.sqrt((1 + time) * (1 - time)), x0) * (eps - spread(torch.sqrt(time), x0) * x0)
        return f, g


@dataclass(frozen=True)
class FreeSlopeRule(Precondition):
    """The linear-Gaussian rule for the free-slope law: heads for C, eps and K (theory, section 3).

    D = a^2 s_d^2 + b^2 k2 + sigma^2; covariances with x_t: b k2 for K, -a s_d^2 - b k2/2 for C, sigma for eps.
    """

    name: ClassVar[str] = "rule"
    heads: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.process.law, FreeSlope):
            raise ValueError(f"FreeSlopeRule needs the law 'free_slope', not {self.process.law.name!r}")

    def _terms(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k2 = self.process.slope_variance
        a, sigma = self.process.a(t), self.process.sigma(t)
        b = -t * a / 2
        return a, b, sigma, (a * self.s_d) ** 2 + b**2 * k2 + sigma**2

    def c_in(self, t: Tensor) -> Tensor:
        """Return 1 / sqrt(D)."""
        return torch.rsqrt(self._terms(t)[3])

    def scales(self, t: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return (skip, out) of the heads "C", "eps" and "K", in closed forms that do not cancel."""
        k2, s2 = self.process.slope_variance, self.s_d**2
        a, b, sigma, d = self._terms(t)
        rest = (1 - t) * (1 + t)
        out_c = torch.sqrt((sigma**2 * (s2 + k2 / 4) + s2 * k2 * rest**2 / 4) / d)
        out_k = torch.sqrt(k2 * (a**2 * s2 + sigma**2) / d)
        out_eps = torch.sqrt((a**2 * s2 + b**2 * k2) / d)
        return {
            "C": ((-a * s2 - b * k2 / 2) / d, out_c),
            "eps": (sigma / d, out_eps),
            "K": (b * k2 / d, out_k),
        }

    def predict(self, x_t: Tensor, t: Tensor, raw: tuple[Tensor, ...], combination: str) -> Prediction:
        """Return x0 = x_t - K t^2/2 - C t - sigma eps with K clamped to [-1, 1]; the combination plays no part."""
        if combination not in COMBINATIONS:
            raise ValueError(f"unknown combination {combination!r}; known: {', '.join(COMBINATIONS)}")
        time = as_time(t)
        values = [
            spread(skip, x_t) * x_t + spread(out, x_t) * head
            for (skip, out), head in zip(self.scales(time).values(), raw, strict=True)
        ]
        offset, eps, slope = values[0], values[1], values[2].clamp(-1, 1)
        drift = spread(time**2 / 2, x_t) * slope + spread(time, x_t) * offset
        return Prediction(x_t - drift - spread(self.process.sigma(time), x_t) * eps, eps, slope, offset)

    def targets(self, x0: Tensor, eps: Tensor, t: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the unit-variance targets of C, eps and K; finite at both ends of the path."""
        if slope is None:
            raise ValueError("the free_slope law needs the slope K of every sample for its targets")
        time = as_time(t)
        x_t = self.process.perturb(x0, time, eps, slope)
        scales = self.scales(time)
        offset = -x0 - slope / 2
        c = (offset - spread(scales["C"][0], x0) * x_t) / spread(scales["C"][1], x0)
        k = (slope - spread(scales["K"][0], x0) * x_t) / spread(scales["K"][1], x0)
        # eps: (q eps - sigma (a x0 + b K)/q)/sqrt D with q^2 = a^2 s_d^2 + b^2 k2; a/q and b/q stay finite at t = 1.
        d = self._terms(time)[3]
        unit = torch.rsqrt(self.s_d**2 + time**2 * self.process.slope_variance / 4)
        signal = spread(unit, x0) * (x0 - spread(time / 2, x0) * slope)
        left, sigma = self.process.a(time) / unit, self.process.sigma(time)
        e = spread(left / torch.sqrt(d), x0) * eps - spread(sigma / torch.sqrt(d), x0) * signal
        return c, e, k


PRECONDITIONS = ("rule", "paper", "epsilon", "velocity")
"""Every preconditioning that a configuration can name."""


def precondition(name: str, process: Process, s_d: float, skip_deviation: float = 1.0) -> Precondition:
    """Return the preconditioning of that name for a process. Raises ValueError on an unknown or unfit one.

    skip_deviation: see Rule; other than 1 for the rule of deterministic laws alone.
    """
    if name == "rule" and not isinstance(process.law, FreeSlope):
        return Rule(process, s_d, skip_deviation)
    if name not in PRECONDITIONS:
        raise ValueError(f"unknown precondition {name!r}; known: {', '.join(PRECONDITIONS)}")
    if skip_deviation != 1:
        rule = f"precondition {name!r} for the law {process.law.name!r}"
        raise ValueError(f"skip_deviation is {skip_deviation!r}; with the {rule} it must be 1")
    from attenua.process.peers import Epsilon, Velocity  # they are made of what this module has

    kinds: dict[str, Callable[[Process, float], Precondition]]
    kinds = {"rule": FreeSlopeRule, "paper": Published, "epsilon": Epsilon, "velocity": Velocity}
    return kinds[name](process, s_d)
