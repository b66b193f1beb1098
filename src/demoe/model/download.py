"""Fetches one file of known size and SHA-256 over HTTP, resumably, and never half.

Bytes collect in a ``.part`` file beside the target. Only a complete file with the right checksum
gets the final name. A broken connection leaves the ``.part`` file, and the next call goes on there.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from demoe.errors import OutputError, WeightsError

Progress = Callable[[int, int, str], object]
"""Called with (bytes done, bytes in all, message); what it raises stops the download resumably."""

_BLOCK = 1 << 18  # bytes a read: small enough for a smooth progress bar
_TIMEOUT = 30.0  # seconds without a single byte


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, with what it must be.

    Attributes
    ----------
    url : str
        Where it lies; ``http`` or ``https``.
    size : int
        Bytes.
    sha256 : str
        Checksum of the whole file, 64 lower-case hexadecimal digits.
    """

    url: str
    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(remote: RemoteFile, target: Path, *, progress: Progress | None = None) -> Path:
    """Download a file to ``target``, going on where an earlier call was cut off.

    Parameters
    ----------
    remote : RemoteFile
        What to fetch; anything of another size or checksum is refused.
    target : Path
        Final name; replaced if it exists, and only by the complete, checked file.
    progress : callable, optional
        ``progress(done, total, message)`` with bytes.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    WeightsError
        The server is not reachable, refuses, breaks off, or sends another file.
    OutputError
        The folder cannot be written or the disk is full.
    """
    part = target.with_name(target.name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        done = part.stat().st_size if part.exists() else 0
        if done < remote.size:
            with part.open("ab") as file:
                for block in _missing_blocks(remote, file.tell()):
                    if block is None:
                        file.seek(0)
                        file.truncate()
                    else:
                        file.write(block)
                    if progress:
                        progress(file.tell(), remote.size, target.name)
                file.flush()
                os.fsync(file.fileno())
        if part.stat().st_size != remote.size or sha256_of(part) != remote.sha256:
            part.unlink()
            raise WeightsError(
                f"{remote.url} is not the file that was released (its checksum differs); "
                "nothing was kept, try again or use another mirror."
            )
        os.replace(part, target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror or error}); "
            "free some space or set DEMOE_CACHE to a folder that can be written."
        ) from error
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()
    return target


def _missing_blocks(remote: RemoteFile, start: int) -> Iterator[bytes | None]:
    """Yield what is missing after ``start`` bytes; None says to drop everything and begin anew.

    Every trouble with the server becomes a WeightsError here, so that an OSError in the caller
    is always one of the disk.
    """
    response = _open(remote, start)
    with response:
        if start and response.status != 206:
            start = 0  # the server sends the whole file, whatever was asked for
            yield None
        announced = response.length
        if announced is not None and start + announced != remote.size:
            raise WeightsError(
                f"{remote.url} has {start + announced} bytes where the released file has "
                f"{remote.size}; check the address or use another mirror."
            )
        done = start
        while done < remote.size:
            try:
                block = response.read(min(_BLOCK, remote.size - done))
            except (HTTPException, OSError) as error:
                raise _broken(remote, done, error) from error
            if not block:
                raise _broken(remote, done, "the server sent no more")
            done += len(block)
            yield block


def _open(remote: RemoteFile, start: int) -> HTTPResponse:
    if urlsplit(remote.url).scheme not in ("http", "https"):
        raise WeightsError(f"{remote.url} is no web address; it should begin with https://.")
    request = Request(remote.url, headers={"User-Agent": "napari-demoe"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response: HTTPResponse = urlopen(request, timeout=_TIMEOUT)
    except HTTPError as error:
        with error:
            raise WeightsError(
                f"The server answered {error.code} ({error.reason}) for {remote.url}; "
                "try again later or set DEMOE_MIRROR to another address."
            ) from error
    except URLError as error:
        raise _unreachable(remote, error.reason) from error
    except (HTTPException, OSError, ValueError) as error:
        raise _unreachable(remote, error) from error
    return response


def _unreachable(remote: RemoteFile, why: object) -> WeightsError:
    return WeightsError(
        f"{remote.url} cannot be reached ({why}); check the connection, set DEMOE_MIRROR to "
        "another address, or copy the file from another machine with `demoe models import`."
    )


def _broken(remote: RemoteFile, done: int, why: object) -> WeightsError:
    return WeightsError(
        f"The download of {remote.url} broke off after {done} of {remote.size} bytes ({why}); "
        "start it again to go on from there."
    )
