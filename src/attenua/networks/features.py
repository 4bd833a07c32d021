"""EfficientNet-lite0: ImageNet features of a picture at strides 2 to 32, for the condition encoder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attenua.networks.blocks import initialise
from attenua.networks.reach import Reach

__all__ = ["CHANNELS", "Backbone", "EfficientNetLite0", "convert"]

CHANNELS = (16, 24, 40, 112, 320)
"""Channels of the maps at strides 2, 4, 8, 16 and 32."""

# a stage: rows of (expansion, channels, blocks, stride of the first, kernel); Tan and Le 2019, table 1, as in lite0
_STAGES = (
    ((1, 16, 1, 1, 3),),
    ((6, 24, 2, 2, 3),),
    ((6, 40, 2, 2, 5),),
    ((6, 80, 3, 2, 3), (6, 112, 3, 1, 5)),
    ((6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_EPSILON = 1e-3  # of the network's batch normalisation


class Convolution(nn.Module):
    """A convolution padded by zeros as TensorFlow's "same" does for even sides, and ReLU6 where it is asked for.

    At stride 2 the odd row and column of zeros lie below and to the right: the pretrained network wants it so, and
    pixel i of a map of stride s is centred on pixel s i + s - 1 of the picture.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.before = (kernel - stride) // 2
        self.after = kernel - stride - self.before
        self.relu = relu
        even = self.before if self.before == self.after else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=even, groups=groups)
        initialise(self.conv, 2**0.5 if relu else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H/stride, W/stride]."""
        if self.before != self.after:
            x = F.pad(x, (self.before, self.after, self.before, self.after))
        h: Tensor = self.conv(x)
        return F.relu6(h) if self.relu else h


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, a convolution a channel, 1x1 back; plus the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = Convolution(inputs, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = Convolution(hidden, outputs, 1, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H/stride, W/stride]."""
        h: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + h if self.residual else h


class Backbone(nn.Module):
    """A network with ImageNet features: its name in configurations, channels and strides of its maps, finest first."""

    NAME: ClassVar[str]
    CHANNELS: ClassVar[tuple[int, ...]]
    STRIDES: ClassVar[tuple[int, ...]]

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take pretrained weights by name, as this network's state has them; those that it lacks are not used.

        Raises ValueError that names a weight which is missing or of another shape.
        """
        own = self.state_dict()
        for name, tensor in own.items():
            found = tensors.get(name)
            if found is None or found.shape != tensor.shape:
                is_there = "is missing" if found is None else f"has the shape {list(found.shape)}"
                raise ValueError(f"{self.NAME}: {name} {is_there}; needed is the shape {list(tensor.shape)}")
        self.load_state_dict({name: tensors[name] for name in own})


class EfficientNetLite0(Backbone):
    """The feature extractor of EfficientNet-lite0 (Tan and Le 2019; no squeeze-excite, ReLU6, fixed stem).

    forward(picture [B, 3, H, W] in [-1, 1], RGB) -> `stages` maps (1 to 5), [B, CHANNELS[k], H/2^(k+1), W/2^(k+1)];
    H and W are multiples of 2^stages. Batch normalisation is folded into the convolutions, so a picture never depends
    on its batch, in training neither. Maps are linear outputs of a stage's last block.
    Zeros beyond the borders, as it was trained: a picture whose borders matter is padded by reflection before.
    """

    NAME = "efficientnet-lite0"
    CHANNELS = CHANNELS
    STRIDES = (2, 4, 8, 16, 32)

    def __init__(self, stages: int = len(CHANNELS)) -> None:
        super().__init__()
        if not 1 <= stages <= len(CHANNELS):
            raise ValueError(f"efficientnet-lite0 has no {stages} stages; allowed are 1 to {len(CHANNELS)}")
        self.stem = Convolution(3, _STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        inputs = _STEM
        for rows in _STAGES[:stages]:
            stage = nn.Sequential()
            for expansion, outputs, repeats, stride, kernel in rows:
                for number in range(repeats):
                    stage.append(InvertedResidual(inputs, outputs, expansion, kernel, 1 if number else stride))
                    inputs = outputs
            self.stages.append(stage)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the maps; see the class."""
        h = self.stem((picture * 127.5 + 0.5) / 128)  # (x - 127) / 128 for x in 0..255, as it was trained
        maps = []
        for stage in self.stages:
            h = stage(h)
            maps.append(h)
        return tuple(maps)

    @classmethod
    def reaches(cls, seen: Reach, stages: int) -> list[Reach]:
        """Return what every map of EfficientNetLite0(stages) sees, for a picture whose pixels see `seen`."""
        seen, result = seen.conv(3, 2, 0), []
        for rows in _STAGES[:stages]:
            for _, _, repeats, stride, kernel in rows:
                for number in range(repeats):
                    step = 1 if number else stride
                    seen = seen.conv(kernel, step, (kernel - step) // 2)
            result.append(seen)
        return result


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return EfficientNetLite0's weights from those of a classifier that is trained with batch normalisation.

    state_dict: of the PyTorch port with names such as `_blocks.3._depthwise_conv.weight`, classifier included (it is
    left out). Folding: w' = w g / sqrt(v + 1e-3), b' = b - m g / sqrt(v + 1e-3), in float64.
    Raises ValueError where a tensor is missing, unknown, or of another shape.
    """
    left = {name: tensor for name, tensor in state_dict.items() if not name.endswith(".num_batches_tracked")}

    def take(name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = left.pop(name, None)
        if tensor is None or tuple(tensor.shape) != shape:
            is_there = "is missing" if tensor is None else f"has the shape {list(tensor.shape)}"
            raise ValueError(f"these are no weights of efficientnet-lite0: {name} {is_there}, needed is {list(shape)}")
        return tensor.double()

    result = {}
    for own, conv, norm, shape in _names():
        kernel = take(f"{conv}.weight", shape)
        gain, shift, mean, variance = (
            take(f"{norm}.{part}", shape[:1]) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / torch.sqrt(variance + _EPSILON)
        if own:
            result[f"{own}.conv.weight"] = (kernel * scale.view(-1, 1, 1, 1)).float().contiguous()  # stored otherwise
            result[f"{own}.conv.bias"] = (shift - mean * scale).float()
    take("_fc.weight", (_CLASSES, _HEAD))
    take("_fc.bias", (_CLASSES,))
    if left:
        raise ValueError(f"these are no weights of efficientnet-lite0: {min(left)} is none of its tensors")
    return result


def _names() -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
    """Own name ("" for the classifier's), the port's convolution and normalisation, and the kernel's shape."""
    yield "stem", "_conv_stem", "_bn0", (_STEM, 3, 3, 3)
    inputs, count = _STEM, itertools.count()
    for stage, rows in enumerate(_STAGES):
        place = itertools.count()
        for expansion, outputs, repeats, _, kernel in rows:
            for _ in range(repeats):
                own, theirs, hidden = f"stages.{stage}.{next(place)}", f"_blocks.{next(count)}", inputs * expansion
                if expansion > 1:
                    yield f"{own}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0", (hidden, inputs, 1, 1)
                depthwise = (hidden, 1, kernel, kernel)
                yield f"{own}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1", depthwise
                yield f"{own}.project", f"{theirs}._project_conv", f"{theirs}._bn2", (outputs, hidden, 1, 1)
                inputs = outputs
    yield "", "_conv_head", "_bn1", (_HEAD, inputs, 1, 1)
