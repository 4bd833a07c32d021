"""Saliency: pairs of masks as states, sizes, and a tiny model that finds what stands out; features and their rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attenua import images
from attenua.config import Config, ModelConfig, NetworkConfig, ObjectiveConfig, TaskConfig, TrainingConfig
from attenua.model import AttenuationModel
from attenua.networks.features import EfficientNetLite0
from attenua.presets import preset
from attenua.tasks import task_of
from attenua.tasks.conditional import draw
from attenua.tasks.pairs import PairSource
from attenua.tasks.saliency import LONGEST, Saliency, enlarge, reduce
from attenua.training import Trainer


def config(images_seen: int = 960, feature_rate: float = 0.1, **network: object) -> Config:
    fields: dict[str, object] = {
        "image_size": 16, "channels": 1, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "heads": 2,
        "patch": 2, "norm": "rms", "dropout": 0.0, "condition_channels": 3, "condition_blocks": 1,
    }  # fmt: skip
    run = TrainingConfig(
        images=images_seen, batch=16, rate=5e-3, feature_rate=feature_rate, warmup=32, sample_every=0, log_every=320,
        snapshots=0,
    )  # fmt: skip
    model = ModelConfig(NetworkConfig(**(fields | network)), task=TaskConfig("saliency"))  # type: ignore[arg-type]
    return Config(model, ObjectiveConfig(log_mean=0.5, final_share=0.4), run)


def scene(seed: int, height: int = 24, width: int = 32) -> tuple[Tensor, Tensor]:
    """A bright disc on a dark ground, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    y, x, radius = (
        torch.rand(3, generator=generator) * torch.tensor([10.0, 16.0, 3.0]) + torch.tensor([7, 8, 4])
    ).tolist()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    picture = torch.where(mask, 200, 60) + torch.randint(0, 20, (3, height, width), generator=generator)
    return picture.byte(), (mask * 255).byte()[None]


def folder(path: Path, count: int = 6) -> Path:
    for side in ("images", "masks"):
        (path / side).mkdir(parents=True)
    for seed in range(count):
        picture, mask = scene(seed)
        images.write(path / "images" / f"{seed}.png", picture)
        images.write(path / "masks" / f"{seed}.png", mask.expand(3, -1, -1))
    return path


def test_a_trained_model_finds_what_stands_out(tmp_path: Path) -> None:
    source = Saliency().dataset(folder(tmp_path / "data"), config())
    assert isinstance(source, PairSource)
    trainer = Trainer(config(), source, tmp_path / "run")
    assert trainer.run()
    picture, mask = scene(77)
    truth = mask.float() / 127.5 - 1
    with trainer.averaged() as model:
        for faithful, share in ((True, 0.3), (False, 1.0)):
            found = draw(model, Saliency(), picture.float() / 127.5 - 1, steps=5, faithful=faithful)[0]
            assert float((found - truth).square().mean()) < share * float((truth.mean() - truth).square().mean())


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path, told = folder(tmp_path / "data"), []
    images.write(path / "masks" / "2.png", torch.zeros(3, 24, 32, dtype=torch.uint8), overwrite=True)
    images.write(path / "masks" / "3.png", torch.full((3, 24, 30), 255, dtype=torch.uint8), overwrite=True)
    source = Saliency().dataset(path, config(), on_skip=lambda file, why: told.append(why))
    assert isinstance(source, PairSource)
    assert source.pairs.names == ("0", "1", "4", "5")
    assert "has no foreground" in told[0]
    assert "30 x 24 pixels" in told[1]
    with pytest.raises(ValueError, match="no foreground"):
        Saliency().dataset(path, config(), strict=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 900), st.integers(1, 900))
def test_a_picture_is_reduced_and_its_map_enlarged_to_its_size(height: int, width: int) -> None:
    picture = torch.rand(1, height, width) * 2 - 1
    small = reduce(picture)
    assert max(small.shape) == min(LONGEST, max(height, width))
    assert float(small.abs().max()) <= 1
    assert enlarge(small, (height, width)).shape == picture.shape
    if max(height, width) <= LONGEST:
        assert small is picture
        assert enlarge(picture, (height, width)) is picture


@pytest.mark.parametrize("name", ["edges", "saliency"])
def test_presets_fit_their_tasks_and_the_size_that_ships(name: str) -> None:
    chosen = preset(name).model
    assert task_of(chosen).name == name
    with torch.device("meta"):
        model = AttenuationModel(chosen)
    assert model.parameter_count() < 6.1e6  # a byte each when it ships
    assert model.network.reach is not None  # so that tiles are exact beyond it: no attention over the whole picture


def features(config: Config, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return EfficientNetLite0(config.model.network.feature_stages).state_dict()


def trained(path: Path, told: Config, images_seen: int) -> Trainer:
    data = path / "data" if (path / "data").exists() else folder(path / "data")
    source = Saliency().dataset(data, told)
    trainer = Trainer(told, source, path / "run", features=features(told))
    while trainer.seen < images_seen:
        trainer.train_step()
    return trainer


@pytest.mark.parametrize("factor", [0.0, 0.1])
def test_features_start_as_pretrained_and_learn_at_their_own_rate(tmp_path: Path, factor: float) -> None:
    told = config(64, factor, features="efficientnet-lite0", feature_stages=2)
    trainer = trained(tmp_path, told, 0)
    own = {name: value for name, value in trainer.parameters.items() if name.startswith("encoder.features.")}
    for name, value in features(told).items():
        assert torch.equal(own[f"encoder.features.{name}"], value)
    for _ in range(3):  # the network's outputs start at zero, so that features have no gradient at first
        trainer.train_step()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates[0] > 0
    assert rates[1] == factor * rates[0]
    changed = any(not torch.equal(own[f"encoder.features.{name}"], value) for name, value in features(told).items())
    assert changed == (factor > 0)


def test_a_run_with_features_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    told = config(96, features="efficientnet-lite0", feature_stages=2)
    whole = trained(tmp_path / "whole", told, 96)
    half = trained(tmp_path / "half", told, 48)
    half.run_dir.mkdir(parents=True)
    half.save()
    resumed = trained(tmp_path / "half", told, 96)
    assert resumed.step == whole.step
    for name, value in whole.parameters.items():
        assert torch.equal(resumed.parameters[name], value), name


def test_a_network_without_features_takes_none(tmp_path: Path) -> None:
    source = Saliency().dataset(folder(tmp_path / "data"), config())
    with pytest.raises(ValueError, match="no pretrained features"):
        Trainer(config(), source, tmp_path / "run", features={})
    with pytest.raises(ValueError, match="feature_rate is -1"):
        replace(config().training, feature_rate=-1.0)
