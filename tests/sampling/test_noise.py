"""Noise: draw k of image i depends on (seed, i, k) alone."""

from __future__ import annotations

import math

import pytest
import torch

from attenua.sampling import ImageNoise

SHAPE = (3, 8, 8)


def test_any_split_and_order_of_a_batch_has_the_same_noise() -> None:
    whole = ImageNoise(7, range(6), SHAPE)
    draws = [whole() for _ in range(3)]
    for rows in ([0, 1], [2], [5, 3, 4], [4, 4]):
        part = ImageNoise(7, rows, SHAPE)
        for draw in draws:
            assert torch.equal(part(), draw[rows])


def test_the_size_of_one_picture_does_not_shift_another_draw() -> None:
    """A draw starts at its own counter: what the draws before it consumed is of no account."""
    small, large = ImageNoise(7, [1], (1, 1, 2)), ImageNoise(7, [1], (1, 1, 1000))
    for _ in range(3):
        assert torch.equal(small().flatten(), large().flatten()[:2])


def test_seeds_images_and_draws_are_independent() -> None:
    draws = []
    for seed in (0, 1, 2**64 - 1):
        noise = ImageNoise(seed, [0, 1, 2**40], (1, 64, 64))
        draws += [draw for _ in range(3) for draw in noise().flatten(1)]
    correlations = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert float(correlations.abs().max()) < 5 / 64


def test_a_draw_is_no_later_part_of_another() -> None:
    """Counters of two draws must not overlap, or one would be the other, shifted."""
    noise = ImageNoise(0, [0, 1], (1, 64, 64))
    draws = [draw for _ in range(3) for draw in noise().flatten(1)]
    for position, draw in enumerate(draws):
        for other in draws[position + 1 :]:
            assert float(torch.isin(draw, other).float().mean()) < 0.01


def test_it_is_standard_normal() -> None:
    values = ImageNoise(3, range(4), (3, 128, 128))().double()
    assert values.dtype == torch.float64
    count = values.numel()
    assert abs(float(values.mean())) < 4 / math.sqrt(count)
    assert abs(float(values.var()) - 1) < 4 * math.sqrt(2 / count)
    assert abs(float((values**4).mean()) - 3) < 4 * math.sqrt(96 / count)
    inside = float((values.abs() < 1).double().mean())
    assert abs(inside - math.erf(math.sqrt(0.5))) < 4 * 0.47 / math.sqrt(count)


def test_keys_out_of_range_are_refused() -> None:
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=rf"seed is {seed}; allowed is a whole number from 0 to 2\^64 - 1"):
            ImageNoise(seed, [0], SHAPE)
    for index in (-1, 2**64):
        with pytest.raises(ValueError, match=rf"image number {index}; allowed is a whole number from 0 to 2\^64 - 1"):
            ImageNoise(0, [3, index], SHAPE)
