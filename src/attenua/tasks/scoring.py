"""How good a conditional model is, by the published protocol of its task, on a folder of test pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attenua import images
from attenua.data import boundaries, masks, pairs, photographs, saliency
from attenua.data.degrade import bicubic, crop_to_multiple
from attenua.data.folder import OnSkip, reporter
from attenua.data.pairs import PairSet
from attenua.metrics import boundaries as edge_metrics
from attenua.metrics.restoration import psnr, psnr_y, ssim_y
from attenua.metrics.saliency import Saliency
from attenua.reports import Scalar
from attenua.sampling import Grid, to_bytes
from attenua.tasks.conditional import Conditional
from attenua.tasks.saliency import enlarge, reduce

Distance = Callable[[Tensor, Tensor], Tensor]
"""LPIPS or another distance of pictures, [B, 3, H, W] in [-1, 1] -> [B]."""
Report = Callable[[int, int], None]
"""Called with how many outputs are scored, and how many there will be."""

FACES = 100
"""Pictures of the inpainting protocol: even ones with strokes, odd ones with boxes."""


@dataclass
class Scoring:
    """One model on one set of test pictures.

    num: only so many of them (screening; None: all, or the 100 of the inpainting protocol); distance: LPIPS where it
    is wanted; thresholds: of edges, 99 as published. A model is scored by its mean in one call ("mean"), and by a
    sample of `steps` calls, unless that is the mean. Raises ValueError on num < 1.
    """

    model: Conditional
    data: Path
    steps: int | None = None
    seed: int = 0
    num: int | None = None
    distance: Distance | None = None
    thresholds: int = 99
    strict: bool = False
    on_skip: OnSkip | None = None
    report: Report = field(default=lambda done, of: None)
    done: int = 0

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
        rule = self.model.rule(None, None)
        calls = self.model.sampling.steps if self.steps is None else self.steps
        grid = self.model.times(rule, None, calls)
        usual = calls == self.model.sampling.steps and self.seed == 0
        about: dict[str, Scalar] = {
            "model_sha256": self.model.header.sha256,
            "data": self.data.resolve().name,
            "seed": self.seed,
        }
        inner = self.model.model
        first = grid.points(inner.process, inner.config.s_d, calls)[0] if isinstance(grid, Grid) else grid[0]
        alone = calls == 1 and float(first) == 1
        mean = {**about, "output": "mean", "nfe": 1, "solver": None, "grid": None, "default": alone and usual}
        if alone:
            return [(True, mean)]
        settings = self.model.settings(calls, rule, grid, self.seed)
        return [(True, mean), (False, {**about, **settings, "output": "sample", "default": usual})]

    def _draw(self, picture: Tensor, mean: bool, total: int) -> Tensor:
        output = self.model.draw(picture, steps=self.steps, seed=self.seed, faithful=mean)[0]
        self.done += 1
        self.report(self.done, len(self._kinds) * total)
        return output

    def _rows(self, figures: dict[str, float], settings: dict[str, Scalar], count: int) -> list[dict[str, Scalar]]:
        return [{"metric": name, "value": value, "samples": count, **settings} for name, value in figures.items()]

    # ---- restoration ----------------------------------------------------------------------------------------------

    def _enlarged(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        rows: list[dict[str, Scalar]] = []
        scale = self.model.task.scale
        truths = [crop_to_multiple(picture, scale) for picture in self._photographs(self.num)]
        for mean, settings in self._kinds:
            figures: dict[str, list[float]] = {}
            for truth in truths:
                small = bicubic(truth, scale).float() / 127.5 - 1
                made, target = eight_bits(self._draw(small, mean, len(truths)))[None], (truth.float() / 127.5 - 1)[None]
                found = {"psnr_y": psnr_y(made, target, scale=scale), "ssim_y": ssim_y(made, target, scale=scale)}
                if self.distance is not None:
                    found["lpips"] = self.distance(made, target)
                for name, value in found.items():
                    figures.setdefault(name, []).append(float(value))
            rows += self._rows(means(figures), settings, len(truths))
        reduction = "Pillow's bicubic, 8 bit, of the picture cropped to a multiple of the scale"
        protocol: dict[str, Scalar] = {"scale": scale, "reduction": reduction, "border": scale, "luma": "BT.601"}
        return rows, {**protocol, "published": self.num is None}

    def _filled(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        rows: list[dict[str, Scalar]] = []
        side = self.model.model.config.network.image_size
        truths = [central(picture, side) for picture in self._photographs(self.num or FACES, least=side)]
        holes = masks.mask_set(len(truths), side, side, seed=0)
        for mean, settings in self._kinds:
            figures: dict[str, list[float]] = {}
            for truth, hole in zip(truths, holes, strict=True):
                target = truth.float() / 127.5 - 1
                told = torch.cat([torch.where(hole, torch.zeros_like(target), target), hole[None].float()])
                made = eight_bits(self._draw(told, mean, len(truths)))[None]
                found = {"psnr": psnr(made, target[None]), "psnr_hole": psnr(made, target[None], hole[None])}
                if self.distance is not None:
                    found["lpips"] = self.distance(made, target[None])
                for name, value in found.items():
                    figures.setdefault(name, []).append(float(value))
            rows += self._rows(means(figures), settings, len(truths))
        protocol: dict[str, Scalar] = {"side": side, "holes": "strokes and boxes in turn, 10 to 50 %, seed 0"}
        return rows, {**protocol, "published": len(truths) == FACES}

    def _photographs(self, count: int | None, least: int = 1) -> list[Tensor]:
        """Pictures of the split "test" where the layout has one, else of the whole folder; `count` of them, evenly."""
        if photographs.has_split(self.data):
            read = photographs.read(self.data, split="test", strict=self.strict, on_skip=self.on_skip)
            found = [picture for _, picture in read]
        else:  # a folder of test pictures: what is held out from training is what is wanted
            found = [images.read(path) for path in images.list_images(self.data)]
        large = [picture for picture in found if min(picture.shape[-2:]) >= least]
        if not large:
            raise ValueError(f"{self.data} has no picture of at least {least} x {least} pixels to score on")
        return [large[index] for index in evenly(len(large), count)]

    # ---- maps -----------------------------------------------------------------------------------------------------

    def _edges(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        rows: list[dict[str, Scalar]] = []
        data = boundaries.load(self.data, "test", strict=self.strict, on_skip=self.on_skip)
        chosen = evenly(len(data), self.num)
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
            output = self._draw(picture.float() / 127.5 - 1, mean, len(chosen))
            yield to_bytes(output[None])[0, 0].numpy(), (truth >= pairs.FOREGROUND).numpy()

    def _saliency(self) -> tuple[list[dict[str, Scalar]], dict[str, Scalar]]:
        tell = reporter(self.strict, self.on_skip)
        found = saliency.files(self.data, "test", tell)
        chosen = [found[index] for index in evenly(len(found), self.num)]
        meters = [Saliency() for _ in self._kinds]
        for _, picture, truth in pairs.read(chosen, tell):  # one at a time: all of DUTS-TE would be 2.4 GB
            told, size = reduce(picture.float() / 127.5 - 1), (picture.shape[1], picture.shape[2])
            for (mean, _), meter in zip(self._kinds, meters, strict=True):
                whole = enlarge(self._draw(told, mean, len(chosen)), size)
                meter.update(to_bytes(whole[None])[0, 0], truth[0] >= pairs.FOREGROUND)
        count = meters[0].count
        if not count:
            raise ValueError(f"{self.data} has no pair of a picture and a map that can be used")
        kinds = zip(self._kinds, meters, strict=True)
        rows = [row for (_, settings), meter in kinds for row in self._rows(meter.results(), settings, count)]
        return rows, {"published": count == saliency.COUNTS["test"] and self.num is None}


def eight_bits(picture: Tensor) -> Tensor:
    """Return a picture [C, H, W] in [-1, 1] as a file of 8 bits would hold it."""
    return to_bytes(picture[None])[0].to(picture.dtype) / 127.5 - 1


def central(picture: Tensor, side: int) -> Tensor:
    """Return the square in the middle of a picture [C, H, W]."""
    top, left = (picture.shape[-2] - side) // 2, (picture.shape[-1] - side) // 2
    return picture[..., top : top + side, left : left + side]


def evenly(count: int, num: int | None) -> list[int]:
    """Return `num` numbers (None: all) taken evenly from 0 to count - 1."""
    number = min(num or count, count)
    return [index * count // number for index in range(number)]


def means(figures: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean of every measure over the pictures."""
    return {name: float(np.mean(values)) for name, values in figures.items()}
