"""Names of weights, and the download against a server on this machine."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from demoe.errors import Cancelled, OutputError, WeightsError
from demoe.model import download, zoo

PAYLOAD = np.random.default_rng(7).bytes(
    1_000_003
)  # several blocks, and not a whole number of them


@dataclass
class Plan:
    """How the server behaves, and what it was asked."""

    body: bytes = PAYLOAD
    ranges: bool = True  # whether it understands Range
    break_after: int | None = None  # bytes sent before the connection is cut
    status: int = 200
    announce: bool = True  # whether it sends a Content-Length
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        plan: Plan = self.server.plan
        wanted = self.headers["Range"]
        plan.asked.append((self.path, wanted))
        if plan.status != 200:
            self.send_error(plan.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and plan.ranges else 0
        body = plan.body[start:]
        self.send_response(206 if start else 200)
        if start:
            whole = len(plan.body)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if plan.announce:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may stop first
            self.wfile.write(body[: plan.break_after])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def plan(monkeypatch) -> Iterator[Plan]:
    """A server that stands in for the place of release; what it sends is PAYLOAD."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.plan = Plan()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("DEMOE_MIRROR", f"http://127.0.0.1:{server.server_port}/mirror/")
    yield server.plan
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def small_release(monkeypatch, tmp_path) -> Path:
    """The cache folder; the released file is PAYLOAD instead of 81 MB."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DEMOE_CACHE", str(cache))
    file = replace(
        zoo.RELEASES["demoe"].file,
        size=len(PAYLOAD),
        sha256=hashlib.sha256(PAYLOAD).hexdigest(),
    )
    monkeypatch.setitem(zoo.RELEASES, "demoe", replace(zoo.RELEASES["demoe"], file=file))
    return cache


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def one_sentence(message: str) -> bool:
    return message.endswith(".") and "\n" not in message and ". " not in message


def test_whole_download(plan, small_release):
    seen: list[tuple[int, int, str]] = []
    path = zoo.download("demoe", progress=lambda *step: seen.append(step))
    assert path.read_bytes() == PAYLOAD
    assert files_in(small_release) == ["demoe.pt"]
    assert plan.asked == [("/mirror/DeMoE.pt", None)]
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD), "demoe.pt")
    assert zoo.weights_path("demoe") == path


def test_offline_afterwards(plan):
    path = zoo.download("demoe")
    plan.status = 500
    assert zoo.download("demoe") == path
    assert zoo.weights_path("demoe") == path
    assert len(plan.asked) == 1


@pytest.mark.parametrize("announce", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(plan, small_release, announce):
    plan.break_after, plan.announce = 600_000, announce
    with pytest.raises(WeightsError, match="start it again") as caught:
        zoo.download("demoe")
    assert one_sentence(str(caught.value))
    assert files_in(small_release) == ["demoe.pt.part"]
    with pytest.raises(WeightsError, match="demoe models download demoe"):
        zoo.weights_path("demoe")

    plan.break_after = None
    seen: list[int] = []
    path = zoo.download("demoe", progress=lambda done, total, message: seen.append(done))
    assert plan.asked[1][1] == "bytes=600000-"
    assert seen[0] > 600_000
    assert path.read_bytes() == PAYLOAD
    assert files_in(small_release) == ["demoe.pt"]


def test_a_server_without_ranges_is_asked_for_the_whole(plan, small_release):
    plan.break_after = 600_000
    with pytest.raises(WeightsError):
        zoo.download("demoe")
    plan.break_after, plan.ranges = None, False
    seen: list[int] = []
    path = zoo.download("demoe", progress=lambda done, total, message: seen.append(done))
    assert path.read_bytes() == PAYLOAD
    assert seen[0] == 0
    assert seen[-1] == len(PAYLOAD)


def test_stopping_keeps_what_is_there(plan, small_release):
    def stop(done: int, total: int, message: str) -> None:
        if done > 300_000:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        zoo.download("demoe", progress=stop)
    assert files_in(small_release) == ["demoe.pt.part"]
    assert zoo.download("demoe").read_bytes() == PAYLOAD
    assert plan.asked[1][1] is not None


def test_a_part_that_is_complete_needs_no_connection(small_release):
    small_release.mkdir()
    (small_release / "demoe.pt.part").write_bytes(PAYLOAD)
    assert zoo.download("demoe").read_bytes() == PAYLOAD


@pytest.mark.parametrize(
    "body",
    [PAYLOAD[:-1], PAYLOAD + b"!", b"<html>Please log in</html>"],
    ids=["short", "long", "page"],
)
def test_a_file_of_another_size_is_refused(plan, small_release, body):
    plan.body = body
    with pytest.raises(WeightsError, match=f"{len(body)} bytes") as caught:
        zoo.download("demoe")
    assert one_sentence(str(caught.value).replace("127.0.0.1", "host"))
    assert files_in(small_release) == []


def test_a_wrong_file_of_the_right_size_is_refused(plan, small_release):
    plan.body = bytes(len(PAYLOAD))
    with pytest.raises(WeightsError, match="checksum"):
        zoo.download("demoe")
    assert files_in(small_release) == []


def test_a_part_of_another_file_does_not_last(plan, small_release):
    small_release.mkdir()
    (small_release / "demoe.pt.part").write_bytes(bytes(1000))
    with pytest.raises(WeightsError, match="checksum"):
        zoo.download("demoe")
    assert zoo.download("demoe").read_bytes() == PAYLOAD


@pytest.mark.parametrize("status", [404, 503])
def test_server_errors(plan, small_release, status):
    plan.status = status
    with pytest.raises(WeightsError, match=str(status)):
        zoo.download("demoe")
    assert files_in(small_release) == []


def test_no_server(monkeypatch, small_release):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("DEMOE_MIRROR", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(WeightsError, match="cannot be reached"):
            zoo.download("demoe")
    assert files_in(small_release) == []


def test_a_silent_server(monkeypatch, small_release):
    monkeypatch.setattr(download, "_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DEMOE_MIRROR", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(WeightsError, match=r"cannot be reached \(timed out\)"):
            zoo.download("demoe")
    assert files_in(small_release) == []


def test_only_web_addresses(monkeypatch, tmp_path):
    (tmp_path / "DeMoE.pt").write_bytes(PAYLOAD)
    monkeypatch.setenv("DEMOE_MIRROR", tmp_path.as_uri())
    with pytest.raises(WeightsError, match="https://"):
        zoo.download("demoe")


def test_a_cache_that_cannot_be_written(plan, small_release):
    small_release.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="DEMOE_CACHE"):
        zoo.download("demoe")


def test_force_replaces_only_by_a_good_file(plan, small_release):
    path = zoo.download("demoe")
    plan.body = bytes(len(PAYLOAD))
    with pytest.raises(WeightsError):
        zoo.download("demoe", force=True)
    assert path.read_bytes() == PAYLOAD
    plan.body = PAYLOAD
    assert zoo.download("demoe", force=True) == path
    assert len(plan.asked) == 3


def test_a_damaged_file_counts_as_absent(plan, small_release):
    small_release.mkdir()
    (small_release / "demoe.pt").write_bytes(PAYLOAD[:500])
    with pytest.raises(WeightsError, match="demoe models download demoe"):
        zoo.weights_path("demoe")
    assert zoo.download("demoe").read_bytes() == PAYLOAD


def test_what_is_not_here_says_how_to_get_it_and_under_which_licence():
    with pytest.raises(WeightsError, match=r"demoe models download demoe.*CC-BY-SA-4\.0"):
        zoo.weights_path("demoe")


def test_the_published_file_is_the_one_that_was_released(monkeypatch):
    monkeypatch.undo()
    file = zoo.RELEASES["demoe"].file
    assert file.url.endswith("/Cidaut/DeMoE/resolve/main/DeMoE.pt")
    assert file.size == 80_848_778
    assert file.sha256 == "5b0aef148ffcb1a5572b4da6cbd33f86ed2e18639db28b46838aae46bcd011a5"


def test_the_list(plan, small_release):
    before = {model.name: model for model in zoo.list_models()}
    assert list(before) == ["default", "demoe"]
    assert not before["demoe"].available
    assert "CC-BY-SA-4.0" in before["demoe"].license
    zoo.download("demoe")
    after = {model.name: model for model in zoo.list_models()}
    assert after["demoe"].available
    assert after["demoe"].size == after["demoe"].path.stat().st_size


def test_bundled_weights_are_here_and_need_no_download(small_release):
    path = zoo.weights_path("default")
    assert path.stat().st_size == {m.name: m for m in zoo.list_models()}["default"].size > 0
    assert zoo.download("default") == path
    assert files_in(small_release) == []


def test_paths_and_unknown_names(tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"x")
    assert zoo.weights_path(file) == file
    assert zoo.weights_path(str(file)) == file
    for unknown in ("demo", str(tmp_path), tmp_path / "absent.pt"):
        with pytest.raises(WeightsError, match="default, demoe") as caught:
            zoo.weights_path(unknown)
        assert one_sentence(str(caught.value))
    with pytest.raises(WeightsError, match="default, demoe"):
        zoo.download("demo")


def test_import_under_a_name(root, small_release):
    source = root / "tests" / "data" / "demoe_w4.safetensors"
    path = zoo.import_weights(source, "tiny")
    assert path.read_bytes() == source.read_bytes()
    assert zoo.weights_path("tiny") == path
    info = zoo.list_models()[-1]
    assert (info.name, info.available, info.path) == ("tiny", True, path)
    assert files_in(small_release) == ["tiny.safetensors"]
    assert zoo.import_weights(source, "tiny") == path


def test_import_refuses_what_is_no_network(tmp_path, small_release):
    text = tmp_path / "notes.txt"
    broken = tmp_path / "broken.safetensors"
    for file in (text, broken):
        file.write_bytes(b"no weights at all")
        with pytest.raises(WeightsError, match=file.name):
            zoo.import_weights(file, "mine")
    with pytest.raises(WeightsError, match="absent"):
        zoo.import_weights(tmp_path / "absent.pt", "mine")
    assert files_in(small_release) == []


@pytest.mark.parametrize("name", ["default", "", "a b", "../up", "a/b", "x.pt"])
def test_import_refuses_names(root, small_release, name):
    with pytest.raises(WeightsError, match="cannot name"):
        zoo.import_weights(root / "tests" / "data" / "demoe_w4.safetensors", name)
    assert files_in(small_release) == []


def test_released_weights_can_be_carried_over_by_hand(tmp_path, root):
    carried = tmp_path / "DeMoE.pt"
    carried.write_bytes(PAYLOAD)
    assert zoo.import_weights(carried, "demoe") == zoo.weights_path("demoe")
    with pytest.raises(WeightsError, match="another name"):
        zoo.import_weights(root / "tests" / "data" / "demoe_w4.safetensors", "demoe")
