"""Results that are looked at while they are made."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import demoe
from demoe.errors import Cancelled
from demoe.execution.store import TileStore
from demoe.execution.tile import compute_tile
from demoe.live.glance import BLOCK, Glances
from demoe.live.order import Scope, View
from demoe.live.pixels import Exact, LivePixels
from demoe.live.run import LiveRun
from demoe.plan.tiling import Box
from demoe.wanted import as_long_as


def live(source: np.ndarray, axes: str, side: int, done: set, **more) -> LivePixels:
    """Show a source whose tiles are its negative."""

    def tile(where):
        rows, cols = (slice(n * side, (n + 1) * side) for n in where[-2:])
        index = dict(zip("YX", (rows, cols), strict=True))
        index |= {a: slice(n, n + 1) for a, n in zip(axes.strip("YXS"), where, strict=False)}
        return 255 - source[tuple(index.get(a, slice(None)) for a in axes)]

    return LivePixels(da.from_array(source, chunks=100), axes, (side, side), tile, done, **more)


def until(said) -> None:
    """Wait for another thread."""
    for _ in range(2000):
        if said():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 700, 1300), dtype=np.uint8)


def test_an_array_shows_tiles_where_they_are_done_and_the_source_elsewhere(stack):
    done = {(1, 0, 0), (1, 2, 5), (2, 1, 1)}
    shown = live(stack, "ZYX", 128, done)
    expected = stack.copy()
    for z, row, col in done:
        part = (z, slice(128 * row, 128 * row + 128), slice(128 * col, 128 * col + 128))
        expected[part] = 255 - expected[part]
    np.testing.assert_array_equal(np.asarray(Exact(shown)), expected)
    np.testing.assert_array_equal(Exact(shown)[1, 100:300:3, -700:], expected[1, 100:300:3, -700:])
    for level in range(1, shown.levels):
        step = 2**level
        np.testing.assert_array_equal(np.asarray(Exact(shown, level)), expected[:, ::step, ::step])


@pytest.mark.parametrize("step", [32, 64, 128])
def test_far_levels_remember_tiles_that_are_off_their_grid(step):
    source = np.random.default_rng(1).integers(0, 255, (9000, 9000), dtype=np.uint8)
    done = {(0, 1), (3, 2), (2, 2)}
    shown = live(source, "YX", 1040, done)
    level = step.bit_length() - 1
    whole = Box(0, 0, *shown.shape(level))
    expected = source.copy()
    for row, col in done:
        part = (slice(1040 * row, 1040 * row + 1040), slice(1040 * col, 1040 * col + 1040))
        expected[part] = 255 - expected[part]
    for _ in range(2):  # read, and then remembered
        found = shown.read(level, (), whole)
        np.testing.assert_array_equal(found, expected[::step, ::step])


def test_a_pyramid_that_is_there_is_used(stack):
    coarse = np.full((3, 350, 650), 7, np.uint8)
    shown = live(stack, "ZYX", 128, {(0, 0, 0)}, pyramid=(da.from_array(coarse),))
    found = Exact(shown, 1)[...]
    assert (found[1:] == 7).all()
    np.testing.assert_array_equal(found[0, :64, :64], 255 - stack[0, :128:2, :128:2])


def test_colour_keeps_its_samples(stack):
    photo = np.stack([stack[0], stack[1], stack[2]], axis=-1)
    shown = live(photo, "YXS", 128, {(1, 1)})
    expected = photo.copy()
    expected[128:256, 128:256] = 255 - expected[128:256, 128:256]
    np.testing.assert_array_equal(Exact(shown)[...], expected)
    np.testing.assert_array_equal(Exact(shown)[100:200, 100:200, 1], expected[100:200, 100:200, 1])


def test_a_far_level_of_a_huge_plane_reads_only_a_sample(tmp_path):
    read = []

    class Counted:
        shape, dtype, ndim = (200_000, 200_000), np.dtype(np.uint16), 2

        def __getitem__(self, key):
            read.append(key)
            sides = [len(range(*part.indices(200_000))) for part in key]
            return np.full(sides, 5, np.uint16)

    huge = da.from_array(Counted(), chunks=1000, inline_array=True, meta=np.empty((0, 0), "u2"))
    shown = LivePixels(huge, "YX", (1024, 1024), lambda where: None, set())
    last = shown.levels - 1
    found = shown.read(last, (), Box(0, 0, *shown.shape(last)))
    assert found.shape == shown.shape(last)
    assert (found == 5).all()
    assert len(read) < 1500  # of 40,000 blocks


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3),
    st.tuples(*[st.integers(0, 40)] * 2),
    st.tuples(*[st.integers(1, 60)] * 2),
    st.sets(st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 9))),
)
def test_the_tiles_of_a_rectangle_are_those_that_it_shows(level, corner, size, done):
    shown = live(np.zeros((2, 1000, 1000), np.uint8), "ZYX", 96, done)
    (top, left), (height, width) = corner, size
    touched = shown.touched(level, (1,), Box(top, left, top + height, left + width))
    ys, xs = (2**level * np.arange(a, a + n) // 96 for a, n in ((top, height), (left, width)))
    wanted = {(1, row, col) for row in range(ys[0], ys[-1] + 1) for col in range(xs[0], xs[-1] + 1)}
    assert set(touched.among(done)) == wanted & done
    assert {where for where in done if where in touched} == wanted & done


def test_a_far_level_of_millions_of_tiles_lists_only_those_that_are_done():
    class Done(set):
        asked = 0

        def __contains__(self, where):
            Done.asked += 1
            return super().__contains__(where)

    shown = live(np.zeros((600, 600), np.uint8), "YX", 64, Done({(3, 5), (2999, 7)}))
    touched = shown.touched(8, (), Box(0, 0, 782, 782))
    assert touched.among(shown.done) == [(3, 5), (2999, 7)]
    assert Done.asked == 0  # of ten million


def test_a_glance_never_reads_in_the_thread_that_looks(stack):
    gate = threading.Event()
    readers = []

    class Slow:
        shape, dtype, ndim = stack.shape, stack.dtype, 3

        def __getitem__(self, key):
            readers.append(threading.current_thread().name)
            gate.wait(20)
            return stack[key]

    slow = da.from_array(Slow(), chunks=(1, 512, 512), inline_array=True, meta=stack[:0, :0, :0])
    more = threading.Event()
    glances = Glances(LivePixels(slow, "ZYX", (128, 128), lambda where: None, set()), more.set)
    level = glances.levels[0]
    part = level[0:3, 0:700, 0:1300]  # as a viewer cuts it out first
    assert part.shape == stack.shape
    assert not readers
    assert (part[1] == 0).all()  # nothing is known yet
    gate.set()
    until(lambda: np.array_equal(part[1], stack[1]))
    assert more.is_set()
    assert set(readers) == {"demoe-glance"}
    np.testing.assert_array_equal(np.asarray(glances.levels[0]), stack)
    glances.close()


@pytest.mark.parametrize(
    ("level", "box", "rough"), [(0, Box(0, 0, 600, 600), -1), (1, Box(0, 0, 1024, 1024), 0)]
)
def test_what_is_quicker_to_read_is_read_first(level, box, rough):
    glances = Glances(live(np.zeros((2048, 2048), np.uint8), "YX", 128, set()))
    glances.close()
    glances._thread.join()  # so that nothing is read
    glances.look(level, (), box)
    assert glances._asked[rough][0] == 2


def test_who_waited_in_vain_is_not_made_to_wait_again(monkeypatch):
    glances = Glances(live(np.zeros((700, 700), np.uint8), "YX", 128, set()))
    glances.close()
    glances._thread.join()  # so that nothing is read
    waits = []
    monkeypatch.setattr(glances._ready, "wait", waits.append)
    np.asarray(glances.levels[0][:8, :8])
    count = len(waits)
    assert count > 0
    np.asarray(glances.levels[0][:8, :8])
    assert len(waits) == count


def test_a_finished_tile_shows_in_what_was_read_before(stack):
    done: set = set()
    pixels = live(stack, "ZYX", 128, done)
    glances = Glances(pixels)
    levels = glances.levels
    assert [level.shape[1:] for level in levels] == [(700, 1300), (350, 650), (175, 325)]
    until(lambda: np.array_equal(levels[0][2, :BLOCK, :BLOCK], stack[2, :BLOCK, :BLOCK]))
    until(lambda: np.array_equal(levels[2][2], stack[2, ::4, ::4]))
    done.add((2, 1, 1))
    glances.tile_done((2, 1, 1), 255 - stack[2:3, 128:256, 128:256])
    np.testing.assert_array_equal(levels[0][2, 128:256, 128:256], 255 - stack[2, 128:256, 128:256])
    np.testing.assert_array_equal(levels[2][2, 32:64, 32:64], 255 - stack[2, 128:256:4, 128:256:4])
    glances.close()


def test_what_is_far_is_shown_roughly_until_it_is_read(stack):
    glances = Glances(live(stack, "ZYX", 128, set()))
    until(lambda: np.array_equal(glances.levels[2][0], stack[0, ::4, ::4]))
    rough = glances._roughly(0, (0,), Box(0, 0, 8, 8))
    np.testing.assert_array_equal(rough[0], stack[0, :8:4, :8:4].repeat(4, 0).repeat(4, 1))
    glances.close()


def test_a_viewer_that_keeps_the_coarsest_level_sees_what_comes_later(stack):
    done: set = set()
    plane = stack[0]
    glances = Glances(live(plane, "YX", 128, done))
    kept = np.asarray(glances.levels[-1])  # does not wait
    until(lambda: np.array_equal(kept, plane[::4, ::4]))
    assert np.asarray(glances.levels[-1]) is kept
    done.add((0, 0))
    glances.tile_done((0, 0), 255 - plane[:128, :128])
    np.testing.assert_array_equal(kept[:32, :32], 255 - plane[:128:4, :128:4])
    glances.close()


def test_a_source_that_cannot_be_read_says_so_and_harms_nobody(stack):
    def broken(block_info=None):
        raise OSError("the disk is gone")

    lazy = da.map_blocks(broken, dtype=np.uint8, chunks=((700,), (1300,)), meta=stack[0, :0, :0])
    glances = Glances(LivePixels(lazy, "YX", (128, 128), lambda where: None, set()))
    assert (glances.levels[0][:100, :100] == 0).all()
    until(lambda: "the disk is gone" in glances.error)
    glances.close()


# -- runs -------------------------------------------------------------------------------------


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 60_000, (2, 150, 200), dtype=np.uint16)


RECIPE = {"tile": 64, "halo": 16, "routing": "local"}


def drain(run: LiveRun) -> None:
    while run.step():
        pass


def test_a_live_run_gives_what_the_whole_gives(image):
    out = demoe.deblur(image, "ZYX", **RECIPE)
    run = LiveRun(out, Scope("all"))
    drain(run)
    assert len(run.done) == 2 * 3 * 4
    assert run.is_complete
    np.testing.assert_array_equal(run.exact[...], out.image.compute())
    for name in ("expert_map", "gates", "confidence"):
        np.testing.assert_array_equal(getattr(run.maps, name), getattr(out, name).compute())
    for z in range(2):
        assert list(run.maps.blurs[z,]) == [blur.window for blur in out.blurs((z,))]
    run.close()


def test_what_is_looked_at_is_computed_first_and_only_that_is_known(image):
    out = demoe.deblur(image, "ZYX", **RECIPE)
    run = LiveRun(out, Scope("view"))
    run.order.look(View((1,), Box(0, 0, 60, 60)))
    drain(run)
    assert run.done == {(1, 0, 0)}
    whole = out.image.compute()
    found = run.exact[...]
    np.testing.assert_array_equal(found[1, :64, :64], whole[1, :64, :64])
    np.testing.assert_array_equal(found[0], image[0])
    assert (run.maps.expert_map[1, 0, 0] > 0) & (run.maps.expert_map[0] == 0).all()
    run.close()


def test_tiles_that_were_kept_are_finished_by_a_run_and_the_other_way_round(image, tmp_path):
    source, target = tmp_path / "in.zarr", tmp_path / "out.ome.zarr"
    zarr.save_array(str(source), image)
    out = demoe.deblur(demoe.open_image(source, "ZYX"), **RECIPE)
    run = LiveRun(out, Scope("all"), target=target)
    with pytest.raises(demoe.DemoeError, match="another"):
        demoe.run(source, target, axes="ZYX", resume=True, **RECIPE)  # while this one lives
    for _ in range(5):
        run.step()
    run.close()
    kept = LiveRun(out, Scope("all"), target=target)
    assert len(kept.done) == 5
    kept.step()
    kept.close()
    report = demoe.run(source, target, axes="ZYX", resume=True, **RECIPE)
    assert report.computed == report.tiles - 6
    np.testing.assert_array_equal(demoe.open_image(target).data, out.image.compute())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.fixture
def resting(image, tmp_path) -> tuple[LiveRun, Path, Path]:
    """Return a run that did five tiles for an output and rests, its source, and the output."""
    source, target = tmp_path / "in.zarr", tmp_path / "out.ome.zarr"
    zarr.save_array(str(source), image)
    run = LiveRun(
        demoe.deblur(demoe.open_image(source, "ZYX"), **RECIPE), Scope("all"), target=target
    )
    for _ in range(5):
        run.step()
    run.rest()
    return run, source, target


def test_who_rests_lets_others_finish_the_output_and_shows_it(resting):
    run, source, target = resting
    whole, before = run.result.image.compute(), run.exact[...]
    report = demoe.run(source, target, axes="ZYX", resume=True, **RECIPE)
    assert report.computed == report.tiles - 5
    np.testing.assert_array_equal(run.exact[...], before)
    assert len(run.done) == 5
    for z, row, col in run.done:
        tile = (z, slice(row * 64, row * 64 + 64), slice(col * 64, col * 64 + 64))
        np.testing.assert_array_equal(before[tile], whole[tile])
    with pytest.raises(demoe.DemoeError, match="exists"):
        run.step()
    run.close()


def test_who_goes_on_after_a_rest_knows_what_others_did(resting, tmp_path):
    run, _, target = resting
    other = LiveRun(run.result, Scope("all"), target=target)
    with pytest.raises(demoe.DemoeError, match="another"):
        run.step()
    for _ in range(3):
        other.step()
    other.close()
    assert run.step()
    assert len(run.done) == 9
    assert run.kept == 3
    drain(run)
    np.testing.assert_array_equal(run.exact[...], run.result.image.compute())
    run.close()


def test_who_rests_shows_the_source_where_others_dropped_the_tiles(resting, image):
    run, source, target = resting
    demoe.run(source, target, axes="ZYX", overwrite=True, **RECIPE | {"routing": "defocus"})
    np.testing.assert_array_equal(run.exact[...], image)
    assert not run.done
    assert not any(place.name.startswith(".") for place in target.parent.iterdir())
    run.close()


def test_a_tile_that_is_lost_is_computed_again(image, tmp_path):
    out = demoe.deblur(image, "ZYX", **RECIPE)
    run = LiveRun(out, Scope("all"), folder=tmp_path)
    drain(run)
    (plane,) = tmp_path.rglob("image-*/0/c/1/0/0")
    plane.unlink()
    assert (run.exact[1, :64, :64] == image[1, :64, :64]).all()  # the source, not zeros
    assert (1, 0, 0) not in run.done
    drain(run)
    np.testing.assert_array_equal(run.exact[...], out.image.compute())
    run.close()


def test_a_correction_is_shown_over_what_was_there(image):
    out = demoe.deblur(image, "ZYX", **RECIPE)
    whole = out.image.compute()
    painted = np.zeros(out.expert_map.shape, np.uint8)
    painted[1, 0, 0] = 5
    after = out.corrected(painted)
    only = {index[:1] + index[1:] for index in after.changed_from(out)}
    run = LiveRun(after, Scope("all"), under=da.from_array(whole), only=only)
    assert run.order.counts() == (0, len(only))
    np.testing.assert_array_equal(run.exact[...], whole)
    drain(run)
    np.testing.assert_array_equal(run.exact[...], after.image.compute())
    run.close()


def test_a_tile_that_nobody_wants_any_more_is_given_up_and_begun_anew(image):
    out = demoe.deblur(image, "ZYX", **RECIPE)
    run = LiveRun(out, Scope("all"))
    answers = [True] * 5
    with as_long_as(lambda: bool(answers and answers.pop())), pytest.raises(Cancelled):
        run.step()
    assert not run.done
    drain(run)
    np.testing.assert_array_equal(run.exact[...], out.image.compute())
    run.close()


def test_files_of_a_run_outlive_who_reads_them(image, monkeypatch, tmp_path):
    run = LiveRun(demoe.deblur(image, "ZYX", **RECIPE), Scope("all"), folder=tmp_path)
    run.step()
    (folder,), (where,) = tmp_path.iterdir(), run.done
    read, begun, gate = TileStore.read, threading.Event(), threading.Event()

    def slow(store, box):
        begun.set()
        gate.wait(60)
        return read(store, box)

    monkeypatch.setattr(TileStore, "read", slow)
    found = []
    reader = threading.Thread(target=lambda: found.append(run._tile(where)))
    reader.start()
    assert begun.wait(60)
    run.close()
    assert folder.is_dir()
    gate.set()
    reader.join()
    assert found[0] is not None
    assert not folder.exists()
    assert run._tile(where) is None


def test_a_run_that_is_closed_in_mid_tile_lets_go_after_it(image, monkeypatch, tmp_path):
    out = demoe.deblur(image, "ZYX", **RECIPE)
    run = LiveRun(out, Scope("all"), folder=tmp_path)
    monkeypatch.setattr(
        "demoe.live.run.compute_tile", lambda *given: run.close() or compute_tile(*given)
    )
    assert run.step()  # the tile in work is finished
    assert not list(tmp_path.iterdir())
    assert not run.step()
