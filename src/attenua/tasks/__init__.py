"""Tasks: what goes in, what comes out, and how it is measured."""

from attenua.tasks.generation import Generation, load

__all__ = ["Generation", "load"]
