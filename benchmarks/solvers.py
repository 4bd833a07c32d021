"""Which solver at how many network calls? A table of a model's solvers: FID, or the distance to a fine reference.

    python benchmarks/solvers.py MODEL --data data --num 10000 --device cuda       FID (screening; 50000 settles)
    python benchmarks/solvers.py MODEL --metric distance --num 64                  no Inception: end points

Distance: root mean square over pixels, in picture values (-1 to 1), between a solver's pictures and those of many steps
of `multistep` from the same noise. Rules with fresh noise have no such reference and are left out of it.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attenua.reports import write_report
from attenua.sampling import SOLVERS, Karras, sample, solver
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
    parser.add_argument("--num", type=int, default=10_000, help="pictures")
    parser.add_argument("--reference", type=int, default=128, help="network calls of the fine reference (distance)")
    parser.add_argument("--data", default="data", help="folder that CIFAR-10 lies in (fid)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="pictures a network call")
    parser.add_argument("--compile", action="store_true", help="compile the network first")
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


def table(generation: Generation, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of every solver, grid and number of calls, as they are measured."""
    batch = args.batch or (500 if generation.device.type == "cuda" else 32)
    if args.compile:
        generation.model.network.compile()
    measure: Any
    if args.metric == "distance":
        measure = Distance(generation, args.num, args.reference, args.seed, batch)
    else:
        from attenua.data import load as load_data
        from attenua.tasks.evaluation import Evaluation

        measure = Evaluation(load_data(Path(args.data)), device=generation.device)
    names = list(SOLVERS) if args.solvers == "all" else args.solvers.split(",")
    for name in names:
        if args.metric == "distance" and name in FRESH:
            continue
        for calls in map(int, args.calls.split(",")):
            for choice in args.grids.split(","):
                rule = solver(name)
                grid = generation.times(rule, None if choice == "default" else choice, calls)
                started = time.perf_counter()
                if args.metric == "distance":
                    figures = measure.figures(rule, grid, calls)
                else:
                    figures = measure.model(
                        generation, args.num, steps=calls, seed=args.seed, solver=rule, grid=grid, batch=batch
                    )
                settings = generation.settings(calls, rule, grid, args.seed)
                default = name == generation.sampling.solver and choice == "default"
                row = {"metric": args.metric, "value": figures[args.metric], **settings, "samples": args.num}
                row |= {"model": Path(args.model).stem, "default": default}
                row["seconds"] = round(time.perf_counter() - started, 2)
                print(f"{name:14} {settings['grid']:8} {calls:3} {row['value']:.4f}", file=sys.stderr, flush=True)
                yield row


def write(rows: list[dict[str, Any]], args: argparse.Namespace, out: Path) -> None:
    """Write the report and the table beside it: a line a solver and grid, a column a number of calls."""
    protocol = {"metric": args.metric, "samples": args.num, "seed": args.seed}
    if args.metric == "distance":
        protocol |= {"reference": f"multistep, karras, {args.reference} calls", "unit": "picture values, -1 to 1"}
    write_report(out, out.stem, rows, protocol)
    calls = sorted({row["nfe"] for row in rows})
    lines = sorted({(row["solver"], row["grid"]) for row in rows}, key=[(r["solver"], r["grid"]) for r in rows].index)
    with out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["solver", "grid", *calls])
        for line in lines:
            found = {row["nfe"]: row["value"] for row in rows if (row["solver"], row["grid"]) == line}
            writer.writerow([*line, *(f"{found[n]:.5g}" if n in found else "" for n in calls)])


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    out = args.out or OUT / f"solvers_{args.metric}.json"
    rows: list[dict[str, Any]] = []
    for row in table(load(args.model, args.device), args):
        rows.append(row)
        write(rows, args, out)  # what was measured is kept, whatever happens next
    print(out)


if __name__ == "__main__":
    main()
