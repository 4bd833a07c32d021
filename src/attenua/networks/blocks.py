"""Building blocks of the U-Net: normalisation, residual block, attention, spatial split."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attenua.shapes import Images, Vectors


def initialise(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Conv2d | nn.Linear:
    """Return the layer with weights of variance gain^2 / fan_in (zero for gain 0) and zero bias."""
    fan_in = layer.weight[0].numel()
    with torch.no_grad():
        layer.weight.normal_(0, gain / math.sqrt(fan_in)) if gain else layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """Return a padded convolution, [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    initialise(layer, gain)
    return layer


def dense(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """Return a linear layer, [B, inputs] -> [B, outputs]."""
    layer = nn.Linear(inputs, outputs)
    initialise(layer, gain)
    return layer


class GroupNorm(nn.Module):
    """GroupNorm (Wu & He 2018) as float32 statistics and one multiply-add, so that it fuses with what follows."""

    def __init__(self, channels: int, group: int = 8, groups: int = 32, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.groups = math.gcd(channels, min(groups, max(channels // group, 1)))
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift, [B, C, 1, 1], in the type of the statistics (at least float32)."""
        batch, channels = x.shape[:2]
        grouped = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(batch, self.groups, -1)
        variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        scale = self.weight.view(1, self.groups, -1) * torch.rsqrt(variance + self.epsilon)
        shift = self.bias.view(1, self.groups, -1) - mean * scale
        return scale.reshape(batch, channels, 1, 1), shift.reshape(batch, channels, 1, 1)

    def forward(self, x: Images) -> Images:
        """Return x normalised over groups of channels, [B, C, H, W]."""
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            return F.group_norm(x, self.groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.epsilon)
        scale, shift = self.affine(x)
        # in the statistics' type, so that bfloat16 does not round the scale; one kernel once compiled
        return (x * scale + shift).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation of the channels of every pixel: no statistics over the picture."""

    def __init__(self, channels: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Images) -> Images:
        """Return x / rms over channels, [B, C, H, W]."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + self.epsilon)
        return (wide * scale).to(x.dtype) * self.weight.to(x.dtype).view(1, -1, 1, 1)


def normalisation(kind: str, channels: int) -> nn.Module:
    """Return the normalisation of that name ("group" or "rms")."""
    return GroupNorm(channels) if kind == "group" else RMSNorm(channels)


def halve(x: Tensor) -> Tensor:
    """Return means of 2 x 2 pixels, [B, C, H/2, W/2]."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Return every pixel four times, [B, C, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Return x between its pixels, bilinearly, [B, C, factor H, factor W]; pixel i of x comes to factor i + factor - 1.

    So maps of strides 2, 4, ... that were padded at their far borders (networks/features.py) stay where they lay.
    """
    if factor == 1:
        return x
    size = [factor * side + 1 for side in x.shape[-2:]]
    padded = F.pad(x, (1, 0, 1, 0), mode="replicate")
    return F.interpolate(padded, size=size, mode="bilinear", align_corners=True)[..., 1:, 1:]


def windows(x: Tensor, side: int) -> Tensor:
    """Return the windows of [B, C, H, W], one after the other, [B H/side W/side, C, side, side].

    Raises ValueError where H or W is no multiple of side.
    """
    batch, channels, height, width = x.shape
    if height % side or width % side:
        raise ValueError(f"a level of {height} x {width} pixels; sides must be multiples of the window, {side}")
    parts = x.reshape(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(-1, channels, side, side)


def joined(parts: Tensor, height: int, width: int) -> Tensor:
    """Return the map, [B, C, height, width], that `windows` made parts of."""
    _, channels, side, _ = parts.shape
    whole = parts.reshape(-1, height // side, width // side, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(-1, channels, height, width)


class ResidualBlock(nn.Module):
    """norm, SiLU, 3x3, (1 + scale) norm + shift from the embedding, SiLU, dropout, zero 3x3, plus the shortcut.

    resample "down" or "up" changes the size before the first convolution and on the shortcut.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, *, norm: str, dropout: float, resample: str = "none"
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = normalisation(norm, inputs)
        self.conv1 = convolution(inputs, outputs, 3)
        self.modulate = dense(embedding, 2 * outputs, gain=0.0)
        self.norm2 = normalisation(norm, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(outputs, outputs, 3, gain=0.0)
        self.shortcut = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def resize(self, x: Tensor) -> Tensor:
        """Return x at the block's output size."""
        if self.resample == "none":
            return x
        return halve(x) if self.resample == "down" else double(x)

    def forward(self, x: Tensor, embedding: Vectors) -> Tensor:
        """Return [B, outputs, H', W'] from x, [B, inputs, H, W], and embedding, [B, E]."""
        h = self.conv1(self.resize(F.silu(self.norm1(x))))
        scale, shift = self.modulate(embedding)[:, :, None, None].to(h.dtype).chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm2(h), scale + 1))
        result: Tensor = self.shortcut(self.resize(x)) + self.conv2(self.dropout(h))
        return result


class FrequencyFilter(nn.Module):
    """Every channel times a learned gain of its own in the Fourier domain; all of them 1 at the start.

    DiffusionEdge (Ye, Xu, Huang, Yi and Cai 2024) learns one complex gain a frequency, so for one size of picture.
    Here the gain is a smooth function of the frequency in cycles a pixel, whatever the size: 1 + s P(f), s a number a
    channel that the embedding says, and P a trigonometric polynomial of `degree`. Such a product is a convolution with
    2 degree + 1 pixels a side and is computed as one, with zeros beyond the borders where a transform would wrap
    around: a pixel sees `degree` pixels each way, so tiles agree with the whole.
    """

    def __init__(self, channels: int, embedding: int, degree: int) -> None:
        super().__init__()
        self.polynomial = nn.Conv2d(
            channels, channels, 2 * degree + 1, padding=degree, groups=channels, bias=False
        )  # coefficient k of P weighs the pixel k to the right (or below), as torch correlates
        initialise(self.polynomial)
        self.strength = dense(embedding, channels, gain=0.0)

    def forward(self, x: Images, embedding: Vectors) -> Images:
        """Return x filtered, [B, C, H, W]; embedding: [B, E]."""
        strength = self.strength(embedding)[:, :, None, None].to(x.dtype)
        return torch.addcmul(x, strength, self.polynomial(x))

    def gain(self, embedding: Vectors, height: int, width: int) -> Tensor:
        """Return the gain at the frequencies of a real transform of that size, complex [B, C, height, width // 2 + 1].

        Of any size: it is the same function of cycles a pixel, f_y = 0, 1 / height, .. and f_x = 0, 1 / width, ...
        """
        weight = self.polynomial.weight[:, 0]
        place = torch.arange(weight.shape[-1], device=weight.device, dtype=weight.dtype) - weight.shape[-1] // 2
        rows = torch.fft.fftfreq(height, dtype=weight.dtype, device=weight.device)
        columns = torch.fft.rfftfreq(width, dtype=weight.dtype, device=weight.device)
        down, right = (torch.exp(2j * torch.pi * f[:, None] * place) for f in (rows, columns))
        polynomial = torch.einsum("ya,cab,xb->cyx", down, weight.to(down.dtype), right)
        strength: Tensor = self.strength(embedding)[:, :, None, None]
        return 1 + strength * polynomial


class PlainBlock(nn.Module):
    """norm, SiLU, 3x3, norm, SiLU, zero 3x3, plus the input: a residual block that is told nothing else."""

    def __init__(self, channels: int, *, norm: str) -> None:
        super().__init__()
        self.norm1 = normalisation(norm, channels)
        self.conv1 = convolution(channels, channels, 3)
        self.norm2 = normalisation(norm, channels)
        self.conv2 = convolution(channels, channels, 3, gain=0.0)

    def forward(self, x: Images) -> Images:
        """Return [B, C, H, W]."""
        h = self.conv1(F.silu(self.norm1(x)))
        added: Tensor = self.conv2(F.silu(self.norm2(h)))
        return x + added


class Attention(nn.Module):
    """Self-attention by scaled_dot_product_attention, added to its input.

    window: side of the square windows in which pixels attend to each other (0: over the whole picture); H and W must
    then be multiples of it.
    """

    def __init__(self, channels: int, heads: int, *, norm: str, window: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm = normalisation(norm, channels)
        self.qkv = convolution(channels, 3 * channels, 1)
        self.out = convolution(channels, channels, 1, gain=0.0)

    def forward(self, x: Images) -> Images:
        """Return x + attention(x), [B, C, H, W]."""
        h = self.norm(x)
        if not self.window:
            return x + self.attend(h)
        return x + joined(self.attend(windows(h, self.window)), *x.shape[-2:])

    def attend(self, x: Tensor) -> Tensor:
        """Return what attention over all pixels of x, normalised, adds, [B, C, H, W]."""
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(dim=1)
        h = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.out(h.transpose(-1, -2).reshape(batch, channels, height, width))
        return result


class CrossAttention(nn.Module):
    """What a condition's features ask of the state, added to the state: the paper's fusion of the two.

    Queries come from the features, keys and values from the state, in windows as in `Attention`.
    """

    def __init__(self, channels: int, heads: int, *, norm: str, window: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.norm_state = normalisation(norm, channels)
        self.norm_features = normalisation(norm, channels)
        self.query = convolution(channels, channels, 1)
        self.key_value = convolution(channels, 2 * channels, 1)
        self.out = convolution(channels, channels, 1, gain=0.0)

    def forward(self, x: Images, features: Images) -> Images:
        """Return x + attention(features, x, x), [B, C, H, W]; features: [B, C, H, W]."""
        q, kv = self.query(self.norm_features(features)), self.key_value(self.norm_state(x))
        if not self.window:
            return x + self.attend(q, kv)
        return x + joined(self.attend(windows(q, self.window), windows(kv, self.window)), *x.shape[-2:])

    def attend(self, query: Tensor, key_value: Tensor) -> Tensor:
        """Return what attention over all pixels adds, [B, C, H, W], for [B, C, H, W] and [B, 2 C, H, W]."""
        batch, channels, height, width = query.shape
        shape = (batch, self.heads, channels // self.heads, height * width)
        k, v = (part.reshape(shape).transpose(-1, -2) for part in key_value.chunk(2, dim=1))
        h = F.scaled_dot_product_attention(query.reshape(shape).transpose(-1, -2), k, v)
        result: Tensor = self.out(h.transpose(-1, -2).reshape(batch, channels, height, width))
        return result


class SpatialSplit(nn.Module):
    """One decoder's share of the bottom features: norm, 3x3, and a gate a pixel from their mean and largest channel.

    The paper parts the bottleneck into two branches before its two decoders; the gate is CBAM's spatial attention
    (Woo et al. 2018).
    """

    def __init__(self, channels: int, *, norm: str) -> None:
        super().__init__()
        self.norm = normalisation(norm, channels)
        self.conv = convolution(channels, channels, 3)
        self.gate = convolution(2, 1, 7)

    def forward(self, x: Images) -> Images:
        """Return x plus its gated branch, [B, C, H, W]."""
        h = self.conv(F.silu(self.norm(x)))
        summary = torch.cat([h.mean(dim=1, keepdim=True), h.amax(dim=1, keepdim=True)], dim=1)
        gated: Tensor = h * torch.sigmoid(self.gate(summary))
        return x + gated


class TimeEmbedding(nn.Module):
    """Sine and cosine features of the network time, [B] -> [B, embedding]."""

    frequencies: Tensor

    def __init__(self, features: int, embedding: int, lowest: float = 0.5, highest: float = 64.0) -> None:
        super().__init__()
        grid = torch.logspace(math.log10(lowest), math.log10(highest), features // 2, dtype=torch.float32)
        self.register_buffer("frequencies", grid, persistent=False)
        self.features = 2 * (features // 2)
        self.dense1 = dense(self.features, embedding)
        self.dense2 = dense(embedding, embedding)

    def forward(self, time: Tensor) -> Vectors:
        """Return the embedding of network times of about unit size."""
        phase = time[:, None].to(torch.float32) * self.frequencies[None]
        waves = torch.cat([phase.cos(), phase.sin()], dim=1).to(self.dense1.weight.dtype) * math.sqrt(2)
        hidden: Tensor = self.dense2(F.silu(self.dense1(waves)))
        return hidden
