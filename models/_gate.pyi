"""Typed face of the compiled module; `host_gate` is what others call."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

def judge(
    features: Array,
    column: Array,
    factor: Array,
    place: Array,
    any: Array,
    spots3: Array,
    widths_places_and_top: tuple[int, int, int],
    faintest_ceiling_and_scale: tuple[float, float, float],
    spots: Array,
    logits: Array,
    /,
) -> None: ...
