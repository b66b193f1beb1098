"""Files on the Hugging Face hub: where huggingface_hub keeps them, and how they get there.

huggingface_hub fetches and keeps the files, and its variables apply: ``HF_HOME``, ``HF_HUB_CACHE``,
``HF_ENDPOINT``, ``HF_HUB_OFFLINE``. Only the files that were released count: their sizes and
checksums are known. Its HTTP client is loaded only to download.
"""

import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants

from demoe.errors import DemoeError, OutputError, WeightsError

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

Progress = Callable[[int, int, str], object]
"""Called with (bytes done, bytes in all, message); what it raises stops the download."""

_BLOCK = 1 << 18  # bytes a read: small enough for a smooth progress bar
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ONE_AT_A_TIME = threading.Lock()  # held as long as huggingface_hub's settings are ours


@dataclass(frozen=True)
class HubFile:
    """A file in a space of the Hugging Face hub, with what it must be.

    Attributes
    ----------
    space : str
        Owner and name of the space.
    name : str
        Name of the file in it.
    size : int
        Bytes.
    sha256 : str
        Checksum of the whole file, 64 lower-case hexadecimal digits.
    """

    space: str
    name: str
    size: int
    sha256: str

    @property
    def url(self) -> str:
        """Its address: on huggingface.co, or on the mirror that ``HF_ENDPOINT`` names."""
        return f"{constants.ENDPOINT}/spaces/{self.space}/resolve/main/{self.name}"

    @property
    def folder(self) -> Path:
        """Folder in huggingface_hub's cache with a folder for each state of the space."""
        space = constants.REPO_ID_SEPARATOR.join(["spaces", *self.space.split("/")])
        return Path(constants.HF_HUB_CACHE).expanduser().resolve() / space / "snapshots"

    def places(self) -> list[Path]:
        """Return where huggingface_hub has the file, whole or not.

        Any state of the space will do, not only the latest that huggingface_hub has heard of: the
        file was released once.
        """
        return sorted(path for path in self.folder.glob(f"*/{self.name}") if path.is_file())

    def is_whole(self, path: Path) -> bool:
        """Whether there is a file at a path that has the right size."""
        return path.is_file() and path.stat().st_size == self.size


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    file: HubFile, *, by_hand: str, progress: Progress | None = None, force: bool = False
) -> Path:
    """Download a file to huggingface_hub's cache, and keep it only if it is the right one.

    A connection that breaks is taken up again where it broke. A download that was stopped, or
    given up, begins anew with the next call.

    Parameters
    ----------
    file : HubFile
        What to fetch; anything of another size or checksum is refused.
    by_hand : str
        What helps without a connection, to complete "copy the file from another machine with".
    progress : callable, optional
        ``progress(done, total, message)`` with bytes.
    force : bool
        Download again what is here already; the old file stays until the new one is complete.

    Returns
    -------
    Path
        The file in the cache.

    Raises
    ------
    WeightsError
        The hub is not reachable, refuses, breaks off, or sends another file.
    OutputError
        The cache cannot be written or the disk is full.
    """
    told = _Told(file, progress)
    try:
        with _settings():
            path = _fetch(file, told, force)
        if not file.is_whole(path) or sha256_of(path) != file.sha256:
            _discard(path)
            raise _another(file)
    except DemoeError:
        raise
    except Exception as error:
        if error is told.refusal:
            raise
        raise _trouble(error, told, by_hand) from error
    return path


def _fetch(file: HubFile, told: "_Told", force: bool) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download

    # Asked first, because this fails at once where hf_hub_download tries for half a minute, and
    # because another file is known by its size and checksum before it is fetched.
    found = get_hf_file_metadata(file.url, token=False, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if found.size not in (None, file.size):
        raise WeightsError(
            f"{file.url} has {found.size} bytes where the released file has {file.size}; "
            "check the address, or set HF_ENDPOINT to another one."
        )
    etag = found.etag or ""
    if _SHA256.fullmatch(etag) and etag != file.sha256:
        raise _another(file)
    _discard_damaged(file, found)
    _check_room(file)
    path = Path(
        hf_hub_download(
            file.space,
            file.name,
            repo_type="space",
            endpoint=constants.ENDPOINT,
            cache_dir=constants.HF_HUB_CACHE,
            token=False,
            force_download=force,
            tqdm_class=told.bar_class(),
        )
    )
    new = file.folder.with_name("blobs") / etag
    if force and not path.is_symlink() and new.is_file():
        # Where there are no symbolic links, huggingface_hub leaves the old file in its place.
        os.replace(new, path)
    return path


def _discard_damaged(file: HubFile, found: "HfFileMetadata") -> None:
    """Delete what huggingface_hub would take for the file, although it is not whole."""
    for path in file.places():
        same = path.parent.name == found.commit_hash or path.resolve().name == found.etag
        if same and not file.is_whole(path):
            _discard(path)


def _check_room(file: HubFile) -> None:
    """Refuse before anything is fetched; huggingface_hub only warns, and fills the disk."""
    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free
    if free < file.size:
        raise OutputError(
            f"{cache} has room for {free} bytes and {file.name} has {file.size}; "
            "free some space or set HF_HUB_CACHE to another folder."
        )


def _discard(path: Path) -> None:
    """Delete a file from huggingface_hub's cache: its name there, and what the name points to."""
    content = path.resolve()
    path.unlink()
    content.unlink(missing_ok=True)


@contextmanager
def _settings() -> Iterator[None]:
    """Set what huggingface_hub has no argument for, and set it back afterwards.

    - Its Xet transfer prints what `progress` raises and goes on; plain HTTP stops.
    - It reads 10 MiB at a time, and only in between can it report and be stopped.
    - It asks the hub what programs might have started it, to tell the hub which one did.
    - It logs each new attempt to stderr, into the middle of a progress bar.
    """
    ours = {
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": _BLOCK,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    log = logging.getLogger("huggingface_hub")
    with _ONE_AT_A_TIME:
        # Another release of huggingface_hub may know one of them no more.
        theirs = {name: getattr(constants, name) for name in ours if hasattr(constants, name)}
        level = log.level
        try:
            for name in theirs:
                setattr(constants, name, ours[name])
            if level in (logging.NOTSET, logging.WARNING):  # who asked for more shall see it
                log.setLevel(logging.CRITICAL)
            yield
        finally:
            log.setLevel(level)
            for name, value in theirs.items():
                setattr(constants, name, value)


@dataclass
class _Told:
    """How far a download has come, as it is told to the caller.

    Attributes
    ----------
    file : HubFile
        What is downloaded.
    progress : callable or None
        Whom to tell.
    done : int
        Bytes so far.
    refusal : BaseException or None
        What `progress` raised.
    """

    file: HubFile
    progress: Progress | None
    done: int = 0
    refusal: BaseException | None = None

    def move_to(self, done: int) -> None:
        """Note and tell how many bytes have come."""
        self.done = done
        if self.progress:
            try:
                self.progress(done, self.file.size, self.file.name)
            except BaseException as error:
                self.refusal = error
                raise

    def bar_class(self) -> type[Any]:
        """Return a class that stands in for tqdm, so that huggingface_hub draws no bar."""
        told = self

        class Bar:
            def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
                told.done = initial

            def __enter__(self) -> "Bar":
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def update(self, n: float | None = 1) -> None:
                told.move_to(told.done + int(n or 0))

        return Bar


def _another(file: HubFile) -> WeightsError:
    return WeightsError(
        f"{file.url} is not the file that was released (its checksum differs); "
        "nothing was kept, try again or set HF_ENDPOINT to another address."
    )


def _trouble(error: Exception, told: _Told, by_hand: str) -> DemoeError:
    """Say in one sentence why a file could not be fetched.

    The HTTP client below huggingface_hub has changed before, so none of its errors is named here:
    what is neither the hub's answer nor the disk's is the connection's.
    """
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, OfflineModeIsEnabled

    url = told.file.url
    cause: BaseException | None = error
    while cause:
        match cause:
            case OfflineModeIsEnabled():
                return WeightsError(
                    f"{url} is not fetched because HF_HUB_OFFLINE is set; "
                    f"unset it, or copy the file from another machine with {by_hand}."
                )
            case HfHubHTTPError(response=answer):
                return WeightsError(
                    f"The server answered {answer.status_code} ({answer.reason_phrase}) for {url}; "
                    "try again later or set HF_ENDPOINT to another address."
                )
            case FileMetadataError():
                return WeightsError(
                    f"{url} is not on a Hugging Face hub (the answer has no commit or ETag); "
                    f"check HF_ENDPOINT, or copy the file from another machine with {by_hand}."
                )
        cause = cause.__cause__
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return OutputError(
            f"{constants.HF_HUB_CACHE} cannot be written ({error.strerror or error}); "
            "free some space or set HF_HUB_CACHE to a folder that can be written."
        )
    why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if told.done:
        return WeightsError(
            f"The download of {url} broke off after {told.done} of {told.file.size} bytes "
            f"({why}); start it again."
        )
    return WeightsError(
        f"{url} cannot be reached ({why}); check the connection, set HF_ENDPOINT to another "
        f"address, or copy the file from another machine with {by_hand}."
    )
