"""The loss is what theory.md, section 4, says it is, each sample weighted by its own time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attenua.config import ModelConfig, NetworkConfig, ObjectiveConfig, ProcessConfig, TaskConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.training.objective import Draws, Objective

NETWORK = NetworkConfig(image_size=8, width=8, multipliers=(1, 2), blocks=1, attention=(), heads=1, dropout=0.0)


def model(**process: str) -> AttenuationModel:
    torch.manual_seed(3)
    made = AttenuationModel(ModelConfig(NETWORK, ProcessConfig(**process), s_d=0.4)).double()
    for parameter in made.parameters():  # the output starts at zero: move it
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def batch(count: int = 6) -> tuple[Tensor, Draws]:
    generator = torch.Generator().manual_seed(4)
    x0 = 0.4 * torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    eps = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    time = torch.rand(count, generator=generator, dtype=torch.float64)
    return x0, Draws(time, torch.ones(count), eps)


def test_the_published_loss_sample_by_sample() -> None:
    net = model(precondition="paper", combination="paper")
    config = ObjectiveConfig(times="uniform", weights="paper", l1=0.7)
    x0, draws = batch()
    loss = Objective(net, config)(x0, draws)
    t = (1e-4 + (1 - 1e-4) * draws.time)[:, None, None, None]
    x_t = (1 - t) * x0 + t.sqrt() * draws.eps
    f, g = net.network(x_t / (1 + t).sqrt(), t.flatten().log().float(), None)
    x0_hat = -((t - 1) * x_t + t / (1 + t).sqrt() * f)
    eps_hat = t.sqrt() * x_t + ((1 - t) / (1 + t)).sqrt() * g
    both = x_t + t * x0_hat - t.sqrt() * eps_hat
    terms = (
        (x0_hat - x0) ** 2 / t + (eps_hat - draws.eps) ** 2 / (1 - t + 1e-4) + 0.7 * (1 - t) ** 2 * (both - x0).abs()
    )
    torch.testing.assert_close(loss, terms.mean(), rtol=1e-6, atol=0)


def test_each_sample_is_weighted_by_its_own_time() -> None:
    objective = Objective(model(), ObjectiveConfig(times="uniform", weights="paper"))
    x0, draws = batch()
    alone = [objective(x0[i : i + 1], draws.rows(slice(i, i + 1))) for i in range(len(x0))]
    torch.testing.assert_close(objective(x0, draws), torch.stack(alone).mean(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("weights", ["unit", "paper"])
def test_what_counts_nothing_is_not_learnt(weights: str) -> None:
    net = model()
    config = ObjectiveConfig(times="uniform", weights=weights)  # type: ignore[arg-type]
    x0, draws = batch()
    weight = torch.zeros(len(x0), 1, 8, 8)
    weight[..., 2:5, 1:7] = 1

    def loss(weigh: Tensor | None) -> Tensor:
        found: Tensor = Objective(net, config, weigh=lambda told: weigh)(x0, draws, Condition())
        return found

    torch.testing.assert_close(loss(torch.ones_like(weight)), loss(None))
    torch.testing.assert_close(loss(weight) + loss(1 - weight), loss(None))
    assert bool(loss(weight) < loss(None))


def test_unit_weights_compare_raw_heads_with_their_targets() -> None:
    net = model()
    objective = Objective(net, ObjectiveConfig(times="uniform"))
    x0, draws = batch()
    t = objective.times(draws)
    x_t = net.process.perturb(x0, t, draws.eps)
    f, g = net.raw(x_t, t)
    a, sigma = (1 - t)[:, None, None, None], t.sqrt()[:, None, None, None]
    target = (sigma * x0 - a * 0.16 * draws.eps) / (0.4 * (0.16 * a**2 + sigma**2).sqrt())
    expected = ((f - target) ** 2).mean() + ((g + target) ** 2).mean()
    torch.testing.assert_close(objective(x0, draws), expected, rtol=1e-9, atol=0)


def test_revised_weights_are_the_published_ones_times_the_state_variance() -> None:
    net = model()
    x0, draws = batch(1)
    published = Objective(net, ObjectiveConfig(times="uniform", weights="paper"))
    revised = Objective(net, ObjectiveConfig(times="uniform", weights="revised"))
    t = float(published.times(draws))
    variance = ((1 - t) * 0.4) ** 2 + t
    torch.testing.assert_close(revised(x0, draws), published(x0, draws) * variance, rtol=1e-9, atol=0)


def test_lognormal_times_have_the_stated_law_of_n() -> None:
    net = model(law="quadratic", noise="linear")
    objective = Objective(net, ObjectiveConfig(log_mean=-0.8, log_deviation=1.2))
    draws = objective.draw(20_000, torch.Generator().manual_seed(0))
    log_n = net.process.ratio(objective.times(draws)).log()
    assert math.isclose(float(log_n.mean()), -0.8 + math.log(0.8), abs_tol=0.03)
    assert math.isclose(float(log_n.std()), 1.2, rel_tol=0.02)


@pytest.mark.parametrize("law", ["constant", "quadratic"])
def test_times_of_other_models_are_uniform_in_their_own_clock(law: str) -> None:
    """Whatever the law here: the angle of the cosine schedule (but for its offset), the noise's share of a line."""
    net = model(law=law, noise="linear")
    for times, clock in (
        ("cosine", lambda n: torch.atan(n) * 2 / math.pi),
        ("straight", lambda n: n / (1 + n)),
    ):
        objective = Objective(net, ObjectiveConfig(times=times))
        draws = objective.draw(20_000, torch.Generator().manual_seed(0))
        own = clock(net.process.ratio(objective.times(draws)))
        wanted = torch.linspace(0, 1, 20_000, dtype=torch.float64)
        assert float((own.sort().values - wanted).abs().max()) < 0.02, times


def test_a_share_of_the_samples_is_drawn_at_the_end_of_the_path() -> None:
    objective = Objective(model(), ObjectiveConfig(final_share=0.1))
    draws = objective.draw(20_000, torch.Generator().manual_seed(0))
    share = float((objective.times(draws) == 1).double().mean())
    assert math.isclose(share, 0.1, abs_tol=0.01)
    x0, _ = batch()
    small = draws.rows(slice(0, 6))._replace(final=torch.zeros(6))
    assert bool(torch.isfinite(objective(x0, small)))


def test_the_perceptual_term_sees_pictures_and_weighs_each_by_its_time() -> None:
    net = model()
    net.mu.fill_(0.25)
    seen: list[Tensor] = []

    def distance(x: Tensor, y: Tensor) -> Tensor:
        seen.extend([x, y])
        return torch.arange(1.0, 1.0 + len(x))

    x0, draws = batch()
    plain = Objective(net, ObjectiveConfig(times="uniform"))
    with_term = Objective(net, ObjectiveConfig(times="uniform", perceptual=2.0), distance)
    t = plain.times(draws)
    added = (2.0 * (1 - t) ** 2 * torch.arange(1.0, 7.0)).mean()
    torch.testing.assert_close(with_term(x0, draws) - plain(x0, draws), added, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(seen[1].double(), x0 + 0.25, rtol=1e-6, atol=1e-6)


def test_the_free_slope_law_learns_three_heads_with_unit_weights_alone() -> None:
    net = model(law="free_slope")
    x0, draws = batch()
    slope = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = Objective(net, ObjectiveConfig())(x0, draws._replace(slope=slope))
    assert bool(torch.isfinite(loss))
    with pytest.raises(ValueError, match="free_slope"):
        Objective(net, ObjectiveConfig(weights="paper"))


def test_a_perceptual_weight_needs_a_distance() -> None:
    with pytest.raises(ValueError, match="perceptual"):
        Objective(model(), ObjectiveConfig(perceptual=1.0))


def test_a_perceptual_weight_is_for_models_of_pictures() -> None:
    network = NetworkConfig(image_size=8, width=8, multipliers=(1,), blocks=1, attention=(), channels=1)
    edges = AttenuationModel(ModelConfig(network, task=TaskConfig("edges")))
    with pytest.raises(ValueError, match=r"objective.perceptual is 0.5; allowed is 0: what a model for edges predicts"):
        Objective(edges, ObjectiveConfig(perceptual=0.5), lambda one, two: one.mean((1, 2, 3)))
