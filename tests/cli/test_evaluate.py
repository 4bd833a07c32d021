"""`attenua evaluate`: the figures of a model or a folder, how they were measured, and one line for what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

from attenua import images, reports, weights
from attenua.data import load as load_data
from attenua.metrics import generation as metrics
from attenua.tasks import evaluation, load
from tests.cli.support import error, folder, model_file, zipped
from tests.conftest import CommandLine

Evaluate = Callable[..., "CompletedProcess[str]"]


class Colours(torch.nn.Module):
    """In place of Inception: the mean and the range of every channel."""

    num_features, name = 6, "colours"
    seen = 0

    def __init__(self, *, batch: int = 1) -> None:
        super().__init__()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        type(self).seen += len(pictures)
        flat = pictures.float().flatten(2) / 255
        return torch.cat([flat.mean(2), flat.amax(2) - flat.amin(2)], 1)


@pytest.fixture(autouse=True)
def _no_inception(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluation, "InceptionFeatures", Colours)
    monkeypatch.setenv("ATTENUA_CACHE", str(tmp_path / "cache"))
    Colours.seen = 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "real", 20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def evaluate(cli: CommandLine, data: Path) -> Evaluate:
    return lambda *arguments: cli("evaluate", "--data", data, "--device", "cpu", *arguments)


def figures(made: torch.Tensor, data: Path) -> dict[str, float]:
    """What the metrics themselves say."""
    real = load_data(data)
    reference = metrics.Reference.compute([real.images], Colours(), data="", sha256="")
    return metrics.score([made], reference, Colours(), kid_size=min(len(made), len(real)))


def test_a_model_is_scored_by_its_samples(evaluate: Evaluate, model: Path, data: Path) -> None:
    done = evaluate("--model", model, "--num", 12, "--steps", 2, "--seed", 4, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = figures(load(str(model)).sample(12, steps=2, seed=4), data)
    real = load_data(data)
    common = {
        "samples": 12,
        "data": "real-train",
        "data_sha256": real.sha256(),
        "split": "train",
        "model": "tiny.safetensors",
        "model_sha256": weights.read_header(model).sha256,
        "nfe": 2,
        "solver": "multistep",
        "eta": None,
        "grid": "karras",
        "seed": 4,
        "default": False,
    }
    assert result["benchmark"] == "evaluate"
    fid, kid = result["rows"]
    assert fid == {"metric": "fid", "value": pytest.approx(expected["fid"], rel=1e-4), **common}
    assert kid == {
        "metric": "kid",
        "value": pytest.approx(expected["kid"], rel=1e-4),
        "deviation": pytest.approx(expected["kid_deviation"], rel=1e-4, abs=1e-9),
        **common,
    }
    assert result["protocol"] == {
        "features": "colours",
        "samples": 12,
        "reference_images": 20,
        "kid": "cubic kernel, 100 subsets of 12",
        "published": False,
        "resized": False,
    }


@pytest.mark.parametrize(
    ("arguments", "default"),
    [([], True), (["--steps", 3, "--solver", "multistep"], True), (["--steps", 2], False), (["--seed", 1], False)],
)
def test_a_row_says_whether_it_is_what_a_user_gets(
    evaluate: Evaluate, model: Path, arguments: list[object], default: bool
) -> None:
    result = json.loads(evaluate(model, "--num", 6, "--json", *arguments).stdout)
    assert [row["default"] for row in result["rows"]] == [default, default]


def test_the_batch_leaves_the_figures(evaluate: Evaluate, model: Path) -> None:
    found = [
        json.loads(evaluate(model, "--num", 8, "--batch", batch, "--json").stdout)["rows"][0]["value"]
        for batch in (1, 3, 8)
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-3)  # kernels may differ in a picture's last grey level


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_folder_of_the_reference_itself_has_no_distance(
    evaluate: Evaluate, data: Path, tmp_path: Path, form: str
) -> None:
    given = data if form == "folder" else zipped(data, tmp_path / "real.zip")
    result = json.loads(evaluate("--images", given, "--json").stdout)
    fid = result["rows"][0]
    assert fid["value"] == pytest.approx(0, abs=1e-6)
    assert (fid["images"], fid["samples"]) == ("real-train", 20)
    assert "model" not in fid
    assert "nfe" not in fid


def test_a_folder_of_others_is_scored_as_they_are(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    others = folder(tmp_path / "others", 9, seed=1)
    rows = json.loads(evaluate("--images", others, "--json").stdout)["rows"]
    expected = figures(load_data(others).images, data)
    assert expected["fid"] > 0.001
    assert [row["value"] for row in rows] == [
        pytest.approx(expected["fid"], rel=1e-5),
        pytest.approx(expected["kid"], rel=1e-5),
    ]


def test_the_text_has_a_line_a_figure_and_says_that_it_is_screening(
    evaluate: Evaluate, model: Path, tmp_path: Path
) -> None:
    done = evaluate(model, "--num", 7)
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"FID -?\d+\.\d{4}", lines[0])
    assert re.fullmatch(r"KID -?\d+\.\d{4} \+- \d+\.\d{4} \(deviation over subsets\)", lines[1])
    assert lines[2:] == ["7 images against 20 of real-train (screening, not the published protocol)"]
    told = done.stderr.splitlines()
    assert re.fullmatch(r"reference real-train: 20 of 20 images in [\d.]+ s", told[0])
    assert re.fullmatch(r"scoring: 7 of 7 images in [\d.]+ s", told[1])
    assert len(told) == 2
    assert evaluate(model, "--num", 7, "--quiet").stderr == ""


def test_below_as_many_pictures_as_features_there_is_kid_alone(evaluate: Evaluate, model: Path) -> None:
    rows = json.loads(evaluate(model, "--num", 5, "--json").stdout)["rows"]
    assert [row["metric"] for row in rows] == ["kid"]


def test_the_published_protocol_says_so(evaluate: Evaluate, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 samples are what is made where no number is given; here 10 stand for them."""
    monkeypatch.setattr(evaluation, "PUBLISHED", 10)
    monkeypatch.setattr(Colours, "name", evaluation.INCEPTION)
    done = evaluate(model)
    assert done.stdout.splitlines()[-1] == "10 images against 20 of real-train (the published protocol)"
    done = evaluate(model, "--reference-num", 9)
    assert done.stdout.splitlines()[-1].endswith("9 of real-train (first 9) (screening, not the published protocol)")


def test_the_reference_is_computed_once(evaluate: Evaluate, model: Path, tmp_path: Path) -> None:
    first = evaluate(model, "--num", 7)
    assert Colours.seen == 27
    second = evaluate(model, "--num", 7)
    assert Colours.seen == 34
    assert first.stdout == second.stdout
    assert second.stderr.startswith("scoring: ")
    assert len(list((tmp_path / "cache" / "references").iterdir())) == 1


def test_fewer_pictures_of_the_reference_are_the_first(
    evaluate: Evaluate, model: Path, data: Path, tmp_path: Path
) -> None:
    result = json.loads(evaluate(model, "--num", 7, "--reference-num", 8, "--json").stdout)
    assert result["protocol"]["reference_images"] == 8
    first = folder(tmp_path / "first", 20)
    for path in sorted(first.iterdir())[8:]:
        path.unlink()
    other = json.loads(evaluate(model, "--num", 7, "--data", first, "--json").stdout)
    assert result["rows"][0]["value"] == other["rows"][0]["value"]


def test_the_report_is_a_file_too(evaluate: Evaluate, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    given = [model, "--num", 7, "--out", path, "--json"]
    done = evaluate(*given)
    assert json.loads(done.stdout) == json.loads(path.read_text())
    assert [row["metric"] for row in reports.read_rows(path)] == ["fid", "kid"]
    assert {"machine", "versions", "commit", "protocol"} <= json.loads(done.stdout).keys()
    before = path.read_bytes()
    Colours.seen = 0
    again = evaluate(*given)
    assert again.returncode == 2
    assert "--overwrite" in error(again.stderr)
    assert (path.read_bytes(), Colours.seen) == (before, 0)
    assert evaluate(*given, "--overwrite").returncode == 0


def test_bad_pictures_are_named_and_the_rest_is_scored(evaluate: Evaluate, tmp_path: Path) -> None:
    others = folder(tmp_path / "others", 9, seed=1)
    (others / "004.png").write_bytes(b"no picture")
    done = evaluate("--images", others, "--quiet", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["rows"][0]["samples"] == 8
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"attenua: skipped {others / '004.png'}: ")
    assert lines[1:] == ["attenua: 1 input was skipped"]
    strict = evaluate("--images", others, "--strict")
    assert (strict.returncode, strict.stdout) == (2, "")
    assert "004.png" in error(strict.stderr)


def test_sizes_must_agree_and_the_reference_can_be_resized(evaluate: Evaluate, tmp_path: Path) -> None:
    others = folder(tmp_path / "others", 9, size=12)
    done = evaluate("--images", others)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"images of 8 x 8 pixels, those to score have 12 x 12.*--resize", error(done.stderr))
    result = json.loads(evaluate("--images", others, "--resize", "--json").stdout)
    assert result["protocol"]["resized"] is True
    images.write(others / "999.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    assert "must all have one height and width" in error(evaluate("--images", others).stderr)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--num", 1], "num is 1; allowed is a whole number from 2"),
        (["--num", 0], "num is 0; allowed is a whole number from 2"),
        (["--steps", 0], "steps is 0; allowed is a whole number from 1"),
        (["--batch", 0], "batch is 0; allowed is a whole number from 1"),
        (["--solver", "heunn"], "unknown solver 'heunn'; known: multistep, "),
        (["--grid", "karas"], "unknown grid 'karas'; known: karras, "),
        (["--reference-num", 1], "reference-num is 1; allowed is 2 to 20, the pictures of real-train"),
        (["--reference-num", 21], "reference-num is 21; allowed is 2 to 20"),
        (["--data", "nothing"], "nothing does not exist: bring CIFAR-10 there with `attenua data cifar10 --root noth"),
        (["--device", "abacus"], "there is no device 'abacus' here"),
        (["--out", "none/report.json"], "the folder .*none of the output report.json does not exist"),
        (["--images", "x"], "--images scores a folder, MODEL and --model a model: give one of them"),
        (["--speed"], r"unknown option '--speed' \(did you mean --seed\?\); the known ones are --images, "),
    ],
)
def test_what_is_wrong_is_one_line_before_any_work(
    evaluate: Evaluate,
    model: Path,
    tmp_path: Path,
    arguments: list[object],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = evaluate("--model", model, "--num", 4, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(line, error(done.stderr)), done.stderr
    assert Colours.seen == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--num", "--steps", "--solver", "--grid", "--eta", "--batch"])
def test_what_belongs_to_a_model_is_refused_for_a_folder(evaluate: Evaluate, data: Path, option: str) -> None:
    done = evaluate("--images", data, option, 3)
    assert done.returncode == 2
    assert error(done.stderr) == (f"{option} belongs to a model's samples; --images scores all images of the folder")


def test_folders_that_cannot_be_scored_are_told(evaluate: Evaluate, model: Path, tmp_path: Path) -> None:
    one, none = folder(tmp_path / "one", 1), tmp_path / "none"
    none.mkdir()
    assert "one-train has 1 image; at least 2 are needed for KID" in error(evaluate("--images", one).stderr)
    done = evaluate("--data", one, "--model", model, "--num", 4)
    assert "the reference one-train has 1 image; at least 2 are" in error(done.stderr)
    assert f"{none} is empty" in error(evaluate("--images", none).stderr)
    assert f"{none / 'x'} does not exist" in error(evaluate("--images", none / "x").stderr)
    assert error(evaluate().stderr).startswith("one of MODEL (cifar10")
    assert error(evaluate("cifar11").stderr).startswith(
        "unknown model 'cifar11' (did you mean 'cifar10'?); known: cifar10"
    )


def test_without_the_extra_the_way_to_it_is_told(
    evaluate: Evaluate, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attenua.metrics import inception

    monkeypatch.setattr(evaluation, "InceptionFeatures", inception.InceptionFeatures)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    done = evaluate("--model", model, "--num", 4)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'attenua[eval]'" in error(done.stderr)


def test_an_interruption_ends_with_130_and_leaves_nothing(
    evaluate: Evaluate, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Colours, "forward", interrupted)
    done = evaluate(model, "--num", 4, "--out", tmp_path / "report.json")
    assert (done.returncode, done.stdout) == (130, "")
    assert re.fullmatch(r"attenua: interrupted; .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []
