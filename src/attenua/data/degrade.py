"""How sharp pictures become low-resolution ones: Pillow's bicubic as the benchmarks have it, or blur, noise and JPEG.

All pictures here are uint8 [3, H, W] on the CPU, before and after: that is what a file holds. Functions that draw take
a numpy generator (`attenua.data.draws.generator` gives one a picture), so a degraded set is fixed by its seed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import correlate
from torch import Tensor

from attenua.data.draws import generator

__all__ = ["Blind", "bicubic", "blur", "crop_to_multiple", "enlarge", "gaussian", "jpeg", "noise"]

_STREAM = 1  # of the pictures' generators: masks of the same seed and index draw from another


def crop_to_multiple(image: Tensor, scale: int) -> Tensor:
    """The largest upper left part of [..., H, W] whose height and width are multiples of `scale` (no copy).

    Raises ValueError for scale < 1 and a picture smaller than that.
    """
    if scale < 1:
        raise ValueError(f"scale must be at least 1, not {scale}")
    height, width = (side - side % scale for side in image.shape[-2:])
    if not height or not width:
        raise ValueError(f"a picture of {image.shape[-1]} x {image.shape[-2]} pixels is too small for scale {scale}")
    return image[..., :height, :width]


def bicubic(image: Tensor, scale: int) -> Tensor:
    """Reduce by a whole number with Pillow's bicubic, which widens the kernel by the scale: [3, H/scale, W/scale].

    The degradation of the benchmarks (as Matlab's imresize, up to rounding). Raises ValueError where the sides are no
    multiples of `scale`: see `crop_to_multiple`.
    """
    picture = _picture(image)
    if scale < 1 or picture.width % scale or picture.height % scale:
        raise ValueError(f"{picture.width} x {picture.height} pixels cannot be reduced by {scale}: crop to a multiple")
    return _tensor(picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC))


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Enlarge by a whole number with Pillow's bicubic, the baseline of every comparison: [3, H scale, W scale]."""
    picture = _picture(image)
    if scale < 1:
        raise ValueError(f"scale must be at least 1, not {scale}")
    return _tensor(picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC))


def gaussian(along: float, across: float, angle: float) -> np.ndarray:
    """A Gaussian blur kernel that sums to 1, float64 [K, K] with odd K: isotropic where `along` equals `across`.

    along, across: deviations > 0 in pixels on the axis at `angle` (radians, counter-clockwise from the right) and at
    right angles to it; the kernel reaches to four of the larger. Raises ValueError for deviations that are not > 0.
    """
    if not (along > 0 and across > 0):
        raise ValueError(f"the deviations of a blur must be above 0 pixels, not {along} and {across}")
    radius = int(np.ceil(4 * max(along, across)))
    y, x = np.mgrid[radius : -radius - 1 : -1, -radius : radius + 1]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kernel = np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))
    return np.asarray(kernel / kernel.sum())


def blur(image: Tensor, kernel: np.ndarray) -> Tensor:
    """Correlate every channel with a kernel [K, K], K odd; the picture is mirrored at its borders."""
    _picture(image)
    if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ValueError(f"a blur kernel must have odd sides, not {list(kernel.shape)}")
    values = image.numpy().astype(np.float32)
    return _rounded(correlate(values, kernel[None].astype(np.float32), mode="mirror"))


def noise(image: Tensor, deviation: float, draw: np.random.Generator, *, grey: bool = False) -> Tensor:
    """Add white Gaussian noise of a deviation in 8-bit steps, the same in all channels where `grey`, and clip."""
    _picture(image)
    if not deviation >= 0:
        raise ValueError(f"the deviation of noise must be at least 0, not {deviation}")
    shape = (1, *image.shape[1:]) if grey else tuple(image.shape)
    return _rounded(image.numpy() + deviation * draw.standard_normal(shape))


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Write as JPEG at Pillow's quality 1..95 (colour at half the resolution) and read again."""
    if not 1 <= quality <= 95:
        raise ValueError(f"the quality of JPEG must be from 1 to 95, not {quality}")
    buffer = io.BytesIO()
    _picture(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer, formats=["JPEG"]) as picture:
        return _tensor(picture.convert("RGB"))


@dataclass(frozen=True)
class Blind:
    """A degradation drawn anew for every picture: blur, bicubic reduction, noise and JPEG, in this order.

    scale: how much smaller the result is. blur: range of the deviation in pixels of the original (drawn once if
    isotropic, as half of the blurs are, else once an axis). noise: range of the deviation in 8-bit steps; two of five
    noises are grey. quality: range of JPEG's. Each of the three is left out with probability `skip`.
    Raises ValueError for ranges that are empty or not allowed.
    """

    scale: int = 4
    blur: tuple[float, float] = (0.2, 3.0)
    noise: tuple[float, float] = (1.0, 15.0)
    quality: tuple[int, int] = (30, 95)
    skip: float = 0.2

    def __post_init__(self) -> None:
        limits = (("blur", self.blur, 1e-3, 20), ("noise", self.noise, 0, 255), ("quality", self.quality, 1, 95))
        for name, (low, high), least, most in limits:
            if not least <= low <= high <= most:
                raise ValueError(f"{name} must be a range within {least} .. {most}, not {low} .. {high}")
        if self.scale < 1:
            raise ValueError(f"scale must be at least 1, not {self.scale}")
        if not 0 <= self.skip <= 1:
            raise ValueError(f"skip must be a probability, not {self.skip}")

    def __call__(self, image: Tensor, seed: int, index: int) -> Tensor:
        """Degrade picture `index`, uint8 [3, H, W] with sides that are multiples of the scale, to [3, H/s, W/s]."""
        draw = generator(seed, index, _STREAM)
        blurred, noisy, compressed = draw.random(3) >= self.skip
        result = image
        if blurred:
            isotropic = draw.random() < 0.5
            along, across = draw.uniform(*self.blur, size=2)
            result = blur(result, gaussian(along, along if isotropic else across, draw.uniform(0, np.pi)))
        result = bicubic(result, self.scale)
        if noisy:
            grey = bool(draw.random() < 0.4)
            result = noise(result, draw.uniform(*self.noise), draw, grey=grey)
        if compressed:
            result = jpeg(result, int(draw.integers(self.quality[0], self.quality[1], endpoint=True)))
        return result


def _picture(image: Tensor) -> Image.Image:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"a picture must be uint8 [3, H, W], not {image.dtype} {list(image.shape)}")
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _rounded(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.rint(values).clip(0, 255).astype(np.uint8))
