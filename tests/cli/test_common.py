"""What the commands share means the same in each of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from attenua.cli import common


@click.command()
@common.device_option
@common.seed_option
@common.json_option
@common.quiet_option
@common.overwrite_option
@common.model_option
def everything(**given: object) -> None:
    click.echo(repr(sorted(given.items())))


def test_the_defaults() -> None:
    done = CliRunner().invoke(everything, [])
    expected = {"device": "auto", "seed": 0, "as_json": False, "quiet": False, "overwrite": False, "model": None}
    assert done.output.strip() == repr(sorted(expected.items()))


def test_every_option_is_explained() -> None:
    text = CliRunner().invoke(everything, ["--help"]).output
    for name in ("--device", "--seed", "--json", "--quiet", "--overwrite", "--model"):
        assert name in text


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", str(2**63)], ["--seed", "x"]])
def test_bad_values_are_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(everything, arguments).exit_code == 2


def test_the_cpu_is_always_there_and_auto_is_a_device_that_works() -> None:
    assert common.resolve_device("cpu") == torch.device("cpu")
    assert torch.zeros(1, device=common.resolve_device("auto")).item() == 0


@pytest.mark.parametrize("name", ["gpu", "cuda:97", "tpu", "", "cpu:0:0"])
def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"no device '{name}' here: --device must be one of auto, cpu"):
        common.resolve_device(name)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_a_process_of_several_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert common.resolve_device("auto") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert common.resolve_device("auto") == common.resolve_device("cuda") == torch.device("cuda:1")
    assert common.resolve_device("cuda:0") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="start fewer processes"):
        common.resolve_device("cuda")


def test_an_output_is_checked_before_the_work(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert common.check_output(path, overwrite=False) == path
    path.touch()
    assert common.check_output(path, overwrite=True) == path
    with pytest.raises(FileExistsError, match=r"a\.png exists already.*--overwrite"):
        common.check_output(path, overwrite=False)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        common.check_output(tmp_path / "missing" / "a.png", overwrite=False)


def test_an_output_in_a_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common.os, "access", lambda *_: False)  # the superuser may write anywhere
    with pytest.raises(PermissionError, match="cannot be written"):
        common.check_output(tmp_path / "a.png", overwrite=False)


def test_a_result_is_text_or_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"path": Path("a.png"), "num": 2, "name": "Å"}
    common.emit(result, as_json=False, text="a.png")
    common.emit(result, as_json=False, text=["a", "b"])
    assert capsys.readouterr().out == "a.png\na\nb\n"
    common.emit(result, as_json=True, text="a.png")
    assert json.loads(capsys.readouterr().out) == {"path": "a.png", "num": 2, "name": "Å"}


def test_json_has_no_nan_and_nothing_unknown() -> None:
    with pytest.raises(ValueError, match="JSON"):
        common.emit({"fid": float("nan")}, as_json=True, text="")
    with pytest.raises(TypeError, match="Tensor cannot be written as JSON"):
        common.emit({"fid": torch.zeros(1)}, as_json=True, text="")


def test_progress_away_from_a_terminal_is_one_line_at_the_end_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress("sampling", total=4, unit="images") as update:
        for done in range(1, 5):
            update(done, None)
            assert capsys.readouterr() == ("", "")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sampling: 4 of 4 images in ")
    assert err.count("\n") == 1


def test_bytes_are_shown_in_megabytes_and_the_whole_may_be_learnt_later(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress("cifar10", unit="bytes") as update:
        update(1_000_000, None)
        update(2_500_000, 5_000_000)
    assert capsys.readouterr().err.startswith("cifar10: 2.5 of 5.0 MB in ")


def test_progress_is_silent_when_quiet_when_nothing_was_done_and_when_the_work_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with common.progress("sampling", total=4, quiet=True) as update:
        update(4, None)
    with common.progress("sampling"):
        pass
    with pytest.raises(ZeroDivisionError), common.progress("sampling") as update:  # noqa: PT012
        update(1, None)
        update(1 // 0, None)
    assert capsys.readouterr() == ("", "")


def test_parts_of_what_is_counted_are_shown_as_whole_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress("upscale", total=4, unit="network calls") as update:
        update(2.75)
    assert capsys.readouterr().err.startswith("upscale: 2 of 4 network calls in ")


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with common.progress("sampling", total=4, unit="images") as update:
        update(2, None)
        update(4, None)
    assert "4 of 4 images" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_skipped_inputs_are_named_counted_and_end_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = common.Skipped()
    skipped.finish()
    skipped(Path("a.png"), "it is no picture")
    skipped(Path("b.png"), "it is empty")
    with pytest.raises(click.exceptions.Exit) as end:
        skipped.finish()
    assert end.value.exit_code == 1
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "attenua: skipped a.png: it is no picture"
    assert err[-1] == "attenua: 2 inputs were skipped"


def test_a_skipped_input_is_an_error_when_strict() -> None:
    with pytest.raises(ValueError, match=r"a\.png: it is no picture"):
        common.Skipped(strict=True)(Path("a.png"), "it is no picture")
