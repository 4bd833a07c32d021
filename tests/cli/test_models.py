"""`attenua models`: what is shipped, cached and known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attenua import weights
from tests.conftest import CommandLine


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one model, a cache with another, and a third that is neither here nor there."""
    package, cache = tmp_path / "package", tmp_path / "cache"
    (cache / "models").mkdir(parents=True)
    package.mkdir()
    entries = {
        name: {"file": f"{name}.safetensors", "sha256": "", "bytes": 1_500_000, "summary": f"the model {name}"}
        for name in ("one", "two", "three")
    }
    (package / "index.json").write_text(json.dumps(entries))
    (package / "one.safetensors").touch()
    (cache / "models" / "two.safetensors").touch()
    monkeypatch.setattr(weights, "packaged", lambda: package)
    monkeypatch.setenv("ATTENUA_CACHE", str(cache))
    return cache


def test_every_model_has_a_line_that_says_where_it_lies(cli: CommandLine, places: Path) -> None:
    done = cli("models")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["one", "shipped", "1.5", "MB", "the", "model", "one"],
        ["two", "cached", "1.5", "MB", "the", "model", "two"],
        ["three", "to", "download", "1.5", "MB", "the", "model", "three"],
    ]


def test_json_is_one_object(cli: CommandLine, places: Path) -> None:
    result = json.loads(cli("models", "--json").stdout)
    assert result["cache"] == str(places)
    assert [(row["name"], row["place"]) for row in result["models"]] == [
        ("one", "shipped"),
        ("two", "cached"),
        ("three", "to download"),
    ]
    assert result["models"][0] == {
        "name": "one", "place": "shipped", "bytes": 1_500_000, "summary": "the model one"
    }  # fmt: skip


def test_cifar10_comes_with_the_package(cli: CommandLine) -> None:
    names = {row["name"]: row for row in json.loads(cli("models", "--json").stdout)["models"]}
    assert names["cifar10"]["bytes"] <= 22e6


def test_a_word_too_many_is_one_line(cli: CommandLine) -> None:
    done = cli("models", "cifar10")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("attenua: error: got unexpected extra argument (cifar10)")
    assert done.stderr.count("\n") == 1
