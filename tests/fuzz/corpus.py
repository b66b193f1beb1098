"""One sound file of each kind, small; what is malicious is made of them by `mutators`."""

import json
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import torch
import zarr
from PIL import Image
from safetensors.torch import load_file
from tiny import tiny_weights

from demoe.image.lazy_image import LazyImage
from demoe.io import write_image
from demoe.recipe import Recipe

SECRET = "secret"
"""Name of the folder beside the cases that nothing may be read from."""

PIXELS = np.random.default_rng(1).integers(0, 60_000, (72, 100), np.uint16)
BYTES = (PIXELS >> 8).astype(np.uint8)
STACK = np.stack([PIXELS, PIXELS[::-1], PIXELS // 2])


def tiff(path: Path, pixels: np.ndarray = PIXELS, **options: object) -> None:
    tifffile.imwrite(path, pixels, **options)


def ome_tiff(path: Path) -> None:
    image = LazyImage.from_array(STACK, "CYX", channel_names=("a", "b", "c"))
    write_image(path, image)


def ome_tiff_set(path: Path) -> None:
    """Write a TIFF whose second plane lies in another one."""
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        'SizeX="100" SizeY="72" SizeZ="2" SizeC="1" SizeT="1" PhysicalSizeX="0.2"><Channel '
        'ID="Channel:0:0"/><TiffData IFD="0" FirstZ="0" PlaneCount="1"/><TiffData IFD="0" '
        'FirstZ="1" PlaneCount="1"><UUID FileName="second.tif">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(path, PIXELS, description=xml, metadata=None)
    tifffile.imwrite(path.with_name("second.tif"), PIXELS[::-1])


def plain_zarr(path: Path, version: int = 3, **options: object) -> None:
    zarr.create_array(path, data=PIXELS, chunks=(24, 50), zarr_format=version, **options)


def old_ome_zarr(path: Path) -> None:
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", data=STACK, chunks=(1, 36, 50))
    axes = [{"name": n, "type": t} for n, t in (("c", "channel"), ("y", "space"), ("x", "space"))]
    scale = [{"type": "scale", "scale": [1, 0.5, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    group.attrs["omero"] = {"channels": [{"label": name} for name in "abc"]}


def ome_zarr(path: Path) -> None:
    experts = LazyImage.from_array(np.ones((2, 2), np.uint8))
    write_image(path, LazyImage.from_array(PIXELS), experts=experts, provenance={"recipe": {}})


def weights(path: Path) -> None:
    tiny_weights(path)


def torch_weights(path: Path, **options: object) -> None:
    tiny_weights(path.with_suffix(".safetensors"))
    torch.save({"params": load_file(path.with_suffix(".safetensors"))}, path, **options)
    path.with_suffix(".safetensors").unlink()


def folder(path: Path) -> None:
    path.mkdir()
    for number in range(3):
        (path / f"b{number}.png").write_bytes(imagecodecs.png_encode(PIXELS))


MAKERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "plain.tif": ("image", lambda p: tiff(p, STACK, photometric="minisblack")),
    "tiles.tif": ("image", lambda p: tiff(p, tile=(32, 48), compression="zlib")),
    "strips.tif": ("image", lambda p: tiff(p, rowsperstrip=9, compression="lzw", predictor=True)),
    "big.tif": ("image", lambda p: tiff(p, bigtiff=True, compression="zstd", rowsperstrip=20)),
    "jpeg.tif": ("image", lambda p: tiff(p, BYTES, compression="jpeg", tile=(32, 48))),
    "jpeg2000.tif": ("image", lambda p: tiff(p, BYTES, compression="jpeg2000", tile=(64, 64))),
    "webp.tif": ("image", lambda p: tiff(p, np.stack([BYTES] * 3, -1), compression="webp")),
    "imagej.tif": ("image", lambda p: tiff(p, STACK, imagej=True)),
    "written.ome.tif": ("image", ome_tiff),
    "set.ome.tif": ("image", ome_tiff_set),
    "8.png": ("image", lambda p: p.write_bytes(imagecodecs.png_encode(BYTES))),
    "16.png": ("image", lambda p: p.write_bytes(imagecodecs.png_encode(PIXELS))),
    "photo.jpg": ("image", lambda p: Image.fromarray(BYTES).save(p, quality=80)),
    "photo.bmp": ("image", lambda p: Image.fromarray(BYTES).save(p)),
    "photo.webp": ("image", lambda p: Image.fromarray(BYTES).save(p)),
    "folder": ("image", folder),
    "three.zarr": ("image", plain_zarr),
    "sharded.zarr": ("image", lambda p: plain_zarr(p, shards=(48, 100))),
    "gzip.zarr": ("image", lambda p: plain_zarr(p, compressors=zarr.codecs.GzipCodec())),
    "two.zarr": ("image", lambda p: plain_zarr(p, 2)),
    "old.ome.zarr": ("image", old_ome_zarr),
    "written.ome.zarr": ("image", ome_zarr),
    "weights.safetensors": ("weights", weights),
    "weights.pt": ("weights", torch_weights),
    "older.pth": ("weights", lambda p: torch_weights(p, _use_new_zipfile_serialization=False)),
    "recipe.json": ("recipe", lambda p: p.write_text(Recipe(psf={"sigma": 2.0}).to_json())),
    "known.json": ("recipe", lambda p: p.write_text(json.dumps({"psf": [[0, 1], [2, 3]]}))),
    "map.tif": ("map", lambda p: tiff(p, np.ones((4, 5), np.uint8), resolution=(1, 1))),
    "map.zarr": ("map", lambda p: zarr.create_array(p, data=np.ones((4, 5), np.uint8)) and None),
    "psf.tif": ("psf", lambda p: tiff(p, np.ones((9, 9), np.float32))),
    "psf.png": ("psf", lambda p: p.write_bytes(imagecodecs.png_encode(BYTES[:9, :9]))),
    "psf.txt": ("words", lambda p: p.write_text("na=1.4, wavelength=0.52, pixel=0.1")),
    "result.demoe.json": ("record", lambda p: p.write_text('{"recipe": {}, "weights": {}}')),
}
"""By name: how it is read, and what writes it."""


def build(place: Path) -> None:
    """Write every file into a folder of its name, and the secret that some will ask for."""
    for name, (_, make) in MAKERS.items():
        (place / "corpus" / name).mkdir(parents=True)
        make(place / "corpus" / name / name)
    (place / SECRET).mkdir()
    tifffile.imwrite(place / SECRET / "a.tif", PIXELS)
    plain_zarr(place / SECRET / "a.zarr")
