"""Arrays that live in files: what dask slices, and what is kept of what was decoded."""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import tokenize

from demoe.errors import DemoeError, ImageError
from demoe.limits import BLOCKS, check_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

FileState = tuple[str, int, int, int, int]
CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class FileSource(ABC):
    """An array in a file, read by slices; picklable, and no file stays open between reads.

    Attributes
    ----------
    path : str
        The file or folder.
    shape : tuple of int
        Lengths of the axes.
    dtype : numpy dtype
        Native byte order.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def state(self) -> FileState:
        """Tell one version of the file from the next."""
        return file_state(self.path)

    def files(self) -> Iterable[str]:
        """List the files that pixels are read from."""
        return [self.path]

    def stamp(self) -> str:
        """Tell one version of the files from the next: by size, times and inode of each.

        Raises
        ------
        ImageError
            If a file is gone.
        """
        return stamp_of(self.path, self.files())

    def absent(self) -> int:
        """Count the blocks that are not in the files and read as a fill value."""
        return 0

    @abstractmethod
    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box: one slice with start, stop and step 1 for each axis, none of them empty."""

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by integers and slices, as dask asks for it."""
        box, rest = split_index(key, self.shape)
        try:
            block = self.read(box)
        except (DemoeError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise gone(error.filename or self.path) from error
        except Exception as error:  # decoders raise all sorts of things over damaged bytes
            raise unreadable(self.path, error) from error
        return block[rest].astype(self.dtype, copy=False)

    def lazy(self, chunks: tuple[int, ...], kind: str) -> da.Array:
        """Wrap as a dask array whose name depends on the file and its state alone.

        Raises
        ------
        ImageError
            If a block would be larger than is allowed (`demoe.limits`), or there would be too many.
        """
        check_block(self.path, chunks, self.dtype.itemsize, "block")
        most = max(-(-length // chunk) for length, chunk in zip(self.shape, chunks, strict=True))
        if most > BLOCKS:
            raise ImageError(
                f"{self.path} claims the shape {' x '.join(map(str, self.shape))} in blocks of "
                f"{' x '.join(map(str, chunks))}, but an axis may have {BLOCKS} blocks; store it "
                "in larger ones."
            )
        name = f"{kind}-{tokenize(self, self.state())}"
        array: da.Array = da.from_array(
            self,
            chunks=chunks,
            name=name,
            lock=False,
            fancy=False,
            inline_array=True,  # as a task of its own, it makes each look at a part list all blocks
            meta=np.empty(0, self.dtype),
        )
        return array


def file_state(path: str | Path) -> FileState:
    """Absolute path, time of the last change in nanoseconds, size in bytes, ctime and inode.

    The first time can be set back, and is by whoever copies files with their times.
    """
    place = Path(path).absolute()
    stat = place.stat()
    return str(place), stat.st_mtime_ns, stat.st_size, stat.st_ctime_ns, stat.st_ino


def stamp_of(path: str, files: Iterable[str]) -> str:
    """Return a digest of size, times and inode of some files, in their order.

    A time of change cannot be set back, so an equal stamp means equal content.
    """
    found = hashlib.blake2b(digest_size=16)
    try:
        for file in files:
            stat = os.stat(file)
            marks = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
            found.update(f"{os.path.relpath(file, path)} {marks}\n".encode())
    except FileNotFoundError as error:
        raise gone(error.filename) from error
    return found.hexdigest()


def gone(path: str) -> ImageError:
    """Say that a file that was there is not there any more."""
    return ImageError(f"{path} is not there any more; put it back, and go on with resume.")


def unreadable(path: str | Path, error: Exception | str) -> ImageError:
    """Say in one sentence that a file is damaged, with the decoder's own words."""
    words = " ".join(str(error).split()).rstrip(".")
    if not isinstance(error, str):
        words = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return ImageError(f"{path} cannot be read because it is damaged or incomplete ({words[:200]}).")


def pass_errors_on(path: str | Path, read: Callable[[], Any]) -> Any:
    """Call a parser and turn whatever it raises over a bad file into an ImageError."""
    try:
        return read()
    except DemoeError:
        raise
    except MemoryError:  # opening reads metadata only, so that these claim what cannot be
        raise unreadable(path, "its metadata ask for more memory than there is") from None
    except PermissionError as error:
        raise ImageError(f"{path} may not be read by this user; ask for permission.") from error
    except Exception as error:  # parsers raise all sorts of things over damaged files
        raise unreadable(path, error) from error


class ByteCache:
    """The most recently decoded arrays, up to a number of bytes; the newest is always kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Give the array of `key`, made once even if several threads ask at the same time."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._arrays:
                    return self._arrays[key]
            try:
                array = make()
            finally:
                with self._lock:
                    self._making.pop(key, None)
            array.flags.writeable = False
            with self._lock:
                self._arrays[key] = array
                self._bytes += array.nbytes
                while self._bytes > self._limit and len(self._arrays) > 1:
                    self._bytes -= self._arrays.popitem(last=False)[1].nbytes
            return array


decoded = ByteCache(CACHE_BYTES)


def split_index(
    key: Any, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[int | slice, ...]]:
    """Bounding box of an index, and the index within that box."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    keys += [slice(None)] * (len(shape) - len(keys))
    box: list[slice] = []
    rest: list[int | slice] = []
    for part, length in zip(keys, shape, strict=True):
        if isinstance(part, slice):
            wanted = range(*part.indices(length))
            low, high = sorted((wanted[0], wanted[-1])) if wanted else (0, 0)
            box.append(slice(low, high + 1))
            start = wanted[0] - low if wanted else high + 1
            rest.append(slice(start, None, wanted.step))
        else:
            index = int(part) + (length if part < 0 else 0)
            box.append(slice(index, index + 1))
            rest.append(0)
    return tuple(box), tuple(rest)
