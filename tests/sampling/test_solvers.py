"""Solvers: marginals on Gaussian data by exact algebra, and order of convergence on a mixture."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from attenua.process import NOISES, Prediction, Process
from attenua.sampling import (
    SOLVERS,
    Flow,
    Karras,
    LogSNR,
    Multistep,
    Past,
    Posterior,
    Released,
    Solver,
    Uniform,
    grid,
    solver,
)
from tests.process.support import PAIRS, build
from tests.sampling.support import Mixture, final_variance, run

SMOOTH = LogSNR(n_max=80, n_min=0.008)
RULES: dict[str, tuple[Solver, float]] = {
    "ode": (Flow(), 1),
    "posterior-0.5": (Posterior(0.5), 1),
    "posterior-1": (Posterior(1.0), 1),
    "multistep": (Multistep(), 2),
}
"""Rules and the order of the error of their marginals."""


PLANE = [("constant", "wiener"), ("exponential", "linear"), *(("free_slope", noise) for noise in NOISES)]
"""The deterministic rules take all deterministic laws to the same end (tested below): two of those laws will do."""


@pytest.mark.parametrize(
    ("pair", "name"),
    [(pair, name) for pair in PLANE for name in RULES] + [(pair, "posterior-1") for pair in PAIRS if pair not in PLANE],
    ids=str,
)
def test_marginals_of_gaussian_data_come_out_right_in_the_limit(pair: tuple[str, str], name: str) -> None:
    process, s_d = build(*pair), 0.5
    rule, order = RULES[name]
    if pair[0] == "free_slope" and not rule.law_free:
        with pytest.raises(ValueError, match="does not support the law 'free_slope'"):
            rule.check(process)
        return
    errors = [abs(final_variance(rule, process, s_d, Karras().times(process, s_d, n)) / s_d**2 - 1) for n in (20, 40)]
    assert errors[1] < (0.25 if order == 1 else 0.02)
    assert errors[1] < 1.2 * errors[0] / 2**order


@pytest.mark.parametrize(("steps", "left"), [(5, 0.53), (20, 0.82)])
def test_the_released_rule_loses_variance_at_few_steps(steps: int, left: float) -> None:
    """N published steps are N + 1 calls; data of deviation 1, no clipping.

    Not because its pair is inconsistent: on Gaussian data both heads agree, and the posterior loses exactly as much.
    """
    process = Process()
    times = grid("released").times(process, 1.0, steps + 1)
    variance = final_variance(Released(), process, 1.0, times)
    assert variance == pytest.approx(left, abs=0.005)
    assert final_variance(Posterior(), process, 1.0, times) == pytest.approx(variance, rel=1e-12)
    assert abs(final_variance(Flow(), process, 1.0, times) - 1) < 1 - variance


@cache
def start_and_end() -> tuple[Tensor, Tensor]:
    """States y = x/a at n_max (of s_d = 0.5), and where the flow takes them."""
    y = 40 * torch.randn(12, 1, 1, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return y, Mixture().reference(y, 40.0, 0.004)


def flow_error(rule: Solver, process: Process, steps: int) -> float:
    y, wanted = start_and_end()
    times = SMOOTH.times(process, 0.5, steps)
    x = process.a(times[0]) * y
    found = run(rule, process, Mixture().predictor(process), x, times)
    return float((found - wanted).square().mean().sqrt())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize(("rule", "order"), [(Flow(), 1), (Multistep(), 2)], ids=["ode", "multistep"])
def test_order_of_convergence_on_a_mixture(rule: Solver, order: int, pair: tuple[str, str]) -> None:
    process = build(*pair)
    coarse, fine = flow_error(rule, process, 24), flow_error(rule, process, 48)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)
    assert fine < (0.02 if order == 1 else 0.002)


@pytest.mark.parametrize("rule", [Flow(), Multistep()], ids=["ode", "multistep"])
def test_every_deterministic_law_is_one_reparametrisation(rule: Solver) -> None:
    """On a grid in n, the deterministic solvers take all laws to the same pictures."""
    y, _ = start_and_end()
    ends = []
    for pair in PAIRS:
        process = build(*pair)
        times = SMOOTH.times(process, 0.5, 12)
        ends.append(run(rule, process, Mixture().predictor(process), process.a(times[0]) * y, times))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-9)


def test_multistep_is_better_than_ode_at_ten_calls() -> None:
    process = Process()
    assert flow_error(Multistep(), process, 10) < 0.5 * flow_error(Flow(), process, 10)


def test_a_first_step_and_steps_at_the_ends_are_of_first_order() -> None:
    process, mixture = build("quadratic", "linear"), Mixture()
    x = torch.randn(4, 1, 1, 2, dtype=torch.float64)
    past = Past(1.0, x, Prediction(x + 1, x))
    for t, u, history in [(1.0, 0.5, []), (0.5, 0.3, [past]), (0.5, 0.0, [past._replace(t=0.8)])]:
        records = list(history)
        found = Multistep().step(process, mixture.predictor(process), x, t, u, records, lambda: x)
        first = process.flow_step(x, t, u, mixture.predictor(process)(x, t).x0) if t < 1 else None
        if first is not None:
            assert torch.equal(found, first)
        assert bool(torch.isfinite(found).all())
        assert (records[0].t, len(records)) == (t, len(history) + 1)


def test_ode_is_the_flow_step() -> None:
    process, mixture = build("exponential", "wiener"), Mixture()
    predict = mixture.predictor(process)
    x = torch.randn(4, 1, 1, 2, dtype=torch.float64)
    for t, u in [(1.0, 0.4), (0.4, 0.1), (0.1, 0.0)]:
        found = Flow().step(process, predict, x, t, u, [], lambda: x)
        torch.testing.assert_close(found, process.flow_step(x, t, u, predict(x, t).x0), rtol=1e-12, atol=1e-12)


def test_noise_is_drawn_once_a_step_and_never_for_nothing() -> None:
    process, mixture = Process(), Mixture()
    times = Uniform().times(process, 0.5, 5)
    x = torch.randn(4, 1, 1, 2, dtype=torch.float64)
    for rule, wanted in [(Posterior(1.0), 4), (Posterior(0.3), 4), (Posterior(0.0), 0), (Flow(), 0), (Multistep(), 0)]:
        drawn: list[int] = []

        def draw(drawn: list[int] = drawn) -> Tensor:
            drawn.append(1)
            return torch.randn_like(x)

        run(rule, process, mixture.predictor(process), x, times, draw)
        assert len(drawn) == wanted


def test_solvers_by_name() -> None:
    assert solver("posterior") == Posterior(1.0)
    assert solver("posterior", 0.5) == Posterior(0.5)
    assert solver("ode") == solver("ode", 0.0) == Flow()
    assert solver("multistep") == Multistep()
    assert {name: solver(name).name for name in SOLVERS} == {name: name for name in SOLVERS}


def test_unknown_solvers_and_unfit_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown solver 'euler'; known: multistep, ode, posterior, released"):
        solver("euler")
    with pytest.raises(ValueError, match=r"the solver 'multistep' takes no eta, but eta is 0.5; use the solver post"):
        solver("multistep", 0.5)
    with pytest.raises(ValueError, match=r"the solver 'ode' takes no eta, but eta is 1.0"):
        solver("ode", 1.0)
    with pytest.raises(ValueError, match=r"the solver 'released' takes no eta, but eta is 0.0"):
        solver("released", 0.0)
    for eta in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"eta is {eta}; allowed is a number from 0"):
            solver("posterior", eta)
