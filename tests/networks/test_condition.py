"""A condition picture enters every level, is encoded once, and reaches the output; windows do not see each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attenua.config import ModelConfig, NetworkConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition, UNet
from attenua.networks.blocks import Attention, CrossAttention
from tests.networks.support import stir

CONFIG = NetworkConfig(
    image_size=32,
    width=8,
    multipliers=(1, 2),
    blocks=1,
    attention=(),
    heads=2,
    patch=4,
    norm="rms",
    dropout=0.0,
    condition_channels=3,
    condition_scale=4,
    condition_blocks=1,
)


def awake(network: UNet) -> UNet:
    """The network with weights that are nowhere zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def test_features_made_once_give_what_the_picture_gives() -> None:
    network = awake(UNet(CONFIG))
    x, picture = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 8, 8)
    time = torch.zeros(2)
    direct = network(x, time, Condition(picture=picture))
    features = network.encode(picture)
    again = network(x, time, Condition(features=features))
    assert [tuple(level.shape) for level in features] == [(2, 8, 8, 8), (2, 16, 4, 4)]
    for ours, theirs in zip(direct, again, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_condition_of_any_scale_that_divides_the_patch(scale: int) -> None:
    from dataclasses import replace

    network = UNet(replace(CONFIG, condition_scale=scale))
    x, time, condition = network.example()
    assert condition.picture is not None
    assert condition.picture.shape[-1] == 32 // scale
    assert network(x, time, condition)[0].shape == x.shape


def test_every_level_of_the_condition_reaches_the_output() -> None:
    network = awake(UNet(CONFIG))
    x, time = torch.randn(1, 3, 32, 32), torch.zeros(1)
    features = network.encode(torch.randn(1, 3, 8, 8))
    plain = network(x, time, Condition(features=features))[0]
    for level in range(len(features)):
        moved = tuple(item + (index == level) for index, item in enumerate(features))
        assert not torch.allclose(network(x, time, Condition(features=moved))[0], plain)


def test_a_picture_that_is_missing_or_not_wanted_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a condition picture"):
        UNet(CONFIG)(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    plain = NetworkConfig(image_size=8, width=8, multipliers=(1,), attention=(), heads=1)
    with pytest.raises(ValueError, match="takes no condition picture"):
        UNet(plain)(torch.zeros(1, 3, 8, 8), torch.zeros(1), Condition(picture=torch.zeros(1, 3, 8, 8)))
    with pytest.raises(ValueError, match="condition_scale is 3; it must divide patch, 4"):
        NetworkConfig(patch=4, condition_channels=3, condition_scale=3)
    with pytest.raises(ValueError, match="must be 'conv'"):
        NetworkConfig(patch=4, condition_channels=3, resample="block")


def test_the_rows_of_a_condition_are_those_of_all_that_is_told() -> None:
    whole = Condition(torch.arange(4), None, torch.randn(4, 3, 8, 8), (torch.randn(4, 8, 8, 8),))
    part = whole.rows(slice(1, 3))
    assert part.labels is not None
    assert part.picture is not None
    assert part.features is not None
    assert part.labels.tolist() == [1, 2]
    assert torch.equal(part.picture, whole.picture[1:3])  # type: ignore[index]
    assert torch.equal(part.features[0], whole.features[0][1:3])  # type: ignore[index]
    assert Condition().rows(slice(0, 1)) == Condition()


def test_windows_attend_within_themselves_alone() -> None:
    torch.manual_seed(0)
    windowed = Attention(8, 2, norm="rms", window=4)
    torch.nn.init.normal_(windowed.out.weight)
    whole = Attention(8, 2, norm="rms")
    whole.load_state_dict(windowed.state_dict())
    x = torch.randn(1, 8, 8, 12)
    made = windowed(x)
    for top in (0, 4):
        for left in (0, 4, 8):
            part = x[..., top : top + 4, left : left + 4]
            torch.testing.assert_close(made[..., top : top + 4, left : left + 4], whole(part), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="multiples of the window, 4"):
        windowed(torch.randn(1, 8, 6, 8))


def test_the_model_encodes_a_condition_once() -> None:
    model = AttenuationModel(ModelConfig(CONFIG))
    calls: list[Tensor] = []
    assert model.network.encoder is not None
    model.network.encoder.register_forward_hook(lambda *_: calls.append(torch.zeros(())))
    condition = model.encode(Condition(picture=torch.randn(1, 3, 8, 8)))
    for t in (1.0, 0.5, 0.1):
        model(torch.randn(1, 3, 32, 32), t, condition)
    assert len(calls) == 1
    assert model.encode(condition) is condition
    assert model.encode(Condition()) == Condition()


def test_cross_attention_is_its_formula_in_every_window() -> None:
    layer = CrossAttention(8, 2, norm="rms", window=4)
    stir(layer, 0.3)
    x, told = torch.randn(2, 8, 4, 8), torch.randn(2, 8, 4, 8)
    found = layer(x, told)
    for left in (0, 4):
        state, asked = x[..., left : left + 4], told[..., left : left + 4]
        q = layer.query(layer.norm_features(asked)).reshape(2, 2, 4, 16)
        k, v = (part.reshape(2, 2, 4, 16) for part in layer.key_value(layer.norm_state(state)).split(8, dim=1))
        weights = torch.softmax(torch.einsum("bhci,bhcj->bhij", q, k) / 2, dim=-1)
        added = layer.out(torch.einsum("bhij,bhcj->bhci", weights, v).reshape(2, 8, 4, 4))
        torch.testing.assert_close(found[..., left : left + 4], state + added, rtol=1e-4, atol=1e-5)
    whole = CrossAttention(8, 2, norm="rms")
    whole.load_state_dict(layer.state_dict())
    torch.testing.assert_close(whole(x[..., :4], told[..., :4]), found[..., :4], rtol=1e-5, atol=1e-5)


def test_fusion_by_attention_starts_as_addition_and_learns_in_every_part() -> None:
    from dataclasses import replace

    attending = replace(CONFIG, attention=(16,), window=4, fusion="attention", image_size=64, decoders=2)
    network, plain = UNet(attending), UNet(replace(attending, fusion="add"))
    missing = plain.load_state_dict(network.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert all(".attention." in name and "fusions" in name for name in missing.unexpected_keys)
    assert len(missing.unexpected_keys) == 3 * 8  # the encoder's and both decoders' first level
    x, time, _ = network.example()
    picture = torch.randn(1, 3, 16, 16)
    for each in (network, plain):
        for decoder in each.decoders:
            torch.nn.init.ones_(decoder.out.weight)  # type: ignore[union-attr, arg-type]
    told = Condition(picture=picture)
    torch.testing.assert_close(network(x, time, told)[0], plain(x, time, told)[0], rtol=0, atol=0)
    awake(network)
    sum((head * torch.randn_like(head)).sum() for head in network(x + torch.randn_like(x), time, told)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())] == []
