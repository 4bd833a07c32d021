"""The objective: a Module whose forward returns the loss (theory, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attenua.config import ObjectiveConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import FreeSlope
from attenua.process.heads import TwoHeads
from attenua.shapes import Images

FIRST_TIME = 1e-4
"""Start of the paper's uniform law of times."""

COSINE_OFFSET = 0.008
"""s of the cosine schedule, abar(u) = cos^2(phi(u)) / cos^2(phi(0)) with phi(u) = (u + s)/(1 + s) pi/2."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""A perceptual distance of two batches of pictures in [-1, 1], [B, 3, H, W] each -> [B]."""


Weigh = Callable[[Condition], Tensor | None]
"""From what is told of a batch to how much its pixels count, [B, 1, H, W]; None: all alike."""


class Draws(NamedTuple):
    """The random part of a batch: what decides the times, [B], the noise, [B, C, H, W], and the slope's normals."""

    time: Tensor
    final: Tensor
    eps: Tensor
    slope: Tensor | None = None

    def rows(self, part: slice) -> Draws:
        """Return the draws of some of the samples."""
        return Draws(*(None if item is None else item[part] for item in self))  # type: ignore[arg-type]


class Objective(nn.Module):
    """forward(x0, draws, condition) -> the mean loss of a batch, a number.

    x0: [B, C, H, W], pictures less the model's mu. Every sample is weighted by its own t.
    perceptual: the distance for config.perceptual > 0, of pictures in [-1, 1]; weigh: from a condition, how much each
    pixel counts in the squares (all but the perceptual terms), [B, 1, H, W], or None. Raises ValueError where a
    weighting does not fit the law or the task.
    """

    def __init__(
        self,
        model: AttenuationModel,
        config: ObjectiveConfig,
        perceptual: Distance | None = None,
        weigh: Weigh | None = None,
    ) -> None:
        super().__init__()
        self.weigh = weigh
        self.model = model
        self.config = config
        self.perceptual = perceptual
        two_heads = isinstance(model.precondition, TwoHeads)
        if not two_heads and (config.weights != "unit" or config.l1 or config.perceptual):
            raise ValueError(f"the law {model.process.law.name!r} supports objective.weights=unit alone")
        if config.perceptual and model.config.task.name != "generation":
            told = f"what a model for {model.config.task.name} predicts is no picture"
            raise ValueError(f"objective.perceptual is {config.perceptual}; allowed is 0: {told}")
        if config.perceptual and perceptual is None:
            raise ValueError("objective.perceptual needs a perceptual distance")

    def draw(self, batch: int, generator: torch.Generator) -> Draws:
        """Return the draws for a batch of pictures of the training size, on the generator's device."""
        network = self.model.config.network
        shape = (batch, network.channels, network.image_size, network.image_size)
        device = generator.device
        normal = self.config.times == "lognormal"
        time = (torch.randn if normal else torch.rand)(batch, generator=generator, device=device)
        final = torch.rand(batch, generator=generator, device=device)
        eps = torch.randn(shape, generator=generator, device=device)
        free = isinstance(self.model.process.law, FreeSlope)
        slope = torch.randn(shape, generator=generator, device=device) if free else None
        return Draws(time, final, eps, slope)

    def times(self, draws: Draws) -> Tensor:
        """Return the times of the samples, float64 [B] in (0, 1]."""
        value = draws.time.to(torch.float64)
        if self.config.times == "lognormal":
            centre = self.config.log_mean + math.log(2 * self.model.config.s_d)
            t = self.model.process.time_of_ratio(torch.exp(centre + self.config.log_deviation * value))
        elif self.config.times == "uniform":
            t = FIRST_TIME + (1 - FIRST_TIME) * value
        else:
            inner = FIRST_TIME + (1 - 2 * FIRST_TIME) * value
            t = self.model.process.time_of_ratio(
                _cosine(inner) if self.config.times == "cosine" else inner / (1 - inner)
            )
        return torch.where(draws.final < self.config.final_share, torch.ones_like(t), t)

    def forward(self, x0: Images, draws: Draws, condition: Condition | None = None) -> Tensor:
        """Return the loss; see the class."""
        t = self.times(draws)
        eps = draws.eps.to(x0.dtype)
        slope = None if draws.slope is None else self.model.process.draw_slope(draws.slope.to(x0.dtype))
        x_t = self.model.process.perturb(x0, t, eps, slope)
        raw = tuple(head.to(x0.dtype) for head in self.model.raw(x_t, t, condition))
        weight = None if self.weigh is None or condition is None else self.weigh(condition)
        if self.config.weights == "unit":
            targets = self.model.precondition.targets(x0, eps, t, slope)
            loss = sum(
                (_mean_square(head - target, weight) for head, target in zip(raw, targets, strict=True)),
                x0.new_zeros(()),
            )
        else:
            loss = self._estimates(x0, eps, x_t, t, raw, weight)
        if self.config.l1 or self.config.perceptual:
            loss = loss + self._perceptual(x0, x_t, t, raw)
        return loss.mean()

    def _estimates(
        self, x0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor, raw: tuple[Tensor, ...], weight: Tensor | None
    ) -> Tensor:
        """Return w_x |x0_hat - x0|^2 + w_e |eps_hat - eps|^2 a sample, with the published weights."""
        rule = self.model.precondition
        assert isinstance(rule, TwoHeads)
        f, g = raw
        image, noise = rule.image_head(t)(x_t, f, g), rule.noise_head(t)(x_t, f, g)
        weight_image, weight_noise = 1 / t, 1 / (1 - t + FIRST_TIME)
        if self.config.weights == "revised":
            variance = (self.model.process.a(t) * self.model.config.s_d) ** 2 + self.model.process.sigma(t) ** 2
            weight_image, weight_noise = weight_image * variance, weight_noise * variance
        squares = _mean_square(image - x0, weight), _mean_square(noise - eps, weight)
        return weight_image.to(x0) * squares[0] + weight_noise.to(x0) * squares[1]

    def _perceptual(self, x0: Tensor, x_t: Tensor, t: Tensor, raw: tuple[Tensor, ...]) -> Tensor:
        """Return the (1 - t)^2 terms a sample on the paper's combination, in picture values."""
        estimate = self.model.precondition.predict(x_t, t, raw, "paper").x0
        mu = self.model.mu.view(1, -1, 1, 1).to(x0)
        loss = self.config.l1 * (estimate - x0).abs().flatten(1).mean(1)
        if self.perceptual is not None and self.config.perceptual:
            distance = self.perceptual((estimate + mu).float(), (x0 + mu).float()).to(x0.dtype)
            loss = loss + self.config.perceptual * distance
        return ((1 - t) ** 2).to(x0) * loss


def _cosine(u: Tensor) -> Tensor:
    """Return the ratio sqrt(1/abar - 1) of the cosine schedule (Nichol and Dhariwal 2021) at u in (0, 1)."""
    turn = math.pi / 2 / (1 + COSINE_OFFSET)
    alpha_bar = (torch.cos((u + COSINE_OFFSET) * turn) / math.cos(COSINE_OFFSET * turn)) ** 2
    return torch.sqrt((1 - alpha_bar) / alpha_bar)


def _mean_square(difference: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighted mean square of every sample, [B]."""
    square = difference.square()
    return (square if weight is None else square * weight.to(square)).flatten(1).mean(1)
