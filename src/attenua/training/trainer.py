"""The trainer: one loop over images, from a data set in memory to averaged weights in a run folder."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from attenua import images as pictures
from attenua import reports, weights
from attenua.config import Config, TrainingConfig, to_dict
from attenua.data import ImageSet
from attenua.model import AttenuationModel, build_process
from attenua.networks import Condition
from attenua.sampling import choose_grid, sample, solver, to_bytes
from attenua.training import checkpoint, distributed
from attenua.training.distributed import World
from attenua.training.ema import Average, reconstruction
from attenua.training.objective import Distance, Objective
from attenua.training.source import ImageSource, Source

FEATURES = "encoder.features."
"""How the names of the condition encoder's pretrained parameters begin."""

CHECK_EVERY = 20
"""Steps between two questions to the other processes whether one of them was told to stop."""


class Progress(NamedTuple):
    """What a callback sees at every log line: images seen and wanted, mean loss, images a second, seconds left."""

    images: int
    total: int
    loss: float
    images_per_second: float
    seconds_left: float


class TrainingError(ValueError):
    """Training cannot go on; the message says since when and what is kept."""


def mix(*values: int) -> int:
    """Return a 63-bit seed from whole numbers; unrelated for neighbouring values."""
    digest = hashlib.blake2b(",".join(map(str, values)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rate(config: TrainingConfig, images: int) -> float:
    """Return the learning rate after `images`: linear warm-up, constant, linear to zero at config.images."""
    warm = min(1.0, (images + config.batch) / config.warmup) if config.warmup else 1.0
    start = config.constant * config.images
    falling = min(1.0, (config.images - images) / max(config.images - start, 1))
    return config.rate * warm * max(falling, 0.0)


def rate_groups(parameters: Mapping[str, torch.nn.Parameter], factor: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups: pretrained features, where there are any, learn at `factor` of the rate."""
    features = [value for name, value in parameters.items() if name.startswith(FEATURES)]
    others = [value for name, value in parameters.items() if not name.startswith(FEATURES)]
    groups = [{"params": others, "factor": 1.0}]
    return [*groups, {"params": features, "factor": factor}] if features else groups


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware (emulation is hundreds of times slower)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def resolve(config: Config, device: torch.device) -> Config:
    """Return the configuration with "auto" precision and compilation decided for a device.

    Raises ValueError for bfloat16 on a device without units for it, and for a section `sampling` that names no solver
    and grid for the process: found here, and not when the run draws its first samples.
    """
    rule = solver(config.sampling.solver, config.sampling.eta)
    rule.check(build_process(config.model))
    choose_grid(rule, config.sampling.grid)
    precision, compiled = config.training.precision, config.training.compile
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    if precision == "bfloat16" and not has_bfloat16(device):
        raise ValueError(
            f"training.precision is bfloat16, but {device} has no units for it; allowed: float32, float64, auto"
        )
    if compiled is None:
        compiled = device.type == "cuda"
    return replace(config, training=replace(config.training, precision=precision, compile=compiled))


class Trainer:
    """Trains one model in a run folder; the same call again resumes.

    data: uint8 pictures, or a Source of examples, kept on the device; init: a model file's weights to start from (its
    s_d is kept); features: pretrained weights for the condition encoder's features, where there is no init;
    perceptual: a distance for objective.perceptual; evaluate: called with the averaged model and the image count at
    training.fid_every, returns figures for the log; on_progress: called at every log line on rank 0.
    Raises ValueError where data, run folder and configuration do not fit each other.
    """

    def __init__(
        self,
        config: Config,
        data: ImageSet | Source,
        run_dir: Path,
        *,
        world: World | None = None,
        init: weights.Weights | None = None,
        features: Mapping[str, Tensor] | None = None,
        perceptual: Distance | None = None,
        evaluate: Callable[[AttenuationModel, int], dict[str, float]] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.world = world or World(0, 1, torch.device("cpu"))
        source = ImageSource(data, config) if isinstance(data, ImageSet) else data
        source.check(config)
        config = replace(config, model=replace(config.model, s_d=round(source.deviation(), 6)))
        config = resolve(config, self.world.device)
        if init is not None:
            config = replace(config, model=replace(config.model, s_d=init.config.s_d))
            _same_network(config, init)
        self.config, self.run_dir, self.source = config, run_dir, source
        self.evaluate, self.on_progress = evaluate, on_progress
        training = config.training
        device = self.world.device
        self.share = self.world.share(training.batch)
        torch.manual_seed(mix(training.seed, 0))
        self.dtype = torch.float64 if training.precision == "float64" else torch.float32
        self.model = AttenuationModel(config.model)
        self.model.mu.copy_(source.mean())
        self.model.data_mean.copy_(source.data_mean())
        if init is not None:
            load_network(self.model, init.tensors)
        elif features is not None:
            self.model.network.load_features(features)
        self.model.to(device=device, dtype=self.dtype)
        self.model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = Objective(self.model, config.objective, perceptual, source.weigh).to(device)
        self.parameters = dict(self.model.network.named_parameters())
        if training.compile:
            self.model.network.compile()
        self.forward: torch.nn.Module = self.objective
        if self.world.size > 1:
            self.forward = distributed.replicate(self.objective, device)
        self.optimizer = torch.optim.AdamW(
            rate_groups(self.parameters, training.feature_rate),
            lr=training.rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
            fused=device.type == "cuda",
        )
        self.averages = [Average(width, list(self.parameters.values())) for width in training.ema]
        self.learned = checkpoint.Learned(self.parameters, self.averages, self.optimizer)
        self.data_sha256 = source.sha256()
        self.start = None if init is None else dict(init.record)
        source.place(device)
        if training.compile:
            source.compile()
        self.generator = torch.Generator(device)
        self.step, self.seen, self.seconds = 0, 0, 0.0
        self.stopping = False
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._loss = self._broken = torch.zeros(())
        self._steps = 0
        self._reset_loss()
        self._resume()

    # ---- one step -------------------------------------------------------------------------------------------------

    def indices(self, start: int, count: int) -> Tensor:
        """Return which pictures the images start..start+count of the run are: a new permutation every pass."""
        length = len(self.source)
        parts = []
        while count:
            epoch, at = divmod(start, length)
            if self.order[0] != epoch:
                generator = torch.Generator().manual_seed(mix(self.config.training.seed, 1, epoch))
                self.order = (epoch, torch.randperm(length, generator=generator).to(self.world.device))
            take = min(count, length - at)
            parts.append(self.order[1][at : at + take])
            start, count = start + take, count - take
        return torch.cat(parts)

    def train_step(self) -> Tensor:
        """Take one optimizer step over the next global batch and return this process's mean loss (on the device).

        Every random number is drawn for the global batch from (seed, step) and then shared out, so that the number of
        processes does not change the run.
        """
        training = self.config.training
        self.generator.manual_seed(mix(training.seed, 2, self.step))
        torch.manual_seed(mix(training.seed, 3, self.step, self.world.rank))  # dropout
        draws = self.objective.draw(training.batch, self.generator).rows(self.share)
        rows = self.indices(self.seen, training.batch)[self.share]
        x0, condition = self._batch(rows)
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * rate(training, self.seen)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=x0.device, dtype=self.dtype)
        size = training.micro_batch or len(rows)
        parts = [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        for part in parts:
            with self._synchronised(part is parts[-1]), self._precision():
                loss = self.forward(x0[part], draws.rows(part), condition.rows(part))
                weighted = loss * ((part.stop - part.start) / len(rows))
                weighted.backward()
            total += weighted.detach()
        self.norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), training.clip)
        self.optimizer.step()
        self.step += 1
        self.seen += training.batch
        for average in self.averages:
            average.update(list(self.parameters.values()), self.seen, training.batch)
        return total

    def _batch(self, rows: Tensor) -> tuple[Tensor, Condition]:
        """Return x0 and condition of this process's share of the batch."""
        draws = self.source.draw(self.config.training.batch, self.generator)[self.share]
        x, condition = self.source.batch(rows, draws, self.dtype)
        x0 = (x - self.model.mu.view(1, -1, 1, 1)).contiguous(memory_format=torch.channels_last)
        return x0, condition

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        mixed = self.config.training.precision == "bfloat16"
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=mixed)

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        if last or not isinstance(self.forward, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.forward.no_sync()

    # ---- the run --------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Train to the end, or until `stop`; True if it is complete. Raises TrainingError where a step is broken."""
        training = self.config.training
        self.model.train()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._clock = time.monotonic()
        while self.seen < training.images and not self._told_to_stop():
            loss = self.train_step()
            self._loss += loss
            self._steps += 1
            # a gradient that is no number is in the weights already, before any loss tells of it
            broken = ~(torch.isfinite(loss) & torch.isfinite(self.norm)) & (self._broken < 0)
            self._broken = torch.where(broken, torch.full_like(self._broken, self.seen), self._broken)
            complete = self.seen >= training.images
            if complete or self._crossed(training.log_every):
                self._log()
            if self._crossed(max(training.images // training.snapshots, 1) if training.snapshots else 0):
                self._snapshot()
            if complete or self._crossed(training.checkpoint_every):
                self.save()
            if complete or self._crossed(training.sample_every):
                self._sample()
            if self._crossed(training.fid_every):
                self._evaluate()
        if self.seen < training.images:
            self.save()
            return False
        if self.world.leads:
            self.export(self.run_dir / "model.safetensors")
        return True

    def stop(self) -> None:
        """Ask the run to save and end after the step under way (safe in a signal handler)."""
        self.stopping = True

    def _told_to_stop(self) -> bool:
        return self.world.any(self.stopping) if self.world.size == 1 or self.step % CHECK_EVERY == 0 else False

    def _crossed(self, every: int) -> bool:
        return bool(every) and self.seen // every > (self.seen - self.config.training.batch) // every

    def _reset_loss(self) -> None:
        device = self.world.device
        self._loss = torch.zeros((), device=device, dtype=self.dtype)
        self._steps = 0
        self._broken = torch.full((), -1, dtype=torch.int64, device=device)

    def _verify(self) -> None:
        """Raise TrainingError if a loss or a gradient since the last look was no number."""
        since = int(self._broken)
        if self.world.any(since >= 0):
            kept = checkpoint.newest(self.run_dir)
            kept_line = f"the last good checkpoint is {kept}" if kept else "no checkpoint had been written yet"
            at = f"at image {since:,}" if since >= 0 else "in another process"
            told = f"the loss or its gradient became NaN or infinite {at}"
            raise TrainingError(f"{told}; {kept_line}; a lower training.rate may help")

    def _tick(self) -> float:
        """Return the seconds since the last tick, and count them to the run."""
        now = time.monotonic()
        passed, self._clock = now - self._clock, now
        self.seconds += passed
        return passed

    def _log(self) -> None:
        self._verify()
        loss = float(self._loss) / max(self._steps, 1)
        images = self._steps * self.config.training.batch
        passed = self._tick()
        speed = images / max(passed, 1e-9)
        if self.world.leads:
            device = self.world.device
            memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
            reports.append_line(
                self.run_dir / checkpoint.METRICS,
                {
                    "images": self.seen,
                    "step": self.step,
                    "loss": loss,
                    "rate": rate(self.config.training, self.seen),
                    "gradient_norm": float(self.norm),
                    "images_per_second": round(speed, 2),
                    "seconds": round(self.seconds, 1),
                    "memory_bytes": memory,
                },
            )
            if self.on_progress is not None:
                left = max(self.config.training.images - self.seen, 0) / speed
                self.on_progress(Progress(self.seen, self.config.training.images, loss, speed, left))
        self._reset_loss()

    @contextlib.contextmanager
    def averaged(self, index: int = 0) -> Iterator[AttenuationModel]:
        """Lend the model with the weights of one average; the training weights come back afterwards.

        The network runs uncompiled meanwhile: another batch size would be compiled anew, for a minute or more.
        """
        held = [parameter.detach().clone() for parameter in self.parameters.values()]
        with torch.no_grad():
            for parameter, value in zip(self.parameters.values(), self.averages[index].tensors, strict=True):
                parameter.copy_(value)
        try:
            with torch.compiler.set_stance("force_eager"):
                yield self.model
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters.values(), held, strict=True):
                    parameter.copy_(value)

    def _sample(self) -> None:
        if not self.world.leads or not self.config.training.sample_every:
            return
        network = self.config.model.network
        count = 64 if network.image_size <= 64 else 16
        chosen = self.config.sampling
        rule = solver(chosen.solver, chosen.eta)
        condition = self.source.preview(count)
        with self.averaged() as model:
            made = sample(
                model,
                (count, network.channels, network.image_size, network.image_size),
                steps=chosen.steps,
                solver=rule,
                grid=choose_grid(rule, None, chosen.grid),
                condition=condition,
                clip=False,
            )
        path = self.run_dir / "samples" / f"{self.seen:012d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = to_bytes(self.source.show(made, condition)).cpu()
        pictures.write(path, pictures.grid(shown, scale=2 if network.image_size <= 64 else 1), overwrite=True)

    def _evaluate(self) -> None:
        if self.evaluate is None or not self.world.leads:
            return
        with self.averaged() as model:
            figures = self.evaluate(model, self.seen)
        reports.append_line(self.run_dir / checkpoint.METRICS, {"images": self.seen, **figures})

    # ---- files ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint (rank 0). Raises TrainingError rather than save weights after a broken step."""
        self._verify()
        if hasattr(self, "_clock"):
            self._tick()
        if self.world.leads:
            checkpoint.write_config(self.run_dir, self.config)
            values = {
                "step": self.step,
                "images": self.seen,
                "seconds": self.seconds,
                "config": to_dict(self.config),
                "data_sha256": self.data_sha256,
                "start": self.start,
            }
            stored = checkpoint.Checkpoint(self.learned.tensors(), values)
            checkpoint.write(self.run_dir, self.seen, stored, self.config.training.keep)
        self.world.barrier()

    def _resume(self) -> None:
        """Take up the newest checkpoint of the run folder, if there is one."""
        stored = checkpoint.resumed(self.run_dir, self.config, self.data_sha256)
        if stored is None:
            return
        self.learned.load(stored.tensors)
        self.step, self.seen = int(stored.values["step"]), int(stored.values["images"])
        self.seconds = float(stored.values["seconds"])
        self.start = stored.values.get("start", self.start)
        if self.world.leads:
            checkpoint.unlog(self.run_dir, self.seen)

    def _snapshot(self) -> None:
        """Keep every average at this moment, float16, for reconstruction after training."""
        self._verify()
        if self.world.leads:
            for average in self.averages:
                path = self.run_dir / "snapshots" / f"ema{average.width:g}-{self.seen:012d}.safetensors"
                weights.write(path, self.describe(average.tensors, average.width), "float16")

    def describe(self, tensors: list[Tensor], width: float | None) -> weights.Weights:
        """Return network tensors as a model file, with the record of this run and of the one it began with."""
        record = {
            "images": self.seen,
            "seconds": round(self.seconds, 1),
            "device": _device_name(self.world),
            "ema": width,
            "data": self.source.name,
            "data_sha256": self.data_sha256,
            "data_images": len(self.source),
            "terms": self.source.terms,
            "classes": list(self.source.classes),
            "objective": to_dict(self.config.objective),
            "training": to_dict(self.config.training),
        } | ({} if self.start is None else {"start": self.start})
        named = {f"network.{key}": value for key, value in zip(self.parameters, tensors, strict=True)}
        named |= {"mu": self.model.mu, "data_mean": self.model.data_mean}
        return weights.Weights(self.config.model, named, self.config.sampling, record)

    def export(self, path: Path, kind: str = "float32") -> Path:
        """Write the first average as a model file."""
        average = self.averages[0]
        return weights.write(path, self.describe(average.tensors, average.width), kind)


def load_network(model: AttenuationModel, tensors: Any) -> None:
    """Copy a model file's network into a model. Raises ValueError that names what differs."""
    own = {f"network.{key}": value for key, value in model.network.named_parameters()}
    found = {key: value for key, value in tensors.items() if key.startswith("network.")}
    weights.compare(
        {key: tuple(value.shape) for key, value in own.items()},
        {key: tuple(value.shape) for key, value in found.items()},
    )
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(found[key])


def reconstruct(run_dir: Path, width: float) -> weights.Weights:
    """Return the average of another relative width as of a run's last snapshot, from all of them (EDM2, section 3.2).

    Raises ValueError without snapshots, or for a width that is not above 0 and below 0.28.
    """
    paths = sorted((run_dir / "snapshots").glob("ema*.safetensors"))
    if not paths:
        raise ValueError(f"{run_dir} has no snapshots of averages to reconstruct from")
    stored = [(int(path.stem.rpartition("-")[2]), float(path.stem[3:].rpartition("-")[0])) for path in paths]
    last = max(images for images, _ in stored)
    shares = reconstruction(stored, last, width)
    total: dict[str, Tensor] = {}
    newest: weights.Weights | None = None
    for path, share, (images, _) in zip(paths, shares, stored, strict=True):
        content = weights.read(path)
        newest = content if images == last else newest
        for key, value in content.tensors.items():
            if key.startswith("network."):
                total[key] = total[key] + share * value.double() if key in total else share * value.double()
    assert newest is not None
    tensors = {**newest.tensors, **{key: value.float() for key, value in total.items()}}
    return replace(newest, tensors=tensors, record={**newest.record, "ema": width})


def _same_network(config: Config, init: weights.Weights) -> None:
    """Dropout has no weights: it may differ. So may skip_deviation: near t = 1 all skips say the same of x_0."""
    ours, theirs = to_dict(config.model), to_dict(init.config)
    theirs["network"]["dropout"] = ours["network"]["dropout"]
    theirs["process"]["skip_deviation"] = ours["process"]["skip_deviation"]
    different = checkpoint.differences({k: ours[k] for k in ("network", "process")}, theirs)
    if different:
        raise ValueError(f"the model to start from differs in {different}")


def _device_name(world: World) -> str:
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    return f"{world.size} x {name}" if world.size > 1 else name
