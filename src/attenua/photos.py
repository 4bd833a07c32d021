"""A photographer's pictures on disk: read and written with depth, grey, alpha, profile and EXIF as they are."""

from __future__ import annotations

import html
import io
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from attenua import png, tiff
from attenua.files import write_bytes
from attenua.images import MAX_PIXELS, list_images

__all__ = ["LONGEST", "SUFFIXES", "Photo", "pairs", "read", "settings_of", "write"]

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
"""The endings (in lower case) of the files that are written, and listed in folders, with their formats."""

LONGEST = {"JPEG": 65500, "WEBP": 16383}
"""The longest side that a format holds, in pixels; the others have no such bound."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")  # whatever the ending says, no other decoder is started

_Samples = NDArray[Any]  # uint8 or uint16 [H, W, C]; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture, upright, with what a file says of it beside its pixels.

    Raises ValueError where shapes, types or depth are others than these; values out of range are cut on writing.
    """

    pixels: Tensor
    """float32 [C, H, W] in [-1, 1]; C = 1 grey, 3 RGB, in the colour space of `icc`."""
    alpha: Tensor | None = None
    """float32 [1, H, W] in [0, 1], 0 transparent; colours are not multiplied by it."""
    depth: int = 8
    """Bits a sample, 8 or 16."""
    icc: bytes | None = None
    """The colour profile, of grey or RGB as the pixels are; None is sRGB."""
    exif: bytes | None = None
    """The EXIF block, beginning with "Exif" and two zero bytes; its orientation is 1 (upright)."""
    format: str = "PNG"
    """The format of the file that it came from: PNG, JPEG, WEBP or TIFF."""

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != torch.float32 or len(shape) != 3 or shape[0] not in (1, 3) or not self.pixels.numel():
            raise ValueError(f"a photo is float32 [1 or 3, H, W], not {self.pixels.dtype} {list(shape)}")
        if self.alpha is not None and (self.alpha.dtype != torch.float32 or self.alpha.shape != (1, *shape[1:])):
            wanted = [1, *shape[1:]]
            raise ValueError(f"its alpha is float32 {wanted}, not {self.alpha.dtype} {list(self.alpha.shape)}")
        if self.depth not in (8, 16):
            raise ValueError(f"a photo has 8 or 16 bits a sample, not {self.depth}")

    @property
    def grey(self) -> bool:
        """Whether it has one channel of grey and no colour."""
        return self.pixels.shape[0] == 1


# ---- reading


def read(path: str | Path) -> Photo:
    """Read a PNG, JPEG, WebP or TIFF file (by its content, not its name), at the depth that it has.

    The orientation that the camera noted is applied. Palettes become RGB, a transparent colour becomes alpha, 1, 2 and
    4 bits become 8. The profile is kept and no pixel converted, except CMYK and LAB (8 bits), which become sRGB by
    their profile (relative colorimetric, black point compensated), CMYK without one by Pillow's formula. A profile
    that is not of the picture's kind of colours, and EXIF that cannot be parsed, are left out, as viewers do. Of a
    JPEG with more pictures behind the first (previews, gain maps) and a TIFF with previews, the picture itself is read.

    Raises ValueError, one sentence with the path, where the file is damaged, of another kind, an animation or of
    several pages, has samples of other depths, or claims more than MAX_PIXELS (told from the header, before anything
    is decoded); OSError where it cannot be opened or the memory does not suffice.
    """
    path = Path(path)
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and of sizes that we judge ourselves
        try:
            return _read(file)
        except MemoryError:
            raise OSError(f"there is not enough memory to read {path}") from None
        except Exception as error:  # decoders raise almost anything on damaged files
            raise ValueError(f"cannot read {path} as a picture: {_sentence(error)}") from None


def _read(file: tiff.File) -> Photo:
    head = file.read(8)
    if tiff.is_tiff(head):
        return _read_tiff(tiff.Source(file))
    depth = png.depth(file)
    with _open(file) as picture:
        if depth != 16:
            _scale_transparency(picture, depth)
            samples = _samples(picture)
            return _photo(samples, picture.info, picture.info.get("exif"), _orientation(picture), str(picture.format))
    file.seek(0)
    upper, lower, transparent = png.halves(file.read())
    with _open(io.BytesIO(upper)) as picture:
        samples = _samples(picture).astype(np.uint16) << 8
        info, orientation = picture.info, _orientation(picture)
    with _open(io.BytesIO(lower)) as picture:
        samples |= _samples(picture)
    if transparent is not None:
        seen = np.any(samples != np.array(transparent, np.uint16), axis=2, keepdims=True)
        samples = np.concatenate([samples, seen * np.uint16(65535)], axis=2)
    return _photo(samples, info, info.get("exif"), orientation, "PNG")


def _read_tiff(source: tiff.Source) -> Photo:
    first, *others = tiff.pages(source)
    if tiff.RAW in first or tiff.number(source, first, tiff.KIND, 0) & 1:
        raise ValueError("it is a camera's raw file, whose first page is only a preview")
    if any(not tiff.number(source, page, tiff.KIND, 0) & 5 for page in others):  # 1: a preview, 4: a mask
        raise ValueError(f"it has {1 + len(others)} pages, and a picture has one")
    _judge(tiff.number(source, first, tiff.WIDTH), tiff.number(source, first, tiff.HEIGHT))
    bits = set(tiff.bits(source, first))
    if len(bits) != 1 or not bits <= {1, 2, 4, 8, 16}:
        told = f"{max(bits)} bits" if len(bits) == 1 else "different depths"
        raise ValueError(f"samples of {told} are not read, only of 1, 2, 4, 8 or 16 bits")
    info = {"icc_profile": first[tiff.ICC].value} if tiff.ICC in first else {}
    try:
        exif = tiff.exif_of(source, first)
    except ValueError:
        exif = None
    if bits == {16} and tiff.number(source, first, tiff.PHOTOMETRIC) != 5:
        orientation = tiff.number(source, first, tiff.ORIENTATION, 1)
        return _photo(tiff.decode16(source, first), info, exif, orientation, "TIFF")
    with _open(source.file) as picture:
        samples = _samples(picture)  # upright: so Pillow hands on TIFF, and no other format
        return _photo(samples, {"icc_profile": picture.info.get("icc_profile")}, exif, 1, "TIFF")


def _open(file: tiff.File) -> Image.Image:
    """Open by content; the header is judged, nothing is decoded."""
    file.seek(0)
    picture = Image.open(file, formats=_FORMATS)
    _judge(*picture.size)
    if getattr(picture, "is_animated", False) and picture.format in ("PNG", "WEBP"):
        raise ValueError(f"it is an animation of {getattr(picture, 'n_frames', 'several')} pictures")
    return picture


def _judge(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"it claims {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ValueError(f"it claims {width} x {height} pixels, more than the limit of {MAX_PIXELS}")


def _scale_transparency(picture: Image.Image, depth: int) -> None:
    """Pillow scales grey of few bits to 8, but not always the grey that is transparent."""
    noted = picture.info.get("transparency")
    if picture.mode in ("1", "L") and depth in (1, 2, 4) and isinstance(noted, int) and noted < 2**depth:
        picture.info["transparency"] = noted * 255 // (2**depth - 1)


def _samples(picture: Image.Image) -> _Samples:
    """Decode, and bring any mode to grey or RGB, with or without alpha: uint8 [H, W, C]."""
    picture.load()
    if picture.mode in ("CMYK", "LAB"):
        picture = _to_srgb(picture)
    modes = {"1": "L", "L": "L", "LA": "L", "La": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB"}
    modes |= {"RGBa": "RGB", "RGBX": "RGB", "YCbCr": "RGB"}
    if picture.mode not in modes:
        raise ValueError(f"samples of Pillow's mode {picture.mode} are not read, only 8 or 16 bits of grey or colours")
    mode = modes[picture.mode] + ("A" if picture.has_transparency_data else "")
    samples = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    return samples[..., None] if mode == "L" else samples


def _to_srgb(picture: Image.Image, profile: bytes | None = None) -> Image.Image:
    """CMYK, LAB or grey as sRGB, by the profile given or the picture's own; CMYK by a formula where none fits."""
    profile = profile or picture.info.pop("icc_profile", None)
    try:
        known = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        done = ImageCms.profileToProfile(
            picture,
            known,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        if picture.mode == "LAB":
            raise ValueError("its colour profile does not fit its colours") from None
        return picture.convert("RGB")
    assert done is not None  # only a conversion in place gives none
    done.info.clear()
    return done


def _orientation(picture: Image.Image) -> int:
    """What the camera noted, 1..8; 1 where it is not there or not readable."""
    try:
        noted = picture.getexif().get(tiff.ORIENTATION, 1)
    except Exception:  # damaged metadata; the pixels are whole
        return 1
    return noted if noted in range(1, 9) else 1


def _turn(samples: _Samples, orientation: int) -> _Samples:
    """Upright, by the EXIF standard's table of where the first row and column lie."""
    if orientation >= 5:
        samples = samples.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return samples[::rows, ::columns]


def _photo(samples: _Samples, info: Mapping[Any, Any], exif: bytes | None, orientation: int, kind: str) -> Photo:
    samples = _turn(samples, orientation)
    height, width, count = samples.shape
    colours = count - (count + 1) % 2
    most = np.iinfo(samples.dtype).max
    pixels = np.empty((colours, height, width), np.float32)
    for channel in range(colours):
        pixels[channel] = samples[..., channel]
    pixels /= most
    pixels *= 2
    pixels -= 1
    alpha = samples[..., colours:].transpose(2, 0, 1).astype(np.float32) / np.float32(most) if count > colours else None
    if exif is not None:
        exif = exif if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif
        try:
            exif = tiff.upright(exif, width, height)
        except ValueError:
            exif = None
    icc = info.get("icc_profile")
    return Photo(
        pixels=torch.from_numpy(pixels),
        alpha=None if alpha is None else torch.from_numpy(alpha),
        depth=8 * samples.dtype.itemsize,
        icc=icc if icc and _space(icc) == ("GRAY" if colours == 1 else "RGB") else None,
        exif=exif,
        format="JPEG" if kind == "MPO" else kind,
    )


def _space(icc: bytes) -> str:
    """What colours a profile is for: GRAY, RGB, CMYK, ...; empty where it is none."""
    return icc[16:20].decode("ascii", "replace").strip() if len(icc) >= 128 and icc[36:40] == b"acsp" else ""


def _sentence(error: Exception) -> str:
    """What the decoder said, in one line that makes sense to who sees the file."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a whole file of a known kind ({', '.join(_FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more pixels than the limit of {MAX_PIXELS}"
    if isinstance(error, (ValueError, OSError, SyntaxError)) and str(error):
        return " ".join(str(error).split())
    return f"it is damaged ({type(error).__name__})"


# ---- writing


def write(
    path: str | Path, photo: Photo, *, overwrite: bool = False, settings: Mapping[str, str] | None = None
) -> Path:
    """Write a photo in the format of the path's ending (SUFFIXES), in one step, and return the path.

    PNG and TIFF hold everything, bit for bit. JPEG (quality 95, colours at full resolution) and WebP (quality 95) hold
    8 bits a sample; JPEG holds no alpha, so there the photo must be opaque; WebP holds RGB only, so grey becomes RGB
    (sRGB where the grey has a profile). EXIF and profile are written; EXIF notes the new size and no thumbnail.
    settings: stored as XMP, for `settings_of`. (XMP of the source is not kept: it tells of gain maps, depth maps and
    edits that are not in this file.) Folders that are missing are made.

    Raises ValueError for another ending, transparency in JPEG, values that are not finite, a side longer than the
    format holds, a profile for other colours, and metadata that does not fit; FileExistsError where the file is there
    and `overwrite` is not set (so an input is never lost); OSError where the disk does not take it: the file is then
    as it was.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}; allowed are {', '.join(SUFFIXES)}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: choose another name or allow overwriting")
    try:
        data = _encode(photo, kind, None if settings is None else _packet(settings))
    except ValueError as error:
        raise ValueError(f"cannot write {path}: {_sentence(error)}") from None
    write_bytes(path, data)
    return path


def _encode(photo: Photo, kind: str, xmp: bytes | None) -> bytes:
    height, width = photo.pixels.shape[1:]
    if max(height, width) > LONGEST.get(kind, max(height, width)):
        raise ValueError(f"{kind} holds {LONGEST[kind]} pixels a side, less than {width} x {height}")
    if photo.icc is not None and _space(photo.icc) != ("GRAY" if photo.grey else "RGB"):
        raise ValueError(f"its profile is for colours of kind {_space(photo.icc) or 'unknown'}, unlike its pixels")
    try:
        exif = None if photo.exif is None else tiff.upright(photo.exif, width, height)
    except ValueError as error:
        raise ValueError(f"its EXIF block cannot be parsed: {error}") from None
    deep = photo.depth == 16 and kind in ("PNG", "TIFF")
    samples = _quantised(photo, np.dtype(np.uint16 if deep else np.uint8))
    if kind == "TIFF":
        return tiff.encode(samples, icc=photo.icc, exif=exif, xmp=xmp)
    if kind == "PNG" and deep:
        small = _pillow(samples[:1, :1].astype(np.uint8), kind, photo.icc, exif, xmp)
        ancillary = [part for part in png.chunks(small) if part[0] not in (b"IHDR", b"IDAT", b"IEND")]
        return png.encode16(samples, ancillary)
    if kind == "JPEG" and photo.alpha is not None:
        if (samples[..., -1] != 255).any():
            raise ValueError("it has transparent parts, which JPEG does not hold: choose PNG, WebP or TIFF")
        samples = samples[..., :-1]
    return _pillow(samples, kind, photo.icc, exif, xmp)


def _quantised(photo: Photo, dtype: np.dtype[Any]) -> _Samples:
    """To the nearest of the values that the type has, [H, W, C]."""
    most = np.iinfo(dtype).max
    planes = [*photo.pixels] if photo.alpha is None else [*photo.pixels, photo.alpha[0]]
    samples: _Samples = np.empty((*photo.pixels.shape[1:], len(planes)), dtype)
    for channel, plane in enumerate(planes):  # one at a time, for the memory's sake
        if not torch.isfinite(plane).all():
            raise ValueError("it has values that are not finite")
        low = -1.0 if channel < len(photo.pixels) else 0.0
        scaled = (plane.detach().cpu().clamp(low, 1) - low) * (most / (1 - low))
        samples[..., channel] = scaled.round().numpy()
    return samples


def _pillow(samples: _Samples, kind: str, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """Have Pillow encode 8 bits."""
    picture = Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))
    options: dict[str, Any] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}, "PNG": {}}[kind]
    if kind == "WEBP" and picture.mode in ("L", "LA"):
        alpha, grey = picture.getchannel("A") if picture.mode == "LA" else None, picture.getchannel(0)
        picture, icc = (_to_srgb(grey, icc) if icc else grey.convert("RGB")), None
        if alpha is not None:
            picture.putalpha(alpha)
    if kind == "PNG" and xmp is not None:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif xmp is not None:
        options["xmp"] = xmp
    options |= {name: value for name, value in (("icc_profile", icc), ("exif", exif)) if value is not None}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# ---- settings

_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:attenua="urn:attenua:" attenua:settings="{}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def _packet(settings: Mapping[str, str]) -> bytes:
    return _PACKET.format(html.escape(json.dumps(dict(settings), sort_keys=True))).encode()


def settings_of(path: str | Path) -> dict[str, str] | None:
    """The settings that `write` stored in a file; None where it holds none or is no readable picture.

    Only the header is read. Raises OSError where the file cannot be opened.
    """
    with Path(path).open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = re.search(rb'attenua:settings="([^"]*)"', _xmp(file))
            settings = json.loads(html.unescape(found[1].decode())) if found else None
        except Exception:  # whatever it is, it was not written here
            return None
    plain = isinstance(settings, dict) and all(isinstance(value, str) for value in settings.values())
    return settings if plain else None


def _xmp(file: tiff.File) -> bytes:
    if tiff.is_tiff(file.read(8)):
        source = tiff.Source(file)
        page = tiff.directory(source, source.first)
        return page[tiff.XMP].value if tiff.XMP in page else b""
    file.seek(0)
    with Image.open(file, formats=_FORMATS) as picture:
        found = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
        return found.encode() if isinstance(found, str) else bytes(found)


# ---- names


def pairs(inputs: Sequence[Path], out: Path, *, overwrite: bool = False) -> list[tuple[Path, Path]]:
    """Which file each picture is written to: (input, output), in the order given, a folder's by path.

    inputs: files, and folders whose pictures (by SUFFIXES, not hidden), also in folders below, are taken; what lies
    below `out` in such a folder is left out (it is a former result). out: a name with an ending of SUFFIXES that is no
    folder is the file for one input file; anything else is a folder, which need not be there yet. In a folder names
    are kept, with their place below the folder given; a file whose ending cannot be written gets .png after its name.
    A file that is named twice for the same output is taken once. Nothing is written.

    Raises FileNotFoundError for an input that is not there; ValueError for none, a folder without pictures, several
    pictures for one file, an ending that is not known for one file, two inputs for one output, an output that is
    an input (its own is allowed with `overwrite`), and one that lies where a folder is.
    """
    inputs, out = [Path(each) for each in inputs], Path(out)
    if not inputs:
        raise ValueError("there is no input: name a picture or a folder of pictures")
    for path in inputs:
        if not path.exists():
            raise FileNotFoundError(f"there is no picture or folder {path}")
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if not out.is_dir():
        if single and out.suffix and out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{out} ends in {out.suffix}; allowed are {', '.join(SUFFIXES)}, or a folder")
        if out.suffix.lower() in SUFFIXES:
            if not single:
                raise ValueError(f"several pictures need a folder to be written to, and {out} names one file")
            return _checked([(inputs[0], out)], overwrite)
        if out.exists():
            raise ValueError(f"{out} is a file, and neither a folder nor a picture")
    found = [pair for path in inputs for pair in _in_folder(path, out)]
    return _checked(list(dict.fromkeys(found)), overwrite)


def _in_folder(path: Path, out: Path) -> list[tuple[Path, Path]]:
    """The pictures of one input and their places in the folder `out`."""
    if not path.is_dir():
        return [(path, out / (path.name if path.suffix.lower() in SUFFIXES else f"{path.name}.png"))]
    former = out.resolve()
    inside = former != path.resolve() and former.is_relative_to(path.resolve())
    listed = [each for each in list_images(path) if each.suffix.lower() in SUFFIXES]
    listed = [each for each in listed if not (inside and each.resolve().is_relative_to(former))]
    if not listed:
        raise ValueError(f"there is no picture in {path}; known endings are {', '.join(SUFFIXES)}")
    return [(each, out / each.relative_to(path)) for each in listed]


def _checked(found: list[tuple[Path, Path]], overwrite: bool) -> list[tuple[Path, Path]]:
    """The pairs, if no output is another's or an input."""
    sources = {_identity(source): source for source, _ in found}
    taken: dict[str, tuple[str, Path]] = {}
    kept = []
    for source, target in found:
        own, place = _identity(source), _identity(target)
        if place in taken:
            if taken[place][0] == own:
                continue
            raise ValueError(f"{taken[place][1]} and {source} would both be written to {target}")
        if place in sources and not (place == own and overwrite):
            told = "allow overwriting or choose" if place == own else "choose"
            raise ValueError(f"{target} is itself an input: {told} another output")
        if target.is_dir():
            raise ValueError(f"{target} is a folder, and {source} would be written there")
        taken[place] = own, source
        kept.append((source, target))
    return kept


def _identity(path: Path) -> str:
    """One text for all names of a file: links are followed, and case counts where the system says so."""
    return os.path.normcase(path.resolve())
