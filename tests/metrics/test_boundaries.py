from __future__ import annotations

import importlib
import math
import shutil

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, label
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from attenua.metrics import boundaries
from attenua.metrics.boundaries import (
    Counts,
    consistency,
    count,
    evaluate,
    match,
    scores,
    suppress,
    thin,
)
from tests.conftest import ROOT

REACH = 0.0075 * math.hypot(321, 481)  # pixels, for a picture of the benchmark: 4.34


def points(*places, size=(12, 40)):
    mask = np.zeros(size, bool)
    for row, column in places:
        mask[row, column] = True
    return mask


def curve(seed=0, size=(60, 80)):
    """A thin wavy line across a picture."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    columns = np.linspace(0, size[1] - 1, 4 * size[1])
    rows = size[0] / 2 + size[0] / 4 * np.sin(columns / rng.uniform(8, 14) + rng.uniform(0, 6))
    mask[np.rint(rows).astype(int), np.rint(columns).astype(int)] = True
    return thin(mask)


# Matching


def test_a_mask_matches_itself_and_what_is_in_reach():
    mask = curve()
    for shift in (0, 2, 4):
        hit, found = match(np.roll(mask, shift, 0), mask, REACH)
        assert np.array_equal(hit, np.roll(mask, shift, 0))
        assert np.array_equal(found, mask)
    for shift in (5, 9):
        hit, found = match(points((0, shift)), points((0, 0)), REACH)
        assert not hit.any()
        assert not found.any()


def test_the_distance_is_euclidean_and_its_limit_belongs_to_it():
    for place, tolerance, expected in [((3, 4), 5.0, 1), ((3, 4), 4.99, 0), ((4, 4), 5.0, 0), ((0, 5), 5.0, 1)]:
        assert match(points(place), points((0, 0)), tolerance)[0].sum() == expected


def test_one_pixel_is_matched_once_and_to_the_nearest():
    hit, found = match(points((5, 3), (5, 6), (6, 5)), points((5, 5)), REACH)
    assert np.array_equal(hit, points((5, 6))) or np.array_equal(hit, points((6, 5)))
    assert found.sum() == 1
    hit, found = match(points((5, 5)), points((5, 3), (5, 6), (2, 5)), REACH)
    assert np.array_equal(found, points((5, 6)))


def test_more_pairs_go_before_nearer_pairs():
    """What greedy matching gets wrong: the nearest pair would leave two pixels alone."""
    drawn, predicted = points((0, 2), (0, 5)), points((0, 3), (0, 0))
    hit, found = match(predicted, drawn, 2.0)
    assert np.array_equal(hit, predicted)
    assert np.array_equal(found, drawn)
    columns = 3 * np.arange(12)  # and in a long chain, where every pixel must move on by one
    hit, found = match(points(*[(0, c) for c in columns + 2]), points(*[(0, c + 1) for c in columns], (0, 37)), 2.0)
    assert hit.sum() == found.sum() == 12


def test_masks_may_be_empty():
    empty, mask = np.zeros((12, 40), bool), points((1, 1))
    for pair in ((empty, mask), (mask, empty), (empty, empty)):
        assert not any(each.any() for each in match(*pair, REACH))


def optimal(predicted, drawn, tolerance):
    """How many pairs the best assignment has, and their total distance."""
    distances = cdist(np.argwhere(drawn), np.argwhere(predicted))
    alone = 100 * tolerance
    stand_ins = np.full((len(distances), len(distances)), alone)
    table = np.hstack([np.where(distances <= tolerance, distances, 1e6), stand_ins])
    costs = table[linear_sum_assignment(table)]
    return (costs < alone).sum(), costs[costs < alone].sum()


def assert_optimal(predicted, drawn, tolerance, matching=match):
    hit, found = matching(predicted, drawn, tolerance)
    assert not (hit & ~predicted).any()
    assert not (found & ~drawn).any()
    number, total = optimal(predicted, drawn, tolerance)
    assert hit.sum() == found.sum() == number
    if number:
        assert optimal(hit, found, tolerance) == (number, pytest.approx(total, abs=1e-9))


@pytest.mark.parametrize("seed", range(12))
def test_the_matching_is_the_optimal_assignment(seed):
    rng = np.random.default_rng(seed)
    predicted, drawn = (rng.random((14, 17)) < rng.uniform(0.05, 0.5) for _ in range(2))
    assert_optimal(predicted, drawn, rng.uniform(1, 4))


@pytest.mark.parametrize("seed", range(12))
def test_the_matching_of_thick_lines_is_the_optimal_assignment(seed):
    """Where most drawn pixels can take the pixel on which they lie, and where bounds tell so, or nearly."""
    rng = np.random.default_rng(seed)
    drawn = curve(seed, (40, 50)) | (rng.random((40, 50)) < 0.02 * (seed % 3))
    near = gaussian_filter(np.roll(curve(seed, (40, 50)) * 1.0, seed % 5, 0), 1.5)
    predicted = (near > np.quantile(near, rng.uniform(0.5, 0.7))) & (rng.random((40, 50)) < (1, 0.95, 0.8)[seed % 3])
    assert predicted.sum() > 3 * drawn.sum()
    assert_optimal(predicted, drawn, (4.34, 2.0, 3.0, 1.5)[seed % 4])


@pytest.mark.parametrize("seed", range(4))
def test_the_matching_does_not_depend_on_which_side_is_which(seed):
    rng = np.random.default_rng(seed)
    one, other = curve(seed), np.roll(curve(seed), 3, 1) & (rng.random((60, 80)) < 0.8)
    for pair in ((one, other), (other, one)):
        assert_optimal(*pair, REACH)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_compiled_matching_of_the_benchmarks_is_the_optimal_assignment(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(boundaries, "match", match)  # what install() replaces comes back
    importlib.import_module("compiled").install()
    compiled = boundaries.match
    assert compiled is not match
    rng = np.random.default_rng(0)
    masks = [rng.random((14, 17)) < share for share in rng.uniform(0.02, 0.6, 20)]
    masks += [curve(0), np.roll(curve(0), 3, 1), curve(1), np.zeros((12, 40), bool), points((3, 4))]
    for one, other in zip(masks, masks[1:], strict=False):
        if one.shape == other.shape:
            assert_optimal(one, other, rng.uniform(1, 4.5), compiled)


# Suppression and thinning


def slow_suppress(edges):
    """The rule, one pixel at a time."""
    height, width = edges.shape

    def triangle(values, radius):
        padded = np.pad(values, radius, mode="symmetric")
        weights = np.array([radius + 1 - abs(i) for i in range(-radius, radius + 1)]) / (radius + 1) ** 2
        result = np.zeros_like(values)
        for y in range(height):
            for x in range(width):
                result[y, x] = weights @ padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1] @ weights
        return result

    def at(values, y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
        v, u = y - y0, x - x0
        upper = (1 - u) * values[y0, x0] + u * values[y0, x0 + 1]
        return (1 - v) * upper + v * ((1 - u) * values[y0 + 1, x0] + u * values[y0 + 1, x0 + 1])

    smooth = triangle(edges, 1)
    broad = triangle(smooth, 4)
    ex, ey = np.gradient(broad, axis=1), np.gradient(broad, axis=0)
    exx, exy, eyy = np.gradient(ex, axis=1), np.gradient(ex, axis=0), np.gradient(ey, axis=0)
    result = np.zeros_like(smooth)
    for y in range(height):
        for x in range(width):
            angle = math.atan(eyy[y, x] * (np.sign(-exy[y, x]) or 1) / (exx[y, x] + 1e-5)) % math.pi
            sides = [at(smooth, y + s * math.sin(angle), x + s * math.cos(angle)) for s in (-1, 1)]
            if 1.01 * smooth[y, x] >= max(sides):
                border = [min(i, n - 1 - i) for i, n in ((y, height), (x, width))]
                result[y, x] = smooth[y, x] * math.prod(min(b / 5, 1) for b in border)
    return result


def test_suppression_follows_its_rule_at_every_pixel():
    edges = gaussian_filter(np.random.default_rng(0).random((26, 31)), 1.5)
    edges = (edges - edges.min()) / (edges.max() - edges.min())
    np.testing.assert_allclose(suppress(edges), slow_suppress(edges), rtol=0, atol=1e-9)


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 130, 160])
def test_a_blurred_line_becomes_its_ridge(angle):
    y, x = np.mgrid[:60, :60] - 29.5
    away = x * math.sin(math.radians(angle)) + y * math.cos(math.radians(angle))
    edges = np.exp(-0.5 * (away / 2) ** 2)
    left = suppress(edges)[8:-8, 8:-8] > 0.1
    assert np.abs(away[8:-8, 8:-8][left]).max() <= 1.5
    assert left.any(axis=0).all() or left.any(axis=1).all()


@pytest.mark.parametrize("seed", range(6))
def test_thinning_keeps_what_is_connected(seed):
    rng = np.random.default_rng(seed)
    mask = gaussian_filter(rng.random((50, 60)), rng.uniform(0.5, 3))
    mask = mask > np.quantile(mask, 0.6)
    result = thin(mask)
    assert not (result & ~mask).any()
    assert label(result, np.ones((3, 3)))[1] == label(mask, np.ones((3, 3)))[1]
    assert np.array_equal(thin(result), result)
    squares = result[1:, 1:] & result[:-1, 1:] & result[1:, :-1] & result[:-1, :-1]
    assert squares.sum() < 0.02 * result.sum()


@pytest.mark.parametrize("seed", range(6))
def test_thinning_equals_scikit_image(seed):
    morphology = pytest.importorskip("skimage.morphology")
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.random((50, 60)), rng.uniform(0.5, 3))
    for mask in (smooth > np.quantile(smooth, 0.5), rng.random((40, 40)) < 0.6, np.ones((9, 12), bool)):
        assert np.array_equal(thin(mask), morphology.thin(mask))


# Counts and scores


def test_a_pixel_is_right_where_any_annotator_has_it_and_every_annotator_counts():
    edges = (points((2, 5), (2, 20), (9, 33)) * 1.0).astype(np.float32)
    people = np.stack([points((2, 5), (9, 10)), points((2, 5), (2, 20)), points((11, 0))])
    result = count(edges, people, thinned=False, thresholds=3)
    assert result.thresholds.tolist() == [0.25, 0.5, 0.75]
    assert result.predicted.tolist() == [3] * 3
    assert result.hits.tolist() == [2] * 3
    assert result.found.tolist() == [3] * 3
    assert result.drawn.tolist() == [5] * 3


def test_thresholds_are_reached_by_values_equal_to_them():
    edges = np.zeros((12, 40))
    edges[1, 1], edges[1, 20] = 0.25, 0.7499
    result = count(edges, points((1, 1), (1, 20))[None], thinned=False, thresholds=3)
    assert result.predicted.tolist() == [2, 1, 0]
    assert result.found.tolist() == [2, 1, 0]
    assert result.precision.tolist() == [1, 1, 0]


def test_a_map_may_be_bytes_floats_or_a_tensor():
    drawn = np.stack([curve(0), curve(1)])
    edges = np.rint(gaussian_filter(curve(0) * 1.0, 1) / 0.4 * 255).clip(0, 255).astype(np.uint8)
    expected = count(edges, drawn, thresholds=5)
    for same in (edges / 255, torch.from_numpy(edges), torch.from_numpy(edges / 255)):
        result = count(same, torch.from_numpy(drawn), thresholds=5)
        assert scores([result]) == scores([expected])


def test_what_was_drawn_scores_1_without_suppression_and_its_blur_with_it():
    drawn = np.stack([curve(size=(150, 200))] * 2)
    blurred = gaussian_filter(drawn[0] * 1.0, 1.5)
    blurred /= blurred.max()
    pairs = {"line": (drawn[0] * 1.0, drawn), "blur": (blurred, drawn)}
    raw = {name: evaluate([pair], mode="CEval", thresholds=9) for name, pair in pairs.items()}
    assert [raw["line"][each] for each in ("ods", "ois")] == [1, 1]
    thinned = evaluate([pairs["blur"]], thresholds=9)
    assert thinned["ods"] > 0.9
    assert raw["blur"]["ods"] < thinned["ods"] - 0.1
    assert raw["line"]["crispness"] > 0.95 > 0.5 > raw["blur"]["crispness"]


def table(hits, predicted, found, drawn, thresholds=(0.25, 0.5, 0.75)):
    columns = [np.array(each, np.int64) for each in (hits, predicted, found, drawn)]
    return Counts(np.array(thresholds), *columns, crisp=0.5)


def test_scores_of_hand_made_counts():
    first = table([10, 8, 2], [40, 10, 2], [10, 8, 2], [10, 10, 10])
    second = table([9, 5, 1], [10, 5, 1], [9, 5, 1], [10, 10, 10])
    found = scores([first, second])
    # First is best at 0.5 (P = R = 0.8), second at 0.25 (P = R = 0.9): counts of both choices are summed.
    assert found["ois"] == pytest.approx(17 / 20, abs=1e-12)
    # All together: P = 19/50, 13/15, 1 and R = 19/20, 13/20, 3/20; the best place is between the first two.
    fine = np.linspace(0, 1, 101)
    p, r = 19 / 50 + fine * (13 / 15 - 19 / 50), 19 / 20 + fine * (13 / 20 - 19 / 20)
    f = 2 * p * r / (p + r)
    assert found["ods"] == pytest.approx(f.max(), abs=1e-12)
    assert found["ods_threshold"] == pytest.approx(0.25 + 0.25 * fine[f.argmax()], abs=1e-12)
    assert found["ods_precision"] == pytest.approx(p[f.argmax()], abs=1e-12)
    levels = np.arange(101) / 100
    heights = np.interp(levels, [3 / 20, 13 / 20, 19 / 20], [1, 13 / 15, 19 / 50], left=0, right=0)
    assert found["ap"] == pytest.approx(heights.sum() / 100, abs=1e-12)
    assert found["crispness"] == 0.5


def test_one_threshold_is_enough():
    found = scores([table([3], [4], [6], [10], thresholds=(0.5,))])
    assert found["ods"] == found["ois"] == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert found["ods_threshold"] == 0.5


def test_annotators_who_agree_are_consistent():
    same = np.stack([curve()] * 3)
    result = consistency([same])
    assert result.precision.tolist() == result.recall.tolist() == [1]
    odd = np.stack([points((1, 1)), points((1, 1)), points((10, 30))])
    result = consistency([odd, odd])
    assert (result.hits.item(), result.predicted.item()) == (4, 6)
    assert (result.found.item(), result.drawn.item()) == (4, 12)
    assert result.pictures == 2


def pictures(number):
    for seed in range(number):
        edges = gaussian_filter(curve(seed) * 1.0, 1)
        yield edges / edges.max(), np.stack([curve(seed), np.roll(curve(seed), 1, 0)])


def test_two_processes_find_the_same_in_any_order():
    seen = []
    alone = evaluate(pictures(5), thresholds=5)
    shared = evaluate(pictures(5), thresholds=5, processes=2, progress=seen.append)
    assert shared == pytest.approx(alone, abs=1e-12)
    assert seen == [1, 2, 3, 4, 5]


def test_equal_masks_are_matched_once(monkeypatch):
    calls = []
    monkeypatch.setattr(boundaries, "match", lambda *a: calls.append(1) or match(*a))
    mask = curve()
    result = count(mask * 1.0, np.stack([mask] * 2), thinned=False, thresholds=99)
    assert len(calls) == 2
    assert result.found.tolist() == [2 * mask.sum()] * 99


MAP, DRAWN = np.zeros((12, 40)), np.zeros((2, 12, 40), bool)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: count(MAP[None], DRAWN), r"must be \[H, W\]"),
        (lambda: count(MAP[:2], DRAWN[:, :2]), "at least 3 x 3"),
        (lambda: count(MAP + 1.5, DRAWN), r"within \[0, 1\]"),
        (lambda: count(MAP * math.nan, DRAWN), r"within \[0, 1\]"),
        (lambda: count(MAP.astype(np.int64), DRAWN), "must be uint8"),
        (lambda: count(MAP, DRAWN[0]), r"must be \[A, H, W\]"),
        (lambda: count(MAP, DRAWN[:0]), r"must be \[A, H, W\]"),
        (lambda: count(MAP, DRAWN[:, 1:]), r"must be \[A, H, W\]"),
        (lambda: count(MAP, DRAWN + np.uint8(2)), "0 and 1"),
        (lambda: count(MAP, DRAWN * 0.5), "0 and 1"),
        (lambda: count(MAP, DRAWN, thresholds=0), "at least 1 threshold"),
        (lambda: evaluate([], thresholds=3), "no picture"),
        (lambda: evaluate([(MAP, DRAWN)], mode="seval"), "SEval, CEval"),
        (lambda: evaluate([(MAP, DRAWN)], processes=0), "at least 1, not 0"),
        (lambda: consistency([DRAWN[:1]]), "at least 2 annotators"),
        (lambda: consistency([]), "no picture"),
        (lambda: count(MAP, DRAWN, thresholds=2) + count(MAP, DRAWN, thresholds=3), "different thresholds"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_an_empty_map_scores_0():
    found = evaluate([(MAP, DRAWN)], thresholds=3)
    assert all(found[name] == 0 for name in ("ods", "ois", "ap", "crispness"))
