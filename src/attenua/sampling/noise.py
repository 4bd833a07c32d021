"""Noise that belongs to an image: draw k of image i depends on (seed, i, k) alone, never on a batch or a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class ImageNoise:
    """Standard normal draws for a batch of images, each from its own counter-based generator (Philox, 128-bit key).

    seed and indices (the images' numbers): 0 <= number < 2^64, ValueError otherwise; shape: [C, H, W]. Every call gives
    the next draw, float32 [B, C, H, W], made on the CPU and moved, so that batch size, order and number of devices
    leave it bit-equal.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], shape: tuple[int, int, int], device: torch.device | None = None
    ) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}; allowed is a whole number from 0 to 2^64 - 1")
        for index in indices:
            if not 0 <= index < 2**64:
                raise ValueError(f"image number {index}; allowed is a whole number from 0 to 2^64 - 1")
        self.seed, self.indices, self.shape = seed, list(indices), shape
        self.device = device or torch.device("cpu")
        self.draws = 0

    def __call__(self) -> Tensor:
        """Return the next draw of every image."""
        batch = np.empty((len(self.indices), *self.shape), dtype=np.float32)
        for row, index in zip(batch, self.indices, strict=True):
            key = np.array([self.seed, index], dtype=np.uint64)
            counter = np.array([0, 0, 0, self.draws], dtype=np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
            generator.standard_normal(out=row, dtype=np.float32)
        self.draws += 1
        return torch.from_numpy(batch).to(self.device)
