"""Multistep solvers: one call a step, and what earlier calls said carries the order.

All work in lambda = ln(a / sigma). With h = lambda_u - lambda_t and tau = (lambda - lambda_t) / h the flow is
x_u = (sigma_u / sigma_t) x_t + a_u integral_0^1 h e^(-h (1 - tau)) x0(tau) dtau (theory, section 2). A rule for the
integral is written as one effective image, integral / (1 - e^(-h)), for Process.flow_step, which is regular at t = 1
and u = 0. There, lambda is infinite: a step from t = 1 and the step to u = 0 are of first order, and a call at t = 1
is no past to extrapolate from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from attenua.process import Prediction, Process
from attenua.sampling.solvers import Past, Predict, Solver, ancestral_step

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of past slopes, newest first, for steps of equal width; one row an order."""


@dataclass(frozen=True)
class History(Solver):
    """What the rules share: an order that lowers itself where the past, or the steps to come, cannot carry it.

    left: how many steps are left, this one among them (None: many). With k left the order is at most k, as in the
    published code of DPM-Solver and UniPC: the last steps are short in t and wide in lambda.
    """

    left: int | None = None
    order: ClassVar[int]

    def rules(self, calls: int, start: float) -> list[Solver]:
        """Return one rule a call; each knows how many steps are left."""
        del start
        return [replace(self, left=calls - number) for number in range(calls)]

    def reach(self, t: float, u: float, past: int) -> int:
        """Return the order of a step after `past` calls."""
        highest = self.order if self.left is None else min(self.order, self.left)
        return 1 if u == 0 or t >= 1 else min(highest, 1 + past)

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
        """Return x_u by one call."""
        now = Past(t, x, predict(x, t))
        past = [record for record in history if record.t < 1]
        history.insert(0, now)
        return self.move(process, [now, *past][: self.uses(t, u, len(past))], u, noise)

    def uses(self, t: float, u: float, past: int) -> int:
        """Return how many calls a step uses after `past` of them: its order."""
        return self.reach(t, u, past)

    @abstractmethod
    def move(self, process: Process, calls: Sequence[Past], u: float, noise: Callable[[], Tensor]) -> Tensor:
        """Return x_u from as many calls as the order of the step, newest first: the first is at t, from x_t."""


def nodes(process: Process, times: Sequence[float], u: float) -> tuple[float, list[float]]:
    """Return h = lambda_u - lambda_t and tau of the times after the first (negative: they lie before t)."""
    here = float(process.log_snr(times[0]))
    width = float(process.log_snr(u)) - here
    return width, [(float(process.log_snr(t)) - here) / width for t in times[1:]]


def times_of(calls: Sequence[Past]) -> list[float]:
    """Return when the calls were made."""
    return [record.t for record in calls]


def moments(width: float, count: int) -> list[float]:
    """Return integral_0^1 h e^(-h (1 - tau)) tau^k dtau / (1 - e^(-h)) for k = 1..count (h = width > 0)."""
    whole = -math.expm1(-width)
    found, last = [], whole
    for k in range(1, count + 1):
        last = 1 - k * last / width
        found.append(last / whole)
    return found


def quadrature(width: float, places: Sequence[float]) -> list[float]:
    """Return the weights of (x0_k - x0) / tau_k that integrate polynomials of degree len(places) exactly."""
    powers = torch.tensor([[place**k for place in places] for k in range(len(places))], dtype=torch.float64)
    wanted = torch.tensor(moments(width, len(places)), dtype=torch.float64)
    weights: list[float] = torch.linalg.solve(powers, wanted).tolist()
    return weights


def slopes(calls: Sequence[Past], places: Sequence[float]) -> list[Tensor]:
    """Return (x0_k - x0) / tau_k of the calls after the first."""
    x0 = calls[0].prediction.x0
    return [(record.prediction.x0 - x0) / place for record, place in zip(calls[1:], places, strict=True)]


@dataclass(frozen=True)
class Weighted(History):
    """A rule that weighs its past calls by numbers which depend on the times alone, so that a fit may change them.

    weights: order - 1 numbers, for the calls before this step's, newest first; None: the published ones, which
    `published` returns. With weights of its own a step uses all the calls there are: no order is lowered, not even in
    the step to u = 0.
    """

    weights: tuple[float, ...] | None = None

    def uses(self, t: float, u: float, past: int) -> int:
        """Return how many calls a step uses after `past` of them."""
        return self.reach(t, u, past) if self.weights is None else min(self.order, 1 + past)

    def move(self, process: Process, calls: Sequence[Past], u: float, noise: Callable[[], Tensor]) -> Tensor:
        """Return x_u."""
        if self.weights is not None:
            weights = list(self.weights[: len(calls) - 1])
        else:
            weights = self.published(process, times_of(calls), u) if len(calls) > 1 else []
        return self.combine(process, calls, u, weights, noise)

    @abstractmethod
    def published(self, process: Process, times: Sequence[float], u: float) -> list[float]:
        """Return the weights of the calls after the first, for calls at these times (two at least), newest first."""

    @abstractmethod
    def combine(
        self, process: Process, calls: Sequence[Past], u: float, weights: Sequence[float], noise: Callable[[], Tensor]
    ) -> Tensor:
        """Return x_u from the calls, newest first, and the weights of those after the first."""


@dataclass(frozen=True)
class Multistep(Weighted):
    """DPM-Solver++ 2M (Lu et al. 2022, algorithm 2). Order 2. Its weight is of x0 less that of the call before."""

    name: ClassVar[str] = "multistep"
    order: ClassVar[int] = 2
    keeps: ClassVar[int] = 1

    def published(self, process: Process, times: Sequence[float], u: float) -> list[float]:
        """Return h / (2 h_before)."""
        _, (place,) = nodes(process, times, u)
        return [-1 / (2 * place)]

    def combine(
        self, process: Process, calls: Sequence[Past], u: float, weights: Sequence[float], noise: Callable[[], Tensor]
    ) -> Tensor:
        """Return x_u for the extrapolated image."""
        return process.flow_step(calls[0].x, calls[0].t, u, extrapolated(calls, weights))


def extrapolated(calls: Sequence[Past], weights: Sequence[float]) -> Tensor:
    """Return x0 of the first call and the weighted differences from the others."""
    x0 = image = calls[0].prediction.x0
    for record, weight in zip(calls[1:], weights, strict=True):
        image = image + weight * (x0 - record.prediction.x0)
    return image


@dataclass(frozen=True)
class SDEMultistep(Multistep):
    """SDE-DPM-Solver++ 2M (Lu et al. 2022, appendix): the noise of DDPM's chain is renewed in every step. Order 1.

    The image is extrapolated to second order; the noise keeps the strong order at 1.
    """

    name: ClassVar[str] = "sde-dpmpp-2m"

    def combine(
        self, process: Process, calls: Sequence[Past], u: float, weights: Sequence[float], noise: Callable[[], Tensor]
    ) -> Tensor:
        """Return x_u; no noise is drawn for u = 0."""
        return ancestral_step(process, calls[0].x, calls[0].t, u, extrapolated(calls, weights), noise)


@dataclass(frozen=True)
class Multistep3(History):
    """DPM-Solver++ 3M, as released with the paper and used since. Order 2.

    curvature: what the second difference counts. The released rule gives it half of what integrates a parabola
    exactly, so that its order is 2 with a small constant; 1 is the rule of order 3.
    """

    curvature: float = 0.5
    name: ClassVar[str] = "dpmpp-3m"
    order: ClassVar[int] = 3

    def move(self, process: Process, calls: Sequence[Past], u: float, noise: Callable[[], Tensor]) -> Tensor:
        """Return x_u."""
        if len(calls) == 1:
            image = calls[0].prediction.x0
        elif len(calls) == 2:
            image = extrapolated(calls, Multistep().published(process, times_of(calls), u))
        else:
            width, (near, far) = nodes(process, times_of(calls), u)
            first, second = slopes(calls, (near, far))
            bend = (first - second) / (near - far)  # f[t, near, far], in units of h^2
            linear, square = moments(width, 2)
            image = calls[0].prediction.x0 + linear * (first - near * bend) + self.curvature * square * bend
        return process.flow_step(calls[0].x, calls[0].t, u, image)


@dataclass(frozen=True)
class UniPC(History):
    """UniPC, B(h) variant 2 (Zhao et al. 2023): a multistep predictor, corrected by the next step's call at no cost.

    The call is made at the predicted state; then the state is corrected with what it said. The last state is not.
    """

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
        """Return x_u by one call; the history keeps the corrected state."""
        prediction = predict(x, t)
        past = [record for record in history if record.t < 1]
        if past:
            x = self.correct(process, past, t, prediction)
        now = Past(t, x, prediction)
        history.insert(0, now)
        return self.move(process, [now, *past][: self.reach(t, u, len(past))], u, noise)

    def correct(self, process: Process, past: Sequence[Past], t: float, prediction: Prediction) -> Tensor:
        """Return x_t again, with the call made there: of one order more than the prediction that led there."""
        before = self if self.left is None else replace(self, left=self.left + 1)
        calls = list(past[: before.reach(past[0].t, t, len(past) - 1)])
        width, places = nodes(process, times_of(calls), t)
        calls.append(Past(t, past[0].x, prediction))
        places.append(1.0)
        weights = quadrature(width, places) if len(places) > 1 else [0.5]
        return process.flow_step(past[0].x, past[0].t, t, weighted(calls, places, weights))

    def move(self, process: Process, calls: Sequence[Past], u: float, noise: Callable[[], Tensor]) -> Tensor:
        """Return x_u as predicted."""
        if len(calls) == 1:
            image = calls[0].prediction.x0
        else:
            width, places = nodes(process, times_of(calls), u)
            image = weighted(calls, places, quadrature(width, places) if len(places) > 1 else [0.5])
        return process.flow_step(calls[0].x, calls[0].t, u, image)


def weighted(calls: Sequence[Past], places: Sequence[float], weights: Sequence[float]) -> Tensor:
    """Return x0 of the first call and the weighted slopes to the others.

    A single weight is 1/2, which the paper's appendix allows for B(h) = e^h - 1 in place of the exact moment.
    """
    image = calls[0].prediction.x0
    for weight, slope in zip(weights, slopes(calls, places), strict=True):
        image = image + weight * slope
    return image


@dataclass(frozen=True)
class UniPC2(UniPC):
    """UniPC with a predictor of order 2. Order 3 with the corrector."""

    name: ClassVar[str] = "unipc-2"
    order: ClassVar[int] = 2


@dataclass(frozen=True)
class UniPC3(UniPC):
    """UniPC with a predictor of order 3. Order 4 with the corrector, where the past carries it."""

    name: ClassVar[str] = "unipc-3"
    order: ClassVar[int] = 3


def by_slopes(process: Process, calls: Sequence[Past], u: float, weights: Sequence[float]) -> Tensor:
    """Return x_u for dy/dn = eps with y = x/a, from weights of (eps_k - eps) in units of n_t - n_u (so: negative)."""
    now = calls[0]
    x_u = process.flow_step(now.x, now.t, u, now.prediction.x0)
    if len(calls) > 1:
        width = float(process.sigma(u) - process.a(u) * process.ratio(now.t))  # a_u (n_u - n_t)
        for record, weight in zip(calls[1:], weights, strict=True):
            x_u = x_u + (width * weight) * (record.prediction.eps - now.prediction.eps)
    return x_u


@dataclass(frozen=True)
class Slopes(Weighted):
    """Rules for dy/dn = eps: weights are of the noise of past calls less that of the step's own."""

    def combine(
        self, process: Process, calls: Sequence[Past], u: float, weights: Sequence[float], noise: Callable[[], Tensor]
    ) -> Tensor:
        """Return x_u."""
        return by_slopes(process, calls, u, weights)


@dataclass(frozen=True)
class DEIS(Slopes):
    """DEIS (Zhang and Chen 2023), Adams-Bashforth in n with polynomials in ln n: the form "log rho" in use since."""

    def published(self, process: Process, times: Sequence[float], u: float) -> list[float]:
        """Return the integrals over n of Lagrange's polynomials in lambda = -ln n."""
        width, places = nodes(process, times, u)
        # integral of L_k over n, over n_u - n_t: mean of tau^j under the density e^(-h tau), tau from 0 to 1.
        means, last = [], -math.expm1(-width) / width
        whole = last
        for j in range(1, len(times)):
            last = (j * last - math.exp(-width)) / width
            means.append(last / whole)
        # The polynomial through 0 at tau = 0: L_k = sum_j c_kj tau^j, j >= 1.
        powers = torch.tensor([[place**j for place in places] for j in range(1, len(times))], dtype=torch.float64)
        weights: list[float] = torch.linalg.solve(powers, torch.tensor(means, dtype=torch.float64)).tolist()
        return weights


@dataclass(frozen=True)
class DEIS2(DEIS):
    """Order 2."""

    name: ClassVar[str] = "deis-2"
    order: ClassVar[int] = 2


@dataclass(frozen=True)
class DEIS3(DEIS):
    """Order 3."""

    name: ClassVar[str] = "deis-3"
    order: ClassVar[int] = 3


@dataclass(frozen=True)
class DEIS4(DEIS):
    """Order 4."""

    name: ClassVar[str] = "deis-4"
    order: ClassVar[int] = 4


@dataclass(frozen=True)
class IPNDM(Slopes):
    """iPNDM (Liu et al. 2022; Zhang and Chen 2023): Adams-Bashforth's weights for equal steps, in n, whatever the grid.

    The steps of a grid are not equal in n: whatever the number of slopes, the order is 2 where the ratio of neighbours
    goes to 1 as they become more. Only the step to u = 0 is of lower order at the end.
    """

    def reach(self, t: float, u: float, past: int) -> int:
        """Return the order of a step; the steps that are left do not lower it."""
        return 1 if u == 0 or t >= 1 else min(self.order, 1 + past)

    def published(self, process: Process, times: Sequence[float], u: float) -> list[float]:
        """Return the weights of Adams and Bashforth."""
        return list(ADAMS_BASHFORTH[len(times) - 1][1:])


@dataclass(frozen=True)
class IPNDM2(IPNDM):
    """Two slopes."""

    name: ClassVar[str] = "ipndm-2"
    order: ClassVar[int] = 2


@dataclass(frozen=True)
class IPNDM3(IPNDM):
    """Three slopes."""

    name: ClassVar[str] = "ipndm-3"
    order: ClassVar[int] = 3


@dataclass(frozen=True)
class IPNDM4(IPNDM):
    """Four slopes."""

    name: ClassVar[str] = "ipndm-4"
    order: ClassVar[int] = 4
