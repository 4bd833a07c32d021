"""Tasks: what goes in, what comes out, and how it is measured."""

from attenua.tasks.conditional import Conditional, load_conditional
from attenua.tasks.generation import Generation, load
from attenua.tasks.registry import TASKS, task_of
from attenua.tasks.task import Task

__all__ = ["TASKS", "Conditional", "Generation", "Task", "load", "load_conditional", "task_of"]
