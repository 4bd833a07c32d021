"""What cameras and the web do to pictures, blur, noise and JPEG, made from random numbers, many at once on any device.

The same degradation, up to rounding, as `attenua.data.degrade.Blind`, whose results are fixed by seed and index.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attenua.data.degrade import Blind

__all__ = ["columns", "degraded", "jpeg"]

_CHOICES = 12  # columns for everything but the noise of each sample
_MCU = 16  # pixels that a JPEG with colour at half the resolution is coded by

# Annex K of the JPEG standard (ITU-T T.81), tables K.1 and K.2
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF 1.02
_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def columns(side: int) -> int:
    """Return how many random numbers degrade a picture to side x side pixels."""
    return _CHOICES + 3 * side**2


def degraded(pictures: Tensor, reduce: Callable[[Tensor], Tensor], draws: Tensor, law: Blind) -> Tensor:
    """Return small pictures, float [B, 3, h, w] in [-1, 1] on the grid of 8-bit levels: blurred, reduced, noisy, JPEG.

    pictures: float [B, 3, H, W] in [-1, 1]; reduce: to [B, 3, h, w]; draws: float [B, columns] in [0, 1); law: the
    ranges. Where a JPEG's blocks begin is drawn as well: crops of photographs begin anywhere.
    """
    blurs, noises, codes = (draws[:, :3] >= law.skip).unbind(1)
    where = [each[:, None, None, None] for each in (blurs, noises, codes)]
    result = torch.where(where[0], _blur(pictures.float(), draws[:, 3:7].float(), law), pictures.float())
    levels = (reduce(result) + 1) * 127.5
    levels = torch.where(where[1], _noise(levels, draws, law), levels).round().clamp(0, 255)
    low, high = law.quality
    quality = (low + draws[:, 9] * (high - low + 1)).floor().clamp(max=high).float()
    offsets = (draws[:, 10:12] * _MCU).long()
    levels = torch.where(where[2], _shifted(levels, quality, offsets), levels)
    return (levels / 127.5 - 1).to(pictures.dtype)


def _blur(pictures: Tensor, draws: Tensor, law: Blind) -> Tensor:
    """Correlate each picture with its own Gaussian, half of them isotropic, mirrored at the borders."""
    low, high = law.blur
    radius = min(math.ceil(3 * high), min(pictures.shape[-2:]) - 1)
    place = torch.arange(-radius, radius + 1, device=pictures.device, dtype=torch.float32)
    along, across = (low + draws[:, 1:3] * (high - low)).unbind(1)
    across, angle = torch.where(draws[:, 0] < 0.5, along, across), draws[:, 3] * math.pi
    y, x = place[None, :, None], place[None, None, :]
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u, v = (cosine * x + sine * y) / along[:, None, None], (cosine * y - sine * x) / across[:, None, None]
    kernels = torch.exp(-0.5 * (u.square() + v.square()))
    kernels = (kernels / kernels.sum((1, 2), keepdim=True)).repeat_interleave(3, 0)[:, None]
    padded = F.pad(pictures, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
    return F.conv2d(padded, kernels, groups=len(kernels)).view_as(pictures)


def _noise(levels: Tensor, draws: Tensor, law: Blind) -> Tensor:
    """Add white noise, in two of five pictures the same in all channels."""
    low, high = law.noise
    deviation = (low + draws[:, 8] * (high - low)).float()[:, None, None, None]
    uniform = draws[:, _CHOICES:].reshape(levels.shape).clamp(1e-9, 1 - 1e-9)
    normal = (math.sqrt(2) * torch.erfinv(2 * uniform - 1)).float()
    grey = (draws[:, 7] < 0.4)[:, None, None, None]
    return levels + deviation * torch.where(grey, normal[:, :1], normal)


def _shifted(levels: Tensor, quality: Tensor, offsets: Tensor) -> Tensor:
    """Code as JPEG with the first block `offsets`, int [B, 2] below _MCU, above and left of the picture."""
    height, width = levels.shape[-2:]
    place = torch.arange(max(height, width) + _MCU, device=levels.device)
    rows = (place[None, : height + _MCU] - offsets[:, :1]).clamp(0, height - 1)
    across = (place[None, : width + _MCU] - offsets[:, 1:]).clamp(0, width - 1)
    picture = torch.arange(len(levels), device=levels.device)[:, None, None, None]
    channel = torch.arange(3, device=levels.device)[None, :, None, None]
    coded = jpeg(levels[picture, channel, rows[:, None, :, None], across[:, None, None, :]], quality)
    rows, across = place[None, :height] + offsets[:, :1], place[None, :width] + offsets[:, 1:]
    return coded[picture, channel, rows[:, None, :, None], across[:, None, None, :]]


def jpeg(levels: Tensor, quality: Tensor) -> Tensor:
    """Return what a JPEG leaves of levels 0..255, float [B, 3, H, W], of a quality 1..100 each, float [B].

    Colour at half the resolution, the standard's tables as libjpeg scales them; differs from libjpeg by the rounding of
    its whole-number arithmetic.
    """
    height, width = levels.shape[-2:]
    padded = F.pad(levels, (0, -width % _MCU, 0, -height % _MCU), mode="replicate")
    ycc = torch.einsum("ij,bjhw->bihw", levels.new_tensor(_YCC), padded)
    luma, chroma = ycc[:, :1] - 128, F.avg_pool2d(ycc[:, 1:], 2)
    luma, chroma = _coded(luma, quality, _LUMA), _coded(chroma, quality, _CHROMA)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.einsum("ij,bjhw->bihw", levels.new_tensor(_RGB), torch.cat([luma + 128, chroma], dim=1))
    return decoded.round().clamp(0, 255)[..., :height, :width]


def _coded(plane: Tensor, quality: Tensor, table: tuple[tuple[int, ...], ...]) -> Tensor:
    """Round the cosine transform of 8 x 8 blocks to the table's steps, and transform back, to whole levels."""
    batch, channels, height, width = plane.shape
    place = torch.arange(8, device=plane.device, dtype=plane.dtype)
    basis = torch.cos(math.pi / 8 * place[:, None] * (place[None, :] + 0.5)) / 2
    basis[0] /= math.sqrt(2)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)[:, None, None]
    steps = ((plane.new_tensor(table) * percent + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    blocks = plane.round().view(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    rounded = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ rounded @ basis).round().transpose(3, 4).reshape(plane.shape)
