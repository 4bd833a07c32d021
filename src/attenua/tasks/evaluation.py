"""Evaluation of generation: FID and KID of a model or of a folder of pictures, by the published protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from attenua import reports, weights
from attenua.config import SamplingConfig
from attenua.data import ImageSet
from attenua.metrics.generation import Extractor, Reference, score
from attenua.metrics.inception import InceptionFeatures
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.sampling import choose_grid, sample, solver, to_bytes
from attenua.shapes import Bytes
from attenua.tasks.generation import BATCH, Generation

Report = Callable[[str, int, int], None]
"""Called with what is being done, how many pictures are done and how many there are."""

INCEPTION = InceptionFeatures.name
PUBLISHED = 50_000
"""Samples of the published protocol for CIFAR-10, against all 50,000 training pictures."""


class Evaluation:
    """Scores pictures against a data set: Inception features (float32), FID, KID.

    data: the reference; reference_num: how many of its pictures (None: all; fewer is screening and says so);
    num, sampling: how `figures` samples a model in training; extractor: other features than Inception's (then the
    figures are not the literature's). The reference's statistics are kept in the user's cache. Raises ValueError on
    fewer than 2 reference pictures, or reference_num beyond them.
    """

    def __init__(
        self,
        data: ImageSet,
        *,
        num: int = PUBLISHED,
        sampling: SamplingConfig | None = None,
        reference_num: int | None = None,
        device: torch.device | None = None,
        report: Report | None = None,
        extractor: Extractor | None = None,
    ) -> None:
        total = len(data)
        if total < 2:
            raise ValueError(
                f"the reference {data.name} has {total} image; at least 2 are needed for KID, 2,048 for FID"
            )
        count = total if reference_num is None else reference_num
        if not 2 <= count <= total:
            raise ValueError(f"reference-num is {count}; allowed is 2 to {total}, the pictures of {data.name}")
        self.data = data if count == total else _first(data, count)
        self.num, self.sampling = num, sampling or SamplingConfig()
        self.device = device or torch.device("cpu")
        self.report = report or (lambda what, done, of: None)
        self.extractor: Extractor = extractor or InceptionFeatures(batch=BATCH[self.device.type]).to(self.device)
        self._reference: Reference | None = None

    def reference(self) -> Reference:
        """Return the reference, computed once a data set and machine."""
        if self._reference is None:
            self._reference = Reference.cached(
                weights.cache() / "references",
                lambda: _chunks(self.data.images),
                self.extractor,
                data=self.data.name,
                sha256=self.data.sha256(),
                progress=lambda done: self.report("reference", done, len(self.data)),
            )
        return self._reference

    def score(self, batches: Iterable[Tensor], num: int) -> dict[str, float]:
        """Return count, kid, kid_deviation and, from 2,048 pictures on both sides, fid; KID takes 1,000 at most.

        batches: uint8 [B, C, H, W] each, of any B; num: how many they are together. Raises ValueError below 2.
        """
        if num < 2:
            raise ValueError(f"num is {num}; allowed is a whole number from 2")
        size = min(1000, num, len(self.data))
        reference = self.reference()
        return score(
            batches,
            reference,
            self.extractor,
            kid_size=size,
            progress=lambda done: self.report("samples", done, num),
        )

    def model(self, generation: Generation, num: int, **settings: Any) -> dict[str, float]:
        """Score `num` samples of a model as they come; settings as for Generation.batches."""
        return self.score(generation.batches(num, **settings), num)

    def figures(self, model: AttenuationModel, images: int) -> dict[str, float]:
        """Score a model in training after `images`, by the default sampling of its configuration."""
        del images
        found = self.score(self._from(model), self.num)
        return {key: value for key, value in found.items() if key != "count"}

    def _from(self, model: AttenuationModel) -> Iterator[Bytes]:
        network = model.config.network
        chosen = self.sampling
        size = BATCH[model.device.type]
        for start in range(0, self.num, size):
            rows = range(start, min(start + size, self.num))
            shape = (len(rows), network.channels, network.image_size, network.image_size)
            rule = solver(chosen.solver, chosen.eta)
            labels = torch.tensor(rows, device=model.device) % network.classes if network.classes else None
            made = sample(
                model,
                shape,
                steps=chosen.steps,
                solver=rule,
                grid=choose_grid(rule, None, chosen.grid),
                indices=rows,
                condition=None if labels is None else Condition(labels=labels),
            )
            yield to_bytes(made).cpu()

    def rows(self, figures: dict[str, float], settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the figures as report rows: one a metric, flat."""
        own = {
            "samples": int(figures["count"]),
            "data": self.data.name,
            "data_sha256": self.data.sha256(),
            "split": "train",
        }
        scatter = {"kid": {"deviation": figures["kid_deviation"]}}
        return [
            {"metric": key, "value": figures[key], **scatter.get(key, {}), **own, **settings}
            for key in ("fid", "kid")
            if key in figures
        ]

    def protocol(self, num: int) -> dict[str, reports.Scalar]:
        """Return how the figures were measured; published: whether it is the full protocol."""
        return {
            "features": self.extractor.name,
            "samples": num,
            "reference_images": len(self.data),
            "kid": f"cubic kernel, 100 subsets of {min(1000, num, len(self.data))}",
            "published": num >= PUBLISHED and len(self.data) >= PUBLISHED and self.extractor.name == INCEPTION,
        }


def _chunks(images: Bytes, size: int = 500) -> Iterator[Bytes]:
    yield from torch.split(images, size)


def _first(data: ImageSet, count: int) -> ImageSet:
    labels = None if data.labels is None else data.labels[:count]
    return ImageSet(data.images[:count], labels, data.classes, f"{data.name} (first {count})", data.terms)
