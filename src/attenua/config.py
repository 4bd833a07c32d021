"""Configurations: frozen dataclasses that read from and write to plain dictionaries, and typed overrides."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union

C = TypeVar("C")

LARGEST_WIDTH = 0.28
"""Relative widths of averages are below this: a plain mean, the widest of their profiles, has 1/sqrt(12) = 0.289."""


@dataclass(frozen=True)
class NetworkConfig:
    """A U-Net: one encoder, one or two decoders. Sizes are in pixels of the training picture.

    width: channels of the first level; multipliers: one a level, of width; blocks: residual blocks a level each way;
    attention: picture sizes at which blocks attend; patch: pixels a side that become channels at the input (1: none);
    skips "blocks" keeps one skip a block, "all" one more a level (the input or the downsampling) and one more block on
    the way up; resample: sizes change by one convolution, or by a residual block (BigGAN's); middle: residual blocks
    at a decoder's start, the first with attention where the last level attends; split: what parts the bottom features
    for two decoders; norm "group" is GroupNorm with statistics in float32, "rms" RMSNorm a pixel. window: side of the
    windows in which blocks attend, in pixels of their level (0: the whole picture). A condition picture of
    condition_channels (0: none), condition_scale times smaller than the state, has an encoder of condition_blocks
    blocks a level. gains: a head is what the decoder says plus the state times a factor a pixel, which the decoder says
    as well. features: the encoder also uses an ImageNet network's feature_stages first maps, of the picture's first
    three channels, RGB: "efficientnet-lite0" (strides 2, 4, 8, 16, 32) or "vgg16" (1, 2, 4, 8, 16). fusion "add": what
    the encoder says is added to the state's features; "attention": it also asks them, in the levels that attend.
    filter: how far a frequency filter in front of the decoders sees, in pixels of the last level (0: none).
    """

    image_size: int = 32
    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (8,)
    heads: int = 4
    patch: int = 1
    skips: Literal["blocks", "all"] = "blocks"
    resample: Literal["conv", "block"] = "conv"
    middle: int = 0
    decoders: Literal[1, 2] = 1
    split: Literal["none", "spatial"] = "none"
    norm: Literal["group", "rms"] = "group"
    dropout: float = 0.1
    classes: int = 0
    augment_labels: int = 0
    window: int = 0
    condition_channels: int = 0
    condition_scale: int = 1
    condition_blocks: int = 2
    gains: bool = False
    features: Literal["none", "efficientnet-lite0", "vgg16"] = "none"
    feature_stages: int = 5
    fusion: Literal["add", "attention"] = "add"
    filter: int = 0

    def __post_init__(self) -> None:
        least = {"image_size": 1, "channels": 1, "width": 2, "blocks": 1, "heads": 1, "patch": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"network.{name} is {getattr(self, name)}; allowed is a whole number from {lowest}")
        for name in ("classes", "augment_labels", "middle", "filter"):
            if getattr(self, name) < 0:
                raise ValueError(f"network.{name} is {getattr(self, name)}; allowed is a whole number from 0")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"network.multipliers is {self.multipliers}; allowed are one or more numbers from 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"network.dropout is {self.dropout}; allowed is 0 <= dropout < 1")
        if self.window < 0 or self.condition_channels < 0 or self.condition_blocks < 0:
            raise ValueError("network.window, condition_channels and condition_blocks are whole numbers from 0")
        if self.condition_channels and self.resample != "conv":
            raise ValueError(f"network.resample is {self.resample!r}; with a condition picture it must be 'conv'")
        if self.condition_scale < 1 or (self.condition_channels and self.patch % self.condition_scale):
            raise ValueError(f"network.condition_scale is {self.condition_scale}; it must divide patch, {self.patch}")
        if self.features != "none":
            self._check_features()
        step = self.patch * 2 ** (len(self.multipliers) - 1)
        if self.image_size % step:
            raise ValueError(f"network.image_size is {self.image_size}; it must be a multiple of {step}")
        sizes = self.sizes
        for size in self.attention:
            if size not in sizes:
                raise ValueError(f"network.attention names size {size}; the levels have sizes {list(sizes)}")
            if self.window and size % self.window:
                raise ValueError(f"network.window is {self.window}; it must divide every size that attends, {size}")
        for multiplier in self.multipliers:
            if self.attention and self.width * multiplier % self.heads:
                raise ValueError(
                    f"network.heads is {self.heads}; it must divide every level's channels, {self.width * multiplier}"
                )

    def _check_features(self) -> None:
        if self.condition_channels < 3:
            raise ValueError(
                f"network.condition_channels is {self.condition_channels}; with features it is at least 3, RGB first"
            )
        if not 1 <= self.feature_stages <= 5:
            raise ValueError(f"network.feature_stages is {self.feature_stages}; allowed is 1 to 5")
        stride = 2 ** (self.feature_stages if self.features == "efficientnet-lite0" else self.feature_stages - 1)
        fold, step = self.patch // self.condition_scale, self.condition_scale * stride
        if fold & (fold - 1):
            raise ValueError(f"network.patch / condition_scale is {fold}; with features it must be a power of two")
        if self.image_size % step:
            raise ValueError(
                f"network.image_size is {self.image_size}; with {self.feature_stages} feature stages it must be a "
                f"multiple of {step}"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of every level, in pixels."""
        return tuple(self.image_size // self.patch // 2**level for level in range(len(self.multipliers)))


@dataclass(frozen=True)
class ProcessConfig:
    """The process and the heads: names of theory.md's laws. rate belongs to the exponential law alone.

    precondition "rule": the linear-Gaussian rule (EDM's, too); "paper": as published; "epsilon" and "velocity": heads
    that say the noise (DDPM) or eps - x_0 (rectified flow), for comparison.
    skip_deviation: the deviation of x_0 for which the rule sets its skip, in units of s_d, 0.001 to 1. Below 1 for
    tasks whose condition tells most of x_0.
    """

    law: str = "constant"
    noise: str = "wiener"
    rate: float = 4.0
    precondition: str = "rule"
    combination: str = "mean"
    skip_deviation: float = 1.0


@dataclass(frozen=True)
class TaskConfig:
    """What a model is for: one of the tasks of attenua.tasks.

    scale: the factor of super-resolution. degradation: what its low resolution is made by, the benchmarks' bicubic, or
    a random blur, noise and JPEG ("photo"). annotators: what edges are, the mean over those who drew them, or what one
    of them drew, another one every time.
    """

    name: Literal["generation", "super-resolution", "inpainting", "edges", "saliency"] = "generation"
    scale: int = 1
    degradation: Literal["bicubic", "photo"] = "bicubic"
    annotators: Literal["mean", "one"] = "mean"

    def __post_init__(self) -> None:
        if self.name == "super-resolution" and self.scale < 2:
            raise ValueError(f"task.scale is {self.scale}; allowed is a whole number from 2")
        if self.name != "super-resolution" and (self.scale, self.degradation) != (1, "bicubic"):
            raise ValueError(f"task.scale and task.degradation belong to super-resolution, not to {self.name}")
        if self.name != "edges" and self.annotators != "mean":
            raise ValueError(f"task.annotators belongs to edges, not to {self.name}")


@dataclass(frozen=True)
class ModelConfig:
    """A whole model: network, process, the deviation s_d of the data it was made for, and its task."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    s_d: float = 0.5
    task: TaskConfig = field(default_factory=TaskConfig)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.s_d) and self.s_d > 0):
            raise ValueError(f"model.s_d is {self.s_d}; allowed is a finite number above 0")


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which times are drawn, and how the heads are weighed.

    times "lognormal": ln n ~ N(log_mean + ln(2 s_d), log_deviation); "uniform": t uniform on [1e-4, 1] (paper);
    "cosine": uniform in the time of the cosine schedule (DDPM); "straight": uniform in n/(1 + n) (rectified flow).
    final_share: the share of samples drawn at t = 1 exactly. weights "unit": 1 on the raw heads; "paper": 1/t and
    1/(1 - t + 1e-4) on the estimates; "revised": D/t and D/(1 - t + 1e-4). l1, perceptual: weights of the (1 - t)^2
    terms on the paper's combination (perceptual needs the eval extra).
    """

    times: Literal["lognormal", "uniform", "cosine", "straight"] = "lognormal"
    log_mean: float = -1.0
    log_deviation: float = 1.4
    final_share: float = 0.0
    weights: Literal["unit", "paper", "revised"] = "unit"
    l1: float = 0.0
    perceptual: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.final_share < 1:
            raise ValueError(f"objective.final_share is {self.final_share}; allowed is 0 <= share < 1")
        if not math.isfinite(self.log_mean):
            raise ValueError(f"objective.log_mean is {self.log_mean}; allowed is a finite number")
        if not (math.isfinite(self.log_deviation) and self.log_deviation > 0):
            raise ValueError(f"objective.log_deviation is {self.log_deviation}; allowed is a finite number above 0")
        for name in ("l1", "perceptual"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"objective.{name} is {getattr(self, name)}; allowed is a finite number from 0")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; time is counted in images.

    images: length of the run; the rate climbs over `warmup` images, stays to the share `constant` of the run, and falls
    linearly to zero. micro_batch: the most samples a device takes at once (0: its whole share). ema: relative widths of
    the averages; snapshots: how many of each average are kept for post-hoc reconstruction. precision "auto": bfloat16
    products where the device has units for them, else float32; compile null: on CUDA only. feature_rate: what the rate
    is multiplied by for pretrained features (0: they stay as they are). crops, of photographs: "any", any place and all
    eight symmetries of the square; "upright", any place, mirrored at most; "middle", upright and near the middle, for
    pictures that show one thing there, such as faces.
    """

    images: int = 20_000_000
    batch: int = 512
    micro_batch: int = 0
    rate: float = 1e-3
    feature_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 150_000
    constant: float = 0.4
    clip: float = 1.0
    ema: tuple[float, ...] = (0.05, 0.10)
    snapshots: int = 8
    precision: Literal["auto", "bfloat16", "float32", "float64"] = "auto"
    compile: bool | None = None
    flip: bool = True
    augment: float = 0.0
    crops: Literal["any", "upright", "middle"] = "any"
    seed: int = 0
    log_every: int = 50_000
    checkpoint_every: int = 1_000_000
    keep: int = 2
    sample_every: int = 2_000_000
    fid_every: int = 0
    fid_samples: int = 10_000

    def __post_init__(self) -> None:
        for name in ("images", "batch", "log_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}; allowed is a whole number from 1")
        for name in ("micro_batch", "warmup", "snapshots", "sample_every", "fid_every", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"training.{name} is {getattr(self, name)}; allowed is a whole number from 0")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"training.rate is {self.rate}; allowed is a finite number above 0")
        if not self.clip > 0:
            raise ValueError(f"training.clip is {self.clip}; allowed is a number above 0")
        if not 0 <= self.feature_rate < math.inf:
            raise ValueError(f"training.feature_rate is {self.feature_rate}; allowed is a finite number from 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas is {self.betas}; allowed are two numbers from 0, below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"training.weight_decay is {self.weight_decay}; allowed is a finite number from 0")
        if not 0 <= self.constant <= 1:
            raise ValueError(f"training.constant is {self.constant}; allowed is 0 <= share <= 1")
        if not 0 <= self.augment <= 1:
            raise ValueError(f"training.augment is {self.augment}; allowed is 0 <= probability <= 1")
        if not self.ema or not all(0 < width < LARGEST_WIDTH for width in self.ema):
            raise ValueError(
                f"training.ema is {self.ema}; allowed are relative widths above 0 and below {LARGEST_WIDTH}"
            )


@dataclass(frozen=True)
class FittedGrid:
    """A grid found for one model, one solver and one number of network calls (`attenua fit-grid`).

    times: falling, without the last 0; weights: what each step weighs the calls before it by, newest first, as many a
    step as the solver can use (0 where there is no such call; none: the solver's own); mean: the start has a times the
    data mean; model: the fingerprint of the network and process that it was found for. distance, unfitted: root mean
    square distance of end points to those of a fine reference, on trajectories that the fit did not see: with this
    grid and with the default one; measure: what is compared, "pixels" (picture values) or "lpips".
    """

    steps: int
    solver: str
    times: tuple[float, ...]
    weights: tuple[float, ...] = ()
    mean: bool = False
    model: str = ""
    distance: float | None = None
    unfitted: float | None = None
    measure: str = "pixels"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampling.fitted.steps is {self.steps}; allowed is a whole number from 1")
        if not self.times:
            raise ValueError("sampling.fitted.times is (); allowed are one or more falling times")
        if len(self.weights) % len(self.times):
            count = len(self.times)
            raise ValueError(
                f"sampling.fitted has {len(self.weights)} weights for {count} times; allowed are as many for each time"
            )


@dataclass(frozen=True)
class SamplingConfig:
    """How a model samples when nothing is asked for. eta None: the solver's own (1 for posterior, else 0).

    fitted: at most one grid for a solver and a number of steps; it goes before `grid`.
    """

    steps: int = 10
    solver: str = "multistep"
    grid: str = "karras"
    eta: float | None = None
    fitted: tuple[FittedGrid, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; allowed is a whole number from 1")


@dataclass(frozen=True)
class Config:
    """A preset: everything that a training run needs but the data."""

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain dictionaries, lists and numbers."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return result


def from_dict(kind: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Return the dataclass `kind` from plain values; absent fields keep their defaults.

    where: what stands before the names in errors ("model."). Raises ValueError that names an unknown field and lists
    the known ones, a value of the wrong type, or a field without default that is absent.
    """
    hints = typing.get_type_hints(kind)
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    arguments = {}
    for name, value in values.items():
        path = f"{where}{name}"
        if name not in known:
            raise ValueError(f"unknown configuration field {path!r}{closest(name, known)}; known: {', '.join(known)}")
        arguments[name] = _convert(hints[name], value, path)
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        bare = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if bare and item.name not in arguments:
            raise ValueError(f"{where}{item.name} is missing; it has no default")
    return kind(**arguments)


def override(config: C, settings: Iterable[str]) -> C:
    """Return the configuration with settings such as "training.batch=256" applied.

    Values are JSON (true, 0.5, [1,2], null), else plain words. Raises ValueError as from_dict does.
    """
    values = to_dict(config)
    for setting in settings:
        path, sign, text = setting.partition("=")
        if not sign or not path:
            raise ValueError(f"setting {setting!r} is not of the form section.field=value")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *sections, name = path.split(".")
        place = values
        for depth, section in enumerate(sections):
            inner = place.get(section)
            if not isinstance(inner, dict):
                known = [key for key, item in place.items() if isinstance(item, dict)]
                at = ".".join(sections[: depth + 1])
                raise ValueError(
                    f"unknown configuration section {at!r}{closest(section, known)}; known: {', '.join(known)}"
                )
            place = inner
        if isinstance(place.get(name), dict):
            raise ValueError(f"{path!r} is a section; set one of its fields: {', '.join(place[name])}")
        place[name] = value
    return from_dict(type(config), values)


def closest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'NAME'?)" with the known name nearest to an unknown one; "" where none is near."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _convert(hint: Any, value: Any, path: str) -> Any:
    """Return a plain value as the type that a field's hint asks for."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} is {value!r}; allowed is a section with fields")
        return from_dict(typing.cast("type[Any]", hint), value, f"{path}.")
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices or isinstance(value, bool):
            raise ValueError(f"{path} is {value!r}; allowed: {', '.join(map(str, choices))}")
        return choices[choices.index(value)]  # 1 for 1.0
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(kind for kind in typing.get_args(hint) if kind is not type(None)), value, path)
    if origin is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path} is {value!r}; allowed is a list such as [1, 2]")
        if inner[-1] is Ellipsis:
            return tuple(_convert(inner[0], item, path) for item in value)
        if len(inner) != len(value):
            raise ValueError(f"{path} is {value!r}; allowed is a list of {len(inner)}")
        return tuple(_convert(kind, item, path) for kind, item in zip(inner, value, strict=True))
    return _number(hint, value, path)


def _number(hint: Any, value: Any, path: str) -> Any:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= sys.float_info.max else math.inf  # which every field refuses by its name
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is str and isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        raise ValueError(f"{path} is {value!r}; allowed is {names[hint]}")
    return value
