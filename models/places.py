"""Places worth a look, at full resolution: how much better a spot explains the pixels there.

One rule: a place's worth is a likelihood ratio, natural logarithm: Poisson counts of background
plus a Gaussian spot against background alone, for a few widths, averaged over intensities and
divided by the number of places that chance could have chosen.
"""

from __future__ import annotations

PLACES = 48
"""Strongest places of a frame that are looked at."""
WIDTHS_PX = (0.35, 1.0, 1.8, 2.8, 4.2)
"""Gaussian sigma of the spots looked for."""
N_WIDTHS = len(WIDTHS_PX)
FEATURES = (
    "present",
    *(f"log_ratio_{w}" for w in WIDTHS_PX),
    "evidence",
    "rest",
    "log10_background_per_px",
    "radius_kpx",
    "log10_intensity",
)
"""What is said of a place, in this order; all float32, all 0 where there is no place."""
N_FEATURES = len(FEATURES)
ABSENT = 0.0
