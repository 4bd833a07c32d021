"""`attenua info`: what a model file says of itself, and what is wrong with one that says nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from attenua import weights
from attenua.cli import info
from attenua.config import to_dict
from attenua.model import AttenuationModel
from tests.cli.support import RECORD, content, error, model_file
from tests.conftest import CommandLine

SCORE = {
    "metric": "fid", "value": 12.345678, "nfe": 10, "solver": "multistep", "grid": "karras", "samples": 50_000,
    "data": "cifar10-train",
}  # fmt: skip


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped model with a measured score and a remark."""
    package = tmp_path / "package"
    package.mkdir()
    path = model_file(package / "tiny.safetensors")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = {
        "file": path.name, "sha256": sha256, "bytes": path.stat().st_size, "summary": "for tests",
        "scores": [SCORE], "remarks": ["It was made for tests."],
    }  # fmt: skip
    (package / "index.json").write_text(json.dumps({"tiny": entry}))
    monkeypatch.setattr(weights, "packaged", lambda: package)
    return path


def test_everything_that_is_known_is_told(cli: CommandLine, known: Path) -> None:
    result = json.loads(cli("info", "tiny", "--json").stdout)
    header = weights.read_header(known)
    model = AttenuationModel(header.config)
    assert result == {
        "model": "tiny",
        "file": str(known),
        "bytes": known.stat().st_size,
        "sha256": hashlib.sha256(known.read_bytes()).hexdigest(),
        "kind": "int8",
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "flops_per_call": model.flops(),
        "config": to_dict(header.config),
        "sampling": to_dict(header.sampling),
        "record": RECORD,
        "scores": [SCORE],
        "remarks": ["It was made for tests."],
    }


def test_the_text_has_the_same_facts(cli: CommandLine, known: Path) -> None:
    done = cli("info", "tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 110 + len(str(known))
    whole = " ".join(done.stdout.split())
    sha256 = hashlib.sha256(known.read_bytes()).hexdigest()
    for fact in (
        "model tiny",
        f"SHA-256 {sha256}",
        f"{AttenuationModel(content().config).parameter_count():,} parameters",
        "image_size 8",
        "law constant, noise wiener",
        "s_d 0.3",
        "steps 3, solver multistep, grid karras",
        "4,000 images in 2 min on CPU",
        "smooth-train; terms: made for tests",
        "FID 12.35 at 10 calls (multistep, karras), 50,000 samples against cifar10-train",
        "remark It was made for tests.",
    ):
        assert fact in whole, done.stdout


def test_what_a_model_began_with_is_told(cli: CommandLine, tmp_path: Path) -> None:
    first = {**RECORD, "images": 777_000}
    path = weights.write(tmp_path / "m.safetensors", replace(content(), record={**RECORD, "start": first}), "float32")
    whole = " ".join(cli("info", path).stdout.split())
    assert "4,000 images in 2 min on CPU" in whole
    assert "; before that: 777,000 images in 2 min on CPU" in whole


def test_a_file_is_described_by_its_path_in_both_places(cli: CommandLine, known: Path, tmp_path: Path) -> None:
    """A copy of a shipped file has its scores; one with other weights has none."""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(known.read_bytes())
    one, two = (json.loads(cli("info", *given, "--json").stdout) for given in ([copy], ["--model", copy]))
    assert one == two
    assert one["scores"] == [SCORE]
    other = weights.write(tmp_path / "other.safetensors", content(), "float32")
    assert json.loads(cli("info", other, "--json").stdout)["scores"] == []
    assert "none measured for this file" in cli("info", other).stdout


def test_a_record_that_tells_little_is_no_error(cli: CommandLine, tmp_path: Path) -> None:
    given = content()
    path = weights.write(tmp_path / "m.safetensors", weights.Weights(given.config, given.tensors))
    done = cli("info", path)
    assert done.returncode == 0
    assert "not told; terms: not told" in done.stdout


def test_the_shipped_model_tells_its_data_and_terms(cli: CommandLine) -> None:
    done = cli("info", "cifar10", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sha256"] == hashlib.sha256(weights.find("cifar10").read_bytes()).hexdigest()
    assert "cifar" in str(result["record"]["data"])
    assert "Krizhevsky" in str(result["record"]["terms"])
    assert result["record"]["images"] > 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))


def foreign(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)


def another_format(path: Path) -> None:
    description = {"format": 9, "kind": "int8", "model": {}, "sampling": {}, "record": {}}
    safetensors.torch.save_file({"w": torch.zeros(3)}, path, {"attenua": json.dumps(description)})


def unknown_field(path: Path) -> None:
    description = {"format": 1, "kind": "int8", "model": {"colour": 1}, "sampling": {}, "record": {}}
    safetensors.torch.save_file({"w": torch.zeros(3)}, path, {"attenua": json.dumps(description)})


@pytest.mark.parametrize("command", ["info", "sample", "evaluate"])
@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (cut, r"is truncated: \d+ bytes, \d+ expected"),
        (cut_short, "is not a safetensors file, or is truncated"),
        (empty, "is not a safetensors file, or is truncated"),
        (picture, "is not a safetensors file, or is truncated"),
        (foreign, "is a safetensors file, but not a model of attenua"),
        (another_format, "has format 9; this version reads format 1"),
        (unknown_field, r"unknown configuration field 'model\.colour'.*known: network, process"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_file_is_one_line_in_every_command(
    cli: CommandLine,
    tmp_path: Path,
    command: str,
    damage: Callable[[Path], None],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = model_file(tmp_path / "m.safetensors")
    damage(path)
    before = path.read_bytes()
    done = cli(command, "--model", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in error(done.stderr)
    assert re.search(line, done.stderr), done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["sample", "evaluate", "fit-grid"])
def test_weights_of_another_shape_name_what_differs(
    cli: CommandLine, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = content(), content(width=16)
    path = weights.write(tmp_path / "m.safetensors", weights.Weights(one.config, two.tensors))
    done = cli(command, "--model", path)
    assert (done.returncode, done.stdout) == (2, "")
    line = error(done.stderr)
    assert line.startswith(f"{path}: the weights do not fit the model: network.")
    assert re.search(r"network\.\S+ is \[[\d, ]+\] instead of \[[\d, ]+\].* \(and \d+ more\)", line)
    missing = {name: value for name, value in one.tensors.items() if name != "mu"}
    weights.write(path, weights.Weights(one.config, missing))
    assert error(cli(command, "--model", path).stderr).endswith("the weights do not fit the model: mu is missing")
    weights.write(path, weights.Weights(one.config, {**one.tensors, "extra": torch.zeros(2)}))
    assert error(cli(command, "--model", path).stderr).endswith("the weights do not fit the model: extra is unknown")


def test_an_unknown_model_lists_the_known_ones(cli: CommandLine, known: Path) -> None:
    line = error(cli("info", "tine").stderr)
    assert line == "unknown model 'tine' (did you mean 'tiny'?); known: tiny, or the path of a model file"
    assert error(cli("info", "x/m.safetensors").stderr) == "no model file at x/m.safetensors"
    assert error(cli("info", "--model", "x/m.safetensors").stderr) == "no model file at x/m.safetensors"
    assert cli("info", "--model", "tiny").stdout == cli("info", "tiny").stdout
    for given in ([], ["tiny", "--model", known]):
        done = cli("info", *given)
        assert done.returncode == 2
        assert error(done.stderr).startswith("one of MODEL (tiny, or a file of weights) and --model is needed: ")


def test_a_folder_is_no_model(cli: CommandLine, tmp_path: Path) -> None:
    for given in ([tmp_path], ["--model", tmp_path]):
        done = cli("info", *given)
        assert (done.returncode, done.stdout) == (2, "")
        assert str(tmp_path) in error(done.stderr)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"output": "mean", "nfe": 1}, "PSNR_Y 31.23 at 1 call (mean), 5 pictures of Set5"),
        ({"output": "sample"}, "PSNR_Y 31.23 at 5 calls (multistep, uniform), 5 pictures of Set5"),
        ({"maps": "5", "mode": "SEval"}, "PSNR_Y 31.23 at 5 calls (multistep, uniform, SEval), 5 pictures of Set5"),
        ({}, "PSNR_Y 31.23 at 5 calls (multistep, uniform), 5 samples against Set5"),
    ],
)
def test_a_score_says_how_it_was_taken(more: dict[str, object], line: str) -> None:
    row = {"metric": "psnr_y", "value": 31.234, "nfe": 5, "solver": "multistep", "grid": "uniform"}
    assert info._score({**row, "samples": 5, "data": "Set5", **more}) == line
