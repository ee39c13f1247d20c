"""What a frame shows and everything that is true of it.

One rule: the truth is the same whichever form the photons take, a dense image (`Exposure`) or
the lit pixels alone (`Photons`). The noise-free picture costs more than the frame: it is made
when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.patterns import Pattern, Spots


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """What one frame was made with, and what it therefore holds.

    Attributes:
        frame: its number.
        kind: the settings' name for such frames, "" where they have none.
        is_hit: a crystal was in the beam (its spots may still be too faint to see).
        dataset: the data set's name, None where energy and camera length were drawn freely.
        photon_energy_eV, clen_m, n_photons, strength, thickness_m, horizontal_polarization: what
            the frame was made with.
        beam_center_px: (fs, ss) from the array's corner.
        n_crystals: crystals in the beam.
        spots: reflections of at least 3 expected photons whose centre is on an active pixel.
        spot_sigma_px: float32, geometric mean of each spot's two widths.
        all_spots: every reflection that was computed, however faint, on the array or near it.
        bragg_index: int32, the flat pixels that Bragg photons met, ascending; gaps not masked.
        bragg_counts: int64, how many each.
        expect: makes `bragg`; None for a blank.
    """

    frame: int
    kind: str
    is_hit: bool
    dataset: str | None
    photon_energy_eV: float
    clen_m: float
    n_photons: float
    strength: float
    thickness_m: float
    horizontal_polarization: float
    beam_center_px: tuple[float, float]
    n_crystals: int
    spots: Spots
    spot_sigma_px: NDArray[np.float32]
    all_spots: Spots
    bragg_index: NDArray[np.int32]
    bragg_counts: NDArray[np.int64]
    expect: Callable[[], Pattern] | None

    @cached_property
    def bragg(self) -> Pattern | None:
        """The expected Bragg photons (gaps not masked), None for a blank; 5-50 ms once."""
        return None if self.expect is None else self.expect()


@dataclass(frozen=True, eq=False, kw_only=True)
class Exposure(Truth):
    """One frame as a detector shows it.

    Attributes:
        image: (ss, fs) counts in photons, gap pixels at the type's highest value.
    """

    image: NDArray[np.unsignedinteger]


@dataclass(frozen=True, eq=False, kw_only=True)
class Photons(Truth):
    """One frame as its lit pixels: what `Exposure.image` holds, without the empty ones.

    Attributes:
        index: int32, flat pixels that count at least one photon, ascending; none in gaps.
        counts: uint32, their values in `Exposure.image`.
    """

    index: NDArray[np.int32]
    counts: NDArray[np.uint32]
