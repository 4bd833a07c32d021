"""How well an edge map agrees with what people drew: ODS, OIS and AP by exact one-to-one matching, and crispness.

The protocol is that of the Berkeley segmentation benchmark (Martin, Fowlkes and Malik 2004; Arbelaez, Maire, Fowlkes
and Malik 2011) with the suppression of the structured-edges toolbox (Dollar and Zitnick 2015), which is what tables of
edge detectors use: "SEval" thins the map first, "CEval" takes it raw, so that thick lines are wrong pixels.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d, map_coordinates
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

__all__ = ["MODES", "Counts", "consistency", "count", "crispness", "evaluate", "match", "scores", "suppress", "thin"]

_Map = NDArray[np.float64]  # [H, W] in [0, 1]
_Mask = NDArray[np.bool_]  # [H, W]
Pair = tuple[ArrayLike, ArrayLike]
"""An edge map and the annotators' maps of one picture, see `count`."""

MODES = ("SEval", "CEval")
"""With non-maximum suppression and thinning, and without."""

TOLERANCE = 0.0075
"""How far matched pixels may lie apart, as a share of the picture's diagonal."""

_UNMATCHED = 100.0  # cost of a pixel without partner, in tolerances: more pairs go before nearer pairs
_PART = 200  # pairs in reach that are worth a matching of their own


@dataclass(frozen=True)
class Counts:
    """Pixels of one picture, or summed over several, at each threshold: int64 [T] (thresholds: float64 [T]).

    predicted: edge pixels of the map, hits: those of them matched to at least one annotator; drawn: the annotators'
    pixels in all, found: those of them matched. crisp: sum over pictures of `crispness`; pictures: how many.
    """

    thresholds: NDArray[np.float64]
    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    found: NDArray[np.int64]
    drawn: NDArray[np.int64]
    crisp: float = 0.0
    pictures: int = 1

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the map's pixels that were matched; 0 where it has none."""
        return self.hits / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the annotators' pixels that were matched; 0 where they drew none."""
        return self.found / np.maximum(self.drawn, 1)

    def __add__(self, other: Counts) -> Counts:
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("counts at different thresholds cannot be added")
        summed = {each: getattr(self, each) + getattr(other, each) for each in ("hits", "predicted", "found", "drawn")}
        return replace(self, crisp=self.crisp + other.crisp, pictures=self.pictures + other.pictures, **summed)


def evaluate(
    pairs: Iterable[Pair],
    *,
    mode: str = "SEval",
    thresholds: int = 99,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """ODS, OIS, AP and crispness over pictures, each an edge map and its annotators' maps (see `count`).

    mode: one of MODES. thresholds: 99 as published, or 25 to screen. processes: how many share the pictures; new
    processes are started, so a script must do that under `if __name__ == "__main__"`. `pairs` is read as it is needed.
    progress: called with the number of pictures done. Raises ValueError for no picture and as `count` does.
    """
    if mode not in MODES:
        raise ValueError(f"the mode must be one of {', '.join(MODES)}, not {mode!r}")
    if processes < 1:
        raise ValueError(f"processes must be at least 1, not {processes}")
    done: list[Counts] = []
    for each in _counted(pairs, mode == "SEval", thresholds, processes):
        done.append(each)
        if progress is not None:
            progress(len(done))
    return scores(done)


def _counted(pairs: Iterable[Pair], thinned: bool, thresholds: int, processes: int) -> Iterator[Counts]:
    """The counts of each picture, in the order in which they are ready."""
    if processes == 1:
        for edges, drawn in pairs:
            yield count(edges, drawn, thinned=thinned, thresholds=thresholds)
        return
    # Threads of torch or BLAS do not survive a fork: start anew.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting: set[Future[Counts]] = set()
        for edges, drawn in pairs:
            pair = np.asarray(edges), np.asarray(drawn)
            waiting.add(pool.submit(count, *pair, thinned=thinned, thresholds=thresholds))
            if len(waiting) >= 2 * processes:  # no more pictures in memory than keep everyone busy
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in ready)
        yield from (each.result() for each in waiting)


def scores(counts: Sequence[Counts]) -> dict[str, float]:
    """Sum up pictures: ods with its threshold, precision and recall; ois; ap; crispness.

    ods: the best F = 2 P R / (P + R) of all pictures at one threshold, P and R interpolated between thresholds; ois: F
    with each picture at its own best threshold; ap: area below precision over recall. Raises ValueError for no picture.
    """
    if not counts:
        raise ValueError("no picture has been measured, so there are no scores")
    total = counts[0]
    for each in counts[1:]:
        total = total + each
    best = [int(np.argmax(_f(each.precision, each.recall))) for each in counts]
    chosen = zip(counts, best, strict=True)
    own = np.array([[c.hits[k], c.predicted[k], c.found[k], c.drawn[k]] for c, k in chosen])
    hits, predicted, found, drawn = own.sum(0, keepdims=True).T
    ois = _f(hits / np.maximum(predicted, 1), found / np.maximum(drawn, 1))
    return {
        **_best(total),
        "ois": float(ois[0]),
        "ap": _area(total.precision, total.recall),
        "crispness": total.crisp / total.pictures,
    }


def count(edges: ArrayLike, drawn: ArrayLike, *, thinned: bool = True, thresholds: int = 99) -> Counts:
    """Match one edge map with each of its annotators at thresholds 1/(n+1) .. n/(n+1): an edge where map >= threshold.

    edges: [H, W], float in [0, 1] or uint8 in 0..255. drawn: bool (or 0 and 1) [A, H, W], a map for each of A >= 1
    annotators. thinned: suppress non-maxima first and thin the mask of every threshold. A pixel of the map is right
    where any annotator's pixel is matched to it. Raises ValueError for other shapes, values and thresholds < 1.
    """
    values, people = _edges(edges), _drawn(drawn, np.shape(edges))
    if thresholds < 1:
        raise ValueError(f"there must be at least 1 threshold, not {thresholds}")
    steps = np.arange(1, thresholds + 1) / (thresholds + 1)
    kept = suppress(values) if thinned else values
    tolerance = TOLERANCE * math.hypot(*values.shape)
    table = np.zeros((3, thresholds), np.int64)
    last, row = None, np.zeros(3, np.int64)
    for k, step in enumerate(steps):
        mask = kept >= step
        if last is None or not np.array_equal(mask, last):  # maps of few grey values cost no more for many thresholds
            row = _count_mask(thin(mask) if thinned else mask, people, tolerance)
            last = mask
        table[:, k] = row
    total = np.full(thresholds, int(people.sum()), np.int64)
    return Counts(steps, table[0], table[1], table[2], total, crispness(values))


def consistency(pictures: Iterable[ArrayLike]) -> Counts:
    """How well each annotator agrees with the others of the same picture: counts at one threshold, over all pictures.

    pictures: bool [A, H, W] each, A >= 2. The F of its precision and recall is the human figure. Raises ValueError for
    other arrays and no picture.
    """
    total, number = np.zeros(4, np.int64), 0
    for number, drawn in enumerate(pictures, 1):
        people = _drawn(drawn, np.shape(drawn)[1:])
        if len(people) < 2:
            raise ValueError(f"agreement needs at least 2 annotators, and picture {number} has {len(people)}")
        tolerance = TOLERANCE * math.hypot(*people.shape[1:])
        right = np.zeros_like(people)
        found = 0
        for one, other in itertools.combinations(range(len(people)), 2):  # a matching is the same from both sides
            hits = match(people[one], people[other], tolerance)
            right[one] |= hits[0]
            right[other] |= hits[1]
            found += 2 * int(hits[0].sum())
        drawn_in_all = int(people.sum())
        total += [int(right.sum()), drawn_in_all, found, (len(people) - 1) * drawn_in_all]
    if not number:
        raise ValueError("no picture has been measured, so there are no counts")
    hits, predicted, found, all_drawn = total[:, None]
    return Counts(np.array([0.5]), hits, predicted, found, all_drawn, float(number), number)


def match(predicted: _Mask, drawn: _Mask, tolerance: float) -> tuple[_Mask, _Mask]:
    """Pair pixels of two masks [H, W] one to one, at most `tolerance` pixels apart: the paired ones of each mask.

    The assignment is exact: of those with the least total distance, where a pixel of `drawn` without partner costs 100
    tolerances, so that (but for chains of more than 50 pairs) the number of pairs is the largest possible. Which of
    several that are equally good is found is not defined.
    """
    hit, found = np.zeros(predicted.size, bool), np.zeros(drawn.size, bool)
    links = _links(predicted, drawn, tolerance)
    thick = np.count_nonzero(predicted) > 3 * np.count_nonzero(drawn)
    if len(links.drawn) and thick:  # most of it is plain
        links, plain = _settle(links, _links(drawn, drawn, 2 * tolerance), tolerance)
        hit[plain] = found[plain] = True
    for part, turned in _parts(links):
        pixels, partners = _assign(part, tolerance)
        found[partners if turned else pixels] = True
        hit[pixels if turned else partners] = True
    return hit.reshape(predicted.shape), found.reshape(drawn.shape)


def suppress(edges: _Map) -> _Map:
    """Non-maximum suppression [H, W]: what is less than its neighbours across the line becomes 0.

    The rule of the structured-edges toolbox: the map is smoothed by a triangle of radius 1; the direction across the
    line is atan(Eyy sign(-Exy) / Exx) of second differences after a triangle of radius 4; a pixel stays where 1.01
    times its value reaches those 1 pixel away on both sides, interpolated linearly; the 5 outermost rows and columns
    are weakened towards the border in proportion.
    """
    smooth = _triangle(edges, 1)
    across = _across(smooth)
    rows, columns = np.nonzero(smooth)
    value, angle = smooth[rows, columns], across[rows, columns]
    keep = np.ones(len(value), bool)
    for side in (-1, 1):
        at = np.stack([rows + side * np.sin(angle), columns + side * np.cos(angle)])
        keep &= 1.01 * value >= map_coordinates(smooth, at, order=1, mode="nearest")
    result = np.zeros_like(smooth)
    result[rows[keep], columns[keep]] = value[keep]
    for axis, size in enumerate(result.shape):
        reach = min(5, size // 2)
        ramp = np.ones(size)
        ramp[:reach] = np.arange(reach) / reach
        ramp = np.minimum(ramp, ramp[::-1])
        result *= ramp[:, None] if axis == 0 else ramp[None, :]
    return result


def thin(mask: _Mask) -> _Mask:
    """Thin lines to a width of one pixel, keeping what is connected connected.

    Guo and Hall 1989, "Parallel Thinning with Two-Subiteration Algorithms", the first of them, as Matlab and
    scikit-image have it: pixels are taken off in turns from two sides until none can be.
    """
    first, second = _tables()
    result = np.pad(mask, 1).astype(np.uint8)
    while True:
        before = int(result.sum())
        for table in (first, second):
            rows, columns = np.nonzero(result)
            code = np.zeros(len(rows), np.uint8)
            for bit, (down, right) in enumerate(_RING):
                code |= result[rows + down, columns + right] << bit
            gone = table[code]
            result[rows[gone], columns[gone]] = 0
        if int(result.sum()) == before:
            return result[1:-1, 1:-1].astype(bool)


def crispness(edges: ArrayLike) -> float:
    """Share of a map's whole brightness that lies on its ridges: 1 for lines of one pixel, near 0 for a blur.

    Ye et al. 2023, "Delving into Crispness": the sum over what suppression leaves over the sum before. 0 for an empty
    map.
    """
    values = _edges(edges)
    total = float(values.sum())
    padded = np.pad(values, 5, mode="edge")  # the weakening towards the border is no property of the map
    return float(values[suppress(padded)[5:-5, 5:-5] > 0].sum() / total) if total else 0.0


def _edges(edges: ArrayLike) -> _Map:
    """Check an edge map and bring it to floats."""
    values = np.asarray(edges)
    if values.ndim != 2 or min(values.shape) < 3:
        raise ValueError(f"an edge map must be [H, W], at least 3 x 3 pixels, not {list(values.shape)}")
    if values.dtype == np.uint8:
        return values / 255
    if values.dtype.kind != "f" or not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"an edge map must be uint8, or floats within [0, 1]; this one is {values.dtype} or outside")
    return values.astype(np.float64)


def _drawn(drawn: ArrayLike, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Check the annotators' maps of a picture."""
    people = np.asarray(drawn)
    if people.ndim != 3 or not len(people) or people.shape[1:] != tuple(size):
        raise ValueError(f"annotators' maps must be [A, H, W] of the map's {list(size)}, not {list(people.shape)}")
    if people.dtype.kind not in "bu" or people.max() > 1:
        raise ValueError(f"annotators' maps must be bool, or 0 and 1, not {people.dtype} up to {people.max()}")
    return people.astype(bool)


def _count_mask(mask: _Mask, people: NDArray[np.bool_], tolerance: float) -> NDArray[np.int64]:
    """Hits, edge pixels and found pixels of one mask against all annotators."""
    right, found = np.zeros_like(mask), 0
    for person in people:
        hit, seen = match(mask, person, tolerance)
        right |= hit
        found += int(seen.sum())
    return np.array([right.sum(), mask.sum(), found])


class _Links(NamedTuple):
    """Pairs of pixels in reach, by the drawn pixel: positions in the flat picture [N] of both, and distances [N]."""

    drawn: NDArray[np.int64]
    predicted: NDArray[np.int64]
    lengths: _Map

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> _Links:
        """Return some of them."""
        return _Links(self.drawn[which], self.predicted[which], self.lengths[which])

    def turned(self) -> _Links:
        """Return them by the predicted pixel, as if that were the drawn one."""
        return _Links(self.predicted, self.drawn, self.lengths).take(np.argsort(self.predicted, kind="stable"))


def _links(predicted: _Mask, drawn: _Mask, tolerance: float) -> _Links:
    """All pairs within reach."""
    down, right, lengths = _disc(tolerance)
    reach, width = int(tolerance), predicted.shape[1]
    padded = np.pad(predicted, reach)
    rows, columns = np.nonzero(drawn)
    row, offset = np.nonzero(padded[rows[:, None] + (down + reach), columns[:, None] + (right + reach)])
    place = (rows * width + columns)[row]
    return _Links(place, place + (down * width + right)[offset], lengths[offset])


def _settle(links: _Links, among: _Links, tolerance: float) -> tuple[_Links, NDArray[np.int64]]:
    """What is left to assign, and the drawn pixels that can take the predicted pixel on which they lie.

    among: pairs of drawn pixels up to two tolerances apart. Every drawn pixel has a bound on how far its partner is in
    any best assignment: where at least as many predicted pixels lie within a distance of it as drawn pixels (itself
    among them) that may want one of those, one is free for it, and what is farther is worse. Bounds make others
    tighter. Let p lie on a predicted pixel that another, q, has, and have a partner itself: they can change, and by
    the triangle inequality it costs no more; only q's new partner must be in reach, which q's distance from p plus p's
    bound tells. So p takes its own pixel.
    """
    levels = np.unique(links.lengths)
    pixels, first = np.unique(among.drawn, return_index=True)  # each is in reach of itself
    one, other = np.searchsorted(pixels, among.drawn), np.searchsorted(pixels, among.predicted)

    def at_most(pixel: NDArray[np.int64], length: _Map) -> NDArray[np.int64]:
        level = np.searchsorted(levels, length - 1e-9)
        near = level < len(levels)
        counts = np.bincount(pixel[near] * len(levels) + level[near], minlength=len(pixels) * len(levels))
        return counts.reshape(len(pixels), -1).cumsum(1)

    own = np.searchsorted(pixels, links.drawn)
    offered = at_most(own, links.lengths)
    bound = np.full(len(pixels), tolerance)
    for _ in range(4):
        enough = offered >= at_most(one, among.lengths - bound[other])
        bound = np.where(enough.any(1), levels[enough.argmax(1)], tolerance)
    rivals = np.where((one != other) & (among.lengths <= bound[other] + 1e-9), among.lengths, 0)
    farthest = np.maximum.reduceat(rivals, first)
    covered = np.zeros(len(pixels), bool)
    covered[own[links.lengths == 0]] = True
    plain = covered & (farthest + bound <= tolerance)
    taken = pixels[plain]
    open_ = ~plain[own] & (links.lengths <= bound[own] + 1e-9) & ~np.isin(links.predicted, taken)
    return links.take(open_), taken


def _parts(links: _Links) -> Iterator[tuple[_Links, bool]]:
    """Parts that share no pixel, small ones together, each by the side that has fewer pixels: whether it was turned.

    A pixel that stays without partner is what takes time, and on that side there are fewer.
    """
    if not len(links.drawn):
        return
    (pixels, row), (partners, column) = (np.unique(each, return_inverse=True) for each in links[:2])
    graph = csr_array(
        (np.ones(len(row), np.int8), (row, column + len(pixels))), shape=(len(pixels) + len(partners),) * 2
    )
    number, label = connected_components(graph, directed=False)
    counts = [np.bincount(each, minlength=number) for each in (label[: len(pixels)], label[len(pixels) :])]
    turn = counts[0] > counts[1]
    part = label[row]
    for turned in (False, True):
        chosen = np.flatnonzero(turn[part] == turned)
        if not len(chosen):
            continue
        chosen = chosen[np.argsort(part[chosen], kind="stable")]
        ends = np.append(np.flatnonzero(np.diff(part[chosen])) + 1, len(chosen))
        start = 0
        for end in ends:
            if end - start >= _PART or end == len(chosen):
                some = links.take(np.sort(chosen[start:end]))
                yield some.turned() if turned else some, turned
                start = end


def _assign(links: _Links, tolerance: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of the best assignment: places of the drawn pixels, and of the predicted ones.

    Each drawn pixel gets a partner of its own that stands for none, so that there is always an assignment.
    """
    pixels, row = np.unique(links.drawn, return_inverse=True)
    partners, column = np.unique(links.predicted, return_inverse=True)
    alone = np.arange(len(pixels))
    ends = np.searchsorted(row, alone, side="right")
    columns = np.insert(column, ends, len(partners) + alone)
    costs = np.insert(links.lengths, ends, _UNMATCHED * tolerance) + 1  # on all: no optimum moves, and none is 0
    pointers = np.append(0, ends + alone + 1)
    shape = (len(pixels), len(partners) + len(pixels))
    table = csr_array((costs, columns.astype(np.int32), pointers.astype(np.int32)), shape=shape)
    chosen, taken = min_weight_full_bipartite_matching(table)
    paired = taken < len(partners)
    return pixels[chosen[paired]], partners[taken[paired]]


@cache
def _disc(tolerance: float) -> tuple[NDArray[np.int64], NDArray[np.int64], _Map]:
    """Steps down and right, and their lengths, of all pixels within a distance."""
    reach = int(tolerance)
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    lengths = np.hypot(down, right)
    inside = lengths <= tolerance
    return down[inside], right[inside], lengths[inside]


def _triangle(values: _Map, radius: int) -> _Map:
    """Smooth with a triangle of a radius, mirrored at the border."""
    weights = (radius + 1.0 - np.abs(np.arange(-radius, radius + 1))) / (radius + 1) ** 2
    rows = correlate1d(values, weights, axis=0, mode="reflect")
    return np.asarray(correlate1d(rows, weights, axis=1, mode="reflect"))


def _across(edges: _Map) -> _Map:
    """The direction across the line at each pixel, radians from the right downwards, modulo pi."""
    down, right = np.gradient(_triangle(edges, 4))
    both, right_right = np.gradient(right)
    down_down = np.gradient(down, axis=0)
    # The toolbox has sign(0) = 0, which turns exactly horizontal lines of drawn pictures by 90 degrees: here it is 1.
    slant = np.where(both > 0, -1.0, 1.0)
    across = right_right + 1e-5
    across[across == 0] = 1e-12  # a map of 8 bits can hit it
    return np.asarray(np.mod(np.arctan(down_down * slant / across), np.pi))


def _f(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 P R / (P + R), 0 where both are."""
    return np.asarray(2 * precision * recall / np.maximum(precision + recall, 1e-12))


def _best(total: Counts) -> dict[str, float]:
    """The best F with precision and recall interpolated in 100 steps between neighbouring thresholds."""
    places = np.arange(len(total.thresholds))
    fine = np.linspace(0, places[-1], 100 * places[-1] + 1) if len(places) > 1 else places
    step, precision, recall = (
        np.interp(fine, places, each) for each in (total.thresholds, total.precision, total.recall)
    )
    f = _f(precision, recall)
    k = int(np.argmax(f))
    found = {"ods": f[k], "ods_threshold": step[k], "ods_precision": precision[k], "ods_recall": recall[k]}
    return {name: float(value) for name, value in found.items()}


def _area(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Area below precision, sampled at recalls 0, 0.01 .. 1 between the least and the largest that were measured."""
    places = np.unique(recall)
    highest = [precision[recall == each].max() for each in places]
    return float(np.interp(np.arange(101) / 100, places, highest, left=0, right=0).sum() / 100)


_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # the neighbours x1 .. x8 of the paper


@cache
def _tables() -> tuple[_Mask, _Mask]:
    """For each pattern of neighbours (bit i for x_{i+1}), whether the pixel goes in the first and second turn."""
    x = (np.arange(256)[:, None] >> np.arange(9) % 8 & 1).astype(bool).T  # x[0] .. x[8] are x1 .. x8, x1
    crossings = sum((~x[i] & (x[i + 1] | x[i + 2])).astype(int) for i in (0, 2, 4, 6))
    one, two = (sum((x[i + k] | x[i + k + 1]).astype(int) for i in (0, 2, 4, 6)) for k in (0, 1))
    fewest = np.minimum(one, two)
    simple = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    return simple & ~((x[1] | x[2] | ~x[7]) & x[0]), simple & ~((x[5] | x[6] | ~x[3]) & x[4])
