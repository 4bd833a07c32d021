"""Grids: closed forms, counts, and what is no grid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attenua.process import Process
from attenua.sampling import GRIDS, Karras, LogSNR, Uniform, grid
from attenua.sampling.grids import Released, check
from tests.process.support import PAIRS, build


def ratios(process: Process, times: list[float]) -> Tensor:
    return process.ratio(torch.tensor(times[:-1], dtype=torch.float64))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_grid_has_a_time_a_call_falls_and_ends_at_zero(name: str, pair: tuple[str, str]) -> None:
    for steps in (1, 2, 3, 10, 50):
        for s_d in (0.05, 0.5):
            times = grid(name).times(build(*pair), s_d, steps)
            assert len(times) == steps + 1
            assert times[-1] == 0
            assert times[-2] > 0
            assert times[0] <= 1
            assert all(after < before for before, after in zip(times, times[1:], strict=False))


def test_uniform_is_uniform() -> None:
    assert Uniform().times(Process(), 0.5, 5) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])


def test_released_counts_its_last_call() -> None:
    """The published N steps are N uniform ones and one at 1e-4: N + 1 calls."""
    assert Released().times(Process(), 0.5, 6) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 1e-4, 0])
    assert Released().times(Process(), 0.5, 1) == [1, 0]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_karras_is_a_power_law_in_the_ratio(pair: tuple[str, str]) -> None:
    process, s_d, steps = build(*pair), 0.5, 12
    found = ratios(process, Karras().times(process, s_d, steps))
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    wanted = (40 ** (1 / 7) + share * (0.002 ** (1 / 7) - 40 ** (1 / 7))) ** 7
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=0)
    root = found ** (1 / 7)
    torch.testing.assert_close(root.diff(), root.diff()[:1].expand(steps - 1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_logsnr_is_uniform_in_lambda(pair: tuple[str, str]) -> None:
    process, s_d, steps = build(*pair), 0.5, 12
    times = LogSNR().times(process, s_d, steps)
    lam = process.log_snr(torch.tensor(times[:-1], dtype=torch.float64))
    wanted = torch.linspace(-math.log(40), -math.log(0.002), steps, dtype=torch.float64)
    torch.testing.assert_close(lam, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", [Karras, LogSNR])
def test_the_ends_are_in_units_of_the_data(kind: type[Karras] | type[LogSNR]) -> None:
    for s_d in (0.05, 1.0):
        found = ratios(Process(), kind(n_max=20, n_min=0.01).times(Process(), s_d, 7))
        assert float(found[0]) == pytest.approx(20 * s_d)
        assert float(found[-1]) == pytest.approx(0.01 * s_d)
        one = kind(n_max=20, n_min=0.01).times(Process(), s_d, 1)
        assert float(ratios(Process(), one)[0]) == pytest.approx(20 * s_d)


def test_what_is_no_grid_is_refused() -> None:
    for name in GRIDS:
        for steps in (0, -3):
            with pytest.raises(ValueError, match=f"steps is {steps}; allowed is a whole number from 1"):
                grid(name).times(Process(), 0.5, steps)
    with pytest.raises(ValueError, match=r"unknown grid 'cosine'; known: karras, uniform, logsnr, released"):
        grid("cosine")
    for n_max, n_min in [(1.0, 2.0), (1.0, 0.0), (1.0, -1.0), (math.nan, 0.1), (1.0, math.nan)]:
        with pytest.raises(ValueError, match=r"allowed is 0 < n_min < n_max"):
            Karras(n_max, n_min)
    for rho in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"rho is {rho}; allowed is a number above 0"):
            Karras(rho=rho)
    with pytest.raises(ValueError, match="must fall strictly"):  # float64 has no times between
        LogSNR(n_max=1e20, n_min=1e19).times(Process(), 0.5, 10)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.5, 0.7, 0.0], r"must fall strictly, but t = 0.7 follows t = 0.5"),
        ([0.5, 0.5, 0.0], r"must fall strictly"),
        ([0.9, 0.5], r"ends at t = 0, not 0.9 and 0.5"),
        ([1.1, 0.5, 0.0], r"starts at most at t = 1"),
        ([0.0], r"one step or more"),
        ([], r"one step or more"),
        ([math.nan, 0.5, 0.0], r"finite times"),
        ([0.5, -0.1, 0.0], r"must fall strictly, but t = 0 follows t = -0.1"),
    ],
)
def test_times_that_are_no_grid_are_refused(times: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(times)
