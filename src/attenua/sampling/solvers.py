"""The contract of a solver, and the rules of first order: from x_t to x_u by network calls through `predict`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from attenua.process import Prediction, Process

Predict = Callable[[Tensor, float], Prediction]
"""predict(x, t): the counted model."""


class Past(NamedTuple):
    """A network call that was made: at t, from x."""

    t: float
    x: Tensor
    prediction: Prediction


class Solver(ABC):
    """A rule for one step. Frozen, without hidden state: what a step needs is passed to it.

    combination: the combination of heads that the rule needs (None: the model's own); grid: the grid that belongs to
    the rule (None: any); law_free: whether laws with a random slope are supported; keeps: how many past calls a later
    step looks at, each of which holds three pictures.
    """

    name: ClassVar[str]
    keeps: ClassVar[int] = 3
    combination: ClassVar[str | None] = None
    grid: ClassVar[str | None] = None
    law_free: ClassVar[bool] = False

    @abstractmethod
    def step(
        self,
        process: Process,
        predict: Predict,
        x: Tensor,
        t: float,
        u: float,
        history: list[Past],
        noise: Callable[[], Tensor],
    ) -> Tensor:
        """Return x_u, [B, C, H, W], for u < t.

        history: past calls, newest first; a step puts its own in front. noise: draws z, [B, C, H, W].
        """

    def rules(self, calls: int, start: float) -> list[Solver]:
        """Return the rule of every step, first to last, that together make exactly `calls` network calls.

        start: the grid's first time. The grid has as many times (and a last 0) as there are rules: one a call, unless
        a step takes more calls than one.
        """
        del start
        return [self] * calls

    def check(self, process: Process) -> None:
        """Raise ValueError if the rule does not support the process."""
        if not self.law_free:
            process.require_deterministic(f"the solver {self.name!r}")


@dataclass(frozen=True)
class Posterior(Solver):
    """The posterior q(x_u | x_t, x_0) at the predicted image, with noise level eta (theory, section 2). Order 1."""

    eta: float = 1.0
    name: ClassVar[str] = "posterior"
    keeps: ClassVar[int] = 0
    law_free: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eta) and self.eta >= 0):
            raise ValueError(f"eta is {self.eta!r}; allowed is a number from 0")

    def step(
        self,
        process: Process,
        predict: Predict,
        x: Tensor,
        t: float,
        u: float,
        history: list[Past],
        noise: Callable[[], Tensor],
    ) -> Tensor:
        """Return x_u by Process.posterior_step; no noise is drawn where none remains (u = 0 or eta = 0)."""
        prediction = predict(x, t)
        history.insert(0, Past(t, x, prediction))
        eta = self.eta if u > 0 else 0.0
        return process.posterior_step(x, t, u, prediction, eta, noise() if eta > 0 else None)


@dataclass(frozen=True)
class Flow(Posterior):
    """The probability flow with a frozen prediction (DDIM's form): deterministic, order 1."""

    eta: float = 0.0
    name: ClassVar[str] = "ode"

    def __post_init__(self) -> None:
        if self.eta != 0:
            raise ValueError(f"the solver 'ode' takes no eta, but eta is {self.eta!r}; use the solver posterior")


@dataclass(frozen=True)
class Released(Posterior):
    """The published code's rule: the paper's x0 clipped to pictures, with the raw noise head, always stochastic.

    For reproduction: x_t is no longer a x0 + sigma eps, unless both heads agree. Like every step of the posterior it
    loses variance at few calls: of Gaussian data of deviation 1, 0.53 is left after 6 calls and 0.82 after 21.
    """

    name: ClassVar[str] = "released"
    combination: ClassVar[str | None] = "released"
    grid: ClassVar[str | None] = "released"
    law_free: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.eta != 1:
            raise ValueError(f"the solver 'released' takes no eta, but eta is {self.eta!r}; use the solver posterior")


@dataclass(frozen=True)
class Ancestral(Solver):
    """The posterior of a variance-preserving chain on this path: DDPM's ancestral rule (Ho et al. 2020). Order 1.

    There the noise is attenuated with the image, so more of it is fresh than in Posterior: with r = n_u / n_t,
    x_u = (sigma_u / sigma_t) r x_t + a_u (1 - r^2) x0 + sigma_u sqrt(1 - r^2) z (also SDE-DPM-Solver++ of order 1).
    """

    name: ClassVar[str] = "ancestral"
    keeps: ClassVar[int] = 0

    def step(
        self,
        process: Process,
        predict: Predict,
        x: Tensor,
        t: float,
        u: float,
        history: list[Past],
        noise: Callable[[], Tensor],
    ) -> Tensor:
        """Return x_u; no noise is drawn for u = 0."""
        prediction = predict(x, t)
        history.insert(0, Past(t, x, prediction))
        return ancestral_step(process, x, t, u, prediction.x0, noise)


def ancestral_step(process: Process, x: Tensor, t: float, u: float, x0: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    """Return x_u of Ancestral for an image x0; regular at t = 1 and u = 0. Draws noise for u > 0 alone."""
    shrink = float(process.sigma(u) / process.sigma(t))
    ratio = shrink * float(process.a(t) / process.a(u))
    kept = 1 - ratio**2
    x_u = shrink * ratio * x + float(process.a(u)) * kept * x0
    return x_u + float(process.sigma(u)) * math.sqrt(kept) * noise() if u > 0 else x_u
