"""The U-Net: shapes for every field, what it refuses, and how it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attenua.networks import Condition, UNet
from tests.networks.support import small, stir

FIELDS: list[dict[str, Any]] = [
    {},
    {"decoders": 2},
    {"decoders": 2, "split": "spatial"},
    {"split": "spatial"},
    {"patch": 2, "image_size": 16},
    {"norm": "rms"},
    {"skips": "all"},
    {"resample": "block"},
    {"skips": "all", "resample": "block", "middle": 2, "decoders": 2, "split": "spatial"},
    {"middle": 1, "attention": ()},
    {"multipliers": (1, 2, 2), "attention": (8, 2), "blocks": 2},
    {"multipliers": (1,), "attention": (8,)},
    {"channels": 1},
    {"width": 24, "heads": 3},
    {"gains": True},
]


def inputs(network: UNet, height: int | None = None, width: int | None = None) -> tuple[Tensor, Tensor]:
    config = network.config
    return torch.randn(2, config.channels, height or config.image_size, width or config.image_size), torch.rand(2)


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("heads", [2, 3])
def test_every_head_has_the_shape_of_the_state(fields: dict[str, Any], heads: int) -> None:
    network = UNet(small(**fields), heads)
    x, time = inputs(network)
    raw = network(x, time)
    assert len(raw) == heads
    assert all(head.shape == x.shape for head in raw)
    assert len(network.decoders) == network.config.decoders


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_it_says_nothing_at_the_start(fields: dict[str, Any]) -> None:
    """Zero heads: before training the model is the best linear denoiser, by its preconditioning."""
    network = UNet(small(**fields))
    assert not any(bool(head.any()) for head in network(*inputs(network)))


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_every_parameter_takes_part(fields: dict[str, Any]) -> None:
    network = UNet(small(classes=3, augment_labels=4, **fields))
    stir(network)
    x, time = inputs(network)
    raw = network(x, time, Condition(torch.tensor([0, 2]), torch.randn(2, 4)))
    sum((head * torch.randn_like(head)).sum() for head in raw).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert idle == []


@pytest.mark.parametrize("decoders", [1, 2])
def test_training_reaches_every_parameter_from_the_zero_start(decoders: int) -> None:
    """The zero layers open one after the other: output, second convolutions, then what lies before them."""
    network = UNet(small(decoders=decoders))
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x, time = inputs(network)
    for _ in range(4):
        optimizer.zero_grad()
        sum((head - torch.randn_like(head)).square().mean() for head in network(x, time)).backward()
        optimizer.step()
    assert [name for name, p in network.named_parameters() if torch.equal(p, start[name])] == []


@pytest.mark.parametrize("fields", [{}, {"patch": 2, "image_size": 16}, {"multipliers": (1, 2, 2)}], ids=str)
def test_pictures_need_not_be_square_nor_of_the_trained_size(fields: dict[str, Any]) -> None:
    network = UNet(small(**fields))
    step = network.multiple
    assert step == network.config.patch * 2 ** (len(network.config.multipliers) - 1)
    x, time = inputs(network, 3 * step, 5 * step)
    assert network(x, time)[0].shape == x.shape
    for height, width in [(3 * step + 1, 5 * step), (3 * step, 5 * step - 1)]:
        wrong, _ = inputs(network, height, width)
        with pytest.raises(ValueError, match=f"{height} x {width} pixels; sides must be multiples of {step}"):
            network(wrong, time)


def test_two_decoders_give_the_noise_head_a_decoder_of_its_own() -> None:
    for heads in (2, 3):
        network = UNet(small(decoders=2), heads)
        stir(network)
        x, time = inputs(network)
        with torch.no_grad():
            for parameter in network.decoders[1].out.parameters():  # type: ignore[union-attr]
                parameter.zero_()
        raw = network(x, time)
        assert [bool(head.any()) for head in raw] == [True, False, True][:heads]


@torch.no_grad()
@pytest.mark.parametrize("decoders", [1, 2])
def test_gains_add_the_state_to_the_heads_a_pixel(decoders: int) -> None:
    net = UNet(small(gains=True, decoders=decoders, patch=2, image_size=16))
    x, time = torch.randn(2, 3, 16, 16), torch.zeros(2)
    assert all(not bool(head.any()) for head in net(x, time))
    gains = []
    for decoder in net.decoders:
        heads = 2 // decoders
        bias = decoder.out.bias.data  # type: ignore[union-attr]
        own = torch.randn(heads, 2, 2)  # the gains' biases: heads, then rows and columns of a patch
        bias[-heads * 4 :] = own.flatten()  # type: ignore[index]
        gains.append(own)
    for head, gain in zip(net(x, time), torch.cat(gains), strict=True):
        torch.testing.assert_close(head, gain.repeat(8, 8) * x)


def test_labels_matter_where_they_are_wanted() -> None:
    network = UNet(small(classes=10))
    stir(network)
    x, time = inputs(network)
    with torch.no_grad():
        one, two = (network(x, time, Condition(torch.tensor([k, k])))[0] for k in (1, 2))
    assert not torch.allclose(one, two)
    with pytest.raises(ValueError, match="this network needs labels of 10 classes"):
        network(x, time)
    with pytest.raises(ValueError, match="this network takes no class labels"):
        UNet(small())(x, time, Condition(torch.tensor([1, 2])))


def test_augmentation_labels_are_nothing_at_the_start_and_when_left_out() -> None:
    network = UNet(small(augment_labels=4))
    stir(network)
    x, time = inputs(network)
    with torch.no_grad():
        network.augment.bias.zero_()  # type: ignore[union-attr]
        told = network(x, time, Condition(augment=torch.randn(2, 4)))[0]
        zeros = network(x, time, Condition(augment=torch.zeros(2, 4)))[0]
        left_out = network(x, time)[0]
    assert not torch.allclose(told, left_out)
    torch.testing.assert_close(zeros, left_out)
    assert not UNet(small(augment_labels=4)).augment.weight.any()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="this network takes no augmentation labels"):
        UNet(small())(x, time, Condition(augment=torch.zeros(2, 4)))


def test_a_picture_does_not_see_the_batch_it_is_in() -> None:
    network = UNet(small(decoders=2, split="spatial")).double().eval()
    stir(network)
    x, time = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.rand(3)
    together = network(x, time)
    for row in range(3):
        alone = network(x[row : row + 1], time[row : row + 1])
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[row : row + 1], part)


def test_memory_order_does_not_matter() -> None:
    network = UNet(small()).eval()
    stir(network)
    x, time = inputs(network)
    wanted = network(x, time)[0]
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), time)[0], wanted, rtol=1e-4, atol=1e-5)
