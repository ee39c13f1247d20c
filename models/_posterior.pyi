"""Typed face of the compiled module; `heads` is what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Four = tuple[float, float, float, float]

def follow(
    log_like: Array,
    shape: tuple[int, int],
    axes: Four,
    ranges: Four,
    reach: float,
    ridge: Array,
    /,
) -> tuple[float, float]: ...
def integrate(
    log_like: Array,
    shape: tuple[int, int],
    axes: Four,
    ranges: Four,
    ridge: Array,
    dispersion: float,
    share: float,
    at: Array,
    like: Array,
    /,
) -> tuple[float, float, float, float, float]: ...
