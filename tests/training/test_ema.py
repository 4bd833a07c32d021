"""Averages have the power-function profile that they claim, and any width can be rebuilt from two."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attenua.training.ema import Average, Profile, exponent, reconstruction


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.27])
def test_the_profile_of_an_exponent_has_the_relative_width(width: float) -> None:
    gamma = exponent(width)
    assert math.isclose((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)), width**2, rel_tol=1e-9)
    # and by the definition: the deviation of the density (gamma + 1) tau^gamma on [0, 1]
    tau = (np.arange(400_000) + 0.5) / 400_000
    density = (gamma + 1) * tau**gamma
    mean = np.mean(density * tau)
    assert math.isclose(math.sqrt(np.mean(density * (tau - mean) ** 2)), width, rel_tol=1e-4)


@pytest.mark.parametrize("width", [0.0, 0.3, -1.0, float("nan")])
def test_widths_without_a_profile_are_refused(width: float) -> None:
    with pytest.raises(ValueError, match="EMA width is"):
        exponent(width)


@pytest.mark.parametrize("width", [0.05, 0.15])
def test_a_running_average_weighs_the_past_by_the_profile(width: float) -> None:
    steps, gamma = 2000, exponent(width)
    average = Average(width, [torch.zeros(steps, dtype=torch.float64)])
    for step in range(steps):  # the tensor at step k is the k-th unit vector, so the average is the weights
        value = torch.zeros(steps, dtype=torch.float64)
        value[step] = 1
        average.update([value], (step + 1) * 10, 10)
    ends = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** (gamma + 1)
    torch.testing.assert_close(average.tensors[0], ends.diff(), rtol=0, atol=0.02 * float(ends.diff().max()))
    assert math.isclose(float(average.tensors[0].sum()), 1, rel_tol=1e-12)


def test_the_inner_product_of_profiles_is_the_integral() -> None:
    first, second = Profile(1000, 3.5), Profile(700, 12.0)
    tau = (np.arange(2_000_000) + 0.5) / 2_000_000 * 700
    values = (4.5 * tau**3.5 / 1000**4.5) * (13 * tau**12.0 / 700**13.0)
    assert math.isclose(first.dot(second), float(np.mean(values) * 700), rel_tol=1e-6)


@pytest.mark.parametrize("width", [0.03, 0.07, 0.12, 0.2])
def test_reconstruction_comes_close_to_the_average_that_was_never_kept(width: float) -> None:
    steps, batch, moments = 4000, 8, 12
    path = torch.cumsum(torch.randn(steps, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64), 0)
    kept = {0.05: Average(0.05, [path[0]]), 0.10: Average(0.10, [path[0]])}
    truth = Average(width, [path[0]])
    stored, values = [], []
    for step in range(steps):
        for average in (*kept.values(), truth):
            average.update([path[step]], (step + 1) * batch, batch)
        if (step + 1) % (steps // moments) == 0:
            for known, average in kept.items():
                stored.append(((step + 1) * batch, known))
                values.append(average.tensors[0].clone())
    last = max(moment for moment, _ in stored)
    shares = reconstruction(stored, last, width)
    rebuilt = sum(share * value for share, value in zip(shares, values, strict=True))
    error = float((rebuilt - truth.tensors[0]).norm() / truth.tensors[0].norm())
    nearest = min(float((average.tensors[0] - truth.tensors[0]).norm()) for average in kept.values())
    assert error < 0.02
    assert error * float(truth.tensors[0].norm()) < 0.5 * nearest
    assert math.isclose(sum(shares), 1, rel_tol=0.02)


def test_a_kept_width_is_rebuilt_as_itself() -> None:
    stored = [(moment, width) for moment in (100, 200, 300) for width in (0.05, 0.1)]
    shares = reconstruction(stored, 300, 0.1)
    expected = [1.0 if item == (300, 0.1) else 0.0 for item in stored]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_nothing_stored_is_an_error() -> None:
    with pytest.raises(ValueError, match="no stored average"):
        reconstruction([], 100, 0.1)
