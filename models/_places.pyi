"""Typed face of the compiled module; `places` is what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def log_ratios(
    image: Array,
    valid: Array,
    shape: tuple[int, int],
    itemsize: int,
    middle: Array,
    edge: Array,
    mean: Array,
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
    ratio: Array,
    found: Array,
    /,
) -> None: ...
def keep_distinct(ss: Array, fs: Array, reach: Array, kept: Array, /) -> None: ...
