"""Edges: the state is a map of the lines that people would draw in a picture, the picture is the condition."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attenua.config import Config
from attenua.data import boundaries, pairs
from attenua.data.folder import OnSkip
from attenua.data.pairs import Augmentation, PairSet
from attenua.metrics.boundaries import suppress, thin
from attenua.tasks.pairs import PairSource
from attenua.tasks.task import Task

LINE = 0.75
"""Deviation of a drawn line's profile, in pixels: 1 on the line, 0.41 a pixel beside it, 0.03 two pixels beside it."""

REACH = 2.0
"""Where the profile ends, in pixels."""

AUGMENTATION = Augmentation(symmetries=2, rotated=0.3, angle=45, scaled=0.5, scales=(0.6, 1.5))


@dataclass(frozen=True)
class Edges(Task):
    """Edge detection: the state is one map, -1 for no line and 1 for a line that all annotators drew.

    A line of one pixel is a hard thing to hit with Gaussian noise and squared errors, so lines have a profile (`LINE`)
    whose ridge is the drawn line: suppression, or a high threshold, makes it one pixel thin again. annotators "mean":
    the state is the mean over annotators, so a model's mean and its samples are maps of how many would draw a line;
    "one": the state is one annotator's map, another one every time, so samples differ as annotators do, and their mean
    is again the mean over annotators.
    """

    annotators: Literal["mean", "one"] = "mean"
    name = "edges"
    state_channels = 1
    tile = 512

    def postprocess(self, state: Tensor, picture: Tensor) -> Tensor:
        """Return the map, [B, 1, H, W] in [-1, 1]."""
        return state.clamp(-1, 1)

    def dataset(self, path: Path, config: Config, *, strict: bool = False, on_skip: OnSkip | None = None) -> PairSource:
        """Return the training set of BSDS500 (its train split), or of a folder of pictures and edge maps."""
        if boundaries.find(path) is not None:
            found = boundaries.load(path, "train", strict=strict, on_skip=on_skip)
        else:
            found = pairs.load(path, strict=strict, on_skip=on_skip)
        drawn = softened(found)
        chosen = drawn.mean() if self.annotators == "mean" else drawn
        return PairSource(self, chosen, config.model.network.image_size, AUGMENTATION)


def soft_lines(maps: Tensor) -> Tensor:
    """Give lines a profile: uint8 [K, H, W] -> uint8 [K, H, W].

    The value at a pixel is the largest of m exp(-d^2 / (2 LINE^2)) over the pixels m at distance d <= REACH.
    """
    reach = int(REACH)
    height, width = maps.shape[-2:]
    padded = F.pad(maps.float(), (reach, reach, reach, reach))
    result = torch.zeros(maps.shape)
    for down, right in itertools.product(range(-reach, reach + 1), repeat=2):
        distance = math.hypot(down, right)
        if distance <= REACH:
            part = padded[..., reach + down : reach + down + height, reach + right : reach + right + width]
            result = torch.maximum(result, part * math.exp(-(distance**2) / (2 * LINE**2)))
    return result.round().byte()


def softened(found: PairSet) -> PairSet:
    """Return the pairs with soft lines, see `soft_lines`."""
    parts = [soft_lines(found.pair(index)[1]).flatten() for index in range(len(found))]
    return replace(found, maps=torch.cat(parts))


def thinned(output: Tensor) -> Tensor:
    """Make the lines of a map one pixel wide: float32 [1, H, W] in [-1, 1] -> the same, -1 off the lines.

    A line keeps the strength that it has at its middle (non-maximum suppression, then thinning).
    """
    values = (output[0].double().cpu().numpy() + 1) / 2
    border = 5  # suppression weakens that much of it
    kept = suppress(np.pad(values.clip(0, 1), border, mode="edge"))[border:-border, border:-border]
    lines = np.where(thin(kept > 0), values, 0)
    return torch.from_numpy(2 * lines - 1).float()[None]
