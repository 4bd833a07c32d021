"""The attenuation process: paths, the reverse formula, the flow, and the clock n = sigma / a.

Coefficients are computed in float64 from the times and cast to the state's type at the end; nothing here divides by
a or sigma at the ends of the path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attenua.process.laws import SLOPE_VARIANCE, Constant, FreeSlope, Law
from attenua.process.noise import Linear, Noise, Wiener
from attenua.shapes import Images, Times

ROOT_STEPS = 64
"""Halvings of the root search: the bracket of 120 in logit(t) shrinks below float64's resolution."""


class Prediction(NamedTuple):
    """What a model says of a state: the image and the noise, [B, C, H, W]; slope and offset under free slope only.

    For deterministic laws x_t = a x0 + sigma eps (except under the combination `released`).
    """

    x0: Tensor
    eps: Tensor
    slope: Tensor | None = None
    offset: Tensor | None = None


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Return values, [B] or [], shaped to multiply `like`, [B, C, H, W], in its type and on its device."""
    values = values.to(like.dtype) if values.ndim == 0 else values.to(device=like.device, dtype=like.dtype)
    return values if values.ndim == 0 else values.view(-1, *[1] * (like.ndim - 1))


def as_time(t: float | Tensor) -> Tensor:
    """Return t as a float64 tensor. Raises ValueError for a plain number outside [0, 1]."""
    if isinstance(t, Tensor):
        return t.to(torch.float64)
    if not 0 <= t <= 1:
        raise ValueError(f"time {t!r} lies outside [0, 1]")
    return torch.tensor(t, dtype=torch.float64)


@dataclass(frozen=True)
class Process:
    """x_t = x_0 + H_t + sigma_t eps for a law of the image and a law of the noise.

    Times are numbers or tensors, [] or [B], in [0, 1]; pictures and noise are [B, C, H, W] with x_0 = picture - mean.
    """

    law: Law = Constant()
    noise: Noise = Wiener()

    def a(self, t: float | Tensor) -> Tensor:
        """Return what is left of the image, float64."""
        return self.law.a(as_time(t))

    def sigma(self, t: float | Tensor) -> Tensor:
        """Return the deviation of the noise, float64."""
        return self.noise.sigma(as_time(t))

    def ratio(self, t: float | Tensor) -> Tensor:
        """Return n = sigma / a, float64: 0 at t = 0, infinite at t = 1."""
        return self.sigma(t) / self.a(t)

    def log_snr(self, t: float | Tensor) -> Tensor:
        """Return lambda = ln(a / sigma), float64: infinite at t = 0, minus infinity at t = 1."""
        return torch.log(self.a(t)) - torch.log(self.sigma(t))

    def perturb(self, x0: Images, t: float | Times, eps: Images, slope: Images | None = None) -> Images:
        """Return x_t = a x_0 + sigma eps (+ b K for the free-slope law, where `slope` is K)."""
        time = as_time(t)
        x_t = spread(self.a(time), x0) * x0 + spread(self.sigma(time), x0) * eps
        if isinstance(self.law, FreeSlope):
            if slope is None:
                raise ValueError("the free_slope law needs the slope K of every sample to perturb")
            x_t = x_t + spread(self.law.b(time), x0) * slope
        return x_t

    def draw_slope(self, normal: Images) -> Images:
        """Return K from standard normal draws: clamped to [-1, 1] entry by entry (paper)."""
        return normal.clamp(-1, 1)

    def image_step(self, t: float | Times, u: float | Times, prediction: Prediction) -> Images:
        """Return H_u - H_t, the image that comes back between t and u < t."""
        time, end = as_time(t), as_time(u)
        if isinstance(self.law, FreeSlope):
            if prediction.slope is None or prediction.offset is None:
                raise ValueError("the free_slope law needs a prediction of slope and offset")
            slope, offset = prediction.slope, prediction.offset
            return spread((end - time) * (end + time) / 2, slope) * slope + spread(end - time, offset) * offset
        return spread(self.law.a(end) - self.law.a(time), prediction.x0) * prediction.x0

    def posterior_variance(self, t: float | Tensor, u: float | Tensor) -> Tensor:
        """Return v = sigma_u^2 (sigma_t^2 - sigma_u^2) / sigma_t^2 of q(x_u | x_t, x_0), float64."""
        time, end = as_time(t), as_time(u)
        return (self.sigma(end) / self.sigma(time)) ** 2 * self.noise.variance_between(end, time)

    def largest_eta(self, t: float | Tensor, u: float | Tensor) -> Tensor:
        """Return the largest legal noise level of a step, sigma_t / sqrt(sigma_t^2 - sigma_u^2), float64."""
        time, end = as_time(t), as_time(u)
        return self.sigma(time) / torch.sqrt(self.noise.variance_between(end, time))

    def posterior_step(
        self,
        x_t: Images,
        t: float | Times,
        u: float | Times,
        prediction: Prediction,
        eta: float = 1.0,
        z: Images | None = None,
    ) -> Images:
        """Return x_u, the one reverse formula for every law (theory, form A with a noise level).

        x_u = x_t + (H_u - H_t) - (sigma_t - s) eps + eta sqrt(v) z with s = sqrt(sigma_u^2 - eta^2 v). eta = 1 is the
        posterior, eta = 0 the flow for frozen predictions; a larger eta is clamped to what the step allows.
        z: standard normal, needed where eta > 0. Raises ValueError for eta < 0 or a missing z.
        """
        if eta < 0:
            raise ValueError(f"eta is {eta!r}; allowed is a number from 0")
        time, end = as_time(t), as_time(u)
        level = torch.clamp(self.largest_eta(time, end), max=eta)
        noise_variance = level**2 * self.posterior_variance(time, end)
        kept = torch.sqrt(torch.clamp(self.sigma(end) ** 2 - noise_variance, min=0))
        x_u = x_t + self.image_step(t, u, prediction) - spread(self.sigma(time) - kept, x_t) * prediction.eps
        if eta > 0:
            if z is None:
                raise ValueError(f"a posterior step with eta = {eta!r} needs noise z")
            x_u = x_u + spread(torch.sqrt(noise_variance), x_t) * z
        return x_u

    def flow_step(self, x_t: Images, t: float | Times, u: float | Times, x0: Images) -> Images:
        """Return x_u along the probability flow for a frozen x0 (exponential integrator of order 1).

        x_u = (sigma_u / sigma_t) x_t + (a_u - (sigma_u / sigma_t) a_t) x_0: regular at t = 1 and at u = 0.
        Deterministic laws only.
        """
        self.require_deterministic("flow_step")
        time, end = as_time(t), as_time(u)
        shrink = self.sigma(end) / self.sigma(time)
        return spread(shrink, x_t) * x_t + spread(self.a(end) - shrink * self.a(time), x_t) * x0

    def time_of_ratio(self, n: float | Tensor) -> Tensor:
        """Return the t with sigma(t) / a(t) = n, float64; n from 0 to infinity, of any shape.

        Closed forms for the constant mean part; otherwise a bracketed search in logit(t), exact to rounding.
        Raises ValueError for another n on the CPU; on a GPU, where that would wait for it, its t is NaN.
        """
        ratio = torch.as_tensor(n, dtype=torch.float64)
        fit = ratio >= 0
        if ratio.device.type == "cpu" and not bool(fit.all()):
            raise ValueError(f"n is {float(ratio[~fit].flatten()[0])}; allowed is a ratio from 0 to infinity")
        if isinstance(self.law, Constant | FreeSlope) and isinstance(self.noise, Wiener):
            root = 1 + torch.sqrt(1 + 4 * ratio**2)
            t = (2 * ratio / root) ** 2
        elif isinstance(self.law, Constant | FreeSlope) and isinstance(self.noise, Linear):
            t = ratio / (1 + ratio)
        else:
            t = self._search(ratio)
        t = torch.where(torch.isinf(ratio), torch.ones_like(ratio), torch.where(ratio == 0, ratio, t))
        return torch.where(fit, t, torch.nan)

    def _search(self, ratio: Tensor) -> Tensor:
        low = torch.full_like(ratio, -80.0)
        high = torch.full_like(ratio, 40.0)
        for _ in range(ROOT_STEPS):
            middle = (low + high) / 2
            t = torch.sigmoid(middle)
            below = self.noise.sigma(t) < ratio * self.law.a(t)
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return torch.sigmoid((low + high) / 2)

    def require_deterministic(self, what: str) -> None:
        """Raise ValueError if the law's H_t is not a function of x_0 alone."""
        if not self.law.deterministic:
            raise ValueError(f"{what} does not support the law {self.law.name!r}; use the solver posterior or ode")

    @property
    def slope_variance(self) -> float:
        """Variance of K under the free-slope law."""
        return SLOPE_VARIANCE
