from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys

import pytest

from attenua import reports

ROW = {"metric": "fid", "value": 9.5, "samples": 50_000, "nfe": 10, "default": True, "peer": None}


def test_a_report_says_where_it_was_measured(tmp_path):
    path = tmp_path / "results" / "sample.json"
    report = reports.write_report(path, "sample", [ROW], {"samples": 50_000})
    assert json.loads(path.read_text()) == report
    assert set(report) == {"benchmark", "protocol", "rows", "machine", "versions", "commit"}
    assert report["rows"] == [ROW]
    assert report["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert [found.name for found in path.parent.iterdir()] == ["sample.json"]


def test_the_machine_has_no_name_and_no_path():
    machine = reports.machine()
    assert set(machine) == {"processor", "cores", "memory_gib", "gpu", "gpus", "gpu_memory_gib"}
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert (machine["gpu"] is None) == (machine["gpus"] == 0)
    import platform

    text = json.dumps(machine)
    assert platform.node() not in text
    assert "/" not in text.replace("w/", "")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        ([{"metric": "fid"}], '"metric" and "value"'),
        ([{**ROW, "values": [1, 2]}], "'values' .* is a list: rows must be flat"),
        ([{**ROW, "value": math.nan}], "cannot be written as JSON"),
    ],
)
def test_rows_of_another_form_are_refused_and_nothing_is_written(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        reports.write_report(tmp_path / "r.json", "r", rows, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    reports.write_bytes(path, b"old")

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        reports.write_report(path, "r", [ROW], {})
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_source_and_no_other(tmp_path, monkeypatch):
    def git(*arguments):
        own = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *own, *arguments], check=True, capture_output=True)

    source = tmp_path / "reports.py"
    source.write_text("one")
    monkeypatch.setattr(reports, "__file__", str(source))
    assert reports.commit() is None  # outside any repository
    git("init", "-q")
    assert reports.commit() is None  # inside one that does not track it
    git("add", "reports.py")
    git("commit", "-q", "-m", "one")
    clean = reports.commit()
    assert re.fullmatch("[0-9a-f]{40}", clean)
    source.write_text("two")
    assert reports.commit() == f"{clean}-dirty"
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert reports.commit() is None


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    events = [{"images": i, "loss": 1 / (i + 1), "note": "two\nlines"} for i in range(5)]
    for event in events:
        reports.append_line(path, event)
    assert reports.read_lines(path) == events
    assert len(path.read_bytes().split(b"\n")) == 6


@pytest.mark.parametrize("left", [1, 5, 11, 12])
def test_a_line_that_a_kill_broke_does_not_count_and_is_replaced(tmp_path, left):
    path = tmp_path / "metrics.jsonl"
    whole = b'{"images": 1}\n{"images": 2}\n'
    path.write_bytes(whole + b'{"images": 3}'[:left])
    assert reports.read_lines(path) == [{"images": 1}, {"images": 2}]
    reports.append_line(path, {"images": 4})
    assert path.read_bytes() == whole + b'{"images": 4}\n'


@pytest.mark.parametrize("kept", [b"", b"{}\n", b'{"x": "' + b"y" * 9000 + b'"}\n'])
def test_half_a_long_line_is_dropped_whole(tmp_path, kept):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(kept + b'{"text": "' + b"z" * 10_000)
    reports.append_line(path, {})
    assert path.read_bytes() == kept + b"{}\n"


def test_a_broken_line_elsewhere_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for broken in (b'{"images": 1}\nhm\n{}\n', b"{}\n[1]\n"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="line 2 of"):
            reports.read_lines(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        reports.read_lines(tmp_path / "nothing.jsonl")


def test_values_that_json_lacks_are_refused_and_change_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reports.append_line(path, {"a": 1})
    for value in (math.nan, math.inf, object()):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            reports.append_line(path, {"a": value})
    assert reports.read_lines(path) == [{"a": 1}]


def test_a_full_disk_is_an_error():
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left"):
        reports.append_line("/dev/full", {"a": 1})


def test_importing_reports_does_not_import_torch():
    program = "import sys, attenua.reports; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
