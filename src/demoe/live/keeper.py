"""Tiles of a run that is looked at, on the disk: for as long as it lives, or for an output."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from demoe.engine.reader import Read
from demoe.errors import ImageError, OutputError
from demoe.execution.identity import SourceWatch, describe, digest
from demoe.execution.run import begin
from demoe.execution.store import Index, LostTile, TileStore
from demoe.io import open_image
from demoe.io.atomic import reason_of
from demoe.io.mosaic import Tiles
from demoe.io.record import read_record
from demoe.lazy import Deblurred


class Keeper:
    """Keeps tiles in files, and gives them back.

    Those for an output are also there for others: while nobody computes, `rest` lets other
    processes go on with them, and finish the output. What is shown is then read from that.

    Parameters
    ----------
    result : Deblurred
        What is computed.
    target : Path, optional
        The output; by default tiles go with this object.
    folder : Path, optional
        Where the temporary folder is made that they lie in then; by default in the system's.

    Raises
    ------
    OutputError
        If tiles cannot be kept there, or another process writes that output.

    Attributes
    ----------
    rests : bool
        Whether others may write the output; nothing can be kept meanwhile.
    """

    def __init__(
        self, result: Deblurred, target: Path | None = None, folder: Path | None = None
    ) -> None:
        self._result, self._target = result, target
        self._files = ExitStack()
        self._written: da.Array | None = None
        if target is not None:
            self.take_up()
            return
        made = _new_folder(folder)
        self._files.callback(shutil.rmtree, made, ignore_errors=True)
        described = describe(result)
        store = TileStore.create(made / "tiles", result.as_image(), described)
        self._use(self._files.enter_context(store), described)

    def _use(self, store: TileStore, described: dict[str, Any]) -> None:
        self._store, self._described, self.rests = store, described, False
        self._watch = SourceWatch(self._result.work.reader, store.reads, described)

    @property
    def done(self) -> Tiles:
        """The blocks that are kept."""
        return self._store.done

    def take_up(self) -> None:
        """Be the only one again who writes the output; `done` may have changed.

        Raises
        ------
        OutputError
            If another process writes it, it is finished, or tiles of another job are kept.
        ImageError
            If the source changed.
        """
        if self._target is not None:
            described = describe(self._result)
            opened = begin(self._result, self._target, described)
            self._use(self._files.enter_context(opened), described)

    def rest(self) -> None:
        """Let others write the output; what is kept can be read on."""
        if self._target is not None:
            self.rests = True
            self._files.close()

    def put(
        self,
        index: Index,
        values: NDArray[Any],
        failed: Sequence[Index],
        reads: Sequence[Read],
    ) -> None:
        """Keep a block, see `TileStore.put`.

        Raises
        ------
        ImageError
            If the source changed.
        """
        self._store.put(index, values, failed, reads)
        self._watch.check_at_times()

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a part of what is kept, one slice for each axis.

        Raises
        ------
        LostTile
            If some of it is lost or damaged.
        """
        try:
            return self._store.read(box)
        except LostTile:
            if not self.rests:
                raise
            return np.asarray(self._output()[box].compute(scheduler="synchronous"))

    def check(self) -> None:
        """Forget the blocks that are lost or damaged."""
        self._store.check(pixels=True)

    def close(self) -> None:
        """Let go of all files; tiles for an output stay."""
        self._files.close()

    def _output(self) -> da.Array:
        """Return the pixels of the output, which somebody else finished from the tiles."""
        if self._written is None:
            target, image = self._target, self._result.as_image()
            assert target is not None  # else it never rests
            try:
                is_ours = read_record(target).get("identity") == digest(self._described)
                found = open_image(target)
            except ImageError as error:
                raise LostTile(f"{target} is not there: {error}") from error
            if not is_ours or (found.axes, found.shape) != (image.axes, image.shape):
                raise LostTile(f"{target} is another output")
            self._written = found.data
        return self._written


def _new_folder(within: Path | None) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="demoe-", dir=within))
    except OSError as error:
        raise OutputError(f"Tiles cannot be kept in {within}: {reason_of(error)}.") from error
