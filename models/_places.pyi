"""Typed face of the compiled module; `places` is what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def log_ratios(
    counts: Array,
    steps: Array,
    mask: Array,
    shape: tuple[int, int],
    itemsize: int,
    boxes: Array,
    cell_px: float,
    tame: bool,
    gain: Array,
    share: Array,
    intensity: Array,
    log_prior: Array,
    log_chances: Array,
    first: Array,
    reach: Array,
    lowest_and_steps_per_octave: tuple[float, float],
    centre: tuple[float, float],
    tiles: Array,
    ratio: Array,
    found: Array,
    /,
) -> None: ...
def tiles_bytes(height: int, width: int, /) -> int: ...
def name_places(
    ratio: Array,
    found: Array,
    evidence: Array,
    rest: Array,
    widths: Array,
    centre: tuple[float, float],
    same_px_most_and_least_background: tuple[float, float, float],
    features: Array,
    columns: Array,
    /,
) -> int: ...
