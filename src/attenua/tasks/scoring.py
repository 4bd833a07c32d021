"""How good a conditional model is, by the published protocol of its task, on a folder of test pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from attenua.data import boundaries, folder, masks, pairs, photographs, saliency
from attenua.data.degrade import crop_to_multiple, enlarge
from attenua.data.folder import OnSkip, reporter
from attenua.data.pairs import PairSet
from attenua.data.photographs import evenly
from attenua.metrics import boundaries as edge_metrics
from attenua.metrics.restoration import psnr, psnr_y, ssim_y
from attenua.metrics.saliency import Saliency
from attenua.reports import Scalar
from attenua.sampling import to_bytes
from attenua.tasks.conditional import Conditional
from attenua.tasks.filling import Fill, Filled, central
from attenua.tasks.restoration import SuperResolution
from attenua.tasks.saliency import enlarge as enlarge_map
from attenua.tasks.saliency import reduce

__all__ = [
    "FACES", "Distance", "Enlarge", "Scoring", "central", "eight_bits", "evenly", "means", "score_enlarged",
    "score_filled",
]  # fmt: skip

Enlarge = Callable[[Tensor], Tensor]
"""From a small picture, uint8 [3, h, w], to a large one, float [3, H, W] in [-1, 1]."""


@runtime_checkable  # so that the tests' type checker can see it
class Distance(Protocol):
    """LPIPS or another distance of pictures."""

    def __call__(self, x: Tensor, y: Tensor, hole: Tensor | None = None) -> Tensor:
        """Return [B] for pictures [B, 3, H, W] in [-1, 1]; of the hole alone, bool [B, H, W], where one is given."""


Report = Callable[[int, int], None]
"""Called with how many outputs are scored, and how many there will be."""

FACES = 100
"""Pictures of the inpainting protocol: even ones with strokes, odd ones with boxes."""


@dataclass
class Scoring:
    """One model on one set of test pictures.

    num: only so many of them (screening; None: all, or the 100 of the inpainting protocol); distance: LPIPS where it
    is wanted; filled: KID of filled pictures where it is wanted; thresholds: of edges, 99 as published. A model is
    scored by its mean in one call ("mean"), and by a sample of `steps` calls, unless that is the mean. Raises
    ValueError on num < 1.
    """

    model: Conditional
    data: Path
    steps: int | None = None
    seed: int = 0
    num: int | None = None
    distance: Distance | None = None
    filled: Filled | None = None
    thresholds: int = 99
    strict: bool = False
    on_skip: OnSkip | None = None
    report: Report = field(default=lambda done, of: None)
    done: int = field(default=0, init=False)
    total: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.num is not None and self.num < 1:
            raise ValueError(f"num is {self.num}; allowed is a whole number from 1")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; allowed is a whole number from 1")

    def run(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        """Return the rows of a report, and its protocol.

        Raises FileNotFoundError or ValueError where the data are not what the task is scored on.
        """
        protocols = {
            "super-resolution": self._enlarged,
            "inpainting": self._filled,
            "edges": self._edges,
            "saliency": self._saliency,
        }
        return protocols[self.model.task.name]()

    # ---- what every task does -------------------------------------------------------------------------------------

    @cached_property
    def _kinds(self) -> list[tuple[bool, dict[str, Scalar]]]:
        """The mean and the sample, each with what its rows say; one call at t = 1 is the mean alone."""
        choice = self.model.choose(self.steps)
        calls = choice.steps
        usual = calls == self.model.sampling.steps and self.seed == 0
        about: dict[str, Scalar] = {
            "model_sha256": self.model.header.sha256,
            "data": self.data.resolve().name,
            "seed": self.seed,
        }
        inner = self.model.model
        first = choice.grid.points(inner.process, inner.config.s_d, calls)[0]
        alone = calls == 1 and float(first) == 1
        mean = {**about, "output": "mean", "nfe": 1, "solver": None, "grid": None, "default": alone and usual}
        if alone:
            return [(True, mean)]
        settings = self.model.settings(choice, self.seed)
        return [(True, mean), (False, {**about, **settings, "output": "sample", "default": usual})]

    def _draw(self, mean: bool, picture: Tensor) -> Tensor:
        output = self.model.draw(picture, steps=self.steps, seed=self.seed, faithful=mean)[0]
        self.done += 1
        self.report(self.done, self.total)
        return output

    def _rows(self, figures: dict[str, float], settings: dict[str, Scalar], count: int) -> list[dict[str, Scalar]]:
        return [{"metric": name, "value": value, "samples": count, **settings} for name, value in figures.items()]

    # ---- restoration ----------------------------------------------------------------------------------------------

    def _enlarged(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        task = self.model.task
        assert isinstance(task, SuperResolution)
        truths = [crop_to_multiple(picture, task.scale) for picture in self._photographs(self.num)]
        interpolated = score_enlarged(truths, task, lambda small: _floats(enlarge(small, task.scale)), self.distance)
        about: dict[str, Scalar] = {"model": None, "data": self.data.resolve().name, "output": "bicubic", "nfe": None}
        rows = self._rows(means(interpolated), {**about, "default": False}, len(truths))
        self.total = len(self._kinds) * len(truths)
        for mean, settings in self._kinds:
            drawn = partial(self._enlarge, mean)
            rows += self._rows(means(score_enlarged(truths, task, drawn, self.distance)), settings, len(truths))
        reduction = "Pillow's bicubic, 8 bit, of the picture cropped to a multiple of the scale"
        if task.degradation == "photo":
            reduction = f"blurred, {reduction}, with noise and JPEG: drawn by seed 0 and the picture's number"
        protocol: dict[str, Scalar] = {"scale": task.scale, "reduction": reduction}
        return rows, {**protocol, "border": task.scale, "luma": "BT.601", "published": self.num is None}

    def _filled(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        rows: list[dict[str, Scalar]] = []
        side = self.model.model.config.network.image_size
        truths = [central(picture, side) for picture in self._photographs(self.num or FACES, least=side)]
        holes = masks.mask_set(len(truths), side, side, seed=0)
        self.total = len(self._kinds) * len(truths) + (0 if self.filled is None else self.filled.count)
        for mean, settings in self._kinds:
            drawn = partial(self._fill, mean)
            rows += self._rows(means(score_filled(truths, holes, drawn, self.distance)), settings, len(truths))
        protocol: dict[str, Scalar] = {"side": side, "holes": "strokes and boxes in turn, 10 to 50 %, seed 0"}
        if self.filled is not None:
            rows += self._set(self.filled)
            protocol["reference_images"] = self.filled.reference().statistics.count
        return rows, {**protocol, "published": len(truths) == FACES}

    def _set(self, filled: Filled) -> list[dict[str, Scalar]]:
        """Return the rows of what is filled as a set: by the sample, or by the mean where there is no sample."""
        mean, settings = self._kinds[-1]
        found = filled.score(partial(self._fill, mean))
        scatter: dict[str, Scalar] = {"deviation": found["kid_deviation"]}
        told = {name: value for name, value in found.items() if name in ("kid", "fid")}
        return [
            {**row, **(scatter if row["metric"] == "kid" else {})}
            for row in self._rows(told, settings, int(found["count"]))
        ]

    def _enlarge(self, mean: bool, small: Tensor) -> Tensor:
        """Return an enlarged picture, as Enlarge does."""
        return self._draw(mean, _floats(small))

    def _fill(self, mean: bool, picture: Tensor, hole: Tensor) -> Tensor:
        """Return a filled picture, as Fill does."""
        told = torch.cat([torch.where(hole, 0.0, _floats(picture)), hole[None].float()])
        return to_bytes(self._draw(mean, told)[None])[0]

    def _photographs(self, count: int | None, least: int = 1) -> list[Tensor]:
        """Pictures of the split "test" where the layout has one, else of the folder or zip; `count` of them, evenly."""
        if photographs.has_split(self.data):
            read = photographs.read(self.data, split="test", strict=self.strict, on_skip=self.on_skip)
        else:  # a folder of test pictures: what is held out from training is what is wanted
            read = folder.read(self.data, strict=self.strict, on_skip=self.on_skip)
        large = [picture for _, picture in read if min(picture.shape[-2:]) >= least]
        if not large:
            raise ValueError(f"{self.data} has no picture of at least {least} x {least} pixels to score on")
        return [large[index] for index in evenly(len(large), count)]

    # ---- maps -----------------------------------------------------------------------------------------------------

    def _edges(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        rows: list[dict[str, Scalar]] = []
        data = boundaries.load(self.data, "test", strict=self.strict, on_skip=self.on_skip)
        chosen = evenly(len(data), self.num)
        self.total = len(self._kinds) * len(chosen)
        for mean, settings in self._kinds:
            drawn = list(self._maps(data, chosen, mean))
            for mode in edge_metrics.MODES:
                figures = edge_metrics.evaluate(drawn, mode=mode, thresholds=self.thresholds)
                rows += self._rows(figures, {**settings, "mode": mode}, len(chosen))
        protocol: dict[str, Scalar] = {"thresholds": self.thresholds, "tolerance": edge_metrics.TOLERANCE}
        whole = self.num is None and self.thresholds == 99
        return rows, {**protocol, "matching": "minimum cost", "published": whole}

    def _maps(self, data: PairSet, chosen: list[int], mean: bool) -> Iterator[tuple[Any, Any]]:
        for index in chosen:
            picture, truth = data.pair(index)
            output = self._draw(mean, _floats(picture))
            yield to_bytes(output[None])[0, 0].numpy(), (truth >= pairs.FOREGROUND).numpy()

    def _saliency(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        tell = reporter(self.strict, self.on_skip)
        found = saliency.files(self.data, "test", tell)
        chosen = [found[index] for index in evenly(len(found), self.num)]
        self.total = len(self._kinds) * len(chosen)
        meters = [Saliency() for _ in self._kinds]
        for _, picture, truth in pairs.read(chosen, tell):  # one at a time: all of DUTS-TE would be 2.4 GB
            told, size = reduce(_floats(picture)), (picture.shape[1], picture.shape[2])
            for (mean, _), meter in zip(self._kinds, meters, strict=True):
                whole = enlarge_map(self._draw(mean, told), size)
                meter.update(to_bytes(whole[None])[0, 0], truth[0] >= pairs.FOREGROUND)
        count = meters[0].count
        if not count:
            raise ValueError(f"{self.data} has no pair of a picture and a map that can be used")
        kinds = zip(self._kinds, meters, strict=True)
        rows = [row for (_, settings), meter in kinds for row in self._rows(meter.results(), settings, count)]
        return rows, {"published": count == saliency.COUNTS["test"] and self.num is None}


PERFECT = 100.0
"""The PSNR that a picture counts with which is equal to the truth, dB: a mean with its infinity would say nothing."""


def eight_bits(picture: Tensor) -> Tensor:
    """Return a picture [C, H, W] in [-1, 1] as a file of 8 bits would hold it."""
    return to_bytes(picture[None])[0].to(picture.dtype) / 127.5 - 1


def score_enlarged(
    truths: list[Tensor], task: SuperResolution, enlarge: Enlarge, distance: Distance | None = None
) -> dict[str, list[float]]:
    """Return psnr_y, ssim_y and, with a distance, lpips of every picture, enlarged again after the task's reduction.

    truths: uint8 [3, H, W] with sides that are multiples of the scale; outputs are rounded to 8 bits. An output that is
    equal to the truth has a psnr_y of PERFECT.
    """
    figures: dict[str, list[float]] = {}
    for index, truth in enumerate(truths):
        made, target = eight_bits(enlarge(task.measured(truth, index)))[None], _floats(truth)[None]
        found = {name: each(made, target, scale=task.scale) for name, each in (("psnr_y", psnr_y), ("ssim_y", ssim_y))}
        if distance is not None:
            found["lpips"] = _measured(distance, made, target)
        _note(figures, found)
    return figures


def score_filled(
    truths: list[Tensor], holes: Tensor, fill: Fill, distance: Distance | None = None
) -> dict[str, list[float]]:
    """Return psnr, psnr_hole and, with a distance, lpips and lpips_hole of every picture whose hole is filled.

    truths: uint8 [3, H, W]; holes: bool [B, H, W]. Without an error a psnr is PERFECT. Raises ValueError where
    a known pixel has changed.
    """
    figures: dict[str, list[float]] = {}
    for truth, hole in zip(truths, holes, strict=True):
        filled = fill(torch.where(hole, torch.zeros_like(truth), truth), hole)
        if not torch.equal(filled[:, ~hole], truth[:, ~hole]):
            raise ValueError("what fills the holes has changed pixels outside them")
        made, target, where = _floats(filled)[None], _floats(truth)[None], hole[None]
        found = {"psnr": psnr(made, target), "psnr_hole": psnr(made, target, where)}
        if distance is not None:
            found["lpips"] = _measured(distance, made, target)
            found["lpips_hole"] = _measured(distance, made, target, where)
        _note(figures, found)
    return figures


def _note(figures: dict[str, list[float]], found: dict[str, Tensor]) -> None:
    """Add a picture's figures to those of the others; without an infinite PSNR."""
    for name, value in found.items():
        figures.setdefault(name, []).append(min(float(value), PERFECT) if name.startswith("psnr") else float(value))


def _measured(distance: Distance, *pictures: Tensor) -> Tensor:
    """Return a distance, computed where its weights are."""
    weight = next(distance.parameters(), None) if isinstance(distance, torch.nn.Module) else None
    return distance(*(each if weight is None else each.to(weight.device) for each in pictures))


def _floats(picture: Tensor) -> Tensor:
    """Bytes as numbers in [-1, 1]."""
    return picture.float() / 127.5 - 1


def means(figures: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean of every measure over the pictures."""
    return {name: float(np.mean(values)) for name, values in figures.items()}
