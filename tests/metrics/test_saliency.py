from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from attenua.metrics.saliency import Saliency, structure, weighted_f

NAMES = ("mae", "f_max", "f_mean", "f_adaptive", "f_weighted", "s", "e_max", "e_mean", "e_adaptive")


def disc(height, width, row, column, radius):
    y, x = np.mgrid[:height, :width]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def cases():
    """(map uint8, mask bool): random, structured, near perfect, inverted, constant, tiny and large objects."""
    rng = np.random.default_rng(0)
    blob = disc(60, 80, 25, 50, 17)
    two = disc(64, 48, 12, 10, 9) | disc(64, 48, 50, 40, 6)
    soft = gaussian_filter(blob.astype(float), 4)
    found = [
        (rng.random((40, 30)), rng.random((40, 30)) > 0.5),
        (soft, blob),
        (np.roll(soft, (5, -7), (0, 1)), blob),
        (0.2 + 0.5 * soft, blob),
        (blob * 1.0, blob),
        (1.0 - blob, blob),
        (np.full(blob.shape, 0.4), blob),
        (np.zeros(blob.shape), blob),
        (np.clip(two + rng.normal(0, 0.3, two.shape), 0, 1), two),
        (gaussian_filter(rng.random((50, 50)), 3), disc(50, 50, 2, 2, 3)),
        (gaussian_filter(rng.random((50, 50)), 3), ~disc(50, 50, 40, 8, 6)),
        (rng.random((20, 20)), np.zeros((20, 20), bool)),
        (rng.random((20, 20)), np.ones((20, 20), bool)),
    ]
    return [(np.rint(values * 255).astype(np.uint8), mask) for values, mask in found]


# What PySODMetrics 1.6.2 says of the cases, in the order of NAMES.
EXPECTED = [
    [0.508052, 0.526186, 0.415387, 0.007803, 0.552773, 0.31048, 0.504542, 0.39188, 0.250976],
    [0.070218, 0.998972, 0.826506, 0.93012, 0.794536, 0.928532, 0.999433, 0.858729, 0.979788],
    [0.132865, 0.704235, 0.654789, 0.668943, 0.603293, 0.745172, 0.890208, 0.802544, 0.88222],
    [0.069818, 0.996895, 0.827237, 0.924248, 0.795859, 0.92876, 0.997896, 0.859032, 0.977627],
    [0.0, 1.0, 0.996996, 1.0, 1.0, 1.0, 1.000208, 0.997278, 1.000208],
    [1.0, 0.231012, 0.000902, 0.0, 0.0, 0.0, 0.250052, 0.000977, 0.0],
    [0.437542, 0.231012, 0.092946, 0.0, 0.179138, 0.423091, 0.250052, 0.250052, 0.250052],
    [0.187708, 0.231012, 0.000902, 0.231012, 0.0, 0.406146, 0.250052, 0.250052, 0.250052],
    [0.122082, 0.913777, 0.669422, 0.666184, 0.539412, 0.637867, 0.976482, 0.777905, 0.854627],
    [0.579396, 0.015435, 0.008585, 0.0, 0.01243, 0.312735, 0.97764, 0.270063, 0.370463],
    [0.542551, 0.964864, 0.587286, 0.067143, 0.655836, 0.333969, 0.920919, 0.303588, 0.051198],
    [0.482431, 0.0, 0.0, 0.0, 0.0, 0.517569, 1.0, 0.518719, 0.962406],
    [0.495422, 1.0, 0.72998, 0.010744, 0.804271, 0.504578, 1.002506, 0.507783, 0.002506],
]


def measured(*pairs):
    measures = Saliency()
    for values, mask in pairs:
        measures.update(torch.from_numpy(values.copy()), torch.from_numpy(mask.copy()))
    return measures.results()


def peer(*pairs):
    """The same figures by PySODMetrics."""
    package = pytest.importorskip("py_sod_metrics", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f, e = package.Fmeasure(), package.Emeasure()
        others = {"mae": package.MAE(), "wfm": package.WeightedFmeasure(), "sm": package.Smeasure()}
        for values, mask in pairs:
            for each in (f, e, *others.values()):
                each.step(values, (mask * 255).astype(np.uint8))
    f, e = f.get_results()["fm"], e.get_results()["em"]
    mae, wfm, sm = (each.get_results()[name] for name, each in others.items())
    return [mae, f["curve"].max(), f["curve"].mean(), f["adp"], wfm, sm, e["curve"].max(), e["curve"].mean(), e["adp"]]


@pytest.mark.parametrize("number", range(13))
def test_every_measure_equals_the_reference(number):
    found = measured(cases()[number])
    assert [found[name] for name in NAMES] == pytest.approx(EXPECTED[number], abs=1e-4)


def test_a_set_is_measured_by_its_mean_curves():
    pairs = cases()[:4]
    found, alone = measured(*pairs), [measured(pair) for pair in pairs]
    for name in ("mae", "f_mean", "f_adaptive", "f_weighted", "s", "e_mean", "e_adaptive"):
        assert found[name] == pytest.approx(np.mean([each[name] for each in alone]), abs=1e-12)
    assert found["f_max"] < np.mean([each["f_max"] for each in alone])  # one threshold for all pictures


@pytest.mark.slow
def test_every_measure_equals_pysodmetrics():
    rng = np.random.default_rng(1)
    pairs = cases()
    for _ in range(40):
        height, width = rng.integers(24, 90, 2)
        mask = gaussian_filter(rng.random((height, width)), rng.uniform(1, 8))
        mask = mask > np.quantile(mask, rng.uniform(0.2, 0.95))
        noise = gaussian_filter(rng.normal(0, 2, (height, width)), 1) * rng.uniform(0, 1)
        pairs.append((np.rint(np.clip(mask * rng.uniform(0.3, 1) + noise, 0, 1) * 255).astype(np.uint8), mask))
    for pair in pairs:
        found = measured(pair)
        assert [found[name] for name in NAMES] == pytest.approx(peer(pair), abs=1e-4)
    found = measured(*pairs)
    assert [found[name] for name in NAMES] == pytest.approx(peer(*pairs), abs=1e-4)


def test_a_perfect_map_is_perfect():
    mask = disc(60, 80, 25, 50, 17)
    found = measured(((mask * 255).astype(np.uint8), mask))
    assert found["mae"] == 0
    for name in ("f_max", "f_adaptive", "f_weighted", "s"):
        assert found[name] == pytest.approx(1, abs=1e-9)
    assert found["e_max"] == pytest.approx(1, abs=1e-3)  # divided by the pixels less one


def test_grey_counts():
    """A soft map is not binarised first: its errors are those of its grey values."""
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    values = np.where(mask, 200, 0).astype(np.uint8)
    values[0, 0], values[9, 9] = 255, 51
    found = measured((values, mask))
    assert found["mae"] == pytest.approx((49 * 55 / 255 + 0.2) / 100, abs=1e-12)
    assert found["f_mean"] < found["f_max"]


def test_floats_are_the_bytes_they_are_written_as():
    values, mask = cases()[2]
    floats = torch.from_numpy(values) / 255
    measures = Saliency()
    measures.update(floats + 0.4 / 255 * (floats > 0.1) * (floats < 0.9), torch.from_numpy(mask))
    assert measures.results() == measured((values, mask))


def test_an_error_near_the_object_counts_less():
    mask = disc(60, 60, 30, 30, 10)
    near, far = mask.astype(float), mask.astype(float)
    near[30, 41:44], far[30, 55:58] = 1, 1
    assert weighted_f(near, mask) > weighted_f(far, mask)


def test_a_centre_in_the_last_row_leaves_no_hole_in_the_sum():
    mask = np.zeros((12, 12), bool)
    mask[11, 3:6] = True
    assert structure(mask.astype(float), mask) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "mask", "sentence"),
    [
        (torch.zeros(4, 4), torch.zeros(4, 5, dtype=torch.bool), "of one size"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool), "of one size"),
        (torch.zeros(4, 4), torch.zeros(4, 4), "must be bool"),
        (torch.zeros(4, 4, dtype=torch.int32), torch.zeros(4, 4, dtype=torch.bool), "float or uint8"),
        (torch.full((4, 4), 1.1), torch.zeros(4, 4, dtype=torch.bool), r"within \[0, 1\]"),
        (torch.full((4, 4), torch.nan), torch.zeros(4, 4, dtype=torch.bool), r"within \[0, 1\]"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(values, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        Saliency().update(values, mask)


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no picture"):
        Saliency().results()
