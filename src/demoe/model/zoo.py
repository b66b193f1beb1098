"""Names of network weights, and the files they stand for.

Three kinds: *bundled* with the package, *released* by others and downloaded on request, and
*imported* from a file by a person under a name of their own. Released files are in
huggingface_hub's cache, imported ones in ours. Loads no torch, except to check a file that is
imported.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from demoe.choices import BLURS, INSTRUCTIONS, Choice
from demoe.errors import OutputError, WeightsError
from demoe.limits import quoted
from demoe.model.architectures import ARCHITECTURES, choices_in, takes_words_in
from demoe.model.hub import HubFile, Progress, fetch
from demoe.model.hub import sha256_of as sha256_of

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Release:
    """Weights that somebody else has published.

    Attributes
    ----------
    file : HubFile
        Place, size and checksum of the file.
    summary, license : str
        What it is, and its licence (SPDX) with whom to credit.
    choices : tuple of Choice
        What its gates weigh.
    parts : tuple of HubFile
        Further files that it needs for some of what it can do.
    """

    file: HubFile
    summary: str
    license: str
    choices: tuple[Choice, ...] = BLURS
    parts: tuple[HubFile, ...] = ()

    @property
    def suffix(self) -> str:
        """Suffix of the published file, such as ``.pt``."""
        return Path(self.file.name).suffix


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
        Where the file is; the folder that it will come to, as long as it is not downloaded.
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


@dataclass(frozen=True)
class Bundled:
    """Weights that come with the package.

    Attributes
    ----------
    network : str
        Name of the architecture.
    summary, license : str
        What they are good for, and their licence (SPDX).
    """

    network: str
    summary: str
    license: str = "BSD-3-Clause"


BUNDLED = {
    "default": Bundled(
        "demoe", "Small DeMoE network trained for this package; comes with it. For blur."
    ),
    "instructir-small": Bundled(
        "instructir",
        "Small network after InstructIR, told what to do: noise, rain, haze, low light; "
        "understands sentences without a download.",
    ),
    "moceir-small": Bundled(
        "moceir",
        "Small network after MoCE-IR, experts of growing cost: noise, haze and low light.",
    ),
    "mimdit-small": Bundled(
        "mimdit",
        "Small network after the idea of MiM-DiT, experts within experts: rain, haze, low light.",
    ),
}

RELEASES = {
    "demoe": Release(
        HubFile(
            space="Cidaut/DeMoE",
            name="DeMoE.pt",
            size=80_848_778,
            sha256="5b0aef148ffcb1a5572b4da6cbd33f86ed2e18639db28b46838aae46bcd011a5",
        ),
        summary="The published DeMoE network (arXiv 2508.06228), 20 million parameters.",
        license="CC-BY-SA-4.0, by the DeMoE authors (Cidaut)",
    ),
    "instructir": Release(
        HubFile(
            space="marcosv/InstructIR",
            name="im_instructir-7d.pt",
            size=63_627_895,
            sha256="f28d8f0f66ff57449ebe2be52241dfdd53a3dfab1003d63e65493f96ea152fd0",
            kind="model",
        ),
        summary="The published InstructIR network (arXiv 2401.16468), 16 million parameters, told "
        "in words what to do; with its text head and the sentence encoder bge-micro-v2.",
        license="MIT, by Marcos V. Conde; the sentence encoder MIT, by TaylorAI",
        choices=INSTRUCTIONS,
        parts=(
            HubFile(
                space="marcosv/InstructIR",
                name="lm_instructir-7d.pt",
                size=403_275,
                sha256="b239e5d5dbc811813a90e709f9647dead0e35a96a294a7d6c5263da549016fe6",
                kind="model",
            ),
            # Of these two only the sizes are known here; the hub says the checksums.
            HubFile("TaylorAI/bge-micro-v2", "model.safetensors", 34_785_664, "", kind="model"),
            HubFile("TaylorAI/bge-micro-v2", "tokenizer.json", 711_661, "", kind="model"),
        ),
    ),
}


def cache_dir() -> Path:
    """Return the folder of imported weights: ``DEMOE_CACHE`` or one in the user's cache."""
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
    path = _file_at(name_or_path)
    if path is not None:
        return path
    raise WeightsError(
        f"There are no weights at {str(name_or_path)!r}; give the path of a file or one of these "
        f"names: {', '.join(models)}."
    )


def bundled_networks() -> dict[str, str]:
    """Return the names of bundled weights by those of their architectures."""
    return {bundled.network: name for name, bundled in BUNDLED.items()}


def choices_of(name_or_path: str | Path) -> tuple[Choice, ...] | None:
    """Return what the gates of some weights weigh, without torch; None where only loading tells.

    Parameters
    ----------
    name_or_path : str or Path
        As for `weights_path`; released weights need not be here.
    """
    if isinstance(name_or_path, str) and name_or_path in RELEASES:
        return RELEASES[name_or_path].choices
    try:
        return choices_in(weights_path(name_or_path))
    except WeightsError:
        return None


def takes_words(name_or_path: str | Path) -> bool:
    """Tell whether some weights take instructions in words, without torch; as `choices_of`."""
    if isinstance(name_or_path, str) and name_or_path in RELEASES:
        return ARCHITECTURES[name_or_path].takes_words  # releases are named after them
    try:
        return takes_words_in(weights_path(name_or_path))
    except WeightsError:
        return False


def download(name: str, *, progress: Progress | None = None, force: bool = False) -> Path:
    """Bring released weights to huggingface_hub's cache, and return their file.

    Weights that are here already need no connection. The variables of huggingface_hub apply, such
    as ``HF_HUB_CACHE`` and ``HF_ENDPOINT``.

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
    release = RELEASES[name]
    paths = []
    for file in (release.file, *release.parts):
        here = _here(name, file)
        if here is None or force:
            by_hand = f"`demoe models import {file.name} {name}`"
            here = fetch(file, by_hand=by_hand, progress=progress)
        paths.append(here)
    return paths[0]


def part_path(name: str, file: str) -> Path:
    """Return a further file of released weights; see `Release`.

    Parameters
    ----------
    name, file : str
        Of the release, and of the file.

    Raises
    ------
    WeightsError
        It is not on this machine.
    """
    part = next(part for part in RELEASES[name].parts if part.name == file)
    here = _here(name, part)
    if here is None:
        raise WeightsError(
            f"The file {file} of {name!r} is not on this machine; get it with "
            f"`demoe models download {name}` ({RELEASES[name].license})."
        )
    return here


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
    source = _file_at(path)
    if source is None:
        raise WeightsError(f"There is no weights file at {str(path)!r}; give its path.")
    if name in BUNDLED or not _NAME.fullmatch(name):
        raise WeightsError(
            f"{quoted(name)} cannot name imported weights; use letters, digits, _ and -, "
            f"and none of: {', '.join(BUNDLED)}."
        )
    if name in RELEASES:
        release = RELEASES[name]
        fitting = (f for f in (release.file, *release.parts) if f.is_released(source))
        file = next(fitting, None)
        if file is None:
            raise WeightsError(
                f"{source} is not the released file of {name!r} (its checksum differs); "
                "import it under another name."
            )
        target = _carried(name, file)
    else:
        _check_network(source)
        target = _imported_dir() / (name + source.suffix.lower())
    return _copy(source, target)


def _file_at(path: str | Path) -> Path | None:
    """Return the file at a path; None if there is none, or the text can be no path."""
    try:
        file = Path(path).expanduser()
        return file if file.is_file() else None
    except (OSError, RuntimeError):  # too long a name; the home of nobody
        return None


def _bundled(name: str) -> ModelInfo:
    own = BUNDLED[name]
    path = _PACKAGE / "weights" / f"{name}.safetensors"
    here = path.is_file()
    return ModelInfo(name, own.summary, own.license, path, path.stat().st_size if here else 0, here)


def _released(name: str) -> ModelInfo:
    release = RELEASES[name]
    here = _here(name, release.file)
    return ModelInfo(
        name,
        release.summary,
        release.license,
        here or release.file.folder,
        release.file.size,
        here is not None,
        release.file.url,
    )


def _here(name: str, file: HubFile) -> Path | None:
    """Where a file of released weights is on this machine."""
    return next(filter(file.is_whole, (*file.places(), _carried(name, file))), None)


def _carried(name: str, file: HubFile) -> Path:
    """Where a released file lies that a person has brought by hand."""
    release = RELEASES[name]
    if file == release.file:
        return cache_dir() / (name + release.suffix)
    return cache_dir() / name / file.name


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
    from demoe.model.architectures import build
    from demoe.model.checkpoint import read_state_dict

    build(*read_state_dict(path), name=str(path))


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
