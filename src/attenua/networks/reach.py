"""Field of view: which pixels of state and condition a pixel of a network's output can depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """Along one axis, pixel i of a map depends on pixels stride i - before .. stride i + after of the state at most.

    stride: pixels of the state a pixel of the map (whole at every map of a U-Net, since patch folds first).
    """

    stride: int = 1
    before: int = 0
    after: int = 0

    def conv(self, kernel: int, stride: int = 1, padding: int | None = None) -> Reach:
        """After a convolution or pooling with `padding` pixels added before (None: half the kernel)."""
        first = kernel // 2 if padding is None else padding
        before, after = self.before + first * self.stride, self.after + (kernel - 1 - first) * self.stride
        return Reach(self.stride * stride, before, after)

    def fold(self, factor: int) -> Reach:
        """After factor x factor pixels became channels."""
        return self.conv(factor, factor, 0)

    def copied(self, factor: int) -> Reach:
        """After every pixel was copied factor x factor times, or channels became as many pixels."""
        stride = self.stride // factor
        return Reach(stride, self.before + (factor - 1) * stride, self.after)

    def interpolated(self, factor: int) -> Reach:
        """After `attenua.networks.blocks.enlarge` by that factor: each pixel from its neighbours before and after."""
        stride = self.stride // factor
        return Reach(stride, self.before + 2 * (factor - 1) * stride, self.after)

    def window(self, side: int) -> Reach:
        """After every pixel saw all of its window, wherever in the window it lies."""
        grown = (side - 1) * self.stride
        return Reach(self.stride, self.before + grown, self.after + grown)

    def __or__(self, other: Reach) -> Reach:
        """Of a map made from two of the same stride."""
        assert self.stride == other.stride
        return Reach(self.stride, max(self.before, other.before), max(self.after, other.after))
