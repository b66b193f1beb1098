"""The lazy layer: what a deblurred image is, and what it depends on: image, recipe and weights."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import tifffile
import torch
import zarr
from tiny import CONFIG, tiny_network, tiny_weights

import demoe
from demoe.errors import AxesError, DeviceError, ImageError, RecipeError, WeightsError
from demoe.lazy import Deblurred
from demoe.model.checkpoint import write_weights
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.network import DeMoENet
from demoe.model.mixing import keep_top
from demoe.routing.gates import expert_map

# Two levels: a halo of 24 pixels on a grid of 4 keeps tiles small and yet exact.
pytestmark = pytest.mark.usefixtures("in_this_thread")

SHALLOW = NetworkConfig(4, (1, 1), 1, (1, 1), 5, 16, 8)
SMALL = {"tile": 64, "pitch": 16, "window": 32, "device": "cpu"}


def decisive_network() -> DeMoENet:
    """Return a shallow network whose router changes its mind within `picture`."""
    network = tiny_network(config=SHALLOW)
    x = torch.from_numpy(picture(160, 240)).expand(1, 3, -1, -1)
    windows = x.unfold(2, 32, 16).unfold(3, 32, 16).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    gates = network.mlp_branch(network.encode(windows)[0])
    last = network.mlp_branch.classifier[-1]
    last.bias -= gates.log().mean(dim=0)
    last.weight *= 30
    last.bias *= 30
    return network


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shallow") / "tiny.safetensors"
    write_weights(path, decisive_network().state_dict(), {})
    return path


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with pooling held fixed, so that nothing but the reach counts."""
    network = decisive_network()
    for module in network.modules():
        if hasattr(module, "sca"):
            module.sca[1].weight.zero_()
            module.sca[1].bias.fill_(0.7)
    path = tmp_path_factory.mktemp("held") / "tiny.safetensors"
    write_weights(path, network.state_dict(), {})
    return path


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """Noise whose strength changes over the picture, so that places want different experts."""
    rng = np.random.default_rng(seed)
    last = np.linspace(0, 1, shape[-1])
    return (rng.random(shape) * last + 0.3 * (1 - last)).astype(np.float32)


def as_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    return (values * (np.iinfo(kind).max if kind.kind in "ui" else 1)).astype(kind)


def assert_same(found: Any, wanted: Any) -> None:
    """Compare bit by bit, and say where it differs."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    differs = np.argwhere(found != wanted)
    assert not len(differs), (
        f"{len(differs)} of {found.size} values differ, "
        f"between {differs.min(axis=0)} and {differs.max(axis=0)}"
    )


# -- shape, type, axes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("YX", (70, 90)),
        ("XY", (90, 70)),
        ("YXS", (70, 50, 3)),
        ("YXS", (50, 70, 4)),
        ("XYS", (70, 50, 3)),
        ("ZYX", (2, 33, 70)),
        ("YXZ", (33, 70, 2)),
        ("CZYX", (2, 2, 20, 70)),
        ("TCZYX", (2, 1, 2, 20, 30)),
        ("CXZTY", (2, 20, 2, 1, 70)),
        ("ZTCYXS", (1, 2, 1, 20, 30, 3)),
    ],
)
def test_every_order_of_axes_means_the_same_planes(shallow: Path, axes: str, shape) -> None:
    image = as_dtype(picture(*shape), "uint8")
    fields = {**SMALL, "model": shallow, "routing": "local"}
    out = demoe.deblur(image, axes, **fields)
    length = dict(zip(axes, shape, strict=True))
    along = [letter for letter in axes if letter not in "YXS"]
    planes = tuple(length[letter] for letter in along)
    cells = tuple(-(-length[letter] // 16) for letter in "YX")
    assert (out.image.shape, out.image.dtype) == (shape, np.uint8)
    assert (out.expert_map.shape, out.expert_map.dtype) == ((*planes, *cells), np.uint8)
    assert (out.gates.shape, out.gates.dtype) == ((*planes, 5, *cells), np.float32)
    assert (out.pitch, out.source.axes) == ((16, 16), axes)
    assert out.as_image().axes == axes
    restored, experts, gates = (np.asarray(a) for a in (out.image, out.expert_map, out.gates))
    assert (restored.shape, restored.dtype) == (shape, np.uint8)
    assert (experts.dtype, gates.dtype) == (np.uint8, np.float32)
    np.testing.assert_allclose(gates.sum(axis=-3), 1, atol=1e-5)
    assert_same(experts, expert_map(gates))
    # Each plane is what it would be as an image of its own.
    for index in itertools.product(*map(range, planes)):
        place = dict(zip(along, index, strict=True))
        pick = tuple(place.get(letter, slice(None)) for letter in axes)
        alone = demoe.deblur(image[pick], "".join(a for a in axes if a in "YXS"), **fields)
        assert_same(restored[pick], alone.image)
        assert_same(gates[index], alone.gates)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_every_type_is_kept_and_scaled_alike(shallow: Path, dtype: str) -> None:
    fields = {**SMALL, "model": shallow, "routing": "defocus", "precision": "full"}
    image = as_dtype(picture(40, 70), dtype)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else 1.0
    values = (image / top).astype(np.float32)
    out = demoe.deblur(image, intensity=(0, top), **fields)
    restored = np.asarray(out.image)
    assert restored.dtype == out.image.dtype == np.dtype(dtype)
    wanted = np.asarray(demoe.deblur(values, intensity=(0, 1), **fields).image)
    if np.dtype(dtype).kind == "u":
        wanted = wanted.clip(0, 1)
    elif np.dtype(dtype).kind == "i":
        wanted = wanted.clip(-1, 1)
    step = 0.51 / top if np.dtype(dtype).kind in "ui" else 0
    np.testing.assert_allclose(restored / top, wanted, atol=step + 1e-5)


def test_integers_are_clipped_and_never_wrap(tmp_path: Path, shallow: Path) -> None:
    state = tiny_network(config=SHALLOW).state_dict()
    for change, extreme in ((2.0, 255), (-2.0, 0)):
        path = tmp_path / f"{extreme}.safetensors"
        write_weights(path, {**state, "ending.bias": torch.full((3,), change)}, {})
        out = demoe.deblur(np.full((20, 20), 128, np.uint8), model=path, device="cpu")
        assert (np.asarray(out.image) == extreme).all()


def test_alpha_passes_by_untouched(shallow: Path) -> None:
    image = as_dtype(picture(30, 90, 4), "uint8")
    fields = {**SMALL, "model": shallow, "routing": "local"}
    restored = np.asarray(demoe.deblur(image, **fields).image)
    assert_same(restored[..., 3], image[..., 3])
    assert_same(restored[..., :3], demoe.deblur(image[..., :3], "YXS", **fields).image)
    assert (restored[..., :3] != image[..., :3]).any()


# -- the same as the network -----------------------------------------------------------------------


@pytest.mark.parametrize("routing", ["image", "low_light"])
@pytest.mark.parametrize("top_k", [1, 3])
def test_an_image_of_one_tile_is_what_the_network_gives(weights: Path, routing, top_k) -> None:
    image = picture(50, 83, 3)
    out = demoe.deblur(
        image, "YXS", model=weights, routing=routing, top_k=top_k, intensity="full", device="cpu"
    )
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    network = tiny_network()
    network.top_k = top_k
    gates = None
    if routing in demoe.TASKS:
        gates = torch.eye(5)[[demoe.TASKS.index(routing)]]
    restored, used = network(x, gates)
    assert out.plan.shape == (1, 1)
    np.testing.assert_allclose(out.image, restored[0].permute(1, 2, 0), atol=1e-6)
    cell = np.asarray(out.gates)
    np.testing.assert_allclose(cell[:, 0, 0], used[0], atol=1e-6)
    assert (cell == cell[:, :1, :1]).all()
    # Gray goes in as three equal samples.
    gray = demoe.deblur(
        image[..., 0], model=weights, routing=routing, top_k=top_k, intensity="full", device="cpu"
    )
    same, _ = network(x[:, :1].expand(-1, 3, -1, -1), gates)
    np.testing.assert_allclose(gray.image, same[0].mean(0), atol=1e-6)


def test_tiles_meet_as_if_there_were_one(held: Path) -> None:
    # Pooling is over what a tile reads; with it held fixed, tiles are exact.
    image = picture(150, 210)
    painted = np.random.default_rng(5).integers(1, 6, (10, 14))
    for preserve in ("model", "preserve"):
        fields = {**SMALL, "model": held, "routing": painted, "photometry": preserve}
        fields["intensity"] = "full"
        tiled = demoe.deblur(image, **fields)
        whole = demoe.deblur(image, **{**fields, "tile": 256})
        assert math.prod(tiled.plan.shape) == 12
        assert whole.plan.shape == (1, 1)
        np.testing.assert_allclose(tiled.image, np.asarray(whole.image), atol=2e-6)
    # Without the halo they do not.
    short = demoe.deblur(image, halo=0, **fields)
    assert np.abs(np.asarray(short.image) - np.asarray(whole.image)).max() > 1e-3


# -- what must not count ---------------------------------------------------------------------------


@pytest.mark.parametrize("routing", ["local", "image"])
def test_neither_chunks_nor_order_nor_view_count(shallow: Path, routing: str) -> None:
    image = as_dtype(picture(2, 100, 150), "uint16")
    fields = {**SMALL, "model": shallow, "routing": routing, "intensity": "percentile"}

    def lazy(chunks: Any) -> Deblurred:
        return demoe.deblur(da.from_array(image, chunks=chunks), "ZYX", **fields)

    wanted = lazy((2, 100, 150))
    restored, experts = np.asarray(wanted.image), np.asarray(wanted.expert_map)
    assert len(np.unique(experts)) > 1 or routing == "image"
    for chunks in ((1, 7, 150), (2, 64, 33)):
        out = lazy(chunks)
        assert_same(out.image, restored)
        assert_same(out.expert_map, experts)
    # Tiles one by one, backwards, none of them with what an earlier one has found out.
    blocks = [*itertools.product(*map(range, wanted.image.numblocks))]
    assert len(blocks) == 2 * 2 * 3
    for index in reversed(blocks[::3]):
        start = [sum(c[:i]) for i, c in zip(index, wanted.image.chunks, strict=True)]
        block = np.asarray(lazy((1, 50, 50)).image.blocks[index])
        place = tuple(slice(s, s + n) for s, n in zip(start, block.shape, strict=True))
        assert_same(block, restored[place])
    assert_same(lazy((2, 100, 150)).image[1, 40:90, 60:70], restored[1, 40:90, 60:70])
    assert_same(lazy((2, 100, 150)).image.compute(scheduler="threads"), restored)


def test_expert_maps_do_not_depend_on_tiles(shallow: Path) -> None:
    image = picture(150, 200)
    fields = {**SMALL, "model": shallow, "routing": "local"}
    maps = [demoe.deblur(image, **{**fields, "tile": tile}) for tile in (64, 128, 768)]
    assert len({out.plan.shape for out in maps}) == 3
    for out in maps[1:]:
        assert_same(out.gates, maps[0].gates)
        assert_same(out.expert_map, maps[0].expert_map)
    assert len(np.unique(np.asarray(maps[0].expert_map))) > 1
    # Computed before or after the pixels.
    first = demoe.deblur(image, **fields)
    np.asarray(first.image)
    assert_same(first.gates, maps[0].gates)


def test_names_say_what_a_result_depends_on(shallow: Path, weights: Path, tmp_path: Path) -> None:
    image = picture(40, 50)

    def names(image: Any = image, **changes: Any) -> set[str]:
        out = demoe.deblur(image, **({**SMALL, "model": shallow} | changes))
        return {out.image.name, out.gates.name, out.expert_map.name}

    same = names()
    assert len(same) == 3
    assert names() == same
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(shallow.read_bytes())
    assert names(model=copied) == same  # the content of weights counts, not their place
    assert names(device="auto") == same
    others = [
        names(image=image + 1),
        names(image=image[:, ::-1]),
        names(axes="XY"),
        names(model=weights),
        *(
            names(**{field: value})
            for field, value in {
                "routing": "defocus",
                "top_k": 2,
                "tile": 128,
                "halo": 64,
                "pitch": 32,
                "window": 64,
                "intensity": "full",
                "photometry": "preserve",
                "expert_map": np.ones((1, 1), int),
            }.items()
        ),
        names(expert_map=np.full((1, 1), 2)),
    ]
    for one, other in itertools.combinations([same, *others], 2):
        assert not one & other


# -- experts by place ------------------------------------------------------------------------------


def test_painted_places_are_forced_and_others_left(held: Path) -> None:
    image = picture(96, 160)
    fields = {**SMALL, "model": held, "routing": "local"}
    free = demoe.deblur(image, **fields)
    painted = np.zeros((96, 160), np.int32)
    painted[:, 96:] = 2
    out = demoe.deblur(image, expert_map=painted, **fields)
    assert_same(out.gates[:, :, :6], free.gates[:, :, :6])
    experts = np.asarray(out.expert_map)
    assert (experts[:, 6:] == 2).all()
    assert (np.asarray(out.gates)[1, :, 6:] == 1).all()
    # Beyond the network's reach from where both meet, pixels are those of either.
    only = demoe.deblur(image, **{**fields, "routing": "global_motion"})
    np.testing.assert_allclose(out.image[:, 130:], np.asarray(only.image)[:, 130:], atol=2e-6)
    np.testing.assert_allclose(out.image[:, :60], np.asarray(free.image)[:, :60], atol=2e-6)
    assert np.abs(np.asarray(out.image) - np.asarray(free.image))[:, 130:].max() > 1e-3
    # The same map at other resolutions, as routing, and for the router of whole planes.
    assert_same(demoe.deblur(image, expert_map=painted[::16, ::16], **fields).gates, out.gates)
    whole = demoe.deblur(image, **{**fields, "routing": "image"})
    mixed = demoe.deblur(image, **{**fields, "routing": "image"}, expert_map=painted)
    assert_same(mixed.gates[:, :, :6], whole.gates[:, :, :6])
    assert (np.asarray(mixed.expert_map)[:, 6:] == 2).all()
    as_routing = demoe.deblur(image, **{**fields, "routing": painted})
    assert (np.asarray(as_routing.expert_map)[:, 6:] == 2).all()


def test_the_expert_map_of_a_result_can_be_painted_and_given_back(shallow: Path) -> None:
    image = picture(2, 70, 100)
    fields = {**SMALL, "model": shallow}
    experts = np.asarray(demoe.deblur(image, "ZYX", routing="local", **fields).expert_map)
    experts[1, 0] = 5
    again = demoe.deblur(image, "ZYX", routing=experts, **fields)
    assert_same(again.expert_map, experts)
    turned = demoe.deblur(np.moveaxis(image, 0, 2), "YXZ", routing=experts, **fields)
    assert_same(turned.expert_map, experts)
    assert_same(turned.image, np.moveaxis(np.asarray(again.image), 0, 2))


def test_maps_that_do_not_fit_are_refused(shallow: Path) -> None:
    image, fields = picture(2, 40, 50), {**SMALL, "model": shallow, "axes": "ZYX"}
    with pytest.raises(AxesError, match=r"\(3,\) planes"):
        demoe.deblur(image, expert_map=np.zeros((3, 4, 4), int), **fields)
    with pytest.raises(ImageError, match="integers"):
        demoe.deblur(image, routing=np.zeros((4, 4)), **fields)
    with pytest.raises(RecipeError, match="not both"):
        demoe.deblur(
            image, routing=np.zeros((4, 4), int), expert_map=np.zeros((4, 4), int), **fields
        )


def test_more_experts_are_mixed_where_asked(shallow: Path) -> None:
    image = picture(40, 60)
    fields = {**SMALL, "model": shallow, "routing": "local"}
    results = [demoe.deblur(image, top_k=k, **fields) for k in (1, 2, 5)]
    for one, other in itertools.pairwise(results):
        assert_same(one.gates, other.gates)  # the router's opinion, before any is dropped
        assert np.abs(np.asarray(one.image) - np.asarray(other.image)).max() > 1e-5


def test_automatic_routing_follows_the_size(shallow: Path) -> None:
    fields = {**SMALL, "model": shallow, "routing": "auto"}
    assert demoe.deblur(picture(64, 64), **fields).provenance["routing"] == "image"
    assert demoe.deblur(picture(20, 65), **fields).provenance["routing"] == "local"


def test_one_decision_for_a_plane_of_many_tiles(shallow: Path) -> None:
    out = demoe.deblur(picture(300, 400), **{**SMALL, "model": shallow, "routing": "image"})
    gates = np.asarray(out.gates)
    assert math.prod(out.plan.shape) > 1
    assert (gates == gates[:, :1, :1]).all()
    kept = keep_top(torch.from_numpy(gates[None, :, 0, 0]), 1).numpy()[0]
    manual = demoe.TASKS[int(kept.argmax())]
    same = demoe.deblur(picture(300, 400), **{**SMALL, "model": shallow, "routing": manual})
    assert_same(out.image, same.image)


def test_brightness_can_be_preserved(tmp_path: Path) -> None:
    state = tiny_network(config=SHALLOW).state_dict()
    path = tmp_path / "brightens.safetensors"
    write_weights(path, {**state, "ending.bias": torch.full((3,), 0.2)}, {})
    image = (0.3 + 0.4 * picture(130, 200)).astype(np.float32)
    fields = {**SMALL, "model": path, "routing": "defocus", "intensity": "full"}
    plain = np.asarray(demoe.deblur(image, **fields).image)
    kept = np.asarray(demoe.deblur(image, photometry="preserve", **fields).image)
    assert plain.mean() > image.mean() + 0.1
    for rows, cols in itertools.product((slice(0, 65), slice(65, 130)), repeat=2):
        assert abs(kept[rows, cols].mean() - image[rows, cols].mean()) < 0.01


# -- what it costs ---------------------------------------------------------------------------------


class Counting:
    """An array that is made up where it is read, and keeps account of that."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.uint16), len(shape)
        self.reads, self.pixels = 0, 0

    def __getitem__(self, index: Any) -> np.ndarray:
        block = np.broadcast_to(np.uint16(1000), self.shape)[index].copy()
        self.reads += 1
        self.pixels += block.size
        return block


@pytest.mark.parametrize("axes", ["YX", "TYX", "XTY"])
def test_a_huge_image_costs_what_is_looked_at(shallow: Path, axes: str) -> None:
    length = {"Y": 10**6, "X": 10**6, "T": 1000}
    source = Counting(*(length[letter] for letter in axes))
    chunk = {"Y": 500, "X": 500, "T": 1}
    lazy = da.from_array(
        source,
        chunks=tuple(chunk[letter] for letter in axes),
        name="counting",
        inline_array=True,
        meta=np.empty((0,) * len(axes), np.uint16),
    )
    fields = {**SMALL, "model": shallow, "routing": "local", "intensity": (0, 60000)}
    out = demoe.deblur(lazy, axes, **fields)
    assert math.prod(out.image.numblocks) >= 15_000**2
    # One symbolic layer over nothing: none that lists tiles or blocks of the source.
    for array in (out.image, out.gates, out.expert_map):
        layers = array.dask.layers
        assert list(layers) == [array.name]
        assert type(layers[array.name]).__name__ == "Blockwise"
        assert len(cloudpickle.dumps(layers[array.name])) < 200_000
    assert source.reads == 0
    place = {"Y": slice(500_000, 500_010), "X": slice(3, 9), "T": slice(700, 701)}
    region = out.image[tuple(place[letter] for letter in axes)]
    assert region.compute().shape == tuple(
        place[letter].stop - place[letter].start for letter in axes
    )
    # A tile with its halo and the blocks in which its cells are decided, in whole chunks.
    assert 0 < source.pixels < 12_000_000


def test_the_intensity_sample_is_read_once(shallow: Path) -> None:
    source = Counting(200, 300)
    lazy = da.from_array(source, chunks=300, name="once", meta=np.empty((0, 0), np.uint16))
    out = demoe.deblur(lazy, **{**SMALL, "model": shallow, "routing": "defocus"})
    tiles = math.prod(out.plan.shape)
    np.asarray(out.image)
    # Two blocks of 256 pixels are the sample, and the plane as a whole is surveyed once.
    assert source.reads <= tiles + 3


# -- other processes -------------------------------------------------------------------------------


def test_graphs_travel_and_give_the_same_pixels(shallow: Path) -> None:
    image = as_dtype(picture(2, 100, 90), "uint16")
    out = demoe.deblur(
        image, "ZYX", expert_map=np.eye(3, dtype=int), **SMALL, model=shallow, routing="local"
    )
    wanted = [np.asarray(a) for a in (out.image, out.gates, out.expert_map)]
    for copy in (
        cloudpickle.loads(cloudpickle.dumps((out.image, out.gates, out.expert_map))),
        pickle.loads(pickle.dumps((out.image, out.gates, out.expert_map))),
    ):
        for lazy, found in zip(copy, wanted, strict=True):
            assert_same(lazy, found)


def test_copies_in_one_process_share_what_they_found_out(shallow: Path, monkeypatch) -> None:
    # On a cluster every task unpickles a copy of its own.
    out = demoe.deblur(picture(130, 130), **SMALL, model=shallow, routing="image")
    asked: list[int] = []
    survey = demoe.engine.runner.TileRunner.survey

    def counted(*arguments: Any, **named: Any) -> Any:
        asked.append(1)
        return survey(*arguments, **named)

    monkeypatch.setattr("demoe.engine.runner.TileRunner.survey", counted)
    packed = cloudpickle.dumps(out.image)
    for index in itertools.product(*map(range, out.image.numblocks)):
        cloudpickle.loads(packed).blocks[index].compute()
    assert math.prod(out.image.numblocks) == 9
    assert len(asked) == 1  # once a plane, and not once a tile


# -- sources and sizes -----------------------------------------------------------------------------


def test_paths_arrays_and_lazy_images_are_alike(shallow: Path, tmp_path: Path) -> None:
    image = as_dtype(picture(40, 70), "uint8")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, metadata={"axes": "YX"})
    stored = zarr.array(image, chunks=(16, 32))
    fields = {**SMALL, "model": shallow, "routing": "local"}
    wanted = np.asarray(demoe.deblur(image, **fields).image)
    for source in (
        path,
        str(path),
        stored,
        da.from_array(image, chunks=11),
        image.tolist(),
        demoe.open_image(path),
    ):
        out = demoe.deblur(source, **fields)
        found = np.asarray(out.image)
        if isinstance(source, list):  # another type, and so another scale
            assert found.shape == wanted.shape
        else:
            assert_same(found, wanted)
    out = demoe.deblur(path, **fields)
    assert out.provenance["source"]["path"] == str(path)
    assert out.source.name == "a"


def test_a_model_stands_for_its_path(shallow: Path) -> None:
    image = picture(20, 30)
    model = demoe.load_model(shallow, "cpu")
    out = demoe.deblur(image, model=model)
    assert out.recipe.model == str(shallow)
    assert_same(out.image, demoe.deblur(image, model=shallow, device="cpu").image)


def test_a_recipe_and_fields_that_win_over_it(shallow: Path) -> None:
    recipe = demoe.Recipe(model=str(shallow), routing="local", top_k=2, device="cpu")
    out = demoe.deblur(picture(20, 30), recipe=recipe, top_k=3)
    assert out.recipe == recipe.replace(top_k=3)
    assert out.provenance["recipe"]["top_k"] == 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (3, 200), (17, 5)])
@pytest.mark.parametrize("routing", ["image", "local", "low_light"])
def test_the_smallest_images(weights: Path, shape: tuple[int, int], routing: str) -> None:
    image = as_dtype(picture(*shape), "uint8")
    out = demoe.deblur(image, "YX", model=weights, routing=routing, tile=64, device="cpu")
    restored = np.asarray(out.image)
    assert (restored.shape, restored.dtype) == (shape, np.uint8)
    assert np.asarray(out.expert_map).shape == tuple(-(-n // 64) for n in shape)
    np.testing.assert_allclose(np.asarray(out.gates).sum(axis=0), 1, atol=1e-5)


def test_constant_images_are_computed_without_a_span(shallow: Path) -> None:
    for value in (0, 7, 255):
        out = demoe.deblur(np.full((20, 30), value, np.uint16), model=shallow, device="cpu")
        assert np.asarray(out.image).shape == (20, 30)


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("routing", ["local", "defocus"])
def test_values_that_are_not_finite_are_placed(shallow: Path, value: float, routing: str) -> None:
    image = picture(2, 100, 150)
    image[1, 77, 140] = value
    out = demoe.deblur(image, "ZYX", **SMALL, model=shallow, routing=routing)
    with pytest.raises(ImageError, match=r"row 77, column 140 of plane T, C, Z = \(0, 0, 1\)"):
        out.image[1].compute()
    assert np.isfinite(np.asarray(out.image[0])).all()


def failing(**fields: Any) -> Callable[[], Any]:
    return lambda: demoe.deblur(np.zeros((20, 20), np.uint8), **fields)


def test_what_cannot_be_used_is_refused_at_once(shallow: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.safetensors"
    text.write_text("not weights")
    for make, error, words in (
        (failing(model=tmp_path / "absent.pt"), WeightsError, "absent.pt"),
        (failing(model="no-such-name"), WeightsError, "no-such-name"),
        (failing(model=text), WeightsError, "notes"),
        (failing(model=3), RecipeError, "model"),
        (failing(model=shallow, device="cuda:99"), DeviceError, "cuda:99"),
        (failing(model=shallow, device="gpu"), RecipeError, "gpu"),
        (failing(model=shallow, axes="ZYX"), AxesError, "ZYX"),
        (failing(model=shallow, routing="blur"), RecipeError, "blur"),
        (failing(model=shallow, tiles=64), RecipeError, "tiles"),
        (lambda: demoe.deblur(tmp_path / "absent.tif", model=shallow), ImageError, "absent"),
        (lambda: demoe.deblur(np.zeros((4, 4), complex), model=shallow), ImageError, "complex"),
        (lambda: demoe.deblur(np.zeros((0, 4)), model=shallow), ImageError, "0 x 4"),
    ):
        with pytest.raises(error, match=words) as caught:
            make()
        assert str(caught.value).endswith(".")


def test_settings_must_fit_the_grid_of_the_network(tmp_path: Path) -> None:
    deep = NetworkConfig(1, (0,) * 5, 0, (0,) * 5, 5, 4, 4)  # a grid of 32 pixels
    path = tiny_weights(tmp_path / "deep.safetensors", config=deep)
    for field, value in (("tile", 80), ("halo", 16), ("pitch", 16), ("window", 48)):
        fields = {"pitch": 16} if field == "window" else {}
        with pytest.raises(RecipeError, match="must be a multiple of 32 pixels"):
            failing(model=path, device="cpu", **{**fields, field: value})()
    out = demoe.deblur(picture(100, 130), model=path, device="cpu", tile=64, halo=32)
    assert np.isfinite(np.asarray(out.image)).all()


def test_provenance_says_how_it_was_made(shallow: Path) -> None:
    out = demoe.deblur(picture(100, 130), **SMALL, model=shallow, top_k=2)
    record = out.provenance
    assert record["weights"]["sha256"] == demoe.load_model(shallow, "cpu").sha256
    assert record["weights"]["network"] == SHALLOW.to_dict() != CONFIG.to_dict()
    assert record["recipe"]["top_k"] == 2
    assert record["tiles"]["grid"] == [2, 3]
    assert record["source"]["shape"] == [100, 130]
    assert record["software"]["napari-demoe"] == demoe.__version__
