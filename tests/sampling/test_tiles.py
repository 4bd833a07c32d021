"""Tiles cover the picture, their shares add up to one, and what they make is what one piece would have made."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attenua.config import ModelConfig, NetworkConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.sampling import sample
from attenua.sampling.tiles import Tile, TiledModel, starts, window


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 60), st.sampled_from([1, 2, 4, 8]))
def test_tiles_cover_are_aligned_and_overlap(length: int, tile: int, overlap: int, multiple: int) -> None:
    length, tile = length * multiple, tile * multiple
    if overlap >= tile:
        with pytest.raises(ValueError, match="overlap is"):
            starts(length, tile, overlap, multiple)
        return
    places = starts(length, tile, overlap, multiple)
    covered = {pixel for place in places for pixel in range(place, min(place + tile, length))}
    assert covered == set(range(length))
    assert all(place % multiple == 0 for place in places)
    assert places == sorted(set(places))
    if length > tile:
        assert places[-1] + tile == length
    if tile - overlap >= multiple:
        assert all(after - before <= tile - overlap for before, after in zip(places, places[1:], strict=False))


def test_lengths_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="length is 10 pixels; allowed are multiples of 4"):
        starts(10, 8, 2, 4)
    with pytest.raises(ValueError, match="tile is 6 pixels; allowed are multiples of 4"):
        starts(16, 6, 2, 4)


def test_weights_are_zero_where_a_tile_saw_its_own_border_and_rise_smoothly() -> None:
    inner = window(Tile(64, 64, 64, 64), (256, 256), 32)
    assert float(inner[:8].max()) == 0
    assert float(inner[:, -8:].max()) == 0
    assert float(inner[24:40, 24:40].min()) == 1
    assert float(inner[32].diff().abs().max()) < 0.11
    corner = window(Tile(0, 0, 64, 64), (256, 256), 32)
    assert float(corner[0, 0]) == 1


def network(**fields: int) -> NetworkConfig:
    return NetworkConfig(
        image_size=32,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention=(),
        heads=2,
        norm="rms",
        dropout=0.0,
        condition_channels=2,
        condition_blocks=1,
        **fields,
    )


@pytest.fixture
def model() -> AttenuationModel:
    made = AttenuationModel(ModelConfig(network()))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


@pytest.mark.parametrize(("side", "overlap"), [(24, 10), (24, 23), (16, 32), (16, 0), (8, 128), (2, 4)])
def test_shares_add_up_to_one_however_small_the_tiles(model: AttenuationModel, side: int, overlap: int) -> None:
    tiled = TiledModel(model, 48, 66, tile=side, overlap=overlap)
    total = torch.zeros(48, 66)
    for tile in tiled.tiles:
        tile.of(total[None])[0].add_(tiled.weight(tile))
    torch.testing.assert_close(total, torch.ones(48, 66))


@torch.no_grad()
def test_blended_predictions_keep_the_state_and_equal_the_whole(model: AttenuationModel) -> None:
    x, picture = torch.randn(1, 3, 128, 192), torch.randn(1, 2, 128, 192)
    t = 0.4
    whole = model(x, t, Condition(picture=picture))
    # The theoretical field of view: two 3x3 a block, levels of stride 2; 44 pixels are more than it reaches.
    tiled = TiledModel(model, 128, 192, tile=128, overlap=96, batch=2)
    assert len(tiled.tiles) > 1
    blended = tiled(x, t, Condition(picture=picture))
    torch.testing.assert_close(blended.x0, whole.x0, rtol=0, atol=1e-3)
    torch.testing.assert_close(blended.eps, whole.eps, rtol=0, atol=1e-3)
    a, sigma = float(model.process.a(t)), float(model.process.sigma(t))
    torch.testing.assert_close(a * blended.x0 + sigma * blended.eps, x, rtol=0, atol=1e-5)


def test_a_tiled_sample_is_the_untiled_one(model: AttenuationModel) -> None:
    picture = torch.randn(1, 2, 64, 192)
    settings_ = {"steps": 3, "seed": 4, "condition": Condition(picture=picture), "clip": False}
    whole = sample(model, (1, 3, 64, 192), **settings_)  # type: ignore[arg-type]
    tiled = TiledModel(model, 64, 192, tile=128, overlap=96)
    made = sample(tiled, (1, 3, 64, 192), **settings_)  # type: ignore[arg-type]
    torch.testing.assert_close(made, whole, rtol=0, atol=1e-3)
    assert tiled.calls == 3


@pytest.mark.parametrize("batch", [1, 2])
def test_progress_within_a_call_counts_the_tiles_that_are_computed(model: AttenuationModel, batch: int) -> None:
    told: list[tuple[int, int]] = []
    needed = torch.zeros(32, 96, dtype=torch.bool)
    needed[:, 40:] = True
    tiled = TiledModel(
        model, 32, 96, tile=32, overlap=0, batch=batch, needed=needed, on_tile=lambda *each: told.append(each)
    )
    sample(tiled, (1, 3, 32, 96), steps=2, condition=Condition(picture=torch.zeros(1, 2, 32, 96)), clip=False)
    assert told == ([(1, 2), (2, 2)] if batch == 1 else [(2, 2)]) * 2


def test_conditions_beyond_the_budget_are_encoded_again_with_the_same_result(model: AttenuationModel) -> None:
    encoded: list[int] = []
    assert model.network.encoder is not None
    handle = model.network.encoder.register_forward_hook(lambda *_: encoded.append(1))
    x, picture = torch.randn(1, 3, 32, 96), torch.randn(1, 2, 32, 96)
    results = []
    for budget, expected in ((2**30, 3), (0, 6)):
        encoded.clear()
        tiled = TiledModel(model, 32, 96, tile=32, overlap=0, budget=budget)
        with torch.no_grad():
            results.append([tiled(x, t, Condition(picture=picture)).x0 for t in (0.9, 0.3)])
        assert len(encoded) == expected
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_state_of_another_size_is_an_error(model: AttenuationModel) -> None:
    tiled = TiledModel(model, 32, 64, tile=32, overlap=8)
    with pytest.raises(ValueError, match="these tiles are for"):
        tiled(torch.zeros(1, 3, 32, 32), 0.5)
