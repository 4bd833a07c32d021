"""Holes to fill: free-form strokes and boxes in three widths, fixed by seed and index, and masks from picture files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from attenua import images
from attenua.data.draws import generator

__all__ = ["MAX_RATIO", "WIDTHS", "boxes", "mask_set", "read", "strokes"]

WIDTHS = ("thin", "medium", "thick")
"""The width classes."""

MAX_RATIO = 0.6
"""The largest share of a picture that a hole may be asked to take."""

_STROKE = {"thin": (0.012, 0.03), "medium": (0.04, 0.08), "thick": (0.1, 0.2)}  # diameter, in shorter sides
_BOX = {"thin": (0.05, 0.15), "medium": (0.15, 0.35), "thick": (0.35, 0.75)}  # side of a box, in sides of the picture
_LOOSE = 0.01  # how far the hole may stay below the ratio that was drawn, as a share of the picture
_STREAMS = {"strokes": 2, "boxes": 3}  # of the pictures' generators
_LEAST = 8  # pixels of the shorter side: below that the widths are no widths


def strokes(
    height: int, width: int, seed: int, index: int, width_class: str, ratio: tuple[float, float] = (0.1, 0.5)
) -> Tensor:
    """A mask of random strokes, bool [height, width], True in the hole; fixed by its arguments alone.

    Round pens of one of WIDTHS (relative to the shorter side, so a mask of any size looks alike) walk on with turning
    directions until the hole's share of the picture is one drawn evenly from `ratio`, up to 0.01 (or one pixel) less.
    Raises ValueError for another width class, a side below 8 pixels, a range outside (0, MAX_RATIO], a seed
    or index outside 0 .. 2^64 - 1.
    """
    low, high = _limits(height, width, width_class, _STROKE, ratio)
    draw = generator(seed, index, 8 * WIDTHS.index(width_class) + _STREAMS["strokes"])
    side, goal = min(height, width), draw.uniform(*ratio)
    canvas = _Canvas(height, width, goal)
    while not canvas.done:
        pen = side * draw.uniform(low, high)
        count = int(draw.integers(4, 16))
        heading = draw.uniform(0, 2 * np.pi) + np.cumsum(draw.normal(0, 0.8, count))
        steps = side * draw.uniform(0.04, 0.25, count) * np.stack([np.cos(heading), np.sin(heading)])
        path = draw.uniform(0, 1, 2)[:, None] * [[width], [height]] + np.cumsum(steps, axis=1)
        canvas.stroke(path.T, pen)
    return canvas.mask()


def boxes(
    height: int, width: int, seed: int, index: int, width_class: str, ratio: tuple[float, float] = (0.1, 0.5)
) -> Tensor:
    """A mask of upright rectangles, bool [height, width], True in the hole; fixed by its arguments alone.

    Their sides are 5 to 15 % (thin), 15 to 35 % (medium) or 35 to 75 % (thick) of the picture's; they are laid, and may
    overlap each other and the borders, until the hole's share is one drawn evenly from `ratio`, up to 0.01 (or one
    pixel) less; the last ones are smaller than their class, so as not to be too much. Raises ValueError as `strokes`
    does.
    """
    low, high = _limits(height, width, width_class, _BOX, ratio)
    draw = generator(seed, index, 8 * WIDTHS.index(width_class) + _STREAMS["boxes"])
    canvas = _Canvas(height, width, draw.uniform(*ratio))
    while not canvas.done:
        sides = np.maximum(1, np.rint(draw.uniform(low, high, 2) * (width, height)))
        corner = np.floor(draw.uniform(0, 1, 2) * (width, height) - sides / 2)  # half may be outside: borders count
        canvas.box(corner, sides)
    return canvas.mask()


def mask_set(
    count: int, height: int, width: int, seed: int, ratio: tuple[float, float] = (0.1, 0.5), *, first: int = 0
) -> Tensor:
    """The masks `first` .. `first + count - 1` of the inpainting protocol, bool [count, height, width].

    Even numbers are strokes, odd ones boxes; number // 2 runs through thin, medium and thick. Raises ValueError for
    count < 1 and as `strokes` does.
    """
    if count < 1:
        raise ValueError(f"a set must have at least 1 mask, not {count}")
    kinds = (strokes, boxes)
    numbers = range(first, first + count)
    return torch.stack([kinds[i % 2](height, width, seed, i, WIDTHS[i // 2 % 3], ratio) for i in numbers])


def read(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Read a mask from a picture file: bool [H, W], True (the hole) where it is nearer to white than to black.

    What is transparent counts as black, as in white paint on an empty layer. size: the (height, width) that it must
    have. Raises ValueError where it has another, where it is all black (there is nothing to fill) or all white (nothing
    to go by), or where the file is no picture; OSError where it cannot be read.
    """
    grey = images.read(path, under="black").float().mean(0)
    mask = grey >= 127.5
    found = (mask.shape[0], mask.shape[1])
    if size is not None and found != tuple(size):
        raise ValueError(f"{path} is {found[1]} x {found[0]} pixels, but the picture is {size[1]} x {size[0]}")
    if not bool(mask.any()):
        lightest = f" (its lightest level is {float(grey.max()):.0f} of 255)" if bool(grey.any()) else ""
        raise ValueError(f"{path} is all black{lightest}: a mask must be white where the picture is to be filled in")
    if bool(mask.all()):
        raise ValueError(f"{path} is all white: a mask must be black where the picture is to be kept")
    return mask


def _limits(
    height: int, width: int, width_class: str, table: dict[str, tuple[float, float]], ratio: tuple[float, float]
) -> tuple[float, float]:
    """Check what a mask is asked for, and return the range of its width class."""
    if width_class not in table:
        raise ValueError(f"a width class must be one of {', '.join(WIDTHS)}, not {width_class!r}")
    if min(height, width) < _LEAST:
        raise ValueError(f"a mask must be at least {_LEAST} pixels high and wide, not {width} x {height}")
    if not 0 < ratio[0] <= ratio[1] <= MAX_RATIO:
        raise ValueError(f"the hole ratio must be a range within 0 .. {MAX_RATIO}, not {ratio[0]} .. {ratio[1]}")
    return table[width_class]


class _Canvas:
    """A mask that grows by shapes until `goal` of it is hole, and never more: what is too much is made smaller."""

    def __init__(self, height: int, width: int, goal: float) -> None:
        self.area = height * width
        self.goal = max(1, round(goal * self.area))
        self.loose = max(1, int(_LOOSE * self.area))
        self.picture = Image.new("L", (width, height))
        self.filled = 0

    @property
    def done(self) -> bool:
        """Whether the hole is as large as it should be."""
        return self.filled >= max(1, self.goal - self.loose)

    def mask(self) -> Tensor:
        """The hole, bool [H, W]."""
        return torch.from_numpy(np.array(self.picture) > 0)

    def stroke(self, path: np.ndarray, pen: float) -> None:
        """Draw along points [N, 2]; of fewer points, then shorter and thinner, where the hole would be too large."""
        while len(path) > 2 and not self._keep(partial(_stroke, path=path, pen=pen)):
            path = path[: max(2, len(path) // 2)]
        if len(path) > 2:
            return
        start, step = path[0], path[1] - path[0]
        for shrink in 0.5 ** np.arange(16.0):
            path, thick = np.stack([start, start + step * shrink]), pen * min(1.0, 4 * shrink)
            if self._keep(partial(_stroke, path=path, pen=thick)):
                return

    def box(self, corner: np.ndarray, sides: np.ndarray) -> None:
        """Draw a filled rectangle; with sides cut in turn where the hole would be too large."""
        sides = sides.copy()
        while not self._keep(lambda draw: draw.rectangle([*corner, *(corner + sides - 1)], fill=255)):
            longer = np.argmax(sides)
            sides[longer] -= max(1, sides[longer] // 32)
            if sides.max() < 1:
                return

    def _keep(self, shape: Callable[[ImageDraw.ImageDraw], None]) -> bool:
        """Draw, and undo it where the hole becomes larger than allowed."""
        trial = self.picture.copy()
        shape(ImageDraw.Draw(trial))
        filled = trial.histogram()[255]
        if filled > self.goal:
            return False
        self.picture, self.filled = trial, filled
        return True


def _stroke(draw: ImageDraw.ImageDraw, path: np.ndarray, pen: float) -> None:
    """Draw with a round pen: where it is thin, the ends need no rounding."""
    draw.line(path.ravel().tolist(), fill=255, width=max(1, round(pen)))
    radius = pen / 2 - 0.5
    if radius >= 1:
        for x, y in path.tolist():
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
