"""Names for tensor shapes; checked at run time in the tests (jaxtyping), plain tensors elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    Images = Tensor
    """Float pictures or states, [B, C, H, W]."""
    Bytes = Tensor
    """uint8 pictures, [B, C, H, W], 0..255."""
    Times = Tensor
    """One number a sample, [B]; also a single number, []."""
    Labels = Tensor
    """Whole numbers, [B]."""
    Vectors = Tensor
    """Float vectors, [B, D]."""
else:
    try:
        from jaxtyping import Float, Int, UInt8
    except ModuleNotFoundError:
        Images = Bytes = Times = Labels = Vectors = Tensor
    else:
        Images = Float[Tensor, "B C H W"]
        Bytes = UInt8[Tensor, "B C H W"]
        Times = Float[Tensor, "*T"]
        Labels = Int[Tensor, "B"]
        Vectors = Float[Tensor, "B D"]

__all__ = ["Bytes", "Images", "Labels", "Times", "Vectors"]
