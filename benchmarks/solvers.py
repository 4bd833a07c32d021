"""Which solver at how many network calls? A table of a model's solvers: FID, or the distance to a fine reference.

    python benchmarks/solvers.py MODEL --data data --num 10000 --device cuda       FID (screening; 50000 settles)
    python benchmarks/solvers.py MODEL --metric distance --num 64                  no Inception: end points
    python benchmarks/solvers.py MODEL --rows multistep/default/10,5 released/released/10,5 --seconds 600

Rows are written as they come. The same call again goes on: rows that the report has are left out, and with --seconds
those that would not be done in time. benchmarks/few_calls.py puts several reports into one.

--half makes the products of the network in float16, whose mantissa is as long as that of TF32 (10 bits); Inception is
not touched by it.

Distance: root mean square over pixels, in picture values (-1 to 1), between a solver's pictures and those of many steps
of `multistep` from the same noise. Rules with fresh noise have no such reference and are left out of it.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attenua.reports import read_rows, write_report
from attenua.sampling import SOLVERS, Fitted, Grid, Karras, sample, solver
from attenua.tasks import Generation, load

CALLS = "1,2,3,5,8,10,15,20,35"
FRESH = ("posterior", "released", "ancestral", "sde-dpmpp-2m")
OUT = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name or file")
    parser.add_argument("--metric", choices=("fid", "distance"), default="fid")
    parser.add_argument("--solvers", default="all", help="names with commas between them, or all")
    parser.add_argument("--calls", default=CALLS, help="network calls an image, with commas between them")
    parser.add_argument(
        "--grids", default="default", help="grids with commas between them; default: what is sampled with"
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="SOLVER/GRID/CALLS", help="in this order, in place of --solvers, --grids, --calls"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="leave out rows that would end later")
    parser.add_argument("--num", type=int, default=10_000, help="pictures")
    parser.add_argument("--reference", type=int, default=128, help="network calls of the fine reference (distance)")
    parser.add_argument("--data", default="data", help="folder that CIFAR-10 lies in (fid)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="pictures a network call")
    parser.add_argument("--compile", action="store_true", help="compile the network first")
    parser.add_argument("--half", action="store_true", help="products in float16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the report; a .csv beside it (default: results/solvers_METRIC.json)")
    return parser.parse_args()


class Distance:
    """Distance of end points to a fine reference's."""

    def __init__(self, generation: Generation, num: int, calls: int, seed: int, batch: int) -> None:
        self.generation, self.num, self.seed, self.batch = generation, num, seed, batch
        self.ends = self.pictures(solver("multistep"), Karras(), calls)

    def pictures(self, rule: Any, grid: Any, calls: int) -> Tensor:
        """Return end points, [num, C, H, W], in picture values."""
        network = self.generation.model.config.network
        shape = (network.channels, network.image_size, network.image_size)
        made = []
        for start in range(0, self.num, self.batch):
            rows = range(start, min(start + self.batch, self.num))
            model = self.generation.model
            made.append(
                sample(model, (len(rows), *shape), steps=calls, seed=self.seed, solver=rule, grid=grid, indices=rows)
            )
        return torch.cat(made)

    def figures(self, rule: Any, grid: Any, calls: int) -> dict[str, float]:
        """Return the distance."""
        away = (self.pictures(rule, grid, calls) - self.ends).double()
        return {"distance": float(away.square().mean().sqrt())}


def wanted(args: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Return solver, grid and calls of every row asked for, in order. Raises ValueError for another form of --rows."""
    if args.rows is None:
        names = list(SOLVERS) if args.solvers == "all" else args.solvers.split(",")
        choices = [
            (name, grid, int(n)) for name in names for n in args.calls.split(",") for grid in args.grids.split(",")
        ]
    else:
        choices = []
        for text in args.rows:
            parts = text.split("/")
            if len(parts) != 3 or not all(n.isdigit() for n in parts[2].split(",")):
                raise ValueError(f"--rows has {text!r}; allowed is SOLVER/GRID/CALLS, such as multistep/karras/5,10")
            choices += [(parts[0], parts[1], int(n)) for n in parts[2].split(",")]
    return [row for row in choices if args.metric == "fid" or row[0] not in FRESH]


def named(grid: Grid) -> str:
    """Return a grid's name in a table: a fitted one says what it was fitted by, if not by pixels."""
    if isinstance(grid, Fitted) and grid.record.measure != "pixels":
        return f"{grid.label} by {grid.record.measure}"
    return grid.label


def at_most(calls: int, rows: Sequence[dict[str, Any]]) -> float:
    """Return the most seconds that a row of so many calls takes, by what others took: a fixed part and one a call."""
    return min((row["seconds"] * max(1.0, calls / row["nfe"]) for row in rows), default=0.0)


def prepare(generation: Generation, args: argparse.Namespace) -> None:
    """Compile the network, and have its products made in float16, as far as asked for."""
    if args.compile:
        generation.model.network.compile()
    if args.half:
        raw = generation.model.raw
        generation.model.raw = torch.autocast(generation.device.type, dtype=torch.float16)(raw)  # type: ignore[method-assign]


def table(generation: Generation, args: argparse.Namespace, had: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows asked for, as they are measured, but for those that there are."""
    begun = time.perf_counter()
    batch = args.batch or (500 if generation.device.type == "cuda" else 32)
    prepare(generation, args)
    measure: Any = None
    have = {(row["solver"], row["grid"], row["nfe"]) for row in had}
    made: list[dict[str, Any]] = []
    for name, asked, calls in wanted(args):
        rule = solver(name)
        try:
            choice = generation.choose(calls, rule, None if asked == "default" else asked)
        except ValueError as error:  # no such grid of this model; the other rows do not suffer from it
            print(f"{name:14} {asked:8} {calls:3} left out: {error}", file=sys.stderr, flush=True)
            continue
        grid = choice.grid
        settings = generation.settings(choice, args.seed) | {"grid": named(grid)}
        if (name, settings["grid"], calls) in have:
            continue
        started = time.perf_counter()
        if started - begun + at_most(calls, made) > args.seconds:
            print(f"{name:14} {settings['grid']:8} {calls:3} left out: no time", file=sys.stderr, flush=True)
            continue
        if args.metric == "distance":
            measure = measure or Distance(generation, args.num, args.reference, args.seed, batch)
            figures = measure.figures(rule, grid, calls)
        else:
            measure = measure or evaluation(generation, args)
            try:
                figures = measure.model(
                    generation, args.num, steps=calls, seed=args.seed, solver=rule, grid=grid, batch=batch
                )
            except ValueError as error:  # float16 overflows at t = 1, which networks are not trained at
                print(f"{name:14} {settings['grid']:8} {calls:3} left out: {error}", file=sys.stderr, flush=True)
                continue
        row = {"metric": args.metric, "value": figures[args.metric], **settings, "samples": args.num}
        row |= {"model": Path(args.model).stem, "half": args.half}
        row["default"] = asked == "default" and name == generation.choose(calls).solver.name
        row["seconds"] = round(time.perf_counter() - started, 2)
        print(f"{name:14} {settings['grid']:8} {calls:3} {row['value']:.4f}", file=sys.stderr, flush=True)
        have.add((name, settings["grid"], calls))
        made.append(row)
        yield row


def evaluation(generation: Generation, args: argparse.Namespace) -> Any:
    """Return what measures FID."""
    from attenua.data import load as load_data
    from attenua.tasks.evaluation import Evaluation

    return Evaluation(load_data(Path(args.data)), device=generation.device)


def write(rows: list[dict[str, Any]], args: argparse.Namespace, out: Path) -> None:
    """Write the report and the table beside it."""
    protocol = {"metric": args.metric, "samples": args.num, "seed": args.seed}
    if args.metric == "distance":
        protocol |= {"reference": f"multistep, karras, {args.reference} calls", "unit": "picture values, -1 to 1"}
    write_report(out, out.stem, rows, protocol)
    write_table(rows, out.with_suffix(".csv"))


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a line a solver and grid, a column a number of calls."""
    calls = sorted({row["nfe"] for row in rows})
    lines = list(dict.fromkeys((row["solver"], row["grid"]) for row in rows))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["solver", "grid", *calls])
        for line in lines:
            found = {row["nfe"]: row["value"] for row in rows if (row["solver"], row["grid"]) == line}
            writer.writerow([*line, *(f"{found[n]:.5g}" if n in found else "" for n in calls)])


def kept(out: Path, generation: Generation, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows that the report has. Raises ValueError where they are not of this model and these settings."""
    if not out.exists():
        return []
    rows: list[dict[str, Any]] = [dict(row) for row in read_rows(out)]
    ours = {"metric": args.metric, "samples": args.num, "seed": args.seed, "half": args.half}
    ours["model_sha256"] = generation.header.sha256
    for key, value in ours.items():
        if rows[0].get(key) != value:
            raise ValueError(f"{out} has rows of {key} {rows[0].get(key)}, not {value}; choose another --out")
    return rows


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    out = args.out or OUT / f"solvers_{args.metric}.json"
    generation = load(args.model, args.device)
    rows = kept(out, generation, args)
    for row in table(generation, args, list(rows)):
        rows.append(row)
        write(rows, args, out)  # what was measured is kept, whatever happens next
    print(out)


if __name__ == "__main__":
    main()
