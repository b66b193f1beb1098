"""Files on the Hugging Face hub, which huggingface_hub fetches and keeps.

Its variables apply: ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``. Only files
that were released count: their sizes and checksums are known. Its HTTP client is loaded only to
download.
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from demoe.errors import DemoeError, OutputError, WeightsError

Progress = Callable[[int, int, str], object]
"""Called with (bytes done, bytes in all, message); what it raises stops the download."""


@dataclass(frozen=True)
class HubFile:
    """A file on the hub, with what it must be.

    Attributes
    ----------
    space : str
        Owner and name of the repository that it is in.
    name : str
        Name of the file there.
    size : int
        Bytes.
    sha256 : str
        Checksum; empty where it is not known. Then the one counts that the hub says itself.
    kind : str
        Kind of the repository: "space" or "model".
    """

    space: str
    name: str
    size: int
    sha256: str
    kind: str = "space"

    @property
    def url(self) -> str:
        """Its address: on huggingface.co, or on the mirror that ``HF_ENDPOINT`` names."""
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        return f"{constants.ENDPOINT}/{prefix}{self.space}/resolve/main/{self.name}"

    @property
    def folder(self) -> Path:
        """Folder in huggingface_hub's cache with a folder for each state of the repository."""
        space = f"{self.kind}s--{self.space.replace('/', '--')}"
        return Path(constants.HF_HUB_CACHE).resolve() / space / "snapshots"

    def places(self) -> list[Path]:
        """Return where huggingface_hub has the file, whole or not, in any of those states."""
        return sorted(self.folder.glob(f"*/{self.name}"))

    def is_whole(self, path: Path) -> bool:
        """Whether there is a file at a path that has the right size."""
        return path.is_file() and path.stat().st_size == self.size

    def is_released(self, path: Path) -> bool:
        """Whether the file at a path is this one, whatever its name: by its checksum.

        Where that is not known, by size and name.
        """
        if not self.sha256:
            return self.is_whole(path) and path.name == self.name
        return sha256_of(path) == self.sha256


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(file: HubFile, *, by_hand: str, progress: Progress | None = None) -> Path:
    """Download a file to huggingface_hub's cache, even if it is there, and keep only the right one.

    Parameters
    ----------
    file : HubFile
        What to fetch; anything of another size or checksum is refused.
    by_hand : str
        What helps without a connection, to complete "copy the file from another machine with".
    progress : callable, optional
        ``progress(done, total, message)`` with bytes.

    Raises
    ------
    WeightsError
        The hub is not reachable, refuses, breaks off, or sends another file.
    OutputError
        The cache cannot be written or the disk is full.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download

    done, asking = 0, False

    class Bar(ExitStack):  # huggingface_hub enters and updates it, and draws none of its own
        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            nonlocal done
            super().__init__()
            done = initial

        def update(self, n: float | None = 1) -> None:
            nonlocal done, asking
            done += int(n or 0)
            if progress:
                asking = True  # and so it stays if it raises
                progress(done, file.size, file.name)
                asking = False

    wrong = WeightsError(
        f"{file.url} is not the file that was released (its size or checksum differs, or this is "
        "no Hugging Face hub); nothing was kept, try again or set HF_ENDPOINT to another address."
    )
    constants.HF_HUB_DISABLE_XET = True  # it swallows what progress raises; plain HTTP stops
    try:
        # Fails at once where hf_hub_download tries for half a minute.
        found = get_hf_file_metadata(file.url, token=False, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        # A mirror may give another ETag than the SHA-256; then only the file itself can tell.
        told = found.etag if len(found.etag or "") == 64 else file.sha256
        expected = file.sha256 or told
        if not found.commit_hash or found.size not in (None, file.size) or told != expected:
            raise wrong
        where: dict[str, Any] = {"repo_type": file.kind, "token": False, "tqdm_class": Bar}
        path = Path(hf_hub_download(file.space, file.name, force_download=True, **where))
        if not file.is_whole(path) or (expected and sha256_of(path) != expected):
            for place in {path, path.resolve()}:  # a link, and what it points to
                place.unlink()
            raise wrong
    except Exception as error:
        if asking or error is wrong:
            raise
        raise _trouble(error, file, by_hand, done) from error
    return path


def _trouble(error: Exception, file: HubFile, by_hand: str, done: int) -> DemoeError:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    match error:
        case OfflineModeIsEnabled():
            return WeightsError(
                f"{file.url} is not fetched because HF_HUB_OFFLINE is set; "
                f"unset it, or copy the file from another machine with {by_hand}."
            )
        case HfHubHTTPError(response=sent):
            return WeightsError(
                f"The server answered {sent.status_code} ({sent.reason_phrase}) for {file.url}; "
                "try again later or set HF_ENDPOINT to another address."
            )
        case OSError(errno=int()):
            return OutputError(
                f"{constants.HF_HUB_CACHE} cannot be written ({error.strerror}); "
                "free some space or set HF_HUB_CACHE to a folder that can be written."
            )
    what = f"broke off after {done} of {file.size} bytes" if done else "cannot be reached"
    why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return WeightsError(
        f"{file.url} {what} ({why}); check the connection and start it again, set HF_ENDPOINT to "
        f"another address, or copy the file from another machine with {by_hand}."
    )
