"""Training from pictures with maps over the same pixels: both are cut together, on the device."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attenua.data.pairs import DRAWS, Augmentation, PairSet
from attenua.networks import Condition
from attenua.tasks.crops import DrawnSource
from attenua.tasks.task import Task


class PairSource(DrawnSource):
    """Crops of pictures, which are told, and of their maps, which are the states, both in [-1, 1]."""

    columns = DRAWS
    measured: ClassVar[int] = 1024

    def __init__(self, task: Task, pairs: PairSet, side: int, augmentation: Augmentation) -> None:
        self.task, self.pairs, self.side, self.augmentation = task, pairs, side, augmentation
        self.name, self.terms = pairs.name, pairs.terms

    def __len__(self) -> int:
        """Return the crops that cover the pictures once."""
        return max(int(self.pairs.sizes.prod(1).sum()) // self.side**2, 1)

    def sha256(self) -> str:
        """Return the checksum of pictures and maps."""
        return self.pairs.sha256()

    @property
    def device(self) -> torch.device:
        """Where the pairs lie."""
        return self.pairs.pixels.device

    def move(self, device: torch.device) -> None:
        """Move the pairs to a device."""
        self.pairs = self.pairs.to(device)

    def made(self, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return maps, [B, 1, S, S], and pictures, [B, 3, S, S]; every pair is drawn as often as any other."""
        pictures, maps = self.pairs.crops(draws, self.side, self.augmentation)
        return maps.to(dtype) / 127.5 - 1, pictures.to(dtype) / 127.5 - 1

    def show(self, states: Tensor, condition: Condition | None) -> Tensor:
        """Return the maps of states as grey pictures of three channels."""
        return super().show(states, condition).expand(-1, 3, -1, -1)
