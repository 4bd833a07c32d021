"""Picture and map move together, come from where the draw says, and bad pairs are named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from attenua.data import pairs
from attenua.data.pairs import DRAWS, Augmentation, PairSet

STILL = Augmentation(symmetries=1, rotated=0.0, scaled=0.0)


def coordinates(height: int, width: int) -> Tensor:
    """A picture that says where each pixel is: red the row, green the column, blue nothing."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x, torch.zeros_like(y)]).byte()


def noise(height: int, width: int, count: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(256, (3 + count, height, width), generator=generator, dtype=torch.uint8)
    return whole[:3], whole[3:]


def single(picture: Tensor, maps: Tensor) -> PairSet:
    return pairs.gather([("a", picture, maps)], name="one")


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row(which=0.0, top=0.0, left=0.0, symmetry=0.0, angle=0.999, scale=0.999, chosen=0.0) -> Tensor:
    return torch.tensor([[which, top, left, symmetry, angle, scale, chosen]], dtype=torch.float64)


AUGMENTATIONS = st.builds(
    Augmentation,
    symmetries=st.sampled_from([1, 2, 8]),
    rotated=st.sampled_from([0.0, 0.5, 1.0]),
    angle=st.floats(0, 180),
    scaled=st.sampled_from([0.0, 0.5, 1.0]),
    scales=st.sampled_from([(0.5, 1.5), (0.25, 0.5), (1.0, 3.0)]),
)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 7, 16, 33]), AUGMENTATIONS, st.integers(0, 9999))
def test_the_map_moves_as_its_picture_does(height, width, side, augmentation, seed):
    """A map that equals the red of its picture does so in every crop, whatever is done to them."""
    picture = noise(height, width, seed=seed)[0]
    found, maps = single(picture, picture[:1]).crops(draws(8, seed), side, augmentation)
    assert found.shape == (8, 3, side, side)
    assert maps.shape == (8, 1, side, side)
    assert torch.equal(maps, found[:, :1])


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 0.999), st.floats(0, 0.999), st.floats(0, 0.999), st.floats(0, 0.999), st.sampled_from(range(8)))
def test_a_crop_is_turned_and_scaled_by_what_the_draw_says(top, left, turn, grow, symmetry):
    """The coordinates in a crop are an affine map of its own, with the angle, scale and handedness of the draw."""
    augmentation = Augmentation(rotated=1.0, scaled=1.0)
    side = 31
    picture = coordinates(200, 220)
    drawn = row(0, top, left, symmetry / 8, turn, grow)
    found = single(picture, picture[:1]).crops(drawn, side, augmentation)[0][0].double()
    y, x = found[0], found[1]
    middle = slice(8, 23)  # away from the corners: all of it inside the picture
    dy = torch.stack([(y[23, middle] - y[8, middle]).mean(), (x[23, middle] - x[8, middle]).mean()]) / 15
    dx = torch.stack([(y[middle, 23] - y[middle, 8]).mean(), (x[middle, 23] - x[middle, 8]).mean()]) / 15
    angle, scale = (2 * turn - 1) * math.pi, 0.5 * 3**grow
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / scale
    flips = torch.tensor([[1.0 - (symmetry & 2), 0.0], [0.0, 1.0 - 2 * (symmetry & 1)]])
    if symmetry & 4:  # rows and columns are exchanged after the flips
        flips = flips.flip(0)
    matrix = rotation @ flips  # columns: one step down, one step right
    torch.testing.assert_close(torch.stack([dy, dx], 1).float(), matrix, rtol=0, atol=0.1)


def test_all_symmetries_of_the_square_occur_exactly():
    picture, maps = noise(9, 9)
    drawn = torch.cat([row(symmetry=k / 8) for k in range(8)])
    found, marks = single(picture, maps).crops(drawn, 9, Augmentation(rotated=0.0, scaled=0.0))
    for whole, result in ((picture, found), (maps, marks)):
        turned = [torch.rot90(each, k, (1, 2)) for each in (whole, whole.flip(2)) for k in range(4)]
        assert {each.numpy().tobytes() for each in result} == {each.contiguous().numpy().tobytes() for each in turned}


def test_two_symmetries_never_stand_on_the_head():
    picture = coordinates(40, 50)
    found, _ = single(picture, picture[:1]).crops(draws(50), 20, Augmentation(2, rotated=0.0, scaled=0.0))
    assert (found[:, 0, -1, 0] > found[:, 0, 0, 0]).all()
    mirrored = found[:, 1, 0, 0] > found[:, 1, 0, -1]
    assert 10 < mirrored.sum() < 40


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 999))
def test_an_unchanged_crop_is_the_picture_s_own_bytes(height, width, side, seed):
    picture, maps = noise(height, width, 2, seed)
    crop, mark = single(picture, maps).crops(row(top=0.4, left=0.999, chosen=0.6), side, STILL)
    top = int(0.4 * (height - side + 1)) if side <= height else 0
    left = width - side if side <= width else 0
    if side <= min(height, width):
        assert torch.equal(crop[0], picture[:, top : top + side, left : left + side])
        assert torch.equal(mark[0], maps[1:, top : top + side, left : left + side])
    else:
        assert {*crop.unique().tolist()} <= {*picture.unique().tolist()}


def test_a_crop_larger_than_the_picture_is_reflected():
    picture, maps = noise(10, 30)
    crop, mark = single(picture, maps).crops(row(left=0.5), 16, STILL)
    left = int(0.5 * (30 - 16 + 1))
    for whole, result in ((picture, crop), (maps, mark)):
        expected = F.pad(whole[None].float(), (0, 0, 3, 3), mode="reflect")[0, :, :, left : left + 16].byte()
        assert torch.equal(result[0], expected)


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.5])
def test_resampling_is_grid_sample_s(scale):
    picture, maps = noise(24, 32)
    augmentation = Augmentation(1, rotated=1.0, scaled=1.0, scales=(scale, scale), angle=180.0)
    drawn = row(angle=0.6, scale=0.3)
    crop, _ = single(picture, maps).crops(drawn, 12, augmentation)
    y, x = pairs._positions(drawn, 12, torch.tensor([24]), torch.tensor([32]), augmentation)
    grid = torch.stack([x / 31 * 2 - 1, y / 23 * 2 - 1], -1)
    expected = F.grid_sample(picture[None].float(), grid, padding_mode="reflection", align_corners=True)
    assert (crop.float() - expected).abs().max() <= 0.51


def test_crops_stay_inside_where_they_can():
    """Nothing is reflected: rows and columns then change their direction nowhere."""
    picture = coordinates(180, 200)
    found, _ = single(picture, picture[:1]).crops(draws(64), 24, Augmentation(1, 1.0, 20.0, 1.0, (0.5, 1.5)))
    rows = found[:, 0].int().diff(dim=1)
    assert (rows >= 0).all()


def test_pairs_and_their_maps_are_drawn_evenly():
    first, second = noise(8, 8, 1, 1), noise(8, 16, 3, 2)
    found = pairs.gather([("a", *first), ("b", *second)], name="two")
    assert found.counts.tolist() == [1, 3]
    drawn = draws(3000)
    drawn[:, 1:4] = 0
    crops, marks = found.crops(drawn, 8, STILL)
    is_first = (crops == first[0]).flatten(1).all(1)
    assert abs(is_first.double().mean() - 0.5) < 0.04
    for index in range(3):
        share = (marks[~is_first] == second[1][index : index + 1, :, :8]).flatten(1).all(1).double().mean()
        assert abs(share - 1 / 3) < 0.05


def test_what_is_stored_comes_back():
    first, second = noise(5, 7, 2, 1), noise(9, 4, 1, 2)
    found = pairs.gather([("a", *first), ("b", *second)], name="two")
    assert len(found) == 2
    for (name, picture, maps), title, given_ in zip(found, "ab", (first, second), strict=True):
        assert name == title
        assert torch.equal(picture, given_[0])
        assert torch.equal(maps, given_[1])
    again = found.to(torch.device("cpu"))
    assert again.sha256() == found.sha256()
    assert again.sha256() != pairs.gather([("a", *first)], name="one").sha256()


def test_the_mean_is_that_of_the_maps():
    picture, _ = noise(4, 4)
    maps = torch.tensor([0, 255, 255])[:, None, None].expand(3, 4, 4).byte()
    mean = single(picture, maps).mean()
    assert mean.counts.tolist() == [1]
    assert (mean.maps == 170).all()
    assert torch.equal(mean.pixels, single(picture, maps).pixels)


def test_draws_of_another_width_are_refused():
    with pytest.raises(ValueError, match=rf"\[B, {DRAWS}\], not \[2, 4\]"):
        single(*noise(4, 4)).crops(torch.zeros(2, 4, dtype=torch.float64), 4)


@pytest.mark.parametrize(
    "change", [{"symmetries": 3}, {"rotated": 1.1}, {"scaled": -0.1}, {"angle": 181.0}, {"scales": (0.0, 1.0)}]
)
def test_an_impossible_augmentation_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Augmentation(**change)


# Folders.


def put(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def disc(height: int = 12, width: int = 16) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[3:8, 4:9] = 255
    return mask


def grey(height: int = 12, width: int = 16) -> np.ndarray:
    return np.full((height, width, 3), 99, np.uint8)


def fill(folder: Path, names: str = "ab") -> Path:
    for name in names:
        put(folder / "images" / f"{name}.png", grey())
        put(folder / "masks" / f"{name}.png", disc())
    return folder


def test_two_folders_are_paired_by_name(tmp_path):
    found = pairs.load(fill(tmp_path))
    assert found.names == ("a", "b")
    assert torch.equal(found.pair(1)[1][0], torch.from_numpy(disc()))


def test_masks_beside_their_pictures_are_paired_by_suffix(tmp_path):
    put(tmp_path / "x" / "a.jpg", grey())
    put(tmp_path / "x" / "a_mask.png", disc())
    put(tmp_path / "b.jpg", grey())
    put(tmp_path / "b-GT.png", disc())
    assert pairs.load(tmp_path, strict=True).names == ("b", "x/a")


def test_train_and_test_folders_are_the_splits(tmp_path):
    fill(tmp_path / "train", "ab")
    fill(tmp_path / "test", "c")
    assert pairs.load(tmp_path).names == ("a", "b")
    assert pairs.load(tmp_path, split="test").names == ("c",)
    with pytest.raises(ValueError, match="no split 'test'"):
        pairs.load(tmp_path / "train", split="test")
    with pytest.raises(ValueError, match="one of train, test"):
        pairs.load(tmp_path, split="val")


def test_bad_pairs_are_named_and_left_out_or_an_error(tmp_path):
    fill(tmp_path, "a")
    bad = {
        put(tmp_path / "images" / "alone.png", grey()): "has no mask",
        put(tmp_path / "masks" / "lonely.png", disc()): "has no picture",
        put(tmp_path / "masks" / "size.png", disc(12, 18)): "is 18 x 12 pixels, but its picture .* is 16 x 12",
        put(tmp_path / "masks" / "empty.png", np.full((12, 16), 127, np.uint8)): "has no foreground",
    }
    for name in ("size", "empty", "text"):
        put(tmp_path / "images" / f"{name}.png", grey())
    put(tmp_path / "masks" / "text.png", disc())
    (tmp_path / "images" / "text.png").write_bytes(b"text")
    bad[tmp_path / "images" / "text.png"] = "cannot read"
    told: dict[Path, str] = {}
    found = pairs.load(tmp_path, on_skip=lambda path, reason: told.update({path: reason}))
    assert found.names == ("a",)
    assert told.keys() == bad.keys()
    for path, words in bad.items():
        with pytest.raises(ValueError, match=words):
            raise ValueError(told[path])
        assert str(path) in told[path]
    with pytest.raises(ValueError, match="has no mask"):
        pairs.load(tmp_path, strict=True)
    with pytest.warns(UserWarning, match="left out"):
        pairs.load(tmp_path)


def test_large_pictures_are_reduced_with_their_maps(tmp_path):
    put(tmp_path / "images" / "a.png", grey(60, 80))
    put(tmp_path / "masks" / "a.png", np.kron(disc(), np.ones((5, 5), np.uint8)))
    picture, maps = pairs.load(tmp_path, longest=16).pair(0)
    assert picture.shape == (3, 12, 16)
    assert (picture == 99).all()
    assert torch.equal(maps[0], torch.from_numpy(disc()))
    assert pairs.load(tmp_path, longest=80).pair(0)[0].shape == (3, 60, 80)


def test_what_is_no_folder_of_pairs_is_told(tmp_path):
    put(tmp_path / "a.png", grey())
    with pytest.raises(ValueError, match="has no pairs"):
        pairs.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        pairs.load(tmp_path / "nothing")
    (tmp_path / "x" / "images").mkdir(parents=True)
    (tmp_path / "x" / "masks").mkdir()
    with pytest.raises(ValueError, match="no pair of a picture and a map"):
        pairs.load(tmp_path / "x")
    (tmp_path / "x" / "gt").mkdir()
    with pytest.raises(ValueError, match="several folders"):
        pairs.load(tmp_path / "x")
