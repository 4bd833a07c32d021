"""Blocks: normalisation against torch's, attention against its formula, and layers that start as they should."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from attenua.networks.blocks import (
    Attention,
    FrequencyFilter,
    GroupNorm,
    ResidualBlock,
    RMSNorm,
    SpatialSplit,
    TimeEmbedding,
    convolution,
    dense,
    double,
    halve,
)
from tests.networks.support import stir


@pytest.mark.parametrize("channels", [8, 24, 48, 256, 320])
def test_group_norm_equals_torch_with_and_without_gradients(channels: int) -> None:
    norm = GroupNorm(channels)
    stir(norm, 0.5)
    x = 3 * torch.randn(2, channels, 5, 4) + 2
    wanted = F.group_norm(x, norm.groups, norm.weight, norm.bias, norm.epsilon)
    torch.testing.assert_close(norm(x), wanted, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), wanted, rtol=0, atol=0)
    strided = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(norm(strided), wanted, rtol=1e-5, atol=1e-5)
    assert channels % norm.groups == 0
    assert norm.groups <= 32
    assert channels // norm.groups >= 8


def test_group_norm_keeps_the_type_and_counts_in_float32() -> None:
    norm = GroupNorm(32)
    x = torch.randn(2, 32, 8, 8, dtype=torch.bfloat16) + 8
    found = norm(x)
    assert found.dtype == torch.bfloat16
    exact = F.group_norm(x.double(), norm.groups, eps=norm.epsilon)
    # one rounding of the scale, one of the shift (of size 8), one of the product: not one of the statistics
    assert float((found.double() - exact).detach().abs().max()) < 4 * 8 * 2**-8
    assert norm(torch.randn(1, 32, 2, 2, dtype=torch.float64)).dtype == torch.float64


def test_group_norm_gradients_equal_torchs() -> None:
    norm = GroupNorm(16).double()
    stir(norm, 0.5)
    x = torch.randn(2, 16, 3, 3, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    wrt = [x, norm.weight, norm.bias]
    ours = torch.autograd.grad((norm(x) * probe).sum(), wrt)
    theirs = torch.autograd.grad((F.group_norm(x, 2, norm.weight, norm.bias, norm.epsilon) * probe).sum(), wrt)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_rms_norm_gives_every_pixel_unit_size() -> None:
    norm = RMSNorm(12)
    x = torch.randn(2, 12, 3, 4) * torch.rand(2, 1, 3, 4) * 100
    found = norm(x)
    torch.testing.assert_close(found.square().mean(dim=1), torch.ones(2, 3, 4), rtol=1e-3, atol=1e-3)
    wanted = F.rms_norm(x.movedim(1, -1), [12], eps=norm.epsilon).movedim(-1, 1)
    torch.testing.assert_close(found, wanted)


def test_changes_of_size_are_means_and_copies() -> None:
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(halve(double(x)), x)
    assert float(halve(x).mean()) == pytest.approx(float(x.mean()), abs=1e-6)


def test_attention_is_its_formula() -> None:
    layer = Attention(16, 2, norm="rms")
    stir(layer, 0.3)
    x = torch.randn(2, 16, 3, 4)
    h = layer.qkv(layer.norm(x)).flatten(2)
    q, k, v = (part.reshape(2, 2, 8, 12) for part in h.split(16, dim=1))
    weights = torch.softmax(torch.einsum("bhci,bhcj->bhij", q, k) / math.sqrt(8), dim=-1)
    wanted = x + layer.out(torch.einsum("bhij,bhcj->bhci", weights, v).reshape(2, 16, 3, 4))
    torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("resample", "size"), [("none", 8), ("down", 4), ("up", 16)])
@pytest.mark.parametrize("outputs", [16, 24])
def test_a_residual_block_starts_as_its_shortcut(resample: str, size: int, outputs: int) -> None:
    block = ResidualBlock(16, outputs, 32, norm="group", dropout=0.0, resample=resample)
    x, embedding = torch.randn(2, 16, 8, 8), torch.randn(2, 32)
    found = block(x, embedding)
    assert found.shape == (2, outputs, size, size)
    resized = {"none": x, "down": halve(x), "up": double(x)}[resample]
    torch.testing.assert_close(found, block.shortcut(resized), rtol=0, atol=0)
    stir(block)
    assert not torch.allclose(block(x, embedding), block(x, -embedding))


def test_dropout_acts_in_training_alone() -> None:
    block = ResidualBlock(16, 16, 8, norm="group", dropout=0.5)
    stir(block)
    x, embedding = torch.randn(1, 16, 4, 4), torch.randn(1, 8)
    assert not torch.equal(block(x, embedding), block(x, embedding))
    block.eval()
    assert torch.equal(block(x, embedding), block(x, embedding))


def test_the_split_is_a_gated_residual() -> None:
    split = SpatialSplit(16, norm="group")
    x = torch.randn(2, 16, 4, 6)
    assert split(x).shape == x.shape
    assert split.gate.bias is not None
    with torch.no_grad():
        split.gate.bias.fill_(-1e4)
    torch.testing.assert_close(split(x), x)  # a closed gate


def test_layers_keep_the_size_of_what_goes_through() -> None:
    x = torch.randn(64, 128)
    assert float(dense(128, 512)(x).detach().std()) == pytest.approx(1, abs=0.05)
    images = torch.randn(8, 32, 16, 16)
    assert float(convolution(32, 64, 1)(images).detach().std()) == pytest.approx(1, abs=0.05)
    assert convolution(32, 64, 3, stride=2)(images).shape == (8, 64, 8, 8)
    assert not convolution(4, 4, 3, gain=0.0).weight.any()


def test_times_are_told_apart() -> None:
    embedding = TimeEmbedding(64, 128)
    times = torch.linspace(math.log(1e-4) / 4, math.log(1e4) / 4, 50)
    found = embedding(times).detach()
    assert found.shape == (50, 128)
    assert float(torch.cdist(found, found).add(torch.eye(50) * 1e3).min()) > 0.1
    assert "frequencies" not in embedding.state_dict()


@torch.no_grad()
def test_a_frequency_filter_multiplies_every_frequency_by_one_gain_for_all_sizes() -> None:
    block = FrequencyFilter(3, 5, 2).double()
    x, embedding = torch.randn(2, 3, 12, 9, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    assert torch.equal(block(x, embedding), x)  # at the start
    stir(block, 0.5)
    for size in ((16, 13), (17, 14), (32, 26)):  # zeros around as wide as the filter: nothing wraps
        room = (2, size[1] - 9 - 2, 2, size[0] - 12 - 2)
        padded = F.pad(x, room)
        found = torch.fft.irfft2(torch.fft.rfft2(padded) * block.gain(embedding, *size), s=size)
        torch.testing.assert_close(block(padded, embedding), found)
        torch.testing.assert_close(block(x, embedding), found[..., 2:14, 2:11])
    few, many = block.gain(embedding, 8, 6), block.gain(embedding, 32, 12)
    torch.testing.assert_close(many[:, :, ::4, ::2], few)  # the same cycles a pixel
    assert not torch.allclose(few[0], few[1])  # the embedding has a say
