"""`attenua data` is a door to the modules that bring data, and adds nothing but its words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from attenua.data import cifar10, sources
from attenua.data.sources import DataSet
from tests.conftest import CommandLine


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The roots that were asked for; nothing is brought."""
    roots: list[Path] = []

    def fetch(root: Path, *, progress: Callable[[int, int | None], None]) -> Path:
        roots.append(root)
        progress(1_000_000, None)
        progress(2_000_000, 2_000_000)
        return root / "cifar-10-batches-bin"

    monkeypatch.setattr(cifar10, "fetch", fetch)
    return roots


def test_the_folder_is_the_result(cli: CommandLine, fetched: list[Path], tmp_path: Path) -> None:
    done = cli("data", "cifar10", "--root", tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path / 'cifar-10-batches-bin'}\n"
    assert done.stderr.startswith("cifar10: 2.0 of 2.0 MB in ")
    assert fetched == [tmp_path]


def test_the_root_is_data_where_none_is_named(cli: CommandLine, fetched: list[Path]) -> None:
    assert cli("data", "cifar10").returncode == 0
    assert fetched == [Path("data")]


@pytest.mark.usefixtures("fetched")
def test_json_and_quiet(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("data", "cifar10", "--root", tmp_path, "--json", "--quiet")
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["path"] == str(tmp_path / "cifar-10-batches-bin")
    assert result["terms"] == cifar10.TERMS


def test_a_source_that_cannot_be_had_is_one_line(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: Path, *, progress: Callable[[int, int | None], None]) -> Path:
        raise OSError("CIFAR-10 could not be had")

    monkeypatch.setattr(cifar10, "fetch", fetch)
    done = cli("data", "cifar10")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "attenua: error: CIFAR-10 could not be had\n")


def test_a_damaged_copy_is_one_line_that_names_it(cli: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / cifar10.FOLDER
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(b"no pictures")
    done = cli("data", "cifar10", "--root", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "data_batch_1.bin" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", list(sources.DATASETS))
def test_every_set_is_fetched_by_its_name_and_its_terms_are_told(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    def fetch(known: DataSet, root: Path, *, progress: Callable[[int, int | None], None]) -> Path:
        assert known is sources.DATASETS[name]
        progress(5, 5)
        return root / known.folder

    monkeypatch.setattr(sources, "fetch", fetch)
    done = cli("data", name, "--root", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / sources.DATASETS[name].folder}\n")
    assert f"terms: {sources.DATASETS[name].terms}\n" in done.stderr
    done = cli("data", name, "--root", tmp_path, "--quiet", "--json")
    assert done.stderr == ""
    assert json.loads(done.stdout)["terms"] == sources.DATASETS[name].terms


def test_an_unknown_set_lists_those_there_are(cli: CommandLine) -> None:
    done = cli("data", "bsds50")
    assert done.returncode == 2
    assert "bsds500" in done.stderr
    assert done.stderr.count("\n") == 1
