"""VGG16: ImageNet features of a picture at strides 1 to 16, for the condition encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from attenua.networks.blocks import convolution
from attenua.networks.features import Backbone
from attenua.networks.reach import Reach

__all__ = ["Vgg16"]

_DEPTHS = (2, 2, 3, 3, 3)  # convolutions a stage
_MEAN, _DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's, for pictures in [-1, 1]


class Vgg16(Backbone):
    """The feature extractor of VGG16 (Simonyan and Zisserman 2015, configuration D).

    forward(picture [B, 3, H, W] in [-1, 1], RGB) -> `stages` maps (1 to 5), [B, CHANNELS[k], H/2^k, W/2^k], after the
    ReLU of each stage's last convolution; H and W are multiples of 2^(stages - 1). Zeros beyond the borders, as it
    was trained. Pixel i of a map of stride s is centred on s i + (s - 1) / 2 of the picture. Its weights are named as
    those of `metrics.perceptual`.
    """

    NAME = "vgg16"
    CHANNELS = (64, 128, 256, 512, 512)
    STRIDES = (1, 2, 4, 8, 16)

    def __init__(self, stages: int = 3) -> None:
        super().__init__()
        if not 1 <= stages <= len(_DEPTHS):
            raise ValueError(f"vgg16 has no {stages} stages; allowed are 1 to {len(_DEPTHS)}")
        self.stages = nn.ModuleList()
        inputs = 3
        for outputs, depth in zip(self.CHANNELS[:stages], _DEPTHS, strict=False):
            widths = [inputs, *[outputs] * depth]
            self.stages.append(nn.ModuleList(convolution(a, outputs, 3, gain=2**0.5) for a in widths[:-1]))
            inputs = outputs

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the maps; see the class."""
        mean, deviation = (picture.new_tensor(each).view(1, 3, 1, 1) for each in (_MEAN, _DEVIATION))
        h, maps = (picture - mean) / deviation, []
        for number, stage in enumerate(self.stages):
            h = F.max_pool2d(h, 2) if number else h
            for layer in stage:  # type: ignore[attr-defined]  # a ModuleList
                h = F.relu(layer(h))
            maps.append(h)
        return tuple(maps)

    @classmethod
    def reaches(cls, seen: Reach, stages: int) -> list[Reach]:
        """Return what every map of Vgg16(stages) sees, for a picture whose pixels see `seen`."""
        result: list[Reach] = []
        for number in range(stages):
            seen = seen.conv(2, 2, 0) if number else seen
            for _ in range(_DEPTHS[number]):
                seen = seen.conv(3)
            result.append(seen)
        return result
