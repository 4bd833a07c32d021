"""The frame of commands with pictures in and out: what is done, kept, skipped, refused and told."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attenua import files, images, photos, weights
from attenua.cli import common, pictures
from tests.cli.picture_support import model_file, picture
from tests.cli.support import error, folder
from tests.conftest import CommandLine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path / "sr.safetensors")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return folder(tmp_path / "album", 3)


def test_a_file_gives_a_file_and_its_path(cli: CommandLine, model: Path, album: Path, tmp_path: Path) -> None:
    done = cli("upscale", album / "000.png", "-o", tmp_path / "out.png", "--model", model)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out.png'}\n")
    assert images.read(tmp_path / "out.png").shape == (3, 16, 16)
    assert done.stderr.startswith("upscale: 2 of 2 network calls in ")


def test_a_folder_gives_a_folder_and_json_tells_all(cli: CommandLine, model: Path, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    done = cli("upscale", album, "-o", out, "--model", model, "--json", "--quiet", "--steps", 3)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [each["out"] for each in told["files"]] == [str(out / f"00{n}.png") for n in range(3)]
    assert (told["written"], told["kept"], told["skipped"], told["nfe"], told["device"]) == (3, 0, 0, 3, "cpu")
    settings = told["files"][0]["settings"]
    assert settings["nfe"] == "3"
    assert settings == photos.settings_of(out / "000.png")
    assert len({each["settings"]["input_sha256"] for each in told["files"]}) == 3


def test_progress_goes_on_within_a_picture_of_several_tiles(
    cli: CommandLine, model: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, int | None]] = []

    @contextmanager
    def recorded(title: str, **settings: object) -> Iterator[common.Update]:
        yield lambda done, total=None: told.append((done, total))

    monkeypatch.setattr(common, "progress", recorded)
    images.write(tmp_path / "wide.png", torch.zeros(3, 16, 100, dtype=torch.uint8))
    (album / "001.png").write_bytes(b"broken")
    done = cli("upscale", tmp_path / "wide.png", album, "-o", tmp_path / "out", "--model", model, "--tile", 48)
    assert done.returncode == 1
    amounts = [amount for amount, _ in told]
    assert amounts == sorted(amounts)
    assert {0.2, 0.4, 0.6, 0.8, 1, 1.2} <= set(amounts)  # places 0, 16, 32, 48 and 52: 16 apart, and the last
    assert told[0][1] == 8
    assert told[-1] == (6, 6)


def test_what_is_done_is_kept_and_what_is_missing_is_done(
    cli: CommandLine, model: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = cli("upscale", album, "-o", out, "--model", model)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "001.png").unlink()
    again = cli("upscale", album, "-o", out, "--model", model)
    assert again.stdout == first.stdout
    assert again.stderr.startswith("attenua: 2 outputs are there already with the same settings\nupscale: 2 of 2 ")
    assert {path for path in before if path.stat().st_mtime_ns == before[path]} == {out / "000.png", out / "002.png"}
    last = cli("upscale", album, "-o", out, "--model", model)
    assert last.stderr == "attenua: 3 outputs are there already with the same settings\n"


@pytest.mark.parametrize("change", [("--seed", 1), ("--steps", 3), ("--mode", "faithful"), ("--tile", 64)])
def test_an_output_made_otherwise_is_not_overwritten(
    change: tuple[Any, ...], cli: CommandLine, model: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    cli("upscale", album / "000.png", "-o", out, "--model", model)
    before = out.read_bytes()
    refused = cli("upscale", album / "000.png", "-o", out, "--model", model, *change)
    assert refused.returncode == 2
    assert error(refused.stderr).startswith(f"{out} exists already, made otherwise")
    assert out.read_bytes() == before
    assert cli("upscale", album / "000.png", "-o", out, "--model", model, *change, "--overwrite").returncode == 0
    assert out.read_bytes() != before


def test_an_input_that_has_changed_makes_another_output(
    cli: CommandLine, model: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    cli("upscale", album / "000.png", "-o", out, "--model", model)
    (album / "000.png").write_bytes((album / "001.png").read_bytes())
    assert cli("upscale", album / "000.png", "-o", out, "--model", model).returncode == 2


def test_an_input_is_overwritten_only_where_that_is_allowed(cli: CommandLine, model: Path, album: Path) -> None:
    before = (album / "000.png").read_bytes()
    refused = cli("upscale", album, "-o", album, "--model", model)
    assert refused.returncode == 2
    assert "is itself an input" in error(refused.stderr)
    assert (album / "000.png").read_bytes() == before
    assert cli("upscale", album, "-o", album, "--model", model, "--overwrite").returncode == 0
    assert images.read(album / "000.png").shape == (3, 16, 16)


def test_what_cannot_be_read_is_named_and_the_rest_is_done(
    cli: CommandLine, model: Path, album: Path, tmp_path: Path
) -> None:
    (album / "001.png").write_bytes(b"broken")
    (album / "zero.png").write_bytes(b"")
    (album / "half.png").write_bytes((album / "000.png").read_bytes()[:60])
    out = tmp_path / "out"
    done = cli("upscale", album, "-o", out, "--model", model, "--json")
    assert done.returncode == 1
    assert sorted(path.name for path in out.iterdir()) == ["000.png", "002.png"]
    told = {Path(each["in"]).name: each["status"] for each in json.loads(done.stdout)["files"]}
    assert told == {
        "000.png": "written", "001.png": "skipped", "002.png": "written", "half.png": "skipped", "zero.png": "skipped"
    }  # fmt: skip
    assert f"attenua: skipped {album / '001.png'}: it is not a whole file of a known kind" in done.stderr
    assert done.stderr.endswith("attenua: 3 inputs were skipped\n")
    assert "upscale: 4 of 4 network calls" in done.stderr
    strict = cli("upscale", album, "-o", tmp_path / "strict", "--model", model, "--strict", "--quiet")
    assert strict.returncode == 2
    assert error(strict.stderr).startswith(f"{album / '001.png'}: ")


def test_a_full_disk_ends_the_run_and_leaves_what_is_done(
    cli: CommandLine, model: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def full(path: Path, data: bytes) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(Path(path))
        files.write_bytes(path, data)

    monkeypatch.setattr(photos, "write_bytes", full)
    out = tmp_path / "out"
    done = cli("upscale", album, "-o", out, "--model", model, "--quiet")
    assert done.returncode == 2
    assert (
        error(done.stderr) == f"no space is left on the disk for {out / '001.png'}; what was written before is intact"
    )
    assert sorted(path.name for path in out.iterdir()) == ["000.png"]
    monkeypatch.undo()
    again = cli("upscale", album, "-o", out, "--model", model, "--json", "--quiet")
    assert json.loads(again.stdout)["kept"] == 1


def test_uncertainty_is_a_map_beside_the_first_sample(
    cli: CommandLine, model: Path, album: Path, tmp_path: Path
) -> None:
    alone, out, heat = tmp_path / "alone.png", tmp_path / "out.png", tmp_path / "map.png"
    cli("upscale", album / "000.png", "-o", alone, "--model", model)
    done = cli(
        "upscale", album / "000.png", "-o", out, "--model", model, "--uncertainty", heat, "--samples", 3, "--json"
    )
    assert (done.returncode, json.loads(done.stdout)["nfe"]) == (0, 6)
    assert torch.equal(images.read(out), images.read(alone))
    assert images.read(heat).shape == (3, 16, 16)
    again = cli("upscale", album / "000.png", "-o", out, "--model", model, "--uncertainty", heat, "--samples", 3)
    assert "1 output is there already" in again.stderr
    heat.unlink()
    other = cli("upscale", album / "000.png", "-o", out, "--model", model, "--uncertainty", heat, "--samples", 3)
    assert (other.returncode, heat.exists()) == (0, True)


def test_the_colours_of_uncertainty_rise_from_black_to_white() -> None:
    deviation = torch.linspace(0, 2 * pictures.WHITE / 127.5, 64)[None]
    colours = pictures.heat(deviation)
    assert colours[:, 0, 0].tolist() == [-1, -1, -1]
    assert torch.equal(colours[:, 0, 32:], torch.ones(3, 32))
    light = colours[:, 0].mul(torch.tensor([0.3, 0.6, 0.1])[:, None]).sum(0)
    assert bool((light.diff() > -1e-6).all())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--samples", "4"), "--samples 4 is for the map of --uncertainty, which is not asked for"),
        (("--steps", "0"), "steps is 0; allowed is a whole number from 1"),
        (("--mode", "faithful", "--uncertainty", "u.png"), "--mode faithful gives the mean of all samples"),
        (("--mode", "faithful", "--steps", "3"), "--mode faithful is one network call; --steps 3 is for detailed"),
        (("--mode", "best"), "unknown value 'best'; the known ones are detailed, faithful"),
        (("--scale", "4"), "--scale is 4, but "),
        (("--uncertainty", "OUT"), "is both an output and a map of uncertainty"),
        (("--device", "gpu"), "there is no device 'gpu' here"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    arguments: tuple[str, ...], line: str, cli: CommandLine, model: Path, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    given = [str(out) if each == "OUT" else each for each in arguments]
    done = cli("upscale", album / "000.png", "-o", out, "--model", model, *given)
    assert done.returncode == 2
    assert line in error(done.stderr)
    assert not out.exists()


def test_several_pictures_need_a_folder(cli: CommandLine, model: Path, album: Path, tmp_path: Path) -> None:
    done = cli("upscale", album, "-o", tmp_path / "out.png", "--model", model)
    assert "several pictures need a folder" in error(done.stderr)
    done = cli("upscale", album / "none.png", "-o", tmp_path / "out.png", "--model", model)
    assert "there is no picture or folder" in error(done.stderr)


def test_a_model_that_is_not_there_says_how_to_get_one(cli: CommandLine, album: Path, tmp_path: Path) -> None:
    done = cli("upscale", album, "-o", tmp_path / "out", "--model", "sr40")
    line = error(done.stderr)
    assert "there is no model 'sr40' (did you mean 'sr4'?); the known ones are " in line
    assert "attenua train super-resolution --data FOLDER" in line
    assert "--model FILE" in line
    done = cli("upscale", album, "-o", tmp_path / "out", "--model", tmp_path / "none.safetensors")
    assert error(done.stderr) == f"no model file at {tmp_path / 'none.safetensors'}"


def test_a_model_for_another_task_is_refused(cli: CommandLine, album: Path, tmp_path: Path) -> None:
    other = model_file(tmp_path / "in.safetensors", "inpainting")
    done = cli("upscale", album, "-o", tmp_path / "out", "--model", other)
    assert error(done.stderr) == (
        f"{other} is a model for inpainting; `attenua upscale` needs one for super-resolution"
    )


@pytest.mark.parametrize("command", ["upscale", "inpaint", "edges", "saliency"])
def test_the_help_tells_the_steps_of_the_default_model(cli: CommandLine, command: str) -> None:
    name = {"upscale": "sr4"}.get(command, command)
    steps = weights.read_header(weights.find(name)).sampling.steps
    assert f"the model's own, often {steps}." in " ".join(cli(command, "--help").stdout.split())


def test_what_the_format_cannot_hold_is_told_before_the_work(
    cli: CommandLine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clear.png").write_bytes(picture("RGBA", 8, 8)[1])
    done = cli("upscale", tmp_path / "clear.png", "-o", tmp_path / "out.jpg", "--model", model)
    assert done.returncode == 2
    assert "it has transparent parts, which JPEG does not hold" in done.stderr
    Image.fromarray(np.zeros((1, 9000, 3), np.uint8)).save(tmp_path / "wide.png")
    done = cli("upscale", tmp_path / "wide.png", "-o", tmp_path / "out.webp", "--model", model)
    assert "its output would have 18000 x 2 pixels, and WEBP holds 16383 a side" in done.stderr
    monkeypatch.setattr(images, "MAX_PIXELS", 30_000)
    done = cli("upscale", tmp_path / "wide.png", "-o", tmp_path / "out.png", "--model", model)
    assert "its output would have 18000 x 2 pixels, more than the limit, 30000" in done.stderr
    assert "network calls" not in done.stderr


def test_memory_that_does_not_suffice_skips_the_picture(
    cli: CommandLine, model: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attenua.tasks import conditional

    def large(*arguments: object, **options: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(conditional, "draw", large)
    done = cli("upscale", album, "-o", tmp_path / "out", "--model", model)
    assert done.returncode == 1
    assert f"skipped {album / '000.png'}: there is not enough memory for it" in done.stderr


def test_one_picture_alone_that_cannot_be_used_is_an_error(cli: CommandLine, model: Path, album: Path) -> None:
    broken = album / "broken.png"
    broken.write_bytes(b"no picture")
    done = cli("upscale", broken, "-o", album / "out.png", "--model", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert error(done.stderr) == f"{broken}: it is not a whole file of a known kind (PNG, JPEG, WEBP, TIFF)"
    among = cli("upscale", broken, album / "000.png", "-o", album / "out", "--model", model)
    assert among.returncode == 1
    assert among.stdout == f"{album / 'out' / '000.png'}\n"
