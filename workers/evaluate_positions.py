"""Reported spots against true reflections, counted frame by frame.

One rule: what counts is stated. A reflection is found if a peak with p >= 0.5 lies within 2 px
of it, each peak finding at most one; a missed frame finds none of its reflections. A peak is
right if any reflection of half an expected photon or more lies within 2 px; peaks of fewer
photons than the limit (8 sharp, 15 at 2 mrad) are left out of the precision, as a spot of a few
photons spread over sigma_px cannot say where it is. A reflection is clear if no neighbour of a
tenth of its photons and no gap lies within 4 px + 3 sigma of it: others run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from hitfinder.models import metrics
from hitfinder.models.metrics import Rate, wilson
from hitfinder.models.spots import Spots
from hitfinder.sim import patterns as truth
from hitfinder.sim.physics import Detector

REACH_PX = 2.0
SURE = 0.5
ANY_PHOTONS = 0.5
PHOTON_EDGES = (3.0, 5.0, 8.0, 15.0, 30.0, 100.0, np.inf)
LIMIT_SHARP, LIMIT_WIDE = 8.0, 15.0
NEIGHBOUR_SHARE = 0.1
CLEAR_PX, CLEAR_SIGMA = 4.0, 3.0
N_BINS = len(PHOTON_EDGES) - 1
COLUMNS = ("true", "found", "clear", "clear_found", "apart2_px2", "intensity_ratio")
"""Counts and sums over the reflections of a bin of expected photons; the last two over found
ones, so that their means are the squared distance and the intensity over the expected photons."""
REPORTED = ("peaks", "peaks_right", "bright_peaks", "bright_peaks_right")
"""Peaks with p >= 0.5; `peaks_right` within 2 px + 2 sigma of a reflection, `bright_peaks` of at
least the limit's photons, of these right within 2 px."""

Table = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Positions:
    """What the peaks of some frames are worth.

    Attributes:
        limit_photons: of recall and precision.
        recall: of reflections of at least that many expected photons.
        clear_recall: of those without a neighbour or gap that they run into.
        precision: of peaks of at least that many photons, within 2 px.
        precision_near: of all peaks, within 2 px + 2 sigma.
        recall_by_photons: in bins of `PHOTON_EDGES`.
        rms_px: distance of found reflections along one axis, of at least the limit's photons.
        intensity_ratio: integrated over expected photons, mean of the same.
    """

    limit_photons: float
    recall: Rate
    clear_recall: Rate
    precision: Rate
    precision_near: Rate
    recall_by_photons: tuple[Rate, ...]
    rms_px: float
    intensity_ratio: float


class PositionCounter:
    """Counts the reflections of frames of one spot width.

    Args:
        detector: gaps are taken from it.
        sigma_px: Gaussian sigma of the spots.
    """

    def __init__(self, detector: Detector, sigma_px: float) -> None:
        self._sigma_px = sigma_px
        self._limit = limit_photons(sigma_px)
        self._to_gap = _distance_to_gap(detector)

    def count(self, spots: truth.Spots, every: truth.Spots, peaks: Spots) -> tuple[Table, Table]:
        """Return (bins, `COLUMNS`) of the reflections and `REPORTED` of the peaks of a hit.

        Args:
            spots: reflections of at least 3 expected photons on active pixels.
            every: all that are named, these included.
            peaks: as the pipeline reports them.
        """
        every = every[every.photons >= ANY_PHOTONS]
        sure = peaks.p >= SURE
        at = np.stack((peaks.ss[sure], peaks.fs[sure]), axis=1).astype(np.float64)
        partner = metrics.match(at, _at(spots), REACH_PX)
        apart = metrics.distance_to_nearest(at, _at(every))
        bright = peaks.intensity[sure] >= self._limit
        reported = (
            len(at),
            np.count_nonzero(apart <= REACH_PX + 2 * self._sigma_px),
            np.count_nonzero(bright),
            np.count_nonzero(bright & (apart <= REACH_PX)),
        )
        reflections = self._reflections(spots, every, at, peaks.intensity[sure], partner)
        return reflections, np.array(reported, np.float32)

    def _reflections(
        self,
        spots: truth.Spots,
        every: truth.Spots,
        at: NDArray[np.float64],
        intensity: NDArray[np.float32],
        partner: NDArray[np.int64],
    ) -> Table:
        is_found = np.zeros(len(spots), np.bool_)
        apart2, ratio = np.zeros(len(spots)), np.zeros(len(spots))
        mine = partner[partner >= 0]
        is_found[mine] = True
        apart2[mine] = np.square(at[partner >= 0] - _at(spots)[mine]).sum(1)
        ratio[mine] = intensity[partner >= 0] / spots.photons[mine]
        clear = self._is_clear(spots, every)
        columns = (np.ones(len(spots)), is_found, clear, clear & is_found, apart2, ratio)
        bins = np.searchsorted(PHOTON_EDGES, spots.photons, side="right") - 1
        counted = [np.bincount(bins, column, N_BINS) for column in columns]
        return np.stack(counted, axis=1).astype(np.float32)

    def _is_clear(self, spots: truth.Spots, every: truth.Spots) -> NDArray[np.bool_]:
        if not len(spots):
            return np.zeros(0, np.bool_)
        room = CLEAR_PX + CLEAR_SIGMA * self._sigma_px
        near = cKDTree(_at(every)).query_ball_point(_at(spots), room)
        # A reflection is its own neighbour, hence one may be near.
        alone = [
            np.count_nonzero(every.photons[n] >= NEIGHBOUR_SHARE * photons) <= 1
            for n, photons in zip(near, spots.photons, strict=True)
        ]
        ss, fs = np.rint(_at(spots)).astype(np.int64).T
        is_off_gaps: NDArray[np.bool_] = self._to_gap[ss, fs] > room
        return np.array(alone, np.bool_) & is_off_gaps


@lru_cache(maxsize=1)
def _distance_to_gap(detector: Detector) -> NDArray[np.float32]:
    """Return how far each pixel is from a gap or the edge, float32 (ss, fs) pixels."""
    padded = np.pad(~detector.gap_mask, 1)
    return np.asarray(distance_transform_edt(padded)[1:-1, 1:-1], np.float32)


def limit_photons(sigma_px: float) -> float:
    """Return the expected photons from which spots of this width must be found."""
    return LIMIT_WIDE if sigma_px > 0 else LIMIT_SHARP


def summarise(
    reflections: Sequence[Table], reported: Sequence[Table], sigma_px: float
) -> Positions:
    """Return what counted frames of one spot width say together."""
    total = np.stack(reflections).sum(axis=0, dtype=np.float64)
    peaks = np.stack(reported).sum(axis=0, dtype=np.int64)
    limit = limit_photons(sigma_px)
    enough = total[PHOTON_EDGES.index(limit) :].sum(axis=0)
    true, found, clear, clear_found, apart2, ratio = enough.tolist()
    n_found = max(found, 1.0)
    return Positions(
        limit_photons=limit,
        recall=wilson(int(found), int(true)),
        clear_recall=wilson(int(clear_found), int(clear)),
        precision=wilson(int(peaks[3]), int(peaks[2])),
        precision_near=wilson(int(peaks[1]), int(peaks[0])),
        recall_by_photons=tuple(wilson(int(row[1]), int(row[0])) for row in total),
        rms_px=float(np.sqrt(apart2 / n_found / 2)),
        intensity_ratio=float(ratio / n_found),
    )


def _at(spots: truth.Spots) -> NDArray[np.float64]:
    return np.stack((spots.ss, spots.fs), axis=1).astype(np.float64)
