import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attenua.data import ImageSet


def make(count=5, channels=3, height=4, width=6, seed=0, labels=None, classes=()):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
    return ImageSet(images, labels, classes, "test", "none")


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 9), channels=st.integers(1, 4), seed=st.integers(0, 999))
def test_the_moments_are_those_of_the_float64_pictures(count, channels, seed):
    data = make(count, channels, seed=seed)
    pictures = data.images.double() / 127.5 - 1
    mean = pictures.mean((0, 2, 3))
    torch.testing.assert_close(data.mean(), mean, rtol=1e-12, atol=1e-12)
    left = pictures - mean[:, None, None]
    assert data.deviation() == pytest.approx(float(left.square().mean().sqrt()), rel=1e-12)
    torch.testing.assert_close(data.data_mean(), left.mean(0).float(), rtol=1e-6, atol=1e-7)


def test_the_deviation_about_another_mean_is_larger_by_its_distance():
    data = make()
    mean = data.mean()
    assert data.deviation(mean) == data.deviation()
    assert data.deviation(mean + 0.3) ** 2 == pytest.approx(data.deviation() ** 2 + 0.09, rel=1e-12)


def test_black_and_white_are_the_ends_of_the_range():
    images = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    images[1] = 255
    data = ImageSet(images, None, (), "ends", "none")
    assert data.mean().item() == 0
    assert data.deviation() == 1


def test_the_sum_is_that_of_all_bytes_in_order(monkeypatch):
    data = make(count=7)
    whole = hashlib.sha256(data.images.numpy().tobytes()).hexdigest()
    assert data.sha256() == whole
    monkeypatch.setattr("attenua.data.imageset._CHUNK", 2)
    assert data.sha256() == whole
    assert make(count=7, seed=1).sha256() != whole


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 3, 4, 4), None, "uint8"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), None, "uint8"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), None, "non-empty"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "one a picture"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "int64"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), "2 classes"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([-1, 0]), "from -1"),
    ],
)
def test_what_is_no_set_of_pictures_is_refused(images, labels, words):
    with pytest.raises(ValueError, match=words):
        ImageSet(images, labels, ("a", "b"), "bad", "none")


def test_the_length_is_the_number_of_pictures():
    assert len(make(count=4)) == 4
