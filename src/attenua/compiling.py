"""What torch.compile should take apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

__all__ = ["glue"]

P = ParamSpec("P")
R = TypeVar("R")


def glue(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function as one that torch.compile leaves as it is, while it compiles what the function calls.

    For loops over small pieces: as a whole they would be a graph of thousands of operations, which takes minutes to
    compile; a piece takes seconds, and serves every turn of the loop.
    """
    return cast("Callable[P, R]", torch.compiler.disable(function, recursive=False))  # type: ignore[no-untyped-call]
