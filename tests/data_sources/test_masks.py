from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from scipy.ndimage import distance_transform_edt, label

from attenua.data import masks
from attenua.data.masks import WIDTHS, boxes, mask_set, strokes

KINDS = (strokes, boxes)


def ratio(mask):
    return mask.double().mean().item()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(WIDTHS),
    st.integers(8, 90),
    st.integers(8, 90),
    st.integers(0, 2**64 - 1),
    st.floats(0.01, 0.6),
)
def test_a_mask_has_the_ratio_that_was_asked_for(kind, width_class, height, width, seed, goal):
    mask = kind(height, width, seed, 3, width_class, (goal, goal))
    assert mask.shape == (height, width)
    assert mask.dtype == torch.bool
    pixel = 1 / (height * width)
    assert max(pixel, goal - 0.01 - 1.5 * pixel) <= ratio(mask) <= max(pixel, goal + 0.5 * pixel)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_belongs_to_seed_index_and_class(kind):
    first = kind(64, 48, 1, 2, "medium")
    assert torch.equal(kind(64, 48, 1, 2, "medium"), first)
    others = [kind(64, 48, 1, 3, "medium"), kind(64, 48, 2, 2, "medium"), kind(64, 48, 1, 2, "thick")]
    assert not any(torch.equal(other, first) for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_ratios_are_even_over_their_range(kind):
    found = [ratio(kind(64, 64, 0, index, "medium", (0.1, 0.5))) for index in range(100)]
    assert 0.085 <= min(found) < 0.14
    assert 0.44 < max(found) <= 0.5
    assert stats.kstest(found, stats.uniform(0.095, 0.4).cdf).pvalue > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_wider_classes_reach_deeper(kind):
    """The half width of a hole, where it is widest, grows from class to class."""
    depth = [
        np.mean([distance_transform_edt(kind(128, 128, 0, i, each, (0.2, 0.3)).numpy()).max() for i in range(12)])
        for each in WIDTHS
    ]
    assert depth[0] < 0.7 * depth[1] < 0.5 * depth[2]


def test_a_large_mask_looks_like_a_small_one():
    depth = [
        np.mean([distance_transform_edt(strokes(n, n, 0, i, "thick", (0.2, 0.3)).numpy()).max() for i in range(12)]) / n
        for n in (64, 256)
    ]
    assert depth[1] == pytest.approx(depth[0], rel=0.2)


def test_boxes_are_upright_rectangles():
    seen = 0
    for index in range(40):
        mask = boxes(64, 64, 0, index, "thick", (0.1, 0.4)).numpy()
        _, count = label(mask)
        if count == 1:
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            seen += mask.sum() == len(rows) * len(columns)
        corners = np.abs(np.diff(np.diff(np.pad(mask, 1).astype(int), axis=0), axis=1)).sum()
        assert corners <= 4 * 12  # a slanted or round outline has one a step
    assert seen >= 10


def test_holes_are_everywhere_in_the_picture():
    for kind in KINDS:
        share = torch.stack([kind(32, 32, 5, i, "medium") for i in range(120)]).double().mean(0)
        assert share.min() > 0.02
        assert share.max() < 0.75


def test_a_set_alternates_kinds_and_runs_through_the_widths():
    whole = mask_set(12, 40, 48, 9)
    assert whole.shape == (12, 40, 48)
    for i, mask in enumerate(whole):
        assert torch.equal(mask, KINDS[i % 2](40, 48, 9, i, WIDTHS[i // 2 % 3]))
    assert torch.equal(mask_set(4, 40, 48, 9, first=5), whole[5:9])


def picture(path, values):
    Image.fromarray(np.asarray(values)).save(path)
    return path


def test_a_mask_is_read_from_a_picture_file(tmp_path):
    expected = strokes(30, 40, 0, 0, "thick")
    grey = (expected.numpy() * 255).astype(np.uint8)
    assert torch.equal(masks.read(picture(tmp_path / "grey.png", grey), (30, 40)), expected)
    assert torch.equal(masks.read(picture(tmp_path / "colour.png", np.stack([grey] * 3, 2))), expected)
    assert torch.equal(masks.read(picture(tmp_path / "two.png", expected.numpy())), expected)
    assert torch.equal(masks.read(picture(tmp_path / "soft.png", grey // 2 + (grey > 0) + 32)), expected)
    paint = np.stack([np.full_like(grey, 255)] * 3 + [grey], 2)
    assert torch.equal(masks.read(picture(tmp_path / "layer.png", paint)), expected)
    assert torch.equal(masks.read(picture(tmp_path / "empty.png", np.stack([grey] * 4, 2))), expected)
    Image.fromarray(grey).save(tmp_path / "lossy.jpg", quality=60)
    assert (masks.read(tmp_path / "lossy.jpg") ^ expected).sum() <= 5


def test_a_mask_that_says_nothing_is_refused(tmp_path):
    black = picture(tmp_path / "black.png", np.zeros((8, 9), np.uint8))
    white = picture(tmp_path / "white.png", np.full((8, 9), 255, np.uint8))
    with pytest.raises(ValueError, match=r"black\.png is all black"):
        masks.read(black)
    ones = picture(tmp_path / "ones.png", np.eye(8, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"ones\.png is all black \(its lightest level is 1 of 255\): a mask must"):
        masks.read(ones)
    with pytest.raises(ValueError, match=r"white\.png is all white"):
        masks.read(white)
    with pytest.raises(ValueError, match=r"is 9 x 8 pixels, but the picture is 8 x 9"):
        masks.read(black, (9, 8))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png"):
        masks.read(tmp_path / "bad.png")
    with pytest.raises(FileNotFoundError):
        masks.read(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"width_class": "fat"}, "one of thin, medium, thick, not 'fat'"),
        ({"height": 7}, "at least 8 pixels"),
        ({"ratio": (0.0, 0.5)}, "range within 0"),
        ({"ratio": (0.5, 0.4)}, "range within 0"),
        ({"ratio": (0.1, 0.61)}, r"range within 0 .. 0\.6"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"index": 2**64}, "index must be a whole number"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_call_is_told_in_a_sentence(kind, change, sentence):
    arguments = {"height": 16, "width": 16, "seed": 0, "index": 0, "width_class": "thin", **change}
    with pytest.raises(ValueError, match=sentence):
        kind(**arguments)


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least 1 mask, not 0"):
        mask_set(0, 16, 16, 0)
