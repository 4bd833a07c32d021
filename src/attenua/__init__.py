"""attenua: diffusion models with analytical image attenuation (ADM).

>>> import attenua
>>> model = attenua.load("cifar10")
>>> images = model.sample(16, steps=10, seed=0)  # uint8, [16, 3, 32, 32]

Names are imported when first used; `import attenua` alone does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from attenua._version import __version__

if TYPE_CHECKING:
    from attenua.config import Config, ModelConfig
    from attenua.data import ImageSet
    from attenua.model import AttenuationModel
    from attenua.presets import preset
    from attenua.process import Prediction, Process
    from attenua.sampling import sample
    from attenua.tasks import Conditional, Generation, load, load_conditional
    from attenua.training import Objective, Trainer

_HOMES = {
    "AttenuationModel": "attenua.model",
    "Conditional": "attenua.tasks",
    "Config": "attenua.config",
    "Generation": "attenua.tasks",
    "ImageSet": "attenua.data",
    "ModelConfig": "attenua.config",
    "Objective": "attenua.training",
    "Prediction": "attenua.process",
    "Process": "attenua.process",
    "Trainer": "attenua.training",
    "load": "attenua.tasks",
    "load_conditional": "attenua.tasks",
    "preset": "attenua.presets",
    "sample": "attenua.sampling",
}

__all__ = [
    "AttenuationModel",
    "Conditional",
    "Config",
    "Generation",
    "ImageSet",
    "ModelConfig",
    "Objective",
    "Prediction",
    "Process",
    "Trainer",
    "__version__",
    "load",
    "load_conditional",
    "preset",
    "sample",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its room."""
    if name not in _HOMES:
        raise AttributeError(f"module 'attenua' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
