"""Names of network weights, and the files they stand for.

Three kinds: *bundled* with the package, *released* by others and downloaded on request, and
*imported* from a file by a person under a name of their own. Loads no torch, except to check a file
that is imported.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from demoe.errors import OutputError, WeightsError
from demoe.model.download import Progress, RemoteFile, fetch, sha256_of

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Release:
    """Weights that somebody else has published.

    Attributes
    ----------
    file : RemoteFile
        Address, size and checksum of the file.
    summary, license : str
        What it is, and its licence (SPDX) with whom to credit.
    """

    file: RemoteFile
    summary: str
    license: str

    @property
    def suffix(self) -> str:
        """Suffix of the published file, such as ``.pt``."""
        return Path(self.file.url).suffix


@dataclass(frozen=True)
class ModelInfo:
    """One set of weights that has a name.

    Attributes
    ----------
    name : str
        What ``load_model`` and ``Recipe(model=...)`` take.
    summary, license : str
        One line each; the licence is empty where a person imported the file.
    path : Path
        Where the file is, or will be once it is downloaded.
    size : int
        Bytes of the file, 0 where it is not known.
    available : bool
        Whether it can be used now, without a connection.
    url : str or None
        Where it is downloaded from.
    """

    name: str
    summary: str
    license: str
    path: Path
    size: int
    available: bool
    url: str | None = None


BUNDLED = {
    "default": (
        "Small DeMoE network trained for this package; comes with it.",
        "BSD-3-Clause",
    ),
}

RELEASES = {
    "demoe": Release(
        RemoteFile(
            url="https://huggingface.co/spaces/Cidaut/DeMoE/resolve/main/DeMoE.pt",
            size=80_848_778,
            sha256="5b0aef148ffcb1a5572b4da6cbd33f86ed2e18639db28b46838aae46bcd011a5",
        ),
        summary="The published DeMoE network (arXiv 2508.06228), 20 million parameters.",
        license="CC-BY-SA-4.0, by the DeMoE authors (Cidaut)",
    ),
}


def cache_dir() -> Path:
    """Return the folder of downloaded and imported weights: ``DEMOE_CACHE`` or the user's cache."""
    if folder := os.environ.get("DEMOE_CACHE"):
        return Path(folder).expanduser()
    return user_cache_path("demoe", appauthor=False)


def list_models() -> list[ModelInfo]:
    """Return all weights that have a name: bundled, released, then imported, by name."""
    return [
        *(_bundled(name) for name in BUNDLED),
        *(_released(name) for name in RELEASES),
        *_imported(),
    ]


def weights_path(name_or_path: str | Path) -> Path:
    """Return the file of some weights.

    Parameters
    ----------
    name_or_path : str or Path
        A name that `list_models` gives, or the path of a ``.safetensors`` or published ``.pt``
        file. A name wins over a file of the same name in the working directory.

    Raises
    ------
    WeightsError
        There is no such name or file, or the weights are not downloaded yet.
    """
    models = {model.name: model for model in list_models()}
    if isinstance(name_or_path, str) and (model := models.get(name_or_path)):
        if model.available:
            return model.path
        if name_or_path in RELEASES:
            raise WeightsError(
                f"The weights {name_or_path!r} are not on this machine; "
                f"get them with `demoe models download {name_or_path}` ({model.license})."
            )
        raise WeightsError(
            f"The weights {name_or_path!r} are missing from this installation; "
            "install napari-demoe again."
        )
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    raise WeightsError(
        f"There are no weights at {str(name_or_path)!r}; give the path of a file or one of these "
        f"names: {', '.join(models)}."
    )


def download(name: str, *, progress: Progress | None = None, force: bool = False) -> Path:
    """Bring released weights to this machine, and return their file.

    Goes on where an earlier download was cut off. Weights that are here already need no connection.
    ``DEMOE_MIRROR`` replaces the folder part of the address.

    Parameters
    ----------
    name : str
        A name that `list_models` gives.
    progress : callable, optional
        ``progress(done, total, message)`` with bytes; what it raises stops the download.
    force : bool
        Download again what is here already; the old file stays until the new one is complete.

    Raises
    ------
    WeightsError
        The name is unknown, or the file cannot be fetched whole and right.
    OutputError
        The cache folder cannot be written.
    """
    if name not in RELEASES:
        return weights_path(name)
    model, release = _released(name), RELEASES[name]
    if model.available and not force:
        return model.path
    assert model.url is not None  # every release has one
    remote = RemoteFile(model.url, release.file.size, release.file.sha256)
    return fetch(remote, model.path, progress=progress)


def import_weights(path: str | Path, name: str) -> Path:
    """Copy a weights file into the cache under a name, after checking that it holds a network.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` or published ``.pt`` file.
    name : str
        Letters, digits, ``_`` and ``-``. The name of released weights is taken only by the
        released file itself, for machines without a connection. An imported name is replaced.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    WeightsError
        The file is missing or holds no network of this family, or the name cannot be used.
    OutputError
        The cache folder cannot be written.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise WeightsError(f"There is no weights file at {str(path)!r}; give the path of one.")
    if name in BUNDLED or not _NAME.fullmatch(name):
        raise WeightsError(
            f"{name!r} cannot name imported weights; use letters, digits, _ and -, "
            f"and none of: {', '.join(BUNDLED)}."
        )
    if name in RELEASES:
        if sha256_of(source) != RELEASES[name].file.sha256:
            raise WeightsError(
                f"{source} is not the released file of {name!r} (its checksum differs); "
                "import it under another name."
            )
        target = _released(name).path
    else:
        _check_network(source)
        target = _imported_dir() / (name + source.suffix.lower())
    return _copy(source, target)


def _bundled(name: str) -> ModelInfo:
    summary, license_ = BUNDLED[name]
    path = _PACKAGE / "weights" / f"{name}.safetensors"
    here = path.is_file()
    return ModelInfo(name, summary, license_, path, path.stat().st_size if here else 0, here)


def _released(name: str) -> ModelInfo:
    release = RELEASES[name]
    path = cache_dir() / (name + release.suffix)
    return ModelInfo(
        name,
        release.summary,
        release.license,
        path,
        release.file.size,
        path.is_file() and path.stat().st_size == release.file.size,
        _address(release.file.url),
    )


def _address(url: str) -> str:
    mirror = os.environ.get("DEMOE_MIRROR")
    return f"{mirror.rstrip('/')}/{url.rpartition('/')[2]}" if mirror else url


def _imported_dir() -> Path:
    return cache_dir() / "imported"


def _imported() -> list[ModelInfo]:
    folder = _imported_dir()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        ModelInfo(file.stem, "Imported by you.", "", file, file.stat().st_size, True)
        for file in files
        if file.suffix in SUFFIXES
    ]


def _check_network(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(
            f"{path} has no suffix of a weights file; use one of {', '.join(SUFFIXES)}."
        )
    # Here and not above: this brings in torch, which no other function of this module needs.
    from demoe.model.checkpoint import build_network, read_state_dict

    state_dict, _ = read_state_dict(path)
    build_network(state_dict)


def _copy(source: Path, target: Path) -> Path:
    """Copy under a temporary name first, then drop imports of the same name and another suffix."""
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        if target.parent == _imported_dir():
            for suffix in SUFFIXES:
                if suffix != target.suffix:
                    target.with_suffix(suffix).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror or error}); "
            "free some space or set DEMOE_CACHE to a folder that can be written."
        ) from error
    return target
