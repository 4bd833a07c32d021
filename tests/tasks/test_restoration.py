"""Super-resolution end to end on a tiny scale: the benchmarks' low resolution, training, any size, tiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attenua import images
from attenua.config import Config, ModelConfig, NetworkConfig, ObjectiveConfig, TaskConfig, TrainingConfig
from attenua.data.degrade import bicubic
from attenua.tasks.conditional import draw, pad_to_multiple
from attenua.tasks.restoration import SuperResolution
from attenua.training import Trainer

TASK = SuperResolution(2)


def config(**training: float) -> Config:
    network = NetworkConfig(
        image_size=16,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention=(),
        heads=2,
        patch=2,
        norm="rms",
        dropout=0.0,
        condition_channels=3,
        condition_scale=2,
        condition_blocks=1,
    )
    run = TrainingConfig(images=960, batch=16, rate=5e-3, warmup=32, sample_every=0, log_every=320, snapshots=0)
    return Config(ModelConfig(network, task=TaskConfig("super-resolution", 2)), ObjectiveConfig(final_share=0.3), run)


def stripes(folder: Path, count: int = 4) -> Path:
    """Photographs with edges that a bicubic enlargement blurs."""
    generator = torch.Generator().manual_seed(2)
    for number in range(count):
        angle = torch.rand(2, generator=generator)
        y, x = torch.meshgrid(torch.arange(40.0), torch.arange(56.0), indexing="ij")
        bars = torch.sign(torch.sin(x * (0.3 + angle[0]) + y * (0.3 + angle[1])))
        picture = ((bars * 0.6 + 1) * 127.5).to(torch.uint8)
        images.write(folder / f"{number}.png", picture.expand(3, -1, -1))
    return folder


def test_the_low_resolution_is_pillows_to_one_level() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(256, (3, 32, 48), generator=generator, dtype=torch.uint8)
    ours = (SuperResolution(4).reduce(picture[None].float() / 127.5 - 1)[0] + 1) * 127.5
    assert int((ours.round() - bicubic(picture, 4)).abs().max()) <= 1


def test_state_and_enlargement_add_up_to_the_picture() -> None:
    picture = torch.rand(2, 3, 16, 24) * 2 - 1
    small = TASK.reduce(picture)
    state = picture - TASK.enlarge(small)
    torch.testing.assert_close(TASK.postprocess(state, small), picture, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="no multiples of the scale"):
        TASK.reduce(torch.zeros(1, 3, 15, 16))


def test_a_trained_model_beats_the_enlargement_on_other_crops(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    source = TASK.dataset(stripes(tmp_path / "photographs"), config())
    trainer = Trainer(config(), source, tmp_path / "run")
    assert 0.05 < trainer.config.model.s_d < 0.6
    assert trainer.run()
    with trainer.averaged() as model:
        picture = images.read(tmp_path / "photographs" / "0.png").float() / 127.5 - 1
        small = TASK.reduce(picture[None])[0]
        faithful = draw(model, TASK, small, faithful=True)[0]
        detailed = draw(model, TASK, small, steps=4, seed=1)[0]
        base = TASK.enlarge(small[None])[0].clamp(-1, 1)
    errors = {name: float((made - picture).square().mean()) for name, made in (("mean", faithful), ("base", base))}
    assert errors["mean"] < 0.9 * errors["base"]
    assert detailed.shape == picture.shape


def test_the_source_says_what_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    source = SuperResolution(4).dataset(stripes(tmp_path / "p"), config())
    with pytest.raises(ValueError, match="condition_scale 4, not 3, 3, 2"):
        Trainer(config(), source, tmp_path / "run")
    with pytest.raises(ValueError, match="scale is 1"):
        SuperResolution(1)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 13), st.integers(1, 13), st.sampled_from([1, 4, 8]))
def test_padding_reflects_and_is_taken_off(height: int, width: int, multiple: int) -> None:
    picture = torch.rand(1, 2, height, width)
    padded, before = pad_to_multiple(picture, multiple)
    assert before == (height, width)
    assert padded.shape[-2] % multiple == 0
    assert padded.shape[-1] % multiple == 0
    assert torch.equal(padded[..., :height, :width], picture)
    if 1 < height < padded.shape[-2]:
        assert torch.equal(padded[..., height, :width], picture[..., height - 2, :])


@pytest.mark.parametrize("size", [(1, 7), (5, 3), (30, 21)])
def test_pictures_of_any_size_are_enlarged(size: tuple[int, int]) -> None:
    from attenua.model import AttenuationModel

    torch.manual_seed(0)
    model = AttenuationModel(config().model)
    made = draw(model, TASK, torch.rand(3, *size) * 2 - 1, steps=2, tile=16, overlap=4)[0]
    assert tuple(made.shape) == (3, 2 * size[0], 2 * size[1])
    assert float(made.abs().max()) <= 1
    with pytest.raises(ValueError, match=r"must be \[3, H, W\]"):
        draw(model, TASK, torch.zeros(1, 8, 8))
