"""What holds for every test: same seeds, a cache of its own, no thread and no file left behind."""

import gc
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import hypothesis
import numpy as np
import psutil
import pytest
import torch
from tiny import SHALLOW, tiny_weights

ROOT = Path(__file__).resolve().parents[1]

hypothesis.settings.register_profile(
    "demoe",
    deadline=None,  # a busy machine is no failure
    derandomize="CI" in os.environ,
    database=None,
)
hypothesis.settings.load_profile("demoe")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep windows in one process, since one at a time has the keyboard; others file by file."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        group = "windows" if "gui" in item.path.parts else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with random weights, as deep as the published one."""
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another of two levels, whose exact halo keeps tiles small."""
    return tiny_weights(tmp_path_factory.mktemp("weights") / "shallow.safetensors", config=SHALLOW)


@pytest.fixture(scope="module")
def in_this_thread() -> Iterator[None]:
    """Compute where the test runs: a pool of threads costs more than such tiles."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, int, int], int, int]]:
    """The tiles that are computed from now on: plane, row and column of each."""
    from demoe.engine.restorer import Restorer

    tiles = []
    restore = Restorer.tile

    def noting(work, plane, row, col):
        tiles.append((plane, row, col))
        return restore(work, plane, row, col)

    monkeypatch.setattr(Restorer, "tile", noting)
    return tiles


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """On a busy machine the threads of one small operation wait for each other for seconds."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(tmp_path_factory) -> Iterator[None]:
    """Keep the tests away from what the person at this machine has downloaded or wished for.

    OpenVINO, which compiles each new network, is left to the tests of back ends. What is measured
    on weights is shared among the processes that run tests, and half precision is measured on
    small pictures, since processors without instructions for it take seconds.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "calibration"
    shared.mkdir(exist_ok=True)
    (base / "cache").mkdir()
    (base / "cache" / "calibration").symlink_to(shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demoe.model.backends.half.SIDE", 64)
        patch.setenv("DEMOE_CACHE", str(base / "cache"))
        patch.setenv("DEMOE_BACKEND", "torch")
        patch.setenv("HF_HUB_OFFLINE", "1")  # in processes that the tests start
        patch.setenv("HF_HUB_CACHE", str(base / "hub"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", os.environ["HF_HUB_CACHE"])
        yield


def _living_threads() -> set[threading.Thread]:
    """Threads that would keep the process alive, less those that dask and we keep for reuse."""
    kept: set[threading.Thread] = set()
    if dask_threaded := sys.modules.get("dask.threaded"):
        pools = [dask_threaded.default_pool]
        pools += [pool for sizes in dask_threaded.pools.values() for pool in sizes.values()]
        for pool in pools:
            kept |= set(getattr(pool, "_threads", ()))
    kept |= {thread for thread in threading.enumerate() if thread.name.startswith("demoe-windows")}
    return {thread for thread in threading.enumerate() if not thread.daemon} - kept


def _open_files(folders: tuple[Path, ...]) -> set[str]:
    files = {entry.path for entry in psutil.Process().open_files()}
    return {path for path in files if any(Path(path).is_relative_to(top) for top in folders)}


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path_factory) -> Iterator[None]:
    """Fail a test that leaves a thread running, or a file of its own or of the project open."""
    folders = (tmp_path_factory.getbasetemp().resolve(), ROOT / "src", ROOT / "tests")
    threads, files = _living_threads(), _open_files(folders)
    yield
    patience = time.monotonic() + 2.0
    while (left := _living_threads() - threads) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not left, f"threads still running: {sorted(thread.name for thread in left)}"
    if _open_files(folders) - files:
        gc.collect()  # a handle in a reference cycle is closed with it
    opened = _open_files(folders) - files
    assert not opened, f"files still open: {sorted(opened)}"
