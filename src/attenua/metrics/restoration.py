"""Fidelity of restored pictures: PSNR and SSIM on luma as the super-resolution benchmarks take them, PSNR in RGB."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

__all__ = ["luma", "psnr", "psnr_y", "ssim_y"]

_WEIGHTS = (65.481, 128.553, 24.966)  # of R, G, B in [0, 1]: ITU-R BT.601, which puts black at 16 and white at 235
_PEAK = 255.0  # the benchmarks' peak, though luma spans only 219 of it
_WINDOW, _DEVIATION = 11, 1.5  # SSIM's Gaussian window, pixels
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2


def luma(pixels: Tensor) -> Tensor:
    """Luma Y of ITU-R BT.601 of pictures [B, 3, H, W] in [-1, 1], as float64 [B, H, W] from 16 (black) to 235 (white).

    The pictures are first rounded to 8 bits a channel, as a file would hold them, and values outside [-1, 1] clipped;
    luma itself is not rounded. Raises ValueError for another shape and for values that are not finite.
    """
    red, green, blue = (_eight_bits(pixels) / 255).unbind(1)
    return 16 + _WEIGHTS[0] * red + _WEIGHTS[1] * green + _WEIGHTS[2] * blue


def psnr_y(pixels: Tensor, truth: Tensor, *, scale: int) -> Tensor:
    """Peak signal-to-noise ratio of luma, dB, float64 [B] (inf where equal), without a border of `scale` pixels.

    pixels, truth: [B, 3, H, W] in [-1, 1], see `luma`. The protocol of Set5, Set14 and BSD100: peak 255, border of the
    scale factor cropped. Raises ValueError for shapes that differ, scale < 0 and pictures that are all border.
    """
    restored, original = _cropped(pixels, truth, scale, least=1)
    return _decibel((restored - original).square().mean((-2, -1)))


def ssim_y(pixels: Tensor, truth: Tensor, *, scale: int) -> Tensor:
    """Mean structural similarity of luma, float64 [B], without a border of `scale` pixels.

    Wang, Bovik, Sheikh and Simoncelli 2004: Gaussian window of 11 x 11 pixels with deviation 1.5, K1 = 0.01,
    K2 = 0.03, range 255, the mean over all places where the window fits. pixels, truth: as for `psnr_y`. Raises
    ValueError for shapes that differ, scale < 0 and less than 11 x 11 pixels inside the border.
    """
    restored, original = _cropped(pixels, truth, scale, least=_WINDOW)
    restored, original = restored[:, None], original[:, None]
    mean_x, mean_y = _window(restored), _window(original)
    var_x = _window(restored.square()) - mean_x.square()
    var_y = _window(original.square()) - mean_y.square()
    both = _window(restored * original) - mean_x * mean_y
    light = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * both + _C2) / (var_x + var_y + _C2)
    return (light * structure).mean((-3, -2, -1))


def psnr(pixels: Tensor, truth: Tensor, hole: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in RGB, dB, float64 [B] (inf where equal): of whole pictures, or inside a hole.

    pixels, truth: [B, 3, H, W] in [-1, 1], rounded to 8 bits first. hole: bool [B, H, W], the pixels that count.
    Raises ValueError for shapes that differ and for a picture without hole.
    """
    _same(pixels, truth)
    error = (_eight_bits(pixels) - _eight_bits(truth)).square().mean(1)
    if hole is None:
        return _decibel(error.mean((-2, -1)))
    if hole.shape != error.shape or hole.dtype != torch.bool:
        raise ValueError(f"the hole must be bool {list(error.shape)}, not {hole.dtype} {list(hole.shape)}")
    count = hole.sum((-2, -1))
    if not bool(count.all()):
        raise ValueError(f"picture {int(count.argmin())} has no hole, so there is nothing to compare inside it")
    return _decibel((error * hole).sum((-2, -1)) / count)


def _eight_bits(pixels: Tensor) -> Tensor:
    """[-1, 1] to whole numbers 0..255 in float64."""
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        raise ValueError(f"pictures must be [B, 3, H, W], not {list(pixels.shape)}")
    if not pixels.is_floating_point():
        raise ValueError(f"pictures must be floating-point numbers in [-1, 1], not {pixels.dtype}")
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError("pictures must be finite, and these are not")
    return ((pixels.detach().double() + 1) * 127.5).round().clamp(0, 255)


def _same(pixels: Tensor, truth: Tensor) -> None:
    if pixels.shape != truth.shape:
        raise ValueError(f"pictures of {list(pixels.shape)} cannot be compared with a truth of {list(truth.shape)}")


def _cropped(pixels: Tensor, truth: Tensor, border: int, *, least: int) -> tuple[Tensor, Tensor]:
    """The lumas [B, H - 2 border, W - 2 border] of both."""
    _same(pixels, truth)
    if border < 0:
        raise ValueError(f"scale must be at least 0, not {border}")
    height, width = pixels.shape[-2] - 2 * border, pixels.shape[-1] - 2 * border
    if min(height, width) < least:
        size = f"{pixels.shape[-1]} x {pixels.shape[-2]}"
        raise ValueError(f"a picture of {size} has less than {least} x {least} pixels inside its border of {border}")
    inside = (..., slice(border, border + height), slice(border, border + width))
    return luma(pixels)[inside], luma(truth)[inside]


def _decibel(error: Tensor) -> Tensor:
    """Mean squared errors of values up to 255 as PSNR."""
    return 10 * torch.log10(_PEAK**2 / error)


def _window(values: Tensor) -> Tensor:
    """Gaussian mean around each place of [B, 1, H, W] where the window fits; rows and columns one after the other."""
    at = torch.arange(_WINDOW, dtype=torch.float64, device=values.device) - _WINDOW // 2
    weights = torch.exp(-0.5 * (at / _DEVIATION).square())
    weights = weights / weights.sum()
    return conv2d(conv2d(values, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
