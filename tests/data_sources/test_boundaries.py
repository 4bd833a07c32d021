"""BSDS500's official layout: every annotator is kept, the splits are disjoint, the target follows the rule."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from attenua.data import boundaries

SIZES = {"train": 3, "val": 1, "test": 2}


def drawn(seed: int, count: int, height: int = 9, width: int = 12) -> np.ndarray:
    return (np.random.default_rng(seed).random((count, height, width)) < 0.2).astype(np.uint8)


def save(path: Path, maps: np.ndarray) -> None:
    cells = np.empty((1, len(maps)), dtype=object)
    for index, each in enumerate(maps):
        cells[0, index] = {"Segmentation": each.astype(np.uint16) + 1, "Boundaries": each}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": cells})


def make(folder: Path) -> dict[str, np.ndarray]:
    made = {}
    for split, count in SIZES.items():
        for index in range(count):
            name = f"{split}{10 - index}"
            made[name] = drawn(len(made), 4 + index)
            save(folder / "groundTruth" / split / f"{name}.mat", made[name])
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 9), (index, 50, 90)).save(folder / "images" / split / f"{name}.jpg")
        (folder / "images" / split / "Thumbs.db").write_bytes(b"not a picture")
    return made


@pytest.mark.parametrize("place", [".", "data", "BSDS500/data", "BSR/BSDS500/data"])
def test_every_annotator_of_a_split_is_kept(tmp_path, place):
    made = make(tmp_path / place)
    for split in boundaries.SPLITS:
        found = boundaries.load(tmp_path, split, strict=True)
        assert found.names == tuple(sorted(name for name in made if name.startswith(split)))
        for name, picture, maps in found:
            assert picture.shape == (3, 9, 12)
            assert torch.equal(maps, torch.from_numpy(made[name] * np.uint8(255)))


def test_the_default_is_the_training_split_alone(tmp_path):
    make(tmp_path)
    assert set(boundaries.load(tmp_path).names) == {"train10", "train8", "train9"}
    every = [set(boundaries.load(tmp_path, split).names) for split in boundaries.SPLITS]
    assert len(set.union(*every)) == sum(map(len, every))
    with pytest.raises(ValueError, match="one of train, val, test"):
        boundaries.load(tmp_path, "trainval")


def test_bad_pairs_are_named(tmp_path):
    make(tmp_path)
    folder = tmp_path / "groundTruth" / "train"
    save(folder / "train8.mat", drawn(0, 4, 9, 13))
    (folder / "train9.mat").write_bytes(b"text")
    save(folder / "extra.mat", drawn(0, 4))
    Image.new("RGB", (12, 9)).save(tmp_path / "images" / "train" / "alone.jpg")
    told = {}
    found = boundaries.load(tmp_path, on_skip=lambda path, reason: told.update({path.name: reason}))
    assert found.names == ("train10",)
    words = {"train8.jpg": "pixels", "train9.jpg": "cannot read", "extra.mat": "no picture", "alone.jpg": "no annotat"}
    assert told.keys() == words.keys()
    assert all(words[name] in reason for name, reason in told.items())
    with pytest.raises(ValueError, match="no picture"):
        boundaries.load(tmp_path, strict=True)


def test_other_folders_and_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no BSDS500"):
        boundaries.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no BSDS500"):
        boundaries.maps_sha256(tmp_path)
    savemat(tmp_path / "a.mat", {"other": np.zeros(3)})
    with pytest.raises(ValueError, match=r"a\.mat as annotations"):
        boundaries.annotators(tmp_path / "a.mat")
    with pytest.raises(FileNotFoundError):
        boundaries.annotators(tmp_path / "none.mat")


def test_the_sum_is_over_the_maps_in_the_order_of_splits_and_names(tmp_path):
    made = make(tmp_path)
    names = [name for split in boundaries.SPLITS for name in sorted(made) if name.startswith(split)]
    whole = b"".join(made[name].tobytes() for name in names)
    assert boundaries.maps_sha256(tmp_path) == hashlib.sha256(whole).hexdigest()
    with pytest.raises(ValueError, match="as published"):
        boundaries.check_published(tmp_path)


def test_the_target_is_the_published_rule(tmp_path):
    make(tmp_path)
    one = boundaries.load(tmp_path)
    mean = one.mean()
    for index in range(len(one)):
        votes = (one.pair(index)[1] > 0).double().mean(0)
        edge, counted = boundaries.target(mean.pair(index)[1][0])
        assert torch.equal(edge, votes >= 0.3)
        assert torch.equal(counted, (votes == 0) | (votes >= 0.3))
        assert not counted.all()
    edge, counted = boundaries.target(torch.tensor([0, 1, 127, 128, 255], dtype=torch.uint8), 0.5)
    assert edge.tolist() == [False, False, False, True, True]
    assert counted.tolist() == [True, False, False, True, True]
    for wrong in (0.0, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            boundaries.target(mean.maps, wrong)
    with pytest.raises(ValueError, match="uint8"):
        boundaries.target(torch.zeros(3))
