"""Typed face of the compiled module; `spots` is what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def locate(
    counts: Array,
    steps: Array,
    mask: Array,
    shape: tuple[int, int],
    itemsize: int,
    places: Array,
    n_shifts: int,
    kernel_disc_gap_prior: tuple[float, float, float, float, float, float],
    found: Array,
    /,
) -> None: ...
def keep_distinct(ss: Array, fs: Array, same_px2: float, kept: Array, /) -> None: ...
