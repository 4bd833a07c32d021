"""Fitted grids: times and weights that were found for one model, and a check that it is that model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from attenua.config import FittedGrid, ModelConfig, to_dict
from attenua.model import AttenuationModel
from attenua.process import Process
from attenua.sampling.grids import Grid, Plan, check
from attenua.sampling.multistep import Weighted
from attenua.sampling.solvers import Solver
from attenua.sampling.tiles import TiledModel

SLICE = 64
"""Numbers of every tensor that enter a fingerprint."""


def fingerprint(model: AttenuationModel | TiledModel) -> str:
    """Return 16 hexadecimal digits that tell a network with its process, s_d and combination from all others.

    The same for a model file on every device; another for other numbers at rest (int8, float16), as predictions are.
    """
    if isinstance(model, TiledModel):
        model = model.model
    about = [json.dumps(changed(model.config), sort_keys=True), _told(model.process), model.combination]
    digest = hashlib.sha256("\n".join(about).encode())
    tensors = [tensor.detach().flatten()[:SLICE].float() for _, tensor in sorted(model.state_dict().items())]
    digest.update(torch.cat(tensors).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _told(process: Process) -> str:
    """Return what tells a process from others: a function of the user's own by its values, not by where it lies."""
    text = re.sub(" at 0x[0-9a-f]+", "", repr(process))
    if text == repr(process):
        return text
    times = torch.linspace(0, 1, 17, dtype=torch.float64)
    values = torch.stack([process.a(times), process.sigma(times)]).flatten().tolist()
    return f"{text} {[round(value, 9) for value in values]}"


def changed(config: ModelConfig) -> dict[str, Any]:
    """Return the fields that differ from their defaults: a field that comes with a later version changes nothing."""
    defaults = {key: value for key, value in to_dict(ModelConfig()).items() if isinstance(value, dict)}
    found: dict[str, Any] = {"s_d": config.s_d}
    for section, fields in defaults.items():
        own = to_dict(config)[section]
        found |= {f"{section}.{key}": value for key, value in own.items() if value != fields[key]}
    return found


@dataclass(frozen=True)
class Fitted(Grid):
    """A grid that was found for one model, one solver and one number of steps."""

    record: FittedGrid
    name: ClassVar[str] = "fitted"

    @classmethod
    def find(cls, records: Iterable[FittedGrid], rule: Solver, steps: int) -> Fitted | None:
        """Return the grid for a rule as it is by default and a number of network calls, or None."""
        for record in records:
            if (record.solver, record.steps) == (rule.name, steps) and rule == type(rule)():
                return cls(record, mean=record.mean)
        return None

    @property
    def label(self) -> str:
        """The name."""
        return self.name

    def points(self, process: Process, s_d: float, steps: int) -> Tensor:
        """Return the times; process and s_d play no part (`plan` checks that they are the right ones)."""
        return torch.tensor(self.record.times, dtype=torch.float64)

    def plan(self, model: AttenuationModel | TiledModel, rule: Solver, calls: int) -> Plan:
        """Return the times and rules. Raises ValueError for another model, solver or number of calls."""
        record = self.record
        if (record.solver, record.steps) != (rule.name, calls):
            fitted = f"{record.steps} steps of {record.solver!r}"
            raise ValueError(f"this grid is fitted for {fitted}; it does not serve {calls} steps of {rule.name!r}")
        if record.model != (own := fingerprint(model)):
            raise ValueError(
                f"the grid fitted for {calls} steps belongs to another model or process ({record.model}, not {own}); "
                "name a grid, or fit one with attenua fit-grid"
            )
        times = check([*record.times, 0.0])
        rules = rule.rules(calls, times[0])
        if len(rules) != len(record.times):
            raise ValueError(f"the fitted grid has {len(record.times)} times; {calls} steps need {len(rules)}")
        return Plan(times, weighted(rules, record.weights), record.mean)


def weighted(rules: list[Solver], weights: tuple[float, ...]) -> list[Solver]:
    """Return the rules with weights of their own, if there are any: as many for each, those of the first rule first.

    Raises ValueError for rules that take none, or another number of them.
    """
    if not weights:
        return rules
    found: list[Solver] = []
    each = len(weights) // len(rules)
    for number, rule in enumerate(rules):
        if not isinstance(rule, Weighted):
            raise ValueError(f"the solver {rule.name!r} takes no fitted weights; 'multistep', deis and ipndm do")
        if each != rule.order - 1:
            raise ValueError(f"the solver {rule.name!r} takes {rule.order - 1} weights a step, not {each}")
        found.append(replace(rule, weights=weights[number * each : (number + 1) * each]))
    return found
