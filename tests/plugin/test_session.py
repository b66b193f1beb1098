"""The session: choices, states and results, without a window and without a thread."""

import numpy as np
import pytest
import tifffile
from napari.utils.notifications import notification_manager

import demoe
from demoe import wanted
from napari_demoe import _display, _worker
from napari_demoe._choices import Choices
from napari_demoe._layers import is_result
from napari_demoe._maps import confidence_kwargs
from napari_demoe._reader import read
from napari_demoe._session import Session
from napari_demoe._words import script
from napari_demoe._writer import write_layers


@pytest.fixture
def picture():
    rows, columns = np.mgrid[:100, :150]
    return (127 + 100 * np.sin(rows / 7.0) * np.cos(columns / 11.0)).astype(np.uint8)


def test_choices_freeze_into_a_recipe():
    choices = Choices(routing="local", top_k=2, tile=256, photometry="preserve")
    choices.pooling, choices.skip_flat = "tile", True
    recipe = choices.recipe()
    assert (recipe.pooling, recipe.skip_flat) == ("tile", True)
    assert (recipe.routing, recipe.top_k, recipe.tile) == ("local", 2, 256)
    assert recipe.photometry == "preserve"
    assert Choices().recipe() == demoe.Recipe()
    with pytest.raises(demoe.RecipeError):
        Choices(top_k=0).recipe()
    with pytest.raises(demoe.RecipeError, match="no field 'topk'"):
        Choices(topk=2)
    assert Choices(routing="painted", psf=" ").recipe() == demoe.Recipe()
    assert Choices(psf="radius=3").recipe().psf == {"radius": 3.0}
    assert Choices.of(recipe).recipe() == recipe


def test_the_source_follows_the_layers(session, viewer, picture):
    assert session.source is None
    first = viewer.add_image(picture, name="first")
    assert session.source is first
    second = viewer.add_image(picture, name="second")
    viewer.add_points(np.zeros((1, 2)))
    assert session.sources == [first, second]
    assert session.source is second
    viewer.layers.selection = {first}
    assert session.source is first
    place = (first.as_layer_data_tuple()[1], "YX", (64, 64))
    viewer.add_image(np.ones((2, 3)), **confidence_kwargs(*place))  # as from a file
    assert session.sources == [first, second]
    assert session.source is first
    viewer.layers.remove(first)
    assert session.source is second
    viewer.layers.clear()
    assert session.source is None


def test_maps_are_shown_one_after_the_other_where_there_is_a_clock(viewer, worker, root, picture):
    beats = []
    session = Session(viewer, worker, lambda beat: beats.append(beat) or beats.clear)
    session.choices = Choices(model=str(root / "tests" / "data" / "demoe_w4.safetensors"))
    session.choices.device, session.choices.tile = "cpu", 64
    source = viewer.add_image(picture, name="photo")
    session.start()
    worker.finish()
    assert not worker.running
    grown = [len(viewer.layers)]
    while session.busy:
        assert session.state == "running"
        session.cancel()  # there is nothing left to stop
        beats[0]()
        grown.append(len(viewer.layers))
    assert grown == list(range(2, 2 + len(grown)))  # never two at once
    assert session.status.startswith("Done in")
    assert viewer.layers[-1] is session.overlay

    session.source = source
    session.start()
    worker.finish()
    beats[0]()
    viewer.layers.remove(session.result)  # before all its maps are there
    count = len(viewer.layers)
    while session.busy:
        beats[0]()
    assert (session.state, session.overlay, len(viewer.layers)) == ("idle", None, count)
    session.close()
    assert beats == []


def stop_after(session, worker, tiles):
    """Begin a run, and stop it when some tiles are done."""
    session.start()
    while session.done < tiles:
        worker.step()
    session.cancel()
    worker.finish()


def test_a_run_goes_from_words_to_result(session, viewer, worker, picture):
    source = viewer.add_image(picture, name="photo", scale=(0.5, 0.5))
    assert "100 × 150" in session.status  # noqa: RUF001
    session.start()
    assert (session.state, session.busy) == ("running", True)
    assert "Loading" in session.status
    while not session.total:
        worker.step()
    assert session.total == 6
    running = viewer.layers[-1]
    assert running.name == "photo deblurred (running)"
    np.testing.assert_array_equal(np.asarray(running.data), picture)  # not a tile is done yet
    worker.step()
    assert session.done == 1
    assert "tile 2 of 6" in session.status
    assert session.seconds_left >= 0
    assert not np.array_equal(np.asarray(running.data), picture)
    worker.finish()
    assert (session.state, session.busy, session.error) == ("idle", False, "")
    assert session.status.startswith("Done in")
    result, confidence, overlay = viewer.layers[1:]
    names = ("photo deblurred", "photo confidence", "photo experts")
    assert (result.name, confidence.name, overlay.name) == names
    assert (session.result, session.confidence, session.overlay) == (result, confidence, overlay)
    assert is_result(result)
    assert not confidence.visible
    assert session.sources == [source, result]
    assert session.source is source  # and not the result, although it was added last
    assert sum(session.shares) == pytest.approx(1)
    assert session.overlay is overlay
    expected = demoe.deblur(demoe.LazyImage.from_array(picture), recipe=worker.job.recipe)
    np.testing.assert_array_equal(result.data, expected.image.compute())
    np.testing.assert_array_equal(overlay.data, expected.expert_map.compute())
    np.testing.assert_array_equal(confidence.data, expected.confidence.compute())
    np.testing.assert_allclose(confidence.translate, overlay.translate)
    assert overlay.metadata["demoe"]["provenance"] == result.metadata["demoe"]["provenance"]


def test_cancel_keeps_what_is_done_and_resume_goes_on(session, viewer, worker, picture, computed):
    viewer.add_image(picture, name="photo")
    session.start()
    while session.done < 2:
        worker.step()
    assert len(viewer.layers) == 2
    session.cancel()
    assert session.state == "cancelling"
    assert worker.stopped
    session.start()  # ignored until the worker has stopped
    assert not worker.step()
    assert session.state == "paused"
    assert "2 of 6 tiles" in session.status
    assert viewer.layers[-1].name == "photo deblurred (2 of 6 tiles)"
    assert not np.array_equal(np.asarray(viewer.layers[-1].data), picture)
    assert session.resumable
    computed.clear()
    session.resume()
    worker.finish()
    assert len(computed) == 4  # and none of the others again
    assert session.state == "idle"
    assert [layer.name for layer in viewer.layers][:2] == ["photo", "photo deblurred"]
    expected = demoe.deblur(picture, recipe=worker.job.recipe).image.compute()
    np.testing.assert_array_equal(session.result.data, expected)
    assert not session.resumable


def test_a_run_that_is_stopped_and_left_stays_as_it_is(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    stop_after(session, worker, 1)
    session.start()
    worker.finish()
    assert not session.resumable
    names = [layer.name for layer in viewer.layers]
    assert names[:3] == ["photo", "photo deblurred (1 of 6 tiles)", "photo deblurred"]
    viewer.layers.remove(viewer.layers[1])
    assert session.error == ""


def test_an_error_is_one_sentence_and_keeps_earlier_results(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    session.start()
    worker.finish()
    before = list(viewer.layers)
    notification_manager.records.clear()
    session.choices.model = "no-such-network"
    session.start()
    worker.finish()
    assert (session.state, session.busy) == ("failed", False)
    assert "no-such-network" in session.error
    assert [record.message for record in notification_manager.records] == [session.error]
    assert list(viewer.layers) == before


def test_a_crash_is_told_and_ends_the_run(session, viewer, worker, picture, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    viewer.add_image(picture, name="photo")
    monkeypatch.setattr(demoe, "deblur", broken)
    session.start()
    worker.finish()
    assert (session.state, session.busy) == ("failed", False)
    assert session.error == "ZeroDivisionError: a bug"


def test_nothing_to_deblur_is_told(session):
    session.start()
    assert session.state == "failed"
    assert "no image layer" in session.error
    assert not session.busy


def test_a_bad_choice_is_told_before_anything_starts(session, viewer, picture):
    viewer.add_image(picture)
    session.choices.tile = 7
    session.start()
    assert "tile" in session.error
    assert not session.busy


def test_an_error_goes_with_the_choice_that_it_was_about(session, viewer, picture):
    viewer.add_image(picture)
    session.choose(tile=7)
    session.start()
    assert session.error
    session.choose(tile=64)
    assert (session.state, session.error) == ("idle", "")


def test_what_was_stopped_can_be_resumed_after_an_error(session, viewer, worker, picture):
    viewer.add_image(picture)
    session.start()
    while session.done < 2:
        worker.step()
    session.cancel()
    worker.finish()
    session.choices.tile = 7
    session.start()
    assert session.error
    session.choose(tile=64)
    assert (session.state, session.error) == ("paused", "")
    assert session.resumable


def test_a_painted_map_is_followed(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    session.choices.routing = "painted"
    session.start()
    assert "no layer to take the expert map from" in session.error
    painted = viewer.add_labels(np.full((100, 150), 3, np.uint8), name="mine")
    assert session.painted is painted
    session.start()
    worker.finish()
    assert session.error == ""
    assert np.unique(session.overlay.data).tolist() == [3]


def test_the_map_of_a_result_can_be_painted_on_and_used(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    session.start()
    worker.finish()
    corrected = session.overlay
    corrected.data = np.full_like(corrected.data, 2)
    session.choices.routing = "painted"
    assert session.painted is corrected
    session.start()
    worker.finish()
    assert np.unique(session.overlay.data).tolist() == [2]


def test_a_preview_takes_the_middle_of_the_view_and_replaces_the_last(session, viewer, worker):
    stack = np.random.default_rng(0).integers(0, 255, (3, 40, 700), np.uint8)
    source = viewer.add_image(stack, name="stack", scale=(2, 0.5, 0.5), translate=(1, 2, 3))
    session.choices.tile = 512
    viewer.dims.set_current_step(0, 1)
    viewer.scene.camera.center = (0, 12, 300)  # far to the right
    session.start(preview=True)
    worker.finish()
    assert session.error == ""
    result, _, overlay = viewer.layers[1:]
    assert result.name == "stack preview deblurred"
    assert result.data.shape == (1, 40, 512)
    np.testing.assert_allclose(
        result.data_to_world((0, 0, 0)), source.data_to_world((1, 0, 700 - 512))
    )
    np.testing.assert_allclose(
        overlay.data_to_world((0, -0.5, -0.5)), source.data_to_world((1, -0.5, 700 - 512 - 0.5))
    )
    part = demoe.LazyImage.from_array(stack[1:2, :, 188:], "ZYX")
    expected = demoe.deblur(part, recipe=worker.job.recipe).image.compute()
    np.testing.assert_array_equal(result.data, expected)
    session.start(preview=True)
    worker.finish()
    assert len(viewer.layers) == 4
    assert result not in viewer.layers
    session.start()
    worker.finish()
    assert len(viewer.layers) == 7  # a full result leaves the preview


def test_a_result_on_disk_is_a_layer_like_any_other(
    session, viewer, worker, picture, monkeypatch, tmp_path
):
    monkeypatch.setattr(_worker, "MEMORY_BYTES", 0)
    monkeypatch.setattr("demoe.live.glance.PATIENCE_SECONDS", 0)  # nothing is quick to read
    viewer.add_image(np.stack([picture] * 2), name="stack")
    session.start()
    worker.finish()
    result = viewer.layers["stack deblurred"]
    pixels = np.asarray(result.data)
    assert pixels.any()
    write_layers(str(tmp_path / "out.ome.zarr"), [result.as_layer_data_tuple()])
    back = demoe.open_image(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(back.data.compute(), pixels)
    session.source = result
    session.start()
    worker.finish()
    assert session.error == ""
    assert "stack deblurred deblurred" in viewer.layers


def test_the_script_does_the_same_run(session, viewer, tmp_path, picture):
    path = tmp_path / "photo.tif"
    tifffile.imwrite(path, picture)
    ((data, kwargs, _),) = read(str(path))
    layer = viewer.add_image(data, **kwargs)
    session.choices.routing = "low_light"
    lines = script(session.choices.recipe(), layer)
    assert "routing='low_light'" in lines
    exec(lines, {})
    back = demoe.open_image(tmp_path / "photo_deblurred.ome.zarr")
    expected = demoe.deblur(path, recipe=session.choices.recipe())
    np.testing.assert_array_equal(back.data.compute(), expected.image.compute())


def test_a_place_is_described_in_words(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo", scale=(0.5, 0.5))
    session.choices.routing = "defocus"
    session.start()
    worker.finish()
    assert session.describe_cell((10.0, 10.0)) == "defocus 1.00"
    status = session.overlay.get_status((10.0, 10.0), world=True)
    assert status["value"] == "defocus 1.00"
    assert status["coordinates"].endswith(": defocus 1.00")
    session.overlay.data_setitem((np.array([0]), np.array([0])), 3)
    assert session.describe_cell((10.0, 10.0)) == "local motion, to be applied"
    session.overlay.data_setitem((np.array([0]), np.array([0])), 0)
    assert session.describe_cell((10.0, 10.0)) == "the network decides, to be applied"
    session.overlay.undo()
    session.overlay.undo()
    assert session.describe_cell((1000.0, 10.0)) == ""
    session.overlay.visible = False
    assert session.describe_cell((10.0, 10.0)) == "defocus 1.00"


def test_deleting_the_running_result_cancels(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    session.start()
    while session.done < 1:
        worker.step()
    del viewer.layers[-1]
    assert session.state == "cancelling"
    worker.finish()
    assert [layer.name for layer in viewer.layers] == ["photo"]


def test_closing_stops_the_run_and_forgets_the_viewer(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    session.start()
    while session.done < 1:
        worker.step()
    session.close()
    assert worker.stopped
    worker.finish()
    assert [layer.name for layer in viewer.layers] == ["photo"]
    seen = []
    session.changed.connect(lambda: seen.append(1))
    viewer.add_image(picture)
    assert seen == []


@pytest.mark.parametrize("leave", ["close", "remove"])
def test_maps_of_a_run_that_is_left_go_with_it(session, viewer, worker, leave):
    viewer.add_image(np.zeros((3, 130, 130), np.uint8), name="stack")
    session.scope = "view"
    session.start()
    while session.overlay is None:
        worker.step()
    assert len(viewer.layers) > 3
    if leave == "close":
        session.close()
    else:
        viewer.layers.remove(session.result)
    worker.finish()
    assert [layer.name for layer in viewer.layers] == ["stack"]


def test_that_one_looks_from_afar_is_said(session, viewer, worker, monkeypatch):
    monkeypatch.setattr(_display, "LARGE", 500)
    viewer.add_image(np.zeros((1300, 4100), np.uint8), name="big")
    session.choices.tile = 512
    session.start()
    while not session.total:
        worker.step()
    viewer.layers[-1].data_level = 3
    assert "1 of 64 pixels is seen" in session.status
    viewer.layers[-1].data_level = 0
    assert "afar" not in session.status
    session.cancel()
    worker.finish()


def test_what_is_looked_at_comes_first(session, viewer, worker):
    viewer.add_image(np.zeros((4, 256, 256), np.uint8), name="stack")
    viewer.dims.set_current_step(0, 2)
    viewer.scene.camera.center = (0, 200, 30)
    session.start()
    while session.done < 1:
        worker.step()
    (run,) = session.display.runs.values()
    assert run.done == {(2, 3, 0)}
    viewer.dims.set_current_step(0, 1)
    viewer.scene.camera.center = (0, 10, 240)
    session.tick()
    worker.step()
    assert run.done == {(2, 3, 0), (1, 0, 3)}
    session.cancel()
    worker.finish()


def test_stop_acts_within_a_tile(session, viewer, worker, picture, monkeypatch):
    asked = []

    def check():
        asked.append(session.state)
        if len(asked) == 2:
            session.cancel()
        wanted.check()

    monkeypatch.setattr("demoe.model.kernels.deconvolution.check", check)
    session.choices.psf = {"sigma": 1.5}
    viewer.add_image(picture, name="photo")
    session.start()
    worker.finish()
    assert asked == ["running", "running"]
    assert session.error == ""
    assert session.status == "Cancelled before a tile was done."
    session.start()  # what was found so far does no harm
    worker.finish()
    assert session.status.startswith("Done in")


def test_only_what_is_in_view_is_computed_and_shown_at_once(session, viewer, worker):
    stack = np.random.default_rng(0).integers(0, 255, (3, 130, 260), np.uint8)
    viewer.add_image(stack, name="stack")
    viewer.dims.set_current_step(0, 1)
    session.scope = "view"
    session.start()
    source = viewer.layers[0]
    while session.overlay is None:
        worker.step()
    (run,) = session.display.runs.values()
    assert {where[0] for where in run.done} == {1}
    assert session.busy  # and waits for another view
    assert "look elsewhere" in session.status
    assert (session.overlay.data[1] > 0).all()
    assert not session.overlay.data[0].any()
    result = viewer.layers["stack deblurred (15 of 45 tiles)"]
    viewer.dims.set_current_step(0, 2)
    session.tick()
    before = len(run.done)
    worker.step()
    assert (session.done, session.total) == (0, 15)  # said before the first tile is done
    assert "tile 1 of 15" in session.status
    while len(run.done) < before + 15:
        worker.step()
    for _ in range(3):
        worker.step()
    assert (session.overlay.data[2] > 0).all()
    assert result.name == "stack deblurred (30 of 45 tiles)"
    session.cancel()
    worker.finish()
    assert session.state == "paused"
    expected = demoe.deblur(stack, "ZYX", recipe=worker.job.recipe).image.compute()
    found = np.asarray(result.data)
    np.testing.assert_array_equal(found[1:], expected[1:])
    np.testing.assert_array_equal(found[0], np.asarray(source.data)[0])


def test_a_region_is_framed_by_shapes(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo", scale=(0.5, 0.5), translate=(3, 4))
    session.scope = "region"
    session.start()
    assert "no shape" in session.error
    corners = np.array([[70, 70], [70, 100], [90, 100], [90, 70]])
    viewer.add_shapes([corners], shape_type="rectangle", scale=(0.5, 0.5), translate=(3, 4))
    session.start()
    worker.finish()
    assert session.error == ""
    (run,) = session.display.runs.values()
    assert run.done == {(1, 1)}
    assert (session.overlay.data > 0).sum() == 1
    assert viewer.layers[2].name == "photo deblurred (1 of 6 tiles)"


def test_a_large_plane_is_shown_by_levels_and_its_tiles_go_with_its_layer(
    session, viewer, worker, monkeypatch, tmp_path
):
    monkeypatch.setattr(_display, "LARGE", 500)
    monkeypatch.setattr(_worker, "MEMORY_BYTES", 0)
    big = np.random.default_rng(0).integers(0, 255, (100, 600), np.uint8)
    viewer.add_image(big, name="big")
    session.folder = str(tmp_path)
    session.start()
    worker.finish()
    result = session.result
    assert result.multiscale
    assert [level.shape for level in result.data] == [(100, 600), (50, 300)]
    assert len(list(tmp_path.iterdir())) == 1
    viewer.layers.remove(result)
    assert not list(tmp_path.iterdir())


def test_tiles_that_are_kept_for_an_output_can_be_finished_elsewhere(
    session, viewer, worker, picture, tmp_path
):
    path, target = tmp_path / "photo.tif", tmp_path / "out.ome.zarr"
    tifffile.imwrite(path, picture)
    ((data, kwargs, _),) = read(str(path))
    viewer.add_image(data, **kwargs)
    session.output = str(target)
    stop_after(session, worker, 2)
    report = demoe.run(path, target, worker.job.recipe, resume=True)
    assert report.computed == report.tiles - 2


def test_running_again_for_the_same_output_goes_on_with_the_stopped_run(
    session, viewer, worker, picture, tmp_path, computed
):
    viewer.add_image(picture, name="photo (1)")
    session.output = str(tmp_path / "out.ome.zarr")
    stop_after(session, worker, 2)
    session.choices.routing = "defocus"
    session.start()
    assert "keeps its tiles" in session.error
    assert session.resumable
    assert viewer.layers[-1].name == "photo (1) deblurred (2 of 6 tiles)"
    session.choices.routing = "auto"
    computed.clear()
    session.start()
    worker.finish()
    assert (session.state, session.error) == ("idle", "")
    assert len(computed) == 4
    assert session.result.name == "photo (1) deblurred"


def test_a_stopped_run_can_go_on_after_a_correction_that_says_nothing_new(
    session, viewer, worker, picture
):
    viewer.add_image(picture, name="first")
    session.start()
    worker.finish()
    viewer.add_image(picture[::-1].copy(), name="second")
    session.source = viewer.layers["second"]
    stop_after(session, worker, 1)
    assert session.state == "paused"
    session.correct()
    assert "Nothing to apply" in session.status
    assert session.state == "paused"
    session.resume()
    worker.finish()
    assert session.result.name == "second deblurred"


def test_a_complaint_before_a_run_leaves_the_stopped_one_alone(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    stop_after(session, worker, 1)
    session.choices.psf = "radius=two"
    session.start()
    assert "not understood" in session.error
    assert session.resumable
    assert viewer.layers[-1].name == "photo deblurred (1 of 6 tiles)"


def test_a_known_psf_is_undone_without_the_network(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    session.choices.psf = "radius=2"
    session.start()
    worker.finish()
    assert session.error == ""
    expected = demoe.deblur(picture, psf={"radius": 2}).image.compute()
    np.testing.assert_array_equal(session.result.data, expected)
    assert session.shares[0] == 1
    assert "psf={'radius': 2.0}" in session.script()
    session.choices.psf = "radius=two"
    session.start()
    assert "not understood" in session.error
    assert session.script() == ""
