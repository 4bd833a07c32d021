"""Model files: one safetensors file holds weights, configuration and record; find, download, verify, read, write."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import struct
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attenua.config import ModelConfig, SamplingConfig, closest, from_dict, to_dict
from attenua.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KINDS = ("int8", "float16", "float32")
SCALE = ".int8_scale"
"""Suffix of the tensor that holds an int8 tensor's scales, one an output channel."""

BASE_VARIABLE = "ATTENUA_MODELS_URL"
CACHE_VARIABLE = "ATTENUA_CACHE"


@dataclass(frozen=True)
class Weights:
    """A model file in memory: tensors by name, float32; configuration; record (training, data, terms, scores)."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    record: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "float32"


@dataclass(frozen=True)
class Header:
    """What a model file says without its tensors: configuration, record, size in bytes and SHA-256."""

    path: Path
    config: ModelConfig
    sampling: SamplingConfig
    record: Mapping[str, Any]
    kind: str
    bytes: int
    sha256: str


def quantise(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values and one float16 scale an output channel (first dimension): tensor ~ values * scale."""
    import numpy as np
    import torch

    rows = tensor.detach().to(torch.float32).flatten(1)
    # The scale is rounded up to float16 before dividing, so that values / scale never passes 127.
    scale = (rows.abs().amax(dim=1) / 127).clamp(min=6e-8)
    rounded = scale.to(torch.float16).numpy()
    half = torch.from_numpy(np.where(rounded < scale.numpy(), np.nextafter(rounded, np.float16(np.inf)), rounded))
    values = (rows / half.to(torch.float32)[:, None]).round().clamp(-127, 127).to(torch.int8)
    return values.reshape(tensor.shape), half


def dequantise(values: Tensor, scale: Tensor) -> Tensor:
    """Return values * scale, float32."""
    import torch

    return values.to(torch.float32) * scale.to(torch.float32).view(-1, *[1] * (values.ndim - 1))


def write(path: Path, weights: Weights, kind: str = "float32", *, overwrite: bool = True) -> Path:
    """Write a model file atomically and return its path.

    kind "int8": tensors of two dimensions or more as int8 with a float16 scale an output channel, the rest float16;
    "float16"; "float32". Raises ValueError on another kind or a tensor that the kind cannot hold (not finite, or
    beyond float16), FileExistsError without overwrite.
    """
    import torch
    from safetensors.torch import save

    if kind not in KINDS:
        raise ValueError(f"unknown kind of weights {kind!r}; known: {', '.join(KINDS)}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or allow overwriting")
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        whole = tensor.detach().cpu().contiguous()
        if name in ("mu", "data_mean"):
            stored[name] = whole.to(torch.float32)
        elif kind == "int8" and whole.ndim >= 2:
            stored[name], stored[name + SCALE] = quantise(whole)
        else:
            stored[name] = whole.to(torch.float32 if kind == "float32" else torch.float16)
    for name, tensor in stored.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name.removesuffix(SCALE)} has values that are not finite as {kind}; nothing is written")
    description = {
        "format": FORMAT,
        "kind": kind,
        "model": to_dict(weights.config),
        "sampling": to_dict(weights.sampling),
        "record": dict(weights.record),
    }
    write_bytes(path, save(stored, metadata={"attenua": json.dumps(description, sort_keys=True)}))
    return path


def write_sampling(path: Path, out: Path, sampling: SamplingConfig, *, overwrite: bool = True) -> Path:
    """Write a model file with other sampling defaults and the tensors as they are stored; return its path.

    `out` may be `path`. Raises FileExistsError without overwrite, ValueError on a damaged file.
    """
    from safetensors.torch import save

    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another name or allow overwriting")
    description = {**_description(path), "sampling": to_dict(sampling)}
    write_bytes(out, save(_stored(path), metadata={"attenua": json.dumps(description, sort_keys=True)}))
    return out


def read_header(path: Path) -> Header:
    """Return what a model file says of itself, checking its form. Raises ValueError on a file that is none of ours."""
    description = _description(path)
    config, sampling = _configurations(path, description)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Header(path, config, sampling, description["record"], description["kind"], path.stat().st_size, digest)


def _configurations(path: Path, description: Mapping[str, Any]) -> tuple[ModelConfig, SamplingConfig]:
    try:
        model = from_dict(ModelConfig, description["model"], "model.")
        return model, from_dict(SamplingConfig, description["sampling"], "sampling.")
    except ValueError as error:
        raise ValueError(f"{path} has a configuration that this version does not know: {error}") from None


def _description(path: Path) -> dict[str, Any]:
    """Return what the metadata say, of the form that `write` gives them. Reads no tensor."""
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise ValueError(f"{path} is not a safetensors file, or is truncated")
        header = _section(file.read(length))
    ends = _ends(header)
    if header is None or ends is None:
        raise ValueError(f"{path} is not a safetensors file")
    if size != 8 + length + max(ends, default=0):
        raise ValueError(f"{path} is truncated: {size} bytes, {8 + length + max(ends, default=0)} expected")
    text = (header.get("__metadata__") or {}).get("attenua")
    if text is None:
        raise ValueError(f"{path} is a safetensors file, but not a model of attenua")
    description = _section(text)
    if description is None:
        raise ValueError(f"{path} is damaged: its metadata are not JSON")
    if description.get("format") != FORMAT:
        raise ValueError(f"{path} has format {description.get('format')}; this version reads format {FORMAT}")
    sections = all(isinstance(description.get(name), dict) for name in ("model", "sampling", "record"))
    if not sections or description.get("kind") not in KINDS:
        raise ValueError(f"{path} is damaged: its metadata lack the model, sampling, record or kind of weights")
    return description


def _section(text: str | bytes) -> dict[str, Any] | None:
    """Return a JSON object, or None for anything else."""
    try:
        value = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _ends(header: Mapping[str, Any] | None) -> list[int] | None:
    """Return where each tensor ends, or None if the header is not of safetensors' form."""
    if header is None or not isinstance(header.get("__metadata__", {}), dict):
        return None
    ends = []
    for name, item in header.items():
        if name != "__metadata__":
            offsets = item.get("data_offsets") if isinstance(item, dict) else None
            if not (isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(end, int) for end in offsets)):
                return None
            ends.append(offsets[1])
    return ends


def read(path: Path) -> Weights:
    """Return a model file, its tensors as float32. Raises ValueError on a damaged file."""
    import torch

    description = _description(path)
    config, sampling = _configurations(path, description)
    stored = _stored(path)
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            if name.removesuffix(SCALE) not in stored:
                raise ValueError(f"{path} is damaged: {name} has no tensor to scale")
            continue
        scale = stored.get(name + SCALE)
        if (scale is not None) != (tensor.dtype == torch.int8) or (
            scale is not None and (tensor.ndim < 2 or scale.shape != tensor.shape[:1])
        ):
            raise ValueError(f"{path} is damaged: {name} must be int8 with one scale a channel, or neither")
        tensors[name] = tensor.to(torch.float32) if scale is None else dequantise(tensor, scale)
    return Weights(config, tensors, sampling, description["record"], description["kind"])


def _stored(path: Path) -> dict[str, Tensor]:
    """Return the tensors as they are stored."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError that names the first tensors that are missing, unknown or of another shape."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ValueError(f"the weights do not fit the model: {'; '.join(problems[:3])}{more}")


def cache() -> Path:
    """Return the user's cache folder: $ATTENUA_CACHE, else attenua under $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attenua"


def packaged() -> Path:
    """Return the folder of the models that the package carries."""
    return Path(str(resources.files("attenua").joinpath("shipped")))


def catalogue() -> dict[str, dict[str, Any]]:
    """Return the known models by name: file, sha256, bytes, and a line of text (shipped/index.json)."""
    index: dict[str, dict[str, Any]] = json.loads((packaged() / "index.json").read_text())
    return index


def find(name: str) -> Path:
    """Return the file of a model: a path, a packaged model, the cache, else a download from $ATTENUA_MODELS_URL.

    Raises ValueError on an unknown name or a wrong checksum, FileNotFoundError where a path has no file.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = catalogue()
    if name not in known:
        if path.suffix or len(path.parts) > 1:
            raise FileNotFoundError(f"no model file at {name}")
        told = f"unknown model {name!r}{closest(name, known)}; known: {', '.join(known)}"
        raise ValueError(f"{told}, or the path of a model file")
    entry = known[name]
    for folder in (packaged(), cache() / "models"):
        if (folder / entry["file"]).is_file():
            return folder / str(entry["file"])
    return _download(name, entry)


def _download(name: str, entry: Mapping[str, Any]) -> Path:
    base = os.environ.get(BASE_VARIABLE)
    if not base:
        raise FileNotFoundError(f"the model {name!r} is not on this machine; set {BASE_VARIABLE} to where models lie")
    url = f"{base.rstrip('/')}/{entry['file']}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        raise OSError(f"cannot download {url}: {error}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        raise ValueError(f"{url} has SHA-256 {digest}; expected {entry['sha256']}")
    path = cache() / "models" / str(entry["file"])
    write_bytes(path, content)
    return path
