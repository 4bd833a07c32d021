"""attenua: diffusion models with analytical image attenuation (ADM)."""

from attenua._version import __version__

__all__ = ["__version__"]
