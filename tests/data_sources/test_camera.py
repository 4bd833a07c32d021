"""Blur, noise and JPEG on the device are those of the CPU's degradations, up to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attenua.data import camera, degrade
from attenua.data.degrade import Blind
from attenua.tasks.restoration import SuperResolution


def photographs(count: int = 2, height: int = 40, width: int = 56) -> torch.Tensor:
    """Smooth pictures with edges, uint8 [count, 3, height, width]."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    smooth[..., 10:20, 15:30] *= 0.4
    return (smooth * 255).round().clamp(0, 255).to(torch.uint8)


def rows(count: int, side: int, **values: float) -> torch.Tensor:
    """Draws with some columns set."""
    places: dict[str, Any] = {
        "blur": 0, "noise": 1, "jpeg": 2, "isotropic": 3, "along": 4, "across": 5, "angle": 6, "grey": 7,
        "deviation": 8, "quality": 9, "top": 10, "left": 11,
    }  # fmt: skip
    draws = torch.rand(count, camera.columns(side), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name, value in values.items():
        draws[:, places[name]] = value
    return draws


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_jpeg_is_libjpegs_up_to_rounding(quality: int) -> None:
    pictures = photographs()
    ours = camera.jpeg(pictures.float(), torch.full((2,), float(quality)))
    for made, picture in zip(ours, pictures, strict=True):
        theirs = degrade.jpeg(picture, quality).float()
        loss = float((theirs - picture.float()).abs().mean())
        assert float((made - theirs).abs().mean()) < 1 + 0.15 * loss  # a step taken the other way here and there
        assert float((made - picture.float()).abs().mean()) == pytest.approx(loss, rel=0.15, abs=0.2)


def test_each_picture_has_its_own_quality() -> None:
    pictures = photographs().float()
    both = camera.jpeg(pictures, torch.tensor([20.0, 90.0]))
    for index, quality in enumerate((20.0, 90.0)):
        assert torch.equal(both[index], camera.jpeg(pictures[index][None], torch.tensor([quality]))[0])


def test_without_any_of_the_three_only_the_reduction_is_left() -> None:
    pictures = photographs(2, 32, 32).float() / 127.5 - 1
    task = SuperResolution(2)
    made = camera.degraded(pictures, task.reduce, rows(2, 16, blur=0, noise=0, jpeg=0), Blind(2))
    assert torch.equal(made, task.reduce(pictures))


def test_blur_is_the_gaussian_of_its_draws() -> None:
    pictures = photographs(1, 64, 64)
    draws = rows(1, 64, blur=1, noise=0, jpeg=0, isotropic=0.9, along=0.7, across=0.2, angle=0.15)
    made = camera.degraded(pictures.float() / 127.5 - 1, lambda x: x, draws, Blind(1))
    low, high = Blind().blur
    kernel = degrade.gaussian(low + 0.7 * (high - low), low + 0.2 * (high - low), 0.15 * torch.pi)
    expected = degrade.blur(pictures[0], kernel[::-1].copy())  # rows run downwards here
    assert float(((made[0] + 1) * 127.5 - expected.float()).abs().max()) <= 1.5


def test_noise_has_its_deviation_and_is_grey_in_two_of_five() -> None:
    plain = torch.zeros(4, 3, 64, 64)
    draws = rows(4, 64, blur=0, noise=1, jpeg=0, deviation=0.5)
    draws[:, 7] = torch.tensor([0.1, 0.39, 0.41, 0.9])
    levels = (camera.degraded(plain, lambda x: x, draws, Blind(1)) + 1) * 127.5
    low, high = Blind().noise
    torch.testing.assert_close(levels.std((1, 2, 3)), torch.full((4,), (low + high) / 2), rtol=0.05, atol=0)
    equal = (levels == levels[:, :1]).all((1, 2, 3))
    assert equal.tolist() == [True, True, False, False]


def test_the_blocks_of_a_jpeg_begin_where_it_is_drawn() -> None:
    """At the lowest quality nothing but the mean of the blocks is left, so the picture steps where they meet."""
    ramp = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 64, 64).clone()
    law = Blind(1, quality=(1, 1))
    for left in (0.0, 5 / 16):
        draws = rows(1, 64, blur=0, noise=0, jpeg=1, top=0, left=left)
        made = camera.degraded(ramp, lambda x: x, draws, law)
        steps = made[0, 1, 32].diff().abs() > 1e-3
        columns = steps.nonzero().flatten() + 1
        assert len(columns)
        assert bool(((columns + round(left * 16)) % 8 == 0).all())


def test_the_task_trains_on_degraded_pictures() -> None:
    task = SuperResolution(2, "photo")
    crops = photographs(3, 32, 32).float() / 127.5 - 1
    state, small = task.examples(crops, rows(3, 16))
    assert small.shape == (3, 3, 16, 16)
    torch.testing.assert_close(task.enlarge(small) + state, crops)
    levels = (small + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert not torch.equal(small, SuperResolution(2).examples(crops, torch.zeros(3, 0))[1])
