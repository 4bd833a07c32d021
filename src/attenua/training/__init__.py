"""Training: objective, trainer, averages, checkpoints, several processes."""

from attenua.training.objective import Objective
from attenua.training.trainer import Progress, Trainer, TrainingError, reconstruct, resolve

__all__ = ["Objective", "Progress", "Trainer", "TrainingError", "reconstruct", "resolve"]
