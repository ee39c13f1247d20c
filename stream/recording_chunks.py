"""One recorded image as a blob: the bytes of its HDF5 chunk, as a detector would have sent them.

One rule: what can be handed on unchanged is (a whole frame packed by filter 32008 or 32004, or
not packed); everything else is read by HDF5 and becomes raw little-endian pixels, or is refused.
Chunk formats: protocol note, sections 3.2 and 3.3.
"""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import PIXEL_TYPES, Blob, Codec, check_shape

CHANNEL = "threshold_1"
OURS = "/entry/hitfinder"  # what this program adds to the files of a run
BITSHUFFLE, BITSHUFFLE_LZ4 = 32008, 2
LZ4 = 32004
# Pixel types that are not counts in a detector's sense, and what holds their counts.
_COUNTS_OF = {"int8": "uint8", "int16": "uint16"}
# What h5py raises for a damaged file: which of them depends on where the damage is.
HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)
SUPPORTED = "uint8, uint16, uint32, or another integer or float type holding whole counts"


def channels_beside(images: h5py.Dataset) -> dict[str, h5py.Dataset]:
    """Return channel -> data set: the images and, in a file of a run of ours, its neighbours."""
    found = {CHANNEL: images}
    if OURS in images.file and not images.is_virtual:
        for name, other in images.parent.items():
            is_row_aligned = (
                isinstance(other, h5py.Dataset) and other.shape[:1] == images.shape[:1]
            )
            if is_row_aligned and other.ndim == 3 and other != images and not other.is_virtual:
                found[name] = other
    return found


def pixel_type(stored: np.dtype[np.generic]) -> str | None:
    """Return the unsigned type that frames of a stored type are handed on as, or None."""
    if stored.kind not in "uif":
        return None
    name = stored.newbyteorder("=").name
    return name if name in PIXEL_TYPES else _COUNTS_OF.get(name, "uint32")


class ChunkReader:
    """Reads frames of one image data set, a row (of three axes) or the whole (of two)."""

    def __init__(self, images: h5py.Dataset, channel: str = CHANNEL) -> None:
        """Look at how the frames are stored.

        Args:
            images: shape (N, ss, fs) or (ss, fs); stays the caller's to close.
            channel: name of the threshold that they were taken at.

        Raises:
            WireError: a shape or pixel type that no detector frame has.
        """
        self._images, self._channel = images, channel
        self.where = f"{images.file.filename}:{images.name}"
        dtype = pixel_type(images.dtype)
        if dtype is None or images.ndim not in (2, 3):
            raise WireError(
                f"{self.where}: {images.ndim} axes of type {images.dtype}; expected (N, ss, fs) "
                f"or (ss, fs) of {SUPPORTED}; convert the file or name another data set"
            )
        self.dtype = dtype
        self.shape = (int(images.shape[-2]), int(images.shape[-1]))
        check_shape(self.shape, self.dtype)
        self._codec, self._elem_size = self._find_codec()
        n_bytes = int(np.prod(self.shape)) * images.dtype.itemsize
        # Smallest bitshuffle blocks (64 bytes) grow by a third; a chunk beyond this is damaged.
        self._packed = np.empty(2 * n_bytes + 4096, np.uint8)

    def blob(self, row: int) -> Blob:
        """Return one frame.

        Raises:
            WireError: the chunk cannot be read, or its values are not counts.
        """
        try:
            if self._codec is None:
                return self._converted(row)
            return self._as_stored(row)
        except HDF5_ERRORS as error:
            raise WireError(f"{self.where} row {row}: cannot be read ({error})") from error

    def _find_codec(self) -> tuple[Codec | None, int]:
        """Return how whole-frame chunks are packed; None where HDF5 must read them."""
        images = self._images
        itemsize = images.dtype.itemsize
        is_plain = images.dtype == np.dtype(self.dtype).newbyteorder("<")
        is_whole_frame = images.chunks in ((1, *self.shape), self.shape)
        if images.is_virtual or not is_plain or not is_whole_frame:
            return None, itemsize
        pipeline = images.id.get_create_plist()
        filters = [pipeline.get_filter(i) for i in range(pipeline.get_nfilters())]
        if not filters:
            return Codec.NONE, itemsize
        code, _flags, values, _name = filters[0]
        if len(filters) == 1 and code == LZ4:
            return Codec.LZ4_HDF5, itemsize
        if len(filters) == 1 and code == BITSHUFFLE and values[4:5] == (BITSHUFFLE_LZ4,):
            return Codec.BSLZ4, int(values[2])
        return None, itemsize

    def _as_stored(self, row: int) -> Blob:
        images = self._images
        offset = (row, 0, 0) if images.ndim == 3 else (0, 0)
        skipped, packed = images.id.read_direct_chunk(offset, out=self._packed)
        codec = Codec.NONE if skipped or self._codec is None else self._codec
        return self._blob(codec, self._elem_size, bytes(packed))

    def _converted(self, row: int) -> Blob:
        # Registers filters with HDF5 for the whole process, so only where one is needed.
        import hdf5plugin  # noqa: F401

        images = self._images
        stored = images[row] if images.ndim == 3 else images[()]
        counts = whole_counts(stored, self.dtype, f"{self.where} row {row}")
        return self._blob(Codec.NONE, counts.itemsize, counts.tobytes())

    def _blob(self, codec: Codec, elem_size: int, payload: bytes) -> Blob:
        return Blob(self._channel, self.shape, self.dtype, codec, elem_size, memoryview(payload))


def whole_counts(stored: NDArray[np.generic], dtype: str, where: str) -> NDArray[np.generic]:
    """Return pixels as little-endian counts; -1 and NaN mark a bad pixel and become all ones.

    Args:
        stored: shape (ss, fs), any integer or float type.
        dtype: `uint8`, `uint16` or `uint32`.
        where: what to name in an error.

    Raises:
        WireError: values that are negative, fractional or too large for `dtype`.
    """
    target = np.dtype(dtype).newbyteorder("<")
    if stored.dtype.newbyteorder("=") == target.newbyteorder("="):
        return stored.astype(target)
    top = np.iinfo(target).max
    is_bad = np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, bool)
    if stored.dtype.kind in "if":
        is_bad |= stored == -1
    values = np.where(is_bad, stored.dtype.type(0), stored)
    low, high = values.min().item(), values.max().item()  # exact, whatever the type
    if low < 0 or high > top or (stored.dtype.kind == "f" and (values != np.rint(values)).any()):
        raise WireError(
            f"{where}: {stored.dtype} values from {low} to {high} are not whole counts that fit "
            f"{dtype}; supported: {SUPPORTED}. Draw or round counts first"
        )
    return np.where(is_bad, target.type(top), values.astype(target))
