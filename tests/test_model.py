"""The model: it counts its calls, its size is what is published, and it starts as the best linear denoiser."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attenua.config import ModelConfig, NetworkConfig, ProcessConfig
from attenua.model import AttenuationModel, build_process
from attenua.networks import Condition
from attenua.presets import PRESETS, cifar10, cifar10_paper, preset
from attenua.process import COMBINATIONS, LAWS, NOISES, Custom, Process, Wiener
from tests.networks.support import small, stir


def on_paper(network: NetworkConfig, process: ProcessConfig | None = None) -> AttenuationModel:
    """Return a model without memory."""
    with torch.device("meta"):
        return AttenuationModel(ModelConfig(network, process or ProcessConfig()))


def test_the_shipped_model_is_within_its_size() -> None:
    config = cifar10().model
    model = on_paper(config.network, config.process)
    assert model.parameter_count() <= 20_000_000
    assert model.flops() <= 8_000_000_000


def test_the_papers_network_has_the_papers_size() -> None:
    config = cifar10_paper().model
    two = on_paper(config.network, config.process)
    assert two.parameter_count() == pytest.approx(216e6, rel=0.01)
    assert two.flops() == pytest.approx(71e9, rel=0.01)
    one = on_paper(replace(config.network, decoders=1), config.process)
    assert one.parameter_count() == pytest.approx(130e6, rel=0.03)


def test_floating_point_operations_are_counted_in_twos() -> None:
    """One level, one block a way, no attention: counted by hand."""
    config = small(multipliers=(1,), attention=(), width=16)
    pixels, time = 64, 2 * (16 * 64 + 64 * 64)

    def block(inputs: int) -> int:
        shortcut = 2 * pixels * inputs * 16 if inputs != 16 else 0
        return 2 * pixels * 9 * (inputs * 16 + 16 * 16) + 2 * 64 * 32 + shortcut

    ends = 2 * pixels * 9 * (3 * 16 + 16 * 6)
    assert on_paper(config).flops() == time + ends + block(16) + block(32)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name: str) -> None:
    config = preset(name).model
    assert on_paper(config.network, config.process).parameter_count() > 1_000_000


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("noise", NOISES)
def test_an_untrained_model_is_the_best_linear_denoiser(name: str, noise: str) -> None:
    """Of data of deviation s_d: x0_hat = a s_d^2 / D x_t and eps_hat = sigma / D x_t."""
    model = AttenuationModel(ModelConfig(small(), ProcessConfig(law=name, noise=noise), s_d=0.3)).double()
    x = 0.3 * torch.randn(4, 3, 8, 8, dtype=torch.float64)  # small: no slope is clamped
    t = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    a, sigma = model.process.a(t), model.process.sigma(t)
    size = a**2 * 0.09 + sigma**2
    if name == "free_slope":
        size = size + (t * a / 2) ** 2 * model.process.slope_variance
    found = model(x, t)
    torch.testing.assert_close(found.x0, (a * 0.09 / size).view(-1, 1, 1, 1) * x, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.eps, (sigma / size).view(-1, 1, 1, 1) * x, rtol=1e-12, atol=1e-13)


def test_calls_are_counted() -> None:
    model = AttenuationModel(ModelConfig(small()))
    x = torch.randn(2, 3, 8, 8)
    assert model.calls == 0
    model(x, 0.5)
    model.raw(x, torch.tensor([0.1, 1.0]))
    model(x, 0.0, combination="paper")
    assert model.calls == 3
    model.flops()
    assert model.calls == 3


def test_a_time_for_all_equals_a_time_for_each() -> None:
    model = AttenuationModel(ModelConfig(small())).eval()
    stir(model)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(x, 0.3).x0, model(x, torch.full((2,), 0.3, dtype=torch.float64)).x0)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_the_path_holds_under_every_combination(combination: str) -> None:
    model = AttenuationModel(ModelConfig(small(), ProcessConfig(combination=combination))).double()
    stir(model)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    for t in (0.0, 0.4, 1.0):
        found = model(x, t)
        again = model.process.a(t) * found.x0 + model.process.sigma(t) * found.eps
        holds = combination != "released" or t in (0, 1)  # its x0 is the paper's, its noise the raw head's
        assert torch.allclose(again, x) == holds


def test_the_network_sees_a_state_of_unit_size_and_its_time() -> None:
    model = AttenuationModel(ModelConfig(small(), s_d=0.25))
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(_: object, given: tuple[Tensor, Tensor, Condition | None]) -> None:
        seen.append((given[0], given[1]))

    model.network.register_forward_pre_hook(spy)
    x0, eps = 0.25 * torch.randn(8, 3, 8, 8), torch.randn(8, 3, 8, 8)
    for t in (0.0, 0.1, 1.0):
        model(model.process.perturb(x0, t, eps), t)
    for state, _ in seen:
        assert float(state.std()) == pytest.approx(1, abs=0.06)
    times = torch.stack([time[0] for _, time in seen])
    ratio = torch.tensor([1e-4, 0.1**0.5 / 0.9, 1e4])
    torch.testing.assert_close(times, ratio.log() / 4)


def test_types_are_kept() -> None:
    model = AttenuationModel(ModelConfig(small()))
    x = torch.randn(1, 3, 8, 8)
    assert model.dtype == torch.float32
    assert model(x, 0.5).x0.dtype == torch.float32
    assert model.double().dtype == torch.float64
    assert model(x.double(), 0.5).x0.dtype == torch.float64


def test_a_users_own_law_replaces_the_configured_one() -> None:
    process = Process(Custom(lambda t: t**2, label="mine"), Wiener())
    model = AttenuationModel(ModelConfig(small()), process)
    assert model.process is process
    torch.testing.assert_close(model(torch.ones(1, 3, 8, 8), 0.0).x0, torch.ones(1, 3, 8, 8))


def test_the_free_slope_has_three_heads() -> None:
    model = AttenuationModel(ModelConfig(small(), ProcessConfig(law="free_slope")))
    assert len(model.raw(torch.randn(1, 3, 8, 8), 0.5)) == 3
    found = model(torch.randn(1, 3, 8, 8), 0.5)
    assert found.slope is not None
    assert found.offset is not None


def test_the_statistics_are_saved_with_the_weights() -> None:
    names = AttenuationModel(ModelConfig(small())).state_dict()
    assert names["mu"].shape == (3,)
    assert names["data_mean"].shape == (3, 8, 8)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown law 'cubic'; known: constant"):
        build_process(ModelConfig(process=ProcessConfig(law="cubic")))
    with pytest.raises(ValueError, match=r"unknown noise 'pink'; known: wiener, linear"):
        build_process(ModelConfig(process=ProcessConfig(noise="pink")))
    with pytest.raises(ValueError, match=r"unknown combination 'sum'; known: mean, image, noise, paper, released"):
        on_paper(small(), ProcessConfig(combination="sum"))
    with pytest.raises(ValueError, match=r"unknown precondition 'edm'; known: rule, paper"):
        on_paper(small(), ProcessConfig(precondition="edm"))
    with pytest.raises(
        ValueError, match=r"unknown preset 'cifar1'.*cifar10.*known: cifar10, cifar10-cpu, cifar10-paper"
    ):
        preset("cifar1")
    model = AttenuationModel(ModelConfig(small()))
    with pytest.raises(ValueError, match=r"unknown combination 'sum'"):
        model(torch.zeros(1, 3, 8, 8), 0.5, combination="sum")


def test_the_rate_of_the_exponential_law_is_configured() -> None:
    process = build_process(ModelConfig(process=ProcessConfig(law="exponential", rate=2.0)))
    assert float(process.a(0.5)) == pytest.approx(0.2689414213699951)  # 1 / (1 + e)
