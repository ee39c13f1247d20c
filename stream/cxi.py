"""The hits of a run as one CXI file, for programs that want it: Cheetah's tools, cxiview, psocake.

One rule: images go over as the bytes they are stored as, one at a time; a row keeps its verdict,
so that it can be found again. Paths as Cheetah writes them (CXI 1.4): `/entry_1/data_1/data`,
`/entry_1/result_1`, energy and camera length of each row where its readers look, at `/LCLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.errors import StoreError
from hitfinder.stream.hitfile import (
    BITSHUFFLE_FILTER,
    MAX_PEAKS,
    PEAK_COLUMNS,
    Plane,
    create_images,
)
from hitfinder.stream.ledger import COLUMNS, ROW, UNKNOWN_NOTE
from hitfinder.stream.lists import Places, write_geom
from hitfinder.stream.nexus import RunGeometry
from hitfinder.stream.swmr import LIBVER, replace_file

CXI_VERSION = 140
PLACES = Places(
    images="/entry_1/data_1/data",
    peaks="/entry_1/result_1",
    photon_energy="/LCLS/photon_energy_eV eV",
    clen="/LCLS/detector_1/EncoderValue mm",
    mask="/entry_1/data_1/mask",
)
_BLOCK_ROWS = 1024  # of peaks and columns in memory at once: 16 MB
_UNFILTERED = 1  # bit of the first filter in a chunk's mask: stored as it is
_SAME = ("beam_center_px", "pixel_size_m")


@dataclass(frozen=True, slots=True)
class HitFileLayout:
    """What one file of hits holds.

    Attributes:
        n_rows: whole rows.
        filter_id: of the images' filter, None if they are stored as they are.
        block: uncompressed bytes that the filter takes at once.
    """

    path: Path
    n_rows: int
    shape: tuple[int, int]
    dtype: str
    filter_id: int | None
    block: int
    geometry: RunGeometry


Progress = Callable[[Sequence[HitFileLayout]], Iterable[HitFileLayout]]


def read_layouts(folders: Iterable[Path]) -> list[HitFileLayout]:
    """Return what the hit files of some series hold, in their order; works while they grow.

    Raises:
        StoreError: a file cannot be read.
    """
    found = []
    for folder in folders:
        paths = sorted(folder.glob("hits_*.h5"))
        geometry = _geometry_of(folder) if paths else RunGeometry()
        for path in paths:
            try:
                found.append(_layout_of(path, geometry))
            except (OSError, KeyError) as error:
                raise StoreError(
                    f"{folder.name}/{path.name}: cannot be read ({error}); run check --repair"
                ) from error
    return [one for one in found if one.n_rows]


def write_cxi(path: Path, layouts: Sequence[HitFileLayout], progress: Progress = iter) -> int:
    """Write the hits of these files, and a .geom beside; return the number of rows.

    Args:
        path: file to write; the .geom has its name with another ending.
        layouts: all of the files, at least one.
        progress: hands them on one by one and may show how far it is.

    Raises:
        StoreError: they differ in shape, pixel type, codec, beam centre or pixel size; or the
            disk refuses.
    """
    first = layouts[0]
    _check_alike(layouts)
    n_rows = sum(one.n_rows for one in layouts)
    mask = _joined_mask({one.path.parent for one in layouts}, first.shape)

    def write(part: Path) -> None:
        with h5py.File(part, "w", libver=LIBVER) as file:
            _build(file, layouts, n_rows, mask)
            row = 0
            for one in progress(layouts):
                _copy(file, one, row)
                row += one.n_rows

    try:
        replace_file(path, write)
        places = PLACES if mask is None else _with_mask(path.name)
        write_geom(
            path.with_suffix(".geom"), first.geometry, first.shape, first.dtype, None, places
        )
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error}); name another file") from error
    return n_rows


def _with_mask(name: str) -> Places:
    return Places(
        PLACES.images, PLACES.peaks, PLACES.photon_energy, PLACES.clen, PLACES.mask, name
    )


def _geometry_of(folder: Path) -> RunGeometry:
    try:
        with h5py.File(folder / "ledger.h5", "r", libver="latest", swmr=True) as file:
            return RunGeometry.from_json(file["ledger"].attrs["geometry"])
    except (OSError, KeyError) as error:
        raise StoreError(
            f"{folder.name}/ledger.h5: cannot be read ({error}); run check --repair"
        ) from error


def _layout_of(path: Path, geometry: RunGeometry) -> HitFileLayout:
    with h5py.File(path, "r", libver="latest", swmr=True) as file:
        images, entry = file["entry/data/data"], file["entry"]
        lengths = [len(entry["hitfinder"][name]) for name in COLUMNS]
        lengths += [len(entry["result"][name]) for name in ("nPeaks", *PEAK_COLUMNS)]
        frames = entry["hitfinder/frame"][: min(len(images), *lengths)]
        unwritten = np.flatnonzero(frames < 0)
        create = images.id.get_create_plist()
        filter_id, block = None, images.dtype.itemsize
        if create.get_nfilters():
            filter_id, _, values, _ = create.get_filter(0)
            block = values[3] * block if filter_id == BITSHUFFLE_FILTER else values[0]
        n_rows = int(unwritten[0]) if len(unwritten) else len(frames)
        shape, dtype = images.shape[1:], images.dtype.name
        return HitFileLayout(path, n_rows, shape, dtype, filter_id, block, geometry)


def _check_alike(layouts: Sequence[HitFileLayout]) -> None:
    """Refuse what one file and one .geom cannot hold."""
    first, coded = layouts[0], _coded(layouts)
    for one in layouts:
        pairs = [(n, getattr(first.geometry, n), getattr(one.geometry, n)) for n in _SAME]
        pairs += [(n, getattr(first, n), getattr(one, n)) for n in ("shape", "dtype")]
        if one.filter_id is not None:
            pairs.append(("filter", coded.filter_id, one.filter_id))
        for name, expected, got in pairs:
            if got != expected:
                raise StoreError(
                    f"{one.path.parent.name}: {name} is {got}, that of {first.path.parent.name} "
                    f"{expected}; one CXI file holds only one: export each series' folder"
                )


def _coded(layouts: Sequence[HitFileLayout]) -> HitFileLayout:
    """Return the first file with a filter, if there is one; images without fit any."""
    return next((one for one in layouts if one.filter_id is not None), layouts[0])


def _joined_mask(folders: set[Path], shape: tuple[int, int]) -> NDArray[np.uint32] | None:
    """Return the bits of all series' pixel masks; None if there is no mask."""
    joined = None
    for folder in sorted(folders):
        if not (folder / "master.h5").exists():
            continue
        with h5py.File(folder / "master.h5", "r") as file:
            mask = file.get("entry/instrument/detector/pixel_mask")
            if mask is not None and mask.shape == shape:
                joined = mask[:] if joined is None else joined | mask[:]
    return joined


def _build(
    file: h5py.File,
    layouts: Sequence[HitFileLayout],
    n_rows: int,
    mask: NDArray[np.uint32] | None,
) -> None:
    file["cxi_version"] = CXI_VERSION
    coded = _coded(layouts)
    plane = Plane("data", coded.shape, coded.dtype, coded.filter_id)
    create_images(file.create_group("/entry_1/data_1"), plane, coded.block)
    file[PLACES.images].resize(n_rows, axis=0)
    if mask is not None:
        file.create_dataset(PLACES.mask, data=mask, compression="gzip", compression_opts=1)
    result = file.create_group(PLACES.peaks)
    result.create_dataset("nPeaks", (n_rows,), "<i4")
    for name in PEAK_COLUMNS:
        result.create_dataset(name, (n_rows, MAX_PEAKS), "<f4", chunks=(min(32, n_rows), 64))
    columns = file.create_group("/entry_1/hitfinder")
    columns.attrs["unknown"] = UNKNOWN_NOTE
    for name in COLUMNS:
        columns.create_dataset(name, (n_rows,), ROW[name])
    for name, unit in (("photon_energy_eV", "eV"), ("detector_1/EncoderValue", "mm")):
        values = file.create_dataset(f"/LCLS/{name}", (n_rows,), "<f8")
        values.attrs["units"] = unit


def _copy(file: h5py.File, one: HitFileLayout, row: int) -> None:
    """Copy a file's rows to `row` and on."""
    with h5py.File(one.path, "r", libver="latest", swmr=True) as source:
        images, target = source["entry/data/data"].id, file[PLACES.images].id
        is_plain = one.filter_id is None
        for k in range(one.n_rows):
            if images.get_chunk_info_by_coord((k, 0, 0)).byte_offset is None:
                continue  # no image was stored: the row reads as zeros there and here
            missed, chunk = images.read_direct_chunk((k, 0, 0))
            target.write_direct_chunk((row + k, 0, 0), chunk, _UNFILTERED if is_plain else missed)
        for begin, end in _blocks(one.n_rows):
            here = slice(row + begin, row + end)
            n_peaks = source["entry/result/nPeaks"][begin:end]
            file[PLACES.peaks]["nPeaks"][here] = n_peaks
            most = int(n_peaks.max())
            for name in PEAK_COLUMNS:
                peaks = source["entry/result"][name][begin:end, :most]
                file[PLACES.peaks][name][here, :most] = peaks
            for name in COLUMNS:
                file["/entry_1/hitfinder"][name][here] = source["entry/hitfinder"][name][begin:end]
        rows = slice(row, row + one.n_rows)
        clen_m = one.geometry.clen_m
        file["/LCLS/photon_energy_eV"][rows] = one.geometry.photon_energy_eV or np.nan
        file["/LCLS/detector_1/EncoderValue"][rows] = np.nan if clen_m is None else clen_m * 1e3


def _blocks(n_rows: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, n_rows, _BLOCK_ROWS):
        yield begin, min(begin + _BLOCK_ROWS, n_rows)
