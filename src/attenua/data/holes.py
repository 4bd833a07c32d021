"""Holes to learn from: strokes and boxes in three widths, made from random numbers, many at once on any device.

The masks that are evaluated on are those of `attenua.data.masks`, which are fixed by seed and index.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attenua.compiling import glue
from attenua.data.masks import MAX_RATIO

__all__ = ["COLUMNS", "holes"]

_STROKES, _SEGMENTS = 4, 8
_CHOICES = 3  # columns for the kind, the width and the share of the picture
COLUMNS = _CHOICES + _STROKES * (4 + 2 * _SEGMENTS)
"""How many random numbers make a mask."""

_LOW = (0.012, 0.04, 0.1), (0.05, 0.15, 0.35)  # of a stroke's diameter, of a box's side, in sides of the picture
_HIGH = (0.03, 0.08, 0.2), (0.15, 0.35, 0.75)
_LEAST = 0.05  # the least share that is aimed at


@glue
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
    place = (torch.arange(side, device=shapes.device, dtype=shapes.dtype) + 0.5) / side  # of the pixels' centres
    masks = []
    for lay, each in (_stroke, _strokes(shapes, width, side)), (_box, _boxes(shapes, width, side)):
        mask = torch.zeros(len(draws), side, side, dtype=torch.bool, device=draws.device)
        for number in range(each.shape[1]):
            mask = lay(mask, place, each[:, number], goal if number else torch.full_like(goal, MAX_RATIO))
        masks.append(mask)
    strokes, boxes = masks
    return torch.where(kind[:, None, None], strokes, boxes)


def _between(table: int, width: Tensor, draws: Tensor) -> Tensor:
    """Return sizes, [B, N], within the range of each mask's width class."""
    low, high = (torch.tensor(each[table], device=draws.device, dtype=draws.dtype)[width] for each in (_LOW, _HIGH))
    return low[:, None] + (high - low)[:, None] * draws


def _boxes(draws: Tensor, width: Tensor, side: int) -> Tensor:
    """Return boxes, [B, N, 4]: the centre's y and x, half the height and half the length, in sides of the picture."""
    numbers = draws[:, : draws.shape[1] // 4 * 4].reshape(len(draws), -1, 4)
    half = [(_between(1, width, numbers[..., axis]) / 2).clamp(min=0.75 / side) for axis in (2, 3)]
    return torch.stack([numbers[..., 0], numbers[..., 1], *half], dim=2)


def _strokes(draws: Tensor, width: Tensor, side: int) -> Tensor:
    """Return segments, [B, N, 5]: the start's y and x, the way to the end, and half the pen's width."""
    own = draws.reshape(len(draws), _STROKES, -1)
    place, pen, heading = own[..., :2], _between(0, width, own[..., 2]) / 2, own[..., 3] * 2 * math.pi
    pen = pen.clamp(min=0.75 / side)  # no line falls between the pixels
    segments = []
    for segment in range(_SEGMENTS):
        turn, length = own[..., 4 + 2 * segment], own[..., 5 + 2 * segment]
        heading = heading + (turn - 0.5) * 2.8  # as wide as a normal turn of 0.8 radians
        step = (0.04 + 0.21 * length)[..., None] * torch.stack([heading.sin(), heading.cos()], dim=2)
        step = (place + step).clamp(0, 1) - place  # it stays in the picture
        segments.append(torch.cat([place, step, pen[..., None]], dim=2))
        place = place + step
    return torch.stack(segments, dim=2).flatten(1, 2)


def _box(mask: Tensor, place: Tensor, box: Tensor, most: Tensor) -> Tensor:
    """Return masks with a box each, where the hole stays within a share of the picture."""
    top, left, tall, long = box[:, :, None].unbind(1)
    inside_y, inside_x = (place - top).abs() <= tall, (place - left).abs() <= long
    return _laid(mask, inside_y[:, :, None] & inside_x[:, None, :], most)


def _stroke(mask: Tensor, place: Tensor, segment: Tensor, most: Tensor) -> Tensor:
    """Return masks with the pixels within a radius of a segment each, where the hole stays within a share."""
    down, right, rise, run, radius = segment[:, :, None, None].unbind(1)
    y, x = place[None, :, None] - down, place[None, None, :] - right
    along = ((y * rise + x * run) / (rise**2 + run**2).clamp(min=1e-12)).clamp(0, 1)
    return _laid(mask, (y - along * rise).square() + (x - along * run).square() <= radius.square(), most)


def _laid(mask: Tensor, shape: Tensor, most: Tensor) -> Tensor:
    together = mask | shape
    return torch.where((together.float().mean((1, 2)) <= most)[:, None, None], together, mask)
