"""The hit files (or the sampled misses) of a series, begun anew by count and by layout.

One rule: one file is open at a time and every other is closed, so all but the newest can be
read by programs that know nothing of SWMR. Names are `<kind>_NNNNNN.h5`, counted from 1, or of
a host that shares its detector from 10 000 times the host's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.hitfile import HitFile, JudgedFrame, layout_of, read_frames
from hitfinder.stream.nexus import ImageFile


class RollingFiles:
    """The files `<kind>_NNNNNN.h5` of a folder, one of them open for appending at a time."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        frames_per_file: int,
        attributes: Mapping[str, Any],
        first_file: int = 1,
    ) -> None:
        self._folder, self._kind = folder, kind
        self._frames_per_file, self._first = frames_per_file, first_file
        self._attributes = attributes
        self._open: HitFile | None = None
        self._closed = [
            ImageFile(path.name, len(read_frames(path)), closed=True)
            for path in sorted(folder.glob(f"{kind}_*.h5"))
        ]

    def files(self) -> list[ImageFile]:
        """Return what there is, in the order of writing."""
        if self._open is None:
            return list(self._closed)
        return [*self._closed, ImageFile(self._open.path.name, self._open.n_rows, closed=False)]

    def write(self, frames: Sequence[JudgedFrame], rows: NDArray[np.void]) -> bool:
        """Append and flush; return whether a new file was begun.

        Args:
            frames: each with at least one blob.
            rows: dtype `ROW`, one per frame; `file` and `row` are filled in.
        """
        n_before = len(self._closed) + (self._open is not None)
        done = 0
        while done < len(frames):
            file = self._file_for(frames[done])
            end = done + 1
            room = done + self._frames_per_file - file.n_rows
            while end < min(len(frames), room) and layout_of(frames[end].blobs) == file.layout:
                end += 1
            file.append(frames[done:end], rows[done:end])
            done = end
        if self._open is not None:
            self._open.flush()
        return len(self._closed) + (self._open is not None) != n_before

    def _file_for(self, frame: JudgedFrame) -> HitFile:
        file = self._open
        if file is not None and (
            file.n_rows >= self._frames_per_file or file.layout != layout_of(frame.blobs)
        ):
            self.close()
            file = None
        if file is None:
            number = 1 + max((int(f.name[-9:-3]) for f in self._closed), default=self._first - 1)
            path = self._folder / f"{self._kind}_{number:06d}.h5"
            file = self._open = HitFile(path, frame.blobs, self._attributes)
        return file

    def close(self) -> None:
        """Close the open file, if there is one."""
        if self._open is not None:
            self._open.close()
            self._closed.append(ImageFile(self._open.path.name, self._open.n_rows, closed=True))
            self._open = None
