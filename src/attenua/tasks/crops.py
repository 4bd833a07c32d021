"""Training from crops of photographs: cut on the device, and made into examples there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attenua.config import Config
from attenua.data.photographs import PhotoSet
from attenua.networks import Condition
from attenua.tasks.task import Task
from attenua.training.source import Source

MEASURED = 4096
"""Crops on which mu and s_d of the state are measured."""
CUT = 4
"""Columns of the draws that say where a crop is cut; those of the task come behind them."""

Examples = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(crops, float [B, 3, S, S] in [-1, 1]; draws, float64 [B, K] in [0, 1)) -> (states, pictures that are told)."""


class CropSource(Source):
    """Crops of photographs, turned and mirrored, and what a task makes of them.

    examples: from crops and `columns` random numbers each to states and pictures; side: of a crop, in pixels.
    """

    def __init__(self, task: Task, photographs: PhotoSet, examples: Examples, side: int, columns: int = 0) -> None:
        self.task, self.photographs, self.examples = task, photographs, examples
        self.side, self.columns = side, columns
        self.name, self.terms = photographs.name, photographs.terms
        self._measured: tuple[Tensor, float] | None = None

    def __len__(self) -> int:
        """Return the crops that cover the photographs once."""
        return max(int(self.photographs.sizes.prod(1).sum()) // self.side**2, 1)

    def sha256(self) -> str:
        """Return the checksum of the photographs."""
        return self.photographs.sha256()

    def _measure(self) -> tuple[Tensor, float]:
        if self._measured is None:
            generator = torch.Generator().manual_seed(0)
            total, square, count = torch.zeros(self.task.state_channels, dtype=torch.float64), 0.0, 0
            for _ in range(max(MEASURED // 64, 1)):
                draws = torch.rand(64, CUT + self.columns, generator=generator, dtype=torch.float64)
                state, _ = self.batch(draws[:, 0], draws, torch.float32)
                values = state.double()
                total += values.sum((0, 2, 3))
                square += float(values.square().sum())
                count += values.numel() // len(total)
            mean = total / count
            self._measured = mean, float((square / (len(total) * count) - mean.square().mean()).sqrt())
        return self._measured

    def mean(self) -> Tensor:
        """Return mu of the state."""
        return self._measure()[0]

    def deviation(self) -> float:
        """Return s_d of the state."""
        return self._measure()[1]

    def data_mean(self) -> Tensor:
        """Return zeros: crops have no mean picture of their own."""
        return torch.zeros(self.task.state_channels, self.side, self.side)

    def check(self, config: Config) -> None:
        """Raise ValueError where the network is not one for this task."""
        self.task.check(config.model)

    def place(self, device: torch.device) -> None:
        """Measure the state, then move the photographs to the device."""
        self._measure()
        self.photographs = self.photographs.to(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return which crops are cut, and the task's own random numbers."""
        return torch.rand(batch, CUT + self.columns, generator=generator, device=generator.device, dtype=torch.float64)

    def batch(self, rows: Tensor, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Condition]:
        """Return states and their conditions; rows play no part, the crops are drawn by area."""
        crops = self.photographs.crops(draws[:, :CUT], self.side).to(dtype) / 127.5 - 1
        state, picture = self.examples(crops, draws[:, CUT:])
        return state, self.task.condition(picture)

    def preview(self, count: int) -> Condition:
        """Return the conditions of some crops, the same every time."""
        device = self.photographs.pixels.device
        draws = torch.rand(count, CUT + self.columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return self.batch(draws[:, 0], draws.to(device), torch.float32)[1]

    def show(self, states: Tensor, condition: Condition | None) -> Tensor:
        """Return the outputs of states."""
        assert condition is not None
        assert condition.picture is not None
        return self.task.postprocess(states, condition.picture)
