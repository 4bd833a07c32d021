"""Fitted grids: they end nearer to the reference on noise that they never saw, and serve one model alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attenua import weights
from attenua.config import FittedGrid, ModelConfig, ProcessConfig, SamplingConfig, from_dict, to_dict
from attenua.model import AttenuationModel
from attenua.networks import Condition
from attenua.process import Custom, Prediction, Process
from attenua.sampling import Fit, Fitted, Flow, Multistep, Posterior, fingerprint, fit, fitted, sample, solver
from attenua.sampling.fit import Space, search
from attenua.sampling.multistep import Weighted
from attenua.tasks import load
from tests.conftest import CommandLine
from tests.networks.support import small, stir
from tests.sampling.support import Gaussian, Mixture


class Points(Gaussian):
    """A model that knows the mixture: a picture of 8 x 8 pixels is 32 points of the plane."""

    def forward(
        self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None, *, combination: str | None = None
    ) -> Prediction:
        self.calls += 1
        found = Mixture().predictor(self.process)(x_t.double().reshape(-1, 1, 1, 2), float(t))
        return Prediction(found.x0.reshape(x_t.shape).float(), found.eps.reshape(x_t.shape).float())


@pytest.mark.parametrize(
    ("name", "calls", "share"),
    [("multistep", 3, 0.4), ("multistep", 5, 0.4), ("ode", 4, 0.8), ("ipndm-4", 4, 0.3), ("deis-3", 3, 0.2)],
)
def test_a_fitted_grid_ends_nearer_to_the_reference(name: str, calls: int, share: float) -> None:
    work = Fit(Points(s_d=0.5), trajectories=8, held_out=8, reference=40)
    record = fit(work, solver(name), calls)
    assert record.distance is not None
    assert record.unfitted is not None
    assert record.distance < share * record.unfitted
    assert (len(record.times), record.steps, record.solver) == (calls, calls, name)
    rule = solver(name)
    each = rule.order - 1 if isinstance(rule, Weighted) else 0
    assert len(record.weights) == calls * each
    assert all(record.weights[step * each + place] == 0 for step in range(calls) for place in range(step, each))
    grid = Fitted(record, mean=record.mean)
    assert work.distance(solver(name), grid, calls) == pytest.approx(record.distance, rel=1e-6)
    before = work.model.calls
    assert sample(work.model, (1, 1, 8, 8), steps=calls, solver=solver(name), grid=grid).isfinite().all()
    assert work.model.calls - before == calls


def test_what_cannot_be_fitted_is_refused() -> None:
    work = Fit(Points(s_d=0.5), trajectories=1, held_out=1, reference=8)
    with pytest.raises(ValueError, match="the solver 'posterior' draws fresh noise"):
        fit(work, Posterior(), 3)
    with pytest.raises(ValueError, match="steps is 1; a grid can be fitted from 2"):
        fit(work, Multistep(), 1)
    with pytest.raises(ValueError, match="trajectories, held-out ones and a batch from 1"):
        Fit(Points(), trajectories=0)


def test_the_search_finds_least_squares() -> None:
    """Rosenbrock's valley as a residual, from its usual start."""

    def residual(numbers: Tensor) -> Tensor:
        one, two = numbers.tolist()
        return torch.tensor([10 * (two - one * one), 1 - one])

    found = search(residual, torch.tensor([-1.2, 1.0], dtype=torch.float64), 200)
    assert float(residual(found).square().sum()) < 1e-3


def test_a_fingerprint_tells_networks_apart_and_no_fields_at_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(**fields: Any) -> str:
        torch.manual_seed(0)
        return fingerprint(AttenuationModel(ModelConfig(small(), **fields)))

    before = own()
    assert own() == before
    assert own(s_d=0.4) != before
    assert own(process=ProcessConfig(skip_deviation=0.1)) != before
    whole = fitted.to_dict

    def newer(config: ModelConfig) -> dict[str, object]:  # a later version's field, at its default
        return {**whole(config), "later": {"field": 0}, "network": {**whole(config)["network"], "later": None}}

    monkeypatch.setattr(fitted, "to_dict", newer)
    assert own() == before


def test_a_law_of_the_users_own_is_told_by_its_values() -> None:
    config = ModelConfig(small())
    laws = (lambda t: t, lambda t: 1.0 * t, lambda t: t.square())
    made = [AttenuationModel(config, Process(Custom(law))) for law in laws]
    for model in made[1:]:
        model.load_state_dict(made[0].state_dict())
    own, same, other = (fingerprint(model) for model in made)
    assert own == same
    assert own != other


def test_a_fitted_grid_serves_its_own_model_alone() -> None:
    model = AttenuationModel(ModelConfig(small()))
    stir(model, 0.2)
    shape = (2, 3, 8, 8)
    record = FittedGrid(3, "multistep", (0.8, 0.3, 0.05), (0.0, 0.4, 0.2), True, fingerprint(model))
    grid = Fitted(record)
    assert sample(model, shape, steps=3, grid=grid).isfinite().all()
    with pytest.raises(ValueError, match="fitted for 3 steps of 'multistep'; it does not serve 4 steps of 'multistep'"):
        sample(model, shape, steps=4, grid=grid)
    with pytest.raises(ValueError, match="fitted for 3 steps of 'multistep'; it does not serve 3 steps of 'ode'"):
        sample(model, shape, steps=3, grid=grid, solver=Flow())
    trained = AttenuationModel(ModelConfig(small()))
    stir(trained, 0.1)
    other = AttenuationModel(ModelConfig(small(), s_d=0.4))
    other.load_state_dict(model.state_dict())
    for stranger in (trained, other):
        with pytest.raises(ValueError, match="the grid fitted for 3 steps belongs to another model or process"):
            sample(stranger, shape, steps=3, grid=grid)
    with pytest.raises(ValueError, match="must fall strictly"):
        sample(model, shape, steps=3, grid=Fitted(replace(record, times=(0.3, 0.8, 0.1))))
    with pytest.raises(ValueError, match="has 2 weights for 3 times"):
        replace(record, weights=(0.0, 1.0))


@pytest.mark.parametrize("name", ["multistep", "ipndm-3", "ipndm-4", "deis-2", "deis-4"])
def test_weights_are_those_of_each_step(name: str) -> None:
    """With the published weights as numbers, the fitted grid does what the rule does by itself."""
    model, rule = Points(s_d=0.5), solver(name)
    assert isinstance(rule, Weighted)
    times = (0.95, 0.8, 0.6, 0.35, 0.2)
    space = Space(Fit(model, 1, 1, reference=8), rule, len(times))
    own = iter(space.weights(times))
    weights = tuple(next(own) if taken else 0.0 for taken in space.taken())
    assert not list(own)
    record = FittedGrid(5, name, times, weights, False, fingerprint(model))
    found = sample(model, (2, 1, 8, 8), steps=5, solver=rule, grid=Fitted(record))
    expected = sample(model, (2, 1, 8, 8), steps=5, solver=rule, grid=[*times, 0.0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    wrong = replace(record, weights=weights * 2)
    with pytest.raises(ValueError, match=rf"'{name}' takes {rule.order - 1} weights a step, not {2 * rule.order - 2}"):
        sample(model, (2, 1, 8, 8), steps=5, solver=rule, grid=Fitted(wrong))


def test_weights_of_a_rule_that_takes_none_are_refused() -> None:
    model = Points(s_d=0.5)
    record = FittedGrid(2, "ode", (0.9, 0.3), (0.0, 0.4), False, fingerprint(model))
    with pytest.raises(ValueError, match="the solver 'ode' takes no fitted weights"):
        sample(model, (2, 1, 8, 8), steps=2, solver=Flow(), grid=Fitted(record))


def test_what_is_compared_may_be_features() -> None:
    """A fit to means over rows brings those nearer than a fit to pixels does, and its distance is theirs."""

    def look(pictures: Tensor) -> Tensor:
        return pictures.mean(3).flatten(1)

    model = Points(s_d=0.5)

    def work(**fields: Any) -> Fit:
        return Fit(model, trajectories=8, held_out=8, reference=40, **fields)

    own, pixels = work(look=look, measure="rows"), work()
    record = fit(own, Multistep(), 3)
    assert record.measure == "rows"
    assert record.distance is not None
    other = fit(pixels, Multistep(), 3)
    assert other.measure == "pixels"
    assert record.distance < own.distance(Multistep(), Fitted(other, mean=other.mean), 3)
    grid = Fitted(record, mean=record.mean)
    ends = look(pixels.run(Multistep(), grid, 3, range(8, 16)).reshape(8, 1, 8, 8))
    fine = look(pixels.ends[8:].reshape(8, 1, 8, 8))
    assert record.distance == pytest.approx(float((ends - fine).square().sum(1).mean().sqrt()), rel=1e-5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = AttenuationModel(ModelConfig(small()))
    stir(model, 0.2)
    return weights.write(tmp_path / "model.safetensors", weights.Weights(model.config, model.state_dict()), "int8")


def test_a_record_goes_through_the_file_without_touching_its_tensors(file: Path, tmp_path: Path) -> None:
    record = FittedGrid(3, "multistep", (0.8, 0.3, 0.05), (0.0, 0.4, 0.2), True, "0123", 0.1, 0.2)
    sampling = SamplingConfig(steps=3, fitted=(record,))
    assert from_dict(SamplingConfig, to_dict(sampling)) == sampling
    other = weights.write_sampling(file, tmp_path / "fitted.safetensors", sampling)
    before, after = weights.read(file), weights.read(other)
    assert after.sampling == sampling
    assert (after.config, after.kind) == (before.config, before.kind)
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())
    with pytest.raises(FileExistsError):
        weights.write_sampling(file, other, sampling, overwrite=False)


def test_fit_grid_stores_what_sample_uses_by_default(file: Path, tmp_path: Path, cli: CommandLine) -> None:
    out = tmp_path / "fitted.safetensors"
    fast = ["--trajectories", 2, "--held-out", 2, "--reference", 8, "--quiet"]
    done = cli("fit-grid", "--model", file, "--steps", "2,3", "--out", out, *fast)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(out)
    generation = load(str(out))
    assert [item.steps for item in generation.sampling.fitted] == [2, 3]
    named = {steps: generation.settings(generation.choose(steps, "multistep"), 0) for steps in (3, 4)}
    assert (named[3]["grid"], named[4]["grid"]) == ("fitted", "karras")
    assert torch.equal(generation.sample(2, steps=3), generation.sample(2, steps=3, grid="fitted"))
    assert not torch.equal(generation.sample(2, steps=3), generation.sample(2, steps=3, grid="karras"))
    with pytest.raises(
        ValueError, match=r"no grid is fitted for 4 steps of 'multistep'; fitted: 2 \(multistep\), 3 \("
    ):
        generation.sample(1, steps=4, grid="fitted")
    again = cli("fit-grid", "--model", out, "--steps", "3", "--out", out, "--overwrite", *fast)
    assert again.returncode == 0
    assert [item.steps for item in load(str(out)).sampling.fitted] == [2, 3]
    wrong = cli("fit-grid", "--model", file, "--steps", "3,x", "--out", tmp_path / "no")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "allowed are whole numbers from 2" in wrong.stderr
