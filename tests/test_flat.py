"""Flat cells: noise is flat, whatever blur could have left behind is not, and nothing else counts.

Noise has a standard deviation of 1 in these tests where nothing else is said.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import demoe
from demoe.engine.flat import MARGIN, active_boxes, active_parts, flat_cells, flat_read
from demoe.image.intensity import resolve_intensity
from demoe.image.lazy_image import LazyImage
from demoe.plan.tiling import Box, TilePlan
from demoe.samples.blur import convolve, disc_kernel, gaussian_kernel
from demoe.samples.images import load_sample, sample_names

PITCH = 64


def flat_in(
    values: np.ndarray, *, step: float = 0, pitch: int = PITCH, noise_limit: float = np.inf
) -> np.ndarray:
    """Ask about all cells of a plane (Y, X) or (Y, X, S)."""
    height, width = values.shape[:2]
    return flat_cells(
        values.reshape(height, width, -1).astype(np.float32),
        Box(0, 0, height, width),
        range(-(-height // pitch)),
        range(-(-width // pitch)),
        pitch=pitch,
        size=(height, width),
        step=step,
        noise_limit=noise_limit,
    )


def flat_in_image(pixels: np.ndarray, axes: str) -> np.ndarray:
    """Ask about all cells of an image of integers in its automatic scale."""
    scale = resolve_intensity(LazyImage.from_array(pixels, axes), "auto")
    return flat_in(scale.normalise(pixels), step=1 / (scale.high - scale.low))


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape)


def blob(sigma: float, side: int = 320) -> np.ndarray:
    """A Gaussian of height 1 in the middle of a plane."""
    y, x = np.mgrid[:side, :side] - side / 2
    return np.exp(-(y**2 + x**2) / (2 * sigma**2))


# -- what is flat ---------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
BIG = (1000, 1000)
NOISES = {
    "gaussian": RNG.normal(100, 5, BIG),
    "gaussian in few grey levels": np.rint(RNG.normal(100.3, 0.5, BIG)),
    "photons, few": RNG.poisson(1, BIG),
    "photons, many, and readout": np.rint(RNG.poisson(30, BIG) * 2.2 + RNG.normal(100, 3, BIG)),
    "half of it clipped": np.maximum(0, RNG.normal(0, 5, BIG)),
    "with a level that drifts": RNG.normal(100, 5, BIG) + np.linspace(0, 10, BIG[1]),
}


@pytest.mark.parametrize("name", NOISES)
def test_background_under_white_noise_is_flat(name: str) -> None:
    flat = flat_in(NOISES[name] / 65535, step=1 / 65535)
    assert flat.mean() >= 0.99


@pytest.mark.parametrize("step", [0, 1 / 255])
@pytest.mark.parametrize("shape", [(1, 1), (17, 40), (200, 131), (64, 64, 3)])
def test_constant_planes_are_flat(shape: tuple[int, ...], step: float) -> None:
    assert flat_in(np.full(shape, 0.3), step=step).all()


def test_one_grey_level_is_nothing_and_two_are_something() -> None:
    y, x = np.mgrid[:192, :192]
    contour = (np.hypot(y - 90, x - 80) < 60).astype(float)
    assert flat_in((100 + contour) / 255, step=1 / 255).all()
    assert not flat_in((100 + 2 * contour) / 255, step=1 / 255)[1, 1]
    assert not flat_in((100 + contour) / 255, step=0)[1, 1]


def test_the_level_may_drift_by_less_than_the_noise() -> None:
    across = np.linspace(0, 1, 640)
    assert flat_in(noise(1, 320, 640) + 3 * across).all()
    assert not flat_in(noise(1, 320, 640) + 10 * across).any()


# -- what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma", "height"), [(1, 8), (1.5, 6), (3, 2.5), (6, 1.5), (12, 1), (20, 0.8), (30, 0.8)]
)
@pytest.mark.parametrize("seed", range(3))
def test_faint_and_defocused_objects_are_seen(sigma: float, height: float, seed: int) -> None:
    flat = flat_in(noise(seed, 320, 320) + height * blob(sigma))
    assert not flat[2, 2]


@pytest.mark.parametrize(("sigma", "height"), [(1, 1), (4, 1), (8, 1), (16, 1.5), (30, 2)])
def test_blurred_edges_are_seen(sigma: float, height: float) -> None:
    step = np.zeros((320, 320))
    step[:, 155:] = height
    edge = convolve(step, gaussian_kernel(sigma))
    assert not flat_in(noise(3, 320, 320) + edge)[1:4, 2].any()


def test_thin_lines_are_seen() -> None:
    y, x = np.mgrid[:320, :320]
    line = 3 * np.exp(-((y - 0.6 * x - 60.0) ** 2) / 4)
    flat = flat_in(noise(4, 320, 320) + line)
    for column in range(5):
        row = int(0.6 * (column * PITCH + 32) + 60) // PITCH
        assert not flat[row, column]


def test_an_object_leaves_cells_flat_that_are_further_away_than_the_margin() -> None:
    plane = noise(5, 704, 704)
    plane[320:352, 320:352] += 100
    flat = flat_in(plane)
    assert not flat[5, 5]
    flat[4:7, 4:7] = True
    assert flat.all()


@pytest.mark.parametrize("name", sample_names())
def test_photos_and_cells_are_never_flat(name: str) -> None:
    sample = load_sample(name)
    for image in (sample.blurred, sample.sharp):
        if image is None or (image is sample.blurred and sample.damage == "noise"):
            continue  # a clear sky behind white noise is flat
        pixels = np.asarray(image.data)
        axes = image.axes.removeprefix("Z")
        for plane in pixels if image.axes.startswith("Z") else [pixels]:
            assert not flat_in_image(plane, axes).any()


def as_jpeg(plane: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.clip(np.rint(plane), 0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file), dtype=float)


INDEX = np.indices((320, 320))
TEXTURES = {
    "checkerboard": INDEX.sum(axis=0) % 2 + 0.01 * noise(6, 320, 320),
    "stripes": INDEX[0] % 2 + 0.01 * noise(6, 320, 320),
    "noise that was smoothed": convolve(noise(6, 320, 320), gaussian_kernel(0.6)),
    "noise that was sharpened": noise(6, 320, 320)
    - 0.5 * convolve(noise(6, 320, 320), gaussian_kernel(1)),
    "noise along rows": np.repeat(noise(6, 320, 1), 320, axis=1) + noise(8, 320, 320),
    "noise in a JPEG file": as_jpeg(128 + 6 * noise(6, 320, 320)) / 255,
    "halftone": ((INDEX[0] % 4 * 4 + INDEX[1] % 4 * 7) % 16 / 16 < 0.45).astype(float),
    "sand": np.repeat(np.repeat(noise(6, 160, 160), 2, 0), 2, 1) + 0.5 * noise(8, 320, 320),
}


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_and_noise_that_is_not_white_are_not_flat(name: str) -> None:
    assert not flat_in(TEXTURES[name], step=1 / 255).any()


def test_saturated_areas_are_flat_where_nothing_is_near() -> None:
    plane = np.ones((448, 448))
    plane[200:248, 200:248] = 1 - 0.4 * blob(8, 48)
    flat = flat_in(plane, step=1 / 255)
    assert not flat[3, 3]
    assert flat[[0, 0, -1, -1], [0, -1, 0, -1]].all()


def test_one_sample_with_structure_is_enough() -> None:
    plane = noise(9, 192, 192, 3)
    assert flat_in(plane).all()
    plane[..., 2] += 20 * blob(6, 192)
    assert not flat_in(plane)[1, 1]


def test_noise_above_the_limit_is_not_flat_and_constants_are() -> None:
    plane = 0.01 * noise(10, 320, 320)
    assert flat_in(plane, noise_limit=0.011).all()
    assert not flat_in(plane, noise_limit=0.009).any()
    assert flat_in(np.zeros((320, 320)), noise_limit=0.001).all()


@pytest.mark.parametrize("value", [1e30, -1e30])
def test_values_that_overflow_when_squared_are_not_flat(value: float) -> None:
    plane = noise(11, 320, 320)
    plane[150:170, 150:170] = value
    assert not flat_in(plane)[2, 2]


# -- every answer is local ------------------------------------------------------------------------


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, int, range, range, Box]:
    """A plane, a pitch, cells of it, and a read that holds what they need."""
    pitch = draw(st.sampled_from((16, 32, 48, 64, 128)))
    height, width = draw(st.integers(1, 420)), draw(st.integers(1, 420))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    plane = rng.normal(0, 1, (height, width, draw(st.sampled_from((1, 3)))))
    for _ in range(draw(st.integers(0, 3))):  # objects on which the answer depends
        y, x = rng.integers(0, height), rng.integers(0, width)
        plane[y : y + 20, x : x + 20] += rng.uniform(0, 4)
    ranges = []
    for length in (height, width):
        count = -(-length // pitch)
        start = draw(st.integers(0, count - 1))
        ranges.append(range(start, draw(st.integers(start + 1, count))))
    need = flat_read(*ranges, pitch, (height, width))
    read = Box(
        draw(st.integers(0, need.top)),
        draw(st.integers(0, need.left)),
        draw(st.integers(need.bottom, height)),
        draw(st.integers(need.right, width)),
    )
    return plane.astype(np.float32), pitch, *ranges, read


@given(questions())
def test_the_answer_is_the_same_from_any_read_and_with_any_other_cells(
    question: tuple[np.ndarray, int, range, range, Box],
) -> None:
    plane, pitch, rows, cols, read = question
    size = plane.shape[:2]
    some = flat_cells(plane[read.slices], read, rows, cols, pitch=pitch, size=size, step=0)
    whole = flat_in(plane, pitch=pitch)
    np.testing.assert_array_equal(
        some, whole[rows.start : rows.stop, cols.start : cols.stop], strict=True
    )
    # What lies further away than the margin does not count, even if others asked to see it.
    need = flat_read(rows, cols, pitch, size)
    other = np.full_like(plane, 1e3)
    other[need.slices] = plane[need.slices]
    again = flat_in(other, pitch=pitch)
    np.testing.assert_array_equal(again[rows.start : rows.stop, cols.start : cols.stop], some)


def test_what_has_to_be_read_is_the_cells_and_the_margin() -> None:
    assert flat_read(range(2, 4), range(1, 2), 64, (1000, 1000)) == Box(
        128 - MARGIN, 64 - MARGIN, 256 + MARGIN, 128 + MARGIN
    )
    assert flat_read(range(0, 1), range(15, 16), 64, (50, 1000)) == Box(0, 960 - MARGIN, 50, 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pitch": 60}, "multiple of 16, not 60"),
        ({"pitch": 0}, "multiple of 16, not 0"),
        ({"rows": range(0, 6)}, "no cells of 64 in a length of 320"),
        ({"rows": range(2, 2)}, "no cells"),
        ({"cols": range(0, 4, 2)}, "no cells"),
        ({"values": np.zeros((320, 320), np.float32)}, "not the pixels"),
        ({"values": np.zeros((320, 320, 0), np.float32)}, "not the pixels"),
        ({"values": np.zeros((320, 300, 1), np.float32)}, "not the pixels"),
        ({"read": Box(0, 0, 300, 320), "values": np.zeros((300, 320, 1))}, "too small"),
        ({"read": Box(1, 0, 320, 320), "values": np.zeros((319, 320, 1))}, "too small"),
        ({"step": -1}, "0 or more, not -1"),
        ({"step": float("nan")}, "0 or more, not nan"),
    ],
)
def test_impossible_questions_are_refused(change: dict, message: str) -> None:
    question = {
        "values": np.zeros((320, 320, 1), np.float32),
        "read": Box(0, 0, 320, 320),
        "rows": range(0, 5),
        "cols": range(0, 5),
        "pitch": 64,
        "size": (320, 320),
        "step": 0.0,
    }
    assert flat_cells(**question).all()
    with pytest.raises(ValueError, match=message):
        flat_cells(**(question | change))


# -- boxes ----------------------------------------------------------------------------------------

flags = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))
pitches = st.sampled_from((1, 16, 64))
margins = st.sampled_from((0, 16, 64, 128, 1000))


def covered(boxes: list[Box], shape: tuple[int, int]) -> np.ndarray:
    """How often each place is covered; fails where a box leaves the array."""
    count = np.zeros(shape, int)
    for box in boxes:
        assert 0 <= box.top < box.bottom <= shape[0]
        assert 0 <= box.left < box.right <= shape[1]
        count[box.slices] += 1
    return count


def cost(boxes: list[Box], pitch: int, margin: int) -> int:
    return sum(
        (box.shape[0] * pitch + 2 * margin) * (box.shape[1] * pitch + 2 * margin) for box in boxes
    )


@given(flags, pitches, margins)
def test_boxes_hold_all_that_is_not_flat_once_and_cost_no_more_than_one(
    flat: np.ndarray, pitch: int, margin: int
) -> None:
    boxes = active_boxes(flat, pitch, margin)
    count = covered(boxes, flat.shape)
    assert count.max() <= 1
    assert count[~flat].all()
    assert boxes == active_boxes(flat.copy(), pitch, margin)
    if flat.all():
        assert boxes == []
        return
    rows, cols = np.flatnonzero(~flat.all(axis=1)), np.flatnonzero(~flat.all(axis=0))
    one = Box(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
    assert cost(boxes, pitch, margin) <= cost([one], pitch, margin)


@given(flags)
def test_without_a_margin_nothing_flat_is_restored(flat: np.ndarray) -> None:
    count = covered(active_boxes(flat, 16, 0), flat.shape)
    np.testing.assert_array_equal(count, ~flat)


def test_boxes_part_where_that_pays() -> None:
    flat = np.ones((12, 12), bool)
    flat[0:2, 0:2] = flat[9:12, 10] = False
    assert active_boxes(flat, 64, 64) == [Box(0, 0, 2, 2), Box(9, 10, 12, 11)]
    assert active_boxes(flat, 64, 10_000) == [Box(0, 0, 12, 11)]
    # No single cut pays here, only all of them together.
    flat = np.ones((9, 9), bool)
    flat[[0, 0, 8, 8], [0, 8, 0, 8]] = False
    assert len(active_boxes(flat, 64, 64)) == 4


@st.composite
def cores(draw: st.DrawFn) -> tuple[np.ndarray, range, range, int, Box]:
    """Flags for all cells of a plane, the cells that a core was given, and the core."""
    pitch = 16 * draw(st.integers(1, 5))
    size = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    flat = draw(hnp.arrays(bool, tuple(-(-length // pitch) for length in size)))
    edges = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
             for n in size]  # fmt: skip
    core = Box(edges[0][0], edges[1][0], edges[0][1], edges[1][1])
    rows = range(
        draw(st.integers(0, core.top // pitch)),
        draw(st.integers(-(-core.bottom // pitch), flat.shape[0])),
    )
    cols = range(
        draw(st.integers(0, core.left // pitch)),
        draw(st.integers(-(-core.right // pitch), flat.shape[1])),
    )
    return flat, rows, cols, pitch, core


@given(cores(), margins)
def test_parts_of_a_core_hold_all_in_it_that_is_not_flat(
    question: tuple[np.ndarray, range, range, int, Box], margin: int
) -> None:
    flat, rows, cols, pitch, core = question
    given_cells = flat[rows.start : rows.stop, cols.start : cols.stop]
    parts = active_parts(given_cells, rows, cols, pitch, core, margin)
    pixels = np.kron(~flat, np.ones((pitch, pitch), bool))
    count = covered(parts, pixels.shape)
    inside = np.zeros_like(pixels)
    inside[core.slices] = True
    assert count.max() <= 1
    assert not count[~inside].any()
    assert count[pixels & inside].all()
    # Cells beside the core change nothing.
    tight = (
        range(core.top // pitch, -(-core.bottom // pitch)),
        range(core.left // pitch, -(-core.right // pitch)),
    )
    fewer = flat[tight[0].start : tight[0].stop, tight[1].start : tight[1].stop]
    assert active_parts(fewer, *tight, pitch, core, margin) == parts


def test_impossible_boxes_are_refused() -> None:
    flat = np.ones((2, 3), bool)
    for wrong in (np.ones(3, bool), np.ones((2, 3, 1), bool)):
        with pytest.raises(ValueError, match="rows and columns"):
            active_boxes(wrong, 64, 0)
    for pitch, margin in ((0, 0), (64, -1)):
        with pytest.raises(ValueError, match="impossible"):
            active_boxes(flat, pitch, margin)
    with pytest.raises(ValueError, match="flags of shape"):
        active_parts(flat, range(2), range(2), 64, Box(0, 0, 10, 10), 0)
    with pytest.raises(ValueError, match="does not hold"):
        active_parts(flat, range(1, 3), range(3), 64, Box(0, 0, 128, 128), 0)
    with pytest.raises(ValueError, match="impossible"):
        active_parts(flat, range(2), range(3), 0, Box(0, 0, 1, 1), 0)


# -- fluorescence ---------------------------------------------------------------------------------


def fluorescence(
    size: int, centres: np.ndarray, *, photons: float, kernel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A blurred, noisy camera picture of textured cells (uint16), and the one without either."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-32:33, -32:33]
    light = np.zeros((size + 64, size + 64))
    for row, col in centres.astype(int):
        radius, turn = rng.uniform(10, 20), rng.uniform(0, np.pi)
        along, across = (
            x * np.cos(turn) + y * np.sin(turn),
            y * np.cos(turn) - x * np.sin(turn),
        )
        inside = np.hypot(along / radius, across / (radius * rng.uniform(0.6, 1))) < 1
        shape = inside * rng.uniform(0.3, 1) * (1 + 0.4 * np.sin(along / 2) * np.sin(across / 2))
        part = light[row : row + 65, col : col + 65]
        np.maximum(part, shape, out=part)
    light = 20 + photons * light[32:-32, 32:-32]
    seen = rng.poisson(convolve(light, kernel)) + rng.normal(0, 2, light.shape)
    gain = 40_000 / photons
    return tuple(
        np.rint(np.clip(100 + gain * v, 0, 65535)).astype(np.uint16) for v in (seen, light)
    )


def clusters(size: int, share: float, seed: int) -> np.ndarray:
    """Centres of cells that crowd a disc of some share of a square plane."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, 4000), np.sqrt(rng.uniform(0, share / np.pi, 4000))
    spread = radius * size * np.array([np.sin(angle), np.cos(angle)])
    count = int(share * size**2 / 600)
    return (rng.uniform(0.3, 0.7, (2, 1)) * size + spread).T[:count]


def work(flat: np.ndarray, size: int, plan: TilePlan, *, skip: bool) -> int:
    """Pixels that a run reads into the network."""
    total = 0
    for row in range(plan.shape[0]):
        for col in range(plan.shape[1]):
            tile = plan.tile_at(row, col)
            parts = [tile.core]
            if skip:
                cells = range(flat.shape[0]), range(flat.shape[1])
                parts = active_parts(flat, *cells, PITCH, tile.core, plan.halo)
            for part in parts:
                height, width = part.grown(plan.halo, size, size).shape
                total += height * width
    return total


@pytest.mark.parametrize("halo", [64, 128])
def test_a_plane_of_nine_tenths_background_costs_a_fraction(halo: int) -> None:
    size = 2048
    pixels, _ = fluorescence(size, clusters(size, 0.1, 2), photons=400, kernel=gaussian_kernel(2.5))
    flat = flat_in_image(pixels, "YX")
    everything = work(flat, size, TilePlan(size, size, 768, halo), skip=False)
    # Boxes cut by the tiles of a run, and boxes of the whole plane.
    cut, whole = (
        everything / work(flat, size, TilePlan(size, size, tile, halo), skip=True)
        for tile in (768, size)
    )
    print(f"halo {halo}: {1 - flat.mean():.1%} active, {cut:.1f} x less, {whole:.1f} x uncut")
    assert cut > 3
    assert whole > 4.5


def test_passing_flat_cells_through_costs_at_most_a_twentieth_of_a_decibel() -> None:
    size = 448
    pixels, truth = fluorescence(
        size, clusters(size, 0.1, 3), photons=4000, kernel=disc_kernel(3.0)
    )
    image = LazyImage.from_array(pixels)
    scale = resolve_intensity(image, "auto")
    flat = flat_in(
        scale.normalise(pixels), step=1 / (scale.high - scale.low), noise_limit=0.5 / 255
    )
    assert 0.4 < flat.mean() < 0.9
    restored = demoe.deblur(image).image.compute()
    passed = np.where(np.kron(flat, np.ones((PITCH, PITCH), bool)), pixels, restored)

    def error(values: np.ndarray) -> float:
        return float(np.mean((values.astype(float) - truth) ** 2))

    loss = 10 * np.log10(error(passed) / error(restored))
    print(f"{flat.mean():.0%} passed through for {loss:+.3f} dB of loss")
    assert loss <= 0.05
