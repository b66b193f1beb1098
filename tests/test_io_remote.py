"""OME-Zarr by its address, from a server that behaves, and from ones that do not."""

import functools
import json
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr

import demoe
from demoe.cli import main
from demoe.errors import ImageError
from demoe.image.lazy_image import LazyImage
from demoe.io import _zarr_remote, is_readable, open_image, series_of, write_image

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
RNG = np.random.default_rng(5)


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return RNG.integers(1, 250, shape).astype(dtype)


class Quiet(SimpleHTTPRequestHandler):
    """A folder, whole files only, as `python -m http.server` has it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        self.server.asked.append((self.command, self.path))


class Parts(Quiet):
    """The same, with parts of files."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = self.headers.get("Range")
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(data) - int(last))
        end = int(last) + 1 if first and last else len(data)
        self.send_response(206)
        self.send_header("Content-Length", str(len(data[start:end])))
        self.end_headers()
        self.wfile.write(data[start:end])


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], *args: object) -> Iterator[ThreadingHTTPServer]:
    made = functools.partial(handler, **({"directory": str(args[0])} if args else {}))
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    server.daemon_threads, server.asked = True, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    _zarr_remote._array.cache_clear()
    _zarr_remote.store_at.cache_clear()
    close_sessions()


def close_sessions() -> None:
    from fsspec.implementations.http import HTTPFileSystem
    from zarr.core.sync import sync

    async def close() -> None:
        for fs in list(HTTPFileSystem._cache.values()):
            if fs._session is not None:
                await fs._session.close()

    sync(close())
    HTTPFileSystem.clear_instance_cache()


@pytest.fixture(params=[Quiet, Parts], ids=["whole files", "parts of files"])
def server(request, tmp_path) -> Iterator[ThreadingHTTPServer]:
    (tmp_path / "served").mkdir()
    with serving(request.param, tmp_path / "served") as server:
        server.folder = tmp_path / "served"
        yield server


def test_an_image_of_ours(server):
    pixels = noise(2, 3, 600, 700)
    given = LazyImage.from_array(
        *(pixels, "CZYX"),
        scale={"Z": 0.5, "Y": 0.1, "X": 0.1},
        units={"Z": "micrometer"},
        channel_names=("DAPI", "GFP"),
        name="cells",
    )
    write_image(server.folder / "a b.ome.zarr", given)
    url = f"{server.url}/a b.ome.zarr"
    image = open_image(url)
    assert not any("/c/" in path for _, path in server.asked)  # opening asks for no pixels
    local = open_image(server.folder / "a b.ome.zarr")
    assert (image.axes, image.scale, image.units) == (local.axes, local.scale, local.units)
    assert (image.channel_names, image.source) == (("DAPI", "GFP"), url)
    assert (image.name, image.dtype) == ("a b", np.dtype("uint8"))
    np.testing.assert_array_equal(image.data, pixels)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image.data))[1, 2], pixels[1, 2])
    assert series_of(url) == series_of(server.folder / "a b.ome.zarr")
    assert is_readable(url) and not is_readable(f"{server.url}/a.tif")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shards", [None, (256, 256)])
def test_plain_arrays_and_shards(server, zarr_format, shards):
    if shards and zarr_format == 2:
        pytest.skip("zarr 2 has no shards")
    pixels = noise(300, 500, dtype="uint16")
    zarr.create_array(
        server.folder / "a.zarr",
        data=pixels,
        chunks=(128, 128),
        shards=shards,
        zarr_format=zarr_format,
    )
    image = open_image(f"{server.url}/a.zarr/")
    np.testing.assert_array_equal(image.data, pixels)


def test_images_of_a_group(server):
    group = zarr.open_group(server.folder / "g.zarr", mode="w")
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for number in range(3):
        write_image(server.folder / f"{number}.zarr", LazyImage.from_array(noise(40, 50)))
        (server.folder / f"{number}.zarr").rename(server.folder / "g.zarr" / str(number))
    url = f"{server.url}/g.zarr"
    assert series_of(url) == series_of(server.folder / "g.zarr") == ["", "", ""]
    expected = open_image(server.folder / "g.zarr", series=2).data
    np.testing.assert_array_equal(open_image(url, series=2).data, expected)


def test_a_run_on_an_address(server, tmp_path, shallow, capsys):
    pixels = noise(40, 50)
    write_image(server.folder / "a.ome.zarr", LazyImage.from_array(pixels, scale={"X": 0.2}))
    url, out = f"{server.url}/a.ome.zarr", tmp_path / "out.ome.zarr"
    options = ["--model", str(shallow), "--psf", "sigma=1.2", "--quiet"]
    assert main(["run", url, str(out), *options]) == 0
    assert main(["run", str(server.folder / "a.ome.zarr"), str(tmp_path / "b.zarr"), *options]) == 0
    np.testing.assert_array_equal(open_image(out).data, open_image(tmp_path / "b.zarr").data)
    assert open_image(out).scale["X"] == 0.2
    capsys.readouterr()
    assert main(["run", url, str(out), *options, "--resume"]) == 0  # finished, and it is known
    assert main(["run", url, str(tmp_path / "folder"), *options]) == 2
    assert "single image" in capsys.readouterr().err
    assert main(["info", url]) == 0
    assert url in capsys.readouterr().out


def test_missing_chunks_are_counted(server):
    path = server.folder / "a.zarr"
    array = zarr.create_array(path, data=noise(300, 500), chunks=(128, 128), fill_value=7)
    next(file for file in sorted(path.rglob("0")) if file.is_file()).unlink()
    image = open_image(f"{server.url}/a.zarr")
    assert demoe.open_image(path).origins[0].absent() == 1 == image.origins[0].absent()
    assert image.data[0, 0].compute() == 7
    told = json.loads((path / "zarr.json").read_text())
    assert array.fill_value == told["fill_value"]


def test_changes_are_noticed(server):
    path = server.folder / "a.zarr"
    zarr.create_array(path, data=noise(300, 500), chunks=(128, 128))
    image = open_image(f"{server.url}/a.zarr")
    before = image.origins[0].stamp()
    assert image.origins[0].stamp() == before
    chunk = next(file for file in path.rglob("*") if file.is_file() and file.name.isdigit())
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert image.origins[0].stamp() != before
    (path / "zarr.json").unlink()
    with pytest.raises(ImageError, match="not there any more"):
        image.origins[0].stamp()


@pytest.mark.parametrize(
    "name", ["../secret", "%2e%2e/secret", "%252e%252e/secret", "0/../../secret", "0?x=1", "0#a"]
)
def test_nothing_outside_of_the_address_is_asked_for(server, tmp_path, name):
    given = LazyImage.from_array(noise(40, 50))
    for place in ("inner/a.zarr", "inner/secret", "secret"):
        (server.folder / place).parent.mkdir(exist_ok=True)
        write_image(server.folder / "x.zarr", given)
        (server.folder / "x.zarr").rename(server.folder / place)
    file = server.folder / "inner" / "a.zarr" / "zarr.json"
    told = json.loads(file.read_text())
    told["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = name
    file.write_text(json.dumps(told))
    with pytest.raises(ImageError, match="lies outside of it and is not read"):
        open_image(f"{server.url}/inner/a.zarr")
    assert not any("secret" in path or "?" in path for _, path in server.asked)


def test_other_addresses_are_not_followed(server):
    path = server.folder / "a.zarr"
    write_image(path, LazyImage.from_array(noise(40, 50)))
    told = json.loads((path / "zarr.json").read_text())
    told["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = f"{server.url}/b.zarr"
    (path / "zarr.json").write_text(json.dumps(told))
    with pytest.raises(ImageError, match="lies outside"):
        open_image(f"{server.url}/a.zarr")


def test_what_is_too_large_is_not_brought(server, monkeypatch):
    path = server.folder / "a.zarr"
    zarr.create_array(path, data=noise(300, 500), chunks=(300, 500), compressors=None)
    image = open_image(f"{server.url}/a.zarr")
    chunk = next(file for file in path.rglob("*") if file.is_file() and file.name.isdigit())
    with chunk.open("wb") as file:
        file.truncate(50 * 2**20)
    monkeypatch.setenv("DEMOE_BLOCK_GIB", "0.01")
    with pytest.raises(ImageError, match="chunk that would decode to"):
        image.data.compute()
    with (path / "zarr.json").open("ab") as file:
        file.truncate(40 * 2**20)
    with pytest.raises(ImageError, match="more than 32 MiB"):
        open_image(f"{server.url}/a.zarr")
    (path / "zarr.json").write_text("[" * 5000)
    with pytest.raises(ImageError, match=r"damaged zarr metadata.*nested"):
        open_image(f"{server.url}/a.zarr")


def test_sentences_about_addresses(server):
    for url, words in [
        (f"{server.url}/none.zarr", "is no zarr: there is no zarr.json"),
        (f"{server.url}/a.tif", "the address of a file, but only zarr"),
        (f"{server.url}/a.zarr?token=1", "has a '?' or '#'"),
        ("ftp://127.0.0.1/a.zarr", "is no address that is read"),
        ("file:///etc/a.zarr", "is no address that is read"),
        ("http://127.0.0.1:9/a.zarr", "cannot be reached"),
        ("gs://bucket/a.zarr", "is read with gcsfs"),
    ]:
        with pytest.raises(ImageError, match=words.replace("?", r"\?")) as caught:
            open_image(url)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class Odd(BaseHTTPRequestHandler):
    """A server whose pixels never come as they should; `manner` says how."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        manner, *rest = self.path.strip("/").split("/")
        self.server.asked.append(self.path)
        if rest[-1] == "zarr.json":
            self.answer(200, json.dumps(self.server.described).encode())
        elif not rest[-1].isdigit():
            self.answer(404, b"")
        elif manner == "silent":
            self.server.stop.wait(20)
        elif manner == "endless":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while not self.server.stop.is_set():
                    self.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")
            except OSError:
                pass
        elif manner == "flaky" and len(self.server.asked) % 3:
            self.answer(503, b"")
        elif manner == "flaky":
            self.answer(200, bytes(40 * 50))
        elif manner == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "2000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
            self.close_connection = True
        else:
            self.answer(int(manner), b"")

    def answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd(tmp_path) -> Iterator[ThreadingHTTPServer]:
    zarr.create_array(
        tmp_path / "a.zarr", shape=(40, 50), chunks=(40, 50), dtype="u1", compressors=None
    )
    with serving(Odd) as server:
        server.stop = threading.Event()
        server.described = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
        yield server
        server.stop.set()


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        *(("silent", "did not answer in time"), ("cut", "cannot be reached")),
        *(("403", "the server forbids it"), ("410", "the server says 410")),
        *(("500", "cannot be reached"), ("endless", "chunk that would decode to")),
    ],
)
def test_servers_that_fail(odd, monkeypatch, manner, words):
    monkeypatch.setattr(_zarr_remote, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(_zarr_remote, "TRIES", 2)
    monkeypatch.setenv("DEMOE_BLOCK_GIB", "0.001")
    image = open_image(f"{odd.url}/{manner}")
    began = time.monotonic()
    with pytest.raises(ImageError, match=words) as caught:
        image.data.compute()
    assert time.monotonic() - began < 15  # not the time-out of the server
    assert "\n" not in str(caught.value)


def test_a_line_that_fails_is_tried_again(odd):
    odd.asked.clear()
    image = open_image(f"{odd.url}/flaky")
    np.testing.assert_array_equal(image.data, np.zeros((40, 50)))


def test_without_the_package_a_sentence_names_it(monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ImportError("no aiohttp")

    monkeypatch.setattr(_zarr_remote.RemoteStore, "from_url", missing)
    with pytest.raises(ImageError, match=r"is read with s3fs: install napari-demoe\[remote\]"):
        open_image("s3://bucket/a.zarr")
