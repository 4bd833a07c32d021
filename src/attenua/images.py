"""Pictures on disk and in grids: read as 8-bit RGB the way a viewer would show them, written atomically as PNG."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import pad

from attenua.files import write_bytes

__all__ = ["MAX_PIXELS", "SUFFIXES", "decode", "grid", "is_image", "list_images", "read", "write"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""The endings (in lower case) of the files that are taken for pictures."""

MAX_PIXELS = 2**27
"""The largest picture that is read, in pixels: a small file can claim any size, and must not fill the memory."""

_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # whatever the ending says, no other decoder is started


def is_image(name: str | Path) -> bool:
    """Whether a file's name is that of a picture: a known ending, and no leading dot (hidden files, side files)."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: str | Path) -> list[Path]:
    """The pictures in a folder and all folders below it, sorted by path; hidden ones are left out.

    Raises FileNotFoundError or NotADirectoryError where `folder` is none; the list may be empty.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    found = (path for path in folder.rglob("*") if is_image(path) and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read(path: str | Path, *, under: str = "white") -> Tensor:
    """Read a picture as uint8 [3, H, W], see `decode`; a file that cannot be opened raises OSError."""
    return decode(Path(path).read_bytes(), str(path), under=under)


def decode(data: bytes, name: str, *, square: int | None = None, under: str = "white") -> Tensor:
    """Decode the bytes of a picture file to uint8 RGB [3, H, W].

    The orientation that a camera noted is applied; grey and palette pictures become RGB; transparent ones are laid on
    the colour `under`; of an animation the first frame is taken; of 16-bit samples the upper 8 bits; colour profiles
    are ignored.
    square: crop the centre to a square and resize it to this many pixels (Lanczos, which also filters reductions).

    Raises ValueError, with `name` in it, where the bytes are no whole picture of a format in SUFFIXES, have
    floating-point or 32-bit samples, or claim more than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and of sizes that we judge ourselves
            picture = _rgb(_open(data), under)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files
        raise ValueError(f"cannot read {name} as a picture: {_sentence(error)}") from None
    if square is not None:
        picture = ImageOps.fit(picture, (square, square), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _open(data: bytes) -> Image.Image:
    """Decode in the file's own mode, turned upright; the size is judged before any pixel is decoded."""
    picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"it claims {picture.width} x {picture.height} pixels, more than the limit of {MAX_PIXELS}")
    picture.load()
    return ImageOps.exif_transpose(picture)


def _rgb(picture: Image.Image, under: str) -> Image.Image:
    """Any mode as RGB, on a colour where it is transparent."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"samples of mode {picture.mode} (32 bits) have no known range")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    top = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", top.size, under), top).convert("RGB")


def _sentence(error: Exception) -> str:
    """What the decoder said, in one line that makes sense to who sees the file."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a whole file of a known kind ({', '.join(_FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more pixels than the limit of {MAX_PIXELS}"
    return " ".join((str(error) or type(error).__name__).split())


def write(
    path: str | Path, image: Tensor, *, overwrite: bool = False, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write uint8 [3, H, W] as a PNG file in one step, with `metadata` as text entries, and return the path.

    Raises FileExistsError where the file is there and `overwrite` is not set, ValueError for another ending than
    .png, another tensor, or a metadata key that PNG cannot hold, and OSError where the disk does not take it; a file
    that was there is then as it was.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"pictures are written as PNG, so the name must end in .png, not {path.name!r}")
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"a picture must be uint8 [3, H, W], not {image.dtype} {list(image.shape)}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: choose another name or allow overwriting")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    entries = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        if not 1 <= len(key.strip()) == len(key) <= 79 or not (key.isascii() and key.isprintable()):
            raise ValueError(f"a PNG entry's key must be 1 to 79 printable ASCII characters, not {key!r}")
        entries.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()).save(buffer, "PNG", pnginfo=entries)
    write_bytes(path, buffer.getvalue())
    return path


def grid(images: Tensor, columns: int | None = None, scale: int = 1, padding: int = 2) -> Tensor:
    """Lay pictures uint8 [N, 3, H, W] out in rows, left to right, as one picture uint8 [3, rows, columns].

    columns: None makes the number of columns and rows as equal as possible. Every pixel is repeated scale x scale
    times; `padding` white pixels lie between and around the pictures, and places left over stay white.
    Raises ValueError for an empty or other tensor, columns < 1, scale < 1 or padding < 0.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not images.numel():
        raise ValueError(f"a grid is made of uint8 [N, 3, H, W], N >= 1, not {images.dtype} {list(images.shape)}")
    for name, value, least in (("columns", columns, 1), ("scale", scale, 1), ("padding", padding, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    count, _, height, width = images.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else min(columns, count)
    rows = math.ceil(count / columns)
    cells = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    cells = pad(cells, (padding, 0, padding, 0), value=255)
    blank = cells.new_full((rows * columns - count, *cells.shape[1:]), 255)
    cells = torch.cat([cells, blank]).view(rows, columns, *cells.shape[1:])
    whole = cells.permute(2, 0, 3, 1, 4).reshape(
        3, rows * (height * scale + padding), columns * (width * scale + padding)
    )
    return pad(whole, (0, padding, 0, padding), value=255)
