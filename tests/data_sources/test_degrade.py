from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attenua.data import degrade
from attenua.data.degrade import Blind, bicubic, blur, crop_to_multiple, enlarge, gaussian, jpeg, noise
from attenua.data.draws import generator


def photo(height=48, width=64, seed=0):
    """A smooth picture with some texture, uint8 [3, H, W]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(3, 9) + y / rng.uniform(3, 9)) for _ in range(3)]
    return torch.from_numpy((127 + 90 * np.stack(waves) + rng.normal(0, 5, (3, height, width))).clip(0, 255)).byte()


def plain(value, height=40, width=32):
    return torch.tensor(value, dtype=torch.uint8)[:, None, None].expand(3, height, width)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8))
def test_a_crop_is_the_largest_upper_left_multiple(height, width, scale):
    image = torch.arange(height * width).view(1, height, width)
    if height < scale or width < scale:
        with pytest.raises(ValueError, match=f"too small for scale {scale}"):
            crop_to_multiple(image, scale)
        return
    result = crop_to_multiple(image, scale)
    assert result.shape[1] % scale == result.shape[2] % scale == 0
    assert height - result.shape[1] < scale > width - result.shape[2]
    assert torch.equal(result, image[:, : result.shape[1], : result.shape[2]])


def test_bicubic_is_pillows():
    image = photo()
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((16, 12), Image.Resampling.BICUBIC)
    assert torch.equal(bicubic(image, 4), torch.from_numpy(np.array(expected)).permute(2, 0, 1))
    assert torch.equal(bicubic(image, 1), image)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_a_plain_picture_stays_plain(colour, scale, rows, columns):
    image = plain(colour, rows * scale, columns * scale)
    assert torch.equal(bicubic(image, scale), plain(colour, rows, columns))
    assert torch.equal(enlarge(bicubic(image, scale), scale), image)
    assert torch.equal(blur(image, gaussian(1.5, 0.7, 0.3)), image)
    assert torch.equal(noise(image, 0, generator(0, 0)), image)


def test_reducing_and_enlarging_commute_with_mirroring():
    image = photo()
    for change in (lambda each: bicubic(each, 4), lambda each: enlarge(each, 2)):
        for axis in (1, 2):
            assert torch.equal(change(image.flip(axis)), change(image).flip(axis))


def test_an_enlarged_ramp_is_centred():
    """Pixel centres are kept: enlarging a ramp by s makes one of slope 1/s through the same middle."""
    ramp = (4 * torch.arange(32)).byte().expand(3, 8, 32)
    expected = 4 * ((torch.arange(128) + 0.5) / 4 - 0.5)
    assert (enlarge(ramp, 4)[0, 0].float() - expected)[12:-12].abs().max() <= 0.5


@pytest.mark.parametrize(("along", "across", "angle"), [(2.0, 2.0, 0.0), (3.0, 1.0, 0.0), (2.5, 1.2, 0.7)])
def test_a_kernel_has_the_moments_that_were_asked_for(along, across, angle):
    kernel = gaussian(along, across, angle)
    radius = len(kernel) // 2
    y, x = np.mgrid[radius : -radius - 1 : -1, -radius : radius + 1]
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-12)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = turn @ np.diag([along**2, across**2]) @ turn.T
    found = [[(kernel * x * x).sum(), (kernel * x * y).sum()], [(kernel * x * y).sum(), (kernel * y * y).sum()]]
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01)


def test_two_blurs_are_one_of_the_summed_variances():
    image = photo()
    twice = blur(blur(image, gaussian(1.2, 1.2, 0)), gaussian(1.6, 1.6, 0))
    once = blur(image, gaussian(2.0, 2.0, 0))
    assert (twice.float() - once.float()).abs().max() <= 2  # rounding, and the second mirroring


def test_a_point_is_blurred_along_the_axis():
    point = torch.zeros(3, 41, 41, dtype=torch.uint8)
    point[:, 20, 20] = 255
    result = blur(point, gaussian(3, 0.6, math.pi / 4)).float()[0]
    assert result[17, 23] > 10 * result[23, 23].clamp(min=0.1)  # up and right, not down and right


def test_noise_has_its_deviation_and_grey_noise_is_the_same_in_all_channels():
    image = plain((128, 128, 128), 200, 200)
    coloured = noise(image, 12, generator(0, 0)).float() - 128
    assert coloured.std().item() == pytest.approx(12, rel=0.02)
    assert abs(torch.corrcoef(coloured.flatten(1))[0, 1].item()) < 0.02
    grey = noise(image, 12, generator(0, 0), grey=True).float() - 128
    assert grey.std().item() == pytest.approx(12, rel=0.02)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])


def test_jpeg_is_worse_at_lower_quality():
    image = photo()
    errors = [(jpeg(image, quality).float() - image.float()).square().mean().item() for quality in (95, 60, 20, 5)]
    assert 0 < errors[0] < errors[1] < errors[2] < errors[3]


def test_a_blind_degradation_belongs_to_seed_and_index():
    image, blind = photo(), Blind()
    first = [blind(image, 7, index) for index in range(6)]
    assert all(each.shape == (3, 12, 16) and each.dtype == torch.uint8 for each in first)
    assert all(torch.equal(blind(image, 7, index), first[index]) for index in (4, 1, 5))
    assert not any(torch.equal(a, b) for a, b in zip(first[:-1], first[1:], strict=True))
    assert not torch.equal(blind(image, 8, 0), first[0])


def test_a_blind_degradation_that_skips_all_is_bicubic():
    image = photo()
    assert torch.equal(Blind(skip=1)(image, 0, 0), bicubic(image, 4))


def test_a_blind_degradation_stays_in_its_ranges(monkeypatch):
    seen = {"blur": [], "noise": [], "quality": []}
    monkeypatch.setattr(degrade, "gaussian", lambda *a: seen["blur"].append(a) or gaussian(*a))
    monkeypatch.setattr(degrade, "noise", lambda i, d, g, *, grey: seen["noise"].append((d, grey)) or i)
    monkeypatch.setattr(degrade, "jpeg", lambda i, q: seen["quality"].append(q) or i)
    blind = Blind(scale=2, blur=(0.5, 2), noise=(3, 9), quality=(40, 60), skip=0.25)
    for index in range(300):
        blind(plain((9, 9, 9), 4, 4), 0, index)
    assert all(150 < len(each) < 270 for each in seen.values())  # 225 expected, deviation 7.5
    assert all(0.5 <= a <= 2 and 0.5 <= b <= 2 for a, b, _ in seen["blur"])
    assert 0.35 < np.mean([a == b for a, b, _ in seen["blur"]]) < 0.65
    assert all(3 <= d <= 9 for d, _ in seen["noise"])
    assert 0.25 < np.mean([grey for _, grey in seen["noise"]]) < 0.55
    assert {min(seen["quality"]), max(seen["quality"])} == {40, 60}


def test_generators_of_other_pictures_and_streams_differ():
    draws = {tuple(generator(*key).integers(0, 2**62, 2)) for key in [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 1)]}
    assert len(draws) == 5
    assert generator(3, 4).random() == generator(3, 4).random()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda image: bicubic(image, 5), "cannot be reduced by 5"),
        (lambda image: bicubic(image, 0), "cannot be reduced by 0"),
        (lambda image: bicubic(image.float(), 2), "must be uint8"),
        (lambda image: enlarge(image[:1], 2), "must be uint8"),
        (lambda image: enlarge(image, 0), "at least 1, not 0"),
        (lambda image: crop_to_multiple(image, 0), "at least 1, not 0"),
        (lambda image: gaussian(0, 1, 0), "above 0 pixels"),
        (lambda image: gaussian(1, math.nan, 0), "above 0 pixels"),
        (lambda image: blur(image, np.ones((2, 3))), "odd sides"),
        (lambda image: noise(image, -1, generator(0, 0)), "at least 0, not -1"),
        (lambda image: jpeg(image, 96), "1 to 95, not 96"),
        (lambda image: Blind(blur=(2, 1)), "blur must be a range"),
        (lambda image: Blind(quality=(0, 50)), "quality must be a range"),
        (lambda image: Blind(skip=1.5), "probability"),
        (lambda image: Blind(scale=0), "at least 1, not 0"),
        (lambda image: Blind()(image, -1, 0), "seed must be a whole number"),
        (lambda image: Blind()(image, 0, 2**64), "index must be a whole number"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(photo())
