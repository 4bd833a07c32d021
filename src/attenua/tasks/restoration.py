"""Restoration: what is missing in a picture is the state, what is there is the condition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from attenua.config import Config
from attenua.data import camera
from attenua.data.degrade import Blind, bicubic
from attenua.data.folder import OnSkip
from attenua.data.photographs import load
from attenua.tasks.crops import CropSource
from attenua.tasks.task import Task


@dataclass(frozen=True)
class SuperResolution(Task):
    """Super-resolution by a whole factor: the state is the picture less its bicubic enlargement.

    So the network adds detail to what interpolation gives, and s_d is that of the detail. Pictures are float
    [B, 3, H, W] in [-1, 1]; the low resolution of training is the benchmarks' (antialiased bicubic, 8 bit), or, with
    the degradation "photo", blurred before it, and noisy and compressed after it.
    """

    scale: int = 4
    degradation: str = "bicubic"
    name = "super-resolution"

    def __post_init__(self) -> None:
        if self.scale < 2:
            raise ValueError(f"scale is {self.scale}; allowed is a whole number from 2")

    def reduce(self, pictures: Tensor) -> Tensor:
        """Return the low-resolution pictures, on the grid of 8-bit levels. Sides must be multiples of the scale."""
        height, width = (side // self.scale for side in pictures.shape[-2:])
        if (height * self.scale, width * self.scale) != tuple(pictures.shape[-2:]):
            raise ValueError(f"sides of {list(pictures.shape[-2:])} pixels are no multiples of the scale, {self.scale}")
        small = F.interpolate(pictures.float(), size=(height, width), mode="bicubic", antialias=True)
        levels = ((small + 1) * 127.5).round().clamp(0, 255)
        return (levels / 127.5 - 1).to(pictures.dtype)

    def measured(self, picture: Tensor, index: int) -> Tensor:
        """Return the small picture by which the task is scored, of test picture `index`, uint8 [3, H, W] both.

        Pillow's bicubic reduction, as the benchmarks have it; with the degradation "photo" one drawn by seed 0 and the
        index. Sides must be multiples of the scale.
        """
        if self.degradation == "photo":
            return Blind(self.scale)(picture, 0, index)
        return bicubic(picture, self.scale)

    def enlarge(self, small: Tensor) -> Tensor:
        """Return the bicubic enlargement."""
        return F.interpolate(small, scale_factor=self.scale, mode="bicubic", align_corners=False)

    def postprocess(self, state: Tensor, picture: Tensor) -> Tensor:
        """Return the enlarged picture of a state."""
        return (self.enlarge(picture.to(state.dtype)) + state).clamp(-1, 1)

    def examples(self, crops: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return states and low-resolution pictures of crops, float [B, 3, H, W] in [-1, 1]."""
        if self.degradation == "photo":
            small = camera.degraded(crops, self.reduce, draws, Blind(self.scale))
        else:
            small = self.reduce(crops)
        return crops - self.enlarge(small), small

    def dataset(self, path: Path, config: Config, *, strict: bool = False, on_skip: OnSkip | None = None) -> CropSource:
        """Return the training set of a folder or zip of photographs."""
        side = config.model.network.image_size
        columns = camera.columns(side // self.scale) if self.degradation == "photo" else 0
        photographs = load(path, side, strict=strict, on_skip=on_skip)
        return CropSource(self, photographs, self.examples, side, columns, config.training.crops)
