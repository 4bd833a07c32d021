"""Inpainting: a smooth fill from what is known around a hole is the base, what it lacks is the state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attenua.compiling import glue
from attenua.config import Config
from attenua.data.folder import OnSkip
from attenua.data.holes import COLUMNS, holes
from attenua.data.photographs import load
from attenua.networks import Condition
from attenua.tasks.crops import CUT, CropSource
from attenua.tasks.task import Task

__all__ = ["Inpainting", "fill"]

STEPS, MOMENTUM = 8, 0.8
"""Of the relaxation of a fill, at every size."""
FARTHEST, FALL = 24, 8.0
"""Pixels: how far a distance is counted in a hole, and over how many of them the doubt grows."""


class HoledSource(CropSource):
    """Crops with holes; their deviation is measured on fewer, for on a processor holes take longer than crops.

    Holes and fills are some thousand small operations: a GPU waits for their launches longer than it trains, so they
    are compiled where the network is.
    """

    measured = 1024

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._compiled = self.examples

    def compile(self) -> None:
        """Have examples compiled, but those of `preview`, which are of another number."""
        self._compiled = torch.compile(self.examples)

    def batch(self, rows: Tensor, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Condition]:
        """Return states and their conditions: the pictures of examples are filled already."""
        state, picture = self._compiled(self.cut(draws, dtype), draws[:, CUT:])
        return state, Condition(picture=picture)


class Inpainting(Task):
    """Inpainting: the state is the picture less a smooth fill of its hole, in units of what such a fill lacks there.

    So it is zero where the picture is known, and of like size at the edge of a hole and in its middle (`doubt`).

    A picture is float [B, 4, H, W]: RGB in [-1, 1], whose values inside the hole are not looked at, and the mask, 1 in
    the hole and 0 elsewhere. The network is told the filled picture and the mask: the fill carries what is far away to
    the middle of a large hole. Known pixels of an output are those of the picture, bit for bit.
    """

    name = "inpainting"
    picture_channels = 4

    def condition(self, picture: Tensor) -> Condition:
        """Return the filled picture and its mask."""
        mask = picture[:, 3:] > 0.5
        return Condition(picture=torch.cat([fill(picture[:, :3], mask), mask.to(picture.dtype)], dim=1))

    def postprocess(self, state: Tensor, picture: Tensor) -> Tensor:
        """Return the picture with what a state makes of its hole; picture: filled, as `condition` has it."""
        filled, mask = picture[:, :3].to(state.dtype), picture[:, 3:] > 0.5
        return torch.where(mask, (filled + doubt(mask).to(state) * state).clamp(-1, 1), filled)

    def unknown(self, picture: Tensor) -> Tensor:
        """Return the hole, bool [B, H, W]."""
        return picture[:, 3] > 0.5

    @glue
    def examples(self, crops: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return states and pictures with holes, of crops, float [B, 3, S, S] in [-1, 1]."""
        mask = holes(draws, crops.shape[-1])[:, None]
        filled = fill(crops, mask)
        lacking = torch.where(mask, (crops - filled) / doubt(mask).to(crops).clamp(min=1e-3), 0)
        return lacking, torch.cat([filled, mask.to(crops.dtype)], dim=1)

    def dataset(
        self, path: Path, config: Config, *, strict: bool = False, on_skip: OnSkip | None = None
    ) -> HoledSource:
        """Return the training set of a folder or zip of photographs."""
        side = config.model.network.image_size
        photographs = load(path, side, strict=strict, on_skip=on_skip)
        return HoledSource(self, photographs, self.examples, side, COLUMNS, config.training.crops)


def doubt(mask: Tensor) -> Tensor:
    """Return how much a fill may lack, float [B, 1, H, W]: 0 outside the hole of a mask, nearly 1 deep inside.

    1 - exp(-d / 8), d being the distance to the nearest known pixel, counted in steps of a chess king and up to 24.
    On faces the deviation of what `fill` lacks is 0.45 times that, to a tenth: 0.05 at d = 1, 0.38 at d = 20.
    """
    whole = torch.zeros(mask.shape, device=mask.device)
    rows, columns = _around(mask)
    distance = inside = mask[..., rows, columns].float()
    for _ in range(FARTHEST - 1):
        inside = 1 - F.max_pool2d(1 - inside, 3, 1, 1)
        distance = distance + inside
    whole[..., rows, columns] = -torch.expm1(distance / -FALL)
    return whole


@glue
def fill(pixels: Tensor, mask: Tensor) -> Tensor:
    """Return pixels [B, C, H, W] with the hole of a mask, bool [B, 1, H, W], filled smoothly from what is known.

    Normalised means of known pixels on a pyramid of half sizes, blended back from the coarsest by bilinear enlargement
    (push and pull; Gortler, Grzeszczuk, Szeliski and Cohen 1996, section 3.4), and at every size brought nearer to the
    solution of the biharmonic equation, which goes on with slopes as well as with values. Known pixels stay bit for
    bit, what the hole holds is not looked at, a fill stays within the range of what is known, and a picture that is all
    hole becomes 0.
    """
    share = (~mask).to(pixels.dtype)
    levels = [(torch.where(mask, torch.zeros_like(pixels), pixels), share)]  # (pixels, how far they are known, 0..1)
    bounds = _bounds(pixels, mask)
    while max(levels[-1][0].shape[-2:]) > 1:
        value, share = levels[-1]
        mean = F.avg_pool2d(share, 2, ceil_mode=True, count_include_pad=False)
        total = F.avg_pool2d(value * share, 2, ceil_mode=True, count_include_pad=False)
        levels.append((total / mean.clamp(min=1e-6), (4 * mean).clamp(max=1)))
    filled = levels.pop()[0]
    while levels:
        value, share = levels.pop()
        larger = F.interpolate(filled, size=value.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.lerp(larger, value, share) if levels else torch.where(mask, larger, pixels)
        filled = _relaxed(filled, 1 - share)
    return torch.where(mask, filled.clamp(*bounds), pixels)


def _bounds(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest known value of each channel, [B, C, 1, 1]; 0 where nothing is known."""
    low = torch.where(mask, torch.inf, pixels).amin((2, 3), keepdim=True)
    high = torch.where(mask, -torch.inf, pixels).amax((2, 3), keepdim=True)
    known = low <= high
    return torch.where(known, low, 0), torch.where(known, high, 0)


def _relaxed(filled: Tensor, free: Tensor) -> Tensor:
    """Return pixels after some steps towards biharmonic ones, each as far as it is free, 0..1."""
    rows, columns = _around(free)
    window = _descended(filled[..., rows, columns], free[..., rows, columns])
    if window.shape == filled.shape:
        return window
    filled = filled.clone()
    filled[..., rows, columns] = window
    return filled


def _descended(window: Tensor, free: Tensor) -> Tensor:
    """Return pixels some steps down the gradient of the squared Laplacian, whose largest eigenvalue is 64.

    With momentum (Polyak 1964); each pixel goes as far as it is free.
    """
    before, rate = window, 0.95 * (1 + MOMENTUM) / 32
    for _ in range(STEPS):
        change = _laplacian(_laplacian(window)) * (free * rate)
        before, window = window, window + MOMENTUM * (window - before) - change
    return window


def _around(free: Tensor) -> tuple[slice, slice]:
    """Return the part of one picture that its free pixels see, which are two pixels; all of it for several pictures."""
    if len(free) > 1:
        return slice(None), slice(None)
    parts = []
    for axis in (1, 0):
        places = free[0, 0].any(axis).nonzero()
        first, last = (int(places.min()), int(places.max())) if len(places) else (0, 0)
        parts.append(slice(max(first - 2, 0), last + 3))
    return parts[0], parts[1]


def _laplacian(pixels: Tensor) -> Tensor:
    """Return the sum of the four neighbours less four times the pixel; beyond the border is what lies at it."""
    around = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    sides = around[..., 1:-1, 2:] + around[..., 1:-1, :-2] + around[..., 2:, 1:-1] + around[..., :-2, 1:-1]
    return sides - 4 * pixels
