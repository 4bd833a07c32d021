"""What few calls give: reports of solvers.py put into one table and plot, and what follows from it.

    python benchmarks/few_calls.py runs/tables/*.json --samples 10000 --model cifar10

It writes results/solvers_fid.json, .csv and .svg, and prints the table in Markdown and what follows from it: the
default's FID over that of the released sampler at the same number of calls, over its own with 50 calls, the best solver
at each number of calls, and the least number of the default's calls that is no worse than DDPM's ancestral rule at
hundreds (the best of its grids).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attenua import load, plots, reports
from attenua.files import write_bytes
from solvers import named, write_table

OUT = Path(__file__).parent / "results" / "solvers_fid.json"
MANY = "ancestral"
MEASURED = ("machine", "versions", "commit")
"""What a report says of where its rows are from."""

Rows = Sequence[dict[str, Any]]


def arguments() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="reports of solvers.py --metric fid")
    parser.add_argument("--samples", type=int, default=10_000, help="rows of so many samples; others are left out")
    parser.add_argument("--model", help="whose defaults they are (none: those that the reports say)")
    parser.add_argument("--out", type=Path, default=OUT, help="the report; a .csv and a .svg beside it")
    return parser.parse_args()


def merged(paths: Sequence[Path], samples: int) -> dict[str, Any]:
    """Return one report with the rows of all, by calls.

    Raises ValueError where a row was measured twice and the results differ by more than 1 %, on two kinds of GPU, or
    where there is no row.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    base: dict[str, Any] | None = None
    for path in paths:
        rows = [dict(row) for row in reports.read_rows(path) if row["metric"] == "fid" and row["samples"] == samples]
        whole = json.loads(path.read_text(encoding="utf-8"))
        if rows and base is not None and whole["machine"]["gpu"] != base["machine"]["gpu"]:
            raise ValueError(f"{path} was measured on {whole['machine']['gpu']}, others on {base['machine']['gpu']}")
        if rows:
            base = base or whole
        for row in rows:
            key = (row["solver"], row["grid"], row["nfe"])
            first = found.setdefault(key, row)
            if not math.isclose(first["value"], row["value"], rel_tol=0.01):
                raise ValueError(f"{path} has {row['value']} for {key}, and another report {first['value']}")
            first["default"] = first["default"] or row["default"]
    if base is None:
        raise ValueError(f"no report has a FID of {samples} samples")
    rows = sorted(found.values(), key=place)
    where = {key: base[key] for key in MEASURED}
    return {"benchmark": "solvers_fid", "protocol": base["protocol"], "rows": rows, **where}


def place(row: dict[str, Any]) -> tuple[bool, str, str, int]:
    """Return what rows are sorted by: the default first, then by solver, grid and calls."""
    return not row["default"], row["solver"], row["grid"], row["nfe"]


def mark(rows: Rows, name: str) -> None:
    """Say of every row whether it is what a model does by default at that number of calls."""
    model = load(name)
    for row in rows:
        usual = model.choose(row["nfe"])
        row["default"] = (row["solver"], row["grid"]) == (usual.solver.name, named(usual.grid))


def findings(rows: Rows) -> Iterator[str]:
    """Yield what follows from a table, a line each; a line whose rows are lacking says so."""
    ours = {row["nfe"]: row["value"] for row in rows if row["default"]}
    released = {row["nfe"]: row["value"] for row in rows if row["solver"] == "released"}
    for calls, target in ((5, 0.35), (10, 0.42), (20, 0.42)):
        yield ratio(f"default over released, {calls} calls", ours.get(calls), released.get(calls), target)
    yield ratio("default, 10 calls over 50", ours.get(10), ours.get(50), 1.1)
    yield ratio("default, 5 calls over 50", ours.get(5), ours.get(50), 1.9)
    for calls in sorted({row["nfe"] for row in rows if row["solver"] != MANY}):
        best = min((row for row in rows if row["nfe"] == calls), key=lambda row: float(row["value"]))
        own = f"; the default {ours[calls]:.2f}" if calls in ours else ""
        yield f"best at {calls} calls: {best['solver']} on {best['grid']}, {best['value']:.2f}{own}"
    for calls in sorted({row["nfe"] for row in rows if row["solver"] == MANY}):
        best = min((r for r in rows if (r["solver"], r["nfe"]) == (MANY, calls)), key=lambda r: float(r["value"]))
        enough = [n for n, value in sorted(ours.items()) if value <= best["value"]]
        told = f"{enough[0]} calls, {ours[enough[0]]:.2f}" if enough else f"none up to {max(ours, default=0)}"
        yield f"{MANY}, {calls} calls on {best['grid']}: {best['value']:.2f}; matched by the default's {told}"


SHOWN = (2, 3, 5, 8, 10, 15, 20, 35, 50)
"""Numbers of calls that the table in Markdown has."""


def markdown(rows: Rows) -> Iterator[str]:
    """Yield a table's lines: of every solver and grid with at least three of SHOWN, best at 10 calls first."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row["nfe"] in SHOWN and row["solver"] != MANY:
            found.setdefault((row["solver"], row["grid"]), {})[row["nfe"]] = float(row["value"])
    least = {calls: min((own[calls] for own in found.values() if calls in own), default=0.0) for calls in SHOWN}
    yield "| solver | grid | " + " | ".join(map(str, SHOWN)) + " |"
    yield "|---" * (len(SHOWN) + 2) + "|"
    for (name, grid), own in sorted(found.items(), key=lambda line: line[1].get(10, math.inf)):
        if len(own) > 2:
            cells = (f"{own[n]:.{0 if own[n] >= 100 else 1}f}" if n in own else "" for n in SHOWN)
            bold = (f"**{text}**" if own.get(n) == least[n] else text for n, text in zip(SHOWN, cells, strict=True))
            yield f"| `{name}` | {grid} | " + " | ".join(bold) + " |"


def curves(rows: Rows) -> dict[str, list[tuple[float, float]]]:
    """Return what is drawn, by name: the default, the released sampler, every solver on karras, the ancestral rule."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        names = ["the default"] if row["default"] else []
        if row["grid"] == "karras" or row["solver"] in ("released", MANY):
            names.append(row["solver"] if row["solver"] != MANY else f"{MANY}, {row['grid']}")
        for name in names:
            lines.setdefault(name, []).append((float(row["nfe"]), float(row["value"])))
    return lines


def ratio(name: str, value: float | None, other: float | None, target: float) -> str:
    """Return a line of a ratio beside its target."""
    if value is None or other is None:
        return f"{name}: not measured (target {target})"
    found = value / other
    return (
        f"{name}: {value:.2f} / {other:.2f} = {found:.3f} (target {target}: {'met' if found <= target else 'NOT met'})"
    )


def main() -> None:
    """Merge, draw, print."""
    args = arguments()
    report = merged(args.reports, args.samples)
    rows = report["rows"]
    if args.model:
        mark(rows, args.model)
        rows.sort(key=place)
    write_bytes(args.out, (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())
    write_table(rows, args.out.with_suffix(".csv"))
    drawn = curves(rows)
    title = f"FID against network calls, {args.samples:,} samples"
    svg = plots.chart(drawn, title=title, x="network calls", y="FID")
    write_bytes(args.out.with_suffix(".svg"), svg.encode())
    for line in (*markdown(rows), "", *findings(rows)):
        print(line)
    print(args.out)


if __name__ == "__main__":
    main()
