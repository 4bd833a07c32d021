"""Distances between two sets of feature vectors: Frechet (FID) and kernel (KID)."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from attenua.files import write_bytes

__all__ = ["Statistics", "frechet_distance", "kernel_distance", "read_tensors"]

_FORMAT = "attenua statistics 1"
_NAMES = ("mean", "scatter")


class Statistics:
    """Count, mean and covariance of feature vectors that stream by, in float64 on the CPU.

    features: the name of what extracted the vectors; only vectors of one name can be compared. data, sha256: the name
    and the SHA-256 (hex) of the data that they were extracted from, "" if they have none.
    Fields: count; mean, float64 [D]; scatter, float64 [D, D], the sum of (f - mean)(f - mean)^T. The sums are centred
    at every step (Chan, Golub and LeVeque 1979), so a large mean costs no digits.
    """

    def __init__(self, dimension: int, *, features: str, data: str = "", sha256: str = "") -> None:
        if dimension < 1:
            raise ValueError(f"the dimension of features must be at least 1, not {dimension}")
        self.features, self.data, self.sha256 = features, data, sha256
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, float64 [D, D]. Raises ValueError below two vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, not {self.count}")
        return self.scatter / (self.count - 1)

    def update(self, vectors: Tensor) -> None:
        """Take in a batch [B, D], of any float type, on any device.

        Raises ValueError for another D and for NaN or infinite entries; the statistics are then as before.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(f"features must be [B, {len(self.mean)}], not {list(vectors.shape)}")
        if not len(vectors):
            return
        vectors = vectors.detach().to("cpu", torch.float64)
        mean = vectors.mean(0)
        if not bool(torch.isfinite(mean).all()):
            raise ValueError("features must be finite, and these are not")
        centred = vectors - mean
        self._combine(len(vectors), mean, centred.T @ centred)

    def merge(self, other: Statistics) -> None:
        """Take in all that another object has seen. Raises ValueError if its features are others."""
        _comparable(self, other)
        if other.count:
            self._combine(other.count, other.mean, other.scatter)

    def _combine(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        step = mean - self.mean
        self.scatter += scatter
        self.scatter.addr_(step, step, alpha=self.count * count / total)
        self.mean += step * (count / total)
        self.count = total

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all; OSError where that is not possible."""
        write_bytes(path, safetensors.torch.save(self.tensors(), self.metadata()))

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError for any other kind of file."""
        return cls.from_tensors(*read_tensors(path), path)

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of this object; with `metadata`, the other half of `from_tensors`."""
        return {"mean": self.mean, "scatter": self.scatter}

    def metadata(self) -> dict[str, str]:
        """What a file's header holds of this object."""
        own = {"features": self.features, "data": self.data, "sha256": self.sha256}
        return {"format": _FORMAT, "count": str(self.count), **own}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], metadata: dict[str, str], path: str | Path) -> Statistics:
        """Rebuild from `tensors` and `metadata`, as they were read from `path` (for errors). Raises ValueError."""
        mean, scatter = (tensors.get(name) for name in _NAMES)
        count = metadata.get("count", "")
        if metadata.get("format") != _FORMAT or mean is None or scatter is None or not count.isdecimal():
            raise ValueError(f"{path} holds no feature statistics of attenua")
        found = [list(mean.shape), list(scatter.shape), str(mean.dtype), str(scatter.dtype)]
        if found != [[len(mean)], [len(mean)] * 2, "torch.float64", "torch.float64"]:
            raise ValueError(f"{path} holds statistics of the wrong shape or type: {found}")
        own = {name: metadata.get(name, "") for name in ("features", "data", "sha256")}
        statistics = cls(len(mean), **own)
        statistics.count, statistics.mean, statistics.scatter = int(count), mean, scatter
        return statistics


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises FileNotFoundError, ValueError if it is damaged."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None


def _comparable(a: Statistics, b: Statistics) -> None:
    if (a.features, len(a.mean)) != (b.features, len(b.mean)):
        one, two = (f"{s.features!r} [{len(s.mean)}]" for s in (a, b))
        raise ValueError(f"features must be of one kind to be compared, not {one} and {two}")


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared Frechet (Wasserstein-2) distance of two Gaussians with these moments: FID, for Inception features.

    |m_a - m_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2))  (Heusel et al. 2017, equation 6; Dowson and Landau 1982).
    With A = F F^T and B = G G^T the last trace is the sum of the singular values of F^T G, which needs no root of a
    product: rounding in a rank-deficient covariance stays at the size of rounding.

    Raises ValueError for features of two kinds, and for fewer vectors than their dimension (2,048 for Inception): the
    covariance is then rank-deficient and the distance says more about the count than about the pictures.
    """
    _comparable(a, b)
    for statistics in (a, b):
        if statistics.count < len(statistics.mean):
            raise ValueError(
                f"FID on {len(statistics.mean)} features needs at least {len(statistics.mean)} pictures on each side, "
                f"not {statistics.count}: use KID for fewer"
            )
    covariances = a.covariance, b.covariance
    one, two = (_factor(covariance) for covariance in covariances)
    overlap = torch.linalg.svdvals(one.T @ two).sum()
    traces = sum(covariance.trace() for covariance in covariances)
    return float((a.mean - b.mean).square().sum() + traces - 2 * overlap)


def _factor(covariance: Tensor) -> Tensor:
    """F with F F^T = the covariance, [D, D]; eigenvalues that rounding made negative are 0."""
    values, vectors = torch.linalg.eigh(covariance)
    factor: Tensor = vectors * values.clamp(min=0).sqrt()
    return factor


def kernel_distance(
    x: Tensor, y: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID: the squared maximum mean discrepancy of two sets of features, (mean, deviation) over random subsets.

    x, y: [N, D] and [M, D], on one device. Kernel (f.g / D + 1)^3, unbiased estimate, so the mean can fall below 0
    (Binkowski et al. 2018, section 4 and appendix D). Each subset draws `size` vectors of either set without
    replacement; the deviation is the root of the mean square about the mean, over subsets. Float64 throughout.

    Raises ValueError if a set has fewer than `size` vectors; a smaller size is for the caller to choose, since
    the deviation depends on it.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features must be [N, D] and [M, D], not {list(x.shape)} and {list(y.shape)}")
    if subsets < 1 or size < 2:
        raise ValueError(f"KID needs subsets >= 1 and size >= 2, not {subsets} and {size}")
    if min(len(x), len(y)) < size:
        raise ValueError(f"KID by subsets of {size} needs at least {size} pictures, not {min(len(x), len(y))}")
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(subsets, dtype=torch.float64)
    for i in range(subsets):
        one, two = (f[torch.randperm(len(f), generator=generator)[:size].to(f.device)].double() for f in (x, y))
        values[i] = _discrepancy(one, two)
    return float(values.mean()), float(values.std(correction=0))


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate for two subsets of one size [N, D]: the pairs of a vector with itself are left out."""
    count, dimension = x.shape

    def kernel_sum(f: Tensor, g: Tensor) -> Tensor:
        return (f @ g.T / dimension + 1).pow(3).sum()

    def own(f: Tensor) -> Tensor:
        return kernel_sum(f, f) - (f.square().sum(1) / dimension + 1).pow(3).sum()

    return (own(x) + own(y)) / (count * (count - 1)) - 2 * kernel_sum(x, y) / count**2
