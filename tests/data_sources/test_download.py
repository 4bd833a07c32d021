import hashlib
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from attenua.data.download import download
from attenua.files import write_bytes

DATA = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `data` at any address; `script`: what befalls the next answers, ("status" | "cut" | "stall", number)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.script, self.ranges, self.honours_range = DATA, [], [], True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        kind, number = server.script.pop(0) if server.script else ("all", 0)
        if kind == "status":
            self.send_error(number)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.honours_range else 0
        if start and start >= len(server.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        self.end_headers()
        body = server.data[start:]
        self.wfile.write(body[:number] if kind in ("cut", "stall") else body)
        if kind == "stall":
            self.wfile.flush()
            server.stalled.wait(30)
        self.close_connection = True


@pytest.fixture
def server():
    with serving() as started:
        yield started


@contextmanager
def serving():
    server = Server()
    server.stalled = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stalled.set()
        server.shutdown()
        server.server_close()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sums", [{}, {"sha256": SHA256}, {"md5": MD5.upper()}, {"sha256": SHA256, "md5": MD5}])
def test_the_file_arrives_whole_and_alone(tmp_path, server, sums):
    seen = []
    path = download(server.url, tmp_path / "new" / "a", progress=lambda done, total: seen.append((done, total)), **sums)
    assert path.read_bytes() == DATA
    assert names(path.parent) == ["a"]
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)


def test_a_file_that_is_there_and_right_is_not_asked_for(tmp_path, server):
    (tmp_path / "a").write_bytes(DATA)
    assert download(server.url, tmp_path / "a", sha256=SHA256) == tmp_path / "a"
    assert server.ranges == []


def test_a_file_that_is_there_and_wrong_is_named_and_kept(tmp_path, server):
    (tmp_path / "a").write_bytes(b"other")
    with pytest.raises(ValueError, match=f"{hashlib.sha256(b'other').hexdigest()}, not {SHA256}"):
        download(server.url, tmp_path / "a", sha256=SHA256)
    assert (tmp_path / "a").read_bytes() == b"other"


@pytest.mark.parametrize("sums", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_a_wrong_sum_names_both_and_leaves_no_file(tmp_path, server, sums):
    (kind, expected), found = next(iter(sums.items())), {"sha256": SHA256, "md5": MD5}
    with pytest.raises(ValueError, match=f"{found[kind]}, not {expected}"):
        download(server.url, tmp_path / "a", **sums)
    assert names(tmp_path) == []


def test_a_broken_connection_is_taken_up_where_it_broke(tmp_path, server):
    server.script = [("cut", 300_000), ("cut", 200_000)]
    download(server.url, tmp_path / "a", sha256=SHA256, pause=0.0)
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_without_a_sum_every_try_starts_anew(tmp_path, server):
    (tmp_path / "a.part").write_bytes(b"of another file")
    server.script = [("cut", 300_000)]
    download(server.url, tmp_path / "a", pause=0.0)
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.ranges == [None, None]


def test_a_server_without_ranges_is_read_from_the_start(tmp_path, server):
    server.honours_range, server.script = False, [("cut", 300_000)]
    download(server.url, tmp_path / "a", sha256=SHA256, pause=0.0)
    assert (tmp_path / "a").read_bytes() == DATA


@pytest.mark.parametrize("old", [DATA, DATA + b"more", b"x" * 1000], ids=["whole", "too long", "of another file"])
def test_any_part_that_was_left_ends_in_the_right_file(tmp_path, server, old):
    (tmp_path / "a.part").write_bytes(old)
    download(server.url, tmp_path / "a", sha256=SHA256, pause=0.0)
    assert (tmp_path / "a").read_bytes() == DATA
    assert names(tmp_path) == ["a"]


def test_a_killed_download_is_resumed(tmp_path, server):
    server.script = [("stall", 700_000)]
    code = (
        "import sys; from attenua.data.download import download as d; d(sys.argv[1], sys.argv[2], sha256=sys.argv[3])"
    )
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "a"), SHA256]
    part = tmp_path / "a.part"
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        while process.poll() is None and not (part.exists() and part.stat().st_size >= 256 * 1024):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == ["a.part"]
    kept = part.stat().st_size
    download(server.url, tmp_path / "a", sha256=SHA256)
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.ranges == [None, f"bytes={kept}-"]


def test_a_refusal_is_told_at_once(tmp_path, server):
    server.script = [("status", 404)]
    with pytest.raises(OSError, match="404") as caught:
        download(server.url, tmp_path / "a", pause=0.0)
    assert server.url in str(caught.value)
    assert server.ranges == [None]
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again_but_not_for_ever(tmp_path, server):
    server.script = [("status", 503)]
    download(server.url, tmp_path / "a", pause=0.0)
    server.script = [("status", 503)] * 3
    with pytest.raises(OSError, match=r"503 .*tried 3 times"):
        download(server.url, tmp_path / "b", pause=0.0, attempts=3)
    assert len(server.ranges) == 5


def test_a_silent_server_is_given_up(tmp_path, server):
    server.script = [("stall", 0)]
    with pytest.raises(OSError, match="timed out"):
        download(server.url, tmp_path / "a", timeout=0.2, attempts=1)


def test_no_server_is_one_sentence(tmp_path):
    with serving() as server:
        url = server.url
    with pytest.raises(OSError, match="cannot download http") as caught:
        download(url, tmp_path / "a", pause=0.0, attempts=2)
    assert "\n" not in str(caught.value)


def test_other_addresses_are_refused(tmp_path):
    with pytest.raises(ValueError, match="http://"):
        download((tmp_path / "x").as_uri(), tmp_path / "a")


def test_a_full_disk_is_no_broken_connection(tmp_path, server, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attenua.data.download.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        download(server.url, tmp_path / "a", sha256=SHA256)
    assert server.ranges == [None]


def test_bytes_are_written_in_one_step(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attenua.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(tmp_path / "a", b"newer")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"
