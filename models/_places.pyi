"""Typed face of the compiled module; `places` is what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def log_ratios(
    image: Array,
    valid: Array,
    shape: tuple[int, int],
    itemsize: int,
    start: Array,
    half: Array,
    level: Array,
    background: Array,
    tame: bool,
    table: Array,
    share: Array,
    intensity: Array,
    log_prior: Array,
    first: Array,
    reach: Array,
    ratio: Array,
    found: Array,
    /,
) -> None: ...
