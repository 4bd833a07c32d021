"""Averages of weights with the power-function profile, and their reconstruction after training (EDM2, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from attenua.config import LARGEST_WIDTH


@lru_cache
def exponent(width: float) -> float:
    """Return the exponent gamma of the profile of a relative width (Karras et al. 2024, eq. 123 ff.).

    width: deviation of the profile over the run's length, 0 < width < LARGEST_WIDTH:
    width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)). Raises ValueError outside.
    """
    if not 0 < width < LARGEST_WIDTH:
        raise ValueError(f"EMA width is {width}; allowed is 0 < width < {LARGEST_WIDTH}")
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(np.max(np.real(roots)))


def decay(width: float, images: int, batch: int) -> float:
    """Return the factor on the old average in the step that ends at `images`: (1 - batch/images)^(gamma + 1)."""
    return float((1 - batch / images) ** (exponent(width) + 1))


class Average:
    """One running average of a list of tensors, on their devices and in their types (at least float32)."""

    def __init__(self, width: float, tensors: Sequence[Tensor]) -> None:
        exponent(width)
        self.width = width
        self.tensors = [item.detach().clone().to(torch.promote_types(item.dtype, torch.float32)) for item in tensors]

    @torch.no_grad()
    def update(self, tensors: Sequence[Tensor], images: int, batch: int) -> None:
        """Take in the tensors after the step that ends at `images`."""
        current = [item.detach() for item in tensors]
        torch._foreach_lerp_(self.tensors, current, 1 - decay(self.width, images, batch))


@dataclass(frozen=True)
class Profile:
    """The weight of a moment tau of training in an average: (gamma + 1) tau^gamma / images^(gamma + 1)."""

    images: float
    gamma: float

    def dot(self, other: Profile) -> float:
        """Return the inner product of two profiles, in closed form."""
        first = min(self.images, other.images)
        power = self.gamma + other.gamma + 1
        scale = (first / self.images) ** self.gamma * (first / other.images) ** other.gamma
        return float((self.gamma + 1) * (other.gamma + 1) / power * scale * first / (self.images * other.images))


def reconstruction(stored: Sequence[tuple[int, float]], images: int, width: float) -> list[float]:
    """Return the weights of stored averages that best make the average of another width at `images` (EDM2, sec. 3.2).

    stored: (images, width) of each snapshot. Raises ValueError with no snapshot or none up to `images`.
    """
    if not stored or min(moment for moment, _ in stored) > images:
        raise ValueError(f"no stored average lies at or before {images} images")
    profiles = [Profile(moment, exponent(kept)) for moment, kept in stored]
    target = Profile(images, exponent(width))
    matrix = np.array([[first.dot(second) for second in profiles] for first in profiles])
    aim = np.array([profile.dot(target) for profile in profiles])
    scale = np.sqrt(np.diag(matrix))
    weights, *_ = np.linalg.lstsq(matrix / np.outer(scale, scale), aim / scale, rcond=None)
    return [float(weight) for weight in weights / scale]
