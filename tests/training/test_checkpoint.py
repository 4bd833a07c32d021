"""Checkpoints: there whole or not at all, the newest few are kept, and only the same run goes on from one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from attenua.training import Trainer, checkpoint
from attenua.training.checkpoint import Learned, differences
from attenua.training.ema import Average
from tests.training.common import LAST, config, pictures


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config(), pictures(), tmp_path)
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if checkpoint.newest(tmp_path) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.run()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.glob(checkpoint.PATTERN)] == [checkpoint.name(32)]
    assert not list(tmp_path.glob(".*"))
    assert Trainer(config(), pictures(), tmp_path).seen == 32


def test_only_the_newest_checkpoints_are_kept(straight: Path) -> None:
    assert sorted(path.name for path in straight.glob(checkpoint.PATTERN)) == [checkpoint.name(64), LAST]


def test_another_configuration_or_other_pictures_do_not_resume(straight: Path) -> None:
    with pytest.raises(ValueError, match=r"training.rate \(0.002 there, 0.01 here\); choose another run folder"):
        Trainer(config(["training.rate=0.01"]), pictures(), straight)
    altered = pictures()
    altered.images[0, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="other pictures"):
        Trainer(config(), altered, straight)
    assert Trainer(config(["training.log_every=32", "training.keep=5"]), pictures(), straight).seen == 96


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / checkpoint.name(64)).write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"checkpoint-000000000064.safetensors is damaged"):
        Trainer(config(), pictures(), tmp_path)


def learned(seed: int, width: int = 3) -> Learned:
    """A layer after a few steps of its optimizer."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(2, width)
    parameters = dict(layer.named_parameters())
    found = Learned(
        parameters,
        [Average(each, list(parameters.values())) for each in (0.05, 0.1)],
        torch.optim.AdamW(layer.parameters(), lr=0.1),
    )
    for step in range(3):
        layer(torch.randn(4, 2)).square().sum().backward()
        found.optimizer.step()
        for average in found.averages:
            average.update(list(parameters.values()), 4 * (step + 1), 4)
    return found


def test_what_was_learned_comes_back_from_a_file_bit_for_bit(tmp_path: Path) -> None:
    ours, theirs = learned(1), learned(2)
    path = checkpoint.write(tmp_path, 12, checkpoint.Checkpoint(ours.tensors(), {"step": 3}), keep=1)
    stored = checkpoint.read(path)
    assert stored.values == {"step": 3}
    theirs.load(stored.tensors)
    found = theirs.tensors()
    assert found.keys() == ours.tensors().keys() == stored.tensors.keys()
    assert {name.partition(".")[0] for name in found} == {"network", "ema0", "optimizer"}
    for name, value in ours.tensors().items():
        assert torch.equal(found[name], value), name


def test_another_network_is_not_taken(tmp_path: Path) -> None:
    ours = learned(1)
    before = {name: value.clone() for name, value in ours.tensors().items()}
    with pytest.raises(ValueError, match=r"network.weight"):
        ours.load(learned(2, width=4).tensors())
    assert all(torch.equal(value, before[name]) for name, value in ours.tensors().items())


def test_a_folder_without_checkpoints_has_none_to_go_on_from(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.resumed(tmp_path, config(), "") is None


def test_differences_are_told_by_name_and_rounding_is_none() -> None:
    ours = {"a": {"b": 0.1 + 0.2, "c": 1}, "d": "x"}
    assert differences(ours, {"a": {"b": 0.3, "c": 1}, "d": "x", "e": 5}) == ""
    assert differences(ours, {"a": {"b": 0.4, "c": 2}}) == (
        "a.b (0.4 there, 0.30000000000000004 here), a.c (2 there, 1 here), d (None there, 'x' here)"
    )
