"""What makes the model good? One factor at a time around the preset cifar10, trained for equal time, then FID.

    python benchmarks/ablation.py --data data --seconds 240 --device cuda
    python benchmarks/ablation.py --only default,decoders-two              some of the variants (--list names them)
    python benchmarks/ablation.py --study peers --images 8000000           other models' objectives, equal images

The length of a run in images follows from its own speed: after compilation it is measured for some seconds, alone on
the machine, and the rate falls to zero at the end of that length. With --images all are trained on that many.

Laws and noise laws are compared with t uniform: with a time law in n and a network that sees n they would pose one and
the same problem. What belongs to sampling alone (the combination of heads) is measured on the weights of two decoders.
With one decoder, the rule's two heads start at zero and get opposite gradients: they stay each other's negative to the
last bit, and every combination is the same.

Rows are written as they come. The same call again goes on: a variant whose rows are there is left out, a run that was
cut off is taken up from its folder, and with --until what would end later is left out, too.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from attenua import presets, weights
from attenua.config import Config, override
from attenua.data import ImageSet
from attenua.data import load as load_data
from attenua.reports import read_rows, write_report
from attenua.tasks import Generation
from attenua.tasks.evaluation import Evaluation
from attenua.training import Trainer
from attenua.training.distributed import World

OUT = Path(__file__).parent / "results"
OVERHEAD = 90.0
"""Seconds of a variant beside its training (compilation, samples, FID), until one has been measured."""


@dataclass(frozen=True)
class Variant:
    """One row: what it changes in the preset, and the variant that it differs from by one factor.

    of: the variant whose weights it takes (nothing is trained then); combination: the heads', in sampling; solver: the
    model's own where None.
    """

    name: str
    factor: str
    changes: tuple[str, ...] = ()
    beside: str = "default"
    of: str | None = None
    combination: str | None = None
    solver: str | None = None


UNIFORM = "objective.times=uniform"
PAPER = "objective.weights=paper"
IMAGE = "model.process.combination=image"

ABLATION = (
    Variant("default", "none"),
    Variant("times-uniform", "time law", (UNIFORM,)),
    Variant("decoders-two", "decoders", ("model.network.decoders=2",)),
    Variant("weights-paper", "loss weights", (PAPER,)),
    Variant(
        "published",
        "all of the paper's",
        ("model.process.precondition=paper", PAPER, UNIFORM, "model.process.combination=paper"),
    ),
    Variant("law-linear-falling", "law", (UNIFORM, "model.process.law=linear_falling"), "times-uniform"),
    Variant("noise-linear", "noise law", (UNIFORM, "model.process.noise=linear"), "times-uniform"),
    Variant("law-quadratic", "law", (UNIFORM, "model.process.law=quadratic"), "times-uniform"),
    Variant("times-narrow", "time law", ("objective.log_mean=-1.2", "objective.log_deviation=1.2")),
    Variant("precondition-paper", "precondition", ("model.process.precondition=paper", PAPER), "weights-paper"),
    Variant("weights-revised", "loss weights", ("objective.weights=revised",)),
    Variant("law-linear-rising", "law", (UNIFORM, "model.process.law=linear_rising"), "times-uniform"),
    Variant("law-exponential", "law", (UNIFORM, "model.process.law=exponential"), "times-uniform"),
    Variant(
        "law-free-slope", "law", (UNIFORM, "model.process.law=free_slope", "sampling.solver=ode"), "times-uniform-ode"
    ),
    Variant("combination-image", "combination", beside="decoders-two", of="decoders-two", combination="image"),
    Variant("combination-noise", "combination", beside="decoders-two", of="decoders-two", combination="noise"),
    Variant("combination-paper", "combination", beside="decoders-two", of="decoders-two", combination="paper"),
    Variant("times-uniform-ode", "solver", of="times-uniform", solver="ode", beside="times-uniform"),
)
"""Fourteen trainings, those that are expected to matter most first, and four looks at their weights."""

PEERS = (
    Variant("ours", "none", beside="ours"),
    Variant("edm", "objective", ("objective.log_mean=-1.2", "objective.log_deviation=1.2", IMAGE), "ours"),
    Variant("ddpm", "objective", ("model.process.precondition=epsilon", "objective.times=cosine", IMAGE), "ours"),
    Variant(
        "rectified-flow",
        "objective",
        ("model.process.precondition=velocity", "objective.times=straight", IMAGE),
        "ours",
    ),
)
"""Other models' objectives on the same network, pictures and optimizer (process/peers.py)."""

STUDIES = {"ablation": ABLATION, "peers": PEERS}


def arguments() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=tuple(STUDIES), default="ablation")
    parser.add_argument("--list", action="store_true", help="print the variants and what they change, and end")
    parser.add_argument("--only", metavar="NAME,...", help="these variants, in this order")
    parser.add_argument("--seconds", type=float, default=240.0, help="of training, for each variant")
    parser.add_argument("--images", type=int, help="of training, for each variant, in place of --seconds")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after which no variant may end")
    parser.add_argument("--calls", default="5,10", help="network calls an image, with commas between them")
    parser.add_argument("--num", type=int, default=10_000, help="samples")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the preset for all")
    parser.add_argument("--bench", type=float, default=8.0, help="seconds for which the speed is measured")
    parser.add_argument("--data", default="data", help="folder that CIFAR-10 lies in")
    parser.add_argument("--runs", type=Path, help="folder of the run folders (default: runs/STUDY)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    parser.add_argument("--out", type=Path, help="the report; a .csv beside it (default: results/STUDY.json)")
    return parser.parse_args()


class Study:
    """Trains and measures variants; rows are those that there are, and are added to."""

    def __init__(self, args: argparse.Namespace, data: ImageSet, rows: list[dict[str, Any]]) -> None:
        self.args, self.data, self.rows = args, data, rows
        self.device = torch.device(args.device)
        self.measure: Evaluation | None = None
        self.runs: Path = args.runs or Path("runs") / args.study
        self.calls = [int(text) for text in args.calls.split(",")]
        self.known = {variant.name: variant for variant in STUDIES[args.study]}
        self.begun = time.monotonic()
        self.least = args.seconds + OVERHEAD / 3 if args.images is None else 0.0
        self.needs = args.seconds + OVERHEAD if args.images is None else 0.0

    def config(self, variant: Variant, images: int) -> Config:
        """Return the preset with a variant's changes: no files but the model at the end."""
        quiet = ["training.sample_every=0", "training.snapshots=0", f"training.checkpoint_every={images}"]
        changes = [f"training.images={images}", *quiet, *self.args.set, *variant.changes]
        return override(presets.preset("cifar10"), changes)

    def speed(self, variant: Variant) -> float:
        """Return images a second, compiled and alone on the device."""
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(variant, 1_000_000_000, Path(folder))
            trainer.model.train()
            for _ in range(5):
                trainer.train_step()
            self._wait()
            started, steps = time.perf_counter(), 0
            while steps < 3 or time.perf_counter() - started < self.args.bench:
                for _ in range(10 if self.device.type == "cuda" else 1):
                    trainer.train_step()
                    steps += 1
                self._wait()
            return steps * trainer.config.training.batch / (time.perf_counter() - started)

    def train(self, variant: Variant) -> Path:
        """Train a variant, or go on with it; return its run folder."""
        folder = self.runs / variant.name
        stored = folder / "config.json"
        if stored.exists():
            images = int(json.loads(stored.read_text())["training"]["images"])
        elif self.args.images is not None:
            images = self.args.images
        else:
            batch = self.config(variant, 1).training.batch
            images = max(int(self.args.seconds * self.speed(variant)) // batch, 1) * batch
            self._free()
        self._trainer(variant, images, folder).run()
        self._free()
        return folder

    def model(self, variant: Variant) -> Path:
        """Return the model file of a variant; that of another one's weights is written first."""
        if variant.of is None:
            return self.train(variant) / "model.safetensors"
        base = self.runs / variant.of / "model.safetensors"
        if variant.combination is None or not base.exists():
            return base
        content = weights.read(base)
        process = replace(content.config.process, combination=variant.combination)
        changed = replace(content, config=replace(content.config, process=process))
        return weights.write(self.runs / variant.name / "model.safetensors", changed)

    def missing(self, variant: Variant) -> list[int]:
        """Return the numbers of calls that a variant has no row of."""
        have = {row["nfe"] for row in self.rows if row["model"] == variant.name}
        return [calls for calls in self.calls if calls not in have]

    def fits(self, variant: Variant) -> bool:
        """Return whether a variant would be done in time."""
        needs = self.needs if variant.of is None else OVERHEAD / 2
        return time.monotonic() - self.begun + needs <= self.args.until

    def measured(self, variant: Variant) -> None:
        """Train a variant, measure it and add its rows, writing each as it comes."""
        started = time.monotonic()
        path = self.model(variant)
        if not path.exists():
            say(f"{variant.name}: left out, {variant.of} is not trained")
            return
        generation = Generation(path, self.device)
        record = generation.header.record
        for calls in self.missing(variant):
            choice = generation.choose(calls, variant.solver)
            self.measure = self.measure or Evaluation(self.data, device=self.device)
            try:
                figures = self.measure.model(
                    generation,
                    self.args.num,
                    steps=calls,
                    seed=self.args.seed,
                    solver=choice.solver,
                    grid=choice.grid,
                )
            except ValueError as error:  # samples that are not finite: the other variants do not suffer from it
                say(f"{variant.name:20} {calls:3} calls: left out: {error}")
                continue
            row = {"metric": "fid", "value": figures["fid"], "model": variant.name, "factor": variant.factor}
            row |= {"beside": variant.beside, "changes": " ".join(variant.changes), "weights": variant.of}
            row |= {"combination": generation.model.combination, "samples": self.args.num}
            row |= generation.settings(choice, self.args.seed)
            row |= {"images": record["images"], "seconds": record["seconds"]}
            row["parameters"] = generation.model.parameter_count()
            self.rows.append(row)
            write(self.rows, self.args)
            say(f"{variant.name:20} {calls:3} calls: {row['value']:.3f}  ({record['images']:,} images)")
        if variant.of is None:
            self.needs = max(self.least, time.monotonic() - started)

    def _trainer(self, variant: Variant, images: int, folder: Path) -> Trainer:
        def progress(seen: Any) -> None:
            say(
                f"{variant.name:20} {seen.images:,} of {seen.total:,}: {seen.loss:.4f}, {seen.images_per_second:,.0f}/s"
            )

        world = World(0, 1, self.device)
        return Trainer(self.config(variant, images), self.data, folder, world=world, on_progress=progress)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def chosen(study: Sequence[Variant], only: str | None) -> list[Variant]:
    """Return the variants of those names, in that order; all of them for None. Raises ValueError on an unknown one."""
    known = {variant.name: variant for variant in study}
    names = list(known) if only is None else only.split(",")
    for name in names:
        if name not in known:
            raise ValueError(f"there is no variant {name!r}; known: {', '.join(known)}")
    return [known[name] for name in names]


def report(args: argparse.Namespace) -> Path:
    """Return where the report goes."""
    path: Path = args.out or OUT / f"{args.study}.json"
    return path


def write(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    """Write the report and the table beside it: a line a variant, a column a number of calls."""
    out = report(args)
    equal = f"{args.seconds:g} seconds" if args.images is None else f"{args.images} images"
    protocol = {"metric": "fid", "samples": args.num, "seed": args.seed, "equal": equal, "preset": "cifar10"}
    write_report(out, args.study, rows, {**protocol, "set": " ".join(args.set)})
    calls = sorted({row["nfe"] for row in rows})
    with out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "beside", "changes", "solver", "images", *calls])
        for name in dict.fromkeys(row["model"] for row in rows):
            own = {row["nfe"]: row for row in rows if row["model"] == name}
            one = next(iter(own.values()))
            told = [name, one["beside"], one["changes"], one["solver"], one["images"]]
            writer.writerow([*told, *(f"{own[n]['value']:.5g}" if n in own else "" for n in calls)])


def kept(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows that the report has. Raises ValueError where they were measured otherwise."""
    path = report(args)
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = [dict(row) for row in read_rows(path)]
    for key, value in {"samples": args.num, "seed": args.seed}.items():
        if rows[0][key] != value:
            raise ValueError(f"{path} has rows of {key} {rows[0][key]}, not {value}; choose another --out")
    return rows


def main() -> None:
    """Train, measure, print, write."""
    args = arguments()
    variants = chosen(STUDIES[args.study], args.only)
    if args.list:
        for variant in variants:
            what = " ".join(variant.changes) or (f"the weights of {variant.of}" if variant.of else "the preset")
            print(f"{variant.name:20} {variant.factor:14} beside {variant.beside:18} {what}")
        return
    study = Study(args, load_data(Path(args.data)), kept(args))
    for variant in variants:
        if not study.missing(variant):
            continue
        if not study.fits(variant):
            say(f"{variant.name:20} left out: no time")
            continue
        study.measured(variant)
    print(report(args))


if __name__ == "__main__":
    main()
