"""Does FID here read as in the literature? CIFAR-10's training set against its test set, published as 3.15."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from attenua.data import cifar10
from attenua.metrics.generation import Reference, score
from attenua.metrics.inception import InceptionFeatures
from attenua.reports import write_report

PUBLISHED = 3.15
OUT = Path(__file__).parent / "results" / "inception_check.json"


def arguments() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data", help="folder that CIFAR-10 lies in")
    parser.add_argument("--num", type=int, help="only so many pictures of either split: no check, so no report either")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=256 if torch.cuda.is_available() else 8)
    parser.add_argument("--out", type=Path, help=f"the report (default: results/{OUT.name}, or none with --num)")
    return parser.parse_args()


def main() -> None:
    """Measure, print the rows, write the report."""
    args = arguments()
    out = OUT if args.out is None and args.num is None else args.out
    extractor = InceptionFeatures(batch=args.batch).to(args.device)
    sets = {split: cifar10.load(args.data, split) for split in ("train", "test")}
    images = {split: found.images[: args.num] for split, found in sets.items()}
    extractor(images["test"][: args.batch])  # the first call prepares the kernels

    def batches(split: str) -> Iterator[Tensor]:
        yield from images[split].split(args.batch)

    def progress(done: int) -> None:
        print(f"\r{done} pictures", end="", file=sys.stderr, flush=True)

    train, sha256 = sets["train"], sets["train"].sha256()
    start = time.perf_counter()
    reference = Reference.compute(batches("train"), extractor, data=train.name, sha256=sha256, progress=progress)
    seconds = time.perf_counter() - start
    size = min(1000, *(len(part) for part in images.values()))
    found = score(batches("test"), reference, extractor, kid_size=size, progress=progress)
    print(file=sys.stderr)

    own = {
        "data": "cifar10",
        "data_sha256": sha256,
        "split": "train against test",
        "samples": len(images["test"]),
        "device": args.device,
    }
    rows = [{"metric": name, "value": found[name], **own} for name in ("fid", "kid", "kid_deviation") if name in found]
    for row in rows:
        row["reference_samples"] = len(images["train"])
        if row["metric"] == "fid" and args.num is None:
            row["published"] = PUBLISHED
    rate = len(images["train"]) / seconds
    rows.append({"metric": "throughput", "value": rate, "unit": "images/s", "device": args.device, "batch": args.batch})
    protocol = {
        "features": extractor.name,
        "resize": "float, TF1 bilinear: source = i * 32 / 299, no rounding",
        "precision": "float32, TF32 convolutions" if args.device != "cpu" else "float32",
        "whole": args.num is None,
        "kid_subsets": 100,
        "kid_size": size,
        "threads": torch.get_num_threads(),
    }
    if out is not None:
        write_report(out, "inception_check", rows, protocol)
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
