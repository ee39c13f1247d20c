"""Typed face of the compiled module; `bslz4`, `pooling` and `ring` are what others call."""

from mmap import mmap
from typing import Any

from numpy.typing import NDArray

Buffer = NDArray[Any] | memoryview | mmap | bytearray | bytes

def bslz4(body: Buffer, out: Buffer, elem_size: int, block_bytes: int, /) -> str | None: ...
def block_table(body: Buffer, table: Buffer, n_leftover: int, /) -> str | None: ...
def lz4_blocks(body: Buffer, out: Buffer, block_bytes: int, /) -> str | None: ...
def lz4_block(body: Buffer, out: Buffer, /) -> str | None: ...
def pool4(
    image: Buffer,
    valid: Buffer,
    sums: Buffer,
    maxima: Buffer,
    n_ss: int,
    n_fs: int,
    itemsize: int,
    /,
) -> tuple[int, int]: ...
def reduce(
    body: Buffer,
    valid: Buffer,
    planes: Buffer,
    steps: Buffer,
    sums: Buffer,
    maxima: Buffer,
    n_ss: int,
    n_fs: int,
    elem_size: int,
    block_bytes: int,
    /,
) -> tuple[int, int] | str: ...
def pixels(planes: Buffer, steps: Buffer, image: Buffer, elem_size: int, /) -> None: ...
def load_u32(buffer: Buffer, offset: int, /) -> int: ...
def store_u32(buffer: Buffer, offset: int, value: int, /) -> None: ...
def cas_u32(buffer: Buffer, offset: int, expected: int, new: int, /) -> bool: ...
def add_u64(buffer: Buffer, offset: int, delta: int, /) -> int: ...
