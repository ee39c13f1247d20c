"""Typed face of the compiled module; `hot_pixels` is what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def see(
    image: Array,
    valid: Array,
    maxima: Array,
    ring: Array,
    limit_R: Array,
    table: Array,
    fresh: Array,
    shape: tuple[int, int],
    itemsize: int,
    /,
) -> tuple[int, int, int]: ...
