"""Check a compressed image before anybody decodes it: sizes against the announced shape.

The one rule: the size word is compared with the shape before any memory is touched (protocol
note, sections 3.2 and 12.2). What two simulators get wrong about the 12-byte header, and how a
lenient receiver reads them: section 3.4.
"""

from __future__ import annotations

from dataclasses import replace

from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec, check_shape

HEADER_BYTES = 12


def checked_blob(blob: Blob, *, lenient: bool = False) -> Blob:
    """Return the blob, with a faulty 12-byte header taken away in lenient mode.

    Raises:
        WireError: no Eiger has this shape or pixel type, or the payload says (or has) another
            number of bytes than the shape needs.
    """
    check_shape(blob.shape, blob.dtype)
    if blob.codec is Codec.NONE and len(blob.payload) != blob.n_bytes:
        raise WireError(f"{len(blob.payload)} bytes of raw pixels; expected {blob.n_bytes}")
    if blob.codec is Codec.LZ4_BLOCK and not blob.payload:
        raise WireError("empty LZ4 block; expected at least one byte")
    if blob.codec is Codec.BSLZ4 and lenient:
        return _without_faulty_header(blob)
    if blob.codec in (Codec.BSLZ4, Codec.LZ4_HDF5):
        _check_size_word(blob)
    return blob


def _check_size_word(blob: Blob) -> None:
    if len(blob.payload) < HEADER_BYTES:
        raise WireError(f"{blob.codec} blob of {len(blob.payload)} bytes; its header alone has 12")
    n_bytes = int.from_bytes(blob.payload[:8], "big")
    if n_bytes != blob.n_bytes:
        raise WireError(
            f"{blob.codec} header says {n_bytes} bytes; shape (ss, fs) = {blob.shape} of "
            f"{blob.dtype} needs {blob.n_bytes}; source.lenient reads simulators without a header"
        )


def _without_faulty_header(blob: Blob) -> Blob:
    """Return the blob as it is if its size word is right, else marked as one without header.

    A block's compressed length is never 0, so a bare list of blocks starts neither with a right
    size word (whose upper half is 0 for every image) nor with twelve zeros. Only an image of
    less than 8 pixels, which has no block, could be mistaken.
    """
    head = bytes(blob.payload[:HEADER_BYTES])
    if len(head) == HEADER_BYTES and int.from_bytes(head[:8], "big") == blob.n_bytes:
        return blob
    body = blob.payload[HEADER_BYTES:] if head == bytes(HEADER_BYTES) else blob.payload
    return replace(blob, payload=body, has_header=False)
