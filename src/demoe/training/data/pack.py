"""The training pack: sharp crops of many pictures in one safetensors file.

Crops are kept as JPEG bytes, so that a pack of a few thousand of them stays small, and every
source picture is listed in the file's metadata with its origin, licence and author.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from demoe.errors import ImageError

KINDS = ("photo", "microscopy")
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".svs", ".webp", ".bmp")
LONG_SIDES = (1600, 1000, 700)
MIN_SHARPNESS = 200.0
MIN_CROPS = 10
HELD_OUT_SHARE = 0.12
CUTOUT_SIDE = 128
LISTING = "LICENSES.tsv"
"""A table in a folder of pictures that says where each of them is from, and on which terms: columns
file, repository, original, licence, author. Files below ``microscopy/`` are of that kind."""
_FORMAT = "demoe-training-pack-1"
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class PackSource:
    """One picture that crops were cut from.

    Parameters
    ----------
    name : str
        File name, unique enough to tell pictures apart; the held-out split hashes it.
    package, licence, author : str
        Where the picture comes from and on which terms, as its package states them.
    kind : str
        ``"photo"`` or ``"microscopy"``.
    """

    name: str
    package: str = "local file"
    licence: str = "not stated"
    author: str = "not stated"
    kind: str = "photo"

    def __post_init__(self) -> None:
        """Refuse a kind that is not known."""
        if self.kind not in KINDS:
            raise ImageError(f"the kind of {self.name} is {self.kind!r}; it is one of {KINDS}")


@dataclass(frozen=True)
class SourceFile:
    """A picture on disk together with what is known about it."""

    path: Path
    source: PackSource


@dataclass(frozen=True)
class PackReport:
    """What `make_pack` wrote: crops a source, cut-outs, and the size of the file in bytes."""

    path: Path
    crops: dict[str, int]
    cutouts: int
    size: int

    @property
    def n_crops(self) -> int:
        """Number of crops in the pack."""
        return sum(self.crops.values())


@dataclass(frozen=True, eq=False)
class Pack:
    """A decoded training pack.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, crop, crop, 3)
        Sharp RGB crops, 0..255.
    source : ndarray of int32, shape (n,)
        Index into `sources` of every crop.
    kind : ndarray of uint8, shape (n,)
        0 photo, 1 microscopy.
    sources : tuple of PackSource
        The pictures the crops come from.
    cutouts : tuple of ndarray of uint8, each (h, w, 4)
        RGBA objects on a transparent ground, for blur of moving objects.
    cutout_sources : tuple of PackSource
        Where each cut-out comes from.
    """

    images: NDArray[np.uint8]
    source: NDArray[np.int32]
    kind: NDArray[np.uint8]
    sources: tuple[PackSource, ...]
    cutouts: tuple[NDArray[np.uint8], ...] = ()
    cutout_sources: tuple[PackSource, ...] = field(default=())

    @property
    def held_out_sources(self) -> tuple[int, ...]:
        """Indices of the source pictures that no training step may see."""
        counts = np.bincount(self.source, minlength=len(self.sources))
        return held_out(self.sources, counts.tolist())

    @property
    def is_held_out(self) -> NDArray[np.bool_]:
        """Mask of shape (n,): True for crops of held-out pictures."""
        return np.isin(self.source, np.asarray(self.held_out_sources, dtype=np.int32))

    @property
    def train(self) -> NDArray[np.intp]:
        """Indices of the crops to train on."""
        return np.flatnonzero(~self.is_held_out)

    @property
    def validation(self) -> NDArray[np.intp]:
        """Indices of the held-out crops."""
        return np.flatnonzero(self.is_held_out)


def make_pack(
    folders_or_files: Iterable[Path | str | SourceFile],
    out: Path | str,
    *,
    crop: int = 192,
    max_bytes: int = 48_000_000,
    seed: int = 0,
    cutouts: Iterable[Path | str | SourceFile] = (),
) -> PackReport:
    """Cut sharp crops out of pictures and write them as one safetensors file.

    Each picture is taken at long sides of about 1600, 1000 and 700 px (never enlarged) and cut on
    a grid without overlap. A crop stays when the variance of the Laplacian of its luminance
    (0..255) is above 200, when it is neither flat nor largely clipped, and when no crop that looks
    the same is in the pack already. Microscopy is stretched to its own range, and stays where there
    is some contrast and little is saturated: cells are smooth and lie on black, and a network has
    to learn that they do.

    Parameters
    ----------
    folders_or_files : iterable of path or SourceFile
        Pictures, folders of pictures (with a `LISTING` or not), or zip archives of pictures.
    out : path
        The ``.safetensors`` file to write.
    crop : int
        Side of the square crops in pixels.
    max_bytes : int
        Upper bound of the JPEG bytes of all crops; above it every picture loses crops in turn.
    seed : int
        Decides which crops go when there are too many.
    cutouts : iterable of path or SourceFile
        RGBA pictures of objects on a transparent ground; stored at 128 px or less.

    Returns
    -------
    PackReport

    Raises
    ------
    ImageError
        A picture is missing or unreadable, or fewer than 10 crops are usable.
    """
    sources: list[PackSource] = []
    crops_of: list[list[bytes]] = []
    seen: list[NDArray[np.float32]] = []
    for source, picture in _pictures(folders_or_files):
        kept: list[bytes] = []
        is_usable = _is_usable
        picture = _as_rgb(picture, source.name)
        if source.kind == "microscopy":
            picture, is_usable = _stretched(picture), _has_contrast
        for candidate in _crops(picture, crop):
            sketch = _sketch(candidate)
            if is_usable(candidate) and not _is_known(sketch, seen):
                seen.append(sketch)
                kept.append(_jpeg(candidate))
        if kept:
            sources.append(source)
            crops_of.append(kept)
    chosen = _fit(crops_of, max_bytes, seed)
    if len(chosen) < MIN_CROPS:
        raise ImageError(
            f"only {len(chosen)} sharp crops of {crop} px were found, and a training pack needs at "
            f"least {MIN_CROPS}: give more, larger or sharper pictures"
        )
    objects, object_sources = _read_cutouts(cutouts)

    images, offsets = _joined([crops_of[s][c] for s, c in chosen])
    object_bytes, object_offsets = _joined(objects)
    tensors: dict[str, NDArray[Any]] = {
        "images": images,
        "offsets": offsets,
        "source": np.array([s for s, _ in chosen], dtype=np.int32),
        "kind": np.array([KINDS.index(sources[s].kind) for s, _ in chosen], dtype=np.uint8),
        "cutouts": object_bytes,
        "cutout_offsets": object_offsets,
    }
    about = {
        "crop": crop,
        "sources": [asdict(source) for source in sources],
        "cutout_sources": [asdict(source) for source in object_sources],
    }
    path = Path(out)
    # One key only: safetensors keeps no order of keys, and equal packs should be equal files.
    _write(path, tensors, {_FORMAT: json.dumps(about)})
    counts = {source.name: 0 for source in sources}
    for s, _ in chosen:
        counts[sources[s].name] += 1
    return PackReport(path, counts, len(objects), path.stat().st_size)


def load_pack(path: Path | str) -> Pack:
    """Read and decode a training pack.

    Parameters
    ----------
    path : path
        A file written by `make_pack`.

    Returns
    -------
    Pack

    Raises
    ------
    ImageError
        The file is missing or is not a training pack.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"there is no training pack at {path}; make one with make_pack")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _FORMAT not in metadata:
                raise ImageError(f"{path} is a safetensors file but not a training pack")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ImageError(f"{path} is not a readable training pack: {error}") from error
    try:
        about = json.loads(metadata[_FORMAT])
        images = _decoded(tensors["images"], tensors["offsets"], "RGB", path)
        pack = Pack(
            images=np.stack(images),
            source=tensors["source"],
            kind=tensors["kind"],
            sources=tuple(PackSource(**entry) for entry in about["sources"]),
            cutouts=tuple(_decoded(tensors["cutouts"], tensors["cutout_offsets"], "RGBA", path)),
            cutout_sources=tuple(PackSource(**entry) for entry in about["cutout_sources"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{path} is not a complete training pack: {error}") from error
    if not len(pack.images) == len(pack.source) == len(pack.kind):
        raise ImageError(
            f"{path} is not a complete training pack: it has {len(pack.images)} crops, but sources "
            f"of {len(pack.source)}"
        )
    return pack


def _decoded(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], mode: str, path: Path
) -> list[NDArray[np.uint8]]:
    """Decode all pictures of a pack; the error names the first that cannot be read."""
    pictures = []
    for number, one in enumerate(_parts(data, offsets)):
        try:
            pictures.append(np.asarray(Image.open(io.BytesIO(one)).convert(mode)))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ImageError(
                f"picture {number} of the training pack {path} cannot be read; make the pack anew"
            ) from error
    return pictures


def held_out(sources: Sequence[PackSource], counts: Sequence[int]) -> tuple[int, ...]:
    """Choose the source pictures to hold out of training, from their names alone.

    About 12 % of the crops of each kind are held out, whole pictures at a time, in the order of
    the SHA-256 of the file names: at least two photos and one microscopy picture, as long as one
    of the kind is left to train on.

    Parameters
    ----------
    sources : sequence of PackSource
        The pictures.
    counts : sequence of int
        Crops of each picture.

    Returns
    -------
    tuple of int
        Sorted indices into `sources`.
    """
    chosen: list[int] = []
    for kind, least in zip(KINDS, (2, 1), strict=True):
        members = [i for i, source in enumerate(sources) if source.kind == kind]
        members.sort(key=lambda i: hashlib.sha256(sources[i].name.encode()).hexdigest())
        goal = HELD_OUT_SHARE * sum(counts[i] for i in members)
        taken: list[int] = []
        held = 0
        for i in members:
            if held < goal and held + counts[i] <= 1.25 * goal:
                taken.append(i)
                held += counts[i]
        # Few or very uneven pictures: the smallest ones fill up the least number.
        for i in sorted(members, key=lambda i: counts[i]):
            if len(taken) < min(least, len(members) - 1) and i not in taken:
                taken.append(i)
        chosen += taken
    return tuple(sorted(chosen))


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the luminance of an RGB image (H, W, 3), 0..255."""
    y = image.astype(np.float32) @ _LUMA
    neighbours = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:]
    return float((neighbours - 4 * y[1:-1, 1:-1]).var())


def _pictures(
    items: Iterable[Path | str | SourceFile],
) -> Iterator[tuple[PackSource, Image.Image]]:
    for item in items:
        if isinstance(item, SourceFile):
            yield item.source, _open(item.path, item.path.name)
            continue
        path = Path(item)
        if path.is_dir():
            known = _listed(path)
            for file in sorted(path.rglob("*")):
                if file.suffix.lower() in SUFFIXES:
                    yield known.get(file, PackSource(file.name)), _open(file, str(file))
        elif path.suffix.lower() == ".zip" and path.is_file():
            yield from _zipped(path)
        else:
            yield PackSource(path.name), _open(path, str(path))


def _listed(folder: Path) -> dict[Path, PackSource]:
    """Read where the pictures of a folder are from, if a table in it says so."""
    table = folder / LISTING
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        return {
            folder / row["file"]: PackSource(
                name=row["file"],
                package=f"{row['repository']}: {row['original']}",
                licence=row["licence"] or "not stated",
                author=row["author"] or "not stated",
                kind="microscopy" if row["file"].startswith("microscopy/") else "photo",
            )
            for row in rows
        }
    except (KeyError, TypeError) as error:
        raise ImageError(
            f"{table} lacks a column ({error}); it has file, repository, original, licence and "
            "author, parted by tabs."
        ) from None


def _zipped(path: Path) -> Iterator[tuple[PackSource, Image.Image]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in SUFFIXES:
                    data = io.BytesIO(archive.read(name))
                    yield PackSource(Path(name).name), _open(data, f"{name} in {path}")
    except zipfile.BadZipFile as error:
        raise ImageError(f"{path} is not a readable zip archive of pictures") from error


def _open(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        # From memory, so that no file stays open, whatever happens while decoding.
        data = file if isinstance(file, io.BytesIO) else io.BytesIO(file.read_bytes())
        picture = Image.open(data)
        if picture.format == "JPEG":
            # Decoding a huge photo at a fraction of its size is faster and no less sharp.
            picture.draft("RGB", (LONG_SIDES[0], LONG_SIDES[0]))
        picture.load()
        return picture
    except FileNotFoundError as error:
        raise ImageError(f"there is no picture at {name}") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ImageError(f"{name} is not a readable picture") from error


def _as_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float64)
        low, high = np.percentile(values, (0.1, 99.9))
        if not high > low:
            raise ImageError(f"{name} has one gray level only; give a picture with content")
        scaled = np.clip((values - low) / (high - low), 0, 1)
        picture = Image.fromarray(np.rint(255 * scaled).astype(np.uint8))
    return picture.convert("RGB")


def _crops(picture: Image.Image, crop: int) -> Iterator[NDArray[np.uint8]]:
    long_side = max(picture.size)
    sides = [side for side in LONG_SIDES if side < long_side]
    if long_side <= LONG_SIDES[0]:
        sides.insert(0, long_side)
    for side in sides:
        factor = side / long_side
        width, height = (round(length * factor) for length in picture.size)
        scaled = picture
        if side != long_side:
            scaled = picture.resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(scaled)
        top, left = (height % crop) // 2, (width % crop) // 2
        for y in range(top, height - crop + 1, crop):
            for x in range(left, width - crop + 1, crop):
                yield pixels[y : y + crop, x : x + crop]


def _is_usable(image: NDArray[np.uint8]) -> bool:
    luminance = image.astype(np.float32) @ _LUMA
    clipped = np.mean((luminance <= 4) | (luminance >= 250))
    return bool(clipped < 0.25 and luminance.std() > 12 and sharpness(image) > MIN_SHARPNESS)


def _has_contrast(image: NDArray[np.uint8]) -> bool:
    """Tell whether a crop of microscopy shows something, and hardly anything saturated."""
    luminance = image.astype(np.float32) @ _LUMA
    low, high = np.percentile(luminance, (2, 99.5))
    return bool(high - low > 25 and luminance.std() > 5 and np.mean(luminance >= 252) < 0.03)


def _stretched(picture: Image.Image) -> Image.Image:
    """Stretch a gray picture to nearly all of the range; coloured ones stay."""
    values = np.asarray(picture).astype(np.float32)
    low, high = np.percentile(values, (0.1, 99.9))
    if np.ptp(values, axis=2).max() >= 3 or high - low <= 8:
        return picture
    scaled = np.clip((values - low) / (high - low) * 245, 0, 255)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _sketch(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Make a unit vector of 16 x 16 block means, for finding near-duplicates."""
    small = Image.fromarray(image).convert("L").resize((16, 16), Image.Resampling.BOX)
    vector = np.asarray(small).astype(np.float32).ravel()
    vector -= vector.mean()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), dtype=np.float32)


def _is_known(sketch: NDArray[np.float32], seen: list[NDArray[np.float32]]) -> bool:
    return bool(seen) and float(np.max(np.stack(seen) @ sketch)) > 0.97


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0, optimize=True)
    return buffer.getvalue()


def _fit(crops_of: list[list[bytes]], max_bytes: int, seed: int) -> list[tuple[int, int]]:
    """Choose (source, crop) pairs within the budget, one of each source in turn."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(crops)) for crops in crops_of]
    turns = sorted((turn, s) for s, order in enumerate(orders) for turn in range(len(order)))
    chosen: list[tuple[int, int]] = []
    used = 0
    for turn, s in turns:
        c = int(orders[s][turn])
        used += len(crops_of[s][c])
        if used > max_bytes:
            break
        chosen.append((s, c))
    return sorted(chosen)


def _read_cutouts(
    items: Iterable[Path | str | SourceFile],
) -> tuple[list[bytes], list[PackSource]]:
    objects: list[bytes] = []
    sources: list[PackSource] = []
    for source, picture in _pictures(items):
        rgba = picture.convert("RGBA")
        box = rgba.getchannel("A").point([0] * 128 + [255] * 128).getbbox()
        if box is None or rgba.getchannel("A").getextrema() == (255, 255):
            raise ImageError(
                f"{source.name} has no object on a transparent ground; a cut-out needs alpha"
            )
        rgba = rgba.crop(box)
        rgba.thumbnail((CUTOUT_SIDE, CUTOUT_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        rgba.save(buffer, "PNG", optimize=True)
        objects.append(buffer.getvalue())
        sources.append(source)
    return objects, sources


def _joined(parts: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return np.frombuffer(b"".join(parts), dtype=np.uint8), offsets


def _parts(joined: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[bytes]:
    pairs = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return [joined[start:stop].tobytes() for start, stop in pairs]


def _write(path: Path, tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
