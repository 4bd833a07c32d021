"""The U-Net: one encoder and one or two decoders with the heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attenua.config import NetworkConfig
from attenua.networks.blocks import (
    Attention,
    CrossAttention,
    FrequencyFilter,
    ResidualBlock,
    SpatialSplit,
    TimeEmbedding,
    convolution,
    dense,
    double,
    normalisation,
)
from attenua.networks.condition import ConditionEncoder
from attenua.networks.reach import Reach
from attenua.shapes import Images, Vectors


class Condition(NamedTuple):
    """What a network may be told beside state and time.

    labels: classes [B]; augment: augmentation labels [B, A]; picture: a condition [B, C', H/scale, W/scale], clean; or
    features: what the network's `encode` made of that picture, once for all calls.
    """

    labels: Tensor | None = None
    augment: Tensor | None = None
    picture: Tensor | None = None
    features: tuple[Tensor, ...] | None = None

    def rows(self, part: slice) -> Condition:
        """Return what is told of some of the samples."""
        labels, augment, picture = (None if item is None else item[part] for item in self[:3])
        features = None if self.features is None else tuple(item[part] for item in self.features)
        return Condition(labels, augment, picture, features)


class Stage(nn.Module):
    """A residual block and, where its level attends, attention."""

    def __init__(self, inputs: int, outputs: int, size: int, config: NetworkConfig) -> None:
        super().__init__()
        embedding = 4 * config.width
        self.block = ResidualBlock(inputs, outputs, embedding, norm=config.norm, dropout=config.dropout)
        attends = size in config.attention
        self.attention = (
            Attention(outputs, config.heads, norm=config.norm, window=config.window) if attends else nn.Identity()
        )

    def forward(self, x: Tensor, embedding: Vectors) -> Tensor:
        """Return [B, outputs, H, W]."""
        result: Tensor = self.attention(self.block(x, embedding))
        return result


class Fusion(nn.Module):
    """How a condition's features enter one level: added and, where the level attends and it is asked for, attending."""

    def __init__(self, level: int, config: NetworkConfig) -> None:
        super().__init__()
        channels, attends = config.width * config.multipliers[level], config.sizes[level] in config.attention
        self.attention = (
            CrossAttention(channels, config.heads, norm=config.norm, window=config.window)
            if config.fusion == "attention" and attends
            else None
        )

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Return [B, C, H, W] of x and features of that shape."""
        return x + features if self.attention is None else self.attention(x, features) + features


class Resample(nn.Module):
    """A change of size by two ("down" or "up"): a convolution, or a residual block where the configuration says so."""

    def __init__(self, inputs: int, outputs: int, direction: str, config: NetworkConfig) -> None:
        super().__init__()
        self.direction, self.residual = direction, config.resample == "block"
        self.change: nn.Module
        if self.residual:
            self.change = ResidualBlock(
                inputs, outputs, 4 * config.width, norm=config.norm, dropout=config.dropout, resample=direction
            )
        else:
            # On the way up a 1x1 first, at the smaller size: a fifth of the work of a 3x3 that also changes channels.
            self.narrow = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()
            self.change = convolution(outputs, outputs, 3, stride=2 if direction == "down" else 1)

    def forward(self, x: Tensor, embedding: Vectors) -> Tensor:
        """Return [B, outputs, H/2, W/2] or [B, outputs, 2H, 2W]."""
        result: Tensor
        if self.residual:
            result = self.change(x, embedding)
        else:
            h = self.narrow(x)
            result = self.change(double(h) if self.direction == "up" else h)
        return result


class Decoder(nn.Module):
    """The way up, with the encoder's skips, and an output of `outputs` channels (zero at the start)."""

    def __init__(self, config: NetworkConfig, skips: list[int], outputs: int) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        remaining, channels = list(skips), widths[-1]
        self.split = SpatialSplit(channels, norm=config.norm) if config.split == "spatial" else nn.Identity()
        blocks = config.blocks + (config.skips == "all")
        self.middle = nn.ModuleList(
            Stage(channels, channels, config.sizes[-1] if index == 0 else 0, config) for index in range(config.middle)
        )
        self.levels, self.ups, self.fusions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            if config.condition_channels:
                self.fusions.append(Fusion(level, config))
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(Stage(channels + remaining.pop(), widths[level], config.sizes[level], config))
                channels = widths[level]
            self.levels.append(stages)
            if level:
                narrow = channels if config.resample == "block" else widths[level - 1]
                self.ups.append(Resample(channels, narrow, "up", config))
                channels = narrow
        self.norm = normalisation(config.norm, channels)
        self.out = convolution(channels, outputs * config.patch**2, 3, gain=0.0)  # heads, then their gains

    def forward(
        self, x: Tensor, skips: list[Tensor], embedding: Vectors, features: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """Return raw heads, [B, outputs, H, W]; skips are the encoder's, features the condition's, first to last."""
        remaining = list(skips)
        x = self.split(x)
        for stage in self.middle:
            x = stage(x, embedding)
        for level, stages in enumerate(self.levels):
            if features is not None:
                x = self.fusions[level](x, features[len(self.levels) - 1 - level])
            for stage in stages:  # type: ignore[attr-defined]
                x = stage(torch.cat([x, remaining.pop()], dim=1), embedding)
            if level < len(self.ups):
                x = self.ups[level](x, embedding)
        result: Tensor = self.out(F.silu(self.norm(x)))
        return result


class UNet(nn.Module):
    """A U-Net that maps (state, network time, condition) to raw heads of unit size.

    forward(x [B, C, H, W], time [B], condition) -> a tuple of `heads` tensors [B, C, H, W]: image head, noise head
    (and the slope head of the free-slope law). With two decoders the first gives all heads but the noise head.
    H and W must be multiples of `multiple`; ValueError otherwise.
    """

    def __init__(self, config: NetworkConfig, heads: int = 2) -> None:
        super().__init__()
        self.config = config
        self.heads = heads
        embedding = 4 * config.width
        self.time = TimeEmbedding(config.width, embedding)
        self.classes = nn.Embedding(config.classes, embedding) if config.classes else None
        self.augment = dense(config.augment_labels, embedding, gain=0.0) if config.augment_labels else None
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.input = convolution(config.channels * config.patch**2, widths[0], 3)
        self.encoder = ConditionEncoder(config) if config.condition_channels else None
        skips, channels = [widths[0]] if config.skips == "all" else [], widths[0]
        self.levels, self.downs, self.fusions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            if config.condition_channels:
                self.fusions.append(Fusion(level, config))
            stages = nn.ModuleList()
            for _ in range(config.blocks):
                stages.append(Stage(channels, width, config.sizes[level], config))
                channels = width
                skips.append(channels)
            self.levels.append(stages)
            last = level == len(widths) - 1
            if not last:
                self.downs.append(Resample(channels, channels, "down", config))
                skips += [channels] if config.skips == "all" else []
        self.filter = FrequencyFilter(channels, embedding, config.filter) if config.filter else None
        counts = [heads] if config.decoders == 1 else [heads - 1, 1]
        each = config.channels + config.gains
        self.decoders = nn.ModuleList(Decoder(config, skips, count * each) for count in counts)

    @property
    def multiple(self) -> int:
        """What H and W must be multiples of, in pixels."""
        step = self.config.patch * 2 ** (len(self.config.multipliers) - 1)
        for size, level in zip(self.config.sizes, range(len(self.config.sizes)), strict=True):
            if self.config.window and size in self.config.attention:
                step = math.lcm(step, self.config.window * self.config.patch * 2**level)
        if self.encoder is not None:
            step = math.lcm(step, self.encoder.multiple * self.config.condition_scale)
        return int(step)

    @property
    def reach(self) -> int | None:
        """How many pixels away, at most, state and condition can move an output pixel (an upper bound along each axis).

        None where every pixel sees the whole picture: attention without windows, or statistics over the picture.
        """
        config = self.config
        if config.norm == "group" or (config.attention and not config.window):
            return None
        told = self.encoder.reaches() if self.encoder is not None else None
        seen = Reach().fold(config.patch).conv(3)
        skips = [seen] if config.skips == "all" else []
        last = len(config.multipliers) - 1
        for level in range(last + 1):
            for number in range(config.blocks):
                seen = self._staged(seen, level)
                if told is not None and number == 0:
                    seen = self._fused(seen, told[level], level)
                skips.append(seen)
            if level < last:
                seen = seen.fold(2).conv(3).conv(3) if config.resample == "block" else seen.conv(3, 2)
                skips += [seen] if config.skips == "all" else []
        seen = seen.conv(2 * config.filter + 1)
        if config.split == "spatial":
            seen = seen.conv(3).conv(7)
        for number in range(config.middle):
            seen = seen.conv(3).conv(3) if number else self._staged(seen, last)
        for level in reversed(range(last + 1)):
            if told is not None:
                seen = self._fused(seen, told[level], level)
            for _ in range(config.blocks + (config.skips == "all")):
                seen = self._staged(seen | skips.pop(), level)
            if level:
                seen = seen.copied(2).conv(3)
                seen = seen.conv(3) if config.resample == "block" else seen
        seen = seen.conv(3).copied(config.patch)
        return max(seen.before, seen.after)

    def _staged(self, seen: Reach, level: int) -> Reach:
        seen = seen.conv(3).conv(3)
        return seen.window(self.config.window) if self.config.sizes[level] in self.config.attention else seen

    def _fused(self, seen: Reach, told: Reach, level: int) -> Reach:
        attends = self.config.fusion == "attention" and self.config.sizes[level] in self.config.attention
        return (seen | told).window(self.config.window) if attends else seen | told

    def load_features(self, tensors: Mapping[str, Tensor]) -> None:
        """Start the condition encoder from pretrained features, as `features.convert` names them.

        Raises ValueError where this network has none, or a weight is missing or of another shape.
        """
        if self.encoder is None or self.encoder.features is None:
            raise ValueError("this network has no pretrained features: network.features is 'none'")
        self.encoder.features.load(tensors)

    def encode(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the features of a condition picture, one tensor a level; they hold for every call on it.

        picture: [B, condition_channels, H', W'], clean, in [-1, 1], its sides multiples of multiple / condition_scale.
        """
        if self.encoder is None:
            raise ValueError("this network takes no condition picture")
        features: tuple[Tensor, ...] = self.encoder(picture)
        return features

    def _features(self, condition: Condition) -> tuple[Tensor, ...] | None:
        if self.encoder is None:
            if condition.picture is not None or condition.features is not None:
                raise ValueError("this network takes no condition picture")
            return None
        if condition.features is not None:
            return condition.features
        if condition.picture is None:
            raise ValueError("this network needs a condition picture")
        return self.encode(condition.picture)

    def example(self) -> tuple[Tensor, Tensor, Condition]:
        """Return inputs of one picture of the training size, of zeros, on the network's device."""
        config, device = self.config, self.input.weight.device
        x = torch.zeros(1, config.channels, config.image_size, config.image_size, device=device)
        labels = torch.zeros(1, dtype=torch.long, device=device) if config.classes else None
        side = config.image_size // config.condition_scale
        shape = (1, config.condition_channels, side, side)
        picture = torch.zeros(shape, device=device) if config.condition_channels else None
        return x, torch.zeros(1, device=device), Condition(labels=labels, picture=picture)

    def embed(self, time: Tensor, condition: Condition) -> Vectors:
        """Return the embedding [B, E] of times and labels. Raises ValueError on labels missing or not wanted."""
        embedding: Tensor = self.time(time)
        if (self.classes is None) != (condition.labels is None):
            wanted = (
                "takes no class labels" if self.classes is None else f"needs labels of {self.config.classes} classes"
            )
            raise ValueError(f"this network {wanted}")
        if self.classes is not None:
            embedding = embedding + self.classes(condition.labels)
        if condition.augment is not None and self.augment is None:
            raise ValueError("this network takes no augmentation labels")
        if self.augment is not None and condition.augment is not None:
            embedding = embedding + self.augment(condition.augment.to(embedding.dtype))
        return F.silu(embedding)

    def forward(self, x: Images, time: Tensor, condition: Condition | None = None) -> tuple[Tensor, ...]:
        """Return the raw heads; see the class."""
        if x.shape[-2] % self.multiple or x.shape[-1] % self.multiple:
            raise ValueError(
                f"a state of {x.shape[-2]} x {x.shape[-1]} pixels; sides must be multiples of {self.multiple}"
            )
        told = condition or Condition()
        embedding, features = self.embed(time, told), self._features(told)
        h = self.input(F.pixel_unshuffle(x, self.config.patch) if self.config.patch > 1 else x)
        skips = [h] if self.config.skips == "all" else []
        for level, stages in enumerate(self.levels):
            for number, stage in enumerate(stages):  # type: ignore[arg-type, var-annotated]
                h = stage(h, embedding)
                if features is not None and number == 0:  # from here on h has the level's channels
                    h = self.fusions[level](h, features[level])
                skips.append(h)
            if level < len(self.downs):
                h = self.downs[level](h, embedding)
                skips += [h] if self.config.skips == "all" else []
        if self.filter is not None:
            h = self.filter(h, embedding)
        raw: list[Tensor] = []
        for decoder in self.decoders:
            out = decoder(h, skips, embedding, features)
            out = F.pixel_shuffle(out, self.config.patch) if self.config.patch > 1 else out
            if self.config.gains:
                heads = out.shape[1] // (self.config.channels + 1)
                out, gains = out.split([heads * self.config.channels, heads], dim=1)
                out = out + gains.repeat_interleave(self.config.channels, dim=1) * x.repeat(1, heads, 1, 1)
            raw.extend(out.split(self.config.channels, dim=1))
        if len(self.decoders) == 2 and self.heads == 3:
            raw = [raw[0], raw[2], raw[1]]  # decoder one: image, slope; decoder two: noise
        return tuple(raw)
