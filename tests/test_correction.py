"""Corrections of the expert map: what they cost, and that they give what a full run gives."""

from __future__ import annotations

import dask
import dask.array
import numpy as np
import pytest
import tifffile

import demoe
from demoe.engine.runner import TileRunner
from demoe.io import open_image, write_image

pytestmark = pytest.mark.usefixtures("in_this_thread")

SMALL = {"tile": 64, "pitch": 16, "window": 32, "device": "cpu", "intensity": "full"}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 255, shape, np.uint8)


def background(*shape: int) -> np.ndarray:
    """Flat, but for structure in the middle."""
    image = np.full(shape, 20, np.uint8)
    image[90:150, 130:200] = noise(60, 70)
    return image


def assert_same_as_a_full_run(result, fixed, painted, pixels, computed) -> list:
    """Put the changed tiles into the earlier pixels, and compare with a run of everything.

    Returns the tiles that it took.
    """
    computed.clear()
    changed = fixed.changed_from(result)
    for index in changed:
        starts = [sum(sides[:i]) for i, sides in zip(index, fixed.image.chunks, strict=True)]
        tile = np.asarray(fixed.image.blocks[index])
        pixels[tuple(slice(s, s + n) for s, n in zip(starts, tile.shape, strict=True))] = tile
    taken = list(computed)
    assert len(taken) == len(set(taken)) == len(changed)
    full = demoe.deblur(result.source, recipe=result.recipe, expert_map=painted)
    np.testing.assert_array_equal(pixels, full.image)
    for name in ("expert_map", "gates", "confidence"):
        np.testing.assert_array_equal(getattr(fixed, name), getattr(full, name), err_msg=name)
    assert fixed.image.name == full.image.name
    assert fixed.provenance == full.provenance
    return taken


CASES = {
    "local": (noise(200, 264), "YX", {"routing": "local"}),
    "image": (noise(200, 264), "YX", {"routing": "image"}),
    "task": (noise(200, 264), "YX", {"routing": "low_light"}),
    "colour, two mixed": (noise(200, 264, 3), "YXS", {"routing": "local", "top_k": 2}),
    "preserving": (noise(200, 264), "YX", {"routing": "local", "photometry": "preserve"}),
    "wide cells": (noise(200, 264), "YX", {"routing": "local", "pitch": 32, "window": 64}),
    "tiles alone": (noise(200, 264), "YX", {"routing": "local", "pooling": "tile"}),
    "short halo": (noise(200, 264), "YX", {"routing": "local", "halo": 16}),
    "flat passed by": (background(240, 330), "YX", {"routing": "local", "skip_flat": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_correction_computes_few_tiles_and_gives_what_a_full_run_gives(
    shallow, computed, case
) -> None:
    image, axes, fields = CASES[case]
    result = demoe.deblur(image, axes, **{**SMALL, "model": shallow, **fields})
    pixels = np.array(result.image)
    np.asarray(result.expert_map)
    total = len(computed)
    assert total == np.prod(result.plan.shape) >= 12
    # Two regions: one cell in a corner, and some in the middle of another tile.
    first = np.zeros(result.expert_map.shape, np.uint8)
    first[0, 0] = 1
    first[-7:-5, -10:-8] = 3
    fixed = result.corrected(first)
    few = assert_same_as_a_full_run(result, fixed, first, pixels, computed)
    assert 0 < len(few) < 0.8 * total
    # A correction of the correction: one region is taken back, and the other gets another expert.
    second = np.where(first == 3, 5, 0).astype(np.uint8)
    again = fixed.corrected(second)
    assert_same_as_a_full_run(fixed, again, second, pixels, computed)
    # All taken back: the first result, bit for bit.
    assert_same_as_a_full_run(again, again.corrected(0 * first), 0 * first, pixels, computed)
    np.testing.assert_array_equal(pixels, result.image)


@pytest.mark.parametrize("routing", ["image", "defocus"])
def test_one_decision_is_followed_to_the_last_bit_far_from_what_is_painted(root, routing) -> None:
    # With paint on a plane, all experts are surveyed, and not the one alone that works elsewhere.
    model = root / "tests" / "data" / "demoe_w4.safetensors"
    image = noise(64, 460) / np.float32(255)
    result = demoe.deblur(image, model=model, tile=64, device="cpu", routing=routing, psf=None)
    painted = np.zeros(result.expert_map.shape, np.uint8)
    painted[:, 5:] = 3
    fixed = result.corrected(painted)
    assert (0, 0) not in fixed.changed_from(result)
    full = demoe.deblur(result.source, recipe=result.recipe, expert_map=painted)
    np.testing.assert_array_equal(result.image.blocks[0, 0], full.image.blocks[0, 0])


@pytest.mark.parametrize("size", [(60, 60), (130, 70)])
@pytest.mark.parametrize("routing", ["local", "image"])
def test_other_planes_of_a_stack_are_left_alone(shallow, computed, size, routing) -> None:
    image = np.moveaxis(noise(3, *size, 2), 0, 2)  # Y, X, T, Z: plane axes last
    result = demoe.deblur(image, "YXTZ", **{**SMALL, "model": shallow, "routing": routing})
    pixels = np.array(result.image)
    painted = np.zeros(result.expert_map.shape, np.uint8)
    painted[1, 0, 1, 1] = 4  # T 1, Z 0
    few = assert_same_as_a_full_run(result, result.corrected(painted), painted, pixels, computed)
    assert {plane for plane, _, _ in few} == {(1, 0, 0)}


def test_nothing_new_costs_nothing(shallow, computed) -> None:
    image = noise(200, 200)
    painted = np.zeros((13, 13), int)
    painted[3, 4] = 2
    result = demoe.deblur(image, expert_map=painted, **SMALL, model=shallow)
    assert result.corrected(painted).changed_from(result) == []
    assert result.corrected(painted.repeat(2, 0)).changed_from(result) == []  # finer, but the same
    other = demoe.deblur(image, **{**SMALL, "tile": 128}, model=shallow)
    with pytest.raises(demoe.RecipeError, match="corrected"):
        other.changed_from(result)
    with pytest.raises(demoe.ImageError, match="from 0 to 7"):
        result.corrected(painted * 0 + np.eye(13, dtype=int) * 7)
    assert computed == []


def test_what_is_known_of_the_plane_is_not_found_out_again(shallow, monkeypatch) -> None:
    result = demoe.deblur(noise(200, 200), **SMALL, model=shallow, routing="local")
    np.asarray(result.image)
    monkeypatch.setattr(TileRunner, "route_windows", None)
    monkeypatch.setattr(TileRunner, "survey", None)
    painted = np.zeros((13, 13), int)
    painted[3, 4] = 2
    fixed = result.corrected(painted)
    np.asarray(fixed.image)
    assert np.asarray(fixed.expert_map)[3, 4] == 2


def test_cells_that_failed_stay_so_until_their_tile_is_done_again(shallow) -> None:
    result = demoe.deblur(noise(200, 200), **SMALL, model=shallow)
    np.asarray(result.image)
    result.work.memory.failed_in((0, 0, 0)).update({(0, 0), (12, 12)})
    painted = np.zeros((13, 13), int)
    painted[12, 11] = 2
    fixed = np.asarray(result.corrected(painted).expert_map)
    assert fixed[0, 0] == 0
    assert fixed[12, 12] > 0


# -- confidence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("routing", ["local", "image", "defocus"])
def test_confidence_leads_where_there_is_something_to_decide(shallow, routing) -> None:
    image = background(240, 330)
    painted = np.zeros((15, 21), int)
    painted[0, 0], painted[7, 10] = 2, 3
    fields = {**SMALL, "model": shallow, "routing": routing, "pitch": 16}
    out = demoe.deblur(image, expert_map=painted, **fields)
    assert (out.confidence.shape, out.confidence.dtype) == ((15, 21), np.float32)
    found = np.asarray(out.confidence)
    assert found[0, 0] == found[7, 10] == 1
    ordered = np.sort(np.asarray(out.gates), axis=0)
    if routing == "defocus":
        assert (found == 1).all()  # a person named it for all of the image
        return
    assert found[1:3].max() == found[13:].max() == 0  # nothing to decide
    inside = (slice(6, 9), slice(9, 12))
    np.testing.assert_allclose(found[inside], (ordered[-1] - ordered[-2])[inside], atol=1e-6)
    assert found[6, 9] > 0


def test_confidence_is_computed_where_it_is_asked_for(shallow) -> None:
    read = set()

    def block(block_info=None):
        at = block_info[None]["chunk-location"]
        read.add(at)
        return np.random.default_rng(at).integers(0, 255, (1, 1000, 1000), np.uint8)

    chunks = ((1,) * 4, (1000,) * 5, (1000,) * 5)
    image = dask.array.map_blocks(block, chunks=chunks, dtype=np.uint8)
    out = demoe.deblur(image, "ZYX", **SMALL, model=shallow, routing="local")
    assert out.confidence.shape == (4, 313, 313)
    assert np.asarray(out.confidence[2, :60, :60]).shape == (60, 60)
    assert {at[0] for at in read} == {2}
    # But for the samples that stand for the plane, nothing away from the corner.
    assert not {(2, 1, 3), (2, 3, 1), (2, 3, 3)} & read


# -- maps from files -------------------------------------------------------------------------------


def test_a_map_from_a_file_lies_where_its_pixel_size_puts_it(shallow, tmp_path) -> None:
    scale, units = {"Y": 0.5, "X": 0.25}, {"Y": "um", "X": "um"}
    image = demoe.LazyImage.from_array(noise(2, 100, 200), "ZYX", scale=scale, units=units)
    # Ten pixels a value; the map ends at row 50.
    values = np.zeros((5, 20), np.uint8)
    values[:, 10:] = 4
    ten = {letter: 10 * step for letter, step in scale.items()}
    write_image(
        tmp_path / "map.ome.tif", demoe.LazyImage.from_array(values, scale=ten, units=units)
    )
    fields = {**SMALL, "model": shallow}
    for given in (tmp_path / "map.ome.tif", open_image(tmp_path / "map.ome.tif")):
        painted = demoe.deblur(image, expert_map=given, **fields).work.painted
        assert (painted.cells[:3, 6:] == 4).all()
        assert painted.cells[3:].max() == painted.cells[:, :6].max() == 0
    # Without a size, or in another unit, it covers the image.
    tifffile.imwrite(tmp_path / "plain.tif", values)
    painted = demoe.deblur(image, expert_map=tmp_path / "plain.tif", **fields).work.painted
    assert (painted.cells[:, 7:] == 4).all()
    # In the file's own order of axes.
    stack = np.stack([values, 0 * values], axis=-1)
    turned = demoe.LazyImage.from_array(stack, "YXZ", scale=ten, units=units)
    painted = demoe.deblur(image, expert_map=turned, **fields).work.painted
    assert painted.cells.shape == (2, 7, 13)
    assert painted.marked.tolist() == [True, False]


def test_the_map_of_a_run_serves_runs_with_other_cells(shallow, tmp_path) -> None:
    image = noise(100, 200)
    fields = {**SMALL, "model": shallow, "window": 64}
    demoe.run(image, tmp_path / "first.tif", **{**fields, "pitch": 32, "routing": "local"})
    experts = demoe.open_image(tmp_path / "first.experts.tif")
    out = demoe.deblur(image, expert_map=experts, **fields)
    wide = np.asarray(experts.data).repeat(2, 0).repeat(2, 1)[:7, :13]
    np.testing.assert_array_equal(out.expert_map, wide)


def test_a_map_that_is_no_file_is_told(shallow, tmp_path) -> None:
    with pytest.raises(demoe.ImageError, match=r"no file or folder .*nothing\.tif"):
        demoe.deblur(noise(64, 64), expert_map=tmp_path / "nothing.tif", **SMALL, model=shallow)
