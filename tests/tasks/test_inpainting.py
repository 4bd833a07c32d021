"""Inpainting: a fill that keeps what is known, tiles only where the hole is, and training that beats the fill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch._dynamo.testing import CompileCounter

from attenua import images
from attenua.config import Config, ModelConfig, NetworkConfig, ObjectiveConfig, TaskConfig, TrainingConfig
from attenua.data import masks
from attenua.data.holes import COLUMNS, holes
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.presets import preset
from attenua.sampling.tiles import TiledModel
from attenua.tasks import TASKS, inpainting, task_of
from attenua.tasks.conditional import draw
from attenua.tasks.inpainting import Inpainting, doubt, fill
from attenua.training import Trainer
from attenua.training.estimate import estimate
from tests.networks.support import stir

TASK = Inpainting()


def config(images_: int = 640) -> Config:
    network = NetworkConfig(
        image_size=16,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention=(),
        heads=2,
        norm="rms",
        dropout=0.0,
        condition_channels=4,
        condition_blocks=1,
    )
    run = TrainingConfig(images=images_, batch=16, rate=5e-3, warmup=32, sample_every=0, log_every=320, snapshots=0)
    return Config(ModelConfig(network, task=TaskConfig("inpainting")), ObjectiveConfig(final_share=0.3), run)


def untrained() -> AttenuationModel:
    torch.manual_seed(0)
    model = AttenuationModel(config().model)
    stir(model, 0.05)
    return model.eval()


def holed(height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture and a mask, [1, 3, H, W] and bool [1, 1, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(1, 3, height, width, generator=generator) * 2 - 1
    return picture, torch.rand(1, 1, height, width, generator=generator) < 0.5


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 19), st.integers(1, 19), st.integers(0, 2**16))
def test_a_fill_keeps_what_is_known_and_looks_at_nothing_else(height: int, width: int, seed: int) -> None:
    picture, mask = holed(height, width, seed)
    filled = fill(picture, mask)
    known = ~mask.expand_as(picture)
    assert torch.equal(filled[known], picture[known])
    assert torch.equal(fill(torch.where(mask, float("nan"), picture), mask), filled)
    assert torch.equal(fill(filled, mask), filled)
    if bool(known.any()):
        low, high = (getattr(picture[:, :, ~mask[0, 0]], name)(2).values for name in ("min", "max"))
        assert bool((filled >= low[..., None, None] - 1e-5).all())
        assert bool((filled <= high[..., None, None] + 1e-5).all())
    else:
        assert torch.equal(filled, torch.zeros_like(filled))


def test_a_fill_of_a_plain_picture_is_plain_and_that_of_a_ramp_close_to_it() -> None:
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    mask[..., 20:40, 24:44] = True
    plain = torch.tensor([0.3, -0.7, 0.1]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    torch.testing.assert_close(fill(plain, mask), plain.contiguous(), rtol=0, atol=1e-6)
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    away = (fill(ramp, mask) - ramp).abs()
    assert float(away.max()) < 0.2
    assert float(away[mask.expand_as(away)].mean()) < 0.07


def test_a_fill_is_the_same_alone_and_among_others() -> None:
    picture, mask = torch.rand(2, 3, 50, 37) * 2 - 1, torch.zeros(2, 1, 50, 37, dtype=torch.bool)
    mask[0, 0, 30:36, 20:31] = mask[0, 0, 0, 3] = mask[1, 0, 5:25, 10:] = True
    both = fill(picture, mask)
    for row in range(2):
        torch.testing.assert_close(fill(picture[row : row + 1], mask[row : row + 1])[0], both[row], rtol=0, atol=1e-6)


def test_a_fill_goes_on_with_slopes() -> None:
    y, x = torch.meshgrid(torch.linspace(-0.5, 0.5, 48), torch.linspace(-0.5, 0.5, 48), indexing="ij")
    hill = (0.8 * x - 0.3 * y + x * y)[None, None]
    mask = torch.zeros(1, 1, 48, 48, dtype=torch.bool)
    mask[..., 20:26, 5:40] = True
    assert float((fill(hill, mask) - hill).abs().max()) < 0.01


def test_the_true_state_gives_the_picture_and_known_pixels_need_none() -> None:
    picture = torch.rand(4, 3, 16, 16) * 2 - 1
    draws = torch.rand(4, COLUMNS, dtype=torch.float64)
    state, told = TASK.examples(picture, draws)
    mask = told[:, 3:] > 0.5
    assert torch.equal(mask[:, 0], holes(draws, 16))
    assert bool((state[~mask.expand_as(state)] == 0).all())
    torch.testing.assert_close(TASK.postprocess(state, told), picture, rtol=0, atol=1e-6)
    wrong = TASK.postprocess(torch.randn(4, 3, 16, 16), torch.cat([picture, mask.float()], 1))
    assert torch.equal(wrong[~mask.expand_as(wrong)], picture[~mask.expand_as(wrong)])
    assert float(wrong.abs().max()) <= 1


def test_the_network_is_told_the_fill_and_not_what_the_hole_holds() -> None:
    picture, mask = holed(16, 16)
    told = TASK.condition(torch.cat([picture, mask.float()], 1)).picture
    assert told is not None
    assert torch.equal(told[:, :3], fill(picture, mask))
    assert torch.equal(told[:, 3:], mask.float())


def test_a_picture_is_filled_once_for_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = []

    def counted(pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        filled.append(mask)
        return fill(pixels, mask)

    monkeypatch.setattr(inpainting, "fill", counted)
    picture, mask = holed(16, 16)
    made = draw(untrained(), TASK, torch.cat([picture[0], mask[0].float()]), samples=3, steps=2)
    assert len(filled) == 1
    assert not torch.equal(made[0], made[1])


def test_training_tells_the_network_what_a_picture_with_a_hole_would(tmp_path: Path) -> None:
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    source = TASK.dataset(tmp_path, config())
    draws = source.draw(3, torch.Generator().manual_seed(0))
    state, told = source.batch(torch.arange(3), draws, torch.float32)
    made, picture = source.made(draws, torch.float32)
    assert torch.equal(state, made)
    assert told.picture is not None
    expected = TASK.condition(picture).picture
    assert expected is not None
    assert torch.equal(told.picture, expected)


def test_only_what_is_laid_and_relaxed_is_compiled_and_once_for_all_sizes() -> None:
    graphs = CompileCounter()
    torch.compiler.reset()
    draws = torch.rand(2, COLUMNS, dtype=torch.float64)
    crops = torch.rand(2, 3, 24, 24) * 2 - 1
    made = torch.compile(TASK.examples, backend=graphs)(crops, draws)
    for one, other in zip(made, TASK.examples(crops, draws), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert graphs.frame_count <= 12


@pytest.mark.parametrize("size", [(1, 7), (5, 3), (30, 21)])
def test_known_pixels_of_any_size_come_back_bit_for_bit(size: tuple[int, int]) -> None:
    picture, mask = holed(*size)
    made = draw(untrained(), TASK, torch.cat([picture, mask.float()], 1)[0], steps=2, tile=16, overlap=4)[0]
    assert made.shape == picture[0].shape
    assert torch.equal(made[:, ~mask[0, 0]], picture[0][:, ~mask[0, 0]])
    assert not torch.equal(made, picture[0])


@torch.no_grad()
def test_tiles_without_a_hole_are_not_computed_and_change_nothing_in_it() -> None:
    model = untrained()
    x, picture = torch.randn(1, 3, 96, 128), torch.randn(1, 4, 96, 128)
    needed = torch.zeros(96, 128, dtype=torch.bool)
    needed[70:75, 5:60] = True
    needed[8, 120] = True
    every = TiledModel(model, 96, 128, tile=32, overlap=8)
    some = TiledModel(model, 96, 128, tile=32, overlap=8, needed=needed)
    assert 0 < len(some.tiles) < len(every.tiles) / 2
    all_, part = (tiled(x, 0.4, Condition(picture=picture)) for tiled in (every, some))
    torch.testing.assert_close(part.x0[..., needed], all_.x0[..., needed], rtol=0, atol=1e-6)
    torch.testing.assert_close(part.eps[..., needed], all_.eps[..., needed], rtol=0, atol=1e-6)
    a, sigma = float(model.process.a(0.4)), float(model.process.sigma(0.4))
    torch.testing.assert_close(a * part.x0 + sigma * part.eps, x, rtol=0, atol=1e-5)
    assert torch.equal(part.x0[..., ~needed], -model.mu.view(1, 3, 1).expand(1, 3, int((~needed).sum())))


def test_a_picture_without_a_hole_needs_no_tile() -> None:
    picture = torch.rand(4, 20, 30)
    picture[3] = 0
    calls: list[int] = []
    model = untrained()
    handle = model.network.register_forward_hook(lambda *_: calls.append(1))
    made = draw(model, TASK, picture, steps=2, tile=16, overlap=4)[0]
    handle.remove()
    assert torch.equal(made, picture[:3])
    assert calls == []


def test_the_holes_are_what_is_measured_and_what_counts(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        noise = torch.randint(0, 256, (3, 30, 40), generator=generator, dtype=torch.uint8)
        images.write(tmp_path / f"{number}.png", noise)
    source = TASK.dataset(tmp_path, config())
    draws = torch.rand(64, source.columns, generator=generator, dtype=torch.float64)
    state, picture = source.made(draws, torch.float32)
    hole = picture[:, 3] > 0.5
    assert torch.equal(doubt(hole[:, None]) > 0, hole[:, None])
    assert source.deviation() == pytest.approx(float(state.movedim(1, -1)[hole].std()), rel=0.05)
    weight = source.weigh(Condition(picture=picture))
    assert weight is not None
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.ones(64))
    sample = weight[0, 0]
    torch.testing.assert_close(sample[hole[0]], 10 * sample[~hole[0]].max().expand(int(hole[0].sum())))


def test_the_doubt_of_a_picture_is_that_which_it_has_among_others() -> None:
    """A single hole is looked at alone, and the rest of its picture is not computed."""
    holes = torch.cat([masks.mask_set(3, 40, 56, seed=0), torch.zeros(2, 40, 56, dtype=torch.bool)])[:, None]
    holes[3, 0, 10:, :30] = True  # it reaches two borders
    for each, among in zip(holes, doubt(holes), strict=True):
        assert torch.equal(doubt(each[None])[0], among)


def test_a_trained_model_beats_the_fill(tmp_path: Path) -> None:
    """Stripes of two pixels: the fill blurs them away, and what is around a small hole says how they go on."""
    (tmp_path / "p").mkdir()
    generator = torch.Generator().manual_seed(3)
    for number in range(6):
        light, dark = torch.rand(2, 3, 1, generator=generator)
        stripes = (torch.where(torch.arange(64) % 4 < 2, light, dark) * 255).to(torch.uint8)
        images.write(tmp_path / "p" / f"{number}.png", stripes[:, None].expand(3, 48, 64))
    chosen = config(1600)
    source = TASK.dataset(tmp_path / "p", chosen)
    source.measured = 128  # type: ignore[misc]
    trainer = Trainer(chosen, source, tmp_path / "run")
    assert 0.5 < trainer.config.model.s_d < 5  # in units of what a fill lacks
    assert trainer.run()
    mask = torch.zeros(1, 1, 48, 64, dtype=torch.bool)
    for top in range(4, 44, 12):
        for left in range(4, 60, 12):
            mask[..., top : top + 3, left : left + 3] = True
    ours = base = 0.0
    with trainer.averaged() as model:
        for number in range(3):
            picture = images.read(tmp_path / "p" / f"{number}.png").float()[None] / 127.5 - 1
            made = draw(model, TASK, torch.cat([picture, mask.float()], 1)[0], faithful=True)
            ours += float((made - picture).square().sum())
            base += float((fill(picture, mask) - picture).square().sum())
    assert ours < 0.6 * base


def test_the_preset_is_a_model_of_the_task_and_small_enough_to_ship() -> None:
    chosen = preset("inpainting")
    assert isinstance(task_of(chosen.model), Inpainting)
    assert TASKS["inpainting"](chosen.model).picture_channels == 4
    assert estimate(chosen, torch.device("cpu")).parameters <= 4_000_000
