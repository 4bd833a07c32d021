"""A set of pictures in memory, with the figures about it that a model needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["ImageSet"]

_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Pictures of one size, their labels if they have any, and the terms under which they may be used.

    images: uint8 [N, C, H, W], 0..255; picture value = byte / 127.5 - 1. labels: int64 [N], indices into `classes`, or
    None. Raises ValueError if the tensors have another type or shape.
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    name: str
    terms: str

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or not self.images.numel():
            found = f"{self.images.dtype} {list(self.images.shape)}"
            raise ValueError(f"images must be a non-empty uint8 tensor [N, C, H, W], not {found}")
        if self.labels is None:
            return
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise ValueError(f"labels must be int64 [{len(self.images)}], one a picture, not {found}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(f"labels run from {low} to {high}, but there are {len(self.classes)} classes")

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.images)

    def sha256(self) -> str:
        """The SHA-256 (hex) of the pictures' bytes in the order [N, C, H, W]."""
        digest = hashlib.sha256()
        for chunk in self._chunks():
            digest.update(chunk.numpy().tobytes())
        return digest.hexdigest()

    def _chunks(self) -> Iterator[Tensor]:
        """The pictures in parts small enough for wider types."""
        return (self.images[start : start + _CHUNK] for start in range(0, len(self.images), _CHUNK))

    @cached_property
    def _histogram(self) -> Tensor:
        """How often each byte occurs in each channel, int64 [C, 256]: exact, so all moments below are too."""
        counts = torch.zeros(self.images.shape[1], 256, dtype=torch.int64)
        for chunk in self._chunks():
            for channel in range(len(counts)):
                counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
        return counts

    def mean(self) -> Tensor:
        """The mean of each channel in picture values, float64 [C], within [-1, 1]."""
        counts = self._histogram.double()
        return (counts @ _values()) / counts.sum(1)

    def deviation(self, mean: Tensor | None = None) -> float:
        """s_d: the root of the mean square of (picture - mean), over all channels and pixels together.

        mean: [C] in picture values; None: this set's own.
        """
        mean = self.mean() if mean is None else mean.double()
        if mean.shape != self.images.shape[1:2]:
            raise ValueError(f"mean must have one value a channel, [{self.images.shape[1]}], not {list(mean.shape)}")
        counts = self._histogram.double()
        square = (_values() - mean[:, None]) ** 2
        return float(((counts * square).sum() / counts.sum()).sqrt())

    def data_mean(self) -> Tensor:
        """The mean picture less the mean of each channel, float32 [C, H, W]: E[x0], the best estimate at t = 1."""
        total = torch.zeros(self.images.shape[1:], dtype=torch.int64)
        for chunk in self._chunks():
            total += chunk.sum(0, dtype=torch.int64)
        picture = total.double() / len(self.images) / 127.5 - 1
        return (picture - self.mean()[:, None, None]).float()


def _values() -> Tensor:
    """The picture value of each byte, float64 [256]."""
    return torch.arange(256, dtype=torch.float64) / 127.5 - 1
