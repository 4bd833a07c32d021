"""`attenua fit-grid`: what is wrong is one line, before the reference is made (the rest: tests.sampling.test_fit)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from attenua import weights
from attenua.model import AttenuationModel
from tests.cli.support import error, model_file
from tests.conftest import CommandLine

FAST = ["--steps", 2, "--trajectories", 2, "--held-out", 1, "--reference", 8, "--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--steps", "3,x"], "--steps has 'x'; allowed are whole numbers from 2 with commas between them"),
        (["--steps", "1"], "--steps has '1'; allowed are whole numbers from 2"),
        (["--steps", "²"], "--steps has '²'; allowed are whole numbers from 2"),
        (["--steps", ""], "--steps has ''; allowed are whole numbers from 2"),
        (["--batch", 0], "batch is 0; allowed is a whole number from 1"),
        (["--solver", "posterior"], "'posterior' draws fresh noise"),
        (["--solver", "heunn"], "unknown solver 'heunn'; known: multistep, "),
        (["--trajectories", 0], "trajectories, held-out ones and a batch from 1"),
        (["--held-out", 0], "trajectories, held-out ones and a batch from 1"),
        (["--reference", 7], "a reference from 8 calls"),
        (["--distance", "mse"], "'mse' is not one of 'pixels', 'lpips'"),
        (["--device", "abacus"], "there is no device 'abacus' here"),
        (["--out", "none/m.safetensors"], "the folder .*none of the output m.safetensors does not exist"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_call(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], line: str
) -> None:
    def called(*_: object) -> None:
        raise AssertionError("the network was called")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AttenuationModel, "raw", called)
    model = model_file(tmp_path / "m.safetensors")
    done = cli("fit-grid", "--model", model, *FAST, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(line, error(done.stderr)), done.stderr
    assert list(tmp_path.iterdir()) == [model]


def test_the_result_lies_beside_and_json_is_one_object(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = model_file(tmp_path / "m.safetensors")
    before = model.read_bytes()
    done = cli("fit-grid", model, *FAST, "--steps", "2,2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["out"], result["trajectories"]) == ("m-fitted.safetensors", 2)
    assert [(item["steps"], item["solver"]) for item in result["fitted"]] == [(2, "multistep")]
    assert re.fullmatch(r"fitting: \d+ evaluations in [\d.]+ s\n", done.stderr)
    assert weights.read_header(tmp_path / "m-fitted.safetensors").sampling.fitted[0].steps == 2
    assert model.read_bytes() == before
    again = cli("fit-grid", model, *FAST)
    assert again.returncode == 2
    assert "--overwrite" in error(again.stderr)
