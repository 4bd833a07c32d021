"""Every solver that a command can name."""

from __future__ import annotations

from attenua.sampling.multistep import (
    DEIS2,
    DEIS3,
    DEIS4,
    IPNDM2,
    IPNDM3,
    IPNDM4,
    Multistep,
    Multistep3,
    SDEMultistep,
    UniPC2,
    UniPC3,
)
from attenua.sampling.singlestep import Heun
from attenua.sampling.solvers import Ancestral, Flow, Posterior, Released, Solver

SOLVERS: dict[str, type[Solver]] = {
    rule.name: rule
    for rule in (
        Multistep,
        Flow,
        Posterior,
        Released,
        Ancestral,
        Heun,
        Multistep3,
        SDEMultistep,
        UniPC2,
        UniPC3,
        DEIS2,
        DEIS3,
        DEIS4,
        IPNDM2,
        IPNDM3,
        IPNDM4,
    )
}
"""Every solver by name."""


def solver(name: str, eta: float | None = None) -> Solver:
    """Return the solver of that name; eta None is its own. Raises ValueError on an unknown name or an unfit eta."""
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; known: {', '.join(SOLVERS)}")
    rule = SOLVERS[name]
    if eta is None:
        return rule()
    if not issubclass(rule, Posterior):
        raise ValueError(f"the solver {name!r} takes no eta, but eta is {eta!r}; use the solver posterior")
    return rule(eta=eta)
