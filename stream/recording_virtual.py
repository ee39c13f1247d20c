"""Virtual stacks: the files behind an HDF5 virtual data set, frame by frame.

One rule: HDF5 shows frames of a source that is not there as fill values; here they are left out
and named, so nobody judges a frame that was never recorded. Mappings: HDF5 user guide, virtual
dataset (whole frames, as odin-data and nexgen write them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.recording_series import Span, is_there, spans_of


def virtual_spans(path: Path, images: h5py.Dataset) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Return where the frames of a virtual stack really stand, and a warning for each lost file.

    Raises:
        StoreError: none of the source files is there.
        WireError: the mapping is not by whole frames.
    """
    places: dict[int, tuple[Path, str, int]] = {}
    warnings = []
    for source in images.virtual_sources():
        file = path if source.file_name == "." else path.parent / source.file_name
        if not is_there(file):
            warnings.append(f"{path.name}: source {file} is missing; its frames are left out")
            continue
        frames = _whole_frames(source.vspace, images.shape)
        if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
            rows = None if frames is None else list(range(len(frames)))
        else:
            rows = _whole_frames(source.src_space, images.shape)
        if frames is None or rows is None or len(frames) != len(rows):
            raise WireError(
                f"{path}:{images.name}: the virtual data set does not map whole frames of "
                f"{file}; expected that; replay the source files instead"
            )
        for frame, row in zip(frames, rows, strict=True):
            places[frame] = (file, source.dset_name, row)
    if not places:
        raise StoreError(f"{path}:{images.name}: none of its source files is there; {warnings}")
    return spans_of(places), tuple(warnings)


def _whole_frames(space: Any, shape: tuple[int, ...]) -> list[int] | None:
    """Return the rows that a selection takes whole, None if it takes parts of frames."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return list(range(shape[0]))
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    low, high = space.get_select_bounds()
    starts, strides, counts, blocks = space.get_regular_hyperslab()
    frame_points = int(np.prod(shape[1:]))
    spread = tuple(h - lo + 1 for lo, h in zip(low[1:], high[1:], strict=True))
    if spread != shape[1:] or space.get_select_npoints() != counts[0] * blocks[0] * frame_points:
        return None
    return [
        int(starts[0] + i * strides[0] + k) for i in range(counts[0]) for k in range(blocks[0])
    ]
