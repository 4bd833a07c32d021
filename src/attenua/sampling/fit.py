"""Fitting a grid: the times of few calls, and what they are weighed by, that end nearest to a fine reference.

The idea is in the literature (GITS, Chen et al. 2024; AMED, Zhou et al. 2024; S4S, Frankel et al. 2025): few numbers,
a few hundred trajectories, and the distance of end points from those of many steps. Here the search is that of
Levenberg and Marquardt: the residual has as many entries as the trajectories have pixels (or features), so a handful of
evaluations tells the curvature in every number; Broyden's update spares most derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attenua.config import FittedGrid
from attenua.model import AttenuationModel
from attenua.sampling.fitted import fingerprint, weighted
from attenua.sampling.grids import Grid, Karras, LogSNR, Plan, check
from attenua.sampling.multistep import Multistep, Weighted
from attenua.sampling.sampler import sample
from attenua.sampling.solvers import Solver
from attenua.sampling.tiles import TiledModel

STEP = 0.02
"""Of a derivative, in lambda, in the logarithm of its gaps and in weights."""
ATTEMPTS = 6
"""Of a step that does not help, each damped eight times as much as the one before."""
STRIDE = 0.7
"""The most that a number changes in one step of the search."""
STIFFNESS = 0.003
"""Of the spring that holds the numbers of a search with weights: one that moves by 1 costs its square of the start's
squared distance."""
WORTH = 0.99
"""Weights are kept where they leave at most this share of the distance on trajectories that the fit did not see."""

STARTS = (Karras(), Karras(n_max=20.0), LogSNR(n_max=20.0))
"""The search begins at the best of these; with the data mean a grid need not begin where the image is all noise."""

Residual = Callable[[Tensor], Tensor]
Look = Callable[[Tensor], Tensor]
"""Features of pictures, [B, C, H, W] -> [B, F], whose Euclidean distance is the one that is fitted."""
Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Trial(Grid):
    """A grid in the middle of the search."""

    fall: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()

    def points(self, process: object, s_d: float, steps: int) -> Tensor:
        """Return the times."""
        return torch.tensor(self.fall, dtype=torch.float64)

    def plan(self, model: AttenuationModel | TiledModel, rule: Solver, calls: int) -> Plan:
        """Return the times and rules as they are."""
        times = check([*self.fall, 0.0])
        return Plan(times, weighted(rule.rules(calls, times[0]), self.weights), self.mean)


@dataclass
class Fit:
    """What a fit works on: a model, its reference end points, and the numbers of the images.

    trajectories: images 0.. of the seed that are fitted to; held_out: how many after those the result is measured on;
    reference: calls of the fine trajectories (multistep on karras); batch: images a network call; look: what of the
    end points is compared (None: their pixels), and measure its name in records.
    """

    model: AttenuationModel
    trajectories: int = 256
    held_out: int = 64
    reference: int = 64
    seed: int = 0
    batch: int = 64
    look: Look | None = None
    measure: str = "pixels"
    ends: Tensor = field(init=False)
    evaluations: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if min(self.trajectories, self.held_out, self.batch) < 1 or self.reference < 8:
            raise ValueError("a fit needs trajectories, held-out ones and a batch from 1, and a reference from 8 calls")
        self.ends = self.run(Multistep(), Karras(), self.reference, range(self.trajectories + self.held_out))

    def run(self, rule: Solver, grid: Grid, calls: int, indices: Sequence[int]) -> Tensor:
        """Return what is compared of end points, [B, F]."""
        network, made = self.model.config.network, []
        for start in range(0, len(indices), self.batch):
            rows = indices[start : start + self.batch]
            shape = (len(rows), network.channels, network.image_size, network.image_size)
            ends = sample(self.model, shape, steps=calls, seed=self.seed, solver=rule, grid=grid, indices=rows)
            with torch.no_grad():
                made.append(ends.flatten(1) if self.look is None else self.look(ends))
        return torch.cat(made)

    def residual(self, rule: Solver, grid: Grid, calls: int, *, seen: bool) -> Tensor:
        """Return end points less the reference's, flat: of the trajectories that are fitted to, or of the others."""
        count = self.trajectories
        rows = range(count) if seen else range(count, count + self.held_out)
        self.evaluations += 1
        return (self.run(rule, grid, calls, rows) - self.ends[rows.start : rows.stop]).flatten()

    def distance(self, rule: Solver, grid: Grid, calls: int) -> float:
        """Return the root mean square distance on trajectories that no fit sees: over pixels, or over pictures."""
        found = self.residual(rule, grid, calls, seen=False)
        return rms(found) if self.look is None else rms(found) * math.sqrt(found.numel() / self.held_out)


def rms(values: Tensor) -> float:
    """Return the root of the mean square; infinite where a value is not finite."""
    found = math.sqrt(float(values.square().mean()))
    return found if math.isfinite(found) else math.inf


def check_fit(model: AttenuationModel, rule: Solver, calls: int) -> None:
    """Raise ValueError where no grid can be fitted: as `fit` does, but before there is a reference."""
    rule.check(model.process)
    if rule.name in ("posterior", "released", "ancestral", "sde-dpmpp-2m"):
        raise ValueError(
            f"the solver {rule.name!r} draws fresh noise: a grid can be fitted for deterministic ones alone"
        )
    if calls < 2:
        raise ValueError(f"steps is {calls}; a grid can be fitted from 2")


def fit(work: Fit, rule: Solver, calls: int, *, rounds: int = 40, report: Report | None = None) -> FittedGrid:
    """Return the grid for a rule and a number of calls, with its distance and that of the default grid, both held out.

    Times are fitted first; the weights of rules that take some after that, together with the times, and kept where they
    pay. rounds: of the search, each of one to a few evaluations. report(evaluations, distance) is called as it
    goes. Raises ValueError for a rule with fresh noise (its end points are no function of the start) or of another law.
    """
    check_fit(work.model, rule, calls)
    space = Space(work, rule, calls)
    starts = [space.numbers(grid.plan(work.model, rule, calls).times[:-1]) for grid in STARTS]
    start = min(starts, key=lambda numbers: rms(space.residual(numbers)))
    numbers = search(space.residual, start, rounds, report)
    best = space.grid(numbers)
    distance = work.distance(rule, best, calls)
    if isinstance(rule, Weighted):
        wide = min(
            (search(space.held(wide), wide, rounds, report) for wide in map(space.wide, (numbers, start))),
            key=lambda found: rms(space.residual(found)),
        )
        other = work.distance(rule, space.grid(wide), calls)
        if other < WORTH * distance:
            best, distance = space.grid(wide), other
    unfitted = work.distance(rule, Karras(), calls)
    own_print = fingerprint(work.model)
    return FittedGrid(calls, rule.name, best.fall, best.weights, best.mean, own_print, distance, unfitted, work.measure)


@dataclass
class Space:
    """The numbers of the search: lambda of the first time, logarithms of the gaps, and weights of calls that exist."""

    work: Fit
    rule: Solver
    calls: int

    def numbers(self, times: Sequence[float]) -> Tensor:
        """Return the numbers of falling times."""
        places = self.work.model.process.log_snr(torch.tensor(times, dtype=torch.float64))
        return torch.cat([places[:1], torch.log(torch.diff(places))])

    def grid(self, numbers: Tensor) -> Trial:
        """Return the grid of numbers; the data mean starts it."""
        count = len(self.rule.rules(self.calls, 0.5))
        places = torch.cumsum(torch.cat([numbers[:1], torch.exp(numbers[1:count])]), 0)
        times = self.work.model.process.time_of_ratio(torch.exp(-places)).tolist()
        given = iter(numbers[count:].tolist())
        if len(numbers) == count:
            return Trial(mean=True, fall=tuple(times))
        weights = [next(given) if taken else 0.0 for taken in self.taken()]
        return Trial(mean=True, fall=tuple(times), weights=tuple(weights))

    def wide(self, numbers: Tensor) -> Tensor:
        """Return the numbers of times with the published weights after them."""
        return torch.cat([numbers, torch.tensor(self.weights(self.grid(numbers).fall), dtype=torch.float64)])

    def taken(self) -> list[bool]:
        """Return, for every weight of a record, whether there is a call that it weighs."""
        if not isinstance(self.rule, Weighted):
            return []
        return [place < step for step in range(self.calls) for place in range(self.rule.order - 1)]

    def weights(self, times: Sequence[float]) -> list[float]:
        """Return the published rule's weights of the calls that exist, 0 where its order is lower."""
        process, found = self.work.model.process, []
        for step, rule in enumerate(self.rule.rules(self.calls, times[0])):
            if not isinstance(rule, Weighted):
                break
            here = [*times, 0.0][step + 1 :: -1]  # where the step goes to, from where, and all calls before
            count = rule.reach(here[1], here[0], step)
            own = rule.published(process, here[1 : 1 + count], here[0]) if count > 1 else []
            found += [*own, *([0.0] * (min(step, rule.order - 1) - len(own)))]
        return found

    def held(self, start: Tensor) -> Residual:
        """Return the residual with a spring to the start, which holds numbers that hardly matter where they are."""
        stiffness = STIFFNESS * float(torch.linalg.vector_norm(self.residual(start)))

        def residual(numbers: Tensor) -> Tensor:
            found = self.residual(numbers)
            return torch.cat([found, stiffness * (numbers - start).to(found)])

        return residual

    def residual(self, numbers: Tensor) -> Tensor:
        """Return the residual of the trajectories that are fitted to; infinite where numbers make no grid."""
        try:
            return self.work.residual(self.rule, self.grid(numbers), self.calls, seen=True)
        except ValueError:  # times that rounding has made equal
            return torch.full((1,), math.inf, device=self.work.ends.device)


def search(residual: Residual, start: Tensor, rounds: int, report: Report | None = None) -> Tensor:
    """Return the numbers of least squares, by Levenberg's and Marquardt's steps with Broyden's updates.

    A step that does not help is damped until it does; then derivatives are taken anew, and the search ends where they
    were fresh, or where a round gains less than a thousandth.
    """
    here, value = start, residual(start)
    slopes, fresh, damping, evaluations = jacobian(residual, here, value), True, 1e-3, 1 + len(start)
    for _ in range(rounds):
        before = rms(value)
        for _attempt in range(ATTEMPTS):
            move = solve(slopes, value, damping)
            there, found = here + move, residual(here + move)
            evaluations += 1
            if rms(found) < rms(value):
                way = move.to(value)
                slopes = slopes + torch.outer(way, found - value - way @ slopes) / float(move @ move)
                here, value, damping, gained = there, found, damping / 4, True
                break
            damping, gained = max(damping, 1e-3) * 8, False
        if report is not None:
            report(evaluations, rms(value))
        slow = not gained or rms(value) > 0.99 * before
        if slow and fresh and (not gained or rms(value) > 0.999 * before):
            break
        fresh = slow
        if slow:
            slopes, damping = jacobian(residual, here, value), 1e-3
            evaluations += len(here)
    return here


def jacobian(residual: Residual, here: Tensor, value: Tensor) -> Tensor:
    """Return the derivatives of the residual, [numbers, entries], by differences."""
    rows = []
    for place in range(len(here)):
        there = here.clone()
        there[place] += STEP
        rows.append((residual(there) - value) / STEP)
    return torch.stack(rows)


def solve(slopes: Tensor, value: Tensor, damping: float) -> Tensor:
    """Return the damped Gauss-Newton step, float64, no entry of it beyond STRIDE."""
    normal = (slopes @ slopes.T).cpu().double()
    size = normal.diagonal()
    damped = normal + torch.diag(damping * size + 1e-9 * size.max())
    move: Tensor = -torch.linalg.solve(damped, (slopes @ value).cpu().double())
    return move * min(1.0, STRIDE / max(float(move.abs().max()), 1e-12))
