"""`attenua edges`: maps of lines from files and folders, thinned, inverted, by one call or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attenua import photos, weights
from attenua.config import ModelConfig, SamplingConfig, TaskConfig
from attenua.data import pretrained
from attenua.metrics.boundaries import thin
from attenua.model import AttenuationModel
from tests.cli.picture_support import model_file as other_model
from tests.cli.picture_support import picture
from tests.cli.support import error, folder
from tests.conftest import CommandLine
from tests.networks.support import stir
from tests.tasks.test_edges import bsds, config


def model_file(path: Path, task: str = "edges") -> Path:
    """Write a model of maps that says something, not trained."""
    told = ModelConfig(config().model.network, s_d=0.3, task=TaskConfig(task))  # type: ignore[arg-type]
    model = AttenuationModel(told)
    stir(model, 0.05)
    model.mu.fill_(-0.5)
    return weights.write(path, weights.Weights(told, dict(model.state_dict()), SamplingConfig(steps=2), {}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path / "edges.safetensors")


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as shown:
        assert shown.mode == "L"
        return np.asarray(shown)


def test_a_folder_of_any_kinds_gives_grey_maps_of_its_sizes(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for kind, size in (("JPEG", (21, 30)), ("L16", (5, 9)), ("RGBA", (16, 16)), ("WEBP", (3, 40))):
        ending, content = picture(kind, *size)
        (album / f"{kind}{ending}").write_bytes(content)
    done = cli("edges", album, "-o", tmp_path / "out", "--model", model, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    names = ["JPEG.png", "L16.png", "RGBA.png", "WEBP.png"]
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == names
    assert [grey(tmp_path / "out" / name).shape for name in names] == [(21, 30), (5, 9), (16, 16), (3, 40)]


def test_a_transparent_picture_has_a_map_that_jpeg_holds(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(picture("RGBA", 16, 24)[1])
    done = cli("edges", source, "-o", tmp_path / "out.jpg", "--model", model, "--quiet")
    assert done.returncode == 0, done.stderr
    assert grey(tmp_path / "out.jpg").shape == (16, 24)


def test_inverted_is_the_complement_and_thin_is_thin(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 1, size=24) / "000.png"
    shown = {}
    for name, flags in (("plain", ()), ("inverted", ("--invert",)), ("thin", ("--thin",)), ("mean", ("--mean",))):
        done = cli("edges", source, "-o", tmp_path / f"{name}.png", "--model", model, *flags)
        assert done.returncode == 0, done.stderr
        shown[name] = grey(tmp_path / f"{name}.png").astype(int)
    assert np.abs(shown["plain"] + shown["inverted"] - 255).max() <= 1  # a value half-way between two levels
    lines = shown["thin"] > 0
    assert 0 < lines.sum() < (shown["plain"] > 0).sum()
    assert np.array_equal(shown["thin"][lines], shown["plain"][lines])
    assert np.array_equal(thin(lines), lines)
    assert np.abs(shown["mean"] - shown["plain"]).max() > 0


def test_the_mean_is_one_call_and_kept_as_such(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 1, size=16) / "000.png"
    done = cli("edges", source, "-o", tmp_path / "0.png", "--model", model, "--mean")
    assert done.stderr.startswith("edges: 1 of 1 network calls")
    again = cli("edges", source, "-o", tmp_path / "0.png", "--model", model, "--mean")
    assert "there already with the same settings" in again.stderr
    other = cli("edges", source, "-o", tmp_path / "0.png", "--model", model, "--mean", "--thin")
    assert other.returncode == 2
    assert "made otherwise" in error(other.stderr)


def test_samples_tell_their_uncertainty(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 1, size=16) / "000.png"
    place = tmp_path / "doubt.png"
    done = cli("edges", source, "-o", tmp_path / "out.png", "--model", model, "--samples", 3, "--uncertainty", place)
    assert done.returncode == 0, done.stderr
    assert photos.read(place).pixels.shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--mean", "--steps", "3"), "--steps 3 is for samples"),
        (("--mean", "--uncertainty", "u.png"), "a map of uncertainty needs samples"),
        (("--steps", "0"), "steps is 0"),
    ],
)
def test_what_does_not_go_together_is_refused(
    cli: CommandLine, model: Path, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    source = folder(tmp_path / "in", 1) / "000.png"
    done = cli("edges", source, "-o", tmp_path / "out.png", "--model", model, *flags)
    assert done.returncode == 2
    assert words in error(done.stderr)
    assert not (tmp_path / "out.png").exists()


def test_a_model_for_something_else_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    source, file = folder(tmp_path / "in", 1) / "000.png", other_model(tmp_path / "sr.safetensors")
    done = cli("edges", source, "-o", tmp_path / "out.png", "--model", file)
    assert done.returncode == 2
    assert "is a model for super-resolution; `attenua edges` needs one for edges" in error(done.stderr)


TINY = ("image_size=16", "width=8", "multipliers=[1,2]", "features=none")
SHORT = ("images=32", "batch=16", "warmup=0", "sample_every=0", "snapshots=0", "log_every=16")


def test_a_folder_of_drawings_trains_a_model_that_the_command_takes(cli: CommandLine, tmp_path: Path) -> None:
    data = bsds(tmp_path / "data")
    settings = [f"model.network.{each}" for each in TINY] + [f"training.{each}" for each in SHORT]
    flags = [flag for each in settings for flag in ("--set", each)]
    done = cli("train", "edges", "--data", data, "--run-dir", tmp_path / "run", "--device", "cpu", *flags)
    assert done.returncode == 0, done.stderr
    model = Path(done.stdout.strip())
    source = data / "images" / "train" / "0.png"
    drawn = cli("edges", source, "-o", tmp_path / "out.png", "--model", model, "--steps", 2)
    assert drawn.returncode == 0, drawn.stderr
    assert grey(tmp_path / "out.png").shape == (24, 32)


def test_without_the_pretrained_features_a_run_says_how_to_get_them(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_PACKAGE", "no_such_package")
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    done = cli("train", "edges", "--data", bsds(tmp_path / "data"), "--run-dir", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 2
    told = error(done.stderr)
    assert "pip install 'attenua[features]'" in told
    assert "--set model.network.features=none trains without" in told
