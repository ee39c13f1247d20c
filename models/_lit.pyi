"""Typed face of the compiled module; `hot_pixels` and `image` are what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def counts_at(
    counts: Array,
    steps: Array,
    shape: tuple[int, int],
    itemsize: int,
    pixels: Array,
    found: Array,
    /,
) -> None: ...
def saturated(
    planes: Array, steps: Array, shape: tuple[int, int], itemsize: int, pixels: Array, /
) -> int: ...
def see(
    counts: Array,
    steps: Array,
    mask: Array,
    maxima: Array,
    ring: Array,
    limit_R: Array,
    table: Array,
    fresh: Array,
    shape: tuple[int, int],
    itemsize: int,
    /,
) -> tuple[int, int, int]: ...
