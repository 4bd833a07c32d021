"""Holes to learn from: strokes and boxes in three widths, made from random numbers, many at once on any device.

The masks that are evaluated on are those of `attenua.data.masks`, which are fixed by seed and index.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attenua.data.masks import MAX_RATIO

__all__ = ["COLUMNS", "holes"]

_STROKES, _SEGMENTS = 4, 8
_CHOICES = 3  # columns for the kind, the width and the share of the picture
COLUMNS = _CHOICES + _STROKES * (4 + 2 * _SEGMENTS)
"""How many random numbers make a mask."""

_LOW = (0.012, 0.04, 0.1), (0.05, 0.15, 0.35)  # of a stroke's diameter, of a box's side, in sides of the picture
_HIGH = (0.03, 0.08, 0.2), (0.15, 0.35, 0.75)
_LEAST = 0.05  # the least share that is aimed at


def holes(draws: Tensor, side: int) -> Tensor:
    """Return masks, bool [B, side, side], True in the hole, from draws, float [B, COLUMNS] in [0, 1).

    Half of them are free-form strokes, half boxes; thin, medium or thick as in `attenua.data.masks`. Shapes are laid
    one after the other as long as the hole stays below a share of the picture that is drawn up to MAX_RATIO; the first
    is always laid, so no mask is empty. Raises ValueError for another number of columns.
    """
    if draws.ndim != 2 or draws.shape[1] != COLUMNS:
        raise ValueError(f"draws are {list(draws.shape)}; a mask takes {COLUMNS} numbers")
    kind, width = draws[:, 0] < 0.5, (draws[:, 1] * 3).long()
    goal = _LEAST + (MAX_RATIO - _LEAST) * draws[:, 2]
    goal, shapes = goal.float(), draws[:, _CHOICES:].float()  # what is drawn with needs no more digits than pixels
    strokes, boxes = _strokes(shapes, width, goal, side), _boxes(shapes, width, goal, side)
    return torch.where(kind[:, None, None], strokes, boxes)


def _between(table: int, width: Tensor, draws: Tensor) -> Tensor:
    """Return sizes within the range of each mask's width class."""
    low, high = (torch.tensor(each[table], device=draws.device, dtype=draws.dtype)[width] for each in (_LOW, _HIGH))
    return low + (high - low) * draws


def _lay(mask: Tensor, shape: Tensor, goal: Tensor, first: bool) -> Tensor:
    """Return the masks with a shape each, where it is not too much."""
    together = mask | shape
    fits = together.float().mean((1, 2)) <= (MAX_RATIO if first else goal)
    return torch.where(fits[:, None, None], together, mask)


def _centres(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' centres in sides of the picture: y [1, side, 1] and x [1, 1, side]."""
    place = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    return place[None, :, None], place[None, None, :]


def _boxes(draws: Tensor, width: Tensor, goal: Tensor, side: int) -> Tensor:
    y, x = _centres(side, draws)
    mask = torch.zeros(len(draws), side, side, dtype=torch.bool, device=draws.device)
    for number in range(draws.shape[1] // 4):
        top, left, height, length = draws[:, 4 * number : 4 * number + 4].unbind(1)
        half = [(_between(1, width, each) / 2).clamp(min=0.75 / side) for each in (height, length)]
        inside_y = (y - top[:, None, None]).abs() <= half[0][:, None, None]
        inside_x = (x - left[:, None, None]).abs() <= half[1][:, None, None]
        mask = _lay(mask, inside_y & inside_x, goal, number == 0)
    return mask


def _strokes(draws: Tensor, width: Tensor, goal: Tensor, side: int) -> Tensor:
    y, x = _centres(side, draws)
    mask = torch.zeros(len(draws), side, side, dtype=torch.bool, device=draws.device)
    for number, own in enumerate(draws.chunk(_STROKES, dim=1)):
        place, pen, heading = own[:, :2], _between(0, width, own[:, 2]) / 2, own[:, 3] * 2 * math.pi
        pen = pen.clamp(min=0.75 / side)  # no line falls between the pixels
        for segment in range(_SEGMENTS):
            turn, length = own[:, 4 + 2 * segment], own[:, 5 + 2 * segment]
            heading = heading + (turn - 0.5) * 2.8  # as wide as a normal turn of 0.8 radians
            step = (0.04 + 0.21 * length)[:, None] * torch.stack([heading.sin(), heading.cos()], dim=1)
            step = (place + step).clamp(0, 1) - place  # it stays in the picture
            mask = _lay(mask, _line(y, x, place, step, pen), goal, number == segment == 0)
            place = place + step
    return mask


def _line(y: Tensor, x: Tensor, start: Tensor, step: Tensor, radius: Tensor) -> Tensor:
    """Return the pixels within a radius of a segment, bool [B, side, side]."""
    (down, right), (rise, run) = ([each[:, None, None] for each in pair.unbind(1)] for pair in (start, step))
    y, x = y - down, x - right
    along = ((y * rise + x * run) / (rise**2 + run**2).clamp(min=1e-12)).clamp_(0, 1)
    return (y - along * rise).square() + (x - along * run).square() <= radius[:, None, None].square()
