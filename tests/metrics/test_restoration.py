from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attenua.metrics.restoration import luma, psnr, psnr_y, ssim_y
from tests.conftest import ROOT

ARCHIVE = Path(os.environ.get("TEST_DATA", ROOT / "data")) / "sr_test_set5_set14.zip"


def pictures(*shape, seed=0):
    """Random 8-bit pictures in [-1, 1]."""
    values = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))
    return values.double() / 127.5 - 1


def plain(red, green, blue, size=32):
    return (torch.tensor([red, green, blue]).double() / 127.5 - 1)[None, :, None, None].expand(1, 3, size, size)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
        ((128, 128, 128), 16 + 219 * 128 / 255),
    ],
)
def test_luma_of_known_colours(colour, expected):
    result = luma(plain(*colour))
    assert result.dtype == torch.float64
    assert result.shape == (1, 32, 32)
    assert torch.allclose(result, torch.full_like(result, expected), rtol=0, atol=1e-9)


def test_pictures_are_rounded_to_8_bits_and_clipped_first():
    exact = pictures(2, 3, 24, 24)
    blurred = exact + 0.9 / 255 * (2 * torch.rand(exact.shape, dtype=torch.float64) - 1)
    assert torch.equal(luma(blurred), luma(exact))
    assert torch.equal(luma(exact.sign() * 3), luma(exact.sign()))
    assert torch.equal(luma(exact.float()), luma(exact))


def test_psnr_of_a_known_error():
    dark, light = plain(100, 100, 100), plain(110, 110, 110)
    step = 219 * 10 / 255
    assert psnr_y(dark, light, scale=4).item() == pytest.approx(20 * math.log10(255 / step), abs=1e-9)
    assert psnr(dark, light).item() == pytest.approx(20 * math.log10(255 / 10), abs=1e-9)


def test_equal_pictures_have_infinite_psnr_and_ssim_1():
    same = pictures(2, 3, 24, 24)
    assert psnr_y(same, same, scale=2).tolist() == [math.inf] * 2
    assert psnr(same, same).tolist() == [math.inf] * 2
    assert torch.allclose(ssim_y(same, same, scale=2), torch.ones(2).double(), rtol=0, atol=1e-12)


def test_the_border_does_not_count_and_the_first_pixel_inside_does():
    truth = pictures(1, 3, 40, 36)
    damaged = -truth
    damaged[..., 4:-4, 4:-4] = truth[..., 4:-4, 4:-4]
    assert psnr_y(damaged, truth, scale=4).item() == math.inf
    assert ssim_y(damaged, truth, scale=4).item() == pytest.approx(1, abs=1e-12)
    assert psnr_y(damaged, truth, scale=3).item() < math.inf
    assert ssim_y(damaged, truth, scale=3).item() < 0.9999


def test_each_picture_is_measured_alone():
    first, second = pictures(3, 3, 20, 22), pictures(3, 3, 20, 22, seed=1)
    for measure in (psnr_y, ssim_y):
        whole = measure(first, second, scale=2)
        alone = torch.cat([measure(a[None], b[None], scale=2) for a, b in zip(first, second, strict=True)])
        assert torch.allclose(whole, alone, rtol=0, atol=1e-12)
        assert torch.allclose(whole, measure(second, first, scale=2), rtol=0, atol=1e-12)


def test_the_hole_alone_counts():
    truth, filled = pictures(2, 3, 16, 16), pictures(2, 3, 16, 16, seed=1)
    hole = torch.zeros(2, 16, 16, dtype=torch.bool)
    hole[0, 2:7, 3:9], hole[1, 8:, 1:3] = True, True
    error = ((filled - truth) * 127.5).square().mean(1)
    expected = [20 * math.log10(255) - 10 * math.log10(error[i][hole[i]].mean()) for i in range(2)]
    assert psnr(filled, truth, hole).tolist() == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(psnr(filled, truth, torch.ones_like(hole)), psnr(filled, truth), rtol=0, atol=1e-9)


def test_ssim_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    smooth = torch.nn.functional.avg_pool2d(pictures(4, 3, 80, 70), 9, 1)
    truth = torch.cat([pictures(1, 3, 72, 62), smooth])
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))
    restored = truth + noise * torch.tensor([0.3, 0.05, 0.01, 0.2, 0.0])[:, None, None, None]
    for border in (0, 3):
        inside = slice(border, -border or None)
        expected = [
            metrics.structural_similarity(
                a[inside, inside].numpy(),
                b[inside, inside].numpy(),
                data_range=255,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in zip(luma(restored), luma(truth), strict=True)
        ]
        assert ssim_y(restored, truth, scale=border).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda a, b: luma(a[:, :1]), r"must be \[B, 3, H, W\]"),
        (lambda a, b: luma(a[0]), r"must be \[B, 3, H, W\]"),
        (lambda a, b: luma(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), "floating-point"),
        (lambda a, b: luma(a * math.nan), "finite"),
        (lambda a, b: psnr_y(a, b[..., 1:], scale=2), "cannot be compared"),
        (lambda a, b: psnr_y(a, b, scale=-1), "at least 0"),
        (lambda a, b: psnr_y(a, b, scale=8), "inside its border of 8"),
        (lambda a, b: ssim_y(a, b, scale=3), "less than 11 x 11"),
        (lambda a, b: psnr(a, b[:1]), "cannot be compared"),
        (lambda a, b: psnr(a, b, torch.zeros(2, 16, 16)), "must be bool"),
        (lambda a, b: psnr(a, b, torch.zeros(2, 16, 16, dtype=torch.bool)), "picture 0 has no hole"),
    ],
)
def test_a_wrong_call_is_told_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(pictures(2, 3, 16, 16), pictures(2, 3, 16, 16, seed=1))


@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs sr_test_set5_set14.zip in data/ or $TEST_DATA")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "decibel", "similarity"), [("Set5", 28.4, 0.81), ("Set14", 26.05, 0.70)])
def test_bicubic_by_4_reads_the_published_figures(name, decibel, similarity):
    from attenua.data.degrade import bicubic, crop_to_multiple, enlarge

    results = []
    with zipfile.ZipFile(ARCHIVE) as archive:
        for member in (each for each in archive.namelist() if each.startswith(f"{name}/") and each.endswith(".png")):
            picture = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
            truth = crop_to_multiple(torch.from_numpy(np.array(picture)).permute(2, 0, 1), 4)
            guess = enlarge(bicubic(truth, 4), 4)
            pair = [image[None].double() / 127.5 - 1 for image in (guess, truth)]
            results.append([psnr_y(*pair, scale=4).item(), ssim_y(*pair, scale=4).item()])
    means = np.mean(results, axis=0)
    print(f"{name}: {len(results)} pictures, PSNR-Y {means[0]:.3f} dB, SSIM-Y {means[1]:.4f}")
    assert means[0] == pytest.approx(decibel, abs=0.06)
    assert means[1] == pytest.approx(similarity, abs=0.01)
