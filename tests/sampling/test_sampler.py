"""The sampler: counted calls, noise and pictures that belong to an image, right marginals, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from attenua.config import ModelConfig, ProcessConfig
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import NOISES
from attenua.sampling import (
    GRIDS,
    SOLVERS,
    Flow,
    ImageNoise,
    Karras,
    Multistep,
    Posterior,
    Released,
    Solver,
    Step,
    choose_grid,
    sample,
    solver,
    to_bytes,
)
from tests.networks.support import small, stir
from tests.sampling.support import Gaussian, final_variance

SHAPE = (6, 3, 8, 8)


def talkative(**fields: Any) -> AttenuationModel:
    """Return a small random network whose heads are far from zero."""
    model = AttenuationModel(ModelConfig(small(**fields)))
    stir(model, 0.2)
    return model


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_steps_are_network_calls(name: str, grid: str) -> None:
    model = Gaussian()
    for steps in (1, 2, 3, 10):
        before = model.calls
        made = sample(model, (2, 1, 8, 8), steps=steps, solver=solver(name), grid=grid)
        assert model.calls - before == steps
        assert bool(torch.isfinite(made).all())


@pytest.mark.parametrize("name", SOLVERS)
def test_no_solver_looks_back_farther_than_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More past calls change no bit."""
    model = talkative()
    made = sample(model, SHAPE, steps=7, solver=solver(name), grid="karras")
    for each in {*SOLVERS.values()}:
        monkeypatch.setattr(each, "keeps", 7)
    assert torch.equal(sample(model, SHAPE, steps=7, solver=solver(name), grid="karras"), made)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_picture_depends_on_its_seed_and_number_alone(name: str) -> None:
    """Noise bit-equal, pictures equal to one grey level, for any split and order of the batch."""
    model = talkative()

    def pictures(indices: list[int], seed: int = 3) -> Tensor:
        made = sample(model, (len(indices), *SHAPE[1:]), steps=4, seed=seed, solver=solver(name), indices=indices)
        return to_bytes(made).int()

    whole = pictures([0, 1, 2, 3, 4, 5])
    assert int((whole.amax(dim=(1, 2, 3)) - whole.amin(dim=(1, 2, 3))).min()) > 60  # pictures with something in them
    for indices in ([0], [5], [1, 2], [4, 3, 0], [2, 2]):
        assert int((pictures(indices) - whole[indices]).abs().max()) <= 1
    assert int((pictures([0, 1, 2, 3, 4, 5]) - whole).abs().max()) == 0
    assert int((pictures([0], seed=4) - whole[:1]).abs().max()) > 10
    assert int((whole[0] - whole[1]).abs().max()) > 10


def test_the_first_numbers_are_the_default() -> None:
    model = talkative()
    assert torch.equal(sample(model, SHAPE, steps=2), sample(model, SHAPE, steps=2, indices=range(6)))


CASES: dict[str, tuple[Solver, str]] = {
    "ode": (Flow(), "constant"),
    "posterior-0.5": (Posterior(0.5), "constant"),
    "posterior-1": (Posterior(1.0), "quadratic"),
    "posterior-3": (Posterior(3.0), "constant"),  # clamped, step by step
    "multistep": (Multistep(), "linear_falling"),
    "free-ode": (Flow(), "free_slope"),
    "free-posterior": (Posterior(), "free_slope"),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", CASES)
def test_samples_of_gaussian_data_have_its_marginal(name: str, noise: str) -> None:
    """Within statistical error of what exact algebra says of 12 steps (whose limit test_solvers.py looks at)."""
    rule, law = CASES[name]
    model = Gaussian(s_d=0.1, law=law, noise=noise, mu=0.25)
    process, grid = model.process, Karras()
    made = sample(model, (8, 1, 96, 96), steps=12, solver=rule, grid=grid, seed=1).double()
    variance = final_variance(rule, process, 0.1, grid.times(process, 0.1, 12))
    count = made.numel()
    assert float(made.mean()) == pytest.approx(0.25, abs=4 * math.sqrt(variance / count))
    assert float(made.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))


def test_the_mean_is_added_and_pictures_are_clipped_at_the_end() -> None:
    model = Gaussian(s_d=1.0, mu=0.5)
    seen: list[Step] = []
    made = sample(model, (2, 1, 64, 64), steps=8, callback=seen.append)
    assert float(made.max()) == 1
    assert float(made.min()) >= -1
    assert max(float(step.x0.max()) for step in seen[-2:]) > 1  # not before


def test_the_released_rule_clips_in_every_step() -> None:
    model = Gaussian(s_d=1.0, mu=0.5)
    seen: list[Step] = []
    sample(model, (2, 1, 64, 64), steps=8, solver=Released(), callback=seen.append)
    for step in seen:
        assert float(step.x0.max()) <= 0.5 + 1e-6
        assert float(step.x0.min()) >= -1.5 - 1e-6


@pytest.mark.parametrize("name", SOLVERS)
def test_a_callback_sees_every_call(name: str) -> None:
    """Step k from 0: its time, the state that the network saw there, and the x0 that it saw in it."""
    model, seen = Gaussian(), list[Step]()
    times = choose_grid(solver(name), None).times(model.process, 0.1, 5)
    shape = (2, 1, 8, 8)
    sample(model, shape, steps=5, seed=9, solver=solver(name), callback=seen.append)
    assert [step.step for step in seen] == [0, 1, 2, 3, 4]
    if name != "heun":  # which calls twice a step
        assert [step.t for step in seen] == times[:-1]
    first = ImageNoise(9, range(2), (1, 8, 8))() * float(model.process.sigma(times[0]))
    assert torch.equal(seen[0].x, first)
    for step in seen:
        assert step.x.shape == shape
        if name != "released":
            torch.testing.assert_close(step.x0, model(step.x, step.t).x0)


def test_times_may_be_given() -> None:
    model, seen = Gaussian(), list[Step]()
    sample(model, (1, 1, 8, 8), steps=2, grid=[1.0, 0.3, 0.0], callback=seen.append)
    assert [step.t for step in seen] == [1.0, 0.3]


def test_a_grid_belongs_to_the_released_rule() -> None:
    assert choose_grid(Released(), None).name == "released"
    assert choose_grid(Multistep(), None).name == "karras"
    assert choose_grid(Released(), "uniform").name == "uniform"
    assert choose_grid(Flow(), Karras(n_max=10.0)) == Karras(n_max=10.0)


def test_dropout_is_off_and_the_mode_comes_back() -> None:
    model = talkative(dropout=0.5)
    for training in (True, False):
        model.train(training)
        assert torch.equal(sample(model, SHAPE, steps=2), sample(model, SHAPE, steps=2))
        assert model.training is training

    def fail(step: Step) -> None:
        raise RuntimeError("stop")

    model.train()
    with pytest.raises(RuntimeError, match="stop"):
        sample(model, SHAPE, steps=2, callback=fail)
    assert model.training


def test_the_mode_comes_back_where_the_request_is_refused() -> None:
    model = talkative()
    model.train()
    with pytest.raises(ValueError, match="choose a grid without it"):
        sample(model, (1, 3, 64, 64), steps=2, grid="uniform+mean")
    with pytest.raises(ValueError, match="takes no condition picture"):
        sample(model, (1, 3, 8, 8), steps=2, condition=Condition(picture=torch.zeros(1, 3, 8, 8)))
    assert model.training


def test_labels_reach_the_network() -> None:
    model = talkative(classes=3)
    one, two = (sample(model, SHAPE, steps=2, condition=Condition(torch.full((6,), k))) for k in (0, 1))
    assert not torch.allclose(one, two)
    with pytest.raises(ValueError, match="this network needs labels of 3 classes"):
        sample(model, SHAPE, steps=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_network_may_compute_in_another_type(dtype: torch.dtype) -> None:
    model = talkative()
    wanted = sample(model, SHAPE, steps=3)
    made = sample(model.to(dtype), SHAPE, steps=3)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, wanted, rtol=0, atol=0.3 if dtype == torch.bfloat16 else 1e-3)


def test_a_picture_need_not_be_of_the_trained_size() -> None:
    assert sample(talkative(), (1, 3, 12, 20), steps=2).shape == (1, 3, 12, 20)
    with pytest.raises(ValueError, match="sides must be multiples of 2"):
        sample(talkative(), (1, 3, 11, 20), steps=2)


@pytest.mark.parametrize("name", ["multistep", "released"])
def test_rules_for_deterministic_laws_refuse_the_free_slope(name: str) -> None:
    model = Gaussian(law="free_slope")
    with pytest.raises(ValueError, match=f"the solver '{name}' does not support the law 'free_slope'; use the solver"):
        sample(model, (1, 1, 8, 8), solver=solver(name))
    assert model.calls == 0


def test_the_published_heads_sample() -> None:
    process = ProcessConfig(precondition="paper", combination="paper")
    model = AttenuationModel(ModelConfig(small(), process))
    stir(model, 0.05)
    for name in ("multistep", "ode", "posterior", "released"):
        assert bool(torch.isfinite(sample(model, SHAPE, steps=5, solver=solver(name))).all())


def test_bad_requests_are_refused_before_any_call() -> None:
    model = Gaussian()
    shape = (2, 1, 8, 8)
    with pytest.raises(ValueError, match="steps is 0; allowed is a whole number from 1"):
        sample(model, shape, steps=0)
    with pytest.raises(ValueError, match=r"the grid has 3 times; 5 steps need 6"):
        sample(model, shape, steps=5, grid=[1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="must fall strictly"):
        sample(model, shape, steps=2, grid=[0.5, 0.9, 0.0])
    with pytest.raises(ValueError, match="unknown grid 'cosine'"):
        sample(model, shape, grid="cosine")
    with pytest.raises(ValueError, match="3 indices for 2 images"):
        sample(model, shape, indices=[1, 2, 3])
    with pytest.raises(ValueError, match="seed is -1"):
        sample(model, shape, seed=-1)
    with pytest.raises(ValueError, match="image number -1"):
        sample(model, shape, indices=[0, -1])
    assert model.calls == 0


def test_an_overflow_is_an_error_and_no_black_picture() -> None:
    class Overflowing(Gaussian):
        def raw(self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None) -> tuple[Tensor, ...]:
            heads = super().raw(x_t, t, condition)
            return tuple(head + (1e30 if float(t) > 0.99 else 0.0) * 1e30 for head in heads)

    model = Overflowing()
    sample(model, (1, 1, 8, 8), steps=3, grid=[0.9, 0.5, 0.2, 0.0])
    with pytest.raises(ValueError, match=r"what 3 steps of 'multistep' from t = 1 on gave is not finite"):
        sample(model, (1, 1, 8, 8), steps=3, grid=[1.0, 0.5, 0.2, 0.0])


def test_bytes_are_the_nearest_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    pictures = levels.float() / 127.5 - 1
    assert torch.equal(to_bytes(pictures), levels)
    assert torch.equal(to_bytes(pictures + 0.49 / 127.5), levels)
    assert torch.equal(to_bytes(pictures - 0.49 / 127.5), levels)
    edges = torch.tensor([-1.0, 1.0, -7.0, 7.0]).view(1, 1, 2, 2)
    assert to_bytes(edges).flatten().tolist() == [0, 255, 0, 255]
    assert to_bytes(edges).dtype == torch.uint8
