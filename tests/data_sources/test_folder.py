import zipfile
from pathlib import Path

import pytest
import torch

from attenua import data, images


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fill(folder, names, height=8, width=8):
    """A picture for each name, and the stack of all in the order of the names."""
    stack = noise(len(names), 3, height, width)
    for name, picture in zip(names, stack, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        images.write(folder / name, picture)
    return stack


def pack(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.fixture(params=["folder", "zip"])
def form(request, tmp_path):
    """Turn a folder into what is loaded: itself, or a zip file of it."""
    return (lambda folder: folder) if request.param == "folder" else (lambda folder: pack(folder, tmp_path / "a.zip"))


def test_all_pictures_are_read_in_the_order_of_their_names(tmp_path, form):
    stack = fill(tmp_path / "in", ["a.png", "b/a.png", "b/c.png", "c.png"])
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    (tmp_path / "in" / "__MACOSX").mkdir()
    (tmp_path / "in" / "__MACOSX" / "._a.png").write_bytes(b"side file")
    found = data.load(form(tmp_path / "in"))
    assert torch.equal(found.images, stack)
    assert found.labels is None
    assert found.classes == ()
    assert found.name.endswith("-train")


def test_bad_pictures_are_left_out_and_named(tmp_path, form):
    stack = fill(tmp_path / "in", ["a.png", "b.png", "d.png"])
    (tmp_path / "in" / "0.png").write_bytes(b"text")
    (tmp_path / "in" / "c.png").write_bytes((tmp_path / "in" / "d.png").read_bytes()[:100])
    skipped = []
    source = form(tmp_path / "in")
    found = data.load(source, on_skip=lambda path, reason: skipped.append((path, reason)))
    assert torch.equal(found.images, stack)
    assert [path for path, _ in skipped] == [source / "0.png", source / "c.png"]
    assert all(str(path) in reason for path, reason in skipped)
    with pytest.warns(UserWarning, match=r"left out: .*\.png"):
        data.load(source)
    with pytest.raises(ValueError, match=r"0\.png"):
        data.load(source, strict=True, on_skip=lambda path, reason: None)


def test_nothing_readable_is_an_error(tmp_path, form):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="none of the 1"):
        data.load(form(tmp_path / "in"), on_skip=lambda path, reason: None)


def test_no_pictures_at_all_is_an_error_that_lists_the_endings(tmp_path, form):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"holds no pictures .*\.png"):
        data.load(form(tmp_path / "in"))


def test_mixed_sizes_name_the_first_two_that_differ(tmp_path, form):
    fill(tmp_path / "in", ["a.png", "b.png"], 8, 8)
    fill(tmp_path / "in", ["c.png", "d.png"], 6, 9)
    with pytest.raises(ValueError, match=r"a\.png has 8 x 8 and c\.png has 6 x 9 .*size"):
        data.load(form(tmp_path / "in"))


def test_a_size_makes_any_pictures_one_size(tmp_path, form):
    fill(tmp_path / "in", ["a.png"], 16, 16)
    fill(tmp_path / "in", ["c.png"], 12, 30)
    assert data.load(form(tmp_path / "in"), size=8).images.shape == (2, 3, 8, 8)


def test_the_crop_is_the_centre_and_the_resize_filters(tmp_path):
    wide = torch.zeros(3, 8, 24, dtype=torch.uint8)
    wide[..., 8:16] = 200
    images.write(tmp_path / "a.png", wide)
    assert (data.load(tmp_path, size=8).images == 200).all()
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255
    images.write(tmp_path / "a.png", board.to(torch.uint8).expand(3, -1, -1), overwrite=True)
    small = data.load(tmp_path, size=16).images[..., 2:-2, 2:-2].int()  # the window is cut at the border
    assert (small - 127).abs().max() <= 2


def test_a_size_that_the_pictures_have_changes_nothing(tmp_path):
    stack = fill(tmp_path, ["a.png", "b.png"], 8, 8)
    assert torch.equal(data.load(tmp_path, size=8).images, stack)


def test_train_and_test_folders_are_the_splits(tmp_path, form):
    stack = fill(tmp_path / "in", ["test/a.png", "train/a.png", "train/b.png"])
    source = form(tmp_path / "in")
    assert torch.equal(data.load(source, split="test").images, stack[:1])
    assert torch.equal(data.load(source, split="train").images, stack[1:])


def test_a_split_that_is_not_there_is_an_error(tmp_path, form):
    fill(tmp_path / "in", ["a.png", "train/b.png"])
    source = form(tmp_path / "in")
    assert len(data.load(source)) == 2
    with pytest.raises(ValueError, match="train and test"):
        data.load(source, split="test")
    with pytest.raises(ValueError, match="one of train, test"):
        data.load(source, split="val")


def test_a_size_below_one_is_refused(tmp_path):
    fill(tmp_path, ["a.png"])
    with pytest.raises(ValueError, match="at least 1"):
        data.load(tmp_path, size=0)


def test_other_files_and_nothing_are_told_apart(tmp_path):
    (tmp_path / "a.rar").write_bytes(b"text")
    (tmp_path / "a.zip").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.rar is no data"):
        data.load(tmp_path / "a.rar")
    with pytest.raises(ValueError, match=r"a\.zip is not a whole zip file"):
        data.load(tmp_path / "a.zip")
    with pytest.raises(FileNotFoundError, match="nothing"):
        data.load(tmp_path / "nothing")


def test_a_damaged_member_of_a_zip_is_a_bad_picture(tmp_path):
    stack = fill(tmp_path / "in", ["a.png", "b.png"])
    path = pack(tmp_path / "in", tmp_path / "a.zip")
    whole = bytearray(path.read_bytes())
    at = bytes(whole).index((tmp_path / "in" / "b.png").read_bytes()) + 60
    whole[at] ^= 255
    path.write_bytes(whole)
    skipped: list[Path] = []
    found = data.load(path, on_skip=lambda name, reason: skipped.append(name))
    assert skipped == [path / "b.png"]
    assert torch.equal(found.images, stack[:1])
