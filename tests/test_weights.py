"""Model files: what is written is what is read, and a file that is none of ours says so in a sentence."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from attenua import weights
from attenua.config import ModelConfig, ProcessConfig, SamplingConfig
from attenua.model import AttenuationModel
from attenua.weights import KINDS, Weights, compare, dequantise, find, quantise, read, read_header, write
from tests.networks.support import small, stir

RECORD = {"images": 1_000, "data": {"name": "none", "terms": "free"}, "scores": [1.5, None]}


def content(**fields: Any) -> Weights:
    """Return a small model in memory."""
    config = ModelConfig(small(**fields), ProcessConfig(law="quadratic", noise="linear"), s_d=0.25)
    model = AttenuationModel(config)
    stir(model)
    model.mu.copy_(torch.tensor([0.1, 1 / 3, -0.2]))
    model.data_mean.normal_()
    return Weights(config, dict(model.state_dict()), SamplingConfig(steps=7, solver="posterior", eta=0.5), RECORD)


def model_file(folder: Path, kind: str = "float32") -> Path:
    return write(folder / "model.safetensors", content(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_file_says_what_was_written(tmp_path: Path, kind: str) -> None:
    given = content()
    path = write(tmp_path / "model.safetensors", given, kind)
    found = read(path)
    assert found.config == given.config
    assert found.sampling == given.sampling
    assert found.record == RECORD
    assert found.kind == kind
    assert found.tensors.keys() == given.tensors.keys()
    assert all(tensor.dtype == torch.float32 for tensor in found.tensors.values())
    header = read_header(path)
    assert (header.config, header.sampling, header.record, header.kind) == (
        given.config,
        given.sampling,
        RECORD,
        kind,
    )
    assert header.bytes == path.stat().st_size
    assert header.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_float32_is_exact(tmp_path: Path) -> None:
    given = content()
    found = read(write(tmp_path / "m.safetensors", given, "float32"))
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in given.tensors.items())


def test_float16_is_the_nearest(tmp_path: Path) -> None:
    given = content()
    found = read(write(tmp_path / "m.safetensors", given, "float16"))
    for name, tensor in given.tensors.items():
        exact = name in ("mu", "data_mean")
        assert torch.equal(found.tensors[name], tensor if exact else tensor.half().float())


def test_int8_is_off_by_half_a_scale_at_most(tmp_path: Path) -> None:
    given = content()
    path = write(tmp_path / "m.safetensors", given, "int8")
    found, stored = read(path), load_file(path)
    for name, tensor in given.tensors.items():
        if name in ("mu", "data_mean"):
            assert torch.equal(found.tensors[name], tensor)
        elif tensor.ndim < 2:
            assert stored[name].dtype == torch.float16
        else:
            assert stored[name].dtype == torch.int8
            assert stored[name + weights.SCALE].dtype == torch.float16
            scale = stored[name + weights.SCALE].float().view(-1, *[1] * (tensor.ndim - 1))
            assert bool(((found.tensors[name] - tensor).abs() <= scale * 0.500001).all())
            size = tensor.flatten(1).abs().amax(dim=1)
            assert bool((scale.flatten() <= size / 127 * 1.001 + 6e-8).all())


def test_int8_is_a_quarter_of_float32(tmp_path: Path) -> None:
    given = content(width=64)
    sizes = {kind: write(tmp_path / kind, given, kind).stat().st_size for kind in KINDS}
    assert sizes["int8"] < 0.3 * sizes["float32"]
    assert sizes["float16"] < 0.55 * sizes["float32"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """And int8 weights that are read and written again as int8 stay what they are."""
    given = content()
    one, two = write(tmp_path / "one", given, "int8"), write(tmp_path / "two", given, "int8")
    assert one.read_bytes() == two.read_bytes()
    again = read(write(tmp_path / "again", read(one), "int8"))
    for name, tensor in read(one).tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, rtol=2e-3, atol=1e-7)


def test_quantising_holds_at_every_size() -> None:
    rows = torch.randn(9, 50) * torch.logspace(-9, 5, 9)[:, None]
    rows[0] = 0
    values, scale = quantise(rows)
    assert values.dtype == torch.int8
    assert int(values.abs().max()) <= 127
    error = (dequantise(values, scale) - rows).abs()
    assert bool((error <= 0.500001 * scale.float()[:, None]).all())
    assert not dequantise(values, scale)[0].any()


def test_a_model_is_the_same_after_its_file(tmp_path: Path) -> None:
    given = content()
    model, again = AttenuationModel(given.config), AttenuationModel(given.config)
    model.load_state_dict(dict(given.tensors))
    again.load_state_dict(dict(read(write(tmp_path / "m", given)).tensors))
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(model.eval()(x, 0.4).x0, again.eval()(x, 0.4).x0)


def test_what_cannot_be_stored_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    given = content()
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match=r"unknown kind of weights 'int4'; known: int8, float16, float32"):
        write(path, given, "int4")
    name = "network.input.weight"
    for value, kinds in [(float("nan"), KINDS), (float("inf"), KINDS), (1e5, ("float16",)), (1e8, ("int8",))]:
        spoilt = given.tensors[name].clone()
        spoilt[0, 0, 0, 0] = value
        for kind in kinds:
            with pytest.raises(ValueError, match=rf"{name} has values that are not finite as {kind}"):
                write(path, replace(given, tensors={**given.tensors, name: spoilt}), kind)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_overwritten_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"m.safetensors exists; choose another name or allow overwriting"):
        write(path, content(), overwrite=False)
    assert path.read_text() == "precious"
    write(path, content())
    assert read(path).kind == "float32"


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_file(tmp_path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write(path, content(), "int8")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def described(**changes: Any) -> dict[str, str]:
    """Return the metadata of a model file, changed; None takes an entry away."""
    given = content()
    whole: dict[str, Any] = {
        "format": 1,
        "kind": "float32",
        "model": {"s_d": given.config.s_d},
        "sampling": {},
        "record": {},
    }
    whole = {name: value for name, value in (whole | changes).items() if value is not None}
    return {"attenua": json.dumps(whole)}


FOREIGN: list[tuple[str, dict[str, str] | None, str]] = [
    ("foreign", None, r"is a safetensors file, but not a model of attenua"),
    ("others", {"format": "pt"}, r"is a safetensors file, but not a model of attenua"),
    ("no-json", {"attenua": "{"}, r"is damaged: its metadata are not JSON"),
    ("list", {"attenua": "[1]"}, r"is damaged: its metadata are not JSON"),
    ("future", described(format=2), r"has format 2; this version reads format 1"),
    ("no-format", described(format=None), r"has format None; this version reads format 1"),
    ("no-model", described(model=None), r"its metadata lack the model, sampling, record or kind"),
    ("no-section", described(sampling=3), r"its metadata lack the model, sampling, record or kind"),
    ("no-kind", described(kind="int4"), r"its metadata lack the model, sampling, record or kind"),
    (
        "newer-field",
        described(model={"depth": 3}),
        r"a configuration that this version does not know: unknown configuration field 'model.depth'",
    ),
    ("bad-value", described(sampling={"steps": 0}), r"does not know: steps is 0; allowed is a whole number from 1"),
]


@pytest.mark.parametrize(("metadata", "message"), [row[1:] for row in FOREIGN], ids=[row[0] for row in FOREIGN])
def test_a_file_of_another_kind_says_what_it_is(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.zeros(2, 2)}, path, metadata=metadata)
    for reader in (read, read_header):
        with pytest.raises(ValueError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_scales_and_tensors_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    values, scale = torch.ones(2, 3, dtype=torch.int8), torch.ones(2, dtype=torch.float16)
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({"w": values}, "w must be int8 with one scale a channel, or neither"),
        ({"w": values.float(), "w.int8_scale": scale}, "w must be int8 with one scale a channel, or neither"),
        ({"w": values, "w.int8_scale": scale[:1]}, "w must be int8 with one scale a channel, or neither"),
        ({"v": values.float(), "w.int8_scale": scale}, "w.int8_scale has no tensor to scale"),
    ]
    for tensors, message in cases:
        save_file(tensors, path, metadata=described(kind="int8"))
        with pytest.raises(ValueError, match=f"is damaged: {message}"):
            read(path)


@pytest.mark.parametrize("reader", [read, read_header])
def test_a_truncated_file_is_named(tmp_path: Path, reader: Any) -> None:
    whole = model_file(tmp_path).read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.safetensors is (not a safetensors file|truncated)"):
            reader(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match=r"cut.safetensors is truncated: \d+ bytes, \d+ expected"):
        reader(path)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
        b"PK\x03\x04" + b"\0" * 50,
        b"\x80\x02}q\x00.",
        b"\x10\0\0\0\0\0\0\0" + b'["not an object"]'[:16],
        b"\x0b\0\0\0\0\0\0\0" + b'{"w": null}',
        b"\x16\0\0\0\0\0\0\0" + b'{"w":{"data_offsets":1}',
        b"\x04\0\0\0\0\0\0\0" + b"\xff\xfe\xfd\xfc",
    ],
)
def test_a_file_of_another_type_is_named(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.bin"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"junk.bin is not a safetensors file"):
        read(path)
    with pytest.raises(ValueError, match=r"junk.bin is not a safetensors file"):
        read_header(path)


def test_a_damaged_header_is_never_a_traceback_of_another_kind(tmp_path: Path) -> None:
    """Any one byte of the header spoilt: a ValueError of one line, or a file that still reads."""
    whole = save({"w": torch.zeros(2, 2), "b": torch.ones(3)}, metadata=described())
    path = tmp_path / "m.safetensors"
    length = 8 + int.from_bytes(whole[:8], "little")
    said: list[str] = []
    for position in range(length):
        for flip in (1, 0x80):
            spoilt = bytearray(whole)
            spoilt[position] ^= flip
            path.write_bytes(spoilt)
            try:
                read(path)
            except ValueError as error:
                said.append(str(error))
    assert len(said) > length
    assert all(str(path) in sentence and "\n" not in sentence for sentence in said)


def test_tensors_of_no_known_type_are_told_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(save({"w": torch.zeros(2, 2)}, metadata=described()).replace(b'"F32"', b'"X32"'))
    for reader in (read, lambda file: weights.write_sampling(file, file, SamplingConfig())):
        with pytest.raises(ValueError, match=r"m.safetensors cannot be read"):
            reader(path)


def test_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no model file at {path}"):
            read(path)


def test_what_does_not_fit_is_named() -> None:
    expected = {"a": (1, 2), "b": (3,), "c": (4,), "d": (5,), "e": (6,)}
    compare(expected, dict(expected))
    with pytest.raises(ValueError, match=r"do not fit the model: b is missing$"):
        compare(expected, {name: shape for name, shape in expected.items() if name != "b"})
    with pytest.raises(ValueError, match=r"do not fit the model: z is unknown$"):
        compare(expected, expected | {"z": (1,)})
    with pytest.raises(ValueError, match=r"a is \[2, 1\] instead of \[1, 2\]$"):
        compare(expected, expected | {"a": (2, 1)})
    message = r"a is missing; b is missing; c is missing \(and 3 more\)$"
    with pytest.raises(ValueError, match=message):
        compare(expected, {"z": (1,)})


class Server:
    """A server of model files on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.cut = False
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                path = owner.folder / self.path.removeprefix("/models/")
                if not path.is_file():
                    self.send_error(404)
                    return
                data = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if owner.cut else data)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/models/"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class World:
    """Where models may lie: the package, the cache, a server, and the catalogue of one model, `tiny`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.packaged, self.cache, self.remote = (folder / name for name in ("packaged", "cache", "remote"))
        for place in (self.packaged, self.cache / "models", self.remote):
            place.mkdir(parents=True)
        self.file = "tiny-1.safetensors"
        made = write(self.remote / self.file, content())
        entry = {"file": self.file, "sha256": hashlib.sha256(made.read_bytes()).hexdigest(), "bytes": 1}
        (self.packaged / "index.json").write_text(json.dumps({"tiny": entry, "other": entry}))
        patch.setattr(weights, "packaged", lambda: self.packaged)
        patch.setenv(weights.CACHE_VARIABLE, str(self.cache))
        patch.chdir(folder)
        self.server = Server(self.remote)
        patch.setenv(weights.BASE_VARIABLE, self.server.url)

    @property
    def cached(self) -> list[Path]:
        return list((self.cache / "models").iterdir())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    found = World(tmp_path, monkeypatch)
    yield found
    found.server.close()


def test_a_path_goes_before_the_package_the_cache_and_a_download(world: World) -> None:
    downloaded = find("tiny")
    assert downloaded == world.cache / "models" / world.file
    assert downloaded.read_bytes() == (world.remote / world.file).read_bytes()
    assert world.server.asked == [f"/models/{world.file}"]
    assert find("tiny") == downloaded
    assert len(world.server.asked) == 1  # from the cache
    (world.packaged / world.file).write_bytes(b"packaged")
    assert find("tiny") == world.packaged / world.file
    Path("tiny").write_bytes(b"a file of that name")
    assert find("tiny") == Path("tiny")
    assert find(str(downloaded)) == downloaded
    assert len(world.server.asked) == 1


def test_a_wrong_sum_is_named_and_nothing_is_kept(world: World) -> None:
    (world.remote / world.file).write_bytes(b"something else")
    wrong = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match=rf"{world.file} has SHA-256 {wrong}; expected [0-9a-f]{{64}}$"):
        find("tiny")
    assert world.cached == []


def test_a_download_that_breaks_off_is_named_and_nothing_is_kept(world: World) -> None:
    world.server.cut = True
    with pytest.raises(OSError, match=rf"cannot download http://127.0.0.1:\d+/models/{world.file}: "):
        find("tiny")
    assert world.cached == []
    world.server.cut = False
    assert find("tiny").is_file()


def test_a_server_without_the_file_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.remote / world.file).unlink()
    with pytest.raises(OSError, match=rf"cannot download .*{world.file}: HTTP Error 404"):
        find("tiny")
    monkeypatch.setenv(weights.BASE_VARIABLE, "nonsense")
    with pytest.raises(OSError, match=r"cannot download nonsense/tiny-1.safetensors: unknown url type"):
        find("tiny")
    monkeypatch.setenv(weights.BASE_VARIABLE, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(OSError, match=r"cannot download http://127.0.0.1:9/tiny-1.safetensors"):
        find("tiny")
    assert world.cached == []


def test_without_an_address_the_variable_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights.BASE_VARIABLE)
    with pytest.raises(FileNotFoundError, match=r"'tiny' is not on this machine; set ATTENUA_MODELS_URL to where"):
        find("tiny")


def test_unknown_models_list_the_known_ones(world: World) -> None:
    with pytest.raises(ValueError, match=r"unknown model 'tyni'; known: tiny, other, or the path of a model file"):
        find("tyni")
    for name in ("folder/tyni", "tyni.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"no model file at {name}"):
            find(name)
    assert world.server.asked == []


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "mine"))
    assert weights.cache() == tmp_path / "mine"
    monkeypatch.delenv(weights.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache() == tmp_path / "xdg" / "attenua"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weights.cache() == tmp_path / "home" / ".cache" / "attenua"


def test_what_the_package_carries_is_what_its_catalogue_says() -> None:
    """Every packaged file reads, has its sum, and together they fit one wheel."""
    total = 0
    for name, entry in weights.catalogue().items():
        path = weights.packaged() / entry["file"]
        if path.is_file():
            header = read_header(path)
            assert (header.sha256, header.bytes) == (entry["sha256"], entry["bytes"]), name
            total += header.bytes
    assert total < 50_000_000
