"""What the tests of sampling share: exact predictors of known data, and solvers run on what a state is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from attenua.config import ModelConfig, ProcessConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import Prediction, Process, precondition
from attenua.sampling import Past, Solver
from tests.networks.support import small


class Gaussian(AttenuationModel):
    """The exact predictor of Gaussian data of deviation s_d: heads of zero are the best that can be said of it.

    Under the free-slope law K is taken as Gaussian, too, with its own variance.
    """

    def __init__(self, s_d: float = 0.1, law: str = "constant", noise: str = "wiener", mu: float = 0.0) -> None:
        config = ModelConfig(small(channels=1), ProcessConfig(law=law, noise=noise), s_d=s_d)
        super().__init__(config)
        self.mu.fill_(mu)

    def raw(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> tuple[Tensor, ...]:
        """Return heads of zero, counted as a call."""
        self.calls += 1
        return (torch.zeros_like(x_t),) * self.precondition.heads


def run(
    rule: Solver,
    process: Process,
    predict: Callable[[Tensor, float], Prediction],
    x: Tensor,
    times: Sequence[float],
    noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Return x at the last time, in the type of x: the sampler's loop, without its noise and float32."""
    history: list[Past] = []

    def none() -> Tensor:
        raise AssertionError("this rule draws no noise")

    for t, u in zip(times, times[1:], strict=False):
        x = rule.step(process, predict, x, t, u, history, noise or none)
    return x


def final_variance(rule: Solver, process: Process, s_d: float, times: Sequence[float]) -> float:
    """Return the variance of what a solver makes of Gaussian data with the exact predictor, exactly.

    Everything is linear: the state is the vector of its weights on the start and on every draw.
    """
    heads = precondition("rule", process, s_d)
    draws = iter(range(1, len(times) + 1))

    def ingredient(position: int) -> Tensor:
        vector = torch.zeros(1, 1, 1, len(times) + 1, dtype=torch.float64)
        vector[..., position] = 1
        return vector

    def predict(x: Tensor, t: float) -> Prediction:
        zero = (torch.zeros_like(x),) * heads.heads
        return heads.predict(x, torch.tensor(t, dtype=torch.float64), zero, rule.combination or "mean")

    x = float(process.sigma(times[0])) * ingredient(0)
    return float(run(rule, process, predict, x, times, lambda: ingredient(next(draws))).square().sum())


class Mixture:
    """Data in the plane from three Gaussians: E[x_0 | x_t] in closed form. States are [B, 1, 1, 2]."""

    def __init__(self) -> None:
        self.weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
        self.means = torch.tensor([[0.5, 0.3], [-0.6, 0.2], [0.1, -0.7]], dtype=torch.float64)
        self.deviations = torch.tensor([0.15, 0.25, 0.2], dtype=torch.float64)

    def mean(self, x: Tensor, a: float, sigma: float) -> Tensor:
        """Return E[x_0 | x_t = x]."""
        flat = x.reshape(-1, 1, 2)
        size = (a * self.deviations) ** 2 + sigma**2
        away = flat - a * self.means
        shares = torch.softmax(torch.log(self.weights / size) - away.square().sum(-1) / (2 * size), dim=-1)
        means = self.means + (a * self.deviations**2 / size)[:, None] * away
        return (shares[..., None] * means).sum(dim=1).reshape(x.shape)

    def predictor(self, process: Process) -> Callable[[Tensor, float], Prediction]:
        """Return predict(x, t) of a model that knows the data."""

        def predict(x: Tensor, t: float) -> Prediction:
            a, sigma = float(process.a(t)), float(process.sigma(t))
            x0 = self.mean(x, a, sigma)
            return Prediction(x0, (x - a * x0) / sigma)

        return predict

    def reference(self, y: Tensor, n_max: float, n_min: float) -> Tensor:
        """Return E[x_0 | y] at n_min, the flow dy/dlambda = E[x_0 | y] - y followed there from n_max to 1e-11.

        y = x / a, lambda = -ln n: no law of attenuation, no grid and no solver of ours enters.
        """

        def slope(lam: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
            state = torch.from_numpy(flat).reshape(y.shape)
            result: NDArray[np.float64] = (self.mean(state, 1.0, float(np.exp(-lam))) - state).numpy().reshape(-1)
            return result

        ends = (-np.log(n_max), -np.log(n_min))
        found = solve_ivp(slope, ends, y.numpy().reshape(-1), method="DOP853", rtol=1e-11, atol=1e-11)
        assert found.success
        return self.mean(torch.from_numpy(found.y[:, -1].copy()).reshape(y.shape), 1.0, n_min)
