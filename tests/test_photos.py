import dataclasses
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import png as pypng
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageSequence, JpegImagePlugin

from attenua import images, photos, tiff
from attenua import png as attenua_png
from attenua.photos import Photo, pairs, read, settings_of, write

few = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
KINDS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "TIFF": "tif"}


def grey_profile():
    """A profile's header that says grey; nothing here looks further."""
    return SRGB[:16] + b"GRAY" + SRGB[20:]


def camera(orientation=1, order="<", thumbnail=True):
    """An EXIF block as a camera writes it: maker, orientation, size, maker's notes, and a thumbnail's directory."""

    def field(tag, kind, count, value):
        return struct.pack(order + "HHL", tag, kind, count) + value.ljust(4, b"\0")

    def short(value):
        return struct.pack(order + "H", value)

    def long(value):
        return struct.pack(order + "L", value)

    first = [
        field(271, 2, 6, long(200)),
        field(274, 3, 1, short(orientation)),
        field(305, 2, 4, b"abc\0"),
        field(34665, 4, 1, long(100)),
    ]
    inner = [field(37500, 7, 9, long(220)), field(40962, 3, 1, short(4000)), field(40963, 4, 1, long(3000))]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, 8)
    block = head + short(len(first)) + b"".join(first) + long(300 if thumbnail else 0)
    block = block.ljust(100, b"\0") + short(len(inner)) + b"".join(inner) + long(0)
    block = block.ljust(200, b"\0") + b"Maker\0"
    block = block.ljust(220, b"\0") + b"\x01secret\xff\x80"
    return b"Exif\0\0" + block.ljust(300, b"\0") + short(1) + field(259, 3, 1, short(6)) + long(0)


def levels(height, width, channels, depth, seed=0):
    """Random samples [H, W, C] with both ends in."""
    values = np.random.default_rng(seed).integers(0, 2**depth, (height, width, channels))
    values.flat[0], values.flat[-1] = 2**depth - 1, 0
    return values.astype(np.uint8 if depth == 8 else np.uint16)


def photo_of(samples, **other):
    """A photo of samples [H, W, 1..4]."""
    most = np.iinfo(samples.dtype).max
    unit = torch.from_numpy(samples.astype(np.float64) / most).permute(2, 0, 1)
    colours = 1 if samples.shape[2] < 3 else 3
    alpha = unit[colours:].float() if samples.shape[2] > colours else None
    return Photo((unit[:colours] * 2 - 1).float(), alpha, samples.dtype.itemsize * 8, **other)


def samples_of(photo):
    """The samples [H, W, C] of a photo, counted apart from the code under test."""
    most = 2**photo.depth - 1
    planes = [(photo.pixels.double() + 1) / 2] + ([] if photo.alpha is None else [photo.alpha.double()])
    whole = (torch.cat(planes) * most).numpy()
    assert np.abs(whole - np.rint(whole)).max() < 0.01
    assert photo.pixels.min() >= -1
    assert photo.pixels.max() <= 1
    return np.rint(whole).astype(np.uint8 if photo.depth == 8 else np.uint16).transpose(1, 2, 0)


def saved(path, picture, kind, **options):
    """A Pillow picture in a file of any name."""
    picture.save(path, kind, **options)
    return path


# ---- what is written is read back


@few
@given(
    suffix=st.sampled_from([".png", ".tif", ".TIFF"]),
    depth=st.sampled_from([8, 16]),
    channels=st.integers(1, 4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 999),
    exif=st.sampled_from([None, "<", ">"]),
    profile=st.booleans(),
)
def test_png_and_tiff_keep_every_bit(tmp_path, suffix, depth, channels, height, width, seed, exif, profile):
    samples = levels(height, width, channels, depth, seed)
    icc = (grey_profile() if channels < 3 else SRGB) if profile else None
    given_exif = None if exif is None else camera(order=exif)
    photo = photo_of(samples, icc=icc, exif=given_exif)
    stored = {"scale": "4", "seed": str(seed)}
    path = write(tmp_path / f"a{suffix}", photo, overwrite=True, settings=stored)
    again = read(path)
    assert np.array_equal(samples_of(again), samples)
    assert (again.depth, again.grey, again.icc) == (depth, channels < 3, icc)
    assert (again.alpha is None) == (channels % 2 == 1)
    assert settings_of(path) == stored
    assert again.format == photos.SUFFIXES[suffix.lower()]
    assert (again.exif is None) == (exif is None)


@few
@given(depth=st.sampled_from([8, 16]), height=st.integers(1, 30), width=st.integers(1, 30), colour=st.booleans())
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_are_close(tmp_path, suffix, depth, height, width, colour):
    ramp = np.linspace(0, 2**depth - 1, height * width).reshape(height, width, 1) * np.ones(3 if colour else 1)
    photo = photo_of(ramp.astype(np.uint8 if depth == 8 else np.uint16))
    again = read(write(tmp_path / f"a{suffix}", photo, overwrite=True))
    assert again.depth == 8
    assert again.grey == (not colour and suffix == ".jpg")
    assert (again.pixels.mean(0) - photo.pixels.mean(0)).abs().mean() < 0.03


def test_jpeg_keeps_colours_at_full_resolution(tmp_path):
    write(tmp_path / "a.jpg", photo_of(levels(16, 16, 3, 8)))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert JpegImagePlugin.get_sampling(picture) == 0
        assert max(picture.quantization[0]) <= 12


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_line_of_pixels_is_a_picture(tmp_path, kind, shape):
    path = write(tmp_path / f"a.{KINDS[kind]}", photo_of(levels(*shape, 3, 16)))
    assert read(path).pixels.shape == (3, *shape)


def test_a_large_picture_crosses_the_boundaries_of_strips_and_bands(tmp_path):
    samples = levels(700, 600, 3, 16)
    samples[:, :300] //= 257  # some of it smooth, so that filters differ
    samples[100:200] = np.arange(600)[None, :, None] * 50
    for suffix in ("png", "tif"):
        assert np.array_equal(samples_of(read(write(tmp_path / f"a.{suffix}", photo_of(samples)))), samples)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), samples)


def test_depth_can_be_changed_and_rounds_to_the_nearest(tmp_path):
    samples = levels(9, 9, 3, 16)
    photo = dataclasses.replace(photo_of(samples), depth=8)
    assert np.array_equal(samples_of(read(write(tmp_path / "a.png", photo))), np.rint(samples / 257).astype(np.uint8))


def test_values_out_of_range_are_cut(tmp_path):
    photo = Photo(torch.tensor([[[-3.0, 5.0, 0.0]]]), torch.tensor([[[-1.0, 2.0, 1.0]]]))
    assert samples_of(read(write(tmp_path / "a.png", photo)))[0].tolist() == [[0, 0], [255, 255], [128, 255]]


# ---- against other implementations


@few
@given(
    colour=st.sampled_from([(1, False), (1, True), (3, False), (3, True)]),
    depth=st.sampled_from([8, 16]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    interlace=st.booleans(),
    filters=st.integers(0, 999),
)
def test_png_is_what_pypng_writes(tmp_path, colour, depth, height, width, interlace, filters):
    count = colour[0] + colour[1]
    samples = levels(height, width, count, depth, filters)
    with (tmp_path / "a.png").open("wb") as file:
        writer = pypng.Writer(width, height, greyscale=colour[0] == 1, alpha=colour[1], bitdepth=depth)
        writer.interlace = interlace
        if interlace:
            writer.write_array(file, samples.reshape(-1).tolist())
        else:
            writer.write(file, samples.reshape(height, -1).tolist())
    photo = read(tmp_path / "a.png")
    assert photo.depth == depth
    assert np.array_equal(samples_of(photo), samples)


def refiltered(samples, seed):
    """A 16-bit PNG with a random filter in every row, by the definition, byte after byte."""
    height, width, count = samples.shape
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    pixel = 2 * count
    data = b""
    for y, kind in enumerate(np.random.default_rng(seed).integers(0, 5, height)):
        line = []
        for x, value in enumerate(rows[y]):
            a = rows[y][x - pixel] if x >= pixel else 0
            b = rows[y - 1][x] if y else 0
            c = rows[y - 1][x - pixel] if y and x >= pixel else 0
            paeth = min((a, b, c), key=lambda each: abs(a + b - c - each))
            line.append((value - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
        data += bytes([kind, *line])
    header = struct.pack(">LLBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    return assembled([(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")])


def assembled(parts):
    done = b"\x89PNG\r\n\x1a\n"
    for kind, content in parts:
        done += struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))
    return done


@few
@given(channels=st.integers(1, 4), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 999))
def test_every_filter_of_png_is_undone(tmp_path, channels, height, width, seed):
    samples = levels(height, width, channels, 16, seed)
    (tmp_path / "a.png").write_bytes(refiltered(samples, seed))
    assert np.array_equal(samples_of(read(tmp_path / "a.png")), samples)
    *_, rows, _ = pypng.Reader(bytes=(tmp_path / "a.png").read_bytes()).read()
    assert np.array_equal(np.array([list(row) for row in rows]).reshape(samples.shape), samples)


def test_paeth_s_neighbour_is_the_standard_s_on_every_tie():
    steps = np.array([0, 1, 2, 3, 5, 6, 9, 128, 253, 254, 255], np.uint8)
    triples = np.stack(np.meshgrid(steps, steps, steps)).reshape(3, 1, -1)
    wanted = [min((a, b, c), key=lambda each: abs(a + b - c - each)) for a, b, c in triples[:, 0].T.tolist()]
    assert attenua_png._paeth(*triples)[0].tolist() == wanted


@few
@given(
    channels=st.integers(1, 4),
    depth=st.sampled_from([8, 16]),
    height=st.integers(1, 40),
    seed=st.integers(0, 99),
    smooth=st.booleans(),
)
def test_pypng_and_tifffile_read_what_is_written(tmp_path, channels, depth, height, seed, smooth):
    samples = levels(height, 7, channels, depth, seed)
    if smooth:  # slopes with a little noise: every filter is the best of some row, and neighbours tie
        samples %= 3
        samples += np.add.outer(9 * np.arange(height) % 50, 5 * np.arange(7)).astype(samples.dtype)[..., None]
    path = write(tmp_path / "a.png", photo_of(samples), overwrite=True)
    *_, rows, info = pypng.Reader(bytes=path.read_bytes()).read()
    assert np.array_equal(np.array([list(row) for row in rows]).reshape(samples.shape), samples)
    assert info["bitdepth"] == depth
    path = write(tmp_path / "a.tif", photo_of(samples, exif=camera(order=">")), overwrite=True)
    with tifffile.TiffFile(path) as file:
        assert np.array_equal(file.asarray().reshape(samples.shape), samples)
        assert file.pages[0].tags["Make"].value == "Maker"
        assert file.pages[0].tags["ExifTag"].value["MakerNote"] == b"\x01secret\xff\x80"


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("transparent", [None, 1])
def test_grey_of_few_bits_fills_the_range(tmp_path, bits, transparent):
    values = np.arange(2**bits)
    with (tmp_path / "a.png").open("wb") as file:
        pypng.Writer(len(values), 1, greyscale=True, bitdepth=bits, transparent=transparent).write(
            file, [values.tolist()]
        )
    photo = read(tmp_path / "a.png")
    samples = samples_of(photo)[0]
    assert photo.grey
    assert samples[:, 0].tolist() == [round(255 * value / (2**bits - 1)) for value in values]
    assert transparent is None or samples[:, 1].tolist() == [0 if value == 1 else 255 for value in values]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [(), (0,), (7, 0), (9,)])
def test_palettes_become_colours_with_their_transparency(tmp_path, bits, alphas):
    palette = [(200, 10, 5), (1, 2, 3), (30, 20, 10), (255, 0, 255)][: 2**bits]
    entries = [(*colour, *alphas[index : index + 1]) for index, colour in enumerate(palette)]
    values = np.arange(7) % len(palette)
    with (tmp_path / "a.png").open("wb") as file:
        pypng.Writer(7, 1, palette=entries, bitdepth=bits).write(file, [values.tolist()])
    photo = read(tmp_path / "a.png")
    wanted = [[*palette[value], *([([*alphas] + [255] * 4)[value]] if alphas else [])] for value in values]
    assert samples_of(photo)[0].tolist() == wanted


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_becomes_alpha(tmp_path, channels, depth):
    samples = np.array([[[5] * channels, [4, *[5] * (channels - 1)], [9 if depth == 8 else 256 + 5] * channels]])
    with (tmp_path / "a.png").open("wb") as file:
        key = 5 if channels == 1 else (5, 5, 5)
        writer = pypng.Writer(3, 1, greyscale=channels == 1, bitdepth=depth, transparent=key)
        writer.write(file, [samples.reshape(-1).tolist()])
    photo = read(tmp_path / "a.png")
    assert np.array_equal(samples_of(photo)[..., :-1], samples)
    assert photo.alpha.flatten().tolist() == [0, 1, 1]


@few
@given(
    channels=st.sampled_from([1, 2, 3, 4]),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    order=st.sampled_from("<>"),
    options=st.fixed_dictionaries(
        {
            "compression": st.sampled_from([None, "zlib"]),
            "predictor": st.booleans(),
            "planarconfig": st.sampled_from(["contig", "separate"]),
            "rowsperstrip": st.sampled_from([1, 7, 50]),
            "tile": st.sampled_from([None, (16, 16), (16, 32)]),
        }
    ),
    big=st.booleans(),
    white=st.booleans(),
)
def test_tiff_is_what_tifffile_writes(tmp_path, channels, height, width, order, options, big, white):
    samples = levels(height, width, channels, 16)
    alpha = channels % 2 == 0
    if options["compression"] is None:
        options["predictor"] = False
    if options["tile"]:
        del options["rowsperstrip"]
    if channels == 1:
        del options["planarconfig"]
    planes = options.get("planarconfig") == "separate"
    stored = samples.transpose(2, 0, 1) if planes else samples
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored[..., 0] if channels == 1 else stored,
        byteorder=order,
        bigtiff=big,
        photometric="rgb" if channels > 2 else "miniswhite" if white else "minisblack",
        extrasamples=["unassalpha"] if alpha else None,
        metadata=None,
        **options,
    )
    photo = read(tmp_path / "a.tif")
    if white and channels < 3:
        samples = samples.copy()
        samples[..., 0] = 65535 - samples[..., 0]
    assert photo.depth == 16
    assert np.array_equal(samples_of(photo), samples)


def lzw(data):
    """A valid LZW stream of TIFF without any code for several bytes: 9 bits each, cleared before codes grow."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))


def packbits(data):
    """PackBits without runs."""
    return b"".join(bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128))


@pytest.mark.parametrize(("method", "pack"), [(5, lzw), (32773, packbits), (32946, zlib.compress), (8, zlib.compress)])
@pytest.mark.parametrize("order", "<>")
def test_what_other_programs_compress_is_read(tmp_path, monkeypatch, method, pack, order):
    samples = levels(11, 13, 3, 16)
    monkeypatch.setattr(tiff.zlib, "compress", lambda data, _: pack(data))
    whole = tiff.encode(samples, icc=None, exif=camera(order=order), xmp=None)
    field = struct.pack(order + "HHLH", 259, 3, 1, 8)
    assert whole.count(field) == 1
    (tmp_path / "a.tif").write_bytes(whole.replace(field, struct.pack(order + "HHLH", 259, 3, 1, method)))
    assert np.array_equal(samples_of(read(tmp_path / "a.tif")), samples)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_deflate", "lzma"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_libtiff_s_own_compression_is_read(tmp_path, compression, predictor):
    samples = levels(70, 60, 1, 16) >> np.linspace(0, 15, 60).astype(np.uint16)[None, :, None]
    info = {317: predictor} if "lzw" in compression or "deflate" in compression or compression == "lzma" else {}
    picture = Image.fromarray(samples[..., 0])
    saved(tmp_path / "a.tif", picture, "TIFF", compression=compression, tiffinfo=info)
    assert np.array_equal(samples_of(read(tmp_path / "a.tif")), samples)


def test_associated_alpha_is_divided_out(tmp_path):
    samples = np.array([[[1000, 2000, 3000, 32768], [0, 0, 0, 0], [9, 8, 7, 65535]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    found = samples_of(read(tmp_path / "a.tif"))[0].tolist()
    assert found == [[2000, 4000, 6000, 32768], [0, 0, 0, 0], [9, 8, 7, 65535]]


def test_lzw_and_jpeg_in_tiff_of_8_bits_are_read(tmp_path):
    picture = Image.fromarray(levels(20, 20, 3, 8))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "raw"):
        saved(tmp_path / "a.tif", picture, "TIFF", compression=compression)
        assert np.array_equal(samples_of(read(tmp_path / "a.tif")), np.asarray(picture))
    saved(tmp_path / "a.tif", Image.new("RGB", (20, 20), (9, 99, 199)), "TIFF", compression="jpeg")
    assert np.abs(samples_of(read(tmp_path / "a.tif")).astype(int) - (9, 99, 199)).max() < 4


def test_eight_bit_reading_agrees_with_what_generation_reads(tmp_path):
    for kind, suffix in KINDS.items():
        path = saved(tmp_path / f"a.{suffix}", Image.fromarray(levels(9, 8, 3, 8)), kind)
        assert np.array_equal(samples_of(read(path)).transpose(2, 0, 1), images.read(path).numpy())


# ---- colours


def ink_profile():
    """A CMYK profile (ICC.1, lut8Type) for which only black ink counts: none is white, full is black."""
    nodes = b"".join(bytes([0 if index % 2 else 255, 128, 128]) for index in range(16))
    identity = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *[65536, 0, 0, 0] * 2, 65536)
    lut += identity * 4 + nodes + identity * 3
    size = 128 + 4 + 12 + len(lut)
    head = struct.pack(">L4sL4s4s4s", size, bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3L", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">L4sLL", 1, b"A2B0", 144, len(lut)) + lut


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(tmp_path, kind):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    path = saved(tmp_path / f"a.{KINDS[kind]}", cyan, kind, icc_profile=ink_profile())
    photo = read(path)
    assert photo.icc is None
    assert samples_of(photo).min() >= 253  # cyan ink does not count, so it is white
    saved(path, Image.new("CMYK", (16, 16), (0, 0, 0, 255)), kind, icc_profile=ink_profile())
    assert samples_of(read(path)).max() <= 3


@pytest.mark.parametrize("profile", [None, b"broken", SRGB])
def test_cmyk_without_a_profile_that_fits_is_converted_by_the_formula(tmp_path, profile):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    photo = read(saved(tmp_path / "a.jpg", cyan, "JPEG", icc_profile=profile, quality=95))
    assert np.abs(samples_of(photo).astype(int) - (0, 255, 255)).max() <= 3
    assert photo.icc is None


def test_lab_becomes_srgb(tmp_path):
    white = Image.new("LAB", (4, 4), (255, 128, 128))
    assert samples_of(read(saved(tmp_path / "a.tif", white, "TIFF"))).min() >= 253


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_is_kept_and_no_pixel_converted(tmp_path, kind):
    samples = np.full((8, 8, 3), 99, np.uint8)
    path = saved(tmp_path / f"a.{KINDS[kind]}", Image.fromarray(samples), kind, icc_profile=SRGB)
    photo = read(path)
    assert photo.icc == SRGB
    for suffix in KINDS.values():
        again = read(write(tmp_path / f"b.{suffix}", photo, overwrite=True))
        assert again.icc == SRGB
        assert np.abs(samples_of(again).astype(int) - 99).max() <= 1


def test_a_profile_for_other_colours_is_left_out_on_reading_and_refused_on_writing(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("L", (4, 4)), "JPEG", icc_profile=SRGB)
    assert read(path).icc is None
    for profile, named in ((SRGB, "RGB"), (b"none", "unknown")):
        with pytest.raises(ValueError, match=named):
            write(tmp_path / "b.png", photo_of(levels(3, 3, 1, 8), icc=profile))


def test_grey_with_a_profile_becomes_srgb_in_webp_which_has_no_grey(tmp_path):
    # the grey of this profile is linear (gamma 1), so that the middle is brighter in sRGB: 188 of 255
    curve = b"curv" + bytes(4) + struct.pack(">L", 0)
    point = b"XYZ " + bytes(4) + struct.pack(">3L", 0xF6D6, 0x10000, 0xD32D)
    table = struct.pack(">L4sLL4sLL", 2, b"kTRC", 156, 12, b"wtpt", 168, 20)
    head = struct.pack(">L4sL4s4s4s", 188, bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp"
    head = head + bytes(28) + struct.pack(">3L", 0xF6D6, 0x10000, 0xD32D)
    profile = head.ljust(128, b"\0") + table + curve + point
    photo = photo_of(np.full((8, 8, 2), 128, np.uint8), icc=profile)
    again = read(write(tmp_path / "a.webp", photo))
    assert np.abs(samples_of(again)[..., :3].astype(int) - 188).max() <= 2
    assert again.icc is None
    assert np.abs(samples_of(again)[..., 3].astype(int) - 128).max() <= 2


# ---- EXIF


STORED = {  # the EXIF standard: where the stored picture's first row and column lie in the scene
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["png8", "png16", "jpeg", "webp", "tiff8", "tiff16"])
def test_every_orientation_comes_upright_and_is_written_as_upright(tmp_path, kind, orientation):
    scene = levels(5, 8, 3, 16 if "16" in kind else 8)
    scene = np.kron(scene, np.ones((8, 8, 1), scene.dtype))
    stored = np.ascontiguousarray(STORED[orientation](scene))
    exif = camera(orientation, order=">")
    path = tmp_path / f"a.{kind}"
    if kind == "png16":
        block = assembled([(b"eXIf", exif[6:])])[8:]
        whole = refiltered(stored, 0)
        path.write_bytes(whole[:-12] + block + whole[-12:] if orientation % 2 else whole[:33] + block + whole[33:])
    elif kind == "tiff16" or kind == "tiff8":
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        lossless = (
            {"lossless": True} if kind == "webp" else {"quality": 100, "subsampling": 0} if kind == "jpeg" else {}
        )
        saved(path, Image.fromarray(stored), kind.rstrip("8"), exif=exif, **lossless)
    photo = read(path)
    difference = np.abs(samples_of(photo).astype(int) - scene).max()
    assert difference <= (3 if kind == "jpeg" else 0)
    for suffix in KINDS.values():
        again = tmp_path / f"b.{suffix}"
        write(again, photo, overwrite=True)
        with Image.open(again) as picture:
            assert picture.getexif().get(274, 1) == 1
            assert picture.size == (64, 40)


def test_exif_that_points_to_nothing_is_no_damage_to_the_picture(tmp_path):
    pointer = struct.pack("<HHLL", 34665, 4, 0, 0)  # to the camera's fields: no place at all
    exif = b"Exif\0\0" + struct.pack("<2sHL", b"II", 42, 8) + struct.pack("<H", 1) + pointer + bytes(4)
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (6, 4)), "JPEG", exif=exif)
    assert read(path).pixels.shape == (3, 4, 6)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", KINDS)
def test_exif_is_kept_with_its_sizes_and_without_its_thumbnail(tmp_path, kind, order):
    photo = read(saved(tmp_path / "a.jpg", Image.new("RGB", (6, 4)), "JPEG", exif=camera(6, order)))
    assert len(photo.exif) == len(camera())
    larger = dataclasses.replace(photo, pixels=torch.zeros(3, 24, 16))
    path = write(tmp_path / f"b.{KINDS[kind]}", larger)
    with Image.open(path) as picture:
        exif = picture.getexif()
        assert (exif[271], exif[305], exif[274]) == ("Maker", "abc", 1)
        inner = exif.get_ifd(0x8769)
        assert (inner[40962], inner[40963], inner[37500]) == (16, 24, b"\x01secret\xff\x80")
        assert not exif.get_ifd(ExifTags.IFD.IFD1)
    again = read(path)
    assert again.exif is not None
    if kind != "TIFF":  # byte for byte, so that the maker's notes stay at their place
        assert again.exif[206:306] == camera(6, order)[206:306]


def test_exif_goes_through_tiff_and_back(tmp_path):
    photo = read(saved(tmp_path / "a.jpg", Image.new("RGB", (6, 4)), "JPEG", exif=camera()))
    through = read(write(tmp_path / "b.tif", photo))
    with Image.open(write(tmp_path / "c.jpg", through)) as picture:
        exif = picture.getexif()
        assert (exif[271], exif[305], exif.get_ifd(0x8769)[40962]) == ("Maker", "abc", 6)
        assert 256 not in exif


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", camera()[:60]])
def test_exif_that_cannot_be_parsed_is_left_out(tmp_path, exif):
    photo = read(saved(tmp_path / "a.jpg", Image.new("RGB", (6, 4)), "JPEG", exif=exif))
    assert photo.exif is None
    with pytest.raises(ValueError, match="EXIF"):
        write(tmp_path / "b.jpg", dataclasses.replace(photo, exif=exif))


# ---- what is no single picture


def frames():
    return [Image.fromarray(levels(8, 8, 3, 8, seed)) for seed in range(3)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(tmp_path, kind):
    first, *others = frames()
    path = saved(tmp_path / "a.png", first, kind, save_all=True, append_images=others)
    with pytest.raises(ValueError, match="animation of 3"):
        read(path)


@pytest.mark.parametrize("depth", [8, 16])
def test_several_pages_are_refused_but_previews_are_not_pages(tmp_path, depth):
    samples = levels(8, 8, 3, depth)
    for subfile, fine in ((0, False), (1, True)):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(samples, photometric="rgb", metadata=None)
            file.write(samples[::2, ::2], photometric="rgb", subfiletype=subfile, metadata=None)
        if fine:
            assert np.array_equal(samples_of(read(tmp_path / "a.tif")), samples)
        else:
            with pytest.raises(ValueError, match="2 pages"):
                read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", subfiletype=1)
    with pytest.raises(ValueError, match="raw file"):
        read(tmp_path / "a.tif")


def test_a_phone_picture_with_more_behind_it_is_the_picture(tmp_path):
    first, *others = frames()
    path = saved(tmp_path / "a.jpg", first, "MPO", save_all=True, append_images=others, quality=100, subsampling=0)
    with Image.open(path) as picture:
        assert len(list(ImageSequence.Iterator(picture))) == 3
    photo = read(path)
    assert photo.format == "JPEG"
    assert np.abs(samples_of(photo).astype(int) - np.asarray(first)).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "BMP", "PPM", "AVIF"])
def test_other_kinds_are_refused_whatever_the_name_says(tmp_path, kind):
    with pytest.raises(ValueError, match="known kind") as caught:
        read(saved(tmp_path / "a.png", frames()[0], kind))
    assert "a.png" in str(caught.value)


@pytest.mark.parametrize("samples", ["float32", "int32", "uint32", "int16", "float16"])
def test_samples_without_a_known_range_are_refused(tmp_path, samples):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), samples))
    with pytest.raises(ValueError, match=r"samples"):
        read(tmp_path / "a.tif")


def test_a_missing_file_is_no_bad_picture(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        read(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        settings_of(tmp_path / "a.png")


def giant(kind):
    """Small files whose headers claim a gigapixel and more."""
    if kind.startswith("png"):
        header = struct.pack(">LLBBBBB", 400000, 250000, int(kind[3:]), 2, 0, 0, 0)
        return assembled([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")])
    if kind == "jpeg":
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG")
        return buffer.getvalue().replace(b"\x08\0\x08\0\x08\x03", b"\x08\xff\xdc\xff\xdc\x03")
    if kind == "webp":
        buffer = io.BytesIO()
        Image.new("RGBA", (8, 8)).save(buffer, "WEBP", lossless=True, exif=camera())
        return buffer.getvalue().replace(b"\7\0\0\7\0\0", b"\xff\xff\0\xff\xff\0")
    whole = tiff.encode(levels(8, 8, 3, int(kind[4:])), icc=None, exif=None, xmp=None)
    for tag in (256, 257):
        whole = whole.replace(struct.pack("<HHLL", tag, 4, 1, 8), struct.pack("<HHLL", tag, 4, 1, 300000))
    return whole


@pytest.mark.parametrize("kind", ["png8", "png16", "jpeg", "webp", "tiff8", "tiff16"])
def test_a_gigapixel_header_is_refused_before_anything_is_decoded(tmp_path, kind):
    (tmp_path / "a").write_bytes(giant(kind))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"limit of 134217728|decoder object|known kind"):
            read(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["samples", "profile", "text", "exif"])
def test_what_inflates_to_more_than_it_claims_does_not_fill_the_memory(tmp_path, kind):
    header = struct.pack(">LLBBBBB", 2, 2, 16, 2, 0, 0, 0)
    flood = zlib.compress(bytes(10**8), 9)
    parts = [(b"IHDR", header), (b"IDAT", flood if kind == "samples" else zlib.compress(bytes(26))), (b"IEND", b"")]
    if kind in ("profile", "text"):
        name = b"iCCP" if kind == "profile" else b"zTXt"
        parts.insert(1, (name, b"name\0\0" + flood))
    (tmp_path / "a.png").write_bytes(assembled(parts))
    if kind == "exif":  # a directory of 4,000 fields, each of which is the whole file
        fields = b"".join(struct.pack("<HHLL", 271 + index, 7, 40000, 0) for index in range(4000))
        (tmp_path / "a.png").write_bytes(struct.pack("<2sHLH", b"II", 42, 8, 4000) + fields + bytes(4))
    tracemalloc.start()
    try:
        if kind == "samples":
            assert read(tmp_path / "a.png").pixels.shape == (3, 2, 2)
        else:
            with pytest.raises(ValueError, match="cannot read"):
                read(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_a_chain_of_pages_without_end_is_refused(tmp_path):
    whole = tiff.encode(levels(4, 4, 1, 16), icc=None, exif=None, xmp=None)
    source = tiff.Source(io.BytesIO(whole))
    place, _ = source.after(source.first)
    (tmp_path / "a.tif").write_bytes(whole[:place] + struct.pack("<L", source.first) + whole[place + 4 :])
    with pytest.raises(ValueError, match="no end"):
        read(tmp_path / "a.tif")


# ---- broken bytes


def whole_files(folder):
    """One small file of every kind, as bytes."""
    colours, grey = photo_of(levels(9, 7, 4, 16), icc=SRGB, exif=camera()), photo_of(levels(7, 9, 1, 8))
    deep, plain = levels(20, 20, 3, 16), Image.fromarray(levels(20, 20, 3, 8))
    named = [write(folder / f"{index}.{suffix}", colours) for index, suffix in enumerate(("png", "tif", "webp"))]
    named += [write(folder / f"g.{suffix}", grey, settings={"a": "b"}) for suffix in ("png", "tif", "jpg", "webp")]
    named += [saved(folder / "l.tif", plain, "TIFF", compression="tiff_lzw", tiffinfo={274: 6})]
    named += [saved(folder / "p.png", plain.quantize(9), "PNG", transparency=3)]
    named += [saved(folder / "c.jpg", plain.convert("CMYK"), "JPEG", icc_profile=ink_profile(), exif=camera(5))]
    named += [saved(folder / "m.jpg", plain, "JPEG", progressive=True)]
    tifffile.imwrite(folder / "t.tif", deep, photometric="rgb", tile=(16, 16), compression="zlib", predictor=True)
    tifffile.imwrite(folder / "u.tif", deep, photometric="rgb", planarconfig="contig", rowsperstrip=3, byteorder=">")
    (folder / "f.png").write_bytes(refiltered(deep, 0))
    return {path.name: path.read_bytes() for path in [*named, folder / "t.tif", folder / "u.tif", folder / "f.png"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return whole_files(tmp_path_factory.mktemp("whole"))


def survives(path):
    """Reading gives a photo, or one sentence that names the file."""
    try:
        assert torch.isfinite(read(path).pixels).all()
    except (ValueError, OSError) as error:
        said = str(error)
    else:
        said = f"{path} is fine"
    assert str(path) in said
    assert "\n" not in said
    assert said.rstrip()[-1] != ":"
    found = settings_of(path)
    assert found is None or isinstance(found, dict)


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_bytes_give_a_photo_or_one_sentence(tmp_path, files, data):
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(200, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(content)))
    (tmp_path / "a").write_bytes(content[:cut])
    survives(tmp_path / "a")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_fields_of_tiff_give_a_photo_or_one_sentence(tmp_path, files, data):
    """Flips where they hurt: in the directories."""
    name = data.draw(st.sampled_from([name for name in sorted(files) if name.endswith(".tif")]))
    content = bytearray(files[name])
    source = tiff.Source(io.BytesIO(files[name]))
    places = [place for place, _, _ in source.fields(source.first)]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, 11))
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(content)
    survives(tmp_path / "a")


def test_every_file_is_refused_when_its_half_is_missing(tmp_path, files):
    for name, content in files.items():
        assert read_bytes(tmp_path, content) is not None
        with pytest.raises(ValueError, match="cannot read"):
            read_bytes(tmp_path, content[: len(content) // 2])
        with pytest.raises(ValueError, match="cannot read"):
            read_bytes(tmp_path, b"")
        assert name


def read_bytes(folder, content):
    (folder / "a").write_bytes(content)
    return read(folder / "a")


def test_a_flipped_bit_in_16_bit_png_is_noticed(tmp_path, files):
    content = bytearray(files["f.png"])
    content[len(content) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        read_bytes(tmp_path, content)


def test_too_little_memory_is_told_as_such(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    path = write(tmp_path / "a.png", photo_of(levels(2, 2, 1, 8)))
    monkeypatch.setattr(photos, "_samples", full)
    with pytest.raises(OSError, match=r"memory to read .*a\.png"):
        read(path)


# ---- refusals of write


def test_an_existing_file_is_overwritten_only_when_told(tmp_path):
    first, second = levels(3, 3, 3, 8), levels(3, 3, 3, 8, 1)
    path = write(tmp_path / "a.png", photo_of(first))
    with pytest.raises(FileExistsError, match="allow overwriting"):
        write(path, photo_of(second))
    assert np.array_equal(samples_of(read(path)), first)
    write(path, photo_of(second), overwrite=True)
    assert np.array_equal(samples_of(read(path)), second)


@pytest.mark.parametrize("suffix", KINDS.values())
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    def full(_):
        raise OSError(28, "No space left on device")

    path = write(tmp_path / f"a.{suffix}", photo_of(levels(3, 3, 3, 8)))
    before = path.read_bytes()
    monkeypatch.setattr("attenua.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, photo_of(levels(9, 9, 3, 8)), overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_transparency_is_not_lost_in_jpeg_without_a_word(tmp_path):
    with pytest.raises(ValueError, match="transparent parts"):
        write(tmp_path / "a.jpg", photo_of(levels(4, 4, 4, 8)))
    assert not list(tmp_path.iterdir())
    opaque = Photo(torch.zeros(3, 4, 4), torch.ones(1, 4, 4))
    assert read(write(tmp_path / "a.jpg", opaque)).alpha is None


def test_webp_keeps_alpha(tmp_path):
    samples = levels(6, 6, 4, 8)
    assert np.array_equal(samples_of(read(write(tmp_path / "a.webp", photo_of(samples))))[..., 3], samples[..., 3])


@pytest.mark.parametrize(
    ("name", "photo", "words"),
    [
        ("a.gif", Photo(torch.zeros(1, 2, 2)), r"ends in \.gif; allowed are \.png"),
        ("a", Photo(torch.zeros(1, 2, 2)), "ends in nothing"),
        ("a.png", Photo(torch.full((1, 2, 2), torch.nan)), "not finite"),
        ("a.tif", Photo(torch.zeros(1, 2, 2), torch.full((1, 2, 2), torch.inf)), "not finite"),
        ("a.webp", Photo(torch.zeros(1, 1, 16384)), "16383 pixels a side"),
        ("a.jpg", Photo(torch.zeros(1, 65501, 1)), "65500 pixels a side"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, photo, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path / name, photo)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pixels": torch.zeros(2, 4, 4)}, r"\[2, 4, 4\]"),
        ({"pixels": torch.zeros(3, 0, 4)}, r"\[3, 0, 4\]"),
        ({"pixels": torch.zeros(3, 4, 4, dtype=torch.float64)}, "float64"),
        ({"pixels": torch.zeros(3, 4, 4), "alpha": torch.zeros(1, 4, 5)}, r"\[1, 4, 5\]"),
        ({"pixels": torch.zeros(3, 4, 4), "depth": 12}, "12"),
    ],
)
def test_a_photo_is_what_it_says(fields, words):
    with pytest.raises(ValueError, match=words):
        Photo(**fields)


# ---- settings


@few
@given(stored=st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=5))
@pytest.mark.parametrize("suffix", KINDS.values())
def test_settings_come_back_in_any_script(tmp_path, suffix, stored):
    path = write(tmp_path / f"a.{suffix}", photo_of(levels(2, 2, 2 if suffix in ("png", "tif") else 3, 16)),
                 overwrite=True, settings=stored)  # fmt: skip
    assert settings_of(path) == stored


def test_a_file_without_settings_has_none(tmp_path):
    for suffix in KINDS.values():
        assert settings_of(write(tmp_path / f"a.{suffix}", Photo(torch.zeros(3, 2, 2)))) is None
    (tmp_path / "notes.png").write_text("no picture")
    assert settings_of(tmp_path / "notes.png") is None
    foreign = b'<x attenua:settings="[1, 2]"/>'
    assert settings_of(saved(tmp_path / "b.jpg", Image.new("L", (2, 2)), "JPEG", xmp=foreign)) is None


def test_settings_that_jpeg_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="too long"):
        write(tmp_path / "a.jpg", Photo(torch.zeros(1, 2, 2)), settings={"a": "x" * 70000})
    assert not list(tmp_path.iterdir())


# ---- names


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ["in/b.jpg", "in/a.png", "in/deep/c.TIF", "in/.hidden.png", "in/notes.txt", "other/a.png", "one.webp"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(inputs, out, **options):
    return {str(source): str(target) for source, target in pairs(inputs, out, **options)}


def test_files_and_folders_keep_their_names(tree):
    assert named([Path("in")], Path("out")) == {
        "in/a.png": "out/a.png",
        "in/b.jpg": "out/b.jpg",
        "in/deep/c.TIF": "out/deep/c.TIF",
    }
    assert named([Path("one.webp"), Path("in/b.jpg")], Path("new")) == {
        "one.webp": "new/one.webp",
        "in/b.jpg": "new/b.jpg",
    }
    assert named([Path("one.webp")], Path("big.png")) == {"one.webp": "big.png"}
    assert named([Path("one.webp")], Path("other")) == {"one.webp": "other/one.webp"}
    (tree / "photo.heic").touch()
    assert named([Path("photo.heic")], Path("out")) == {"photo.heic": "out/photo.heic.png"}
    (tree / "folder.png").mkdir()
    assert named([Path("one.webp")], Path("folder.png")) == {"one.webp": "folder.png/one.webp"}
    assert not (tree / "out").exists()


def test_a_file_named_twice_is_taken_once(tree):
    assert len(pairs([Path("in"), Path("in/a.png"), Path("in/../in/b.jpg")], Path("out"))) == 3


def test_former_results_below_the_inputs_are_left_out(tree):
    (tree / "in/big").mkdir()
    (tree / "in/big/a.png").touch()
    assert len(pairs([Path("in")], Path("in/big"))) == 3
    assert len(pairs([Path("in")], Path("out"))) == 4


@pytest.mark.parametrize(
    ("inputs", "out", "error", "words"),
    [
        ([], "out", ValueError, "no input"),
        (["missing.png"], "out", FileNotFoundError, "missing.png"),
        (["empty"], "out", ValueError, "no picture in empty"),
        (["in", "other"], "out", ValueError, r"in/a\.png and other/a\.png would both be written to out/a\.png"),
        (["in"], "out.png", ValueError, "several pictures need a folder"),
        (["in/a.png", "in/b.jpg"], "out.png", ValueError, "several pictures need a folder"),
        (["one.webp"], "out.gif", ValueError, r"ends in \.gif"),
        (["one.webp"], "in/notes.txt", ValueError, r"\.txt"),
        (["in"], "in/notes.txt", ValueError, "is a file"),
        (["one.webp"], "one.webp", ValueError, "itself an input"),
        (["one.webp"], ".", ValueError, "itself an input"),
        (["in"], "in", ValueError, "itself an input"),
        (["one.webp"], "link.webp", ValueError, "itself an input"),
        (["in/a.png", "a.png"], ".", ValueError, "itself an input|would both"),
        (["one.webp"], "full", ValueError, "is a folder"),
    ],
)
def test_names_that_would_lose_a_picture_are_refused(tree, inputs, out, error, words):
    (tree / "empty").mkdir()
    (tree / "a.png").touch()
    (tree / "full/one.webp").mkdir(parents=True)
    (tree / "link.webp").symlink_to("one.webp")
    with pytest.raises(error, match=words) as caught:
        pairs([Path(each) for each in inputs], Path(out))
    assert "\n" not in str(caught.value)


def test_an_input_is_overwritten_only_by_its_own_result_and_only_when_told(tree):
    assert named([Path("in")], Path("in"), overwrite=True)["in/a.png"] == "in/a.png"
    (tree / "b.jpg").touch()
    with pytest.raises(ValueError, match="choose another output"):
        pairs([Path("in/b.jpg"), Path("b.jpg")], Path(), overwrite=True)
