"""The field of view holds: no pixel beyond it moves an output pixel, and a tile that covers it equals the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attenua.config import NetworkConfig
from attenua.networks import Condition, UNet
from tests.networks.support import stir


def network(**fields: Any) -> UNet:
    defaults: dict[str, Any] = {
        "image_size": 16, "width": 4, "multipliers": (1, 2), "blocks": 1, "attention": (), "heads": 2, "norm": "rms",
        "dropout": 0.0,
    }  # fmt: skip
    made = UNet(NetworkConfig(**(defaults | fields))).double().eval()
    stir(made, 0.2)
    return made


PICTURE: dict[str, Any] = {"condition_channels": 3, "condition_blocks": 1}
WINDOWS: dict[str, Any] = {"attention": (8,), "window": 4}
FEATURES: dict[str, Any] = {**PICTURE, "features": "efficientnet-lite0"}

# fields, and whether the bound is met exactly by some pixel (only convolutions: every tap counts)
CASES: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"patch": 2}, True),
    ({"skips": "all", "resample": "block", "middle": 1}, True),
    ({"decoders": 2, "split": "spatial", "multipliers": (1, 1, 1)}, True),
    ({"filter": 2, "decoders": 2}, True),
    (PICTURE, True),
    ({**PICTURE, "patch": 4, "condition_scale": 2, "condition_blocks": 4}, True),
    (WINDOWS, False),
    ({**PICTURE, **WINDOWS, "fusion": "attention"}, False),
    ({**FEATURES, "feature_stages": 1}, False),
    ({**FEATURES, "feature_stages": 2, "patch": 4, "condition_scale": 2}, False),
    ({**PICTURE, "features": "vgg16", "feature_stages": 2}, False),
    ({**PICTURE, "features": "vgg16", "feature_stages": 3, "patch": 4, "condition_scale": 2}, False),
    ({**FEATURES, "feature_stages": 2, "patch": 2, **WINDOWS, "fusion": "attention"}, False),
]


def seen_from(net: UNet, side: int, place: int) -> int:
    """How far from the output pixel (place, place) state or condition still move it, in pixels of the state."""
    scale = net.config.condition_scale
    x = torch.randn(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    given = [x]
    told = None
    if net.config.condition_channels:
        picture = torch.rand(1, 3, side // scale, side // scale, dtype=torch.float64) * 2 - 1
        given.append(picture.requires_grad_())
        told = Condition(picture=picture)
    heads = net(x, torch.zeros(1, dtype=torch.float64), told)
    gradients = torch.autograd.grad(sum(head[0, :, place, place].sum() for head in heads), given)
    far = 0
    for gradient, size in zip(gradients, (1, scale), strict=False):
        moved = gradient[0].abs().sum(0).nonzero()
        first, last = moved.min() * size, moved.max() * size + size - 1
        far = max(far, place - int(first), int(last) - place)
    return far


@pytest.mark.parametrize(("fields", "exact"), CASES, ids=str)
def test_nothing_beyond_the_reach_moves_a_pixel(fields: dict[str, Any], exact: bool) -> None:
    net = network(**fields)
    assert net.reach is not None
    step = net.multiple
    margin = (net.reach + 1 + step - 1) // step * step
    places = range(margin, margin + step) if step <= 4 else [margin, margin + step // 2, margin + step - 1]
    found = max(seen_from(net, 2 * margin + step, place) for place in places)
    assert found <= net.reach
    assert not exact or found == net.reach


@pytest.mark.parametrize(
    "fields",
    [
        {**PICTURE, **WINDOWS, "fusion": "attention"},
        {**FEATURES, "feature_stages": 2, "patch": 2, **WINDOWS, "fusion": "attention"},
    ],
    ids=str,
)
@torch.no_grad()
def test_a_tile_that_covers_the_reach_gives_the_pixels_of_the_whole(fields: dict[str, Any]) -> None:
    net = network(**fields)
    assert net.reach is not None
    step = net.multiple
    margin = (net.reach + step - 1) // step * step
    height, width = 4 * step, 2 * margin + 3 * step
    x = torch.randn(1, 3, height, width, dtype=torch.float64)
    picture = torch.rand(1, 3, height, width, dtype=torch.float64) * 2 - 1
    time = torch.zeros(1, dtype=torch.float64)
    whole = net(x, time, Condition(picture=picture))[0]
    right = net(x[..., step:], time, Condition(picture=picture[..., step:]))[0]
    torch.testing.assert_close(right[..., margin:], whole[..., step + margin :], rtol=0, atol=1e-10)
    left = net(x[..., :-step], time, Condition(picture=picture[..., :-step]))[0]
    torch.testing.assert_close(left[..., :-margin], whole[..., : -step - margin], rtol=0, atol=1e-10)


def test_a_network_that_sees_the_whole_picture_has_no_reach() -> None:
    assert network(norm="group").reach is None
    assert network(attention=(8,)).reach is None
    assert network(**PICTURE, attention=(8,), fusion="attention").reach is None
