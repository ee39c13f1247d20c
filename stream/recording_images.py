"""Folders and lists of files that hold one image each, as simulations and Cheetah leave them.

One rule: images of one folder that share camera length and photon energy are one series, in the
order of their names. Layout: `[images/]peaks_water_overlay/01..09/*.h5` with the attributes
`clen`, `photon_energy` and `peak` on each file, after the seed report.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hitfinder.stream.errors import StoreError
from hitfinder.stream.recording_series import RecordedSeries

HDF5_SUFFIXES = {".h5", ".hdf5", ".cxi", ".nxs"}
# Beside the frames the seed's tree keeps what they were made of; that is no detector's frame.
_OVERLAYS = ("peaks_water_overlay", "images/peaks_water_overlay")


def recorded_files(folder: Path) -> list[Path]:
    """Return the files of a folder tree to be replayed, in the order of their names.

    A master stands for all files beside it; of the seed's tree only the overlays are taken.

    Raises:
        StoreError: there are none.
    """
    top = next((folder / name for name in _OVERLAYS if (folder / name).is_dir()), folder)
    files = [f for f in top.rglob("*") if f.suffix.lower() in HDF5_SUFFIXES and f.is_file()]
    masters = {f.parent for f in files if f.stem.endswith("master")}
    chosen = [f for f in files if f.parent not in masters or f.stem.endswith("master")]
    if not chosen:
        raise StoreError(
            f"{folder}: no {', '.join(sorted(HDF5_SUFFIXES))} file in it; name a folder of "
            "recordings"
        )
    return sorted(chosen, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort img_2 before img_10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.split(r"([0-9]+)", str(path))
    ]


def is_single_image(found: Sequence[RecordedSeries]) -> bool:
    """Tell whether a file held one image and no more."""
    return len(found) == 1 and found[0].n_frames == 1 and len(found[0].spans) == 1


def joined(images: Sequence[RecordedSeries]) -> tuple[RecordedSeries, ...]:
    """Join one-image series to one series per folder, camera length and photon energy."""
    groups: dict[tuple[object, ...], list[RecordedSeries]] = defaultdict(list)
    for image in images:
        start = image.read_start()
        folder = image.spans[0].path.parent
        groups[folder, start.clen_m, start.photon_energy_eV, start.shape].append(image)
    return tuple(_joined(group) for group in groups.values())


def _joined(group: Sequence[RecordedSeries]) -> RecordedSeries:
    return replace(
        group[0],
        n_frames=len(group),
        spans=tuple(replace(g.spans[0], first_frame=frame) for frame, g in enumerate(group)),
        truth={frame: g.truth[0] for frame, g in enumerate(group) if 0 in g.truth},
    )
