"""How well a saliency map agrees with the true mask: MAE, F, weighted F, structure (S) and alignment (E) measures.

All of them look at the map at the picture's own size, grey as it is. What the literature's tables do, and what the
papers leave open (maps stretched to [0, 1] first, 256 thresholds, edge cases), follows PySODMetrics 1.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, distance_transform_edt
from torch import Tensor

__all__ = ["BETA2", "Curves", "Saliency", "alignment", "f_measure", "structure", "weighted_f"]

_Map = NDArray[np.float64]  # [H, W] in [0, 1]
_Mask = NDArray[np.bool_]  # [H, W]

BETA2 = 0.3
"""The weight of precision in F (Achanta, Hemami, Estrada and Suesstrunk 2009)."""

_TINY = float(np.spacing(1))


@dataclass(frozen=True)
class Curves:
    """A measure of one map: over the thresholds 255 .. 0 (map >= threshold / 255), and at twice the map's mean."""

    curve: NDArray[np.float64]
    adaptive: float


class Saliency:
    """Means over a set of pictures, one `update` a picture.

    `results` has: mae; f_max and f_mean (highest and mean value of the F curve that is averaged over the pictures),
    f_adaptive; f_weighted; s; e_max, e_mean, e_adaptive.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums = dict.fromkeys(("mae", "f_adaptive", "f_weighted", "s", "e_adaptive"), 0.0)
        self._f, self._e = np.zeros(256), np.zeros(256)

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Take in one picture: a map [H, W], float in [0, 1] or uint8 in 0..255, and its true mask, bool [H, W].

        A map of floats is rounded to 8 bits first, as a file would hold it, and any map is then stretched to [0, 1]
        unless it is constant. Raises ValueError for other types, shapes that differ, and values outside the range.
        """
        values, mask = _checked(prediction, truth)
        f, e = f_measure(values, mask), alignment(values, mask)
        self._f += f.curve
        self._e += e.curve
        one = {"mae": float(np.abs(values - mask).mean()), "f_adaptive": f.adaptive, "e_adaptive": e.adaptive}
        one |= {"f_weighted": weighted_f(values, mask), "s": structure(values, mask)}
        for name, value in one.items():
            self._sums[name] += value
        self.count += 1

    def results(self) -> dict[str, float]:
        """The measures over all pictures so far. Raises ValueError where there is none."""
        if not self.count:
            raise ValueError("no picture has been measured, so there is no mean")
        f, e = self._f / self.count, self._e / self.count
        means = {name: value / self.count for name, value in self._sums.items()}
        curves = {"f_max": f.max(), "f_mean": f.mean(), "e_max": e.max(), "e_mean": e.mean()}
        return means | {name: float(value) for name, value in curves.items()}


def f_measure(values: _Map, mask: _Mask) -> Curves:
    """F = (1 + b) P R / (b P + R), b = 0.3, at 256 thresholds and at twice the map's mean; 0 where nothing is hit."""
    total = np.count_nonzero(mask)

    def f(hits: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.float64]:
        # P = hits / found and R = hits / total, put into the formula
        return np.asarray((1 + BETA2) * hits / np.maximum(BETA2 * total + found, 1))

    curve, adaptive = _counts(values, mask), _adaptive_counts(values, mask)
    return Curves(f(*curve), float(f(*adaptive)))


def alignment(values: _Map, mask: _Mask) -> Curves:
    """E-measure at 256 thresholds and at twice the map's mean.

    Fan, Gong, Cao, Ren, Cheng and Borji 2018, "Enhanced-alignment Measure for Binary Foreground Map Evaluation".
    """
    size, total = mask.size, np.count_nonzero(mask)

    def e(hits: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.float64]:
        if total in (0, size):
            return np.asarray((found if total else size - found) / (size - 1 + _TINY))
        summed = np.zeros(np.shape(hits))
        map_mean, mask_mean = found / size, total / size
        counts = {(1, 1): hits, (1, 0): found - hits, (0, 1): total - hits, (0, 0): size - found - total + hits}
        for (a, b), count in counts.items():  # all pixels of one kind align equally well
            x, y = a - map_mean, b - mask_mean
            summed += count * (2 * x * y / (x * x + y * y + _TINY) + 1) ** 2 / 4
        return np.asarray(summed / (size - 1 + _TINY))

    return Curves(e(*_counts(values, mask)), float(e(*_adaptive_counts(values, mask))))


def structure(values: _Map, mask: _Mask) -> float:
    """S-measure: half the likeness of object and background as wholes, half that of the four parts of the picture.

    Fan, Cheng, Liu, Li and Borji 2017, "Structure-measure: A New Way to Evaluate Foreground Maps".
    """
    share = float(mask.mean())
    if share == 0:
        return 1 - float(values.mean())
    if share == 1:
        return float(values.mean())
    objects = share * _object(values[mask]) + (1 - share) * _object(1 - values[~mask])
    return max(0.0, 0.5 * objects + 0.5 * _regions(values, mask))


def weighted_f(values: _Map, mask: _Mask) -> float:
    """Weighted F (b = 1): errors beside the object and inside it count less; 0 for an empty mask.

    Margolin, Zelnik-Manor and Tal 2014, "How to Evaluate Foreground Maps?".
    """
    if not mask.any():
        return 0.0
    distance, (rows, columns) = distance_transform_edt(~mask, return_indices=True)
    error = np.abs(values - mask)
    # Outside the object the error at its nearest pixel counts as a neighbour's, so that rims are not favoured.
    spread = _gaussian(error[rows, columns])
    error = np.where(mask & (spread < error), spread, error)
    error *= np.where(mask, 1.0, 2 - np.exp(np.log(0.5) / 5 * distance))
    inside, outside = error[mask], error[~mask]
    hits = mask.sum() - inside.sum()
    recall = 1 - inside.mean()
    precision = hits / (hits + outside.sum() + _TINY)
    return float(2 * recall * precision / (recall + precision + _TINY))


def _checked(prediction: Tensor, truth: Tensor) -> tuple[_Map, _Mask]:
    """The map in 8-bit steps, stretched to [0, 1], and the mask."""
    if prediction.ndim != 2 or not prediction.numel() or prediction.shape != truth.shape:
        shapes = f"{list(prediction.shape)} and {list(truth.shape)}"
        raise ValueError(f"a map and its mask must be [H, W] of one size, not {shapes}")
    if truth.dtype != torch.bool:
        raise ValueError(f"a mask must be bool, not {truth.dtype}")
    if prediction.is_floating_point():
        values = prediction.detach().cpu().double()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError("a map of floats must be within [0, 1], and this one is not")
        values = (values * 255).round()
    elif prediction.dtype == torch.uint8:
        values = prediction.cpu().double()
    else:
        raise ValueError(f"a map must be float or uint8, not {prediction.dtype}")
    grey = values.numpy() / 255
    low, high = grey.min(), grey.max()
    return (grey - low) / (high - low) if high > low else grey, truth.cpu().numpy()


def _counts(values: _Map, mask: _Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many pixels of the mask, and how many in all, are at or above 255/255, 254/255, .. 0: int64 [256] each."""
    steps = (values * 255).astype(np.uint8)
    hits, found = (np.bincount(each.ravel(), minlength=256)[::-1].cumsum() for each in (steps[mask], steps))
    return hits, found


def _adaptive_counts(values: _Map, mask: _Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same at twice the mean of the map (at most 1)."""
    chosen = values >= min(2 * values.mean(), 1)
    return np.asarray(np.count_nonzero(chosen & mask)), np.asarray(np.count_nonzero(chosen))


def _object(values: NDArray[np.float64]) -> float:
    """How near the values of one side are to 1, and how even."""
    mean, deviation = values.mean(), values.std(ddof=1) if values.size > 1 else 0.0
    return float(2 * mean / (mean * mean + 1 + deviation + _TINY))


def _regions(values: _Map, mask: _Mask) -> float:
    """Likeness in the four parts around the mask's centre, weighted by their areas."""
    row, column = (int(np.round(each.mean())) + 1 for each in np.nonzero(mask))
    parts = [
        (rows, columns) for rows in (slice(row), slice(row, None)) for columns in (slice(column), slice(column, None))
    ]
    return sum(_likeness(values[part], mask[part]) * mask[part].size for part in parts) / mask.size


def _likeness(values: _Map, mask: _Mask) -> float:
    """SSIM of two patches as wholes, without its constants; 1 where both are flat and 0 where one is."""
    if not mask.size:
        return 0.0
    x, y = values.mean(), mask.mean()
    dx, dy, count = values - x, mask - y, mask.size - 1 + _TINY
    upper = 4 * x * y * (dx * dy).sum() / count
    lower = (x * x + y * y) * ((dx * dx).sum() + (dy * dy).sum()) / count
    if upper != 0:
        return float(upper / (lower + _TINY))
    return 1.0 if lower == 0 else 0.0


def _gaussian(values: _Map) -> _Map:
    """Mean with a Gaussian of deviation 5 cut at 7 x 7 pixels, zeros outside the picture."""
    weights = np.exp(-0.5 * (np.arange(-3, 4) / 5) ** 2)
    weights /= weights.sum()
    rows = correlate1d(values, weights, axis=0, mode="constant")
    return np.asarray(correlate1d(rows, weights, axis=1, mode="constant"))
