"""A model file in hand: what every task begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attenua import weights
from attenua.config import SamplingConfig
from attenua.model import AttenuationModel
from attenua.process import Process
from attenua.sampling import Fitted, Grid, Solver, Times, choose_grid
from attenua.sampling import solver as solver_named


@dataclass(frozen=True)
class Choice:
    """Network calls, solver and grid."""

    steps: int
    solver: Solver
    grid: Grid


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

    def choose(
        self,
        steps: int | None = None,
        solver: Solver | str | None = None,
        grid: Grid | str | Sequence[float] | None = None,
        eta: float | None = None,
    ) -> Choice:
        """Return how pictures are drawn: what is asked for, and what is best for the model where nothing is.

        steps: network calls (None: the model's own number). solver: None is the model's default with its eta; but where
        no eta and no other grid is named either, and a grid is fitted for `steps` but none of the default solver, it is
        the solver that has one. grid: None is the one fitted for the solver and `steps`, else the solver's own, else
        the model's default. Raises ValueError for an unknown name, an eta beside a solver that has none or its own, and
        where "fitted" is named and there is none.
        """
        calls = self.sampling.steps if steps is None else steps
        rule = self._solver(calls, solver, grid, eta)
        return Choice(calls, rule, self._grid(calls, rule, grid))

    def _solver(
        self,
        calls: int,
        solver: Solver | str | None,
        grid: Grid | str | Sequence[float] | None,
        eta: float | None,
    ) -> Solver:
        if isinstance(solver, Solver):
            if eta is not None:
                raise ValueError(f"eta is {eta!r}, but the solver is made already: give it its eta")
            return solver
        if solver is None and eta is None and (grid is None or grid == Fitted.name):
            fitted = [record.solver for record in self.sampling.fitted if record.steps == calls]
            if fitted and self.sampling.solver not in fitted:
                return solver_named(fitted[0])
        if solver is None or solver == self.sampling.solver:
            return solver_named(self.sampling.solver, self.sampling.eta if eta is None else eta)
        return solver_named(solver, eta)

    def _grid(self, calls: int, rule: Solver, chosen: Grid | str | Sequence[float] | None) -> Grid:
        if chosen is None or chosen == Fitted.name:
            found = Fitted.find(self.sampling.fitted, rule, calls)
            if found is not None:
                return found
        if chosen == Fitted.name:
            known = ", ".join(f"{item.steps} ({item.solver})" for item in self.sampling.fitted) or "none"
            raise ValueError(f"no grid is fitted for {calls} steps of {rule.name!r}; fitted: {known}")
        if chosen is None or isinstance(chosen, str):
            return choose_grid(rule, chosen, self.sampling.grid)
        return chosen if isinstance(chosen, Grid) else Times(tuple(chosen))

    def settings(self, choice: Choice, seed: int) -> dict[str, Any]:
        """Return what a report or a picture says of how it was made."""
        return {
            "model_sha256": self.header.sha256,
            "nfe": choice.steps,
            "solver": choice.solver.name,
            "eta": getattr(choice.solver, "eta", None),
            "grid": list(choice.grid.values) if isinstance(choice.grid, Times) else choice.grid.label,
            "seed": seed,
        }
