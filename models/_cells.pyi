"""Typed face of the compiled module; `background` and `scan` are what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def background(
    sums: Array,
    exposure: Array,
    ring: Array,
    bin: Array,
    exposure_N: Array,
    mean: Array,
    total_N: Array,
    counts_N: Array,
    exposed_N: Array,
    shape: tuple[int, int],
    n_sectors: int,
    windows: tuple[int, ...],
    priors_and_clip: tuple[float, float, float, float],
    n_clips_cell_px_block: tuple[int, int, int],
    /,
) -> None: ...
def above(
    sums: Array,
    maxima: Array,
    mean: Array,
    exposure: Array,
    at: Array,
    n: Array,
    expected: Array,
    shape: tuple[int, int],
    sigma: float,
    photons: tuple[float, float, float, float],
    /,
) -> tuple[int, int, int, int]: ...
def neg_log10_tails(n: Array, mean: Array, tails: Array, /) -> None: ...
def keep_maxima(evidence: Array, place: Array, kept: Array, width: int, /) -> None: ...
def hide_overlapped(ss: Array, fs: Array, size: Array, kept: Array, /) -> None: ...
