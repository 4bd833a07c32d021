"""A data set arrives whole and checked or not at all, and an archive is not trusted."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from attenua.data import sources
from attenua.data.sources import DataSet, Source
from attenua.data.unpack import unpack


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"top/in/a.png": picture(1), "top/in/sub/b.png": picture(2), "top/in/Thumbs.db": b"x", "top/code.m": b"y"}


def tar(path: Path, files: dict[str, bytes], *, mode: str = "w:gz", links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def packed(path: Path, files: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return path


MAKERS = [(tar, "a.tgz"), (packed, "a.zip")]


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("make", "name"), MAKERS)
def test_what_is_wanted_is_unpacked_below_the_folder(tmp_path, make, name):
    archive = make(tmp_path / name, FILES, links={"top/other": "/etc"})  # outside the prefix: passed over
    count = unpack(archive, tmp_path / "new", prefix="top/in/", suffixes=frozenset({".png"}), limit=10_000)
    assert count == 2
    assert listing(tmp_path / "new") == ["a.png", "sub/b.png"]
    assert (tmp_path / "new/sub/b.png").read_bytes() == picture(2)


@pytest.mark.parametrize("bad", ["../x.png", "/x.png", "top/in/../../x.png", "top\\..\\x.png", "C:/x.png"])
@pytest.mark.parametrize(("make", "name"), MAKERS)
def test_a_member_that_climbs_is_refused_before_anything_is_written(tmp_path, make, name, bad):
    archive = make(tmp_path / name, {"top/in/a.png": b"a", bad: b"b"})
    with pytest.raises(ValueError, match="outside its folder"):
        unpack(archive, tmp_path / "new", prefix="top/in/", limit=1000)
    assert listing(tmp_path) == [name]


@pytest.mark.parametrize(("make", "name"), MAKERS)
def test_a_link_is_refused(tmp_path, make, name):
    archive = make(tmp_path / name, {"top/in/a.png": b"a"}, links={"top/in/b.png": "/etc/hostname"})
    with pytest.raises(ValueError, match="link or a device"):
        unpack(archive, tmp_path / "new", prefix="top/in/", limit=1000)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("make", "name"), MAKERS)
def test_more_bytes_than_expected_are_refused(tmp_path, make, name):
    archive = make(tmp_path / name, {"a.png": bytes(2000)})
    with pytest.raises(ValueError, match="2000 bytes, more than the 1999"):
        unpack(archive, tmp_path / "new", limit=1999)
    assert unpack(archive, tmp_path / "new", limit=2000) == 1


@pytest.mark.parametrize(("make", "name"), MAKERS)
@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_archive_is_named(tmp_path, make, name, damage):
    archive = make(tmp_path / name, {"a.png": os.urandom(5000)})
    archive.write_bytes(archive.read_bytes()[:3000] if damage == "cut" else b"<html>no such file</html>")
    with pytest.raises(ValueError, match="is not a whole archive"):
        unpack(archive, tmp_path / "new", limit=10_000)


def test_an_archive_with_a_password_is_named(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.png", bytes(20))
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag of encryption, in the file's own header and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(ValueError, match=r"a.zip is not a whole archive: .*encrypted"):
        unpack(archive, tmp_path / "new", limit=10_000)


# Data sets.


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        name = self.path[1:]
        self.server.asked.append(name)
        if name not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield started
    started.shutdown()
    started.server_close()
    thread.join()


def source(server: Server, name: str, content: bytes | None, **fields: str) -> Source:
    if content is not None:
        server.files[name] = content
    return Source(server.url(name), name, **{"prefix": "top/in/", "into": "in", **fields})


def dataset(*alternatives: Source, **fields) -> DataSet:
    return DataSet("Set", "free", "two", (alternatives,), {"in/*.png": 1, "in/sub/*.png": 1}, **fields)


@pytest.fixture
def archive(tmp_path) -> bytes:
    return tar(tmp_path / "made.tgz", FILES).read_bytes()


@pytest.mark.parametrize("summed", [True, False])
def test_a_set_arrives_whole_and_leaves_nothing_else(tmp_path, server, archive, summed):
    sums = {"sha256": hashlib.sha256(archive).hexdigest()} if summed else {}
    known = dataset(source(server, "a.tgz", archive, **sums))
    root = tmp_path / "data"
    seen: list[int] = []
    assert sources.fetch(known, root, progress=lambda done, total: seen.append(done)) == root / "Set"
    assert listing(root) == ["Set/in/a.png", "Set/in/sub/b.png"]
    assert seen[-1] == len(archive)
    assert sorted(each.name for each in root.iterdir()) == ["Set"]
    sources.fetch(known, root)
    assert server.asked == ["a.tgz"]


def test_the_next_address_is_asked_where_one_fails(tmp_path, server, archive):
    contents = {"contents": ""}
    root = tmp_path / "data"
    unpack(tmp_path / "made.tgz", tmp_path / "new", prefix="top/in/", suffixes=frozenset({".png"}), limit=9999)
    contents["contents"] = sources.contents_sha256(tmp_path / "new", frozenset({".png"}))
    known = dataset(
        source(server, "gone.tgz", None),
        source(server, "page.tgz", b"<html>moved</html>"),
        source(server, "sum.tgz", archive, md5="0" * 32),
        source(server, "other.tgz", archive, contents="0" * 64),
        source(server, "good.tgz", archive, **contents),
    )
    sources.fetch(known, root)
    assert server.asked == ["gone.tgz", "page.tgz", "sum.tgz", "other.tgz", "good.tgz"]
    assert listing(root) == ["Set/in/a.png", "Set/in/sub/b.png"]


def test_no_address_is_one_sentence_that_tells_the_way_by_hand(tmp_path, server, archive):
    known = dataset(source(server, "a.tgz", None), source(server, "page.tgz", b"<html>"))
    with pytest.raises(OSError, match=r"404 .*not a whole archive.*put a\.tgz into .* by hand"):
        sources.fetch(known, tmp_path / "data")
    assert listing(tmp_path / "data") == []
    (tmp_path / "data" / "a.tgz").write_bytes(archive)
    sources.fetch(known, tmp_path / "data")
    assert server.asked == ["a.tgz", "page.tgz"]
    assert listing(tmp_path / "data") == ["Set/in/a.png", "Set/in/sub/b.png", "a.tgz"]  # the user's file stays


def test_a_bad_archive_put_there_by_hand_is_named_and_kept(tmp_path, server, archive):
    (tmp_path / "a.tgz").write_bytes(b"text")
    known = dataset(source(server, "a.tgz", archive, md5=hashlib.md5(archive).hexdigest()))
    with pytest.raises(ValueError, match=r"a\.tgz has the md5 sum"):
        sources.fetch(known, tmp_path)
    assert (tmp_path / "a.tgz").read_bytes() == b"text"


def test_files_that_are_there_are_kept_and_the_rest_is_brought(tmp_path, server, archive):
    own = tmp_path / "data" / "Set" / "in" / "a.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(picture(77))
    sources.fetch(dataset(source(server, "a.tgz", archive)), tmp_path / "data")
    assert own.read_bytes() == picture(77)
    assert listing(tmp_path / "data" / "Set") == ["in/a.png", "in/sub/b.png"]


def test_a_set_that_is_not_whole_is_told(tmp_path, server):
    made = tar(tmp_path / "made.tgz", {"top/in/a.png": picture(1)}).read_bytes()
    with pytest.raises(ValueError, match=r"not whole .*0 of 1 files in/sub/\*\.png"):
        sources.fetch(dataset(source(server, "a.tgz", made)), tmp_path / "data")


def test_a_file_that_is_no_picture_is_named(tmp_path, server):
    made = tar(tmp_path / "made.tgz", {"top/in/a.png": b"text", "top/in/sub/b.png": picture(1)}).read_bytes()
    with pytest.raises(OSError, match=r"in/a\.png is not a picture"):
        sources.fetch(dataset(source(server, "a.tgz", made)), tmp_path / "data")
    assert listing(tmp_path / "data") == []


def test_other_content_is_refused_where_it_is_known(tmp_path, server, archive):
    def refuse(folder: Path) -> None:
        raise ValueError(f"{folder} is another edition")

    known = dataset(source(server, "a.tgz", archive), published=refuse)
    for _ in range(2):  # what was refused is not taken for a whole copy the next time
        with pytest.raises(OSError, match="another edition"):
            sources.fetch(known, tmp_path / "data")
        assert listing(tmp_path / "data") == []


def test_single_files_need_no_archive(tmp_path, server):
    server.files["a.png"] = picture(3)
    part = (Source(server.url("a.png"), "a.png", sha256=hashlib.sha256(picture(3)).hexdigest()),)
    known = DataSet("Set", "free", "one", (part,), {"*.png": 1})
    assert sources.fetch(known, tmp_path) == tmp_path / "Set"
    assert (tmp_path / "Set" / "a.png").read_bytes() == picture(3)
    server.files["a.png"] = picture(4)
    with pytest.raises(OSError, match="not the file expected"):
        sources.fetch(known, tmp_path / "other")


def test_the_known_sets_are_well_formed():
    from attenua.cli.data import DATASETS

    assert set(DATASETS) == {"cifar10", *sources.DATASETS}
    for known in sources.DATASETS.values():
        assert known.terms
        assert known.counts
        for each in (each for part in known.parts for each in part):
            assert each.url.startswith(("http://", "https://"))
            for value, length in ((each.sha256, 64), (each.md5, 32), (each.contents, 64)):
                assert value is None or (len(value) == length and int(value, 16) >= 0)
            assert not each.prefix or each.prefix.endswith("/")
