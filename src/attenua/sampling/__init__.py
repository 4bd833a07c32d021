"""Sampling: grids, solvers, the loop, and noise keyed by image."""

from attenua.sampling.fit import Fit, check_fit, fit
from attenua.sampling.fitted import Fitted, fingerprint
from attenua.sampling.grids import GRIDS, Grid, Karras, LogSNR, Plan, Times, Uniform, grid
from attenua.sampling.multistep import Multistep, Multistep3, SDEMultistep, UniPC2, UniPC3
from attenua.sampling.noise import ImageNoise
from attenua.sampling.sampler import Step, choose_grid, sample, to_bytes
from attenua.sampling.singlestep import Heun
from attenua.sampling.solvers import Ancestral, Flow, Past, Posterior, Released, Solver
from attenua.sampling.suite import SOLVERS, solver

__all__ = [
    "GRIDS", "SOLVERS", "Ancestral", "Fit", "Fitted", "Flow", "Grid", "Heun", "ImageNoise", "Karras", "LogSNR",
    "Multistep", "Multistep3", "Past", "Plan", "Posterior", "Released", "SDEMultistep", "Solver", "Step", "Times",
    "UniPC2", "UniPC3", "Uniform", "check_fit", "choose_grid", "fingerprint", "fit", "grid", "sample", "solver",
    "to_bytes",
]  # fmt: skip
