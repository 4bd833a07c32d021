"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable

from attenua.config import ModelConfig
from attenua.tasks.edges import Edges
from attenua.tasks.inpainting import Inpainting
from attenua.tasks.restoration import SuperResolution
from attenua.tasks.saliency import Saliency
from attenua.tasks.task import Task

TASKS: dict[str, Callable[[ModelConfig], Task]] = {
    SuperResolution.name: lambda config: SuperResolution(config.task.scale, config.task.degradation),
    Inpainting.name: lambda config: Inpainting(),
    Edges.name: lambda config: Edges(config.task.annotators),
    Saliency.name: lambda config: Saliency(),
}
"""Every conditional task: from a model's configuration to the task."""


def task_of(config: ModelConfig) -> Task:
    """Return the task of a model. Raises ValueError for one that only generates, or a network that does not fit."""
    if config.task.name not in TASKS:
        raise ValueError(f"a model for {config.task.name} takes no picture; tasks with one: {', '.join(TASKS)}")
    task = TASKS[config.task.name](config)
    task.check(config)
    return task
