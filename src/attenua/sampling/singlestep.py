"""Solvers of higher order that look at nothing but their own step: they take more than one call for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attenua.process import Process
from attenua.sampling.solvers import Flow, Past, Predict, Solver


@dataclass(frozen=True)
class Heun(Solver):
    """Heun's rule in y = x/a over n = sigma/a, dy/dn = eps: EDM's (Karras et al. 2022, algorithm 1). Order 2.

    Two calls a step. The step to t = 0 is of first order, as there; so is one from t = 1, where y is infinite.
    """

    name: ClassVar[str] = "heun"
    keeps: ClassVar[int] = 0

    def rules(self, calls: int, start: float) -> list[Solver]:
        """Return Heun's steps and, at the ends, as many of first order as make up the number of calls.

        Odd: one, the last, as in EDM. Even: the first, too, where the image is but the data's mean and a step of
        first order loses least. A grid that starts at t = 1 needs that first one, and, if odd, a third before the last.
        """
        first = int(start >= 1 or calls % 2 == 0) if calls > 1 else 0
        last = 1 + (calls - first - 1) % 2
        return [*[Flow()] * first, *[self] * ((calls - first - last) // 2), *[Flow()] * last]

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
        """Return x_u by two calls; by one for t = 1 or u = 0. The history gets the first."""
        here = predict(x, t)
        history.insert(0, Past(t, x, here))
        euler = process.flow_step(x, t, u, here.x0)
        if t >= 1 or u == 0:
            return euler
        width = float(process.sigma(u) - process.a(u) * process.ratio(t))  # a_u (n_u - n_t)
        return euler + (width / 2) * (predict(euler, u).eps - here.eps)
