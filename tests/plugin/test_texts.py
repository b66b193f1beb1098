"""Copied texts do the same run without the viewer: they are executed, and the results compared."""

import shlex
import sys

import numpy as np
import pytest
import tifffile

import demoe
from demoe.cli import main
from napari_demoe._reader import read

WINDOWS = sys.platform == "win32"


@pytest.fixture
def opened(session, viewer, tmp_path):
    """A file in the viewer, as the source of the session."""
    rows, columns = np.mgrid[:100, :150]
    picture = (127 + 100 * np.sin(rows / 7.0) * np.cos(columns / 11.0)).astype(np.uint8)
    path = tmp_path / "a photo's.tif"  # a name that wants quotes
    tifffile.imwrite(path, picture)
    ((data, kwargs, _),) = read(str(path))
    return viewer.add_image(data, **kwargs)


def call(text):
    """Run a copied command line as a shell would split it."""
    words = shlex.split(text, comments=True)
    assert words[0] == "demoe"
    assert main([*words[1:], "--quiet"]) == 0


CHOSEN = [
    {},
    {"routing": "low_light", "top_k": 2},
    {"routing": "local", "photometry": "preserve", "skip_flat": True, "pitch": 32, "window": 64},
    {"intensity": (-10.0, 300.5), "temperature": 2.0, "smoothing": 1, "precision": "full"},
    {"psf": "sigma=1.5"},
    {"psf": "none", "pooling": "tile", "halo": 32},
]


@pytest.mark.skipif(WINDOWS, reason="is quoted as Windows wants it")
@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: "-".join(chosen) or "default")
def test_both_texts_give_what_the_widget_gives(session, worker, opened, tmp_path, chosen):
    session.choose(**chosen)
    session.start()
    worker.finish()
    assert session.error == ""
    wanted = np.asarray(session.result.data)
    target = tmp_path / "a photo's_deblurred.ome.zarr"
    exec(session.script(), {})
    np.testing.assert_array_equal(demoe.open_image(target).data.compute(), wanted)
    call(session.command().rstrip() + " --overwrite")
    np.testing.assert_array_equal(demoe.open_image(target).data.compute(), wanted)


@pytest.mark.skipif(WINDOWS, reason="is quoted as Windows wants it")
def test_a_psf_from_a_file_is_called_by_its_name(session, worker, opened, tmp_path):
    side = np.arange(9) - 4
    spot = np.exp(-(side[:, None] ** 2 + side**2) / 4).astype(np.float32)
    tifffile.imwrite(tmp_path / "psf.tif", spot)
    session.choose(psf=str(tmp_path / "psf.tif"))
    session.start()
    worker.finish()
    wanted = np.asarray(session.result.data)
    target = tmp_path / "a photo's_deblurred.ome.zarr"
    for text in (session.script(), session.command()):
        assert "psf.tif" in text
        assert len(text) < 1000
    exec(session.script(), {})
    np.testing.assert_array_equal(demoe.open_image(target).data.compute(), wanted)
    call(session.command().rstrip() + " --overwrite")
    np.testing.assert_array_equal(demoe.open_image(target).data.compute(), wanted)
    session.choose(psf=tuple(map(tuple, spot.tolist())))
    assert session.command() == ""
    assert "too long for a command line" in session.error


@pytest.mark.skipif(WINDOWS, reason="is quoted as Windows wants it")
def test_a_painted_map_is_named_and_followed(
    session, viewer, worker, opened, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    painted = np.zeros((100, 150), np.uint8)
    painted[:, :70] = 3
    viewer.add_labels(painted, name="mine")
    session.choose(routing="painted")
    session.start()
    worker.finish()
    wanted = np.asarray(session.result.data)
    tifffile.imwrite(tmp_path / "map.tif", painted)
    lines = session.script()
    assert lines.splitlines()[0] == "# First save the layer 'mine' as map.tif"
    target = tmp_path / "a photo's_deblurred.ome.zarr"
    exec(lines, {})
    np.testing.assert_array_equal(demoe.open_image(target).data.compute(), wanted)
    call(session.command().rstrip() + " --overwrite")
    np.testing.assert_array_equal(demoe.open_image(target).data.compute(), wanted)


@pytest.mark.skipif(WINDOWS, reason="is quoted as Windows wants it")
@pytest.mark.parametrize("how", ["script", "command"])
def test_tiles_that_are_kept_are_used_by_the_texts(
    session, worker, opened, tmp_path, computed, how
):
    target = tmp_path / "kept.ome.zarr"
    session.choose(output=str(target), routing="image")
    session.start()
    while session.done < 2:
        worker.step()
    session.cancel()
    worker.finish()
    text = getattr(session, how)()
    session._viewer.layers.clear()  # as the viewer is closed
    computed.clear()
    if how == "script":
        exec(text, {})
    else:
        call(text)
    assert len(computed) == 4  # of six
    expected = demoe.deblur(tmp_path / "a photo's.tif", recipe=worker.job.recipe)
    np.testing.assert_array_equal(demoe.open_image(target).data.compute(), expected.image.compute())


def test_nothing_is_written_without_an_image(session):
    assert session.script() == session.command() == ""
