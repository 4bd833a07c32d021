"""The sampler: the only loop over times."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import Prediction
from attenua.sampling.grids import Grid, Times
from attenua.sampling.grids import grid as grid_named
from attenua.sampling.multistep import Multistep
from attenua.sampling.noise import ImageNoise
from attenua.sampling.solvers import Past, Solver
from attenua.sampling.tiles import TiledModel
from attenua.shapes import Bytes, Images


class Step(NamedTuple):
    """What a callback sees of every network call: its number from 0, its t, the state x_t there, and x0 as it says."""

    step: int
    t: float
    x: Tensor
    x0: Tensor


def choose_grid(rule: Solver, chosen: Grid | str | None, default: str = "karras") -> Grid:
    """Return the grid for a solver: the chosen one, else the solver's own, else the default (a model's, say).

    Raises ValueError on an unknown name.
    """
    if chosen is None:
        chosen = rule.grid or default
    return grid_named(chosen) if isinstance(chosen, str) else chosen


@torch.inference_mode()
def sample(
    model: AttenuationModel | TiledModel,
    shape: tuple[int, int, int, int],
    *,
    steps: int = 10,
    seed: int = 0,
    solver: Solver | None = None,
    grid: Grid | str | Sequence[float] | None = None,
    indices: Sequence[int] | None = None,
    condition: Condition | None = None,
    callback: Callable[[Step], None] | None = None,
    clip: bool = True,
) -> Images:
    """Return pictures in [-1, 1], [B, C, H, W] = shape, by exactly `steps` network calls.

    A condition's picture is encoded once. clip: off where the state is not a picture (super-resolution, latents).

    seed and indices (default 0..B-1) fix the noise: image i depends on (seed, i) alone. grid: a Grid, its name, or the
    times themselves, falling to 0 (as many as the solver has rules for `steps` calls: one a call but for Heun). The
    start is sigma z at the grid's first time, plus a times the data mean where the grid says so. Raises ValueError on a
    solver that does not support the law, a grid that does not fall, steps < 1 or a wrong number of times; and where a
    value is not finite: a network can overflow in float16, at times that it was not trained on above all.
    """
    rule = solver or Multistep()
    rule.check(model.process)
    chosen = choose_grid(rule, grid) if grid is None or isinstance(grid, Grid | str) else Times(tuple(grid))
    times, rules, mean = chosen.plan(model, rule, steps)
    numbers = range(shape[0]) if indices is None else indices
    if len(numbers) != shape[0]:
        raise ValueError(f"{len(numbers)} indices for {shape[0]} images; there must be one an image")
    noise = ImageNoise(seed, numbers, shape[1:], model.device)
    mu = model.mu.to(torch.float32).view(1, -1, 1, 1)  # the state is float32, whatever the network computes in

    count = itertools.count()

    def predict(x: Tensor, t: float) -> Prediction:
        prediction: Prediction = model(x, t, condition, combination=rule.combination)
        if rule.combination == "released":  # the published code clips pictures in every step
            prediction = prediction._replace(x0=(prediction.x0 + mu).clamp(-1, 1) - mu)
        if callback is not None:
            callback(Step(next(count), t, x, prediction.x0))
        return prediction

    x = noise() * float(model.process.sigma(times[0]))
    if mean:
        if model.data_mean.shape != x.shape[1:]:
            sizes = f"{list(model.data_mean.shape)}, the pictures are {list(x.shape[1:])}"
            raise ValueError(f"the data mean that the grid starts with is {sizes}; choose a grid without it")
        x = x + model.data_mean.to(torch.float32) * float(model.process.a(times[0]))
    history: list[Past] = []
    keeps = max(step.keeps for step in rules)
    training = model.training
    model.eval()
    try:
        if condition is not None and isinstance(model, AttenuationModel):
            condition = model.encode(condition)
        for step, t, u in zip(rules, times, times[1:], strict=False):
            x = step.step(model.process, predict, x, t, u, history, noise)
            del history[keeps:]
    finally:
        model.train(training)
    if not bool(x.isfinite().all()):
        raise ValueError(
            f"what {steps} steps of {rule.name!r} from t = {times[0]:.6g} on gave is not finite: the network overflowed"
        )
    return (x + mu).clamp(-1, 1) if clip else x + mu


def to_bytes(pictures: Images) -> Bytes:
    """Return pictures in [-1, 1] as uint8, 0..255, rounded to the nearest level."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
