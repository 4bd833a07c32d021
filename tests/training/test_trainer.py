"""A run is a function of its configuration: killed, resumed, or spread over processes, it gives the same weights."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attenua import reports, weights
from attenua.model import AttenuationModel
from attenua.sampling import sample
from attenua.tasks import load
from attenua.training import Trainer, TrainingError, checkpoint, reconstruct
from attenua.training.trainer import load_network, mix, rate, resolve
from tests.training.common import LAST, config, pictures, weights_of

ROOT = Path(__file__).resolve().parents[2]


def worker(run: Path, *settings: str) -> list[str]:
    return [sys.executable, "-m", "tests.training.worker", str(run), *settings]


def test_a_killed_run_resumed_is_bit_equal_to_an_uninterrupted_one(straight: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(worker(tmp_path), cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while checkpoint.newest(tmp_path) is None and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = checkpoint.newest(tmp_path)
    assert left is not None
    trainer = Trainer(config(), pictures(), tmp_path)
    assert 0 < trainer.seen <= 96
    assert trainer.run()
    ours, theirs = weights_of(tmp_path / LAST), weights_of(straight / LAST)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_what_a_killed_run_logged_after_its_checkpoint_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Trainer(config(["training.checkpoint_every=48"]), pictures(), tmp_path)
    step = first.train_step

    def killed() -> torch.Tensor:
        if first.seen >= 80:
            raise KeyboardInterrupt
        return step()

    first.train_step = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    seen = [event["images"] for event in reports.read_lines(path)]
    second = Trainer(config(["training.checkpoint_every=48"]), pictures(), tmp_path)
    assert max(seen) > second.seen > 0
    assert second.run()
    after = [event["images"] for event in reports.read_lines(path)]
    assert after == sorted(set(after))


def test_dropout_and_augmentation_resume_bit_equal_too(tmp_path: Path) -> None:
    settings = [
        "model.network.dropout=0.3",
        "model.network.augment_labels=8",
        "training.augment=0.5",
        "training.images=48",
    ]
    Trainer(config(settings), pictures(), tmp_path / "whole").run()
    first = Trainer(config(settings), pictures(), tmp_path / "parts")
    step = first.train_step

    def stopping() -> torch.Tensor:
        loss = step()
        if first.seen >= 24:
            first.stop()
        return loss

    first.train_step = stopping  # type: ignore[method-assign]
    assert not first.run()
    assert Trainer(config(settings), pictures(), tmp_path / "parts").run()
    ours, theirs = (
        weights_of(tmp_path / "parts" / checkpoint.name(48)),
        weights_of(tmp_path / "whole" / checkpoint.name(48)),
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_two_processes_with_half_the_batch_give_the_weights_of_one(straight: Path, tmp_path: Path) -> None:
    environment = dict(
        os.environ, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(20000 + os.getpid() % 20000), WORLD_SIZE="2"
    )
    processes = [
        subprocess.Popen(worker(tmp_path), cwd=ROOT, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(180) for process in processes] == [0, 0]
    ours, theirs = weights_of(tmp_path / LAST), weights_of(straight / LAST)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_accumulated_micro_batches_give_the_weights_of_one_batch(straight: Path, tmp_path: Path) -> None:
    Trainer(config(["training.micro_batch=3"]), pictures(), tmp_path).run()
    ours, theirs = weights_of(tmp_path / LAST), weights_of(straight / LAST)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-10, msg=name)


def test_training_lowers_the_loss_and_leaves_a_log(tmp_path: Path) -> None:
    Trainer(
        config(["training.images=1600", "training.rate=0.01", "training.log_every=160"]), pictures(), tmp_path
    ).run()
    lines = reports.read_lines(tmp_path / "metrics.jsonl")
    losses = [float(str(line["loss"])) for line in lines]
    assert losses[-1] < 0.8 * losses[0]
    assert lines[-1]["images"] == 1600
    assert lines[-1]["rate"] == 0
    assert json.loads((tmp_path / "config.json").read_text())["training"]["images"] == 1600


def test_the_rate_warms_up_stays_and_reaches_zero() -> None:
    plan = dataclasses.replace(config().training, images=1000, batch=10, warmup=100, constant=0.4, rate=2.0)
    assert rate(plan, 0) == pytest.approx(0.2)
    assert rate(plan, 90) == rate(plan, 400) == 2.0
    assert rate(plan, 700) == pytest.approx(1.0)
    assert rate(plan, 1000) == 0


def test_every_pass_shows_every_picture_once() -> None:
    trainer = Trainer(config(), pictures(), Path("unused"))
    shown = torch.cat([trainer.indices(start, 8) for start in range(0, 96, 8)])
    first, second = shown[:48], shown[48:]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(48))
    assert first.tolist() != second.tolist()
    straddling = trainer.indices(44, 8)
    assert straddling.tolist() == shown[44:52].tolist()


def test_samples_of_a_run_are_drawn_as_its_model_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the solver's own grid, where it has one."""
    asked: list[object] = []

    def noted(*arguments: Any, **named: Any) -> torch.Tensor:
        asked.append((named["solver"], named["grid"]))
        return sample(*arguments, **named)

    monkeypatch.setattr("attenua.training.trainer.sample", noted)
    settings = ["training.sample_every=96", "sampling.solver=released", "sampling.steps=2"]
    Trainer(config(settings), pictures(), tmp_path).run()
    chosen = load(str(tmp_path / "model.safetensors")).choose()
    assert asked == [(chosen.solver, chosen.grid)]


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(config(), pictures(), tmp_path)
    step = trainer.train_step

    def poisoned() -> torch.Tensor:
        loss = step()
        return loss * float("nan") if trainer.seen >= 72 else loss

    trainer.train_step = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"NaN or infinite at image 72; the last good checkpoint is .*000064"):
        trainer.run()
    kept = checkpoint.newest(tmp_path)
    assert kept is not None
    assert kept.name == checkpoint.name(64)
    assert all(bool(torch.isfinite(value).all()) for value in weights_of(kept).values())


@pytest.mark.parametrize("log_every", [16, 1000])
def test_weights_after_a_gradient_that_is_no_number_are_not_saved(tmp_path: Path, log_every: int) -> None:
    trainer = Trainer(config([f"training.log_every={log_every}"]), pictures(), tmp_path)
    first = next(iter(trainer.parameters.values()))
    first.register_hook(lambda gradient: gradient * float("inf") if trainer.seen == 56 else gradient)
    with pytest.raises(TrainingError, match=r"NaN or infinite at image 64; the last good checkpoint is .*000032"):
        trainer.run()
    assert checkpoint.newest(tmp_path) == tmp_path / checkpoint.name(32)


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="the pictures are 3 x 16 x 16; this network takes 3 x 8 x 8"):
        Trainer(config(), pictures(size=16), Path("unused"))
    with pytest.raises(ValueError, match="has no labels"):
        Trainer(config(["model.network.classes=4"]), pictures(), Path("unused"))


def test_bfloat16_is_refused_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attenua.training.trainer.has_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="no units for it; allowed: float32, float64, auto"):
        resolve(config(["training.precision=bfloat16"]), torch.device("cpu"))
    assert resolve(config(["training.precision=auto"]), torch.device("cpu")).training.precision == "float32"


def test_a_model_to_start_from_gives_its_weights_and_deviation(straight: Path, tmp_path: Path) -> None:
    start = weights.read(straight / "model.safetensors")
    trainer = Trainer(config(["training.rate=0.001"]), pictures(24), tmp_path, init=start)
    assert trainer.config.model.s_d == start.config.s_d
    name, value = next(iter(trainer.parameters.items()))
    torch.testing.assert_close(value.detach().float(), start.tensors[f"network.{name}"])
    with pytest.raises(ValueError, match=r"network.width \(8 there, 16 here\)"):
        Trainer(config(["model.network.width=16"]), pictures(), tmp_path, init=start)
    other = Trainer(config(["model.network.dropout=0.4"]), pictures(24), tmp_path, init=start)
    torch.testing.assert_close(other.parameters[name].detach(), value.detach())
    other = Trainer(config(["model.process.skip_deviation=0.1"]), pictures(24), tmp_path, init=start)
    torch.testing.assert_close(other.parameters[name].detach(), value.detach())
    assert other.model.config.process.skip_deviation == 0.1


def test_a_model_that_began_with_another_keeps_its_record(straight: Path, tmp_path: Path) -> None:
    start = weights.read(straight / "model.safetensors")
    short = ["training.images=8", "training.checkpoint_every=8"]
    Trainer(config(short), pictures(24), tmp_path, init=start).run()
    again = Trainer(config(short), pictures(24), tmp_path, init=replace(start, record={}))  # resumed
    assert again.start == start.record
    assert weights.read(tmp_path / "model.safetensors").record["start"] == start.record


def test_the_exported_model_is_the_average_and_says_how_it_was_made(straight: Path) -> None:
    content = weights.read(straight / "model.safetensors")
    averages = {key[8:]: value for key, value in weights_of(straight / LAST).items() if key.startswith("ema0.05.")}
    for key, value in averages.items():
        torch.testing.assert_close(content.tensors[f"network.{key}"].double(), value, rtol=1e-6, atol=1e-7)
    assert content.record["images"] == 96
    assert content.record["data"] == "smooth"
    assert content.record["data_sha256"] == pictures().sha256()
    load_network(AttenuationModel(content.config), content.tensors)


def test_averages_of_other_widths_come_from_the_snapshots(straight: Path, tmp_path: Path) -> None:
    same = reconstruct(straight, 0.05)
    kept = weights.read(straight / "model.safetensors")
    for name, value in kept.tensors.items():
        torch.testing.assert_close(same.tensors[name], value, rtol=2e-3, atol=2e-4)  # snapshots are float16
    assert reconstruct(straight, 0.08).record["ema"] == 0.08
    for path in (straight / "snapshots").iterdir():
        name = path.name.replace("ema0.1-", "ema1e-05-")  # as a width of 0.00001 is written
        (tmp_path / "tiny" / "snapshots").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiny" / "snapshots" / name).write_bytes(path.read_bytes())
    assert reconstruct(tmp_path / "tiny", 0.05).record["ema"] == 0.05
    with pytest.raises(ValueError, match="no snapshots"):
        reconstruct(tmp_path, 0.05)


def test_seeds_mix_into_unrelated_streams() -> None:
    seeds = {mix(seed, stream, step) for seed in range(10) for stream in range(4) for step in range(100)}
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
