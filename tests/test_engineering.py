"""The house rules that no other test would notice broken."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT, CommandLine

MEGABYTE = 2**20

# A path on somebody's machine, at the start of a word; part of an address on the web or of a relative path is none.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~>)-])/(?:root|home|work|Users|mnt|opt|srv|scratch)/[\w.]|\b[A-Z]:\\\\?(?:Users|Windows)\b"
)


def tracked() -> list[Path]:
    """The files that git knows and that are there."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a checkout of the repository")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in names.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    code = f"import sys\nsys.path.insert(0, {str(ROOT / 'src')!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_no_library() -> None:
    assert not modules_after("import attenua") & {"torch", "numpy", "scipy", "PIL", "click", "rich"}


def test_help_imports_no_library_but_click() -> None:
    loaded = modules_after("from attenua.cli import main\nassert main(['--help']) == 0")
    assert "click" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "PIL", "rich"}


def test_help_of_the_program_itself_shows_no_torch(run_cli: CommandLine) -> None:
    done = run_cli("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert "Commands:" in done.stdout
    assert re.search(r"\| +click$", done.stderr, re.MULTILINE)
    assert not re.search(r"\| +torch\b", done.stderr)


def test_imports_go_downwards_only() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    assert program.exists(), "import-linter is not installed beside this Python"
    done = subprocess.run(
        [program, "--no-cache"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pattern_of_machine_paths_finds_them_and_nothing_else() -> None:
    for path in ("work/main/x", "root/.cache", "home/me/data", "Users/me"):
        assert MACHINE_PATH.search(f"see /{path}")
        assert MACHINE_PATH.search(f'"/{path}"')
        assert not MACHINE_PATH.search(f"https://example.org/{path}")
        assert not MACHINE_PATH.search(f"docs/{path}")
    assert MACHINE_PATH.search("C:" + r"\Users\me")


def test_no_tracked_file_names_a_path_of_a_machine() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or weights
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_no_tracked_file_is_over_45_megabytes() -> None:
    assert [str(path) for path in tracked() if path.stat().st_size > 45 * MEGABYTE] == []


def test_all_shipped_weights_fit_one_wheel() -> None:
    shipped = [path for path in (ROOT / "src/attenua/shipped").glob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) < 50 * MEGABYTE


def test_every_package_has_an_init_file_and_the_package_says_that_it_is_typed() -> None:
    folders = {path.parent for path in (ROOT / "src/attenua").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
    assert (ROOT / "src/attenua/py.typed").exists()


def test_every_module_begins_with_a_sentence() -> None:
    for path in (ROOT / "src/attenua").rglob("*.py"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert re.match(r'"""\S.{10,}', first), path


def test_the_table_of_extras_agrees_with_the_project() -> None:
    from attenua.cli.errors import EXTRAS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for module, extra in EXTRAS.items():
        assert any(each.replace("-", "_").startswith(module) for each in extras[extra]), (module, extra)


def test_the_constraint_on_torch_is_within_what_the_project_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = re.search(r"^torch==(\d+)\.(\d+)\.\d+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    floor = re.search(r"^torch>=(\d+)\.(\d+)$", "\n".join(project["dependencies"]), re.MULTILINE)
    assert pinned is not None
    assert floor is not None
    assert tuple(map(int, pinned.groups())) >= tuple(map(int, floor.groups()))
