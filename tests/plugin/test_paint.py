"""Labels and shapes over the cells of an image: they land where a person sees them."""

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels, Shapes

import demoe
from demoe.choices import BLURS
from napari_demoe._paint import cells_of_labels, cells_of_shapes, name_regions
from napari_demoe._words import finest

PITCH = 16


def whole(image, axes):
    return [slice(0, n) for n in finest(image).shape[: len(axes)]]


def of_labels(labels, image, axes="YX"):
    return cells_of_labels(labels, image, axes, whole(image, axes), PITCH)


def of_shapes(shapes, image, axes="YX", expert=4):
    return cells_of_shapes(shapes, image, axes, whole(image, axes), PITCH, expert, BLURS)


def seen(image, labels, axes="YX"):
    """What lies under the centre of each cell, by asking the layers themselves, one by one."""
    rows, cols = (-(-n // PITCH) for n in image.data.shape[:2])
    out = np.zeros((rows, cols), int)
    for row, col in np.ndindex(rows, cols):
        ends = [
            min((at + 1) * PITCH, n) for at, n in zip((row, col), image.data.shape[:2], strict=True)
        ]
        centre = [(at * PITCH + end - 1) / 2 for at, end in zip((row, col), ends, strict=True)]
        out[row, col] = labels.get_value(image.data_to_world(centre), world=True) or 0
    return out


def some_labels(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 6, shape, np.uint8)


PLACES = {
    "same pixels": ((100, 130), {}, {"translate": (0.1, 0.1)}),
    "coarser": ((25, 33), {}, {"scale": (4, 4), "translate": (1.5, 1.5)}),
    "finer": ((310, 410), {}, {"scale": (0.33, 0.33)}),
    "a part": ((20, 30), {}, {"translate": (41.3, 50.2)}),
    "beyond": ((40, 300), {}, {"scale": (3, 3), "translate": (-31.1, -200.1)}),
    "both scaled": (
        (51, 47),
        {"scale": (0.5, 0.2), "translate": (7, -3)},
        {"scale": (1.01, 0.6), "translate": (7, -2)},
    ),
    "flipped": ((100, 130), {}, {"scale": (-1, 1), "translate": (99.2, 0.1)}),
    "turned": ((90, 120), {}, {"rotate": 20, "scale": (1.2, 0.9), "translate": (5.1, -3.3)}),
    "sheared": ((100, 130), {}, {"shear": (0.4,), "translate": (2.2, 1.3)}),
    "the image turned": ((100, 130), {"rotate": -35, "scale": (0.5, 0.5)}, {"translate": (0, 9)}),
    "both turned": (
        (33, 44),
        {"rotate": 30, "shear": (0.2,), "scale": (0.5, 0.5)},
        {"rotate": 30, "shear": (0.2,), "scale": (1.6, 1.6), "translate": (0.3, 0.1)},
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_labels_land_where_they_are_seen(place):
    shape, image_at, labels_at = PLACES[place]
    image = Image(np.zeros((100, 130), np.uint8), **image_at)
    labels = Labels(some_labels(*shape), **labels_at)
    found = of_labels(labels, image)
    assert found.shape == (7, 9)
    np.testing.assert_array_equal(found, seen(image, labels))
    assert found.any()
    lazy = Labels(da.from_array(labels.data, chunks=16), **labels_at)
    still_lazy = of_labels(lazy, image)
    assert isinstance(still_lazy, da.Array)
    np.testing.assert_array_equal(still_lazy, found)


def test_units_are_turned_into_each_other():
    image = Image(np.zeros((100, 130), np.uint8), scale=(0.5, 0.5), units=("um", "um"))
    data = some_labels(100, 130)
    plain = of_labels(Labels(data, scale=(0.5, 0.5)), image)
    for unit, factor in (("nm", 1000), ("mm", 0.001), ("um", 1)):
        labels = Labels(data, scale=(0.5 * factor,) * 2, units=(unit, unit))
        np.testing.assert_array_equal(of_labels(labels, image), plain)


def test_labels_with_too_many_axes_are_refused():
    image = Image(np.zeros((100, 130), np.uint8))
    with pytest.raises(demoe.AxesError, match="'mine' has 3 axes"):
        of_labels(Labels(some_labels(2, 100, 130), name="mine"), image)
    with pytest.raises(demoe.AxesError, match="has 3 axes"):
        of_shapes(Shapes(np.zeros((4, 3))), image)


def test_labels_of_a_stack_meet_its_planes():
    image = Image(np.zeros((4, 100, 130), np.uint8), scale=(2, 1, 1))
    flat = some_labels(100, 130)
    one = of_labels(Labels(flat), image, "ZYX")
    assert one.shape == (4, 7, 9)
    np.testing.assert_array_equal(one, [of_labels(Labels(flat), Image(image.data[0]))] * 4)
    # Two planes of labels, over the second and third of the image.
    part = Labels(np.stack([flat, flat[::-1]]), scale=(2, 1, 1), translate=(2, 0, 0))
    found = of_labels(part, image, "ZYX")
    assert found[0].max() == found[3].max() == 0
    np.testing.assert_array_equal(found[1], one[0])
    # Turned in the plane, plane by plane.
    turned = Labels(part.data, scale=(2, 1, 1), translate=(2, 8, -7), rotate=25)
    found = of_labels(turned, image, "ZYX")
    assert found[0].max() == found[3].max() == 0
    for plane in (0, 1):
        alone = Labels(part.data[plane], translate=(8, -7), rotate=turned.rotate[1:, 1:])
        np.testing.assert_array_equal(found[plane + 1], seen(Image(image.data[0]), alone))
    # Other orders of axes, and colours.
    turned = Image(np.zeros((100, 130, 4), np.uint8), rgb=False)
    found = of_labels(Labels(np.moveaxis(np.stack([flat] * 4), 0, 2)), turned, "YXZ")
    np.testing.assert_array_equal(found, one)
    film = Image(np.zeros((4, 100, 130, 3), np.uint8), rgb=True)
    found = cells_of_labels(Labels(flat), film, "TYXS", [*whole(film, "TYX"), slice(0, 3)], PITCH)
    np.testing.assert_array_equal(found, one)


def test_a_part_of_the_image_has_cells_of_its_own():
    image = Image(np.zeros((100, 130), np.uint8))
    labels = Labels(some_labels(100, 130))
    found = cells_of_labels(labels, image, "YX", (slice(10, 60), slice(30, 130)), PITCH)
    assert found.shape == (4, 7)
    np.testing.assert_array_equal(found[:3, :6], labels.data[18:60:16, 38:130:16][:3, :6])


def test_a_huge_image_costs_its_cells():
    levels = [da.zeros((side, side), np.uint8, chunks=10**4) for side in (10**6, 10**3)]
    image = Image(levels, multiscale=True, contrast_limits=(0, 1), cache=False)
    labels = Labels(np.array([[1, 2], [3, 4]], np.uint8), scale=(5e5, 5e5), translate=(25e4, 25e4))
    found = cells_of_labels(labels, image, "YX", whole(image, "YX"), 1024)
    assert found.shape == (977, 977)
    assert found[::976, ::976].tolist() == [[1, 2], [3, 4]]
    square = Shapes(np.array([[0, 0], [0, 3e5], [3e5, 3e5], [3e5, 0]]), shape_type="polygon")
    found = cells_of_shapes(square, image, "YX", whole(image, "YX"), 1024, 5, BLURS)
    assert found.sum() == 5 * 293**2


# -- shapes ----------------------------------------------------------------------------------------


def box(top, left, bottom, right):
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], float)


def test_shapes_cover_the_cells_whose_centres_they_hold():
    image = Image(np.zeros((100, 130), np.uint8))
    shapes = Shapes([box(10, 20, 60, 70)], shape_type="rectangle")
    expected = np.zeros((7, 9), int)
    expected[1:4, 1:4] = 4  # centres from 16 + 7.5 on
    np.testing.assert_array_equal(of_shapes(shapes, image), expected)
    # The last cells are cut short: their own centres count.
    last = of_shapes(Shapes([box(96.5, 128, 99.5, 129.5)], shape_type="rectangle"), image)
    assert np.argwhere(last).tolist() == [[6, 8]]
    assert of_shapes(Shapes([box(-500, -500, 900, 900)], shape_type="rectangle"), image).all()
    assert not of_shapes(Shapes(), image).any()


def test_shapes_agree_with_their_own_picture_in_pixels():
    image = Image(np.zeros((96, 128), np.uint8), scale=(0.5, 0.25), translate=(3, 4))
    outlines = {
        "ellipse": box(10, 20, 70, 100),
        "polygon": np.array([[5, 60], [60, 120], [90, 30]], float),
    }
    for kind, outline in outlines.items():
        shapes = Shapes([outline], shape_type=kind)
        wanted = shapes.to_labels((96, 128))[8::16, 8::16]
        placed = Shapes([outline], shape_type=kind, scale=(0.5, 0.25), translate=(3, 4))
        found = of_shapes(placed, image) > 0
        assert (found != wanted).sum() <= 2  # centres lie between pixels
        assert found.sum() >= 8


def test_each_shape_has_its_task():
    image = Image(np.zeros((96, 96), np.uint8))
    boxes = [box(0, 16 * i, 90, 16 * i + 15) for i in range(6)]
    tasks = ["defocus", "local motion", "5", 2, "", None]
    shapes = Shapes(boxes, shape_type="rectangle", features={"task": tasks}, name="mine")
    assert of_shapes(shapes, image, expert=4)[2].tolist() == [1, 3, 5, 2, 4, 4]
    shapes.features = {"task": ["blurry"] * 6}
    with pytest.raises(demoe.RecipeError, match="Shape 0 of 'mine' has the task 'blurry'"):
        of_shapes(shapes, image)


def test_shapes_of_a_stack_stay_in_their_plane():
    image = Image(np.zeros((3, 100, 130), np.uint8), scale=(2, 1, 1))
    flat = box(10, 20, 60, 70)
    at_two = np.insert(flat, 0, 4.0, axis=1)  # in the world, so plane 2
    one = of_shapes(Shapes([flat], shape_type="rectangle"), image, "ZYX")
    assert one.shape == (3, 7, 9)
    assert (one == one[0]).all()
    found = of_shapes(Shapes([at_two], shape_type="rectangle"), image, "ZYX")
    np.testing.assert_array_equal(found, one * np.array([0, 0, 1], np.uint8)[:, None, None])
    away = Shapes([at_two + np.array([10, 0, 0])], shape_type="rectangle")
    assert not of_shapes(away, image, "ZYX").any()


def test_the_expert_that_is_chosen_goes_to_the_shapes_drawn_next():
    image = Image(np.zeros((96, 96), np.uint8))
    shapes = Shapes([box(0, 0, 90, 15)], shape_type="rectangle")
    name_regions(shapes, 3, before=1, choices=BLURS)
    shapes.add_rectangles(box(0, 16, 90, 31))
    name_regions(shapes, 5, before=3, choices=BLURS)
    shapes.add_rectangles(box(0, 32, 90, 47))
    assert of_shapes(shapes, image)[2].tolist() == [1, 3, 5, 0, 0, 0]
    empty = Shapes()
    name_regions(empty, 2, before=1, choices=BLURS)
    empty.add_ellipses(box(0, 0, 90, 90))
    assert of_shapes(empty, image).max() == 2
    shapes.mode, shapes.selected_data = "select", {0}
    name_regions(shapes, 4, before=5, choices=BLURS)
    assert of_shapes(shapes, image)[2].tolist() == [4, 3, 5, 0, 0, 0]
