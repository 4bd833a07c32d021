"""Configurations: they survive being written down, and what is wrong with one is said by name."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from attenua.config import (
    Config,
    ModelConfig,
    NetworkConfig,
    ObjectiveConfig,
    ProcessConfig,
    SamplingConfig,
    TrainingConfig,
    from_dict,
    override,
    to_dict,
)
from attenua.presets import PRESETS, preset

CONFIG = Config(
    ModelConfig(NetworkConfig(width=64, multipliers=(1, 2), attention=(), decoders=2, split="spatial"), s_d=0.25),
    ObjectiveConfig(times="uniform", final_share=0.1),
    TrainingConfig(ema=(0.05,), compile=True, betas=(0.8, 0.95)),
    SamplingConfig(steps=3, solver="posterior", eta=0.5),
)


@pytest.mark.parametrize("config", [Config(), CONFIG, *(preset(name) for name in PRESETS)], ids=lambda _: "")
def test_a_configuration_survives_being_written_down(config: Config) -> None:
    plain = json.loads(json.dumps(to_dict(config)))
    assert from_dict(Config, plain) == config
    assert hash(from_dict(Config, plain)) == hash(config)  # tuples, not lists


def test_absent_fields_keep_their_defaults() -> None:
    assert from_dict(Config, {}) == Config()
    assert from_dict(Config, {"model": {"network": {"width": 64}}}).model.network == NetworkConfig(width=64)


def test_configurations_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.model.s_d = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("training.batch=256", "training.batch", 256),
        ("training.batch=256.0", "training.batch", 256),
        ("training.rate=1", "training.rate", 1.0),
        ("training.rate=1e-4", "training.rate", 1e-4),
        ("training.compile=null", "training.compile", None),
        ("training.compile=false", "training.compile", False),
        ("training.ema=[0.1, 0.2]", "training.ema", (0.1, 0.2)),
        ("training.betas=[0, 0.9]", "training.betas", (0.0, 0.9)),
        ("training.precision=bfloat16", "training.precision", "bfloat16"),
        ("model.network.multipliers=[1,2]", "model.network.multipliers", (1, 2)),
        ("model.network.attention=[]", "model.network.attention", ()),
        ("model.network.decoders=1", "model.network.decoders", 1),
        ("model.network.decoders=1.0", "model.network.decoders", 1),
        ("model.process.law=free_slope", "model.process.law", "free_slope"),
        ('model.process.law="quadratic"', "model.process.law", "quadratic"),
        ("sampling.eta=1", "sampling.eta", 1.0),
        ("sampling.eta=null", "sampling.eta", None),
    ],
)
def test_an_override_has_the_type_of_its_field(setting: str, path: str, value: Any) -> None:
    found: Any = override(CONFIG, [setting])
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, tuple):
        assert [type(item) for item in found] == [type(item) for item in value]


def test_overrides_change_nothing_else_and_the_last_one_counts() -> None:
    found = override(CONFIG, ["training.batch=8", "training.batch=16"])
    assert found == dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, batch=16))
    assert override(CONFIG, []) == CONFIG


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.batch", r"setting 'training.batch' is not of the form section.field=value"),
        ("=3", r"setting '=3' is not of the form section.field=value"),
        (
            "training.bacth=3",
            r"unknown configuration field 'training.bacth' \(did you mean 'batch'\?\); known: images,",
        ),
        ("trainnig.batch=3", r"unknown configuration section 'trainnig' \(did you mean 'training'\?\); known: model,"),
        ("model.netwrok.width=3", r"unknown configuration section 'model.netwrok'.*known: network, process"),
        ("batch=3", r"unknown configuration field 'batch'.*known: model, objective, training, sampling"),
        ("training=3", r"'training' is a section; set one of its fields: images, batch"),
        ("training.batch.size=3", r"unknown configuration section 'training.batch'"),
        ("training.batch=many", r"training.batch is 'many'; allowed is a whole number"),
        ("training.batch=2.5", r"training.batch is 2.5; allowed is a whole number"),
        ("training.batch=true", r"training.batch is True; allowed is a whole number"),
        ("training.batch=", r"training.batch is ''; allowed is a whole number"),
        ("training.batch=null", r"training.batch is None; allowed is a whole number"),
        ("training.rate=fast", r"training.rate is 'fast'; allowed is a number"),
        ("training.rate=true", r"training.rate is True; allowed is a number"),
        ("training.flip=1", r"training.flip is 1; allowed is true or false"),
        ("training.compile=maybe", r"training.compile is 'maybe'; allowed is true or false"),
        ("training.ema=0.1", r"training.ema is 0.1; allowed is a list such as \[1, 2\]"),
        ("training.ema=[0.1,x]", r"training.ema is '\[0.1,x\]'; allowed is a list"),
        ('training.ema=["x"]', r"training.ema is 'x'; allowed is a number"),
        ("training.betas=[0.9]", r"training.betas is \[0.9\]; allowed is a list of 2"),
        ("training.precision=float8", r"training.precision is 'float8'; allowed: auto, bfloat16, float32, float64"),
        ("model.network.decoders=3", r"model.network.decoders is 3; allowed: 1, 2"),
        ("model.network.decoders=true", r"model.network.decoders is True; allowed: 1, 2"),
        ("model.network.norm=layer", r"model.network.norm is 'layer'; allowed: group, rms"),
        ("model.process.law=[1]", r"model.process.law is \[1\]; allowed is a word"),
    ],
)
def test_a_setting_that_is_wrong_is_named_with_what_is_allowed(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        override(CONFIG, [setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.network.width=1", r"network.width is 1; allowed is a whole number from 2"),
        ("model.network.blocks=-1", r"network.blocks is -1; allowed is a whole number from 1"),
        ("model.network.multipliers=[]", r"network.multipliers is \(\); allowed are one or more numbers from 1"),
        ("model.network.multipliers=[1,0]", r"network.multipliers is \(1, 0\); allowed"),
        ("model.network.dropout=1", r"network.dropout is 1.0; allowed is 0 <= dropout < 1"),
        ("model.network.dropout=NaN", r"network.dropout is nan; allowed"),
        ("model.network.image_size=33", r"network.image_size is 33; it must be a multiple of 2"),
        ("model.network.attention=[7]", r"network.attention names size 7; the levels have sizes \[32, 16\]"),
        ("model.network.classes=-1", r"network.classes is -1; allowed is a whole number from 0"),
        ("model.network.augment_labels=-1", r"network.augment_labels is -1; allowed is a whole number from 0"),
        ("model.network.middle=-1", r"network.middle is -1; allowed is a whole number from 0"),
        ("model.s_d=0", r"model.s_d is 0.0; allowed is a finite number above 0"),
        ("model.s_d=Infinity", r"model.s_d is inf; allowed is a finite number above 0"),
        ("objective.final_share=1", r"objective.final_share is 1.0; allowed is 0 <= share < 1"),
        ("objective.log_deviation=0", r"objective.log_deviation is 0.0; allowed is a finite number above 0"),
        ("objective.log_deviation=NaN", r"objective.log_deviation is nan; allowed is a finite number above 0"),
        ("objective.log_mean=NaN", r"objective.log_mean is nan; allowed is a finite number"),
        ("objective.l1=-1", r"objective.l1 is -1.0; allowed is a finite number from 0"),
        ("objective.perceptual=Infinity", r"objective.perceptual is inf; allowed is a finite number from 0"),
        ("training.images=0", r"training.images is 0; allowed is a whole number from 1"),
        ("training.warmup=-1", r"training.warmup is -1; allowed is a whole number from 0"),
        ("training.rate=0", r"training.rate is 0.0; allowed is a finite number above 0"),
        ("training.rate=NaN", r"training.rate is nan; allowed is a finite number above 0"),
        ("training.rate=Infinity", r"training.rate is inf; allowed is a finite number above 0"),
        pytest.param("training.rate=1" + "0" * 400, r"training.rate is inf; allowed is a finite", id="huge"),
        ("training.clip=0", r"training.clip is 0.0; allowed is a number above 0"),
        ("training.betas=[0.9,1]", r"training.betas is \(0.9, 1.0\); allowed are two numbers from 0, below 1"),
        ("training.weight_decay=-1", r"training.weight_decay is -1.0; allowed is a finite number from 0"),
        ("training.constant=2", r"training.constant is 2.0; allowed is 0 <= share <= 1"),
        ("training.augment=-0.1", r"training.augment is -0.1; allowed is 0 <= probability <= 1"),
        ("training.ema=[]", r"training.ema is \(\); allowed are relative widths above 0 and below 0.28"),
        ("training.ema=[0.3]", r"training.ema is \(0.3,\); allowed are relative widths"),
        ("sampling.steps=0", r"steps is 0; allowed is a whole number from 1"),
        ('sampling.fitted=[{"steps":2,"times":[0.9]}]', r"sampling.fitted.solver is missing; it has no default"),
        (
            'sampling.fitted=[{"steps":2,"solver":"ode","times":[],"weights":[1]}]',
            r"sampling.fitted.times is \(\); allowed are one or more",
        ),
    ],
)
def test_a_value_out_of_range_is_named_with_the_range(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(CONFIG, [setting])


def test_attention_must_share_the_channels_among_its_heads() -> None:
    with pytest.raises(ValueError, match=r"network.heads is 3; it must divide every level's channels, 128"):
        NetworkConfig(heads=3)
    assert NetworkConfig(heads=3, attention=()).heads == 3


def test_windows_must_share_the_levels_that_attend() -> None:
    with pytest.raises(ValueError, match=r"network.window is 3; it must divide every size that attends, 8"):
        NetworkConfig(window=3)
    assert NetworkConfig(window=3, attention=()).window == 3


def test_plain_values_of_the_wrong_form_are_named() -> None:
    with pytest.raises(ValueError, match=r"model is 3; allowed is a section with fields"):
        from_dict(Config, {"model": 3})
    with pytest.raises(ValueError, match=r"unknown configuration field 'model.depth'"):
        from_dict(ModelConfig, {"depth": 3}, "model.")


def test_sizes_of_the_levels() -> None:
    assert NetworkConfig().sizes == (32, 16, 8)
    assert NetworkConfig(image_size=64, patch=2, multipliers=(1, 2), attention=(16,)).sizes == (32, 16)


def test_processes_are_named_not_checked_here() -> None:
    """Names are looked up where the laws are; the configuration knows nothing of them."""
    assert ProcessConfig(law="cubic").law == "cubic"
    assert math.isclose(ProcessConfig().rate, 4.0)
