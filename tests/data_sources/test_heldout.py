"""What is for tests is known by its folder, and no split of an official layout shares a picture or a person."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from attenua import data
from attenua.data import faces, heldout, photographs, shards

JPEG = io.BytesIO()
Image.new("RGB", (8, 8), (10, 20, 30)).save(JPEG, "JPEG")
PEOPLE = [f"Person_{index}" for index in range(40)]


def put(path: Path, data: bytes = JPEG.getvalue()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(path: Path, split: str) -> list[str]:
    with photographs.chosen(path, split) as entries:
        return [name for name, _ in entries]


@pytest.mark.parametrize(
    "path",
    [
        "Set5/baby.png",
        "x/Set14",
        "data/BSD100/1.jpg",
        "Urban100/a.png",
        "DIV2K/DIV2K_valid_HR/0801.png",
        "DUTS/DUTS-TE/DUTS-TE-Image/a.jpg",
        "BSR/BSDS500/data/images/val/1.jpg",
        "BSDS500/data/images/test",
        "BSDS500/data/groundTruth/test/1.mat",
    ],
)
def test_tests_are_held_out(path):
    assert "never trained on" in heldout.reason(path)
    with pytest.raises(ValueError, match="never trained on"):
        heldout.check(path, "train")
    heldout.check(path, "test")


@pytest.mark.parametrize(
    "path",
    [
        "DIV2K/DIV2K_train_HR/0001.png",
        "DUTS/DUTS-TR",
        "BSDS500/data/images/train/1.jpg",
        "images/test/a.jpg",
        "set50/a",
    ],
)
def test_the_rest_is_not(path):
    assert heldout.reason(path) is None
    heldout.check(path, "train")


def test_people_are_held_out_by_the_sum_of_their_names():
    kept = [each for each in PEOPLE if hashlib.sha256(each.encode()).hexdigest()[0] in "01"]
    assert 0 < len(kept) < len(PEOPLE)
    assert [each for each in PEOPLE if heldout.is_held_out_person(each)] == kept
    for each in PEOPLE:
        assert (heldout.reason(f"lfw-deepfunneled/{each}/{each}_0001.jpg") is not None) == (each in kept)
        assert heldout.reason(f"mine/{each}/{each}_0001.jpg") is None
    # fixed for ever: known sums of names in the data set
    assert hashlib.sha256(b"Aaron_Eckhart").hexdigest()[0] not in "01"
    assert heldout.is_held_out_person("Aaron_Eckhart") is False


@pytest.fixture(params=["folder", "zip"])
def lfw(request, tmp_path) -> Path:
    folder = tmp_path / "faces"
    for person in PEOPLE:
        for number in (1, 2):
            put(folder / "lfw-deepfunneled" / person / f"{person}_{number:04d}.jpg")
    if request.param == "folder":
        return folder
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for file in folder.rglob("*.jpg"):
            archive.write(file, file.relative_to(folder))
    return tmp_path / "faces.zip"


def test_a_person_is_in_one_split_with_all_pictures(lfw):
    train, test = (names(lfw, split) for split in ("train", "test"))
    people = [{name.split("/")[-2] for name in part} for part in (train, test)]
    assert not people[0] & people[1]
    assert people[0] | people[1] == set(PEOPLE)
    assert len(train) + len(test) == 80
    assert all(heldout.is_held_out_person(person) for person in people[1])
    assert "recognisable" in photographs.load(lfw, 8, split="test").terms
    assert len(data.load(lfw, split="test", size=4)) == len(test)


def test_a_stray_picture_does_not_let_people_into_training(tmp_path):
    for person in PEOPLE:
        put(tmp_path / "lfw" / person / f"{person}_0001.jpg")
    put(tmp_path / "lfw" / "cover.jpg")
    told: list[Path] = []
    found = photographs.load(tmp_path, 8, on_skip=lambda path, reason: told.append(path))
    assert len(found) == 1 + sum(not heldout.is_held_out_person(each) for each in PEOPLE)
    assert {path.parent.name for path in told} == {each for each in PEOPLE if heldout.is_held_out_person(each)}


def test_div2k_s_folders_are_its_splits(tmp_path):
    for number in (1, 2):
        put(tmp_path / "DIV2K_train_HR" / f"{number:04d}.png")
    put(tmp_path / "DIV2K_valid_HR" / "0801.png")
    assert names(tmp_path, "train") == ["DIV2K_train_HR/0001.png", "DIV2K_train_HR/0002.png"]
    assert names(tmp_path, "test") == ["DIV2K_valid_HR/0801.png"]
    assert len(names(tmp_path / "DIV2K_train_HR", "train")) == 2
    with pytest.raises(ValueError, match="never trained on"):
        names(tmp_path / "DIV2K_valid_HR", "train")


def test_bsds500_gives_its_training_photographs(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path / "BSDS500" / "data" / "images" / split / f"{split}.jpg")
    assert names(tmp_path, "train") == ["BSDS500/data/images/train/train.jpg"]
    assert names(tmp_path, "test") == ["BSDS500/data/images/test/test.jpg"]


def test_tests_among_other_photographs_are_left_out_and_told(tmp_path):
    put(tmp_path / "mine" / "a.jpg")
    put(tmp_path / "Set5" / "b.jpg")
    told: list[Path] = []
    found = photographs.load(tmp_path, 8, on_skip=lambda path, reason: told.append(path))
    assert found.names == ("mine/a.jpg",)
    assert told == [tmp_path / "Set5" / "b.jpg"]
    with pytest.raises(ValueError, match="belongs to the test set"):
        photographs.load(tmp_path, 8, strict=True)


@pytest.mark.parametrize("form", ["{:05d}.jpg", "{}.jpg", "imgHQ{:05d}.png"])
def test_celeba_hq_s_last_two_thousand_by_number_are_the_test(form):
    whole = sorted(form.format(index) for index in range(faces.CELEBA_HQ))
    assert faces.is_celeba(whole)
    train, test = (faces.celeba_split(whole, split) for split in ("train", "test"))
    assert set(test) == {form.format(index) for index in range(28_000, 30_000)}
    assert set(train) | set(test) == set(whole)
    assert len(train) == 28_000
    assert not faces.is_celeba(whole[1:])
    assert not faces.is_celeba([*whole[1:], "x/" + whole[0]])


@pytest.mark.parametrize(("count", "whose"), [(faces.CELEBA_HQ, "CelebA-HQ"), (faces.CELEBA_HQ_TEST, "those of the")])
def test_numbered_pictures_have_the_terms_of_celeba_hq_only_where_all_of_it_is_there(tmp_path, count, whose):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for index in range(count):
            archive.writestr(f"{index:05d}.jpg", JPEG.getvalue() if index in (0, count - 1) else b"")
    path, tell = tmp_path / "own.zip", lambda path, reason: None
    found = photographs.load(path, 8, on_skip=tell)
    assert len(found) == (1 if count == faces.CELEBA_HQ else 2)  # the last one of CelebA-HQ is for tests
    assert found.terms.startswith(whose)
    assert data.load(path, on_skip=tell).terms.startswith(whose)


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    return path


def test_shards_are_read_where_they_lie(tmp_path):
    first = shard(tmp_path / "a-000.tar", {"0.jpg": JPEG.getvalue(), "0.json": b"{}", "0.cls": b"3"})
    hidden = {".cache/x.jpg": b"no picture", "__MACOSX/._1.jpg": b"no picture"}
    shard(tmp_path / "a-001.tar", {"./1.jpg": JPEG.getvalue(), "2.png": b"text", **hidden})
    told: list[Path] = []
    found = photographs.load(tmp_path, 8, on_skip=lambda path, reason: told.append(path))
    assert found.names == ("a-000.tar/0.jpg", "a-001.tar/./1.jpg")
    assert told == [tmp_path / "a-001.tar" / "2.png"]
    assert photographs.load(first, 8).names == ("0.jpg",)
    assert torch.equal(found.picture(0), data.load(first).images[0])


def test_shards_have_splits_by_their_folders(tmp_path):
    shard(tmp_path / "train" / "a.tar", {"0.jpg": JPEG.getvalue()})
    shard(tmp_path / "test" / "a.tar", {"1.jpg": JPEG.getvalue()})
    assert names(tmp_path, "train") == ["train/a.tar/0.jpg"]
    assert names(tmp_path, "test") == ["test/a.tar/1.jpg"]


def test_a_broken_shard_is_named(tmp_path):
    whole = shard(tmp_path / "a.tar", {"0.jpg": bytes(9000)})
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"a\.tar is not a whole tar file"):
        shards.entries(whole)
    with pytest.raises(FileNotFoundError):
        photographs.load(tmp_path / "none", 8)
    with pytest.raises(ValueError, match="one of train, test"):
        names(tmp_path, "val")


def test_a_picture_of_a_set_comes_back_by_number(tmp_path):
    for index, size in enumerate([(9, 12), (15, 8)]):
        Image.new("RGB", size, (index, 2, 3)).save(tmp_path / f"{index}.png")
    found = photographs.load(tmp_path, 8)
    assert found.names == ("0.png", "1.png")
    for index, shape in enumerate([(3, 12, 9), (3, 8, 15)]):
        assert found.picture(index).shape == shape
        assert (found.picture(index)[0] == index).all()
