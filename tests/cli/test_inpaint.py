"""`attenua inpaint`: holes are filled, and what is known comes back bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from attenua import photos
from tests.cli.picture_support import KINDS, call, model_file, picture
from tests.cli.support import error
from tests.conftest import CommandLine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "in.safetensors", "inpainting")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in.png").write_bytes(picture("RGB", 12, 20)[1])
    return tmp_path / "in.png"


def mask_file(path: Path, hole: np.ndarray | torch.Tensor) -> Path:
    Image.fromarray((np.asarray(hole) > 0).astype(np.uint8) * 255).save(path)
    return path


def plain(height: int, width: int, *boxes: tuple[int, int, int, int]) -> torch.Tensor:
    hole = torch.zeros(height, width, dtype=torch.bool)
    for x, y, wide, high in boxes:
        hole[y : y + high, x : x + wide] = True
    return hole


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(KINDS),
    st.sampled_from([(1, 2), (1, 9), (7, 1), (5, 6), (16, 11)]),
    st.integers(1, 8),
    st.integers(0, 2**16),
)
def test_known_pixels_come_back_bit_for_bit(
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    size: tuple[int, int],
    orientation: int,
    seed: int,
) -> None:
    place = tmp_path_factory.mktemp("picture")
    ending, data = picture(kind, *size, orientation=orientation)
    (place / f"in{ending}").write_bytes(data)
    before = photos.read(place / f"in{ending}")
    hole = torch.rand(before.pixels.shape[1:], generator=torch.Generator().manual_seed(seed)) < 0.4
    hole[0, 0], hole[-1, -1] = True, False
    mask = mask_file(place / "mask.png", hole)
    done = call("inpaint", place / f"in{ending}", "--mask", mask, "-o", f"{place}/out/", "--model", model, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    target = Path(done.stdout.strip())
    assert target.suffix == (".tif" if ending == ".tif" else ".png")
    after = photos.read(target)
    top = 2**before.depth - 1
    levels = [((each.pixels + 1) * top / 2).round() for each in (before, after)]
    assert torch.equal(levels[0][:, ~hole], levels[1][:, ~hole])
    assert (after.grey, after.depth, after.icc) == (before.grey, before.depth, before.icc)
    assert (before.alpha is None) == (after.alpha is None)
    if before.alpha is not None and after.alpha is not None:
        assert torch.equal((before.alpha * top).round(), (after.alpha * top).round())


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.integers(0, 10_000), st.integers(0, 255), st.booleans(), st.booleans())
def test_broken_bytes_are_skipped_or_read_but_never_an_error_of_the_program(
    model: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, place: int, value: int, cut: bool, mask: bool
) -> None:
    folder = tmp_path_factory.mktemp("picture")
    ending, data = picture("RGB" if mask else kind, 6, 5)
    (folder / f"in{ending}").write_bytes(data)
    mask_file(folder / "mask.png", plain(6, 5, (1, 1, 2, 2)))
    broken = folder / "mask.png" if mask else folder / f"in{ending}"
    data = broken.read_bytes()
    place %= len(data)
    broken.write_bytes(data[:place] if cut else data[:place] + bytes([value]) + data[place + 1 :])
    done = call(
        "inpaint", folder / f"in{ending}", "--mask", folder / "mask.png", "-o", folder / "out.png", "--model", model,
        "--steps", 1, "--quiet",
    )  # fmt: skip
    assert done.returncode in (0, 2), done.stderr
    assert (folder / "out.png").exists() == (done.returncode == 0)


def test_the_hole_is_filled_by_mask_boxes_or_both(cli: CommandLine, model: Path, source: Path, tmp_path: Path) -> None:
    mask = mask_file(tmp_path / "mask.png", plain(12, 20, (2, 3, 4, 5)))
    cases = {
        "mask": ("--mask", mask),
        "box": ("--box", "2,3,4,5"),
        "both": ("--mask", mask, "--box", "10,0,3,3", "--box", "15,5,5,7"),
    }
    made = {}
    for name, arguments in cases.items():
        out = tmp_path / f"by-{name}.png"
        assert cli("inpaint", source, *arguments, "-o", out, "--model", model).returncode == 0
        made[name] = photos.read(out).pixels
    assert torch.equal(made["mask"], made["box"])
    changed = (made["both"] != photos.read(source).pixels).any(0)
    assert torch.equal(changed, changed & plain(12, 20, (2, 3, 4, 5), (10, 0, 3, 3), (15, 5, 5, 7)))
    assert changed[5:, 15:].float().mean() > 0.9


def test_what_the_hole_holds_changes_nothing(cli: CommandLine, model: Path, source: Path, tmp_path: Path) -> None:
    photo = photos.read(source)
    other = photo.pixels.clone()
    other[:, 3:8, 2:6] = 1
    photos.write(tmp_path / "other.png", photos.Photo(other))
    for name in ("in", "other"):
        cli("inpaint", tmp_path / f"{name}.png", "--box", "2,3,4,5", "-o", tmp_path / f"{name}2.png", "--model", model)
    assert torch.equal(photos.read(tmp_path / "in2.png").pixels, photos.read(tmp_path / "other2.png").pixels)


def test_a_mask_is_that_of_the_upright_picture(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(picture("RGB", 8, 12, orientation=6)[1])
    mask = mask_file(tmp_path / "mask.png", plain(12, 8, (0, 0, 3, 2)))
    done = cli("inpaint", tmp_path / "in.png", "--mask", mask, "-o", tmp_path / "out.png", "--model", model)
    assert done.returncode == 0
    changed = (photos.read(tmp_path / "in.png").pixels != photos.read(tmp_path / "out.png").pixels).any(0)
    assert torch.equal(changed, changed & plain(12, 8, (0, 0, 3, 2)))


def test_a_folder_takes_the_masks_of_its_names(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "masks" / "deep").mkdir(parents=True)
    for name, kind in (("a", "RGB"), ("deep/b", "JPEG"), ("c", "RGB")):
        ending, data = picture(kind, 8, 8)
        (tmp_path / "in" / f"{name}{ending}").write_bytes(data)
    mask_file(tmp_path / "masks" / "a.png", plain(8, 8, (0, 0, 2, 2)))
    mask_file(tmp_path / "masks" / "deep" / "b.png", plain(8, 8, (4, 4, 2, 2)))
    out = tmp_path / "out"
    done = cli("inpaint", tmp_path / "in", "--mask", tmp_path / "masks", "-o", out, "--model", model, "--quiet")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [str(out / "a.png"), str(out / "deep" / "b.png")]
    assert f"skipped {tmp_path / 'in' / 'c.png'}: there is no mask {tmp_path / 'masks' / 'c.png'}" in done.stderr
    for name, hole in (("a.png", (0, 0, 2, 2)), ("deep/b.jpg", (4, 4, 2, 2))):
        before, after = photos.read(tmp_path / "in" / name), photos.read((out / name).with_suffix(".png"))
        changed = (before.pixels != after.pixels).any(0)
        assert torch.equal(changed, changed & plain(8, 8, hole))
        assert bool(changed.any())


@pytest.mark.parametrize(
    ("hole", "line"),
    [
        (plain(8, 8), "mask.png is all black: a mask must be white where the picture is to be filled in"),
        (~plain(8, 8), "mask.png is all white: a mask must be black where the picture is to be kept"),
        (plain(9, 8, (0, 0, 1, 1)), "mask.png is 8 x 9 pixels, but the picture is 8 x 8"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line(
    hole: torch.Tensor, line: str, cli: CommandLine, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.png").write_bytes(picture("RGB", 8, 8)[1])
    mask = mask_file(tmp_path / "mask.png", hole)
    done = cli("inpaint", tmp_path / "in.png", "--mask", mask, "-o", tmp_path / "out.png", "--model", model)
    assert done.returncode == 2
    assert error(done.stderr).endswith(line)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "where is the hole? --mask MASK or --box x,y,w,h is needed"),
        (("--box", "1,2,3"), "'1,2,3' is not four whole numbers x,y,w,h"),
        (("--box", "1,2,0,3"), "'1,2,0,3' is no box: x and y are from 0, w and h from 1"),
        (("--box", "15,0,6,2"), "--box 15,0,6,2 reaches beyond the picture, which is 20 x 12 pixels"),
        (("--box", "0,0,20,12"), "the hole is the whole picture: something must be kept to go by"),
        (("--mask", "none.png"), "'none.png' does not exist"),
        (("--box", "0,0,2,2", "--mean", "--steps", "3"), "--steps 3 is for samples"),
    ],
)
def test_holes_that_cannot_be_are_one_line(
    arguments: tuple[str, ...], line: str, cli: CommandLine, model: Path, source: Path, tmp_path: Path
) -> None:
    done = cli("inpaint", source, *arguments, "-o", tmp_path / "out.png", "--model", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in error(done.stderr)


def test_another_hole_makes_another_output(cli: CommandLine, model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    mask = mask_file(tmp_path / "mask.png", plain(12, 20, (2, 3, 4, 5)))
    assert cli("inpaint", source, "--mask", mask, "-o", out, "--model", model).returncode == 0
    kept = cli("inpaint", source, "--mask", mask, "-o", out, "--model", model)
    assert "1 output is there already with the same settings" in kept.stderr
    mask_file(mask, plain(12, 20, (2, 3, 4, 6)))
    assert "made otherwise" in error(cli("inpaint", source, "--mask", mask, "-o", out, "--model", model).stderr)
    assert "made otherwise" in error(cli("inpaint", source, "--box", "0,0,1,1", "-o", out, "--model", model).stderr)


def test_the_mean_is_one_call(cli: CommandLine, model: Path, source: Path, tmp_path: Path) -> None:
    outs = []
    for name, calls, flags in (("sample", 2, ()), ("mean", 1, ("--mean",))):
        out = tmp_path / f"{name}.png"
        done = cli("inpaint", source, "--box", "2,3,8,6", "-o", out, "--model", model, *flags)
        assert done.stderr.startswith(f"inpaint: {calls} of {calls} network calls")
        outs.append(photos.read(out).pixels)
    assert not torch.equal(*outs)


def test_a_mask_is_never_overwritten(cli: CommandLine, model: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    mask = mask_file(tmp_path / "masks" / "in.png", plain(12, 20, (2, 3, 4, 5)))
    before = mask.read_bytes()
    for masks, out in ((mask, mask), (tmp_path / "masks", tmp_path / "masks")):
        done = cli("inpaint", source, "--mask", masks, "-o", out, "--model", model, "--overwrite")
        assert "in.png is itself an input: choose another output" in error(done.stderr)
    assert mask.read_bytes() == before


def test_losses_are_told_where_the_user_chose_them(cli: CommandLine, model: Path, source: Path, tmp_path: Path) -> None:
    done = cli("inpaint", source, "--box", "0,0,2,2", "-o", tmp_path / "out.jpg", "--model", model)
    assert done.returncode == 0
    assert "out.jpg is compressed with losses" in done.stderr


def test_two_pictures_of_one_name_do_not_become_one(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for kind in ("RGB", "JPEG"):
        ending, data = picture(kind, 8, 8)
        (tmp_path / "in" / f"a{ending}").write_bytes(data)
    done = cli("inpaint", tmp_path / "in", "--box", "0,0,2,2", "-o", tmp_path / "out", "--model", model)
    assert "would both be written to" in error(done.stderr)
