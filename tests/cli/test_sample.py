"""`attenua sample`: pictures where they were asked for, the same for any batch, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from attenua import images, weights
from attenua.cli import errors
from attenua.cli.common import Update
from attenua.model import AttenuationModel
from attenua.sampling import SOLVERS
from attenua.sampling.grids import GRIDS
from attenua.sampling.noise import ImageNoise
from attenua.tasks import load
from tests.cli.support import error, model_file
from tests.conftest import ROOT, CommandLine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def sample(cli: CommandLine, model: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda *arguments: cli("sample", "--model", model, *arguments)


Sample = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_grid_is_one_picture_that_tells_how_it_was_made(sample: Sample, model: Path, tmp_path: Path) -> None:
    done = sample("--num", 5, "--steps", 2, "--seed", 7, "--out", tmp_path / "a.png")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'a.png'}\n")
    assert re.fullmatch(r"sampling: 2 of 2 network calls in [\d.]+ s\n", done.stderr)
    expected = images.grid(load(str(model)).sample(5, steps=2, seed=7))
    assert torch.equal(images.read(tmp_path / "a.png"), expected)
    with Image.open(tmp_path / "a.png") as picture:
        note = picture.info["attenua"]
    assert f"model_sha256={weights.read_header(model).sha256} " in note
    for part in ("nfe=2", "solver=multistep", "grid=karras", "seed=7"):
        assert part in note.split(), note


@pytest.mark.parametrize("name", ["folder/", "folder"])
def test_a_folder_gets_one_picture_each(sample: Sample, model: Path, tmp_path: Path, name: str) -> None:
    done = sample("--num", 3, "--steps", 2, "--out", f"{tmp_path}/{name}")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'folder'}\n")
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    expected = load(str(model)).sample(3, steps=2)
    for index, file in enumerate(files):
        assert torch.equal(images.read(file), expected[index])
        with Image.open(file) as picture:
            assert f"index={index}" in picture.info["attenua"].split()


def test_a_folder_with_a_dot_that_exists_is_a_folder(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "run.1").mkdir()
    assert sample("--num", 1, "--steps", 1, "--out", tmp_path / "run.1").returncode == 0
    assert (tmp_path / "run.1" / "000000.png").is_file()


def test_json_tells_everything_and_nothing_else_is_on_stdout(sample: Sample, model: Path, tmp_path: Path) -> None:
    done = sample("--num", 2, "--solver", "posterior", "--eta", 0.5, "--grid", "uniform", "--seed", 3, "--json",
                  "--out", tmp_path / "a.png", "--device", "cpu")  # fmt: skip
    result = json.loads(done.stdout)
    assert result.pop("seconds") >= 0
    assert result == {
        "out": str(tmp_path / "a.png"),
        "images": 2,
        "model_sha256": weights.read_header(model).sha256,
        "nfe": 3,  # the model's own number of steps
        "solver": "posterior",
        "eta": 0.5,
        "grid": "uniform",
        "seed": 3,
        "device": "cpu",
    }


def test_quiet_is_silent_but_for_the_path(sample: Sample, tmp_path: Path) -> None:
    done = sample("--num", 1, "--steps", 1, "--quiet", "--out", tmp_path / "a.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'a.png'}\n"


def test_without_an_output_it_is_samples_png_here(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sample("--num", 1, "--steps", 1).stdout == "samples.png\n"
    assert (tmp_path / "samples.png").is_file()


def test_a_name_and_a_path_as_argument_mean_the_same_as_model(
    cli: CommandLine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(model, tmp_path / "shipped.safetensors")
    entry = {"file": "shipped.safetensors", "sha256": "", "bytes": 1, "summary": "for tests"}
    (tmp_path / "index.json").write_text(json.dumps({"tiny": entry}))
    monkeypatch.setattr(weights, "packaged", lambda: tmp_path)
    made = []
    for given in (["tiny"], [model], ["--model", model]):
        path = tmp_path / f"{len(made)}.png"
        assert cli("sample", *given, "--num", 2, "--steps", 2, "--out", path).returncode == 0
        made.append(path.read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("name", list(SOLVERS))
def test_steps_are_network_calls_with_every_solver(
    sample: Sample, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)
    for steps in (1, 10):
        calls.clear()
        done = sample("--num", 1, "--steps", steps, "--solver", name, "--json", "--out", tmp_path / f"{steps}.png")
        result = json.loads(done.stdout)
        assert (result["nfe"], result["solver"], len(calls)) == (steps, name, steps)


@pytest.mark.parametrize("name", [*GRIDS, *(f"{name}+mean" for name in GRIDS)])
def test_steps_are_network_calls_with_every_grid(
    sample: Sample, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)
    for steps in (1, 5):
        calls.clear()
        done = sample("--num", 1, "--steps", steps, "--grid", name, "--json", "--out", tmp_path / f"{steps}.png")
        result = json.loads(done.stdout)
        assert (result["nfe"], result["grid"], len(calls)) == (steps, name, steps)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the pictures of every network call."""
    calls: list[int] = []
    real = AttenuationModel.raw

    def raw(self: AttenuationModel, x_t: torch.Tensor, *rest: object) -> tuple[torch.Tensor, ...]:
        calls.append(len(x_t))
        return real(self, x_t, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(AttenuationModel, "raw", raw)
    return calls


@pytest.mark.parametrize("solver", ["multistep", "posterior"])
def test_a_picture_depends_on_its_seed_and_number_alone(
    sample: Sample, tmp_path: Path, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its noise is bit-equal and the picture the same to one grey level, for any number of pictures and batch."""
    drawn: dict[tuple[int, int], list[torch.Tensor]] = {}
    real = ImageNoise.__call__

    def draw(self: ImageNoise) -> torch.Tensor:
        values = real(self)
        for index, value in zip(self.indices, values, strict=True):
            drawn.setdefault((index, self.draws), []).append(value)
        return values

    monkeypatch.setattr(ImageNoise, "__call__", draw)
    made = []
    for number, batch in ((7, 7), (5, 2), (3, 1), (6, 32)):
        out = tmp_path / f"{number}"
        arguments = ["--num", number, "--batch", batch, "--steps", 4, "--solver", solver, "--seed", 11]
        assert sample(*arguments, "--out", f"{out}/").returncode == 0
        made.append([images.read(path).int() for path in sorted(out.iterdir())])
        assert len(made[-1]) == number
    for other in made[1:]:
        for first, second in zip(made[0], other, strict=False):
            assert int((first - second).abs().max()) <= 1
    assert len(drawn) == 7 * (1 if solver == "multistep" else 4)
    assert all(torch.equal(value, values[0]) for values in drawn.values() for value in values)
    assert len(drawn[0, 1]) == 4


def test_another_seed_is_another_picture(sample: Sample, tmp_path: Path) -> None:
    for seed in (0, 1):
        sample("--num", 1, "--steps", 2, "--seed", seed, "--out", tmp_path / f"{seed}.png")
    assert not torch.equal(images.read(tmp_path / "0.png"), images.read(tmp_path / "1.png"))


def test_labels_are_taken_in_turn(cli: CommandLine, tmp_path: Path) -> None:
    model = model_file(tmp_path / "m.safetensors", classes=3)
    given = ["sample", model, "--num", 3, "--steps", 2]
    cli(*given, "--label", 2, "--label", 0, "--out", tmp_path / "two.png")
    cli(*given, "--out", tmp_path / "turn.png")
    made = load(str(model))
    for name, labels in (("two", [2, 0, 2]), ("turn", [0, 1, 2])):
        assert torch.equal(images.read(tmp_path / f"{name}.png"), images.grid(made.sample(3, steps=2, labels=labels)))
    assert (tmp_path / "two.png").read_bytes() != (tmp_path / "turn.png").read_bytes()


def test_an_output_that_exists_is_kept_unless_told(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    done = sample("--num", 1, "--steps", 1, "--out", path)
    assert done.returncode == 2
    assert "--overwrite" in error(done.stderr)
    assert path.read_bytes() == b"mine"
    assert sample("--num", 1, "--steps", 1, "--out", path, "--overwrite").returncode == 0
    assert images.read(path).shape == (3, 12, 12)


def test_a_picture_in_the_folder_is_kept_unless_told(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "000001.png").write_bytes(b"mine")
    done = sample("--num", 2, "--steps", 1, "--out", tmp_path)
    assert done.returncode == 2
    assert "000001.png" in error(done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["000001.png"]
    assert (tmp_path / "000001.png").read_bytes() == b"mine"
    assert sample("--num", 1, "--steps", 1, "--out", tmp_path).returncode == 0  # in the way of nothing
    assert sample("--num", 2, "--steps", 1, "--out", tmp_path, "--overwrite").returncode == 0
    assert images.read(tmp_path / "000001.png").shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--num", 0], "num is 0; allowed is a whole number from 1"),
        (["--num", -3], "num is -3; allowed is a whole number from 1"),
        (["--steps", 0], "steps is 0; allowed is a whole number from 1"),
        (["--steps", -1], "steps is -1; allowed is a whole number from 1"),
        (["--batch", 0], "batch is 0; allowed is a whole number from 1"),
        (["--solver", "heunn"], rf"unknown solver 'heunn'.*: {', '.join(SOLVERS)}$"),
        (["--grid", "karas"], rf"unknown grid 'karas'.*: {', '.join(GRIDS)}"),
        (["--grid", "fitted"], "no grid is fitted for 3 steps of 'multistep'; fitted: none"),
        (["--eta", -1, "--solver", "posterior"], r"eta is -1\.0; allowed is a number from 0"),
        (["--eta", "nan", "--solver", "posterior"], "eta is nan; allowed is a number from 0"),
        (["--eta", 0.5, "--solver", "ode"], "'ode' takes no eta"),
        (["--eta", 0.5], "'multistep' takes no eta"),
        (["--label", 1], "this model has no classes; it takes no labels"),
        (["--device", "abacus"], "there is no device 'abacus' here: --device must be one of auto, cpu"),
        (["--num", "many"], "'many' is not a valid integer"),
        (["--seed", -1], "-1 is not from 0"),
        (["--speed", 1], r"unknown option '--speed' \(did you mean --seed\?\); the known ones are --num, --steps"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    sample: Sample, tmp_path: Path, arguments: list[object], line: str
) -> None:
    done = sample(*arguments, "--out", tmp_path / "a.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(line, error(done.stderr)), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_made_for_a_request_that_is_refused(sample: Sample, tmp_path: Path) -> None:
    for wrong in (["--label", 1], ["--steps", 0], ["--solver", "x"], ["--grid", "x"], ["--batch", 0]):
        assert sample(*wrong, "--out", f"{tmp_path}/new/").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_label_beyond_the_classes_names_the_allowed_ones(cli: CommandLine, tmp_path: Path) -> None:
    model = model_file(tmp_path / "m.safetensors", classes=3)
    for label in (3, -1):
        done = cli("sample", model, "--label", label, "--num", 2, "--out", tmp_path / "a.png")
        assert done.returncode == 2
        assert error(done.stderr).endswith(f"from 0 to 2, not {label}")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("ending", [".jpg", ".gif", ".safetensors"])
def test_another_ending_names_the_allowed_ones(sample: Sample, tmp_path: Path, ending: str) -> None:
    done = sample("--out", tmp_path / f"a{ending}")
    assert done.returncode == 2
    assert re.search(rf"ends in \{ending}; allowed are a \.png, or a folder", error(done.stderr))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    calls = count_calls(monkeypatch)
    for out, line in (
        (tmp_path / "missing" / "a.png", "does not exist"),
        (tmp_path / "file" / "a.png", "does not exist"),
        (f"{tmp_path}/file/", "is a file"),
        (f"{tmp_path}/file/new/", "is a file"),
    ):
        done = sample("--out", out)
        assert done.returncode == 2
        assert line in error(done.stderr)
    readable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and readable(path, mode))  # as no superuser
    for out in (tmp_path / "a.png", f"{tmp_path}/new/"):
        done = sample("--out", out)
        assert done.returncode == 2
        assert "cannot be written" in error(done.stderr)
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_picture_that_was_there(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = sample("--num", 1, "--steps", 1, "--out", path, "--overwrite", "--quiet")
    assert done.returncode == 2
    assert error(done.stderr) == f"no space is left on the disk for {path}; what was written before is intact"
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"mine"]


def test_an_unknown_model_lists_the_known_ones(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("sample", "cifar11", "--out", tmp_path / "a.png")
    assert done.returncode == 2
    line = error(done.stderr)
    assert line.startswith("unknown model 'cifar11'")
    assert all(name in line for name in weights.catalogue())


def test_one_model_is_needed_and_no_two(cli: CommandLine, model: Path, tmp_path: Path) -> None:
    for given in ([], ["cifar10", "--model", model]):
        done = cli("sample", *given, "--out", tmp_path / "a.png")
        assert done.returncode == 2
        assert error(done.stderr).startswith("one of MODEL (cifar10")


def test_an_interruption_ends_with_130_and_a_line(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AttenuationModel, "raw", interrupted)
    done = sample("--out", tmp_path / "a.png")
    assert (done.returncode, done.stdout) == (errors.INTERRUPTED, "")
    assert done.stderr.startswith("attenua: interrupted; ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_real_interruption_leaves_whole_pictures_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    arguments = ["sample", "--model", model, "--num", 100_000, "--batch", 1, "--out", f"{out}/", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "attenua", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("000003.png")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert re.fullmatch(r"attenua: interrupted; .*\n", told)
    files = sorted(out.iterdir())
    assert [file.name for file in files] == [f"{index:06d}.png" for index in range(len(files))]
    assert all(images.read(file).shape == (3, 8, 8) for file in files)


def test_the_bar_counts_network_calls(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    from attenua.cli import common

    told: list[tuple[int, int | None]] = []

    @contextmanager
    def progress(title: str, *, total: int | None = None, unit: str = "", quiet: bool = False):  # type: ignore[no-untyped-def]
        def update(done: int, of: int | None = None) -> None:
            told.append((done, total))

        assert isinstance(update, Update)
        yield update

    monkeypatch.setattr(common, "progress", progress)
    sample("--num", 5, "--batch", 2, "--steps", 3, "--out", tmp_path / "a.png")
    assert told == [(number, 9) for number in range(1, 10)]
