"""What the tests of upscale and inpaint share: tiny models, and pictures of every kind."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from click.testing import CliRunner
from PIL import Image, ImageCms

from attenua import weights
from attenua.cli import main
from attenua.config import ModelConfig, NetworkConfig, SamplingConfig, TaskConfig
from attenua.model import AttenuationModel
from tests.networks.support import stir

KINDS = ("RGB", "L", "LA", "RGBA", "P", "P+", "CMYK", "1", "RGB16", "L16", "RGBA16", "JPEG", "WEBP", "TIFF16")


def model_file(path: Path, task: str = "super-resolution", scale: int = 2, **fields: Any) -> Path:
    """Write a model that says something: of two levels, not trained."""
    extra = {"condition_channels": 4} if task == "inpainting" else {"condition_scale": scale, "patch": scale}
    values: dict[str, Any] = {
        "image_size": 16, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "heads": 2, "patch": 2,
        "norm": "rms", "dropout": 0.0, "condition_channels": 3, "condition_blocks": 1,
    }  # fmt: skip
    network = NetworkConfig(**(values | extra | fields))
    told = TaskConfig("inpainting") if task == "inpainting" else TaskConfig("super-resolution", scale)
    config = ModelConfig(network, s_d=0.2, task=told)
    model = AttenuationModel(config)
    stir(model, 0.05)
    return weights.write(path, weights.Weights(config, dict(model.state_dict()), SamplingConfig(steps=2), {}))


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line within this process, as the fixture `cli` does, for tests that draw many examples."""
    given = [str(each) for each in arguments]
    with CliRunner().isolation() as (out, err, _):
        code = main(given)
        sys.stdout.flush()
        sys.stderr.flush()
        return subprocess.CompletedProcess(given, code, out.getvalue().decode(), err.getvalue().decode())


def samples(height: int, width: int, channels: int, seed: int = 0, depth: int = 8) -> np.ndarray[Any, Any]:
    """Return random samples, [H, W, C]."""
    top = 2**depth
    kind = np.uint8 if depth == 8 else np.uint16
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype=kind)


def picture(kind: str, height: int, width: int, seed: int = 0, orientation: int = 1) -> tuple[str, bytes]:
    """Return the ending and the bytes of a picture of a kind of KINDS; orientation: that of its EXIF block."""
    if kind.endswith("16"):
        return _deep(kind, height, width, seed)
    modes = {"LA": "LA", "RGBA": "RGBA", "CMYK": "CMYK", "L": "L", "1": "1"}
    ending = {"JPEG": ".jpg", "WEBP": ".webp", "CMYK": ".tif"}.get(kind, ".png")
    rgba = Image.fromarray(samples(height, width, 4, seed), "RGBA" if kind in ("LA", "RGBA") else "CMYK")
    made = rgba.convert("LA") if kind == "LA" else rgba
    if kind not in ("LA", "RGBA", "CMYK"):
        colours = Image.fromarray(samples(height, width, 3, seed))
        made = colours.quantize(8) if kind in ("P", "P+") else colours.convert(modes.get(kind, "RGB"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"transparency": 3} if kind == "P+" else {}
    if kind == "RGB":
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if kind == "WEBP":
        options["lossless"] = True
    buffer = io.BytesIO()
    made.save(buffer, {".jpg": "JPEG", ".webp": "WEBP", ".tif": "TIFF"}.get(ending, "PNG"), exif=exif, **options)
    return ending, buffer.getvalue()


def _deep(kind: str, height: int, width: int, seed: int) -> tuple[str, bytes]:
    import png

    channels = {"L16": 1, "RGB16": 3, "RGBA16": 4, "TIFF16": 3}[kind]
    values = samples(height, width, channels, seed, 16)
    buffer = io.BytesIO()
    if kind == "TIFF16":
        tifffile.imwrite(buffer, values, photometric="rgb")
        return ".tif", buffer.getvalue()
    writer = png.Writer(width, height, greyscale=channels == 1, alpha=channels == 4, bitdepth=16)
    writer.write(buffer, values.reshape(height, -1).tolist())
    return ".png", buffer.getvalue()
