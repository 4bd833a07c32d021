"""The condition encoder: what a clean picture tells the U-Net at every level, computed once a picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from attenua.config import NetworkConfig
from attenua.networks.blocks import PlainBlock, RMSNorm, convolution, enlarge
from attenua.networks.features import EfficientNetLite0
from attenua.networks.reach import Reach
from attenua.networks.vgg import Vgg16

BACKBONES: dict[str, type[EfficientNetLite0] | type[Vgg16]] = {each.NAME: each for each in (EfficientNetLite0, Vgg16)}
"""Networks with ImageNet features, by their names in configurations."""


class Projection(nn.Module):
    """One map of the ImageNet features, of `channels` at stride `own`, brought to a level's channels and size.

    The map is normalised a pixel; where it is finer than the level its pixels become channels, where it is coarser it
    is enlarged bilinearly after the 1x1 convolution.
    """

    def __init__(self, stage: int, own: int, channels: int, stride: int, outputs: int) -> None:
        super().__init__()
        self.stage, self.fold, self.factor = stage, max(stride // own, 1), max(own // stride, 1)
        self.norm = RMSNorm(channels)
        self.conv = convolution(channels * self.fold**2, outputs, 1)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Return [B, outputs, H, W] of the level from the maps of all stages."""
        h = self.norm(maps[self.stage])
        return enlarge(self.conv(F.pixel_unshuffle(h, self.fold) if self.fold > 1 else h), self.factor)

    def reach(self, seen: list[Reach]) -> Reach:
        """Return what the result sees, from what the maps see."""
        own = seen[self.stage]
        own = own.fold(self.fold) if self.fold > 1 else own
        return own.interpolated(self.factor) if self.factor > 1 else own


def stages_of(stride: int, finest: int, coarsest: int, strides: Sequence[int]) -> list[int]:
    """Return which feature stages, of these strides, enter the level of a stride; levels have finest to coarsest.

    Each stage enters the level of its own stride; finer ones the finest level, coarser ones the coarsest. The finest
    level, where no stage has a stride so small, takes the first as well. Strides are in pixels of the picture.
    """
    chosen = [stage for stage, own in enumerate(strides) if min(max(own, finest), coarsest) == stride]
    return chosen or ([0] if stride < strides[0] else [])


class ConditionEncoder(nn.Module):
    """What the U-Net adds at every level for a clean condition picture; it sees no time, so it runs once a picture.

    forward(picture [B, C', H', W']) -> one tensor a level, [B, channels of the level, its height, its width].
    A path of its own goes through all levels; ImageNet features, where the configuration has them, join it at each.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.fold = config.patch // config.condition_scale
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.input = convolution(config.condition_channels * self.fold**2, widths[0], 3)
        self.levels = nn.ModuleList(
            nn.Sequential(*(PlainBlock(width, norm=config.norm) for _ in range(config.condition_blocks)))
            for width in widths
        )
        self.downs = nn.ModuleList(convolution(a, b, 3, stride=2) for a, b in itertools.pairwise(widths))
        self.outs = nn.ModuleList(convolution(width, width, 1) for width in widths)
        self.features: EfficientNetLite0 | Vgg16 | None = None
        self.projections: nn.ModuleList | None = None
        if config.features != "none":
            kind = BACKBONES[config.features]
            self.features = kind(config.feature_stages)
            own = kind.STRIDES[: config.feature_stages]
            strides = [self.fold * 2**level for level in range(len(widths))]
            self.projections = nn.ModuleList(
                nn.ModuleList(
                    Projection(stage, own[stage], kind.CHANNELS[stage], stride, width)
                    for stage in stages_of(stride, strides[0], strides[-1], own)
                )
                for stride, width in zip(strides, widths, strict=True)
            )

    @property
    def multiple(self) -> int:
        """What the picture's sides must be multiples of for its features, in pixels (1 without them)."""
        return 1 if self.features is None else self.features.STRIDES[self.config.feature_stages - 1]

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the features; see the class. Raises ValueError for sides that are no multiples of `multiple`."""
        maps: tuple[Tensor, ...] = ()
        if self.features is not None:
            if picture.shape[-2] % self.multiple or picture.shape[-1] % self.multiple:
                raise ValueError(
                    f"a condition of {picture.shape[-2]} x {picture.shape[-1]} pixels; sides must be multiples of "
                    f"{self.multiple}"
                )
            maps = self.features(picture[:, :3])
        h = self.input(F.pixel_unshuffle(picture, self.fold) if self.fold > 1 else picture)
        features = []
        for level, (blocks, out) in enumerate(zip(self.levels, self.outs, strict=True)):
            for projection in self._projections(level):
                h = h + projection(maps)
            h = blocks(h)
            features.append(out(h))
            if level < len(self.downs):
                h = self.downs[level](h)
        return tuple(features)

    def _projections(self, level: int) -> list[Projection]:
        return [] if self.projections is None else list(self.projections[level])  # type: ignore[call-overload]

    def reaches(self) -> list[Reach]:
        """Return what every level's tensor sees, in pixels of the state."""
        picture = Reach().fold(self.config.condition_scale)
        maps = [] if self.features is None else self.features.reaches(picture, self.config.feature_stages)
        seen = picture.fold(self.fold).conv(3)
        result = []
        for level in range(len(self.levels)):
            for projection in self._projections(level):
                seen = seen | projection.reach(maps)
            for _ in range(self.config.condition_blocks):
                seen = seen.conv(3).conv(3)
            result.append(seen)
            seen = seen.conv(3, 2)
        return result
