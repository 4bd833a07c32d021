"""Unconditional (or class-conditional) generation: a model file in hand, pictures out, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from attenua import weights
from attenua.networks import Condition
from attenua.process import Process
from attenua.sampling import Grid, Solver, Step, sample, to_bytes
from attenua.shapes import Bytes
from attenua.tasks.loaded import Loaded

BATCH = {"cpu": 32, "cuda": 512, "mps": 64}
"""Pictures a network call, by type of device."""


class Generation(Loaded):
    """A model that generates: what `attenua.load` returns; see Loaded.

    Raises ValueError for a model of another task as well.
    """

    def __init__(self, path: Path, device: torch.device | None = None, process: Process | None = None) -> None:
        super().__init__(path, device, process)
        task = self.model.config.task.name
        if task != "generation":
            raise ValueError(f"{path} is a model for {task}, and this needs one that generates")

    def sample(
        self,
        num: int = 16,
        *,
        steps: int | None = None,
        seed: int = 0,
        solver: Solver | str | None = None,
        grid: Grid | str | Sequence[float] | None = None,
        eta: float | None = None,
        batch: int | None = None,
        labels: Sequence[int] | None = None,
        callback: Callable[[Step], None] | None = None,
    ) -> Bytes:
        """Return `num` pictures, uint8 [num, C, H, W], by `steps` network calls each.

        What is None is the model's own default. labels: classes, one a picture (class-conditional models alone; None:
        the classes in turn). Raises ValueError on num < 1 or anything that `attenua.sampling.sample` refuses.
        """
        made = self.batches(
            num,
            steps=steps,
            seed=seed,
            solver=solver,
            grid=grid,
            eta=eta,
            batch=batch,
            labels=labels,
            callback=callback,
        )
        return torch.cat(list(made))

    def batches(
        self,
        num: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        solver: Solver | str | None = None,
        grid: Grid | str | Sequence[float] | None = None,
        eta: float | None = None,
        batch: int | None = None,
        labels: Sequence[int] | None = None,
        callback: Callable[[Step], None] | None = None,
    ) -> Iterator[Bytes]:
        """Return the pictures of `sample` batch by batch, on the CPU: memory does not grow with `num`.

        What is wrong is refused here, before the first picture is asked for.
        """
        if num < 1:
            raise ValueError(f"num is {num}; allowed is a whole number from 1")
        size = self.batch_size(batch)
        choice = self.choose(steps, solver, grid, eta)
        choice.solver.check(self.model.process)
        choice.grid.plan(self.model, choice.solver, choice.steps)
        conditions = self._labels(num, labels)
        network = self.model.config.network

        def made() -> Iterator[Bytes]:
            for start in range(0, num, size):
                rows = range(start, min(start + size, num))
                pictures = sample(
                    self.model,
                    (len(rows), network.channels, network.image_size, network.image_size),
                    steps=choice.steps,
                    seed=seed,
                    solver=choice.solver,
                    grid=choice.grid,
                    indices=rows,
                    condition=None if conditions is None else Condition(labels=conditions[rows.start : rows.stop]),
                    callback=callback,
                )
                yield to_bytes(pictures).cpu()

        return made()

    def batch_size(self, batch: int | None) -> int:
        """Return the pictures of a network call: `batch`, or what suits the device. Raises ValueError below 1."""
        size = BATCH[self.device.type] if batch is None else batch
        if size < 1:
            raise ValueError(f"batch is {size}; allowed is a whole number from 1")
        return size

    def _labels(self, num: int, labels: Sequence[int] | None) -> Tensor | None:
        classes = self.model.config.network.classes
        if not classes:
            if labels is not None:
                raise ValueError("this model has no classes; it takes no labels")
            return None
        values = [index % classes for index in range(num)] if labels is None else list(labels)
        if len(values) != num:
            raise ValueError(f"there are {len(values)} labels for {num} pictures; there must be one a picture")
        wrong = next((value for value in values if not 0 <= value < classes), None)
        if wrong is not None:
            raise ValueError(f"a label must be a whole number from 0 to {classes - 1}, not {wrong}")
        return torch.tensor(values, device=self.device)


def load(name: str, device: str | torch.device = "cpu", process: Process | None = None) -> Generation:
    """Return a model by name (see `attenua models`) or path, ready to sample.

    device: cpu, cuda, cuda:N or mps; process: for a law of the user's own. Raises ValueError on an unknown name or a
    damaged file, FileNotFoundError where there is no file.
    """
    return Generation(weights.find(name), torch.device(device), process)
