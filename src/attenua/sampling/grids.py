"""Grids: the times of the network calls, falling from near 1, and then 0 (theory, section 5)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from attenua.model import AttenuationModel
from attenua.process import Process
from attenua.sampling.solvers import Solver
from attenua.sampling.tiles import TiledModel

MEAN = "+mean"
"""What a grid's name ends in where the data mean stands for a call at t = 1."""


class Plan(NamedTuple):
    """What a sampler does: falling times that end with 0, the rule of every step between, and how it starts.

    mean: the start is sigma z plus a times the data mean: a step from t = 1 that costs no call. Otherwise sigma z.
    """

    times: list[float]
    rules: list[Solver]
    mean: bool


@dataclass(frozen=True)
class Grid(ABC):
    """N times for N network calls of a one-call-a-step solver, strictly falling, and a last 0.

    mean: at t = 1 the state is noise alone and the best image is the data's mean, a constant: where True, a first step
    from there is taken with it. It costs no call and comes on top of the N (theory, section 5).
    """

    mean: bool = field(default=False, kw_only=True)
    name: ClassVar[str]

    @property
    def label(self) -> str:
        """The name that `grid` makes this kind of grid from."""
        return self.name + MEAN * self.mean

    @abstractmethod
    def points(self, process: Process, s_d: float, steps: int) -> Tensor:
        """Return the N times without the last 0, float64."""

    def times(self, process: Process, s_d: float, steps: int) -> list[float]:
        """Return the N + 1 times. Raises ValueError for steps < 1 or times that do not fall strictly."""
        if steps < 1:
            raise ValueError(f"steps is {steps}; allowed is a whole number from 1")
        return check([*self.points(process, s_d, steps).tolist(), 0.0])

    def plan(self, model: AttenuationModel | TiledModel, rule: Solver, calls: int) -> Plan:
        """Return the times and rules that make exactly `calls` network calls. Raises ValueError as `times` does."""

        def times(count: int) -> list[float]:
            found = self.times(model.process, model.config.s_d, count)
            if self.mean and found[0] == 1:  # the free step takes the place of the first call, which goes to the rest
                return self.times(model.process, model.config.s_d, count + 1)[1:]
            return found

        if calls < 1:
            raise ValueError(f"steps is {calls}; allowed is a whole number from 1")
        found = times(len(rule.rules(calls, 0.5)))
        rules = rule.rules(calls, found[0])
        if len(rules) != len(found) - 1:  # a start at t = 1 takes other rules
            found = times(len(rules))
        return Plan(found, rules, self.mean)


def check(times: Sequence[float]) -> list[float]:
    """Return the times. Raises ValueError unless they start at most at 1, fall strictly and end with 0."""
    if len(times) < 2 or not all(math.isfinite(t) for t in times):
        raise ValueError(f"a grid needs finite times for one step or more, not {list(times)}")
    if times[0] > 1 or times[-1] != 0:
        raise ValueError(f"a grid starts at most at t = 1 and ends at t = 0, not {times[0]:g} and {times[-1]:g}")
    for before, after in zip(times, times[1:], strict=False):
        if after >= before:
            raise ValueError(f"a grid must fall strictly, but t = {after:g} follows t = {before:g}")
    return list(times)


@dataclass(frozen=True)
class Times(Grid):
    """Times of the caller's own, falling to 0."""

    values: tuple[float, ...]
    name: ClassVar[str] = "times"

    def points(self, process: Process, s_d: float, steps: int) -> Tensor:
        """Return the times. Raises ValueError unless they are steps + 1 that fall to 0."""
        found = check(self.values)
        if len(found) != steps + 1:
            raise ValueError(f"the grid has {len(found)} times; {steps} steps need {steps + 1}")
        return torch.tensor(found[:-1], dtype=torch.float64)


@dataclass(frozen=True)
class Uniform(Grid):
    """t_i = 1 - i/N (paper)."""

    name: ClassVar[str] = "uniform"

    def points(self, process: Process, s_d: float, steps: int) -> Tensor:
        """Return the times; process and s_d play no part."""
        return 1 - torch.arange(steps, dtype=torch.float64) / steps


@dataclass(frozen=True)
class Released(Grid):
    """The published sampler's: N - 1 uniform steps and one last call at t = 1e-4, counted as the call it is."""

    name: ClassVar[str] = "released"
    last: ClassVar[float] = 1e-4

    def points(self, process: Process, s_d: float, steps: int) -> Tensor:
        """Return the times; process and s_d play no part."""
        if steps == 1:
            return torch.ones(1, dtype=torch.float64)
        uniform = 1 - torch.arange(steps - 1, dtype=torch.float64) / (steps - 1)
        return torch.cat([uniform, torch.tensor([self.last], dtype=torch.float64)])


@dataclass(frozen=True)
class Ratio(Grid):
    """A grid in the noise-to-signal ratio n between n_max and n_min, both in units of s_d."""

    n_max: float = 80.0
    n_min: float = 0.004

    def __post_init__(self) -> None:
        if not 0 < self.n_min < self.n_max:
            raise ValueError(f"n_min is {self.n_min} and n_max {self.n_max}; allowed is 0 < n_min < n_max")

    @abstractmethod
    def ratios(self, high: float, low: float, share: Tensor) -> Tensor:
        """Return the ratios at shares 0 (n_max) to 1 (n_min) of the way."""

    def points(self, process: Process, s_d: float, steps: int) -> Tensor:
        """Return the times at which sigma/a has the grid's ratios; n_max alone for one step."""
        share = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
        return process.time_of_ratio(self.ratios(self.n_max * s_d, self.n_min * s_d, share))


@dataclass(frozen=True)
class Karras(Ratio):
    """n_i = (n_max^(1/rho) + share (n_min^(1/rho) - n_max^(1/rho)))^rho (Karras et al. 2022, eq. 5)."""

    rho: float = 7.0
    name: ClassVar[str] = "karras"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rho > 0:
            raise ValueError(f"rho is {self.rho}; allowed is a number above 0")

    def ratios(self, high: float, low: float, share: Tensor) -> Tensor:
        """Return the ratios."""
        top, bottom = high ** (1 / self.rho), low ** (1 / self.rho)
        return torch.pow(top + share * (bottom - top), self.rho)


@dataclass(frozen=True)
class LogSNR(Ratio):
    """Uniform in lambda = ln(a / sigma)."""

    name: ClassVar[str] = "logsnr"

    def ratios(self, high: float, low: float, share: Tensor) -> Tensor:
        """Return the ratios."""
        return torch.exp(math.log(high) + share * (math.log(low) - math.log(high)))


GRIDS: dict[str, type[Grid]] = {grid.name: grid for grid in (Karras, Uniform, LogSNR, Released)}
"""Every grid that a command can name."""


def grid(name: str) -> Grid:
    """Return the grid of that name with its default ends; "NAME+mean" starts with the data mean.

    Raises ValueError on an unknown name.
    """
    kind = name.removesuffix(MEAN)
    if kind not in GRIDS:
        raise ValueError(f"unknown grid {name!r}; known: {', '.join(GRIDS)}, each also with {MEAN}")
    return replace(GRIDS[kind](), mean=name != kind)
