"""Unconditional (or class-conditional) generation: a model file in hand, pictures out, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attenua import weights
from attenua.config import SamplingConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import Process
from attenua.sampling import Fitted, Grid, Solver, Step, choose_grid, sample, to_bytes
from attenua.sampling import solver as solver_named
from attenua.shapes import Bytes

BATCH = {"cpu": 32, "cuda": 512, "mps": 64}
"""Pictures a network call, by type of device."""


class Generation:
    """A model that generates: what `attenua.load` returns.

    model: the AttenuationModel; header: what its file says (configuration, record, size, SHA-256); sampling: the
    defaults of `sample`. A process of the user's own may replace the configured one. Raises ValueError where the
    tensors do not fit the configuration, or are not finite.
    """

    def __init__(self, path: Path, device: torch.device | None = None, process: Process | None = None) -> None:
        content = weights.read(path)
        self.header = weights.read_header(path)
        self.sampling: SamplingConfig = content.sampling
        self.model = AttenuationModel(content.config, process)
        expected = {f"network.{key}": tuple(value.shape) for key, value in self.model.network.named_parameters()}
        expected |= {"mu": tuple(self.model.mu.shape), "data_mean": tuple(self.model.data_mean.shape)}
        try:
            weights.compare(expected, {key: tuple(value.shape) for key, value in content.tensors.items()})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        broken = [key for key, value in content.tensors.items() if not bool(torch.isfinite(value).all())]
        if broken:
            raise ValueError(f"{path} is damaged: {broken[0]} has values that are no finite numbers")
        self.model.load_state_dict(dict(content.tensors))
        self.model.requires_grad_(False)
        self.model.eval()
        self.model.to(device or torch.device("cpu"))
        self.model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

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
        """Yield the pictures of `sample` batch by batch, on the CPU: memory does not grow with `num`."""
        if num < 1:
            raise ValueError(f"num is {num}; allowed is a whole number from 1")
        size = self.batch_size(batch)
        rule = self.rule(solver, eta)
        chosen = self.times(rule, grid, steps)
        conditions = self._labels(num, labels)
        network = self.model.config.network
        calls = steps if steps is not None else self.sampling.steps
        for start in range(0, num, size):
            rows = range(start, min(start + size, num))
            made = sample(
                self.model,
                (len(rows), network.channels, network.image_size, network.image_size),
                steps=calls,
                seed=seed,
                solver=rule,
                grid=chosen,
                indices=rows,
                condition=None if conditions is None else Condition(labels=conditions[rows.start : rows.stop]),
                callback=callback,
            )
            yield to_bytes(made).cpu()

    def batch_size(self, batch: int | None) -> int:
        """Return the pictures of a network call: `batch`, or what suits the device. Raises ValueError below 1."""
        size = BATCH[self.device.type] if batch is None else batch
        if size < 1:
            raise ValueError(f"batch is {size}; allowed is a whole number from 1")
        return size

    def rule(self, solver: Solver | str | None, eta: float | None) -> Solver:
        """Return the solver for a name (None: the model's default, with its eta where none is given)."""
        if isinstance(solver, Solver):
            return solver
        if solver is None or solver == self.sampling.solver:
            return solver_named(self.sampling.solver, self.sampling.eta if eta is None else eta)
        return solver_named(solver, eta)

    def times(
        self, rule: Solver, grid: Grid | str | Sequence[float] | None, steps: int | None = None
    ) -> Grid | Sequence[float]:
        """Return the grid for a choice: None is the one fitted for `steps` (None: the model's own number of them).

        Without such a one it is the solver's own, else the model's default. Raises ValueError where "fitted" is named
        and there is none.
        """
        if grid is None or grid == Fitted.name:
            found = Fitted.find(self.sampling.fitted, rule, self.sampling.steps if steps is None else steps)
            if found is not None:
                return found
        if grid == Fitted.name:
            known = ", ".join(f"{item.steps} ({item.solver})" for item in self.sampling.fitted) or "none"
            raise ValueError(f"no grid is fitted for {steps} steps of {rule.name!r}; fitted: {known}")
        if grid is None or isinstance(grid, str):
            return choose_grid(rule, grid or rule.grid or self.sampling.grid)
        return grid

    def _labels(self, num: int, labels: Sequence[int] | None) -> Tensor | None:
        classes = self.model.config.network.classes
        if not classes:
            if labels is not None:
                raise ValueError("this model has no classes; it takes no labels")
            return None
        values = [index % classes for index in range(num)] if labels is None else list(labels)
        if len(values) != num or not all(0 <= value < classes for value in values):
            raise ValueError(f"labels must be {num} numbers from 0 to {classes - 1}")
        return torch.tensor(values, device=self.device)

    def settings(self, steps: int | None, rule: Solver, grid: Grid | Sequence[float], seed: int) -> dict[str, Any]:
        """Return what a report or a picture says of how it was made."""
        return {
            "model_sha256": self.header.sha256,
            "nfe": steps if steps is not None else self.sampling.steps,
            "solver": rule.name,
            "eta": getattr(rule, "eta", None),
            "grid": grid.label if isinstance(grid, Grid) else list(grid),
            "seed": seed,
        }


def load(name: str, device: str | torch.device = "cpu", process: Process | None = None) -> Generation:
    """Return a model by name (see `attenua models`) or path, ready to sample.

    device: cpu, cuda, cuda:N or mps; process: for a law of the user's own. Raises ValueError on an unknown name or a
    damaged file, FileNotFoundError where there is no file.
    """
    return Generation(weights.find(name), torch.device(device), process)
