"""FID and KID of pictures that stream by, against a reference that is computed once a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from attenua.files import write_bytes
from attenua.metrics.frechet import Statistics, frechet_distance, kernel_distance, read_tensors
from attenua.shapes import Bytes, Vectors

__all__ = ["Extractor", "FeatureSample", "Progress", "Reference", "score"]

KEPT = 10_000
"""How many features a side keeps for KID: 80 MB of Inception's."""

Progress = Callable[[int], None]
"""Called after every batch with the pictures done so far."""


@runtime_checkable
class Extractor(Protocol):
    """What turns pictures into features, such as `InceptionFeatures`."""

    @property
    def num_features(self) -> int:
        """The length D of a feature vector."""

    @property
    def name(self) -> str:
        """Which features they are; only features of one name are compared."""

    def __call__(self, images: Bytes) -> Vectors:
        """Uint8 pictures [B, C, H, W] to features [B, D]."""


class FeatureSample:
    """At most `kept` feature vectors, drawn uniformly from a stream of any length; all of a shorter one, in order.

    Which ones depends on `seed` and their places in the stream, not on how the stream is cut into batches.
    """

    def __init__(self, dimension: int, *, kept: int, seed: int = 0) -> None:
        if kept < 0:
            raise ValueError(f"the number of kept features must be 0 or more, not {kept}")
        self._kept = kept
        self._ranks = np.random.default_rng(seed)
        self._rank = torch.empty(0, dtype=torch.float64)
        self.vectors = torch.empty(0, dimension)
        """The sample so far, float32 [min(kept, seen), D], on the CPU."""

    def update(self, vectors: Vectors) -> None:
        """Offer a batch [B, D]: each vector gets a random rank, and the lowest ranks stay."""
        rank = torch.cat([self._rank, torch.from_numpy(self._ranks.random(len(vectors)))])
        stay = rank.argsort()[: self._kept].sort().values
        held = len(self.vectors)
        new = vectors.detach()[(stay[stay >= held] - held).to(vectors.device)].to("cpu", torch.float32)
        self.vectors = torch.cat([self.vectors[stay[stay < held]], new])
        self._rank = rank[stay]


@dataclass(frozen=True, eq=False)
class Reference:
    """What generated pictures are measured against: statistics for FID and a sample of features for KID.

    features: float32 [K, D], or None (then there is no KID).
    """

    statistics: Statistics
    features: Tensor | None

    @classmethod
    def compute(
        cls,
        batches: Iterable[Tensor],
        extractor: Extractor,
        *,
        data: str,
        sha256: str,
        kept: int = KEPT,
        progress: Progress | None = None,
    ) -> Reference:
        """Stream through the real pictures (uint8 [B, C, H, W]), keeping `kept` features of them.

        data, sha256: the data's name and SHA-256 (hex). Raises ValueError where there are no pictures.
        """
        statistics = Statistics(extractor.num_features, features=extractor.name, data=data, sha256=sha256)
        sample = _stream(batches, extractor, statistics, kept, progress)
        return cls(statistics, sample if kept else None)

    @classmethod
    def cached(
        cls,
        folder: str | Path,
        batches: Callable[[], Iterable[Tensor]],
        extractor: Extractor,
        *,
        data: str,
        sha256: str,
        kept: int = KEPT,
        progress: Progress | None = None,
    ) -> Reference:
        """The reference out of `folder`, where it is kept by features, data's sum and `kept`; else compute and keep it.

        batches: called only if there is work. Raises ValueError for a damaged file (remove it), OSError where the
        folder cannot be written.
        """
        path = Path(folder) / f"{extractor.name}-{sha256[:16]}-{kept}.safetensors"
        if path.exists():
            reference = cls.load(path)
            found = reference.statistics
            if (found.features, found.sha256) != (extractor.name, sha256):
                raise ValueError(f"{path} was made of other data or features than its name says: remove it")
            return reference
        reference = cls.compute(batches(), extractor, data=data, sha256=sha256, kept=kept, progress=progress)
        reference.save(path)
        return reference

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; OSError where that is not possible."""
        tensors = self.statistics.tensors()
        if self.features is not None:
            tensors["features"] = self.features
        write_bytes(path, safetensors.torch.save(tensors, self.statistics.metadata()))

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError for any other kind of file."""
        tensors, metadata = read_tensors(path)
        statistics = Statistics.from_tensors(tensors, metadata, path)
        features = tensors.get("features")
        if features is not None and (features.ndim != 2 or features.shape[1] != len(statistics.mean)):
            raise ValueError(f"{path} holds features of the wrong shape: {list(features.shape)}")
        return cls(statistics, features)


def score(
    batches: Iterable[Tensor],
    reference: Reference,
    extractor: Extractor,
    *,
    kid_subsets: int = 100,
    kid_size: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Measure generated pictures (uint8 [B, C, H, W]) as they come; none is kept, and memory stays bounded.

    Returns count; fid, if both sides have at least as many pictures as features (2,048 for Inception); kid and
    kid_deviation (`kernel_distance`, on a sample of 10,000 of either side), if the reference has features.
    Raises ValueError for a reference of other features, no pictures, or too few for any of the two (KID: kid_size).
    """
    wanted = reference.statistics
    if (wanted.features, len(wanted.mean)) != (extractor.name, extractor.num_features):
        raise ValueError(f"the reference holds the features {wanted.features!r}, not {extractor.name!r}")
    statistics = Statistics(extractor.num_features, features=extractor.name)
    kept = 0 if reference.features is None else KEPT
    sample = _stream(batches, extractor, statistics, kept, progress)
    result: dict[str, float] = {"count": statistics.count}
    if reference.features is None or min(statistics.count, wanted.count) >= len(wanted.mean):
        result["fid"] = frechet_distance(statistics, wanted)
    if reference.features is not None:
        pair = kernel_distance(sample, reference.features, subsets=kid_subsets, size=kid_size, seed=seed)
        result["kid"], result["kid_deviation"] = pair
    return result


def _stream(
    batches: Iterable[Tensor], extractor: Extractor, statistics: Statistics, kept: int, progress: Progress | None
) -> Tensor:
    """Feed every batch's features to the statistics and return a sample of them, float32 [min(kept, N), D]."""
    sample = FeatureSample(extractor.num_features, kept=kept)
    for images in batches:
        vectors = extractor(images)
        statistics.update(vectors)
        sample.update(vectors)
        if progress is not None:
            progress(statistics.count)
    if not statistics.count:
        raise ValueError("there are no pictures to measure: at least one is needed")
    return sample.vectors
