"""Typed face of the compiled module; `evidence.py` and `places.py` are what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
PerScale = tuple[float, float, float, float]

def evidence(
    sums: Array,
    maxima: Array,
    bin: Array,
    lowest: Array,
    above: Array,
    exposure: Array,
    exposure_N: Array,
    mean: Array,
    total_N: Array,
    counts_N: Array,
    exposed_N: Array,
    columns: Array,
    shape: tuple[int, int],
    n_sectors: int,
    windows: tuple[int, ...],
    priors_and_clip: tuple[float, float, float, float],
    n_clips_cell_px_block: tuple[int, int, int],
    sigma_and_floor: tuple[float, float],
    photons: PerScale,
    places: PerScale,
    /,
) -> float: ...
def neg_log10_tails(n: Array, mean: Array, tails: Array, /) -> None: ...
def merge(
    candidates: Array,
    boxes: Array,
    each: int,
    floor_and_cell_px: tuple[float, float],
    edges: PerScale,
    /,
) -> int: ...
def outside(
    boxes: Array,
    cell_px: float,
    sums: Array,
    exposure: Array,
    bin: Array,
    shape: tuple[int, int],
    counts_N: Array,
    exposed_N: Array,
    /,
) -> None: ...
