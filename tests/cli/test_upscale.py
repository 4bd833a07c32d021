"""`attenua upscale`: pictures of every kind and size come out larger and otherwise as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attenua import images, photos
from attenua.tasks import load_conditional
from attenua.tasks.restoration import SuperResolution
from tests.cli.picture_support import KINDS, call, model_file, picture
from tests.conftest import CommandLine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "sr.safetensors")


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(KINDS),
    st.sampled_from([(1, 1), (1, 9), (7, 1), (5, 6), (16, 11)]),
    st.integers(1, 8),
    st.sampled_from([".png", ".tif", None]),
)
def test_every_kind_size_and_orientation_is_enlarged(
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    size: tuple[int, int],
    orientation: int,
    out: str | None,
) -> None:
    place = tmp_path_factory.mktemp("picture")
    ending, data = picture(kind, *size, orientation=orientation)
    source = place / f"in{ending}"
    source.write_bytes(data)
    target = place / f"out{out or ending}"
    before = photos.read(source)
    done = call("upscale", source, "-o", target, "--model", model, "--steps", 1, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    after = photos.read(target)
    upright = (size[1], size[0]) if orientation >= 5 and not kind.endswith("16") else size
    assert after.pixels.shape[1:] == (2 * upright[0], 2 * upright[1])
    assert (after.grey, after.depth) == (before.grey, before.depth)
    assert (after.alpha is None) == (before.alpha is None)
    assert after.icc == before.icc


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_broken_bytes_are_skipped_or_read_but_never_an_error_of_the_program(
    model: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, place: int, value: int, cut: bool
) -> None:
    ending, data = picture(kind, 6, 5)
    place %= len(data)
    broken = data[:place] if cut else data[:place] + bytes([value]) + data[place + 1 :]
    folder = tmp_path_factory.mktemp("picture")
    (folder / f"in{ending}").write_bytes(broken)
    done = call("upscale", folder / f"in{ending}", "-o", folder / "out.png", "--model", model, "--steps", 1, "--quiet")
    assert done.returncode in (0, 2), done.stderr
    assert (folder / "out.png").exists() == (done.returncode == 0)
    assert done.stderr.count("\n") == (0 if done.returncode == 0 else 1)


def test_what_the_command_writes_is_what_the_library_makes(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(picture("RGB", 20, 30)[1])
    cli("upscale", tmp_path / "in.png", "-o", tmp_path / "out.png", "--model", model, "--seed", 3)
    cli("upscale", tmp_path / "in.png", "-o", tmp_path / "mean.png", "--model", model, "--mode", "faithful")
    loaded = load_conditional(str(model))
    pixels = photos.read(tmp_path / "in.png").pixels
    for name, made in (("out", loaded.draw(pixels, seed=3)), ("mean", loaded.draw(pixels, faithful=True))):
        expected = ((made[0] + 1) * 127.5).round().to(torch.uint8)
        assert torch.equal(images.read(tmp_path / f"{name}.png"), expected)


def test_opaque_stays_opaque_and_a_plain_transparency_stays_plain(
    cli: CommandLine, model: Path, tmp_path: Path
) -> None:
    pixels = torch.rand(3, 9, 7) * 2 - 1
    for level in (0.0, 0.5, 1.0):
        alpha = torch.full((1, 9, 7), round(level * 65535) / 65535)
        source, target = tmp_path / f"{level}.png", tmp_path / f"{level}-out.png"
        photos.write(source, photos.Photo(pixels, alpha, depth=16))
        assert cli("upscale", source, "-o", target, "--model", model).returncode == 0
        made = photos.read(target)
        assert made.alpha is not None
        torch.testing.assert_close(made.alpha, torch.full((1, 18, 14), float(alpha[0, 0, 0])), rtol=0, atol=2e-5)
        assert made.depth == 16


def test_no_seam_shows_where_tiles_meet(model: Path) -> None:
    """Three tiles side by side: steps of the picture at their borders are as large as elsewhere."""
    loaded = load_conditional(str(model))
    generator = torch.Generator().manual_seed(4)
    small = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 20, generator=generator) * 1.6 - 0.8, size=(48, 160), mode="bicubic"
    )[0]
    tiled = loaded.draw(small, steps=3, seed=1, tile=64, overlap=16)[0]
    whole = loaded.draw(small, steps=3, seed=1, tile=256)[0]
    steps = tiled.diff(dim=2).abs().mean((0, 1))
    borders = [2 * place - 1 for place in (48, 64, 96, 112)]  # tiles 0..64, 48..112, 96..160 of the small picture
    elsewhere = np.delete(steps.numpy(), borders)
    assert float(steps[borders].max()) < elsewhere.mean() + 3 * elsewhere.std()
    assert float((tiled - whole).abs().max()) < 0.05
    far = [column for column in range(320) if all(abs(column - 2 * middle) > 40 for middle in (56, 104))]
    torch.testing.assert_close(tiled[..., far], whole[..., far], rtol=0, atol=1e-3)


def test_the_scale_of_the_model_is_the_tasks(model: Path) -> None:
    task = load_conditional(str(model)).task
    assert isinstance(task, SuperResolution)
    assert task.scale == 2
