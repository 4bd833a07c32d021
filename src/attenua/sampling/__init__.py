"""Sampling: grids, solvers, the loop, and noise keyed by image."""

from attenua.sampling.grids import GRIDS, Grid, Karras, LogSNR, Uniform, grid
from attenua.sampling.noise import ImageNoise
from attenua.sampling.sampler import Step, choose_grid, sample, to_bytes
from attenua.sampling.solvers import SOLVERS, Flow, Multistep, Past, Posterior, Released, Solver, solver

__all__ = [
    "GRIDS", "SOLVERS", "Flow", "Grid", "ImageNoise", "Karras", "LogSNR", "Multistep", "Past", "Posterior", "Released",
    "Solver", "Step", "Uniform", "choose_grid", "grid", "sample", "solver", "to_bytes",
]  # fmt: skip
