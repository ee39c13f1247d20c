"""Energy and camera length of a series: all its frames share them, blanks too.

One rule: the counts of the frames are all the likelihood needs, so frames, workers and restarts
add in any order. A header that disagrees raises an alarm whose false-alarm rate over a whole
series is `FALSE_ALARMS`, however often one looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.head_tables import Array, HeadTables, fold
from hitfinder.models.heads import ParameterEstimate, estimate_folded

FALSE_ALARMS = 1e-4
"""Chance that a series whose header is right within the floor is ever called a mismatch."""
FLOOR_EV, FLOOR_M = 50.0, 0.003
"""What the model of the background may be off by: a header within it is never called wrong."""
LEAST_SHARE = 0.25
"""Misses alone make the estimate if they hold this share of the photons: the spots too faint to be
found pull a series of hits by 13 eV at 0.25 m and by 80-240 eV at 0.35 m. Where hits are needed,
no header is compared."""
FIRST_LOOK_PHOTONS = 2.0**19
"""Looks are taken at this many photons, twice as many, and so on: half a million is 4 frames of
02, 50 of 09."""


class SeriesPosterior:
    """Adds up the frames of a series.

    Exposures differ by the cells that hold spots and are averaged by photons.

    Attributes:
        counts: float64 (bins,), photons per bin of the tables.
        exposure: float64 (bins,), counted pixels times the frame's photons.
        n_frames: frames in it.
    """

    def __init__(self, counts: Array, exposure: Array, n_frames: int = 0) -> None:
        self.counts, self.exposure, self.n_frames = counts, exposure, n_frames

    @classmethod
    def empty(cls, tables: HeadTables) -> SeriesPosterior:
        """Return one without frames."""
        n_bins = len(tables.radius_m)
        return cls(np.zeros(n_bins), np.zeros(n_bins))

    def add(self, counts_N: NDArray[np.floating], exposure_N: NDArray[np.floating]) -> None:
        """Add one frame's counts and exposure per (ring, sector)."""
        self.counts += fold(counts_N)
        self.exposure += float(np.sum(counts_N)) * fold(exposure_N)
        self.n_frames += 1

    def merge(self, other: SeriesPosterior) -> None:
        """Add what another worker saw of the same series."""
        self.counts += other.counts
        self.exposure += other.exposure
        self.n_frames += other.n_frames

    @property
    def n_photons(self) -> float:
        """Background photons in it."""
        return float(self.counts.sum())

    def estimate(self, tables: HeadTables) -> ParameterEstimate:
        """Return energy and clen of the series so far; statistical errors."""
        return estimate_folded(self.counts, self.exposure / max(self.n_photons, 1.0), tables)


def with_hits_if_needed(misses: SeriesPosterior, hits: SeriesPosterior) -> SeriesPosterior:
    """Return the misses, or with too few of them all frames; the misses' arrays may be reused."""
    if misses.n_photons < LEAST_SHARE * (misses.n_photons + hits.n_photons):
        misses.merge(hits)
    return misses


@dataclass(frozen=True, slots=True)
class Look:
    """One comparison of header and series.

    Attributes:
        number: 0, 1, ...: at `FIRST_LOOK_PHOTONS` times 2 to the number.
        chance: of a disagreement as large as this one if the header is right within the floor.
        is_mismatch: the chance is below this look's share of `FALSE_ALARMS`.
    """

    number: int
    chance: float
    is_mismatch: bool


def look(
    series: ParameterEstimate,
    n_photons: float,
    after: int,
    photon_energy_eV: float | None,
    clen_m: float | None,
) -> Look | None:
    """Compare a header with a series; None if it is not yet time for another look.

    Look k may spend 6 / pi^2 / (k + 1)^2 of the false alarms, which sums to all of them.

    Args:
        series: what its photons say.
        n_photons: how many they are.
        after: number of the last look, -1 before the first.
        photon_energy_eV, clen_m: as stated; None if nobody stated it.
    """
    if n_photons < FIRST_LOOK_PHOTONS or not series.is_narrow:
        return None
    number = int(math.log2(n_photons / FIRST_LOOK_PHOTONS))
    chance = chance_of(series, photon_energy_eV, clen_m)
    if number <= after or chance is None:
        return None
    share = FALSE_ALARMS * 6 / math.pi**2 / (number + 1) ** 2
    return Look(number, chance, chance < share)


def chance_of(
    series: ParameterEstimate, photon_energy_eV: float | None, clen_m: float | None
) -> float | None:
    """Return the chance of so large a disagreement if the header is right within the floor."""
    off_eV = None if photon_energy_eV is None else photon_energy_eV - series.photon_energy_eV
    off_m = None if clen_m is None else clen_m - series.clen_m
    if off_eV is not None and off_m is not None:
        z = off_eV / series.photon_energy_sigma_eV, off_m / series.clen_sigma_m
        room = FLOOR_EV / series.photon_energy_sigma_eV, FLOOR_M / series.clen_sigma_m
        return math.exp(-0.5 * _nearest(z, room, series.correlation))
    if off_eV is not None:
        far = max(abs(off_eV) - FLOOR_EV, 0.0) / series.photon_energy_sigma_eV
    elif off_m is not None:
        far = max(abs(off_m) - FLOOR_M, 0.0) / series.clen_sigma_m
    else:
        return None
    return math.erfc(far / math.sqrt(2))


def _nearest(z: tuple[float, float], room: tuple[float, float], correlation: float) -> float:
    """Return the least squared distance, in sigma, from the peak to the box z +- room."""
    low = z[0] - room[0], z[1] - room[1]
    high = z[0] + room[0], z[1] + room[1]
    if low[0] <= 0 <= high[0] and low[1] <= 0 <= high[1]:
        return 0.0
    r = correlation
    least = math.inf
    for axis in (0, 1):
        for edge in (low[axis], high[axis]):
            other = min(max(r * edge, low[1 - axis]), high[1 - axis])
            square = edge**2 + (other - r * edge) ** 2 / max(1 - r * r, 1e-12)
            least = min(least, square)
    return least
