"""How good are a model's maps of edges, or of what stands out, at how many network calls?

    python benchmarks/perception.py edges MODEL --data data/BSDS500 --split val --limit 30 --thresholds 25  screening
    python benchmarks/perception.py edges MODEL --data data/BSDS500 --split test --processes 2              the protocol
    python benchmarks/perception.py saliency MODEL --data data/DUTS

--maps names what is measured, with commas between: a number of calls for one sample each ("5"), several samples and
their mean ("5x4": four of five calls), "mean" for the mean of all maps by one call, and "annotators" for how well each
of them agrees with the others. Edges are scored with and without suppression (SEval, CEval).

--keep FOLDER keeps the maps as FOLDER/NAME/ID.png, and takes those that are there already. Any other name is that of
such a folder with the maps of another method (0 to 255), as benchmarks/hed.py and u2net.py write them. --add keeps the
rows of a report that is there and replaces those that are measured anew, so that a report can be taken in parts.
--compiled matches with a compiled program (it needs a C compiler): the same optimum, sooner.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import compiled
from attenua.data import boundaries, pairs, saliency
from attenua.data.pairs import PairSet
from attenua.metrics import boundaries as edge_metrics
from attenua.metrics.saliency import Saliency
from attenua.reports import read_rows, write_report
from attenua.tasks import Conditional, load_conditional
from attenua.tasks.saliency import enlarge, reduce
from attenua.tasks.scoring import evenly

OUT = Path(__file__).parent / "results"
MAPS = "mean,1,2,3,5,10,20,5x4"


def arguments() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("edges", "saliency"))
    parser.add_argument("model", help="a model's name or file")
    parser.add_argument("--data", type=Path, required=True, help="the folder of BSDS500 or DUTS")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="of BSDS500; DUTS has test alone")
    parser.add_argument("--maps", help=f"what is measured, see above (default: {MAPS}, and annotators of edges)")
    parser.add_argument("--limit", type=int, help="pictures, evenly taken from the split: screening, not the protocol")
    parser.add_argument("--thresholds", type=int, default=99, help="of edges: 99 as published, 25 to screen")
    parser.add_argument("--modes", default="SEval,CEval", help="of edges: with suppression, and without")
    parser.add_argument("--processes", type=int, default=1, help="that match edges")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where maps are kept, see above")
    parser.add_argument("--add", action="store_true", help="to the report that is there")
    parser.add_argument("--compiled", action="store_true", help="match by a compiled program, in one process")
    parser.add_argument("--out", type=Path, help="the report (default: results/perception_TASK.json)")
    args = parser.parse_args()
    args.maps = args.maps or (f"annotators,{MAPS}" if args.task == "edges" else MAPS)
    return args


@dataclass(frozen=True)
class Maps:
    """Maps of one kind: the mean by one call, the mean of `samples` samples of `calls` calls, or maps of others."""

    name: str
    calls: int = 1
    samples: int = 1
    mean: bool = False
    foreign: bool = False

    @classmethod
    def parse(cls, text: str) -> Maps:
        """Read "mean", "5" or "5x4"; anything else is a folder's name."""
        if text == "mean":
            return cls(text, mean=True)
        calls, _, samples = text.partition("x")
        if not (calls.isdecimal() and (samples or "1").isdecimal()):
            return cls(text, foreign=True)
        return cls(text, int(calls), int(samples or 1))

    @property
    def nfe(self) -> int:
        """Network calls a picture."""
        return self.calls * self.samples


@dataclass
class Bench:
    """One model on one set."""

    args: argparse.Namespace
    model: Conditional
    data: PairSet
    split: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def drawn(self, maps: Maps) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each picture's map, float32 [H, W] in [0, 1], and what people drew, bool [K, H, W]."""
        self.seconds = 0.0
        for index in range(len(self.data)):
            picture, truth = self.data.pair(index)
            told = picture.float() / 127.5 - 1
            started = time.perf_counter()
            if self.args.task == "saliency":
                told = reduce(told)
            output = self.model.draw(
                told,
                samples=maps.samples,
                steps=None if maps.mean else maps.calls,
                seed=self.args.seed,
                faithful=maps.mean,
                tile=self.args.tile,
            ).mean(0)
            if self.args.task == "saliency":
                output = enlarge(output, (picture.shape[1], picture.shape[2]))
            self.seconds += time.perf_counter() - started
            yield ((output[0] + 1) / 2).clamp(0, 1), truth >= pairs.FOREGROUND

    def note(self, figures: dict[str, float], maps: Maps | None, **more: Any) -> None:
        """Keep figures as rows in place of older ones of the same, and print them."""
        settings: dict[str, Any] = {"maps": "annotators", "nfe": 0, "default": False}
        if maps is not None and maps.foreign:
            settings |= {"model": maps.name, "maps": maps.name, "nfe": None}
        elif maps is not None:
            settings = self.model.settings(self.model.choose(maps.calls), self.args.seed)
            if maps.mean:  # one call at t = 1: neither a rule of several steps nor its times
                settings |= {"solver": None, "grid": None, "eta": None}
            settings |= {"model": Path(self.args.model).name, "maps": maps.name, "nfe": maps.nfe}
            settings["default"] = maps == Maps(str(self.model.sampling.steps), self.model.sampling.steps)
            if self.seconds:
                settings["seconds_a_picture"] = round(self.seconds / len(self.data), 3)
        settings |= {"samples": len(self.data), "split": self.split, "data": self.data.name}
        settings |= {"data_sha256": self.data.sha256(), **more}
        rows = [{"metric": name, "value": value, **settings} for name, value in figures.items()]
        keys = ("metric", "model", "maps", "mode", "thresholds", "data_sha256")
        new = {tuple(row.get(key) for key in keys) for row in rows}
        self.rows = [row for row in self.rows if tuple(row.get(key) for key in keys) not in new] + rows
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        kind = f"{more['mode']} {more['thresholds']} " if "mode" in more else ""
        print(f"{settings['maps']:>10} {kind}{told}", flush=True)

    def edges(self) -> None:
        """Score maps of edges, and the annotators against each other."""
        for name in self.args.maps.split(","):
            if name == "annotators":
                self._annotators()
                continue
            maps = Maps.parse(name)
            drawn = [(edges, truth.numpy()) for edges, truth in self._kept(maps)]
            digest = hashlib.sha256()
            for edges, _ in drawn:
                digest.update(edges.tobytes())
            for mode in self.args.modes.split(","):
                started = processor_seconds()
                figures = edge_metrics.evaluate(
                    drawn, mode=mode, thresholds=self.args.thresholds, processes=self.args.processes
                )
                self.note(figures, maps, maps_sha256=digest.hexdigest(), **self._how(mode, started))

    def _annotators(self) -> None:
        started = processor_seconds()
        several = [index for index in range(len(self.data)) if int(self.data.counts[index]) > 1]
        humans = edge_metrics.consistency((self.data.pair(k)[1] >= pairs.FOREGROUND).numpy() for k in several)
        precision, recall = float(humans.precision[0]), float(humans.recall[0])
        f = 2 * precision * recall / (precision + recall)
        self.note({"f": f, "precision": precision, "recall": recall}, None, **self._how("CEval", started, 1))

    def _how(self, mode: str, started: float, thresholds: int | None = None) -> dict[str, Any]:
        """What the rows of edges say of how they were measured."""
        seconds = round(processor_seconds() - started, 1)
        matcher = "compiled" if self.args.compiled else "library"
        thresholds = thresholds or self.args.thresholds
        return {"mode": mode, "thresholds": thresholds, "matcher": matcher, "processor_seconds": seconds}

    def _kept(self, maps: Maps) -> Iterator[tuple[NDArray[np.uint8], Tensor]]:
        """Yield each picture's map in bytes, from where it is kept or else measured, and what people drew."""
        files = None if self.args.keep is None else [self.args.keep / maps.name / f"{k}.png" for k in self.data.names]
        if files is not None and all(file.is_file() for file in files):
            self.seconds = 0.0
            for index, file in enumerate(files):
                yield np.asarray(Image.open(file).convert("L")), self.data.pair(index)[1] >= pairs.FOREGROUND
            return
        if maps.foreign:
            raise FileNotFoundError(f"{maps.name!r} is neither a number of calls nor a folder of --keep with all maps")
        for index, (edges, truth) in enumerate(self.drawn(maps)):
            found = np.rint(edges.numpy() * 255).astype(np.uint8)
            if files is not None:
                files[index].parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(found).save(files[index])
            yield found, truth

    def saliency(self) -> None:
        """Score maps of what stands out."""
        for maps in map(Maps.parse, self.args.maps.split(",")):
            meter, digest = Saliency(), hashlib.sha256()
            for found, truth in self._kept(maps):
                digest.update(found.tobytes())
                meter.update(torch.tensor(found), truth[0])
            self.note(meter.results(), maps, maps_sha256=digest.hexdigest())


def processor_seconds() -> float:
    """What this process and those that it started and that have ended have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def load(args: argparse.Namespace) -> PairSet:
    """Return the pictures to measure on. Raises FileNotFoundError or ValueError where they are not there."""
    if args.task == "edges":
        whole = boundaries.load(args.data, args.split, strict=True)
        chosen = evenly(len(whole), args.limit)
        return pairs.gather(((whole.names[k], *whole.pair(k)) for k in chosen), name=whole.name, terms=whole.terms)
    folder = saliency.find(args.data, "test")
    if folder is None:
        raise FileNotFoundError(f"{args.data} holds no DUTS-TE")
    found = pairs.paired(folder / "DUTS-TE-Image", folder / "DUTS-TE-Mask", refuse)
    chosen = evenly(len(found), args.limit)
    return pairs.gather(pairs.read([found[k] for k in chosen], refuse), name="duts-test", terms=saliency.TERMS)


def refuse(path: Path, reason: str) -> None:
    """A test set must be whole."""
    raise ValueError(f"{path}: {reason}")


def main() -> None:
    """Measure and write the report."""
    args = arguments()
    data = load(args)
    model = load_conditional(args.model, args.device)
    if model.task.name != args.task:
        sys.exit(f"{args.model} is a model for {model.task.name}, not for {args.task}")
    out = args.out or OUT / f"perception_{args.task}.json"
    bench = Bench(args, model, data, args.split if args.task == "edges" else "test")
    if args.add and out.exists():
        bench.rows = read_rows(out)
    protocol: dict[str, Any] = {"pictures": len(data), "limit": args.limit, "tile": args.tile}
    if args.task == "edges":
        if args.compiled:
            if args.processes > 1:
                sys.exit("--compiled matches in one process: leave --processes out")
            compiled.install()
        protocol = {"tile": args.tile, "tolerance": edge_metrics.TOLERANCE, "matching": "minimum cost"}
        bench.edges()
        whole = args.split == "test" and all(row["samples"] == boundaries.SPLITS["test"] for row in bench.rows)
        protocol["published"] = whole and all(row["thresholds"] == 99 for row in bench.rows if row["metric"] == "ods")
    else:
        protocol["published"] = len(data) == saliency.COUNTS["test"]
        bench.saliency()
    write_report(out, f"perception_{args.task}", bench.rows, protocol)
    print(out)


if __name__ == "__main__":
    main()
