"""Saliency: the state is the mask of what stands out in a picture, the picture is the condition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from attenua.config import Config
from attenua.data import saliency
from attenua.data.folder import OnSkip
from attenua.data.pairs import Augmentation
from attenua.tasks.pairs import PairSource
from attenua.tasks.task import Task

LONGEST = 320
"""Longer side of the pictures that a model is told, in pixels: what stands out depends on the whole picture."""

AUGMENTATION = Augmentation(symmetries=2, rotated=0.25, angle=15, scaled=0.5, scales=(0.7, 1.3))


def reduce(picture: Tensor) -> Tensor:
    """Return a picture [C, h, w] whose longer side is LONGEST at most, antialiased; smaller ones as they are."""
    height, width = picture.shape[-2:]
    share = LONGEST / max(height, width)
    if share >= 1:
        return picture
    size = (max(round(height * share), 1), max(round(width * share), 1))
    return F.interpolate(picture[None], size=size, mode="bicubic", antialias=True)[0].clamp(-1, 1)


def enlarge(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map [1, H, W] at another size (height, width), bilinear: no value leaves the map's range."""
    if tuple(output.shape[-2:]) == size:
        return output
    return F.interpolate(output[None], size=size, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True)
class Saliency(Task):
    """Salient object detection: the state is one map, -1 for the background and 1 for what stands out.

    A model knows pictures whose longer side is at most LONGEST pixels: `reduce` larger ones, and `enlarge` their maps.
    """

    name = "saliency"
    state_channels = 1
    tile = LONGEST

    def postprocess(self, state: Tensor, picture: Tensor) -> Tensor:
        """Return the map, [B, 1, H, W] in [-1, 1]."""
        return state.clamp(-1, 1)

    def dataset(self, path: Path, config: Config, *, strict: bool = False, on_skip: OnSkip | None = None) -> PairSource:
        """Return the training set of DUTS (DUTS-TR), or of a folder of pictures and masks."""
        found = saliency.load(path, "train", longest=LONGEST, strict=strict, on_skip=on_skip)
        return PairSource(self, found, config.model.network.image_size, AUGMENTATION)
