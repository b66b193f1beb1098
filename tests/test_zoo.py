"""Names of weights, and the download against a server on this machine."""

import errno
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from hub import COMMIT, Hub, go_to, serving
from huggingface_hub import constants

import demoe
from demoe.errors import Cancelled, OutputError, WeightsError
from demoe.model import zoo

PAYLOAD = np.random.default_rng(7).bytes(
    1_000_003
)  # several blocks, and not a whole number of them
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()
SPACE = "spaces--Cidaut--DeMoE"


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """A server that stands in for the place of release; what it sends is PAYLOAD."""
    with serving(PAYLOAD) as running:
        go_to(running.url, monkeypatch)
        yield running


@pytest.fixture(autouse=True)
def small_release(monkeypatch, tmp_path) -> Path:
    """The folder of imported weights; the released file is PAYLOAD instead of 81 MB."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DEMOE_CACHE", str(cache))
    file = replace(zoo.RELEASES["demoe"].file, size=len(PAYLOAD), sha256=SHA256)
    monkeypatch.setitem(zoo.RELEASES, "demoe", replace(zoo.RELEASES["demoe"], file=file))
    return cache


@pytest.fixture(autouse=True)
def hub_cache(monkeypatch, tmp_path) -> Path:
    """huggingface_hub's cache."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    """huggingface_hub reads 10 MiB at a time, which is more than the whole of PAYLOAD."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 18)


@pytest.fixture(autouse=True)
def no_naps(monkeypatch) -> None:
    """huggingface_hub waits a second and more before it tries again."""
    awake = SimpleNamespace(sleep=lambda seconds: None, time=lambda: 0.0)
    monkeypatch.setattr("huggingface_hub.file_download.time", awake)
    monkeypatch.setattr("huggingface_hub.utils._http.time", awake)


@pytest.fixture(params=[False, True], ids=["links", "no links"])
def links(request, monkeypatch) -> None:
    """Symbolic links, which huggingface_hub's cache has where the system lets it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", request.param)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> list[Path]:
    """Whatever could be taken for weights, whole or half."""
    names = ("blobs", "snapshots")
    return [p for name in names for p in (folder / SPACE / name).rglob("*") if p.is_file()]


def one_sentence(message: str) -> bool:
    return message.endswith(".") and "\n" not in message and ". " not in message


def refused(match: str, kind: type[Exception] = WeightsError, **options: object) -> None:
    """Download in vain; the reason is one sentence."""
    with pytest.raises(kind, match=match) as caught:
        zoo.download("demoe", **options)
    assert one_sentence(str(caught.value))


# -- the download ----------------------------------------------------------------------------------


def test_whole_download(hub, hub_cache, small_release, links):
    seen: list[tuple[int, int, str]] = []
    path = zoo.download("demoe", progress=lambda *step: seen.append(step))
    assert path.read_bytes() == PAYLOAD
    assert path == hub_cache / SPACE / "snapshots" / COMMIT / "DeMoE.pt"
    assert files_in(small_release) == []
    assert hub.methods == ["HEAD", "HEAD", "GET"]
    assert {place for _, place, _ in hub.asked} == {"/spaces/Cidaut/DeMoE/resolve/main/DeMoE.pt"}
    assert len(seen) > 3
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD), "DeMoE.pt")
    assert zoo.weights_path("demoe") == path


def test_others_find_it_in_the_cache_too(hub):
    path = zoo.download("demoe")
    found = huggingface_hub.try_to_load_from_cache(
        "Cidaut/DeMoE", "DeMoE.pt", repo_type="space", cache_dir=constants.HF_HUB_CACHE
    )
    assert found == str(path)


def test_what_others_have_fetched_is_here(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    path = huggingface_hub.hf_hub_download(
        "Cidaut/DeMoE",
        "DeMoE.pt",
        repo_type="space",
        cache_dir=constants.HF_HUB_CACHE,
        endpoint=hub.url,
        tqdm_class=SimpleBar,
    )
    assert zoo.weights_path("demoe") == Path(path)
    assert zoo.download("demoe") == Path(path)


class SimpleBar:
    def __init__(self, **_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, n):
        pass


def test_it_is_here_whatever_the_space_has_become_since(hub, hub_cache):
    path = zoo.download("demoe")
    (hub_cache / SPACE / "refs" / "main").write_text("7" * 40)
    assert zoo.weights_path("demoe") == path


def test_no_token_is_sent(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    zoo.download("demoe")
    assert hub.tokens == []


def test_nothing_is_printed(hub, capfd):
    zoo.download("demoe")
    assert capfd.readouterr() == ("", "")


def test_offline_afterwards(hub, monkeypatch):
    path = zoo.download("demoe")
    hub.asked.clear()
    hub.statuses = {"HEAD": 500, "GET": 500}
    assert zoo.download("demoe") == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert zoo.download("demoe") == path
    assert zoo.weights_path("demoe") == path
    assert hub.asked == []


def test_a_broken_connection_is_taken_up_where_it_broke(hub):
    hub.end, hub.breaks = 600_000, 1
    seen: list[int] = []
    path = zoo.download("demoe", progress=lambda done, total, message: seen.append(done))
    assert path.read_bytes() == PAYLOAD
    assert hub.methods == ["HEAD", "HEAD", "GET", "GET"]
    assert 0 < int(hub.asked[-1][2].removeprefix("bytes=").rstrip("-")) <= 600_000
    assert seen == sorted(seen)
    assert seen[-1] == len(PAYLOAD)


def test_a_server_without_ranges_is_asked_for_the_whole(hub):
    hub.end, hub.breaks, hub.ranges = 600_000, 1, False
    seen: list[int] = []
    path = zoo.download("demoe", progress=lambda done, total, message: seen.append(done))
    assert path.read_bytes() == PAYLOAD
    assert 0 in seen
    assert seen[-1] == len(PAYLOAD)


def test_a_server_that_breaks_off_again_and_again_is_given_up(hub, hub_cache):
    hub.end = 600_000
    refused(r"broke off after \d+ of 1000003 bytes .* start it again")
    assert contents(hub_cache) == []
    with pytest.raises(WeightsError, match="demoe models download demoe"):
        zoo.weights_path("demoe")
    hub.end = None
    assert zoo.download("demoe").read_bytes() == PAYLOAD


@pytest.mark.parametrize("kind", [Cancelled, ValueError, ConnectionError, KeyboardInterrupt])
def test_stopping(hub, hub_cache, kind):
    reason = kind("stopped")

    def stop(done: int, total: int, message: str) -> None:
        if done > 300_000:
            raise reason

    with pytest.raises(kind) as caught:
        zoo.download("demoe", progress=stop)
    assert caught.value is reason
    assert contents(hub_cache) == []
    assert zoo.download("demoe").read_bytes() == PAYLOAD


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [PAYLOAD[:-1], PAYLOAD + b"!", b"<html>Please log in</html>"],
    ids=["short", "long", "page"],
)
def test_a_file_of_another_size_is_refused(hub, hub_cache, body):
    hub.body = body
    refused("size or checksum")
    assert hub.methods == ["HEAD"]
    assert files_in(hub_cache) == []


def test_another_file_of_the_right_size_is_not_even_fetched(hub, hub_cache):
    hub.body = bytes(len(PAYLOAD))
    refused("checksum")
    assert hub.methods == ["HEAD"]
    assert files_in(hub_cache) == []


@pytest.mark.parametrize("etag", [SHA256, "abc"], ids=["promised", "not told"])
def test_a_wrong_file_does_not_stay(hub, hub_cache, links, etag):
    hub.body, hub.etag = bytes(len(PAYLOAD)), etag
    refused("checksum")
    assert hub.methods[-1] == "GET"
    assert contents(hub_cache) == []
    with pytest.raises(WeightsError, match="demoe models download demoe"):
        zoo.weights_path("demoe")
    hub.body = PAYLOAD
    assert zoo.download("demoe").read_bytes() == PAYLOAD


def test_another_version_of_the_file_is_left_to_whoever_fetched_it(hub, hub_cache):
    other = hub_cache / SPACE / "snapshots" / ("7" * 40) / "DeMoE.pt"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"newer weights")
    path = zoo.download("demoe")
    assert path.read_bytes() == PAYLOAD
    assert zoo.weights_path("demoe") == path
    assert other.read_bytes() == b"newer weights"


def test_a_damaged_file_counts_as_absent(hub):
    path = zoo.download("demoe")
    path.write_bytes(PAYLOAD[:500])
    with pytest.raises(WeightsError, match="demoe models download demoe"):
        zoo.weights_path("demoe")
    assert zoo.download("demoe").read_bytes() == PAYLOAD
    assert zoo.weights_path("demoe") == path


def test_force_fetches_it_again(hub, hub_cache):
    path = zoo.download("demoe")
    path.write_bytes(bytes(len(PAYLOAD)))
    assert zoo.download("demoe") == path
    assert hub.methods.count("GET") == 1
    assert zoo.download("demoe", force=True) == path
    assert hub.methods.count("GET") == 2
    assert path.read_bytes() == PAYLOAD
    assert len({place.resolve() for place in contents(hub_cache)}) == 1


def test_the_old_file_stays_until_the_new_one_is_complete(hub, links):
    path = zoo.download("demoe")

    def stop(done: int, total: int, message: str) -> None:
        assert path.read_bytes() == PAYLOAD
        if done > 300_000:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        zoo.download("demoe", progress=stop, force=True)
    assert path.read_bytes() == PAYLOAD
    hub.end = 600_000
    refused("broke off", force=True)
    hub.end, hub.body = None, bytes(len(PAYLOAD))
    refused("checksum", force=True)
    hub.statuses = {"HEAD": 503}
    refused("503", force=True)
    assert zoo.weights_path("demoe") == path
    assert path.read_bytes() == PAYLOAD


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_server_errors(hub, hub_cache, method, status):
    hub.statuses = {method: status}
    refused(rf"answered {status} \(\w[\w ]+\) for {hub.url}/spaces/.*HF_ENDPOINT")
    assert contents(hub_cache) == []


def test_a_server_that_is_no_hub(hub, hub_cache):
    hub.commit = None
    refused("no Hugging Face hub")
    assert files_in(hub_cache) == []


def test_no_server(monkeypatch, hub_cache):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        go_to(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)
        refused("cannot be reached .*`demoe models import DeMoE.pt demoe`")
    assert files_in(hub_cache) == []


def test_a_silent_server(monkeypatch, hub_cache):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        go_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        refused(r"cannot be reached \(timed out\)")
    huggingface_hub.close_session()
    assert files_in(hub_cache) == []


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_only_web_addresses(monkeypatch, tmp_path, scheme):
    go_to(f"{scheme}{tmp_path}", monkeypatch)
    refused("cannot be reached .*HF_ENDPOINT")


@pytest.mark.parametrize("force", [False, True])
def test_offline_mode(hub, monkeypatch, force):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE is set.*`demoe models import DeMoE.pt demoe`", force=force)
    assert hub.asked == []


def test_a_cache_that_cannot_be_written(hub, hub_cache):
    hub_cache.write_text("a file where the folder should be")
    refused("HF_HUB_CACHE", OutputError)


def test_a_full_disk(hub, hub_cache, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        refused("No space left", OutputError)
    assert contents(hub_cache) == []
    assert zoo.download("demoe").read_bytes() == PAYLOAD


# -- names -----------------------------------------------------------------------------------------


def test_what_is_not_here_says_how_to_get_it_and_under_which_licence():
    with pytest.raises(WeightsError, match=r"demoe models download demoe.*CC-BY-SA-4\.0"):
        zoo.weights_path("demoe")


def test_the_published_file_is_the_one_that_was_released(monkeypatch):
    monkeypatch.undo()
    file = zoo.RELEASES["demoe"].file
    assert file.url.endswith("/spaces/Cidaut/DeMoE/resolve/main/DeMoE.pt")
    assert file.size == 80_848_778
    assert file.sha256 == "5b0aef148ffcb1a5572b4da6cbd33f86ed2e18639db28b46838aae46bcd011a5"


@pytest.fixture
def told(hub, monkeypatch) -> dict[str, bytes]:
    """The files of InstructIR, some bytes each, in the place of release."""
    release = zoo.RELEASES["instructir"]
    bodies, files = {}, []
    for number, file in enumerate((release.file, *release.parts)):
        body = bytes([number]) * (900 + number)
        bodies[file.name] = hub.models[f"{file.space}/{file.name}"] = body
        sha256 = hashlib.sha256(body).hexdigest() if file.sha256 else ""
        files.append(replace(file, size=len(body), sha256=sha256))
    main, *parts = files
    monkeypatch.setitem(zoo.RELEASES, "instructir", replace(release, file=main, parts=tuple(parts)))
    return bodies


def test_a_release_of_several_files_comes_whole(told, hub):
    seen: list[str] = []
    path = zoo.download("instructir", progress=lambda done, total, name: seen.append(name))
    assert path.name == "im_instructir-7d.pt"
    assert path == zoo.weights_path("instructir")
    assert path.read_bytes() == told[path.name]
    for name in ("lm_instructir-7d.pt", "model.safetensors", "tokenizer.json"):
        assert zoo.part_path("instructir", name).read_bytes() == told[name]
    assert list(dict.fromkeys(seen)) == list(told)
    asked = len(hub.asked)
    assert zoo.download("instructir") == path
    assert len(hub.asked) == asked


def test_a_part_that_is_missing_is_brought_alone(told, hub):
    zoo.download("instructir")
    zoo.part_path("instructir", "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"tokenizer\.json of 'instructir' is not on this.*MIT"):
        zoo.part_path("instructir", "tokenizer.json")
    hub.asked.clear()
    zoo.download("instructir")
    assert {path.rpartition("/")[2] for _, path, _ in hub.asked} == {"tokenizer.json"}


@pytest.mark.parametrize("name", ["lm_instructir-7d.pt", "model.safetensors"])
def test_a_part_that_is_another_file_is_refused(told, hub, name):
    (place,) = (place for place in hub.models if place.endswith(name))
    hub.models[place] = hub.models[place][:-1] + b"?" * (2 if name.startswith("model") else 1)
    with pytest.raises(WeightsError, match="not the file that was released"):
        zoo.download("instructir")
    with pytest.raises(WeightsError, match=name):
        zoo.part_path("instructir", name)


def test_where_no_checksum_is_known_the_hubs_own_counts(told, hub, monkeypatch):
    hub.etag = "0" * 64
    release = zoo.RELEASES["instructir"]
    monkeypatch.setitem(
        zoo.RELEASES, "instructir", replace(release, file=release.parts[-1], parts=())
    )
    with pytest.raises(WeightsError, match="not the file that was released"):
        zoo.download("instructir")


def test_parts_can_be_carried_over_by_hand(told, tmp_path, small_release):
    for name in reversed(told):
        (tmp_path / name).write_bytes(told[name])
        zoo.import_weights(tmp_path / name, "instructir")
    assert zoo.weights_path("instructir") == small_release / "instructir.pt"
    part = zoo.part_path("instructir", "model.safetensors")
    assert part == small_release / "instructir" / "model.safetensors"
    (tmp_path / "model.safetensors").write_bytes(b"another")
    with pytest.raises(WeightsError, match="not the released file"):
        zoo.import_weights(tmp_path / "model.safetensors", "instructir")


def test_the_parts_of_instructir_are_those_that_were_released():
    release = zoo.RELEASES["instructir"]
    assert release.file.url.endswith("/marcosv/InstructIR/resolve/main/im_instructir-7d.pt")
    head = release.parts[0]
    assert (head.size, head.sha256[:8]) == (403_275, "b239e5d5")


def test_the_list(hub, hub_cache):
    before = {model.name: model for model in zoo.list_models()}
    assert list(before) == [*zoo.BUNDLED, *zoo.RELEASES]
    assert all(before[name].available and before[name].license for name in zoo.BUNDLED)
    assert not before["demoe"].available
    assert before["demoe"].path.is_relative_to(hub_cache)
    assert before["demoe"].url == huggingface_hub.hf_hub_url(
        "Cidaut/DeMoE", "DeMoE.pt", repo_type="space"
    )
    assert "CC-BY-SA-4.0" in before["demoe"].license
    assert hub.asked == []
    zoo.download("demoe")
    after = {model.name: model for model in zoo.list_models()}
    assert after["demoe"].available
    assert after["demoe"].size == after["demoe"].path.stat().st_size


def test_listing_loads_neither_torch_nor_an_http_client():
    code = "import sys; from demoe.model.zoo import list_models; list_models(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "huggingface_hub.constants" in loaded
    assert not loaded & {"torch", "huggingface_hub.file_download", "httpx", "httpx2", "requests"}


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
        with pytest.raises(WeightsError, match=r"default, .*demoe, instructir") as caught:
            zoo.weights_path(unknown)
        assert one_sentence(str(caught.value))
    with pytest.raises(WeightsError, match=r"default, .*demoe, instructir"):
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


def test_released_weights_can_be_carried_over_by_hand(tmp_path, root, small_release):
    carried = tmp_path / "DeMoE.pt"
    carried.write_bytes(PAYLOAD)
    path = zoo.import_weights(carried, "demoe")
    assert path == small_release / "demoe.pt" == zoo.weights_path("demoe") == zoo.download("demoe")
    with pytest.raises(WeightsError, match="another name"):
        zoo.import_weights(root / "tests" / "data" / "demoe_w4.safetensors", "demoe")
    path.write_bytes(PAYLOAD[:500])
    with pytest.raises(WeightsError, match="demoe models download demoe"):
        zoo.weights_path("demoe")


@pytest.mark.parametrize("name", zoo.BUNDLED)
def test_a_bundled_file_carries_the_card_that_lies_beside_it(name):
    path = zoo.weights_path(name)
    assert demoe.load_model(name).card == path.with_suffix(".md").read_text(encoding="utf-8")
