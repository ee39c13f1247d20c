"""One hit file: images as received, their peaks and their verdicts, row by row.

One rule: the received bytes go to disk unchanged (`write_direct_chunk`); only what an HDF5
reader could not decode is framed anew. Layout is a fixed contract (design section 7): images
at `/entry/data/data` (N, ss, fs), peaks as CXI at `/entry/result` (what CrystFEL reads), a
column per key of a published record at `/entry/hitfinder`. Filters 32008 (bitshuffle-LZ4) and
32004 (LZ4) as in the protocol note, section 3.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitshuffle
import h5py
import lz4.block
import numpy as np
from h5py import h5d, h5p, h5pl, h5s, h5t, h5z
from numpy.typing import NDArray

from hitfinder.stream.ledger import COLUMNS, ROW, UNKNOWN_NOTE, unknown_value
from hitfinder.stream.messages import Blob, Codec
from hitfinder.stream.recovery import is_growing
from hitfinder.stream.results import Record
from hitfinder.stream.swmr import Columns, create_growing, plain_text

MAX_PEAKS = 1024  # width of the peak arrays, as Cheetah and OM write them
PEAK_COLUMNS = {
    "peakXPosRaw": "fs",
    "peakYPosRaw": "ss",
    "peakTotalIntensity": "intensity",
    "peakSNR": "snr",
}
BITSHUFFLE_FILTER = 32008
LZ4_FILTER = 32004
_BITSHUFFLE_LZ4 = 2  # bitshuffle's number for LZ4 in its filter values
_BITSHUFFLE_VERSION = (0, 4)
_DEFAULT_BLOCK_BYTES = 8192
_COLUMN_CHUNK = 256  # a flush rewrites the last chunk of every column
# Frames have tens of peaks: chunks to the right of them are never made and read as zero.
_PEAK_CHUNK = (32, 64)


@dataclass(frozen=True, slots=True)
class JudgedFrame:
    """A frame with its verdict; `blobs` is empty where no image is to be stored.

    `miss_sample_fraction` is the one in force for this frame, None the series' own.
    """

    record: Record
    blobs: tuple[Blob, ...] = ()
    miss_sample_fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Plane:
    """How one channel's images lie in a file: a change of any of these starts a new file."""

    name: str
    shape: tuple[int, int]
    dtype: str
    filter_id: int | None


def layout_of(blobs: Sequence[Blob]) -> tuple[Plane, ...]:
    """Return how these channels are stored; the first is `/entry/data/data`."""
    planes = []
    names = {"data"}
    for i, blob in enumerate(blobs):
        name = "data" if i == 0 else _dataset_name(blob.channel, names)
        names.add(name)
        planes.append(Plane(name, blob.shape, blob.dtype, _filter_of(blob.codec)))
    return tuple(planes)


def _dataset_name(channel: str, taken: set[str]) -> str:
    """Return a channel's name as a link name that no other channel has."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", channel)[:64] or "channel"
    while name in taken:
        name += "_"
    return name


def _filter_of(codec: Codec) -> int | None:
    if codec is Codec.BSLZ4:
        return BITSHUFFLE_FILTER
    return None if codec is Codec.NONE else LZ4_FILTER


def block_bytes(blob: Blob) -> int:
    """Return the uncompressed block size that a blob's 12-byte header states, if it can be."""
    if not blob.has_header or len(blob.payload) < 12:
        return _DEFAULT_BLOCK_BYTES
    block = int(struct.unpack_from(">I", blob.payload, 8)[0])
    return _DEFAULT_BLOCK_BYTES if block == 0 or block % (8 * blob.elem_size) else block


def chunk_of(blob: Blob) -> bytes | memoryview:
    """Return the bytes of a blob's chunk: as received wherever the filter can read that.

    A bare LZ4 block gets the HDF5 framing, a headless bitshuffle body its 12 bytes back, and
    bits shuffled over another width than the pixel's are shuffled again.

    Raises:
        ValueError, RuntimeError: the payload is not what its codec says, where it had to be
            opened to be framed.
    """
    size = np.dtype(blob.dtype).itemsize
    if blob.codec is Codec.LZ4_BLOCK:
        return _framed_lz4(blob)
    if blob.codec is not Codec.BSLZ4:
        return blob.payload
    if blob.elem_size != size:
        return _reshuffled(blob, size)
    if not blob.has_header:
        return struct.pack(">QI", blob.n_bytes, _DEFAULT_BLOCK_BYTES) + bytes(blob.payload)
    return blob.payload


def _framed_lz4(blob: Blob) -> bytes:
    """Frame a bare block as the one block of an HDF5-LZ4 chunk."""
    body = bytes(blob.payload)
    if len(body) == blob.n_bytes:  # the filter takes this length for a block stored raw
        body = lz4.block.decompress(body, uncompressed_size=blob.n_bytes)
    return struct.pack(">QII", blob.n_bytes, blob.n_bytes, len(body)) + body


def _reshuffled(blob: Blob, size: int) -> bytes:
    """Return a bitshuffle-LZ4 chunk shuffled over the pixel's own width.

    The filter derives its width from the dataset's type, so this one case cannot keep its bytes.
    """
    body = np.frombuffer(blob.payload, np.uint8)[12 if blob.has_header else 0 :]
    wide = np.dtype(f"u{blob.elem_size}")
    block = block_bytes(blob) // blob.elem_size
    n_wide = blob.n_bytes // blob.elem_size
    image = bitshuffle.decompress_lz4(body, (n_wide,), wide, block).view(f"u{size}")
    packed: bytes = bitshuffle.compress_lz4(np.ascontiguousarray(image), 0).tobytes()
    return struct.pack(">QI", blob.n_bytes, _DEFAULT_BLOCK_BYTES) + packed


class HitFile:
    """A file of images with their verdicts, open for appending in SWMR mode."""

    def __init__(self, path: Path, blobs: Sequence[Blob], attributes: Mapping[str, Any]) -> None:
        """Create the file.

        Args:
            path: final name.
            blobs: the first frame's channels; all frames of the file are laid out like them.
            attributes: provenance, stamped on `/entry/hitfinder`; mappings become JSON.
        """
        self.path = path
        self.layout = layout_of(blobs)

        def build(file: h5py.File) -> None:
            _build_entry(file, attributes)
            for plane, blob in zip(self.layout, blobs, strict=True):
                create_images(file["entry/data"], plane, block_bytes(blob))
            _create_peaks(file["entry/result"])
            _create_columns(file["entry/hitfinder"])

        self._file = create_growing(path, build)
        entry = self._file["entry"]
        self._images = [entry["data"][p.name].id for p in self.layout]
        self._peaks = Columns([entry["result"][name] for name in PEAK_COLUMNS])
        self._n_peaks = Columns([entry["result/nPeaks"]])
        self._columns = Columns([entry["hitfinder"][name] for name in COLUMNS])

    @property
    def n_rows(self) -> int:
        """Number of frames in the file."""
        return self._columns.n_rows

    def append(self, frames: Sequence[JudgedFrame], rows: NDArray[np.void]) -> None:
        """Add frames; they are safe once `flush` returned.

        Args:
            frames: laid out as `layout` says.
            rows: dtype `ROW`, one per frame; `file` and `row` are filled in here.
        """
        first = self.n_rows
        rows["file"] = self.path.name.encode()
        rows["row"] = np.arange(first, first + len(frames))
        for channel, (plane, dataset) in enumerate(zip(self.layout, self._images, strict=True)):
            dataset.set_extent((first + len(frames), *plane.shape))
            for i, frame in enumerate(frames):
                _write_image(dataset, first + i, frame.blobs[channel])
        n_peaks, arrays = peak_arrays([f.record for f in frames])
        self._peaks.write(first, arrays)
        self._n_peaks.write(first, [n_peaks])
        self._columns.write(first, [rows[name] for name in COLUMNS])

    def flush(self) -> None:
        """Hand everything appended to the operating system: it survives this process."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; it then opens without SWMR."""
        self._file.close()


def read_columns(path: Path) -> NDArray[np.void]:
    """Return a hit file's verdicts, dtype `ROW`, one per row; works while it grows."""
    with h5py.File(path, "r", libver="latest", swmr=is_growing(path)) as file:
        group = file["entry/hitfinder"]
        n_rows = min(group[name].shape[0] for name in COLUMNS)
        rows = np.zeros(n_rows, ROW)
        for name in COLUMNS:
            rows[name] = group[name][:n_rows]
    return rows


def read_frames(path: Path) -> NDArray[np.int64]:
    """Return the frame number of every row of a hit file; works while it grows."""
    with h5py.File(path, "r", libver="latest", swmr=is_growing(path)) as file:
        frames: NDArray[np.int64] = file["entry/hitfinder/frame"][:]
    return frames


def _write_image(dataset: h5d.DatasetID, row: int, blob: Blob) -> None:
    try:
        chunk = chunk_of(blob)
    except (ValueError, RuntimeError):
        return  # not an image: the row reads as zeros, its verdict says corrupt
    dataset.write_direct_chunk((row, 0, 0), chunk)


def peak_arrays(
    records: Sequence[Record],
) -> tuple[NDArray[np.int32], list[NDArray[np.float32]]]:
    """Return nPeaks int32 (k,) and the four peak columns float32 (k, m), zero padded.

    `m` is the largest number of peaks among the records. Of more than `MAX_PEAKS` the most
    intense are kept; the record's `n_peaks` still says how many there were.
    """
    found = [_strongest(r) for r in records]
    n_peaks = np.array([len(p["fs"]) if p else 0 for p in found], np.int32)
    arrays = [np.zeros((len(records), int(n_peaks.max())), np.float32) for _ in PEAK_COLUMNS]
    for i, peaks in enumerate(found):
        for array, key in zip(arrays, PEAK_COLUMNS.values(), strict=True):
            if peaks:
                array[i, : n_peaks[i]] = peaks[key]
    return n_peaks, arrays


def _strongest(record: Record) -> dict[str, NDArray[np.float32]]:
    if record.peaks is None:
        return {}
    peaks = record.peaks.arrays()
    if len(peaks["fs"]) <= MAX_PEAKS:
        return peaks
    keep = np.sort(np.argsort(-peaks["intensity"], kind="stable")[:MAX_PEAKS])
    return {name: values[keep] for name, values in peaks.items()}


def _build_entry(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    file.attrs.update({"NX_class": "NXroot", "default": "entry"})
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": "data"})
    for name, nx_class in (
        ("data", "NXdata"),
        ("result", "NXcollection"),
        ("hitfinder", "NXcollection"),
    ):
        entry.create_group(name).attrs["NX_class"] = nx_class
    entry["data"].attrs["signal"] = "data"
    entry["hitfinder"].attrs["unknown"] = UNKNOWN_NOTE
    stamp(entry["hitfinder"], attributes)


def stamp(node: h5py.HLObject, attributes: Mapping[str, Any]) -> None:
    """Write plain values as attributes; None is left out, mappings and lists become JSON."""
    for key, value in attributes.items():
        if value is not None:
            plain = isinstance(value, int | float)
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            node.attrs[key] = value if plain else plain_text(text)


def create_images(group: h5py.Group, plane: Plane, block: int) -> None:
    """Create a channel's dataset without rows; the filter is declared, h5py never runs it.

    Args:
        block: uncompressed bytes that the codec takes at once.
    """
    dtype = np.dtype(plane.dtype)
    create = h5p.create(h5p.DATASET_CREATE)
    create.set_chunk((1, *plane.shape))
    space = h5s.create_simple((0, *plane.shape), (h5s.UNLIMITED, *plane.shape))
    with _no_plugins():
        if plane.filter_id == BITSHUFFLE_FILTER:
            values: tuple[int, ...] = (block // dtype.itemsize, _BITSHUFFLE_LZ4)
            if not h5z.filter_avail(BITSHUFFLE_FILTER):  # where it is, it adds the first three
                values = (*_BITSHUFFLE_VERSION, dtype.itemsize, *values)
            create.set_filter(BITSHUFFLE_FILTER, h5z.FLAG_OPTIONAL, values)
        elif plane.filter_id == LZ4_FILTER:
            create.set_filter(LZ4_FILTER, h5z.FLAG_OPTIONAL, (block,))
        h5d.create(group.id, plane.name.encode(), h5t.py_create(dtype), space, create)


@contextmanager
def _no_plugins() -> Iterator[None]:
    """Keep HDF5 from loading filters from HDF5_PLUGIN_PATH, which CrystFEL's users set.

    A bitshuffle found there refuses a declaration that is complete already; nothing here runs it.
    """
    paths = [h5pl.get(i) for i in range(h5pl.size())]
    for _ in paths:
        h5pl.remove(0)
    try:
        yield
    finally:
        for path in paths:
            h5pl.append(path)


def _create_peaks(group: h5py.Group) -> None:
    group.create_dataset("nPeaks", (0,), "<i4", maxshape=(None,), chunks=(_COLUMN_CHUNK,))
    for name in PEAK_COLUMNS:
        group.create_dataset(
            name, (0, MAX_PEAKS), "<f4", maxshape=(None, MAX_PEAKS), chunks=_PEAK_CHUNK
        )


def _create_columns(group: h5py.Group) -> None:
    for name in COLUMNS:
        fill = unknown_value(name)
        group.create_dataset(
            name,
            (0,),
            ROW[name],
            maxshape=(None,),
            chunks=(_COLUMN_CHUNK,),
            fillvalue=fill or None,
        )
