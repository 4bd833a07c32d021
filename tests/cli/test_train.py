"""`attenua train`: a run from a folder of pictures to a model, its resumption, and one line for what is wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attenua import images, presets, reports, weights
from attenua.config import Config, from_dict, override
from attenua.tasks import load
from attenua.training import Trainer, checkpoint
from tests.cli.support import error, folder, model_file, zipped
from tests.conftest import ROOT, CommandLine

SETTINGS = (
    "model.network.image_size=8",
    "model.network.width=8",
    "model.network.multipliers=[1]",
    "model.network.attention=[]",
    "model.network.heads=2",
    "model.network.patch=1",
    "training.images=48",
    "training.batch=8",
    "training.warmup=0",
    "training.snapshots=2",
    "training.log_every=16",
    "training.checkpoint_every=16",
    "training.sample_every=0",
    "training.compile=false",
)
TINY = [part for setting in SETTINGS for part in ("--set", setting)]

Train = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "smooth", 24)


@pytest.fixture
def train(cli: CommandLine, data: Path, tmp_path: Path) -> Train:
    """The command in a run folder of the test's own; later arguments go before the defaults."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        given = ["--data", data, "--run-dir", tmp_path / "run", "--device", "cpu", *TINY, *arguments]
        return cli("train", "cifar10-cpu", *given)

    return call


def left(run: Path) -> list[str]:
    """What a run folder holds, without its snapshots."""
    return sorted(path.name for path in run.iterdir() if path.is_file())


def bytes_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


# ---- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_model_that_samples(train: Train, cli: CommandLine, tmp_path: Path) -> None:
    done = train("--set", "training.sample_every=16")
    run = tmp_path / "run"
    model = run / "model.safetensors"
    assert (done.returncode, done.stdout) == (0, f"{model}\n")
    assert left(run) == sorted(
        ["config.json", "metrics.jsonl", "model.safetensors", checkpoint.name(32), checkpoint.name(48)]
    )
    lines = done.stderr.splitlines()
    for line, number in zip(lines[:-1], (16, 32, 48), strict=True):
        assert re.fullmatch(rf"{number} images, loss [\d.]+, [\d,]+ images/s, \d+ s left", line), line
    assert re.fullmatch(r"training cifar10-cpu: 48 of 48 images in [\d.]+ s", lines[-1])
    assert [line["images"] for line in reports.read_lines(run / "metrics.jsonl")] == [16, 32, 48]
    grids = sorted((run / "samples").iterdir())
    assert [path.name for path in grids] == [f"{number:012d}.png" for number in (16, 32, 48)]
    assert images.read(grids[0]).shape == (3, 8 * 18 + 2, 8 * 18 + 2)  # 64 pictures, twice their size
    record = weights.read_header(model).record
    assert (record["images"], record["data"], record["data_images"]) == (48, "smooth-train", 24)
    assert cli("sample", model, "--num", 1, "--out", tmp_path / "a.png").returncode == 0
    stored = from_dict(Config, json.loads((run / "config.json").read_text()))
    asked = [*SETTINGS, "training.sample_every=16", "training.precision=float32"]
    assert stored.training == override(presets.preset("cifar10-cpu"), asked).training


def test_torchrun_trains_one_model_by_two_processes(train: Train, cli: CommandLine, data: Path, tmp_path: Path) -> None:
    """The same model as by one, in float64: the first process writes and tells, the other is silent."""
    exact = ["--set", "training.precision=float64", "--set", "model.network.dropout=0"]
    assert train(*exact, "--quiet").returncode == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = ["-m", "attenua", "train", "cifar10-cpu", "--data", data, "--device", "cpu", *TINY, *exact]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [str(part) for part in [*launch, *run, "--run-dir", tmp_path / "two"]]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'two' / 'model.safetensors'}\n"
    one, two = (weights.read(tmp_path / name / "model.safetensors").tensors for name in ("run", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-6, atol=1e-7)


def test_json_is_one_object_and_quiet_is_silent(train: Train, tmp_path: Path) -> None:
    done = train("--json", "--quiet")
    assert done.stderr == ""
    result = json.loads(done.stdout)
    lines = reports.read_lines(tmp_path / "run" / "metrics.jsonl")
    assert result.pop("seconds") >= 0
    assert result == {"model": str(tmp_path / "run" / "model.safetensors"), "images": 48, "loss": lines[-1]["loss"]}


def test_the_same_command_again_says_that_the_run_is_complete(train: Train, tmp_path: Path) -> None:
    first = json.loads(train("--json").stdout)
    before = bytes_of(tmp_path / "run")
    done = train("--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, first)
    assert done.stderr == "complete already at 48 of 48 images\n"
    after = bytes_of(tmp_path / "run")
    assert after == before
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert train("--quiet").returncode == 0  # what is asked for is the model, and that is there


def test_the_run_folder_is_named_after_the_preset(
    cli: CommandLine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("train", "cifar10-cpu", "--data", data, *TINY, "--set", "training.images=8")
    assert done.stdout == "runs/cifar10-cpu/model.safetensors\n"


def test_the_seed_is_a_field_of_the_configuration(train: Train, tmp_path: Path) -> None:
    short = ["--set", "training.images=8"]
    train("--seed", 5, "--run-dir", tmp_path / "one", *short)
    train("--set", "training.seed=5", "--run-dir", tmp_path / "two", *short)
    train("--run-dir", tmp_path / "zero", *short)
    one, two, zero = (weights.read(tmp_path / name / "model.safetensors").tensors for name in ("one", "two", "zero"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], zero[name]) for name in one)


def test_a_zip_trains_as_its_folder_does(train: Train, data: Path, tmp_path: Path) -> None:
    train("--run-dir", tmp_path / "folder")
    assert train("--run-dir", tmp_path / "zip", "--data", zipped(data, tmp_path / "smooth.zip")).returncode == 0
    one, two = (weights.read(tmp_path / name / "model.safetensors") for name in ("folder", "zip"))
    assert one.tensors.keys() == two.tensors.keys()
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    assert one.record["data_sha256"] == two.record["data_sha256"]


def test_fine_tuning_starts_from_a_model(train: Train, tmp_path: Path) -> None:
    train("--run-dir", tmp_path / "first")
    start = tmp_path / "first" / "model.safetensors"
    done = train("--init", start, "--set", "training.rate=1e-12", "--run-dir", tmp_path / "second")
    assert done.returncode == 0
    ours, theirs = weights.read(tmp_path / "second" / "model.safetensors"), weights.read(start)
    for name, value in theirs.tensors.items():
        torch.testing.assert_close(ours.tensors[name], value, rtol=0, atol=1e-8)


def test_figures_at_intervals_are_logged(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attenua.tasks import evaluation

    monkeypatch.setattr(evaluation, "InceptionFeatures", Colours)
    done = train("--set", "training.fid_every=24", "--set", "training.fid_samples=6")
    assert done.returncode == 0, done.stderr
    found = [line for line in reports.read_lines(tmp_path / "run" / "metrics.jsonl") if "fid" in line]
    assert [line["images"] for line in found] == [24, 48]
    assert all(isinstance(line["kid"], float) for line in found)


class Colours(torch.nn.Module):
    """In place of Inception: the mean colour."""

    num_features, name = 3, "colours"

    def __init__(self, *, batch: int) -> None:
        super().__init__()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float().mean((2, 3))


# ---- stopping and going on ------------------------------------------------------------------------------------------


def signal_at(images: int, number: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Send this process a signal (as often as told) after the step that ends at an image count."""
    real = Trainer.train_step

    def step(self: Trainer) -> torch.Tensor:
        loss = real(self)
        if self.seen == images:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return loss

    monkeypatch.setattr(Trainer, "train_step", step)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_goes_on(
    train: Train, tmp_path: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train("--run-dir", tmp_path / "whole", "--quiet")
    with monkeypatch.context() as patch:
        signal_at(24, number, patch)
        done = train("--quiet")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == "attenua: saved at 24 images; the same command goes on from there\n"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert left(tmp_path / "run") == sorted(["config.json", "metrics.jsonl", checkpoint.name(16), checkpoint.name(24)])
    again = train()
    assert again.returncode == 0
    assert again.stderr.splitlines()[0] == "resumed at 24 of 48 images"
    one, two = (weights.read(tmp_path / name / "model.safetensors").tensors for name in ("whole", "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_second_interruption_ends_at_once(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_at(24, signal.SIGINT, monkeypatch, times=2)
    done = train("--quiet")
    assert done.returncode == 130
    assert done.stderr == "attenua: interrupted; the run goes on from its last checkpoint with the same command\n"
    kept = checkpoint.newest(tmp_path / "run")
    assert kept is not None
    assert kept.name == checkpoint.name(16)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_from_outside_saves(data: Path, tmp_path: Path, number: int, code: int) -> None:
    run = tmp_path / "run"
    arguments = ["train", "cifar10-cpu", "--data", data, "--run-dir", run, "--device", "cpu", *TINY]
    process = subprocess.Popen(
        [sys.executable, "-m", "attenua", *map(str, arguments), "--set", "training.images=100000000",
         "--set", "training.checkpoint_every=100000000"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (code, "")
    line = re.fullmatch(
        r"attenua: saved at ([\d,]+) images; the same command goes on from there", told.splitlines()[-1]
    )
    assert line is not None
    kept = checkpoint.newest(run)
    assert kept is not None
    assert kept.name == checkpoint.name(int(line[1].replace(",", "")))


def test_a_full_disk_in_the_middle_of_a_checkpoint_keeps_the_one_before(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = tmp_path / "run", os.fsync

    def full(descriptor: int) -> None:
        if checkpoint.newest(run) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        done = train("--quiet", "--set", "training.snapshots=0")
    assert (done.returncode, done.stdout) == (2, "")
    where = run / checkpoint.name(32)
    assert error(done.stderr) == f"no space is left on the disk for {where}; what was written before is intact"
    assert left(run) == sorted(["config.json", "metrics.jsonl", checkpoint.name(16)])
    again = train("--set", "training.snapshots=0")
    assert again.returncode == 0
    assert again.stderr.startswith("resumed at 16 of 48 images\n")


def test_a_loss_that_is_no_number_stops_and_says_where(train: Train, tmp_path: Path) -> None:
    """A rate far too large, with the falling part of the plan left out so that it stays."""
    done = train("--set", "training.rate=1e30", "--set", "training.constant=1", "--set", "training.log_every=8",
                 "--set", "training.checkpoint_every=8")  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    told = [line for line in done.stderr.splitlines() if line.startswith("attenua:")]
    kept = tmp_path / "run" / checkpoint.name(8)
    assert told == [
        "attenua: error: the loss or its gradient became NaN or infinite at image 16; "
        f"the last good checkpoint is {kept}; a lower training.rate may help"
    ]
    assert left(tmp_path / "run") == sorted(["config.json", "metrics.jsonl", checkpoint.name(8)])


# ---- a run that is only described -----------------------------------------------------------------------------------


def test_a_dry_run_tells_what_a_run_would_be_and_writes_nothing(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["train", "cifar10-cpu", *TINY, "--dry-run", "--device", "cpu"]  # without data
    text, result = cli(*given), json.loads(cli(*given, "--json", "--seed", 4).stdout)
    assert (text.returncode, text.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    model = load(str(model_file(tmp_path / "m.safetensors", norm="rms"))).model  # the network of TINY
    assert result["parameters"] == model.parameter_count()
    assert result["config"]["training"]["images"] == 48
    assert result["config"]["training"]["seed"] == 4
    assert result["device"] == "cpu"
    for name in ("flops", "memory"):
        assert any(name in key and value > 0 for key, value in result.items() if isinstance(value, int | float)), name
    end = text.stdout.rindex("}\n") + 2
    assert json.loads(text.stdout[:end])["model"]["network"]["width"] == 8
    names = [line.partition("  ")[0] for line in text.stdout[end:].splitlines()]
    assert names == ["parameters", "FLOPs an image", "memory, expected", "length"]
    assert re.search(rf"^parameters +{model.parameter_count():,}$", text.stdout, re.MULTILINE)
    assert re.search(r"^length +48 images, 6 steps of 8$", text.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("preset", "parameters", "flops"),
    [("cifar10", 20e6, 8.05e9), ("cifar10-cpu", 3e6, 0.35e9), ("cifar10-paper", 217e6, 1e12)],
)
def test_the_networks_are_as_large_as_they_should_be(
    cli: CommandLine, preset: str, parameters: float, flops: float
) -> None:
    result = json.loads(cli("train", preset, "--dry-run", "--json", "--device", "cpu").stdout)
    assert 0.8 * parameters < result["parameters"] <= parameters
    assert 0 < result["flops_per_image"] <= flops


# ---- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "training.bach=4"], r"'training\.bach' \(did you mean 'batch'\?\); known: images, batch, micro_b"),
        (["--set", "trainin.batch=4"], r"'trainin' \(did you mean 'training'\?\); known: model, objective, training"),
        (["--set", "training.batch=many"], "training.batch is 'many'; allowed is a whole number"),
        (["--set", "training.batch=0"], "training.batch is 0; allowed is a whole number from 1"),
        (["--set", "training.precision=int4"], "training.precision is 'int4'; allowed: auto, bfloat16, float32, fl"),
        (["--set", "training.batch"], "'training.batch' is not of the form section.field=value"),
        (["--set", "model.process.law=cubic"], "unknown law 'cubic'; known: constant, linear_rising"),
        (["--set", "model.process.noise=pink"], "unknown noise.*'pink'; known: wiener, linear"),
        (["--set", "model.process.combination=sum"], "unknown combination 'sum'; known: mean, image, noise, paper"),
        (["--set", "sampling.solver=eule"], "unknown solver 'eule'; known: multistep, ode"),
        (["--set", "sampling.grid=fine"], "unknown grid 'fine'; known: karras, uniform, logsnr"),
        (["--set", "model.network.image_size=16"], "have 8 x 8 pixels, the network takes 16 x 16: give --resize, or "
                                                   "--set model.network.image_size=8"),
        (["--device", "abacus"], "there is no device 'abacus' here: --device must be one of auto, cpu"),
        (["--init", "cifar11"], "unknown model 'cifar11'.*; known: .*cifar10"),
        (["--init", "none.safetensors"], "no model file at none.safetensors"),
        (["--data", "nothing"], "nothing does not exist: bring CIFAR-10 there with `attenua data cifar10 --root noth"),
        (["--seed", "-1"], "-1 is not from 0"),
        (["--sett", "a=1"], r"unknown option '--sett' \(did you mean --set\?\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_no_run_begins(
    train: Train, tmp_path: Path, arguments: list[object], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = train(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(line, error(done.stderr)), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_training_on_mps_which_has_no_float64_is_refused_and_auto_takes_the_cpu(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = cli("train", "cifar10-cpu", "--dry-run", "--device", "mps")
    assert (done.returncode, done.stdout) == (2, "")
    assert error(done.stderr).endswith("--device must be cpu or cuda")
    told = cli("train", "cifar10-cpu", "--dry-run", "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["device"] == "cpu"


def test_an_unknown_preset_lists_the_known_ones(cli: CommandLine) -> None:
    done = cli("train", "cifar10-gpu", "--dry-run")
    assert done.returncode == 2
    assert error(done.stderr).endswith(f"; known: {', '.join(presets.PRESETS)}")


def test_a_bad_picture_is_named_and_the_rest_is_done(train: Train, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", 24)
    whole = (data / "003.png").read_bytes()
    (data / "003.png").write_bytes(whole[: len(whole) // 2])
    (data / "note.png").write_text("no picture")
    (data / "readme.txt").write_text("not looked at")
    done = train("--data", data, "--quiet")
    assert (done.returncode, done.stdout) == (1, f"{tmp_path / 'run' / 'model.safetensors'}\n")
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"attenua: skipped {data / '003.png'}: ")
    assert lines[1].startswith(f"attenua: skipped {data / 'note.png'}: ")
    assert lines[2:] == ["attenua: 2 inputs were skipped"]
    assert weights.read_header(tmp_path / "run" / "model.safetensors").record["data_images"] == 23


def test_a_bad_picture_stops_a_strict_run(train: Train, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", 24)
    (data / "003.png").write_bytes(b"no picture")
    done = train("--data", data, "--strict")
    assert (done.returncode, done.stdout) == (2, "")
    assert "003.png" in error(done.stderr)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_and_a_folder_without_pictures_are_told(train: Train, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    done = train("--data", data)
    assert done.returncode == 2
    assert "is empty: bring CIFAR-10 there" in error(done.stderr)
    (data / "a.txt").touch()
    done = train("--data", data)
    assert done.returncode == 2
    assert "holds no pictures (files that end in .bmp, " in error(done.stderr)
    (data / "a.png").touch()
    done = train("--data", data, "--quiet")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"none of the 1 pictures in {data} can be read")
    (tmp_path / "text.zip").write_text("not a zip")
    done = train("--data", tmp_path / "text.zip")
    assert done.returncode == 2
    assert "is not a whole zip file" in error(done.stderr)
    assert not (tmp_path / "run").exists()


def test_mixed_sizes_name_two_and_can_be_resized(train: Train, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", 24)
    folder(tmp_path / "data" / "wide", 4, size=12)
    done = train("--data", data)
    assert done.returncode == 2
    assert re.search(r"000\.png has 8 x 8 and wide/000\.png has 12 x 12 pixels.*--resize", error(done.stderr))
    assert not (tmp_path / "run").exists()
    assert train("--data", data, "--resize").returncode == 0
    assert weights.read_header(tmp_path / "run" / "model.safetensors").record["data_images"] == 28


def test_another_configuration_does_not_go_on(train: Train, tmp_path: Path) -> None:
    train()
    before = bytes_of(tmp_path / "run")
    done = train("--set", "training.rate=0.5")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"training\.rate \(0\.001 there, 0\.5 here\); choose another run folder", error(done.stderr))
    other = folder(tmp_path / "other", 24, seed=6)
    done = train("--data", other)
    assert done.returncode == 2
    assert "was trained on other pictures; choose another run folder" in error(done.stderr)
    assert bytes_of(tmp_path / "run") == before


def test_a_damaged_checkpoint_is_named(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / checkpoint.name(16)
    path.write_bytes(b"\0" * 100)
    done = train()
    assert done.returncode == 2
    assert error(done.stderr).startswith(f"the checkpoint {path} is damaged")
    assert path.read_bytes() == b"\0" * 100


def test_a_model_of_another_shape_is_no_start(train: Train, tmp_path: Path) -> None:
    start = model_file(tmp_path / "m.safetensors", width=16, norm="rms")
    done = train("--init", start)
    assert done.returncode == 2
    assert "network.width (16 there, 8 here)" in error(done.stderr)
    start.write_bytes(start.read_bytes()[:-10])
    done = train("--init", start)
    assert done.returncode == 2
    assert f"{start} is truncated" in error(done.stderr)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_one_is_refused(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        done = train("--run-dir", path)
        assert done.returncode == 2
        assert "is a file" in error(done.stderr)
    readable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and readable(path, mode))  # as no superuser
    done = train()
    assert done.returncode == 2
    assert "cannot be written" in error(done.stderr)
