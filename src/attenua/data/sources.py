"""Where the data sets come from: official addresses, sums where they are published, and what a whole copy holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from attenua.data import boundaries, faces, saliency
from attenua.data.download import Progress, download
from attenua.data.unpack import unpack

__all__ = ["DATASETS", "DataSet", "Source", "contents_sha256", "fetch", "missing"]

_TIMEOUT = 20.0  # seconds without an answer before the next address is asked


@dataclass(frozen=True)
class Source:
    """A file on the web: an archive, or one file of the set.

    name: what it is called here. sha256, md5: published sums; None where none is known, then what comes out of it is
    all that can be checked. prefix, into: the archive's folder that is wanted, and where in the set's folder it goes.
    contents: `contents_sha256` of what is unpacked, for archives that a server packs anew.
    """

    url: str
    name: str
    sha256: str | None = None
    md5: str | None = None
    prefix: str = ""
    into: str = "."
    contents: str | None = None

    @property
    def is_archive(self) -> bool:
        """Whether it is to be unpacked."""
        return self.name.endswith((".zip", ".tar", ".tgz", ".tar.gz"))


@dataclass(frozen=True)
class DataSet:
    """A data set: its folder below the root, and the parts that make it.

    parts: for each, addresses of the same thing in the order in which they are asked. counts: files of a whole copy
    by pattern. limit: bytes that a part may unpack to. published: raises ValueError where the content, in a folder like
    `folder`, is another; for sets of one part.
    """

    folder: str
    terms: str
    about: str
    parts: tuple[tuple[Source, ...], ...]
    counts: Mapping[str, int]
    limit: int = 8 * 2**30
    suffixes: frozenset[str] = frozenset({".jpg", ".png", ".mat"})
    published: Callable[[Path], None] | None = field(default=None, compare=False)


_SR_COMMIT = "58234876fef6f1b56306705c78dfd40cdb837b86"
_SR_TERMS = "no licence is stated; tests of super-resolution in research, never trained on"
_SET5 = {
    "baby": "cb85956d68f708a1030c790d143cbcd108f5ac5988d3349180cdcb54dd80597d",
    "bird": "5dcf863f7c3802e68fbb0fca2ec351052a1f97a4db613e510dbd105cee9a6a32",
    "butterfly": "487d841c9dbc46c7ab496c319ec1f13268de7ea7e02f94ae18781ca86a5abd0d",
    "head": "f524c1ce41641c1cf269a20c4dfbe965e07e471d609abc19dfadfb71037cc873",
    "woman": "f276625a222b9ce18d18d86e1ec603fea50427b7c0a2927b3750b1bb86a07b83",
}
_SET14 = {
    "baboon": "bf6fb300762bcbe1340098b4309c179b2007c3bb81b7afde18c38a3ae70ac8a9",
    "barbara": "1ea77fe82564b55230d7c2439bef5738d18a4624280e263be48484c002b6280b",
    "bridge": "c0eb089ad3dacfa96ee79d9c112216265b36aaba205e06f80846b03b21884a53",
    "coastguard": "fc6c2acd5ca2116f37b1b38c0c2908ce64e2e414086fb43349c246d410669da6",
    "comic": "49ccc5e33deff33992b929b07549d803f176e01bf9f41b73de6b15437bc2280d",
    "face": "5cc7a1c5c013b46a7ab4850cb709974d26971550106375a36fd641c725bce9aa",
    "flowers": "609e9fc9ffd6c9689c6200a11e057c19e6e4ec5d385fe0d6eb59a7b24f327894",
    "foreman": "af4ad4771fd2def0a09ba0011e67225f10ad1590e85b48aab4f6820fa932b1ed",
    "lenna": "72d70a7a5051c6193f02b03decb6c7b1d336abe2d024f441a2384acaee84af55",
    "man": "ba7a7e45f690a542fc32fdefe1e04e0128d1cdf8c3817c1ee7b0300961636bfe",
    "monarch": "ed96187293a37c931250d137553928e1a9a63e31296b82a4968dde63683bb101",
    "pepper": "46339a09e2ae31d2f0513642607586a00d82feaf48dc3cc770e42be5684a11a9",
    "ppt3": "a9276fa3f7fbd4257ccede14d1004f836c10fcc2bac174b2428f43fe899b8f9d",
    "zebra": "af146347f19b1ab9f1da26113a88505d600e2dcb84bf91bb8e2013691e79bcc7",
}


def _pictures(folder: str, sums: Mapping[str, str]) -> tuple[tuple[Source, ...], ...]:
    """Single pictures of a public repository at one commit; each is known by its sum."""
    base = f"https://raw.githubusercontent.com/majedelhelou/denoising_datasets/{_SR_COMMIT}/{folder}"
    return tuple((Source(f"{base}/{name}.png", f"{name}.png", sha256=value),) for name, value in sums.items())


_BSDS_COMMIT = "a04b7c6c3a9f0ace74bf205c72a43d32e1c72722"
_LFW_COMMIT = "0a86d9a0c4e0c208f03766075a0fbaead1374e3e"
_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
_DUTS = "http://saliencydetection.net/duts/download"

DATASETS: dict[str, DataSet] = {
    "set5": DataSet("Set5", _SR_TERMS, "5 test pictures; 1 MB", _pictures("CSet5", _SET5), {"*.png": 5}),
    "set14": DataSet("Set14", _SR_TERMS, "14 test pictures; 5 MB", _pictures("CSet14", _SET14), {"*.png": 14}),
    "bsds500": DataSet(
        "BSDS500",
        boundaries.TERMS,
        "500 pictures with boundaries drawn by people; 70 MB",
        (
            (
                Source(  # no sum is known from two places: the maps themselves are checked
                    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
                    "BSR_bsds500.tgz",
                    prefix="BSR/BSDS500/data/",
                    into="data",
                ),
                Source(
                    f"https://github.com/BIDS/BSDS500/archive/{_BSDS_COMMIT}.zip",
                    f"BSDS500-{_BSDS_COMMIT[:12]}.zip",
                    prefix=f"BSDS500-{_BSDS_COMMIT}/BSDS500/data/",
                    into="data",
                    contents="01ccf66cce829edc520149011041d5588913046d20b4e097691891b8781ddff2",
                ),
            ),
        ),
        {
            **{f"data/images/{split}/*.jpg": count for split, count in boundaries.SPLITS.items()},
            **{f"data/groundTruth/{split}/*.mat": count for split, count in boundaries.SPLITS.items()},
        },
        limit=2**30,
        published=boundaries.check_published,
    ),
    "div2k": DataSet(
        "DIV2K",
        "DIV2K: academic research; cite Agustsson and Timofte, NTIRE 2017 Challenge on Single Image Super-Resolution",
        "900 photographs of about 2,000 x 1,400 pixels; 4 GB",
        (
            (
                Source(
                    f"{_DIV2K}/DIV2K_train_HR.zip",
                    "DIV2K_train_HR.zip",
                    sha256="9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
                ),
            ),
            (
                Source(
                    f"{_DIV2K}/DIV2K_valid_HR.zip",
                    "DIV2K_valid_HR.zip",
                    sha256="20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
                ),
            ),
        ),
        {"DIV2K_train_HR/*.png": 800, "DIV2K_valid_HR/*.png": 100},
    ),
    "lfw": DataSet(
        "LFW",
        faces.LFW_TERMS,
        "13,233 faces of 5,749 people, 250 x 250 pixels, deep-funnelled; 110 MB",
        (
            (
                Source(
                    "http://vis-www.cs.umass.edu/lfw/lfw-deepfunneled.tgz",
                    "lfw-deepfunneled.tgz",
                    md5="68331da3eb755a505a502b5aacb3c201",
                    prefix="lfw-deepfunneled/",
                    into="lfw-deepfunneled",
                ),
                Source(
                    f"https://github.com/braun-steven/dfi-tensorflow/archive/{_LFW_COMMIT}.zip",
                    f"dfi-tensorflow-{_LFW_COMMIT[:12]}.zip",
                    prefix=f"dfi-tensorflow-{_LFW_COMMIT}/data/lfw-deepfunneled/",
                    into="lfw-deepfunneled",
                    contents="d74b84a8b052eb400a6d69dcce66460240bf4cd659d924c13bc90ce1fced9bce",
                ),
            ),
        ),
        {"lfw-deepfunneled/*/*.jpg": 13_233},
        limit=2**30,
    ),
    "duts": DataSet(
        "DUTS",
        saliency.TERMS,
        "15,572 pictures with masks of what stands out; 400 MB",
        tuple((Source(f"{_DUTS}/{name}.zip", f"{name}.zip", prefix=f"{name}/", into=name),) for name in saliency.NAMES),
        {
            f"{name}/{name}-{kind}": count
            for name, count in zip(saliency.NAMES, saliency.COUNTS.values(), strict=True)
            for kind in ("Image/*.jpg", "Mask/*.png")
        },
        limit=2 * 2**30,
    ),
}
"""The data sets by name; CIFAR-10 has its own module."""


def fetch(dataset: DataSet, root: str | Path, *, progress: Progress | None = None) -> Path:
    """Bring a data set to its folder below `root` and return that folder.

    A copy with all its files is left alone. Else every part that is missing is downloaded (an archive that was put
    into `root` by hand under its own name is used in place of that), checked, unpacked beside the folder, checked
    again, and moved in; files that are there already are kept. An archive that was downloaded is removed then; what a
    killed process left is taken up by the next call. progress: called with the bytes of each download.

    Raises OSError where no address of a part gives what it should, ValueError where an archive put there by hand or
    the set as a whole is not what it should be; neither leaves a set that is taken for a whole one.
    """
    root = Path(root)
    folder = root / dataset.folder
    if not missing(dataset, folder):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    for part in dataset.parts:
        _bring(dataset, part, root, progress)
    lacks = missing(dataset, folder)
    if lacks:
        raise ValueError(f"{folder} is not whole after all parts were brought: {lacks}")
    return folder


def missing(dataset: DataSet, folder: Path) -> str | None:
    """What a copy lacks, in words, or None where every pattern has its number of files."""
    for pattern, count in dataset.counts.items():
        found = sum(1 for path in folder.glob(pattern) if path.is_file())
        if found < count:
            return f"{found} of {count} files {pattern}"
    return None


def contents_sha256(folder: Path, suffixes: frozenset[str]) -> str:
    """The SHA-256 (hex) of the lines "SUM  NAME" of all files below a folder with these endings, by name."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        if Path(name).suffix.lower() in suffixes:
            digest.update(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n".encode())
    return digest.hexdigest()


def _bring(dataset: DataSet, part: tuple[Source, ...], root: Path, progress: Progress | None) -> None:
    """Bring one part from the first of its addresses that has it; one that lies there by hand comes first."""
    said = []
    for source in sorted(part, key=lambda each: not (root / each.name).exists()):
        own = source.is_archive and (root / source.name).exists()
        try:
            if source.is_archive:
                _from_archive(dataset, source, root, progress)
            else:
                into = root / dataset.folder / source.into / source.name
                download(source.url, into, sha256=source.sha256, md5=source.md5, progress=progress, timeout=_TIMEOUT)
            return
        except (OSError, ValueError) as error:
            if own or (isinstance(error, OSError) and error.errno is not None):  # the user's file; the disk
                raise
            said.append(str(error))
    by_hand = f"; put {part[0].name} into {root} by hand and run the same again" if part[0].is_archive else ""
    raise OSError(f"{dataset.folder} could not be had ({'; '.join(said)}){by_hand}")


def _from_archive(dataset: DataSet, source: Source, root: Path, progress: Progress | None) -> None:
    """Download an archive where it is not there, unpack it and move its files in."""
    archive = root / source.name
    ours = not archive.exists()
    download(source.url, archive, sha256=source.sha256, md5=source.md5, progress=progress, timeout=_TIMEOUT, attempts=3)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{dataset.folder}-", dir=root) as place:
            stage = Path(place)
            new = stage / source.into
            unpack(archive, new, prefix=source.prefix, suffixes=dataset.suffixes, limit=dataset.limit)
            if source.contents is not None and source.contents != contents_sha256(new, dataset.suffixes):
                raise ValueError(f"{source.url} does not hold the files that it should (their sums differ)")
            _check_headers(dataset, stage)
            if dataset.published is not None:
                dataset.published(stage)
            if hasattr(os, "sync"):
                os.sync()  # once: thousands of small files would each wait for the disk
            _move(stage, root / dataset.folder)
    finally:
        if ours:  # also where it was bad: without a sum, the next call could not know
            archive.unlink()


def _move(new: Path, folder: Path) -> None:
    """Give the files of a folder their places; those that are there already stay as they are."""
    for path in sorted(new.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(new)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.move(path, target)


def _check_headers(dataset: DataSet, folder: Path) -> None:
    """Raise ValueError for the first picture whose header does not make sense."""
    for pattern in dataset.counts:
        for path in sorted(folder.glob(pattern)):
            if path.suffix == ".mat":
                continue
            try:
                with Image.open(path, formats=("JPEG", "PNG")) as picture:
                    whole = min(picture.size) > 0
            except (OSError, Image.DecompressionBombError):
                whole = False
            if not whole:
                raise ValueError(f"{path.relative_to(folder)} is not a picture")
