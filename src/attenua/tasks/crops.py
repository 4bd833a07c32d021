"""Training from crops of photographs: cut on the device, and made into examples there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from attenua.config import Config
from attenua.data.photographs import PhotoSet
from attenua.networks import Condition
from attenua.tasks.task import Task
from attenua.training.source import Source

MEASURED = 4096
"""Crops on which mu and s_d of the state are measured."""
KNOWN = 0.1
"""How much a known pixel of the state counts in the loss, beside an unknown one."""
CUT = 4
"""Columns of the draws that say where a crop is cut; those of the task come behind them."""

Examples = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(crops, float [B, 3, S, S] in [-1, 1]; draws, float64 [B, K] in [0, 1)) -> (states, pictures that are told)."""


class DrawnSource(Source):
    """Examples that are made from random numbers alone, on the device; mu and s_d are measured on some of them.

    Where a task knows a part of the state (`Task.unknown`), mu and s_d are those of the rest, for that is what the
    network must find; and that rest counts most in the loss.

    side: of a state's crop, in pixels; columns: how many random numbers make an example; measured: on how many
    examples mu and s_d are measured.
    """

    task: Task
    side: int
    columns: int
    measured: ClassVar[int] = MEASURED
    _found: tuple[Tensor, float] | None = None

    @abstractmethod
    def made(self, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return states and the pictures that are told, for rows of draws, float64 [B, columns] in [0, 1)."""

    @abstractmethod
    def move(self, device: torch.device) -> None:
        """Move the data to a device."""

    def _measure(self) -> tuple[Tensor, float]:
        if self._found is None:
            generator = torch.Generator().manual_seed(0)
            total, square, count = torch.zeros(self.task.state_channels, dtype=torch.float64), 0.0, 0
            for _ in range(max(self.measured // 64, 1)):
                draws = torch.rand(64, self.columns, generator=generator, dtype=torch.float64)
                state, picture = self.made(draws, torch.float32)
                unknown = self.task.unknown(picture)
                values = state.double().movedim(1, -1)
                values = values.flatten(0, -2) if unknown is None else values[unknown]
                total += values.sum(0)
                square += float(values.square().sum())
                count += len(values)
            mean = total / count
            self._found = mean, float((square / (len(total) * count) - mean.square().mean()).sqrt())
        return self._found

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
        """Measure the state, then move the data to the device."""
        self._measure()
        self.move(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return which crops are cut, and the task's own random numbers."""
        return torch.rand(batch, self.columns, generator=generator, device=generator.device, dtype=torch.float64)

    def batch(self, rows: Tensor, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Condition]:
        """Return states and their conditions; rows play no part, the crops are drawn."""
        state, picture = self.made(draws, dtype)
        return state, self.task.condition(picture)

    def weigh(self, condition: Condition) -> Tensor | None:
        """Return 1 where the state is unknown and KNOWN elsewhere, over their mean a sample; None: nowhere known."""
        assert condition.picture is not None
        unknown = self.task.unknown(condition.picture)
        if unknown is None:
            return None
        weight = unknown.to(condition.picture.dtype)[:, None] + KNOWN * (~unknown[:, None])
        return weight / weight.mean((1, 2, 3), keepdim=True)

    def preview(self, count: int) -> Condition:
        """Return the conditions of some crops, the same every time."""
        draws = torch.rand(count, self.columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return self.task.condition(self.made(draws.to(self.device), torch.float32)[1])

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the data lies."""

    def show(self, states: Tensor, condition: Condition | None) -> Tensor:
        """Return the outputs of states."""
        assert condition is not None
        assert condition.picture is not None
        return self.task.postprocess(states, condition.picture)


class CropSource(DrawnSource):
    """Crops of photographs, turned and mirrored, and what a task makes of them.

    examples: from crops and `columns` random numbers each to states and pictures; side: of a crop, in pixels; where:
    they are cut from (`PhotoSet.crops`).
    """

    def __init__(
        self,
        task: Task,
        photographs: PhotoSet,
        examples: Examples,
        side: int,
        columns: int = 0,
        where: str = "any",
    ) -> None:
        self.task, self.photographs, self.examples, self.where = task, photographs, examples, where
        self.side, self.columns = side, CUT + columns
        self.name, self.terms = photographs.name, photographs.terms

    def __len__(self) -> int:
        """Return the crops that cover the photographs once."""
        return max(int(self.photographs.sizes.prod(1).sum()) // self.side**2, 1)

    def sha256(self) -> str:
        """Return the checksum of the photographs."""
        return self.photographs.sha256()

    @property
    def device(self) -> torch.device:
        """Where the photographs lie."""
        return self.photographs.pixels.device

    def move(self, device: torch.device) -> None:
        """Move the photographs to a device."""
        self.photographs = self.photographs.to(device)

    def made(self, draws: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return what the task makes of crops."""
        return self.examples(self.cut(draws, dtype), draws[:, CUT:])

    def cut(self, draws: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the crops of draws, [B, 3, side, side] in [-1, 1], drawn by area."""
        return self.photographs.crops(draws[:, :CUT], self.side, self.where).to(dtype) / 127.5 - 1
