"""A model file in hand: what it samples is what the sampler makes, by the model's own defaults or by what is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import attenua
from attenua import weights
from attenua.config import FittedGrid, ProcessConfig, SamplingConfig, TaskConfig
from attenua.networks import Condition
from attenua.process import Process, Wiener, law
from attenua.process.laws import Custom
from attenua.sampling import Multistep, Posterior, Step, Times, Uniform, fingerprint, sample, solver, to_bytes
from attenua.tasks import Generation, load
from attenua.tasks.generation import BATCH
from tests.cli.support import content, model_file


@pytest.fixture
def model(tmp_path: Path) -> Generation:
    return load(str(model_file(tmp_path / "m.safetensors")))


@pytest.fixture
def classes(tmp_path: Path) -> Generation:
    return load(str(model_file(tmp_path / "c.safetensors", classes=3)))


SHAPE = (5, 3, 8, 8)


def test_pictures_are_those_of_the_sampler(model: Generation) -> None:
    made = model.sample(5, steps=4, seed=9, solver="ode", grid="uniform")
    assert (made.dtype, tuple(made.shape)) == (torch.uint8, SHAPE)
    plain = sample(model.model, SHAPE, steps=4, seed=9, solver=solver("ode"), grid="uniform")
    assert torch.equal(made, to_bytes(plain))
    assert len(torch.unique(made)) > 20


def test_an_eta_beside_a_solver_that_is_made_is_refused(model: Generation) -> None:
    with pytest.raises(ValueError, match=r"eta is 0.5, but the solver is made already"):
        model.sample(1, steps=2, solver=Posterior(), eta=0.5)


def test_batches_are_the_pictures_in_parts(model: Generation) -> None:
    parts = list(model.batches(7, batch=3, steps=2))
    assert [len(part) for part in parts] == [3, 3, 1]
    whole = model.sample(7, steps=2)
    assert int((torch.cat(parts).int() - whole.int()).abs().max()) <= 1
    assert BATCH["cpu"] == model.batch_size(None)
    assert [len(part) for part in model.batches(BATCH["cpu"] + 1, steps=1)] == [BATCH["cpu"], 1]


def test_pictures_are_made_when_they_are_asked_for(model: Generation) -> None:
    made = model.batches(1_000_000, batch=2, steps=3)
    assert model.model.calls == 0
    next(made)
    assert model.model.calls == 3


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"num": 0}, "num is 0; allowed is a whole number from 1"),
        ({"num": -1}, "num is -1; allowed is a whole number from 1"),
        ({"batch": 0}, "batch is 0; allowed is a whole number from 1"),
        ({"batch": -2}, "batch is -2; allowed is a whole number from 1"),
        ({"steps": 0}, "steps is 0; allowed is a whole number from 1"),
        ({"solver": "eule"}, "unknown solver 'eule'; known: multistep"),
        ({"grid": "fine"}, "unknown grid 'fine'; known: karras"),
        ({"grid": [1.0, 0.5, 0.0]}, "the grid has 3 times; 3 steps need 4"),
        ({"grid": [0.5, 0.7, 0.1, 0.0]}, "must fall strictly"),
        ({"eta": 0.5}, "'multistep' takes no eta"),
        ({"labels": [0, 1]}, "this model has no classes; it takes no labels"),
    ],
)
def test_what_is_wrong_is_refused_before_a_picture_is_asked_for(
    model: Generation, asked: dict[str, object], line: str
) -> None:
    for call in (model.batches, model.sample):
        with pytest.raises(ValueError, match=line):
            call(**{"num": 2, **asked})  # type: ignore[arg-type]
    assert model.model.calls == 0


def test_a_solver_that_the_law_does_not_have_is_refused_at_once(tmp_path: Path) -> None:
    given = content()
    config = replace(given.config, process=ProcessConfig(law="free_slope"))
    from attenua.model import AttenuationModel

    tensors = dict(AttenuationModel(config).state_dict())
    model = load(str(weights.write(tmp_path / "m", weights.Weights(config, tensors))))
    with pytest.raises(ValueError, match="'multistep' does not support the law 'free_slope'"):
        model.batches(1)
    assert model.sample(1, steps=2, solver="posterior").shape == (1, 3, 8, 8)


def test_the_defaults_are_the_models_own(tmp_path: Path) -> None:
    chosen = SamplingConfig(steps=4, solver="posterior", grid="uniform", eta=0.25)
    model = load(str(model_file(tmp_path / "m.safetensors", chosen)))
    expected = sample(model.model, SHAPE, steps=4, solver=Posterior(0.25), grid=Uniform())
    assert model.model.calls == 4
    assert torch.equal(model.sample(5), to_bytes(expected))
    assert model.choose(eta=0.5).solver == Posterior(0.5)
    assert model.choose(solver="posterior").solver == Posterior(0.25)
    assert model.choose(solver="multistep").solver == Multistep()  # the model's eta is not another solver's
    assert model.choose(solver=Posterior(2.0)).solver == Posterior(2.0)
    assert model.settings(model.choose(), 3) == {
        "model_sha256": model.header.sha256,
        "nfe": 4,
        "solver": "posterior",
        "eta": 0.25,
        "grid": "uniform",
        "seed": 3,
    }


def test_a_fitted_grid_serves_its_solver_and_steps_alone(tmp_path: Path) -> None:
    path = model_file(tmp_path / "m.safetensors")
    record = FittedGrid(2, "multistep", (0.99, 0.4), model=fingerprint(load(str(path)).model))
    weights.write_sampling(path, path, SamplingConfig(steps=3, fitted=(record,)))
    model = load(str(path))
    fitted = to_bytes(sample(model.model, SHAPE, steps=2, grid=[0.99, 0.4, 0.0]))
    for grid in (None, "fitted"):
        assert torch.equal(model.sample(5, steps=2, grid=grid), fitted)
    karras = to_bytes(sample(model.model, SHAPE, steps=2, grid="karras"))
    assert not torch.equal(karras, fitted)
    assert torch.equal(model.sample(5, steps=2, grid="karras"), karras)
    assert model.settings(model.choose(2), 0)["grid"] == "fitted"
    assert model.settings(model.choose(), 0)["grid"] == "karras"  # 3 is the model's own
    with pytest.raises(ValueError, match=r"no grid is fitted for 3 steps of 'multistep'; fitted: 2 \(multistep\)"):
        model.batches(1, grid="fitted")
    with pytest.raises(ValueError, match="no grid is fitted for 2 steps of 'ode'"):
        model.batches(1, steps=2, grid="fitted", solver="ode")


def test_the_solver_that_a_grid_is_fitted_for_is_the_default_at_its_steps(tmp_path: Path) -> None:
    path = model_file(tmp_path / "m.safetensors")
    own = fingerprint(load(str(path)).model)
    records = (FittedGrid(2, "multistep", (0.99, 0.4), model=own), FittedGrid(3, "ode", (0.99, 0.4, 0.1), model=own))
    weights.write_sampling(path, path, SamplingConfig(steps=3, solver="ipndm-4", fitted=records))
    model = load(str(path))
    chosen = {calls: model.choose(calls).solver.name for calls in (None, 2, 3, 4)}
    assert chosen == {None: "ode", 2: "multistep", 3: "ode", 4: "ipndm-4"}
    assert model.choose(2, grid="karras").solver.name == "ipndm-4"
    assert model.choose(2, "deis-3").solver.name == "deis-3"
    fitted = to_bytes(sample(model.model, SHAPE, steps=2, grid=[0.99, 0.4, 0.0]))
    assert torch.equal(model.sample(5, steps=2), fitted)
    one, other = records[0], replace(records[0], solver="ipndm-4")
    weights.write_sampling(path, path, SamplingConfig(steps=3, solver="ipndm-4", fitted=(one, other)))
    assert load(str(path)).choose(2).solver.name == "ipndm-4"  # the model's own goes before others


def test_times_of_the_callers_own(model: Generation) -> None:
    times = [1.0, 0.6, 0.2, 0.0]
    assert torch.equal(model.sample(2, grid=times), model.sample(2, grid=Times(tuple(times))))
    assert model.settings(model.choose(3, grid=times), 0)["grid"] == times


def test_labels_are_one_a_picture_or_the_classes_in_turn(classes: Generation) -> None:
    expected = sample(classes.model, SHAPE, steps=2, condition=Condition(labels=torch.tensor([0, 1, 2, 0, 1])))
    assert torch.equal(classes.sample(5, steps=2), to_bytes(expected))
    one = classes.sample(5, steps=2, labels=[2, 2, 0, 0, 1])
    two = torch.cat(list(classes.batches(5, steps=2, labels=[2, 2, 0, 0, 1], batch=2)))
    assert int((one.int() - two.int()).abs().max()) <= 1
    assert not torch.equal(one, to_bytes(expected))


@pytest.mark.parametrize("label", [3, -1, 10**12])
def test_a_label_beyond_the_classes_names_the_allowed_ones(classes: Generation, label: int) -> None:
    with pytest.raises(ValueError, match=f"a label must be a whole number from 0 to 2, not {label}"):
        classes.batches(2, labels=[0, label])
    with pytest.raises(ValueError, match="there are 1 labels for 2 pictures"):
        classes.batches(2, labels=[0])


def test_a_callback_sees_every_call(model: Generation) -> None:
    seen: list[Step] = []
    model.sample(3, batch=2, steps=2, callback=seen.append)
    assert [(step.step, len(step.x)) for step in seen] == [(0, 2), (1, 2), (0, 1), (1, 1)]


def test_a_law_of_the_users_own_replaces_the_models(tmp_path: Path) -> None:
    path = model_file(tmp_path / "m.safetensors")
    squared = Process(Custom(lambda t: t**2), Wiener())
    named = Process(law("linear_rising"), Wiener())
    asked = {"num": 2, "steps": 3, "solver": "ode", "grid": "uniform"}
    one = load(str(path), process=squared).sample(**asked)  # type: ignore[arg-type]
    two = load(str(path), process=named).sample(**asked)  # type: ignore[arg-type]
    assert int((one.int() - two.int()).abs().max()) <= 1
    assert not torch.equal(one, load(str(path)).sample(**asked))  # type: ignore[arg-type]


def test_weights_that_do_not_fit_or_are_no_numbers_are_named(tmp_path: Path) -> None:
    given, other = content(), content(width=16)
    path = weights.write(tmp_path / "m.safetensors", weights.Weights(given.config, other.tensors))
    with pytest.raises(ValueError, match=r"m\.safetensors: the weights do not fit the model: network\..* instead of "):
        load(str(path))
    broken = {name: tensor.clone() for name, tensor in given.tensors.items()}
    name = next(iter(broken))
    stored = {**broken, name: torch.full_like(broken[name], torch.nan)}
    from safetensors.torch import save_file

    text = json.dumps(
        {
            "format": weights.FORMAT,
            "kind": "float32",
            "model": attenua.config.to_dict(given.config),
            "sampling": {},
            "record": {},
        }
    )
    save_file(stored, path, {"attenua": text})
    with pytest.raises(ValueError, match=f"is damaged: {name} has values that are no finite numbers"):
        load(str(path))


def test_a_model_of_another_task_does_not_generate(tmp_path: Path) -> None:
    given = content(condition_channels=3)
    config = replace(given.config, task=TaskConfig(name="inpainting"))
    path = weights.write(tmp_path / "m.safetensors", replace(given, config=config))
    with pytest.raises(ValueError, match="is a model for inpainting, and this needs one that generates"):
        load(str(path))


def test_the_shipped_model_samples() -> None:
    model = attenua.load("cifar10")
    one, two = model.sample(2, steps=2, seed=0), model.sample(1, steps=2, seed=0)
    assert (one.dtype, tuple(one.shape)) == (torch.uint8, (2, 3, 32, 32))
    assert int((one[:1].int() - two.int()).abs().max()) <= 1
    assert model.model.calls == 4
    assert not model.model.training
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_what_cannot_be_found_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown model 'cifar11' \(did you mean 'cifar10'\?\); known: .*cifar10"):
        attenua.load("cifar11")
    with pytest.raises(FileNotFoundError, match=r"no model file at .*none\.safetensors"):
        attenua.load(str(tmp_path / "none.safetensors"))
