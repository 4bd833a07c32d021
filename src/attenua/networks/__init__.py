"""Plain networks; they know nothing of diffusion."""

from attenua.networks.unet import Condition, UNet

__all__ = ["Condition", "UNet"]
