"""Laws: what is left of the image, and how it goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from attenua.process import LAWS, NOISES, Custom, Exponential, FreeSlope, law, noise
from tests.process.support import DETERMINISTIC, ORACLES, TIMES, number, sine


def column(rows: list[dict[str, Any]], name: str) -> torch.Tensor:
    return torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_laws_equal_the_oracle(name: str) -> None:
    rows = [row for row in ORACLES["laws"] if row["law"] == name]
    t = column(rows, "t")
    for quantity in ("m", "a", "dm"):
        torch.testing.assert_close(getattr(law(name), quantity)(t), column(rows, quantity), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LAWS)
def test_the_image_is_whole_at_the_start_and_gone_at_the_end(name: str) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert law(name).a(ends).tolist() == [1, 0]
    assert law(name).m(ends).tolist() == [0, 1]


@pytest.mark.parametrize("name", LAWS)
def test_what_is_left_and_what_is_gone_are_one(name: str) -> None:
    t = torch.tensor(TIMES, dtype=torch.float64)
    torch.testing.assert_close(law(name).a(t) + law(name).m(t), torch.ones_like(t), rtol=0, atol=3e-16)


@pytest.mark.parametrize("name", LAWS)
def test_the_slope_is_the_derivative(name: str) -> None:
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    width = 1e-6
    difference = (law(name).m(t + width) - law(name).m(t - width)) / (2 * width)
    torch.testing.assert_close(law(name).dm(t), difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_slope_integrates_to_the_whole_image(name: str) -> None:
    """H_1 = -x_0: the rate h_t, integrated over the path, takes the image to zero."""
    count = 2000
    nodes = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    assert float(law(name).dm(nodes).mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_what_is_left_keeps_its_digits_near_the_end(name: str) -> None:
    """a(1 - d) ~ d^p m'..: 1 - m would have lost all digits at d = 1e-15."""
    d = 2.0**-50
    order = 2 if name == "linear_falling" else 1
    leading = {"constant": 1, "linear_rising": 2, "linear_falling": 1, "quadratic": 3, "square_root": 1.5}
    slope = leading.get(name, 4 * math.exp(-4) / -math.expm1(-4))
    assert float(law(name).a(number(1 - d))) == pytest.approx(slope * d**order, rel=1e-13)


def test_the_exponential_law_stays_finite_for_any_rate() -> None:
    t = torch.tensor(TIMES, dtype=torch.float64)
    for rate in (1e-9, 1.0, 50.0, 1000.0):
        a = Exponential(rate).a(t)
        assert bool(torch.isfinite(a).all())
        assert float(a[0]) == 1
        assert float(a[-1]) == 0
        assert bool((a.diff() <= 0).all())


def test_a_slow_exponential_law_is_the_constant_one() -> None:
    t = torch.tensor(TIMES, dtype=torch.float64)
    torch.testing.assert_close(Exponential(1e-12).a(t), 1 - t, rtol=1e-11, atol=0)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_that_makes_no_law_is_named(rate: float) -> None:
    with pytest.raises(ValueError, match=f"rate of the exponential law is {rate}.*above 0"):
        Exponential(rate)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown law 'cubic'; known: constant, .*free_slope"):
        law("cubic")
    with pytest.raises(ValueError, match="unknown noise 'pink'; known: wiener, linear"):
        noise("pink")
    with pytest.raises(ValueError, match=r"law 'constant' does not take the fields .*rate"):
        law("constant", rate=2.0)


@pytest.mark.parametrize("name", NOISES)
def test_noise_grows_from_nothing_to_one(name: str) -> None:
    chosen = noise(name)
    assert chosen.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [0, 1]
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    u = t * 0.7
    torch.testing.assert_close(chosen.variance_between(u, t), chosen.sigma(t) ** 2 - chosen.sigma(u) ** 2)


def test_a_users_law_is_a_law() -> None:
    t = torch.tensor(TIMES, dtype=torch.float64)
    law_of_mine = sine()
    torch.testing.assert_close(law_of_mine.a(t) + law_of_mine.m(t), torch.ones_like(t), rtol=0, atol=3e-16)
    assert law_of_mine.deterministic


def test_a_users_law_is_differentiated_for_the_user() -> None:
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    slope = torch.sin(torch.pi * t) * torch.pi / 2
    torch.testing.assert_close(sine().dm(t), slope)
    with torch.inference_mode():  # as in sampling
        torch.testing.assert_close(sine().dm(t.clone()), slope)
    own = Custom(lambda t: t**2, derivative=lambda t: 2 * t)
    torch.testing.assert_close(own.dm(t), 2 * t)


def test_a_users_law_that_torch_cannot_differentiate_asks_for_its_derivative() -> None:
    blind = Custom(lambda t: t.detach() ** 2, label="blind")
    with pytest.raises(ValueError, match=r"law 'blind' cannot be differentiated.*derivative"):
        blind.dm(number(0.5))


def test_without_a_remainder_what_is_left_is_never_negative() -> None:
    rounded = Custom(lambda t: t * (1 + 1e-12))
    assert float(rounded.a(number(1.0))) == 0
    assert float(rounded.a(number(0.25))) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t: t / 2, r"law 'mine' has m\(0\) = 0 and m\(1\) = 0.5; they must be 0 and 1"),
        (lambda t: 1 - t, r"m\(0\) = 1 and m\(1\) = 0; they must be 0 and 1"),
        (lambda t: t + torch.sin(2 * torch.pi * t), r"does not increase at t = 0\.499; m must be strictly increasing"),
        (lambda t: torch.clamp(2 * t, max=1), "strictly increasing"),
        (lambda t: t * torch.nan, "they must be 0 and 1"),
    ],
)
def test_a_users_law_that_is_none_is_refused(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Custom(function, label="mine")


def test_a_check_can_be_waived() -> None:
    assert Custom(lambda t: t / 2, checked=False).m(number(1.0)) == 0.5


def test_the_slope_of_the_free_law_weighs_nothing_at_either_end() -> None:
    b = FreeSlope().b(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert b.tolist() == [0, -0.125, 0]


@pytest.mark.parametrize("remainder", [lambda t: 2 * t, lambda t: 1 - t**2 + 1e-6, lambda t: t * math.nan])
def test_a_remainder_of_another_law_is_refused(remainder: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"law 'mine' has a remainder that is not 1 - m at t = .*; they must agree"):
        Custom(lambda t: t**2, remainder, label="mine")
