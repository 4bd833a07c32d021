"""`attenua export`: a run's average as one model file."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from attenua import weights
from attenua.tasks import load
from attenua.training import Trainer
from tests.cli.support import error
from tests.conftest import CommandLine
from tests.training.common import config, pictures


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    assert Trainer(config(["training.images=48"]), pictures(), run).run()
    return run


def test_the_average_of_a_finished_run_is_int8(cli: CommandLine, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    done = cli("export", finished, "--out", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")
    ours, theirs = weights.read(path), weights.read(finished / "model.safetensors")
    assert (ours.kind, ours.config, ours.record) == ("int8", theirs.config, theirs.record)
    for name, value in theirs.tensors.items():
        torch.testing.assert_close(ours.tensors[name], value, rtol=1e-3, atol=float(value.abs().max()) / 200)
    assert load(str(path)).sample(1, steps=1).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("kind", weights.KINDS)
def test_numbers_at_rest_are_of_the_kind_asked_for(cli: CommandLine, finished: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.safetensors"
    result = json.loads(cli("export", finished, "-o", path, "--kind", kind, "--json").stdout)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert result == {"out": str(path), "kind": kind, "bytes": path.stat().st_size, "sha256": sha256}
    assert weights.read_header(path).kind == kind


def test_float32_is_the_file_of_the_run(cli: CommandLine, finished: Path, tmp_path: Path) -> None:
    cli("export", finished, "-o", tmp_path / "m.safetensors", "--kind", "float32")
    assert (tmp_path / "m.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_an_average_of_another_width_comes_from_the_snapshots(cli: CommandLine, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "model.safetensors").unlink()  # as of a run that was cut off
    for width in (0.05, 0.12):
        path = tmp_path / f"{width}.safetensors"
        assert cli("export", run, "--ema", width, "-o", path, "--kind", "float32").returncode == 0
        assert weights.read(path).record["ema"] == width
    one, two = (weights.read(tmp_path / f"{width}.safetensors").tensors for width in (0.05, 0.12))
    assert any(not torch.equal(one[name], two[name]) for name in one)
    done = cli("export", run, "-o", tmp_path / "m.safetensors")
    assert done.returncode == 2
    assert error(done.stderr).startswith(f"{run} holds no finished model; give --ema WIDTH")


def test_an_output_that_exists_is_kept_unless_told(cli: CommandLine, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"mine")
    done = cli("export", finished, "-o", path)
    assert done.returncode == 2
    assert "--overwrite" in error(done.stderr)
    assert path.read_bytes() == b"mine"
    assert cli("export", finished, "-o", path, "--overwrite").returncode == 0
    assert weights.read_header(path).kind == "int8"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--kind", "int4"], "unknown kind of weights 'int4'; known: int8, float16, float32"),
        (["--ema", 0], r"EMA width is 0\.0; allowed is 0 < width < 0\.28"),
        (["--ema", 0.3], r"EMA width is 0\.3; allowed is 0 < width < 0\.28"),
        (["--ema", "wide"], "'wide' is not a valid float"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    cli: CommandLine, finished: Path, tmp_path: Path, arguments: list[object], line: str
) -> None:
    done = cli("export", finished, "-o", tmp_path / "m.safetensors", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(line, error(done.stderr)), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_wrong_are_named(cli: CommandLine, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    assert "does not exist" in error(cli("export", tmp_path / "none", "-o", out).stderr)
    assert "is a file" in error(cli("export", finished / "config.json", "-o", out).stderr)
    assert "does not exist" in error(cli("export", finished, "-o", tmp_path / "none" / "m.safetensors").stderr)
    assert "is a directory" in error(cli("export", finished, "-o", tmp_path).stderr)
    assert "has no snapshots" in error(cli("export", tmp_path, "-o", out, "--ema", 0.1).stderr)
    assert "missing option" in error(cli("export", finished).stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_of_a_run_is_named(cli: CommandLine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"\0" * 20)
    done = cli("export", run, "-o", tmp_path / "m.safetensors")
    assert done.returncode == 2
    assert str(run / "model.safetensors") in error(done.stderr)
