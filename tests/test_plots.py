"""Plots: points lie where the log of their values says, and what cannot be drawn is refused."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from attenua import plots, reports
from tests.conftest import CommandLine

SVG = "{http://www.w3.org/2000/svg}"
LINES = {"one & two": [(1.0, 100.0), (10.0, 10.0), (100.0, 1.0)], "three": [(10.0, 10.0)]}


def rows(solver: str, values: dict[int, float], **fields: str) -> list[reports.Row]:
    return [{"metric": "fid", "value": value, "nfe": nfe, "solver": solver, **fields} for nfe, value in values.items()]


def test_equal_ratios_are_equal_lengths() -> None:
    tree = ElementTree.fromstring(plots.chart(LINES, title="T", x="calls", y="FID"))
    line = tree.findall(f"{SVG}polyline")[0].attrib["points"]
    places = [tuple(map(float, pair.split(","))) for pair in line.split()]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(places, places[1:], strict=False)]
    assert steps[0] == pytest.approx(steps[1], abs=0.11)
    assert steps[0][0] > 0 > -steps[0][1]  # falling values go down the picture
    words = [text.text for text in tree.iter(f"{SVG}text")]
    assert {"T", "calls", "FID", "one & two", "three", "1", "10", "100"} <= set(words)


def test_every_line_looks_different() -> None:
    lines = {str(k): [(1.0, 1.0 + k), (2.0, 2.0 + k)] for k in range(20)}
    found = re.findall(r"<polyline [^>]*fill=\"none\" ([^/]*)/>", plots.chart(lines, title="", x="", y=""))
    assert len(set(found)) == 20


def test_what_a_log_axis_lacks_is_refused() -> None:
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="a log axis has no place for"):
            plots.chart({"a": [(1.0, bad)]}, title="", x="", y="")
    with pytest.raises(ValueError, match="there is nothing to plot"):
        plots.chart({"a": []}, title="", x="", y="")


def test_lines_are_named_by_what_differs() -> None:
    two = [*rows("ode", {5: 9.0, 10: 4.0}, grid="karras"), *rows("heun", {5: 8.0}, grid="karras")]
    assert reports.lines(two, "fid") == {"ode": [(5.0, 9.0), (10.0, 4.0)], "heun": [(5.0, 8.0)]}
    grids = [*rows("ode", {5: 9.0}, grid="karras"), *rows("ode", {5: 7.0}, grid="fitted")]
    assert list(reports.lines(grids, "fid")) == ["karras", "fitted"]
    with pytest.raises(ValueError, match=r"no row has 'kid' with network calls \(nfe\); the metrics are fid"):
        reports.lines(two, "kid")


def test_plot_draws_a_report(tmp_path: Path, cli: CommandLine) -> None:
    report = tmp_path / "solvers.json"
    reports.write_report(report, "solvers", [*rows("ode", {5: 9.0, 10: 4.0}), *rows("heun", {5: 8.0})], {})
    done = cli("plot", report)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'solvers.svg'}\n")
    assert len(ElementTree.parse(tmp_path / "solvers.svg").getroot().findall(f"{SVG}polyline")) == 2
    assert cli("plot", report).returncode == 2  # it exists
    assert json.loads(cli("plot", report, "--overwrite", "--json").stdout)["lines"] == ["ode", "heun"]
    (tmp_path / "other.json").write_text('{"rows": 3}')
    for bad, words in ((tmp_path / "other.json", "is not a report"), (tmp_path / "none.json", "there is no file")):
        failed = cli("plot", bad, "--out", tmp_path / "x.svg")
        assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
        assert words in failed.stderr
    assert cli("plot", report, "--out", tmp_path / "x.png").returncode == 2
