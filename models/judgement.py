"""What the pipeline says about one frame. Values only; made in `pipeline`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.spots import Spots


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The verdict on one frame and the figures behind it.

    Attributes:
        is_hit: p_hit is above the threshold.
        p_hit: p_any or p_spots3, as the gate's mode says.
        threshold: of p_hit.
        p_any: probability that there is at least one spot.
        p_spots3: probability that there are at least three spots wider than a bright pixel.
        p_candidate: p_hit as the pipeline's candidate says, None if there is none.
        peaks: spots, strongest evidence first; empty on misses.
        photon_energy_eV: and the next six: None on misses.
        photon_energy_sigma_eV: standard deviation, honest where the frame cannot tell: 68 % of the
            posterior lie so near.
        clen_m: camera length.
        clen_sigma_m: standard deviation, that of the energy included.
        tells_parameters: the two sigmas are small enough to be of use; False: believe the series.
        matrix: float32 (3, 3), probability over (6, 7, 8 keV) x (0.15, 0.25, 0.35 m).
        n_photons: photons in counted pixels.
        background_photons_per_px: mean over counted pixels.
        n_saturated: counted pixels that read the largest value of their type.
        radial_counts: float32 (2, bins): background photons and counted pixels per ring and
            sector, what `SeriesPosterior.add` takes; on misses too.
        n_learned: version of what the series had taught, with which the frame was judged.
        flux_scale: its background over the mean of the series' misses before it.
    """

    is_hit: bool
    p_hit: float
    threshold: float
    p_any: float
    p_spots3: float
    p_candidate: float | None
    peaks: Spots
    photon_energy_eV: float | None
    photon_energy_sigma_eV: float | None
    clen_m: float | None
    clen_sigma_m: float | None
    tells_parameters: bool | None
    matrix: NDArray[np.float32] | None
    n_photons: int
    background_photons_per_px: float
    n_saturated: int
    radial_counts: NDArray[np.float32]
    n_learned: int
    flux_scale: float
