"""A result beside its source, without a window."""

from dataclasses import replace

import numpy as np
import pytest

from napari_demoe._compare import Alike, difference_kwargs, is_difference, pair_at_hand, pair_of
from napari_demoe._figures import SIDE, Figures, looked_at, measure, words


@pytest.fixture
def picture():
    rows, columns = np.mgrid[:100, :150]
    return (127 + 100 * np.sin(rows / 7.0) * np.cos(columns / 11.0)).astype(np.uint8)


@pytest.fixture
def deblurred(session, viewer, worker, picture):
    """A finished result; its source lies turned and scaled in the world."""

    def run(data=picture, preview=False, **kwargs):
        viewer.add_image(data, name="photo", scale=(0.5, 0.25), rotate=20, **kwargs)
        session.start(preview=preview)
        worker.finish()
        return session.result

    return run


def test_a_result_knows_its_source_and_what_is_selected_is_compared(
    deblurred, session, viewer, picture
):
    assert pair_at_hand(viewer.layers) is None
    first = deblurred()
    source = viewer.layers["photo"]
    assert pair_of(first, viewer.layers).source is source
    assert pair_of(source, viewer.layers) is None
    viewer.layers.selection = {session.overlay}
    assert pair_at_hand(viewer.layers).result is first
    second = deblurred(picture[::-1])
    viewer.layers.selection = {session.overlay}
    assert pair_at_hand(viewer.layers).result is second
    viewer.layers.selection = {source}
    assert pair_at_hand(viewer.layers).result is first
    viewer.layers.selection = {first}
    source.name = "another name"
    assert pair_at_hand(viewer.layers).source is source
    viewer.layers.remove(source)
    assert pair_at_hand(viewer.layers).result is second


def test_the_difference_is_result_less_source(deblurred, viewer, picture):
    pair = pair_of(deblurred(), viewer.layers)
    kwargs = difference_kwargs(pair, 7.0)
    layer = viewer.add_image(pair.difference(), **kwargs)
    expected = pair.result.data.astype(np.float32) - picture
    assert expected.any()
    np.testing.assert_array_equal(np.asarray(layer.data), expected)
    assert layer.name == "photo deblurred difference"
    assert tuple(layer.contrast_limits) == (-7, 7)
    np.testing.assert_allclose(layer.data_to_world((3, 4)), pair.source.data_to_world((3, 4)))
    colours = layer.colormap.map(np.array([0.0, 0.5, 1.0]))
    assert colours[0, 2] > colours[0, 0]  # less is blue
    assert not colours[1, :3].any()
    assert colours[2, 0] > colours[2, 2]
    assert is_difference(layer)
    assert not is_difference(pair.result)


def test_a_difference_is_nothing_to_deblur(deblurred, session, viewer):
    pair = pair_of(deblurred(), viewer.layers)
    layer = viewer.add_image(pair.difference(), **difference_kwargs(pair, 7.0))
    assert layer not in session.sources
    assert session.source is pair.source


def test_a_preview_is_compared_with_its_part_of_the_source(
    deblurred, session, viewer, monkeypatch, picture
):
    monkeypatch.setattr("napari_demoe._wanted.PREVIEW_SIDE", 40)
    pair = pair_of(deblurred(preview=True), viewer.layers)
    top, left = pair.start
    assert 0 < top < 60
    assert 0 < left < 110
    ((result, source),) = pair.levels()
    np.testing.assert_array_equal(source[...], picture[top : top + 40, left : left + 40])
    assert pair.difference().shape == result.shape == (40, 40)


def test_each_level_is_compared_with_the_source_at_that_level(deblurred, viewer, picture):
    pair = pair_of(deblurred(), viewer.layers)
    place = pair.result.metadata
    result = viewer.add_image(
        [picture // 2, picture[::3, ::3] // 2], multiscale=True, metadata=place
    )
    fine, coarse = pair_of(result, viewer.layers).difference()
    assert (fine.shape, coarse.shape) == ((100, 150), (34, 50))
    expected = (picture // 2).astype(np.float32) - picture
    np.testing.assert_array_equal(coarse[...], expected[::3, ::3])
    np.testing.assert_array_equal(fine[40:50, 3], expected[40:50, 3])


def test_of_a_multiscale_source_its_own_levels_are_taken(deblurred, viewer, picture):
    half = np.full((50, 75), 9, np.uint8)  # no subsampling of the finest would give that
    pair = pair_of(deblurred([picture, half], multiscale=True), viewer.layers)
    result = viewer.add_image(
        [picture, picture[::2, ::2]], multiscale=True, metadata=pair.result.metadata
    )
    coarse = pair_of(result, viewer.layers).difference()[1]
    np.testing.assert_array_equal(coarse[...], picture[::2, ::2].astype(np.float32) - 9)


def test_the_source_looks_like_the_result_and_then_as_before(deblurred, viewer, picture):
    pair = pair_of(deblurred(), viewer.layers)
    result, source = pair.result, pair.source
    covering = viewer.add_image(picture)
    adding = viewer.add_image(picture, blending="additive")
    for layer in (covering, adding):
        viewer.layers.move(viewer.layers.index(layer), 1)
    source.visible, source.gamma, result.contrast_limits = False, 0.5, (20, 90)
    before = source.as_layer_data_tuple()[1]
    alike = Alike(pair, viewer.layers)
    assert source.visible
    assert result.visible
    assert (source.gamma, tuple(source.contrast_limits)) == (1.0, (20, 90))
    assert not covering.visible
    assert adding.visible
    alike.undo()
    assert covering.visible
    after = source.as_layer_data_tuple()[1]
    for name in ("visible", "gamma", "contrast_limits", "opacity", "blending"):
        assert after[name] == before[name]


def test_figures_are_those_of_what_is_in_view(deblurred, session, viewer, picture):
    pair = pair_of(deblurred(), viewer.layers)
    viewer.canvas.size = (400, 400)
    viewer.reset_view()
    view = looked_at(viewer, pair)
    assert view.box == (slice(0, 100), slice(0, 150))
    assert not view.cut
    figures = measure(view)
    assert figures.mean[0] == pytest.approx(picture.mean())
    assert figures.mean[1] == pytest.approx(pair.result.data.mean())
    assert figures.most <= np.abs(pair.result.data.astype(int) - picture).max()
    assert sum(share for _, share in figures.shares) == pytest.approx(1)
    assert {name for name, _ in figures.shares} <= {each.words for each in session.experts}

    # one cell of 64 pixels in the corner, and no more: cells are not those of all the image
    pair.result.metadata["demoe"]["expert_map"] = np.array([[3, 1, 1], [1, 1, 1]], np.uint8)
    middle = pair.result.data_to_world((30, 30))
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, *middle), 400 / 5
    view = looked_at(viewer, pair)
    assert all(0 < part.start < 30 < part.stop < 60 for part in view.box)
    assert measure(view).shares == ((session.experts[2].words, 1.0),)

    viewer.scene.camera.center = (0, 1e4, 1e4)
    assert looked_at(viewer, pair) is None
    viewer.reset_view()
    viewer.dims.ndisplay = 3
    assert looked_at(viewer, pair) is None


def test_figures_follow_the_sliders_and_colours_are_averaged(deblurred, viewer):
    stack = np.stack([np.full((40, 60, 3), value, np.uint8) for value in (40, 90)])
    stack[..., 1] += 30
    stack[:, ::2] += 3
    viewer.add_image(stack, name="film", rgb=True, axis_labels=("t", "y", "x"))
    source = viewer.layers["film"]
    result = viewer.add_image(
        stack + 5, rgb=True, metadata={"demoe": {"run": "1", "made_from": source.unique_id}}
    )
    viewer.reset_view()
    for plane, value in enumerate((40, 90)):
        viewer.dims.set_current_step(0, plane)
        view = looked_at(viewer, pair_of(result, viewer.layers))
        assert view.box[0] == plane
        figures = measure(view)
        assert figures.mean == pytest.approx((value + 11.5, value + 16.5))
        assert figures.sharpness[0] > figures.sharpness[1]  # the same edges on a brighter ground
        assert figures.shares == ()


def test_figures_wait_for_what_is_not_read_yet(deblurred, viewer, picture):
    """A level that is looked at shows black for it."""

    class Unread:
        shape, dtype, ndim, exact = picture.shape, picture.dtype, picture.ndim, picture

        def __getitem__(self, key):
            return np.zeros_like(picture[key])

    view = looked_at(viewer, pair_of(deblurred(picture), viewer.layers))
    known = measure(replace(view, result=picture))
    assert measure(replace(view, result=Unread())) == known


def test_a_large_view_is_measured_in_its_middle(viewer):
    wide = np.zeros((20, 5 * SIDE), np.uint8)
    source = viewer.add_image(wide)
    result = viewer.add_image(wide, metadata={"demoe": {"made_from": source.unique_id}})
    viewer.reset_view()
    view = looked_at(viewer, pair_of(result, viewer.layers))
    assert view.cut
    assert view.box == (slice(0, 20), slice(2 * SIDE, 3 * SIDE))


def test_figures_in_words():
    plain = Figures(
        (0.01, 0.02), (100.0, 101.0), 5.0, (("defocus", 0.75), ("haze", 0.25)), 1, False
    )
    assert words(plain) == (
        "In view: sharpness 2.00 × the source's; mean 100 → 101 (1.010 ×); "  # noqa: RUF001
        "defocus 75%, haze 25%"
    )
    nan = float("nan")
    bare = Figures((nan, nan), (-2.0, 12345.6), 5.0, (), 4, True)
    assert words(bare) == (
        "In the middle 1024 × 1024 pixels, at 1/4 of the size: mean -2 → 12346"  # noqa: RUF001
    )
