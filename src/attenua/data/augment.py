"""Non-leaky geometric augmentation: the network is told what was done to a picture, so that samples need not show it.

Karras, Aittala, Aila and Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", appendix F.2
and table 6, without the vertical flip. The transformations are drawn apart from being applied: a draw is a small
table, one row a sample, that can be made once for a batch and cut among devices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from attenua.shapes import Images

__all__ = ["LABELS", "PARAMETERS", "apply", "draw", "flip"]

PARAMETERS = 7
"""Columns of a draw: x-flip (0 or 1), log2 of the scale, angle of rotation, log2 of the stretch, axis of the stretch
(angles in radians), translation right and down (pixels). All are 0 where nothing is done."""

LABELS = 8
"""Columns of the labels: x-flip; scale; cos - 1 and sin of the rotation; stretch along cos and sin of its axis; the
translations. Scale, stretch and translations are in units of their deviation."""

_LOG_SCALE = 0.2  # deviation of log2 of the scale and of the stretch: A_scale = A_aniso = 2^0.2
_TRANSLATION = 1 / 8  # deviation of the translation, in widths and heights: A_trans


def draw(
    batch: int, *, probability: float, size: tuple[int, int], generator: torch.Generator, device: torch.device | str
) -> Tensor:
    """Draw the transformations of `batch` pictures of `size` (H, W): float32 [batch, PARAMETERS] on `device`.

    Scale, rotation, stretch and translation are each done with `probability`; the flip half the time whatever the
    probability, as in the paper, except that probability 0 switches everything off. The numbers are drawn where the
    generator lives. Raises ValueError for a probability outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability of an augmentation must be in [0, 1], not {probability}")
    place = generator.device
    uniform = torch.rand(batch, 7, generator=generator, device=place)
    normal = torch.randn(batch, 4, generator=generator, device=place)
    scaled, turned, stretched, moved = (uniform[:, :4] < probability).unbind(1)
    angle = (2 * uniform[:, 4:6] - 1) * math.pi
    height, width = size
    columns = [
        (uniform[:, 6] < 0.5) & (probability > 0),
        scaled * _LOG_SCALE * normal[:, 0],
        turned * angle[:, 0],
        stretched * _LOG_SCALE * normal[:, 1],
        stretched * angle[:, 1],
        moved * (_TRANSLATION * width) * normal[:, 2],
        moved * (_TRANSLATION * height) * normal[:, 3],
    ]
    return torch.stack([column.float() for column in columns], dim=1).to(device)


def apply(images: Images, parameters: Tensor) -> tuple[Images, Tensor]:
    """Transform pictures in [-1, 1] by their rows of a draw [B, PARAMETERS]: (images, labels float32 [B, LABELS]).

    In this order: flip, scaling, rotation (positive: counter-clockwise), stretch by 2^s along its axis and 2^-s across
    it, translation; all about the centre, by one bicubic resampling that mirrors the picture at its borders. The flip
    alone moves whole pixels, and a picture to which nothing is done comes back bit-equal. Never waits for the device.
    """
    if parameters.shape != (len(images), PARAMETERS):
        shape = [len(images), PARAMETERS]
        raise ValueError(f"the parameters must be {shape}, one row a picture, not {list(parameters.shape)}")
    parameters = parameters.float()
    flipped = flip(images, parameters[:, 0])
    grid = _positions(parameters, images.shape[-2], images.shape[-1])
    moved = grid_sample(flipped.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    still = (parameters[:, 1:] == 0).all(1)[:, None, None, None]
    result = torch.where(still, flipped, moved.clamp(-1, 1).to(images.dtype))  # a cubic overshoots at edges
    return result, _labels(parameters, images.shape[-2], images.shape[-1])


def flip(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror left and right those of the pictures [B, C, H, W] whose draw [B], 0 or 1, is 1; any types will do."""
    return torch.where(draws.bool()[:, None, None, None], images.flip(-1), images)


def _positions(parameters: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of the result comes from, float32 [B, H, W, 2] in grid_sample's units.

    With M = stretch . rotation . scale, the result at p shows the picture at M^-1 (p - translation), p in pixels from
    the centre, y downwards.
    """
    _, scale, angle, stretch, axis, right, down = parameters[:, :, None, None].unbind(1)
    ys = torch.arange(height, device=parameters.device, dtype=torch.float32)[:, None] - (height - 1) / 2
    xs = torch.arange(width, device=parameters.device, dtype=torch.float32)[None, :] - (width - 1) / 2
    x, y = xs - right, ys - down
    # the inverse stretch is the symmetric matrix cosh(l) - sinh(l) [[cos 2a, sin 2a], [sin 2a, -cos 2a]], l = s ln 2
    even, odd = torch.cosh(stretch * math.log(2)), torch.sinh(stretch * math.log(2))
    cos2, sin2 = torch.cos(2 * axis), -torch.sin(2 * axis)  # minus: y points down, angles are counter-clockwise
    x, y = (even - odd * cos2) * x - odd * sin2 * y, (even + odd * cos2) * y - odd * sin2 * x
    cos, sin, shrink = torch.cos(angle), torch.sin(angle), torch.exp2(-scale)
    x, y = shrink * (cos * x - sin * y), shrink * (sin * x + cos * y)
    return torch.stack([x * (2 / width), y * (2 / height)], dim=-1)


def _labels(parameters: Tensor, height: int, width: int) -> Tensor:
    """What the network is told, float32 [B, LABELS]."""
    flipped, scale, angle, stretch, axis, right, down = parameters.unbind(1)
    stretch = stretch / _LOG_SCALE
    columns = [
        flipped,
        scale / _LOG_SCALE,
        torch.cos(angle) - 1,
        torch.sin(angle),
        stretch * torch.cos(axis),
        stretch * torch.sin(axis),
        right / (_TRANSLATION * width),
        down / (_TRANSLATION * height),
    ]
    return torch.stack(columns, dim=1)
