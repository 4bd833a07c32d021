"""How good are a model's maps of edges, or of what stands out, at how many network calls?

    python benchmarks/perception.py edges MODEL --data data/BSDS500 --split val --limit 30 --thresholds 25  screening
    python benchmarks/perception.py edges MODEL --data data/BSDS500 --split test --processes 2              the protocol
    python benchmarks/perception.py saliency MODEL --data data/DUTS

--maps names what is measured, with commas between: a number of calls for one sample each ("5"), several samples and
their mean ("5x4": four of five calls), "mean" for the mean of all maps by one call. Edges are scored with and without
suppression (SEval, CEval); a row "annotators" is how well each of them agrees with the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attenua.data import boundaries, pairs, saliency
from attenua.data.pairs import PairSet
from attenua.metrics import boundaries as edge_metrics
from attenua.metrics.saliency import Saliency
from attenua.reports import write_report
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
    parser.add_argument("--maps", default=MAPS, help="what is measured, see above")
    parser.add_argument("--limit", type=int, help="pictures, evenly taken from the split: screening, not the protocol")
    parser.add_argument("--thresholds", type=int, default=99, help="of edges: 99 as published, 25 to screen")
    parser.add_argument("--modes", default="SEval,CEval", help="of edges: with suppression, and without")
    parser.add_argument("--processes", type=int, default=1, help="that match edges")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the report (default: results/perception_TASK.json)")
    return parser.parse_args()


@dataclass(frozen=True)
class Maps:
    """Maps of one kind: the mean by one call, or the mean of `samples` samples of `calls` calls."""

    name: str
    calls: int = 1
    samples: int = 1
    mean: bool = False

    @classmethod
    def parse(cls, text: str) -> Maps:
        """Read "mean", "5" or "5x4". Raises ValueError for anything else."""
        if text == "mean":
            return cls(text, mean=True)
        calls, _, samples = text.partition("x")
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
        """Keep figures as rows, and print them."""
        settings: dict[str, Any] = {"maps": "annotators", "nfe": 0, "default": False}
        if maps is not None:
            rule = self.model.rule(None, None)
            settings = self.model.settings(maps.calls, rule, self.model.times(rule, None, maps.calls), self.args.seed)
            if maps.mean:  # one call at t = 1: neither a rule of several steps nor its times
                settings |= {"solver": None, "grid": None, "eta": None}
            settings |= {"model": Path(self.args.model).name, "maps": maps.name, "nfe": maps.nfe}
            settings["default"] = maps == Maps(str(self.model.sampling.steps), self.model.sampling.steps)
            settings["seconds_a_picture"] = round(self.seconds / len(self.data), 3)
        settings |= {"samples": len(self.data), "split": self.split, "data": self.data.name}
        settings |= {"data_sha256": self.data.sha256(), **more}
        self.rows += [{"metric": name, "value": value, **settings} for name, value in figures.items()]
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"{settings['maps']:>10} {' '.join(map(str, more.values()))} {told}", flush=True)

    def edges(self) -> None:
        """Score maps of edges, and the annotators against each other."""
        humans = edge_metrics.consistency((self.data.pair(k)[1] >= pairs.FOREGROUND).numpy() for k in self._several())
        precision, recall = float(humans.precision[0]), float(humans.recall[0])
        f = 2 * precision * recall / (precision + recall)
        self.note({"f": f, "precision": precision, "recall": recall}, None, mode="CEval")
        for maps in map(Maps.parse, self.args.maps.split(",")):
            drawn = [
                (np.rint(edges.numpy() * 255).astype(np.uint8), truth.numpy()) for edges, truth in self.drawn(maps)
            ]
            for mode in self.args.modes.split(","):
                figures = edge_metrics.evaluate(
                    drawn, mode=mode, thresholds=self.args.thresholds, processes=self.args.processes
                )
                self.note(figures, maps, mode=mode)

    def _several(self) -> list[int]:
        return [index for index in range(len(self.data)) if int(self.data.counts[index]) > 1]

    def saliency(self) -> None:
        """Score maps of what stands out."""
        for maps in map(Maps.parse, self.args.maps.split(",")):
            meter = Saliency()
            for found, truth in self.drawn(maps):
                meter.update(found, truth[0])
            self.note(meter.results(), maps)


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
    bench = Bench(args, model, data, args.split if args.task == "edges" else "test")
    protocol: dict[str, Any] = {"pictures": len(data), "limit": args.limit, "tile": args.tile}
    if args.task == "edges":
        protocol |= {"thresholds": args.thresholds, "tolerance": edge_metrics.TOLERANCE, "matching": "minimum cost"}
        protocol["published"] = args.limit is None and args.thresholds == 99 and args.split == "test"
        bench.edges()
    else:
        protocol["published"] = len(data) == saliency.COUNTS["test"]
        bench.saliency()
    out = args.out or OUT / f"perception_{args.task}.json"
    write_report(out, f"perception_{args.task}", bench.rows, protocol)
    print(out)


if __name__ == "__main__":
    main()
