"""How far filled pictures are, as a set, from real ones: KID, and FID where there are enough of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attenua import weights
from attenua.data import masks, photographs
from attenua.data.folder import OnSkip
from attenua.metrics.generation import Extractor, Progress, Reference, score

__all__ = ["Fill", "Filled", "central"]

Fill = Callable[[Tensor, Tensor], Tensor]
"""From a picture, uint8 [3, H, W] with 0 in its hole, and the hole, bool [H, W], to a picture, uint8 [3, H, W]."""

REFERENCE = 2048
"""Training pictures that filled ones are measured against: the fewest that FID takes."""

_BATCH = 16


@dataclass
class Filled:
    """Held-out pictures whose holes are filled, against training pictures: squares from the middle of both.

    data: with a part "train" and a part "test" (`photographs.chosen`: LFW, and no person is in both); side: of the
    squares; num: pictures to fill (None: every held-out one once; more than there are: they come again with other
    holes); reference_num: training pictures, evenly taken. Picture i has mask i of `masks.mask_set`, seed 0.
    Raises ValueError where the data have no such parts, or num or reference_num is below 2.
    """

    data: Path
    side: int
    extractor: Extractor
    num: int | None = None
    reference_num: int = REFERENCE
    strict: bool = False
    on_skip: OnSkip | None = None

    def __post_init__(self) -> None:
        if not photographs.has_split(self.data):
            raise ValueError(f"{self.data} has no parts train and test, and KID needs both (LFW has them)")
        for name, value in (("num", self.num), ("reference-num", self.reference_num)):
            if value is not None and value < 2:
                raise ValueError(f"{name} is {value}; allowed is a whole number from 2")
        self._reference: Reference | None = None

    @property
    def count(self) -> int:
        """How many pictures are filled, as far as none is too small."""
        if self.num is not None:
            return self.num
        with photographs.chosen(self.data, "test") as entries:
            return len(entries)

    def reference(self, progress: Progress | None = None) -> Reference:
        """Return the training pictures' features, computed once a set of pictures and kept in the user's cache."""
        if self._reference is None:
            digest = hashlib.sha256()
            for picture in self._squares("train", self.reference_num):
                digest.update(picture.numpy().data)
            self._reference = Reference.cached(
                weights.cache() / "references",
                lambda: _batches(self._squares("train", self.reference_num)),
                self.extractor,
                data=f"{self.data.resolve().name}-train",
                sha256=digest.hexdigest(),
                progress=progress,
            )
        return self._reference

    def score(self, fill: Fill | None, progress: Progress | None = None) -> dict[str, float]:
        """Return count, kid, kid_deviation and, from 2,048 pictures on both sides, fid; see `metrics.generation.score`.

        fill: what fills a hole; None: the pictures as they are, the best that any filling can get.
        """
        reference = self.reference()
        truths = list(self._squares("test", self.num))
        if not truths:
            raise ValueError(f"{self.data} has no held-out picture of at least {self.side} x {self.side} pixels")
        count = len(truths) if self.num is None else self.num
        size = min(1000, count, reference.statistics.count)
        return score(
            _batches(self._made(truths, count, fill)), reference, self.extractor, kid_size=size, progress=progress
        )

    def _made(self, truths: list[Tensor], count: int, fill: Fill | None) -> Iterator[Tensor]:
        for index in range(count):
            truth = truths[index % len(truths)]
            hole = masks.mask_set(1, self.side, self.side, seed=0, first=index)[0]
            yield truth if fill is None else fill(torch.where(hole, torch.zeros_like(truth), truth), hole)

    def _squares(self, split: str, num: int | None) -> Iterator[Tensor]:
        read = photographs.read(self.data, split=split, num=num, strict=self.strict, on_skip=self.on_skip)
        for _, picture in read:
            if min(picture.shape[-2:]) >= self.side:
                yield central(picture, self.side).contiguous()


def central(picture: Tensor, side: int) -> Tensor:
    """Return the square in the middle of a picture [C, H, W]."""
    top, left = (picture.shape[-2] - side) // 2, (picture.shape[-1] - side) // 2
    return picture[..., top : top + side, left : left + side]


def _batches(pictures: Iterator[Tensor]) -> Iterator[Tensor]:
    held: list[Tensor] = []
    for picture in pictures:
        held.append(picture)
        if len(held) == _BATCH:
            yield torch.stack(held)
            held = []
    if held:
        yield torch.stack(held)
