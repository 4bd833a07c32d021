"""The documentation is true: its code runs, its links resolve, its reference is that of the command line."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from tests.conftest import ROOT


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_build"] = module
    spec.loader.exec_module(module)
    return module


builder = load_builder()
PAGES = sorted([path for path in (ROOT / "README.md",) if path.exists()] + list((ROOT / "docs").glob("*.md")))
WITH_CODE = [path for path in PAGES if builder.python_blocks(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.name)
def test_the_code_of_a_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one program: in order, in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType("docs_page")
    monkeypatch.setitem(sys.modules, "docs_page", module)  # dataclasses look their module up
    for block in builder.python_blocks(path.read_text(encoding="utf-8")):
        if block.run:
            lines = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's own line
            exec(compile(lines, str(path), "exec"), module.__dict__)


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert text == builder.with_reference(text), "run make docs"


def test_the_reference_has_every_command_and_option() -> None:
    from attenua.cli import COMMANDS, group

    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    context = click.Context(group, info_name="attenua")
    for name, _ in COMMANDS:
        if (ROOT / f"src/attenua/cli/{name}.py").exists():
            command = group.get_command(context, name)
            assert command is not None
            _, found, rest = text.partition(f"\n## attenua {name}\n")
            section = rest.partition("\n## ")[0]
            assert found, name
            for parameter in command.params:
                if isinstance(parameter, click.Option) and not parameter.hidden:
                    assert all(each in section for each in parameter.opts), (name, parameter.opts)


def test_the_figures_of_a_table_are_those_of_the_report_that_is_named_above_it() -> None:
    """Each is some value of these reports, rounded once: 0.85845 is 0.858, not 0.859 by way of 0.8585."""
    values = {
        path.name: [row["value"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
        for path in (ROOT / "benchmarks/results").glob("*.json")
    }
    wrong, checked = [], 0
    for page in PAGES:
        blocks = page.read_text(encoding="utf-8").split("\n\n")
        for above, table in itertools.pairwise(blocks):
            reported = [value for name in re.findall(r"\w+\.json", above) for value in values.get(name, [])]
            if not reported or not table.startswith("|"):
                continue
            cells = [cell for row in table.splitlines()[2:] for cell in row.strip("|").split("|")[1:]]
            for figure in re.findall(r"(?<![\w.])\d+\.\d{2,}(?![\w.])", "|".join(cells)):
                half = 0.5 * 10.0 ** -len(figure.partition(".")[2]) + 1e-9
                checked += 1
                if not any(abs(value - float(figure)) <= half for value in reported):
                    wrong.append((page.name, figure))
    assert not wrong
    assert checked > 300


def test_the_commands_on_a_page_have_the_options_that_it_gives_them() -> None:
    from attenua.cli import COMMANDS, group

    context = click.Context(group, info_name="attenua")
    options: dict[str, set[str]] = {}
    for name, _ in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        options[name] = {"--help", "-h", *(each for parameter in command.params for each in parameter.opts)}
    checked = 0
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        for name, rest in re.findall(rf"attenua ({'|'.join(options)})\b([^`|\n#]*)", "\n".join(lines)):
            given = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest))
            assert given <= options[name], (page.name, name, given - options[name])
            checked += len(given)
    assert checked > 50


# The builder itself, on a small project.


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Home\n\nSee [two](docs/two.md), then [one](docs/one.md#a-part).\n")
    (tmp_path / "docs/one.md").write_text("# One & all\n\n## A part\n\n[home](../README.md), ![x](x.png)\n")
    (tmp_path / "docs/two.md").write_text(
        "# Two\n\n[web](https://example.org/nowhere) [here](#two)\n\n| a |\n|---|\n| b |\n"
    )
    (tmp_path / "docs/x.png").write_bytes(b"picture")
    (tmp_path / "docs/other.md").write_text("# Other\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n")
    return tmp_path


def test_the_order_is_that_of_the_links_in_the_readme(project: Path) -> None:
    titles = [page.title for page in builder.pages(project)]
    assert titles == ["Home", "Two", "One & all", "Other", "Changes"]


def test_links_lead_from_page_to_page_and_files_are_copied(project: Path) -> None:
    site = project / "site"
    builder.build(site, project)
    home, one, two = ((site / name).read_text() for name in ("index.html", "one.html", "two.html"))
    assert 'href="one.html#a-part"' in home
    assert '<a href="one.html" aria-current="page">One &amp; all</a>' in one
    assert '<a href="index.html">home</a>' in one
    assert 'src="files/docs/x.png"' in one
    assert (site / "files/docs/x.png").read_bytes() == b"picture"
    assert "<table>" in two


def test_a_second_build_replaces_the_first(project: Path) -> None:
    site = project / "site"
    builder.build(site, project)
    (project / "docs/other.md").unlink()
    builder.build(site, project)
    assert not (site / "other.html").exists()
    assert sorted(path.name for path in project.iterdir()) == ["CHANGELOG.md", "README.md", "docs", "site"]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("missing.md", "no such file"),
        ("one.md#no-part", "no such heading"),
        ("#nowhere", "no such heading"),
        ("../../outside.txt", "no such file"),
    ],
)
def test_a_link_that_does_not_resolve_is_an_error_and_leaves_the_site(project: Path, link: str, reason: str) -> None:
    site = project / "site"
    builder.build(site, project)
    before = (site / "two.html").read_text()
    (project / "docs/two.md").write_text(f"# Two\n\n[x]({link})\n")
    with pytest.raises(ValueError, match=f"in two.html \\({reason}\\)"):
        builder.build(site, project)
    assert (site / "two.html").read_text() == before


def test_a_link_in_raw_html_is_checked_as_well(project: Path) -> None:
    (project / "docs/two.md").write_text('# Two\n\n<img src="missing.png">\n')
    with pytest.raises(ValueError, match=r"missing\.png in two\.html"):
        builder.build(project / "site", project)


def test_a_folder_that_is_no_site_is_not_replaced(project: Path) -> None:
    with pytest.raises(ValueError, match="not replaced"):
        builder.build(project / "docs", project)


def test_a_page_needs_a_title(project: Path) -> None:
    (project / "docs/two.md").write_text("no title\n")
    with pytest.raises(ValueError, match="does not begin with a title"):
        builder.pages(project)


def test_blocks_of_python_are_found_with_their_lines() -> None:
    text = "# T\n\n```python\na = 1\n```\n\n```\nno = 'python'\n```\n\n- x\n\n  ```python no-run\n  b = a\n  ```\n"
    blocks = builder.python_blocks(text)
    assert [(block.line, block.code, block.run) for block in blocks] == [(4, "a = 1\n", True), (14, "b = a\n", False)]


@pytest.mark.parametrize("text", ["```python\na = 1\n", "```python norun\n```\n"])
def test_a_block_that_would_be_missed_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"no end|not 'python norun'"):
        builder.python_blocks(text)
