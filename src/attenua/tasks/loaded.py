"""A model file in hand: what every task begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from attenua import weights
from attenua.config import SamplingConfig
from attenua.model import AttenuationModel
from attenua.process import Process
from attenua.sampling import Fitted, Grid, Solver, choose_grid
from attenua.sampling import solver as solver_named


class Loaded:
    """A model of a file, ready to sample.

    model: the AttenuationModel; header: what its file says (configuration, record, size, SHA-256); sampling: the
    defaults of sampling. A process of the user's own may replace the configured one. Raises ValueError where the
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

    def rule(
        self,
        solver: Solver | str | None,
        eta: float | None,
        *,
        steps: int | None = None,
        grid: Grid | str | Sequence[float] | None = None,
    ) -> Solver:
        """Return the solver for a name (None: the model's default, with its eta where none is given).

        Where neither a solver nor an eta nor another grid is named, and a grid is fitted for `steps` (None: the model's
        own number of them) but none of the default solver, it is the solver that has one. Raises ValueError for an
        unknown name, and an eta beside a solver that has none, or its own.
        """
        if isinstance(solver, Solver):
            if eta is not None:
                raise ValueError(f"eta is {eta!r}, but the solver is made already: give it its eta")
            return solver
        if solver is None and eta is None and (grid is None or grid == Fitted.name):
            calls = self.sampling.steps if steps is None else steps
            fitted = [record.solver for record in self.sampling.fitted if record.steps == calls]
            if fitted and self.sampling.solver not in fitted:
                return solver_named(fitted[0])
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
        calls = self.sampling.steps if steps is None else steps
        if grid is None or grid == Fitted.name:
            found = Fitted.find(self.sampling.fitted, rule, calls)
            if found is not None:
                return found
        if grid == Fitted.name:
            known = ", ".join(f"{item.steps} ({item.solver})" for item in self.sampling.fitted) or "none"
            raise ValueError(f"no grid is fitted for {calls} steps of {rule.name!r}; fitted: {known}")
        if grid is None or isinstance(grid, str):
            return choose_grid(rule, grid, self.sampling.grid)
        return grid

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
