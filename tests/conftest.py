"""What every test runs under: checked shapes and types, one thread, fixed seeds, no network."""
# ruff: noqa: E402 - the import hook must be there before anything that it should check

from __future__ import annotations

import os
import sys

# Before torch is loaded, and inherited by the processes that tests start: several workers share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

import tests.checker

assert "attenua" not in sys.modules, "attenua was imported before its annotations could be checked"
install_import_hook("attenua", f"{tests.checker.__name__}.check")

import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # under nohup; what tests interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


class CommandLine(Protocol):
    """Calls `attenua` with arguments (made into strings) and returns the exit code, stdout and stderr."""

    def __call__(self, *arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same state of the shared random generators."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is neither read nor written, and no switch of the user's shell reaches the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("ATTENUA_", "_ATTENUA_"))]:
            patch.delenv(name)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """A connection to anything but this machine is an error."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"  # a name of a Unix socket is local
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test asked the network for {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


@pytest.fixture
def cli() -> CommandLine:
    """The command line within this process: fast, and its annotations are checked."""
    from attenua.cli import main

    def call(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        given = [str(each) for each in arguments]
        with CliRunner().isolation(env=env) as (out, err, _):
            code = main(given)
            sys.stdout.flush()
            sys.stderr.flush()
            return subprocess.CompletedProcess(given, code, out.getvalue().decode(), err.getvalue().decode())

    return call


@pytest.fixture
def run_cli(tmp_path: Path) -> CommandLine:
    """The command line as a process of its own, started in the test's temporary folder."""

    def call(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "attenua", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call
