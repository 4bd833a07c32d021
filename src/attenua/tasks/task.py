"""What a task is: which picture a network is told, what its state means, and what it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from attenua.config import Config, ModelConfig
from attenua.data.folder import OnSkip
from attenua.networks import Condition
from attenua.training.source import Source


class Task(ABC):
    """A conditional task: one file with one such class, and a line in tasks/registry.py.

    A picture is what the network is told, float [B, C', h, w]; the state has `scale` times its sides and is float
    [B, C, H, W]; an output is what a user gets, [B, C, H, W] in [-1, 1].
    """

    name: ClassVar[str]
    """The task's name in configurations and in `attenua train`."""
    state_channels: ClassVar[int] = 3
    picture_channels: ClassVar[int] = 3
    tile: ClassVar[int] = 256
    """Side of the tiles of a picture unless a user asks for others, in its pixels."""
    scale: int = 1

    def condition(self, picture: Tensor) -> Condition:
        """Return what the network is told of a picture."""
        return Condition(picture=picture)

    def unknown(self, picture: Tensor) -> Tensor | None:
        """Return where the network is needed, bool [B, H, W] of the state; None is everywhere.

        Elsewhere the state (with mu) must be zero, and the output known from the picture alone.
        """
        return None

    @abstractmethod
    def postprocess(self, state: Tensor, picture: Tensor) -> Tensor:
        """Return the output of a final state (with mu) for its picture, as `condition` has it."""

    @abstractmethod
    def dataset(self, path: Path, config: Config, *, strict: bool = False, on_skip: OnSkip | None = None) -> Source:
        """Return the training set of a folder or archive.

        Files that cannot be used are told to on_skip and left out; with strict they raise ValueError.
        """

    def check(self, config: ModelConfig) -> None:
        """Raise ValueError where a model is not one for this task."""
        if config.task.name != self.name:
            raise ValueError(f"task.name is {config.task.name!r}; for this training set it must be {self.name!r}")
        network = config.network
        found = (network.channels, network.condition_channels, network.condition_scale)
        wanted = (self.state_channels, self.picture_channels, self.scale)
        if found != wanted:
            names = ("channels", "condition_channels", "condition_scale")
            told = ", ".join(f"{name} {value}" for name, value in zip(names, wanted, strict=True))
            raise ValueError(f"{self.name} needs a network with {told}, not {', '.join(map(str, found))}")
