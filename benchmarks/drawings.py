"""Do samples of a model of edges differ as the people do who drew them?

    python benchmarks/drawings.py edges --data data/BSDS500 --limit 20

A model that has learnt one annotator at a time (`task.annotators=one`) should draw another map each time: with as
many lines, that agree with each other as well as people's drawings do, and differ in the same places. For each
picture, --samples maps are drawn, taken as lines from half on and thinned. Then, of people and of samples alike:

agreement    F of every pair of drawings, pixels matched one to one within 0.0075 of the diagonal, summed over a picture
ink          the share of the pixels that are lines
spread       the deviation over drawings that were blurred (3 pixels), a pixel
where        the rank correlation of both spreads over the pixels of a picture
cross        the agreement of samples with people

and their means over the pictures.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from attenua.data import boundaries, pairs
from attenua.metrics import boundaries as edge_metrics
from attenua.reports import write_report
from attenua.tasks import load_conditional
from attenua.tasks.scoring import evenly

OUT = Path(__file__).parent / "results" / "drawings.json"
BLUR = 3.0
"""Pixels: the deviation of the blur before drawings are compared pixel by pixel."""
Drawings = NDArray[np.bool_]


def agreement(several: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
    """Return F over pairs of drawings, bool [H, W] each: matched pixels over all of them."""
    matched = drawn = 0
    for one, other in several:
        hits, found = edge_metrics.match(one, other, edge_metrics.TOLERANCE * math.hypot(*one.shape))
        matched += int(hits.sum()) + int(found.sum())
        drawn += int(one.sum()) + int(other.sum())
    return matched / max(drawn, 1)


def spread(drawings: Drawings) -> NDArray[np.float64]:
    """Return the deviation over blurred drawings, [H, W], of [K, H, W]."""
    blurred = np.stack([gaussian_filter(each.astype(float), BLUR) for each in drawings])
    return np.asarray(blurred.std(0))


def compare(people: Drawings, samples: Drawings) -> dict[str, float]:
    """Return the figures of one picture, from bool [A, H, W] and [K, H, W]."""
    spreads = spread(people), spread(samples)
    places = [each.ravel()[::7] for each in spreads]  # neighbours say the same
    differ = all(np.ptp(each) > 1e-9 for each in places)  # a rank correlation with what is the same everywhere is none
    return {
        "agreement_people": agreement(combinations(people, 2)),
        "agreement_samples": agreement(combinations(samples, 2)),
        "cross": agreement(product(samples, people)),
        "ink_people": float(people.mean()),
        "ink_samples": float(samples.mean()),
        "spread_people": float(spreads[0].mean()),
        "spread_samples": float(spreads[1].mean()),
        "where": float(spearmanr(*places)[0]) if differ else 0.0,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name or file")
    parser.add_argument("--data", type=Path, required=True, help="the folder of BSDS500")
    parser.add_argument("--limit", type=int, help="pictures, evenly taken from the test split")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--grid", help="the times of the calls (default: the model's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    model, data = load_conditional(given.model, device=given.device), boundaries.load(given.data, "test")
    figures: dict[str, list[float]] = {}
    for index in evenly(len(data), given.limit):
        picture, truth = data.pair(index)
        people = (truth >= pairs.FOREGROUND).numpy()
        if len(people) < 2:
            continue
        told = picture.float() / 127.5 - 1
        drawn = model.draw(told, samples=given.samples, steps=given.calls, grid=given.grid, seed=given.seed)
        samples = np.stack([edge_metrics.thin(each[0].numpy() >= 0) for each in drawn])
        for name, value in compare(people, samples).items():
            figures.setdefault(name, []).append(value)
        print(data.names[index], {name: round(values[-1], 3) for name, values in figures.items()}, file=sys.stderr)
    about: dict[str, Any] = {"model": Path(given.model).name, "model_sha256": model.header.sha256}
    about |= {"nfe": given.calls, "grid": given.grid or model.sampling.grid, "samples": len(figures["cross"])}
    about |= {"drawings": given.samples, "seed": given.seed, "split": "test"}
    about |= {"data": data.name, "data_sha256": data.sha256()}
    rows = [{"metric": name, "value": float(np.mean(values)), **about} for name, values in figures.items()]
    alike = float(spearmanr(figures["agreement_people"], figures["agreement_samples"])[0])
    rows.append({"metric": "agreement_rank_correlation", "value": alike, **about})
    for row in rows:
        print(f"{row['metric']} {row['value']:.4f}")
    write_report(given.out, "drawings", rows, {"tolerance": edge_metrics.TOLERANCE, "blur": BLUR})


if __name__ == "__main__":
    main()
