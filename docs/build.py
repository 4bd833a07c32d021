"""Build the documentation: docs/*.md and the files beside the README as one small HTML site.

    python docs/build.py [--site site] [--check]

The order of the pages is that of the links in README.md. Links within the site must resolve, else there is no site.
docs/cli.md ends with a reference that this program writes; with --check it must be up to date already.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import markdown
from markdown.treeprocessors import Treeprocessor

ROOT = Path(__file__).resolve().parents[1]
HOME = "README.md"
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Pages that are not in docs/; they come last."""

CLI_MARK = "<!-- What follows is written by `make docs`. -->"

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1b1f24, #e3e6ea); --paper: light-dark(#fff, #15181c);
  --faint: light-dark(#f2f4f6, #20252b); --line: light-dark(#d5dae0, #363d46); --link: light-dark(#0b5fc0, #7db4ff) }
* { box-sizing: border-box }
body { margin: 0; display: flex; color: var(--ink); background: var(--paper); font: 16px/1.6 system-ui, sans-serif }
nav { flex: 0 0 15rem; padding: 2rem 1rem 2rem 2rem; border-right: 1px solid var(--line); min-height: 100vh }
nav a { display: block; padding: .15rem 0; text-decoration: none }
nav a[aria-current] { font-weight: 600; color: var(--ink) }
main { flex: 1; min-width: 0; max-width: 54rem; padding: 1rem 2.5rem 4rem }
a { color: var(--link) }
h1, h2, h3 { line-height: 1.25; margin-top: 2em }
h1 { margin-top: .5em }
code, pre { font: .88em/1.5 ui-monospace, monospace; background: var(--faint); border-radius: 4px }
code { padding: .1em .3em }
pre { padding: .9rem 1.1rem; overflow-x: auto; border: 1px solid var(--line) }
pre code { padding: 0; font-size: 1em; background: none }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top }
@media (max-width: 50rem) { body { display: block } nav { min-height: 0; border: 0; padding: 1rem 1.5rem }
  nav a { display: inline-block; margin-right: 1rem } main { padding: 0 1.5rem 3rem } }
"""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<nav aria-label="Pages">
{navigation}
</nav>
<main>
{body}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Block:
    """A block of Python in a page: its code, the line where that begins, and whether it is to be run."""

    line: int
    code: str
    run: bool


@dataclass(frozen=True)
class Page:
    """A page: where it is written, its file in the site, its title and its text."""

    source: Path
    name: str
    title: str
    text: str


def python_blocks(text: str) -> list[Block]:
    """Return the blocks that begin with ```python, in order; "```python no-run" is not to be run.

    Raises ValueError for a block without an end and for another word after "python".
    """
    blocks: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = re.fullmatch(r"(\s*)(`{3,})\s*(.*?)\s*", lines[number])
        number += 1
        if opening is None:
            continue
        indent, fence, info = opening.groups()
        start = number
        while number < len(lines) and lines[number].strip() != fence:
            number += 1
        if number == len(lines):
            raise ValueError(f"the block that begins in line {start} has no end")
        if info.split()[:1] == ["python"]:
            if info not in ("python", "python no-run"):
                raise ValueError(f'line {start}: a block of Python is "python" or "python no-run", not {info!r}')
            code = "\n".join(line.removeprefix(indent) for line in lines[start:number]) + "\n"
            blocks.append(Block(start + 1, code, info == "python"))
        number += 1
    return blocks


def pages(root: Path = ROOT) -> list[Page]:
    """Return all pages: the README, those it links to in that order, the other ones of docs/ by name, those beside it.

    Raises FileNotFoundError where there is no README, ValueError for a page without a title ("# ..." at its top).
    """
    home = root / HOME
    if not home.is_file():
        raise FileNotFoundError(f"there is no {home}: it is the first page")
    linked = re.findall(r"\]\((?:\./)?(docs/[\w.-]+\.md)", home.read_text(encoding="utf-8"))
    present = sorted(str(path.relative_to(root)) for path in (root / "docs").glob("*.md"))
    ordered = [name for name in dict.fromkeys(linked) if name in present]
    names = [*dict.fromkeys([*ordered, *present]), *(name for name in BESIDE if (root / name).is_file())]
    return [_page(home, "index.html"), *(_page(root / name, f"{Path(name).stem.lower()}.html") for name in names)]


def build(site: Path, root: Path = ROOT) -> list[Page]:
    """Write the site into the folder `site`, replacing what an earlier build wrote there; return its pages.

    Raises ValueError that lists the links which do not resolve; the site is then left as it was.
    """
    made = pages(root)
    if site.exists() and not (site / "style.css").is_file() and any(site.iterdir()):
        raise ValueError(f"{site} is not a site of this program: it is not replaced")
    draft = site.with_name(f".{site.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        (draft / "style.css").write_text(STYLE.lstrip(), encoding="utf-8")
        for page in made:
            (draft / page.name).write_text(_render(page, made, root, draft), encoding="utf-8")
        broken = list(_broken_links(draft))
        if broken:
            raise ValueError("links that do not resolve: " + "; ".join(broken))
        shutil.rmtree(site, ignore_errors=True)
        draft.replace(site)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return made


def cli_reference() -> str:
    """Return the reference of the command line as Markdown: every command that can be imported, every option."""
    from attenua.cli import COMMANDS, group

    context = group.make_context("attenua", [], resilient_parsing=True)
    parts = [_command(group, context)]
    for name, _ in COMMANDS:
        try:
            command = group.get_command(context, name)
        except click.ClickException:
            continue  # not part of this installation
        assert command is not None
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        parts.append(_command(command, own))
    return "\n".join(parts)


def with_reference(text: str) -> str:
    """Return the text of docs/cli.md with an up-to-date reference. Raises ValueError where its mark is missing."""
    if text.count(CLI_MARK) != 1:
        raise ValueError(f"docs/cli.md must have this line once: {CLI_MARK}")
    return f"{text.partition(CLI_MARK)[0]}{CLI_MARK}\n\n{cli_reference()}"


def main(arguments: list[str] | None = None) -> int:
    """Bring docs/cli.md up to date, or check that it is, and build the site."""
    parser = argparse.ArgumentParser(description="Build the documentation as HTML.")
    parser.add_argument("--site", type=Path, default=ROOT / "site", help="the folder to write (default: site)")
    parser.add_argument("--check", action="store_true", help="change no page: fail if docs/cli.md is out of date")
    given = parser.parse_args(arguments)
    try:
        path = ROOT / "docs" / "cli.md"
        text = path.read_text(encoding="utf-8")
        fresh = with_reference(text)
        if fresh != text and given.check:
            raise ValueError("docs/cli.md is out of date: run make docs and commit it")
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
        made = build(given.site)
    except (ValueError, OSError) as error:
        print(f"docs: error: {error}", file=sys.stderr)
        return 2
    print(f"{given.site / 'index.html'} ({len(made)} pages)")
    return 0


def _page(path: Path, name: str) -> Page:
    text = path.read_text(encoding="utf-8")
    title = re.match(r"\s*# (.+)\n", text)
    if title is None:
        raise ValueError(f"{path} does not begin with a title (# ...)")
    return Page(path, name, title[1].strip().replace("`", ""), text)


def _render(page: Page, made: list[Page], root: Path, site: Path) -> str:
    """The page as HTML; the files that it links to are copied into the site."""
    converter = markdown.Markdown(extensions=["fenced_code", "tables", "toc", "sane_lists"])
    converter.treeprocessors.register(_Links(converter, page, made, root, site), "links", 0)
    body = converter.convert(page.text)
    current = ' aria-current="page"'
    navigation = "\n".join(
        f'<a href="{each.name}"{current if each == page else ""}>{html.escape(each.title)}</a>' for each in made
    )
    title = page.title if page.name == "index.html" else f"{page.title} - attenua"
    return TEMPLATE.format(title=html.escape(title), navigation=navigation, body=body)


class _Links(Treeprocessor):
    """Turns links between sources into links between pages; what is no page is copied to files/."""

    def __init__(self, converter: markdown.Markdown, page: Page, made: list[Page], root: Path, site: Path) -> None:
        super().__init__(converter)
        self.page, self.root, self.site = page, root, site
        self.names = {each.source: each.name for each in made}

    def run(self, root: ElementTree.Element) -> None:
        for element in root.iter():
            for key in ("href", "src"):
                address = element.get(key)
                if address is not None:
                    element.set(key, self.translate(address))

    def translate(self, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or not parts.path:
            return address
        target = (self.page.source.parent / unquote(parts.path)).resolve()
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        if target in self.names:
            return self.names[target] + anchor
        if not target.is_file() or not target.is_relative_to(self.root):
            return address  # found by the check of the finished site
        copy = Path("files") / target.relative_to(self.root)
        (self.site / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, self.site / copy)
        return copy.as_posix() + anchor


class _Addresses(HTMLParser):
    """The addresses that a page links to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("href", "src") and value is not None:
                self.links.append(value)
            if key in ("id", "name") and value is not None:
                self.anchors.add(value)


def _broken_links(site: Path) -> Iterator[str]:
    """What a page links to and the site does not have; addresses on the web are not asked."""
    parsed = {path.name: _Addresses(path.read_text(encoding="utf-8")) for path in sorted(site.glob("*.html"))}
    for name, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = unquote(parts.path) or name
            if not (site / target).is_file():
                yield f"{link} in {name} (no such file)"
            elif target in parsed and parts.fragment and unquote(parts.fragment) not in parsed[target].anchors:
                yield f"{link} in {name} (no such heading)"


def _command(command: click.Command, context: click.Context) -> str:
    """A section about a command: how to call it, what it does, its options."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"## {context.command_path}", "", "```", usage, "```", ""]
    lines += [line for part in _paragraphs(command.help or "") for line in (part, "")]
    lines += ["| option | meaning |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:  # None: hidden, or an argument (the text above explains it)
            name, meaning = (" ".join(each.split()).replace("|", "\\|") for each in record)
            lines.append(f"| `{name}` | {meaning} |")
    return "\n".join([*lines, ""])


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a command's help, each as one line, without click's marks."""
    parts = re.split(r"\n\s*\n", text.replace("\b", "").partition("\f")[0].strip())
    return [" ".join(part.split()) for part in parts if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
