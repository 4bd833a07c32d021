"""`attenua saliency`: maps at the picture's own size, and pictures cut out by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attenua import images, photos
from attenua.tasks import load_conditional
from attenua.tasks.saliency import LONGEST, enlarge, reduce
from tests.cli.picture_support import picture
from tests.cli.support import error, folder
from tests.cli.test_edges import grey, model_file
from tests.conftest import CommandLine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path / "saliency.safetensors", "saliency")


def test_a_large_picture_is_seen_as_a_whole_and_its_map_has_its_size(
    cli: CommandLine, model: Path, tmp_path: Path
) -> None:
    source = tmp_path / "large.png"
    images.write(source, torch.randint(0, 256, (3, 30, 2 * LONGEST), dtype=torch.uint8))
    place = tmp_path / "doubt.png"
    done = cli("saliency", source, "-o", tmp_path / "out.png", "--model", model, "--samples", 2, "--uncertainty", place)
    assert done.returncode == 0, done.stderr
    assert photos.read(place).pixels.shape == (3, 30, 2 * LONGEST)
    told = reduce(photos.read(source).pixels)
    assert told.shape == (3, 15, LONGEST)
    output = load_conditional(str(model)).draw(told)[0]
    expected = ((enlarge(output, (30, 2 * LONGEST))[0] + 1) * 127.5).numpy()
    assert np.abs(grey(tmp_path / "out.png") - expected).max() <= 0.51


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "RGB16", "JPEG"])
def test_a_cutout_is_the_picture_with_the_map_as_its_transparency(
    cli: CommandLine, model: Path, tmp_path: Path, kind: str
) -> None:
    ending, content = picture(kind, 18, 26)
    source = tmp_path / f"in{ending}"
    source.write_bytes(content)
    for name, flags in (("map", ()), ("cutout", ("--cutout",))):
        done = cli("saliency", source, "-o", tmp_path / f"{name}.png", "--model", model, *flags)
        assert done.returncode == 0, done.stderr
    before, cut = photos.read(source), photos.read(tmp_path / "cutout.png")
    assert torch.equal(cut.pixels, before.pixels)
    assert cut.depth == before.depth
    share = torch.from_numpy(grey(tmp_path / "map.png") / np.float32(255))
    expected = share if before.alpha is None else share * before.alpha[0]
    assert cut.alpha is not None
    assert float((cut.alpha[0] - expected).abs().max()) <= 1.01 / 255


def test_jpeg_holds_no_cutout(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 1) / "000.png"
    done = cli("saliency", source, "-o", tmp_path / "out.jpg", "--model", model, "--cutout")
    assert done.returncode == 2
    assert "JPEG does not hold" in error(done.stderr)


def test_a_folder_with_a_bad_picture_is_done_but_for_that_one(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    album = folder(tmp_path / "album", 2)
    (album / "bad.png").write_bytes(b"no picture")
    done = cli("saliency", album, "-o", tmp_path / "out", "--model", model, "--mean")
    assert done.returncode == 1
    assert "bad.png" in done.stderr
    for name in ("000.png", "001.png"):
        with Image.open(tmp_path / "out" / name) as shown:
            assert (shown.mode, shown.size) == ("L", (8, 8))


def test_a_map_of_a_transparent_picture_may_be_a_jpeg(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    """A map is grey, whatever the picture: there is nothing that JPEG does not hold."""
    (tmp_path / "clear.png").write_bytes(picture("RGBA", 8, 8)[1])
    done = cli("saliency", tmp_path / "clear.png", "-o", tmp_path / "map.jpg", "--model", model)
    assert done.returncode == 0, done.stderr
    assert grey(tmp_path / "map.jpg").shape == (8, 8)
