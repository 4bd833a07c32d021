"""DUTS's two parts never mix, and any folder of pairs is read too."""

from __future__ import annotations

import pytest

from attenua.data import saliency
from tests.data_sources.test_pairs import disc, fill, grey, put


def duts(folder, part, names):
    for name in names:
        put(folder / part / f"{part}-Image" / f"{name}.jpg", grey())
        put(folder / part / f"{part}-Mask" / f"{name}.png", disc())


@pytest.mark.parametrize("below", [".", "DUTS"])
def test_the_splits_are_the_published_folders(tmp_path, below):
    duts(tmp_path / below, "DUTS-TR", "abc")
    duts(tmp_path / below, "DUTS-TE", "de")
    train, test = saliency.load(tmp_path), saliency.load(tmp_path, "test")
    assert train.names == ("a", "b", "c")
    assert test.names == ("d", "e")
    assert (train.name, test.name) == ("duts-train", "duts-test")
    assert "Wang" in train.terms
    assert saliency.load(tmp_path / below / "DUTS-TR").names == train.names
    assert saliency.load(tmp_path / below / "DUTS-TE", "test").names == test.names


def test_the_test_part_cannot_be_trained_on(tmp_path):
    duts(tmp_path, "DUTS-TE", "de")
    for path in (tmp_path, tmp_path / "DUTS-TE"):
        with pytest.raises(ValueError, match=r"has no DUTS-TR"):
            saliency.load(path)
    with pytest.raises(ValueError, match="one of train, test"):
        saliency.load(tmp_path, "val")


def test_other_folders_of_pairs_are_read(tmp_path):
    assert saliency.load(fill(tmp_path)).names == ("a", "b")


def test_damaged_pairs_of_duts_are_named(tmp_path):
    duts(tmp_path, "DUTS-TR", "ab")
    put(tmp_path / "DUTS-TR" / "DUTS-TR-Image" / "c.jpg", grey())
    put(tmp_path / "DUTS-TR" / "DUTS-TR-Mask" / "b.png", disc() * 0)
    told = {}
    found = saliency.load(tmp_path, on_skip=lambda path, reason: told.update({path.name: reason}))
    assert found.names == ("a",)
    assert "no mask" in told["c.jpg"]
    assert "no foreground" in told["b.png"]
