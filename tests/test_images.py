import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attenua import images


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_what_is_written_is_read_back_bit_for_bit(tmp_path_factory, height, width, seed):
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    image = noise(3, height, width, seed=seed)
    assert images.write(path, image) == path
    assert torch.equal(images.read(path), image)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_metadata_is_kept_in_any_script(tmp_path):
    metadata = {"seed": "0", "model": "Bälle, 球", "long": "x" * 5000}
    images.write(tmp_path / "a.png", noise(3, 4, 4), metadata=metadata)
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert {key: str(value) for key, value in picture.info.items()} == metadata


@pytest.mark.parametrize("key", ["", " a", "k" * 80, "schlüssel", "a\nb"])
def test_a_metadata_key_that_png_cannot_hold_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="1 to 79"):
        images.write(tmp_path / "a.png", noise(3, 4, 4), metadata={key: "value"})
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_overwritten_only_when_told(tmp_path):
    first, second = noise(3, 4, 4), noise(3, 4, 4, seed=1)
    path = images.write(tmp_path / "a.png", first)
    with pytest.raises(FileExistsError, match="allow overwriting"):
        images.write(path, second)
    assert torch.equal(images.read(path), first)
    images.write(path, second, overwrite=True)
    assert torch.equal(images.read(path), second)


def test_a_name_as_long_as_the_disk_takes_is_written(tmp_path):
    path = tmp_path / f"{'n' * 251}.png"
    path.touch()  # else this disk takes no such name
    images.write(path, noise(3, 4, 4), overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert images.read(path).shape == (3, 4, 4)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    first = noise(3, 4, 4)
    path = images.write(tmp_path / "a.png", first)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attenua.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        images.write(path, noise(3, 4, 4, seed=1), overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(images.read(path), first)


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("a.jpg", noise(3, 4, 4), "end in .png"),
        ("a.png", noise(1, 4, 4), "uint8"),
        ("a.png", noise(3, 4, 4).float(), "uint8"),
        ("a.png", noise(3, 0, 4), "uint8"),
    ],
)
def test_only_rgb_bytes_are_written_and_only_as_png(tmp_path, name, image, words):
    with pytest.raises(ValueError, match=words):
        images.write(tmp_path / name, image)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        images.write(tmp_path / "nowhere" / "a.png", noise(3, 4, 4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_camera_orientation_comes_upright(tmp_path, orientation):
    # the EXIF standard: where the stored picture's first row and column lie in the scene
    stored = {
        1: lambda x: x,
        2: lambda x: x.flip(2),
        3: lambda x: x.flip(1, 2),
        4: lambda x: x.flip(1),
        5: lambda x: x.mT,
        6: lambda x: x.rot90(1, (1, 2)),
        7: lambda x: x.flip(1, 2).mT,
        8: lambda x: x.rot90(-1, (1, 2)),
    }
    scene = noise(3, 5, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pillow(stored[orientation](scene)).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(images.read(tmp_path / "a.png"), scene)


def test_grey_becomes_rgb_of_three_equal_channels(tmp_path):
    grey = noise(1, 5, 6)
    Image.fromarray(grey[0].numpy()).save(tmp_path / "a.png")
    assert torch.equal(images.read(tmp_path / "a.png"), grey.expand(3, -1, -1))


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = torch.eye(5, dtype=torch.uint8) * 255
    Image.fromarray(bits.numpy()).convert("1").save(tmp_path / "a.png")
    assert torch.equal(images.read(tmp_path / "a.png"), bits.expand(3, -1, -1))


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert torch.equal(images.read(tmp_path / "a.png")[1].flatten(), torch.arange(256, dtype=torch.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    alpha = Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8))
    picture = Image.new(mode, (3, 1), "black")
    picture.putalpha(alpha)
    picture.save(tmp_path / "a.png")
    assert images.read(tmp_path / "a.png")[:, 0].tolist() == [[255, 127, 0]] * 3


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_becomes_white(tmp_path, mode):
    picture = Image.new(mode, (2, 1), 0)
    picture.putpixel((1, 0), 1 if mode in ("P", "1") else (9, 9, 9) if mode == "RGB" else 9)
    if mode == "P":
        picture.putpalette([0, 0, 0, 9, 9, 9])
    picture.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    shown = 255 if mode == "1" else 9
    assert images.read(tmp_path / "a.png")[:, 0].tolist() == [[255, shown]] * 3


def test_lossy_formats_are_close(tmp_path):
    ramp = torch.arange(64, dtype=torch.uint8).mul(3).expand(3, 64, 64)
    for suffix in images.SUFFIXES:
        pillow(ramp).save(tmp_path / f"a{suffix}")
        assert (images.read(tmp_path / f"a{suffix}").int() - ramp.int()).abs().max() <= 6, suffix


def truncated(kind):
    buffer = io.BytesIO()
    pillow(noise(3, 64, 64)).save(buffer, kind)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def damaged():
    buffer = io.BytesIO()
    pillow(noise(3, 64, 64)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[len(data) // 2] ^= 255
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"not a picture", truncated("PNG"), truncated("JPEG"), truncated("WEBP"), truncated("TIFF"), damaged()],
    ids=["empty", "text", "png", "jpeg", "webp", "tiff", "bit flipped"],
)
def test_what_is_no_whole_picture_is_named_in_one_line(tmp_path, data):
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot read .*bad\.png as a picture") as caught:
        images.read(path)
    assert "\n" not in str(caught.value)


def test_other_decoders_are_never_started(tmp_path):
    pillow(noise(3, 8, 8)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match="known kind"):
        images.read(tmp_path / "a.png")


def test_floating_point_samples_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="32 bits"):
        images.read(tmp_path / "a.tiff")


@pytest.mark.parametrize("side", [11600, 12000, 30000])
def test_a_file_that_claims_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=f"limit of {images.MAX_PIXELS}"):
        images.read(tmp_path / "a.png")


def test_a_missing_file_is_no_bad_picture(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        images.read(tmp_path / "a.png")


def test_pictures_are_listed_sorted_with_those_below_and_without_hidden_ones(tmp_path):
    for name in ["b.PNG", "a.jpg", "c/d.webp", "c/.hidden.png", ".side/e.png", "notes.txt", "f.gif", "z.png/y.tif"]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in images.list_images(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "c/d.webp", "z.png/y.tif"]


def test_a_folder_inside_a_hidden_one_can_be_listed(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").touch()
    assert images.list_images(tmp_path / ".cache") == [tmp_path / ".cache" / "a.png"]


def test_listing_what_is_no_folder_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="nothing"):
        images.list_images(tmp_path / "nothing")
    with pytest.raises(NotADirectoryError, match="file"):
        images.list_images(tmp_path / "file")


@settings(deadline=None, max_examples=50)
@given(
    count=st.integers(1, 12),
    columns=st.none() | st.integers(1, 14),
    scale=st.integers(1, 3),
    padding=st.integers(0, 3),
)
def test_a_grid_holds_every_picture_at_its_place_and_white_elsewhere(count, columns, scale, padding):
    pictures = noise(count, 3, 4, 5).clamp(max=254)
    whole = images.grid(pictures, columns, scale, padding)
    used = min(columns, count) if columns else next(n for n in range(1, count + 1) if n * n >= count)
    rows = -(-count // used)
    assert whole.shape == (3, rows * (4 * scale + padding) + padding, used * (5 * scale + padding) + padding)
    rest = whole.clone()
    for index, picture in enumerate(pictures):
        top = padding + (index // used) * (4 * scale + padding)
        left = padding + (index % used) * (5 * scale + padding)
        cell = np.s_[:, top : top + 4 * scale, left : left + 5 * scale]
        assert torch.equal(whole[cell], torch.from_numpy(np.kron(picture.numpy(), np.ones((1, scale, scale), "uint8"))))
        rest[cell] = 255
    assert (rest == 255).all()


@pytest.mark.parametrize("bad", [{"columns": 0}, {"scale": 0}, {"padding": -1}])
def test_a_grid_names_the_number_that_makes_none(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        images.grid(noise(2, 3, 4, 4), **bad)


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ValueError, match="N >= 1"):
        images.grid(noise(0, 3, 4, 4))
