"""Solvers: one small step function each, from x_t to x_u, by network calls through `predict`."""

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

    calls: network calls a step; combination: the combination of heads that the rule needs (None: the model's own);
    grid: the grid that belongs to the rule (None: any); law_free: whether laws with a random slope are supported.
    """

    name: ClassVar[str]
    calls: ClassVar[int] = 1
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

    def check(self, process: Process) -> None:
        """Raise ValueError if the rule does not support the process."""
        if not self.law_free:
            process.require_deterministic(f"the solver {self.name!r}")


@dataclass(frozen=True)
class Posterior(Solver):
    """The posterior q(x_u | x_t, x_0) at the predicted image, with noise level eta (theory, section 2). Order 1."""

    eta: float = 1.0
    name: ClassVar[str] = "posterior"
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
class Multistep(Solver):
    """Second-order multistep exponential integrator (DPM-Solver++ 2M, Lu et al. 2022, algorithm 2). Order 2.

    The first step, a step from t = 1 and the step to t = 0 are of first order, as there.
    """

    name: ClassVar[str] = "multistep"

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
        """Return x_u with x0 extrapolated from this call and the one before, linearly in lambda = ln(a / sigma)."""
        x0 = predict(x, t)
        if history and u > 0 and history[0].t < 1:
            here = float(process.log_snr(t))
            width = float(process.log_snr(u)) - here
            before = here - float(process.log_snr(history[0].t))
            image = x0.x0 + (width / (2 * before)) * (x0.x0 - history[0].prediction.x0)
        else:
            image = x0.x0
        history.insert(0, Past(t, x, x0))
        return process.flow_step(x, t, u, image)


SOLVERS: dict[str, type[Solver]] = {rule.name: rule for rule in (Multistep, Flow, Posterior, Released)}
"""Every solver that a command can name."""


def solver(name: str, eta: float | None = None) -> Solver:
    """Return the solver of that name; eta None is its own. Raises ValueError on an unknown name or an unfit eta."""
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; known: {', '.join(SOLVERS)}")
    rule = SOLVERS[name]
    if eta is None:
        return rule()
    if not issubclass(rule, Posterior):
        raise ValueError(f"the solver {name!r} takes no eta, but eta is {eta!r}; use the solver posterior")
    return rule(eta=eta)
