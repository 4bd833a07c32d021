"""Holes to learn from: never empty, never too large, of both kinds and all widths."""

from __future__ import annotations

import pytest
import torch

from attenua.data.holes import COLUMNS, holes
from attenua.data.masks import MAX_RATIO


def draws(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, COLUMNS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("side", [8, 16, 64])
def test_shares_lie_between_something_and_the_limit(side: int) -> None:
    shares = holes(draws(300), side).double().mean((1, 2))
    assert shares.min() > 0
    assert shares.max() <= MAX_RATIO
    if side == 64:
        assert shares.quantile(0.1) < 0.1
        assert shares.quantile(0.95) > 0.4


def test_a_mask_depends_on_its_own_draws_alone() -> None:
    rows = draws(6)
    assert torch.equal(holes(rows, 32)[2:3], holes(rows[2:3], 32))
    with pytest.raises(ValueError, match=f"a mask takes {COLUMNS} numbers"):
        holes(rows[:, 1:], 32)


def test_boxes_are_upright_and_strokes_are_as_wide_as_their_class() -> None:
    rows = draws(200, seed=1)
    rows[:, 2] = 0  # the least share: few shapes
    rows[:, 0] = 0.9
    boxes = holes(rows, 64)
    once = [mask for mask in boxes if mask.any(0).sum() * mask.any(1).sum() == mask.sum()]
    assert len(once) > 20  # one box alone is all of its rows times all of its columns
    rows[:, 0], rows[:, 2] = 0.1, 0.9
    depth = []
    for width in range(3):
        rows[:, 1] = (width + 0.5) / 3
        # how much of the strokes is left after a border of a pixel is taken off
        mask = holes(rows, 64)[:, None].float()
        eroded = -torch.nn.functional.max_pool2d(-mask, 3, 1, 1)
        depth.append(float(eroded.sum() / mask.sum()))
    assert depth[0] < 0.05 < depth[1] < depth[2]
    assert depth[2] > 0.6


def test_shares_are_drawn_evenly_up_to_the_goal() -> None:
    rows = draws(400, seed=2)
    rows[:, 0], rows[:, 1] = 0.9, 0.5  # boxes of medium width come close to what they aim at
    goal = 0.05 + 0.55 * rows[:, 2]
    shares = holes(rows, 64).double().mean((1, 2))
    first = goal < 0.1225  # a first box may be larger than that
    assert bool((shares[~first] <= goal[~first]).all())
    assert float((goal - shares)[~first].mean()) < 0.12
