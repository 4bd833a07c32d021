"""Edges: what a line is as a state, what the annotators are, and a tiny model that finds a border."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from attenua import images
from attenua.config import Config, ModelConfig, NetworkConfig, ObjectiveConfig, TaskConfig, TrainingConfig
from attenua.data.pairs import Augmentation, gather
from attenua.metrics.boundaries import thin
from attenua.tasks import task_of
from attenua.tasks.conditional import draw
from attenua.tasks.edges import LINE, REACH, Edges, soft_lines, softened, thinned
from attenua.tasks.pairs import PairSource
from attenua.training import Trainer

STILL = Augmentation(symmetries=1, rotated=0, scaled=0)


def config(annotators: str = "mean", side: int = 16, **network: object) -> Config:
    fields: dict[str, object] = {
        "image_size": side, "channels": 1, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "heads": 2,
        "patch": 2, "norm": "rms", "dropout": 0.0, "condition_channels": 3, "condition_blocks": 1,
    }  # fmt: skip
    told = TaskConfig("edges", annotators=annotators)  # type: ignore[arg-type]
    run = TrainingConfig(images=640, batch=16, rate=5e-3, warmup=32, sample_every=640, log_every=320, snapshots=0)
    model = ModelConfig(NetworkConfig(**(fields | network)), task=told)  # type: ignore[arg-type]
    return Config(model, ObjectiveConfig(log_mean=0.5, final_share=0.4), run)


def drawing(seed: int, height: int = 24, width: int = 32) -> tuple[Tensor, Tensor]:
    """A bright box on a dark ground; two people draw its border, the second further out and without one side."""
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(4, 8)), int(rng.integers(4, 12))
    picture = torch.full((3, height, width), 40, dtype=torch.uint8)
    picture[:, top : top + 12, left : left + 14] = 210
    maps = torch.zeros(2, height, width, dtype=torch.uint8)
    for person, grown in enumerate((0, 1)):
        a, b, c, d = top - grown, top + 11 + grown, left - grown, left + 13 + grown
        maps[person, [a, b], c : d + 1] = 255
        maps[person, a : b + 1, c] = 255
        if person == 0:
            maps[person, a : b + 1, d] = 255
    return picture, maps


def pairs_of(count: int) -> list[tuple[str, Tensor, Tensor]]:
    return [(f"{seed}", *drawing(seed)) for seed in range(count)]


def bsds(folder: Path, count: int = 3) -> Path:
    for name, picture, maps in pairs_of(count):
        cells = np.empty((1, len(maps)), dtype=object)
        for index, each in enumerate(maps):
            cells[0, index] = {"Boundaries": (each > 0).numpy().astype(np.uint8)}
        (folder / "groundTruth" / "train").mkdir(parents=True, exist_ok=True)
        (folder / "images" / "train").mkdir(parents=True, exist_ok=True)
        savemat(folder / "groundTruth" / "train" / f"{name}.mat", {"groundTruth": cells})
        images.write(folder / "images" / "train" / f"{name}.png", picture)
    return folder


def test_a_line_has_the_profile_of_its_distance() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 17, 23)) < 0.03
    found = soft_lines(torch.from_numpy(masks * np.uint8(255))).numpy()
    for mask, soft in zip(masks, found, strict=True):
        distance = distance_transform_edt(~mask)
        expected = np.where(distance <= REACH, 255 * np.exp(-(distance**2) / (2 * LINE**2)), 0)
        assert np.abs(soft - expected).max() <= 0.5


def test_grey_lines_keep_their_strength() -> None:
    grey = torch.zeros(1, 9, 9, dtype=torch.uint8)
    grey[0, 4] = 100
    assert torch.equal(soft_lines(grey)[0, 4], torch.full((9,), 100, dtype=torch.uint8))
    assert 39 <= int(soft_lines(grey)[0, 3, 0]) <= 42


def test_the_mean_is_the_mean_over_annotators() -> None:
    found = softened(gather(pairs_of(3), name="boxes"))
    mean = PairSource(Edges("mean"), found.mean(), 16, STILL)
    one = PairSource(Edges("one"), found, 16, STILL)
    draws = torch.rand(8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    people = []
    for choice in (0.25, 0.75):
        draws[:, 6] = choice
        people.append(one.made(draws, torch.float64)[0])
    assert float((people[0] - people[1]).abs().max()) > 0.5
    state, picture = mean.made(draws, torch.float64)
    assert float((state - (people[0] + people[1]) / 2).abs().max()) <= 1.01 / 127.5  # the mean is a byte
    assert torch.equal(picture, one.made(draws, torch.float64)[1])


@pytest.mark.parametrize(("annotators", "maps"), [("mean", 1), ("one", 2)])
def test_bsds_gives_its_annotators_as_the_configuration_says(tmp_path: Path, annotators: str, maps: int) -> None:
    task = task_of(config(annotators).model)
    source = task.dataset(bsds(tmp_path), config(annotators))
    assert isinstance(source, PairSource)
    assert source.pairs.counts.tolist() == [maps] * 3
    assert source.deviation() > 0.1
    assert -1 < float(source.mean()) < -0.5


def test_annotators_belong_to_edges() -> None:
    with pytest.raises(ValueError, match=r"task.annotators belongs to edges, not to saliency"):
        TaskConfig("saliency", annotators="one")
    with pytest.raises(ValueError, match="channels 1"):
        task_of(config(channels=3).model)


def test_a_model_of_single_annotators_learns_their_mean_in_one_call(tmp_path: Path) -> None:
    source = Edges("one").dataset(bsds(tmp_path / "data", 6), config("one"))
    trainer = Trainer(config("one"), source, tmp_path / "run")
    assert trainer.run()
    assert images.read(tmp_path / "run" / "samples" / "000000000640.png").shape[0] == 3
    picture, maps = drawing(99)
    truth = soft_lines(maps).float().mean(0) / 127.5 - 1
    with trainer.averaged() as model:
        mean = draw(model, Edges(), picture.float() / 127.5 - 1, faithful=True)[0, 0]
        sampled = draw(model, Edges(), picture.float() / 127.5 - 1, steps=5, samples=2)[:, 0]
    unknown = float((truth - truth.mean()).square().mean())
    assert float((mean - truth).square().mean()) < 0.6 * unknown
    assert sampled.shape == (2, 24, 32)
    assert float(sampled.abs().max()) <= 1
    assert not torch.equal(sampled[0], sampled[1])


def test_a_thinned_map_has_lines_of_one_pixel_of_their_strength() -> None:
    mask = torch.zeros(1, 30, 40, dtype=torch.uint8)
    mask[0, 14, 5:35] = 255
    mask[0, 5:26, 20] = 255
    output = soft_lines(mask).float() / 127.5 - 1
    lines = thinned(output)
    drawn = lines[0] > -1
    assert np.array_equal(drawn.numpy(), thin(drawn.numpy()))
    assert torch.equal(lines[0][drawn], output[0][drawn])
    distance = distance_transform_edt(mask[0].numpy() == 0)
    assert distance[drawn.numpy()].max() <= 1
    assert int(drawn.sum()) > 40
    assert torch.equal(thinned(torch.full((1, 7, 9), -1.0)), torch.full((1, 7, 9), -1.0))
