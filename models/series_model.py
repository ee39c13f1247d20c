"""What the frames of a series teach about the detector and the beam, as they are judged.

One rule: what changes verdicts is written into a list that only grows (`learned.py`), so a
verdict names a version, and the same frames in the same order teach the same. A frame whose
pixels were seen before, as a replay or a pool of simulated frames shows, teaches nothing.

The running background sets what is far above it, and the flux scale; a frame's own background
stays its own: it is known to a few percent, which moves no Poisson tail that decides.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import learned
from hitfinder.models.dim_regions import DimRegions
from hitfinder.models.frontend import CELL_PX, N_SECTORS, CellTables, Pooled
from hitfinder.models.hot_pixels import HotPixels, least_counts
from hitfinder.models.image import Image, Mask
from hitfinder.models.learned import Entries, Kind

EARLY_FRAMES = 256
"""So long a series is young: hot pixels of a photon or two a frame are still unknown."""
FIRST_LOOK, EARLY_STEP, LATE_STEP, LATE_EVERY = 8, 4, 16, 2
"""Frames before the first decision, between decisions while a series is young, and after, when
only every second frame is searched: what is left is rare, and searching costs a memory pass."""
SETTLE_AT_LATEST = 128
DIM_STEP, DIM_FIRST, DIM_TAIL = 8, 4, 1e-6
"""Every eighth frame is added to the cells' counts, which are looked at when so many are in and
whenever their number doubles; a cell counts only up to what background exceeds this rarely."""
RING_PRIOR_PHOTONS = 25.0
"""The mean over the detector counts as this many photons of each ring."""
REFRESH, SCALE_UP, SCALE_DOWN = 64, 1.15, 0.6
"""Limits are made anew after so many frames, or for a frame this much brighter or dimmer."""
HEADROOM = 1.1
"""Limits are made for a background this much above the frame's."""
MARKED_ROWS, MOST_KNOWN_FRAMES = 128, 65536
"""A frame is known by its photons and every so many-th row of cells; so many are remembered."""


class SeriesModel:
    """Learns from one worker's frames of one series.

    Args:
        shape: (ss, fs).
        cells: of the detector less what is known.
        known: what an earlier series, or a version of this one, has taught.

    Attributes:
        entries: all that was learned, dtype `learned.ENTRY`; version k is its first k.
    """

    def __init__(self, shape: tuple[int, int], cells: CellTables, known: Entries) -> None:
        self.entries = known
        self._hot = HotPixels(shape, cells.ring_HW)
        self._dim = DimRegions(shape, cells.exposure_HW.copy(), cells.bin_HW)
        self._knows_hot_pixels = learned.is_settled(known)
        self._seen: dict[tuple[int, int], None] = {}
        self._n_taught, self._found_at, self._n_misses = 0, 0, 0
        self._photons_per_px = 0.0
        self._counts_R, self._exposure_R = np.zeros(cells.n_rings), np.zeros(cells.n_rings)
        self._limits_for, self._limits_at = 0.0, 0

    @property
    def version(self) -> int:
        """Number of entries, which names what is known now."""
        return len(self.entries)

    @property
    def n_hot(self) -> int:
        """Hot pixels known now."""
        return int((self.entries["kind"] == Kind.HOT.encode()).sum())

    @property
    def knows_hot_pixels(self) -> bool:
        """Whether a lone bright pixel is evidence, as the hot ones are known."""
        return self._knows_hot_pixels

    def flux_scale(self, photons_per_px: float) -> float:
        """Return a frame's background over the mean of the misses so far; 1 for the first."""
        if not self._n_misses or self._photons_per_px <= 0:
            return 1.0
        return photons_per_px / (self._photons_per_px / self._n_misses)

    def teach(
        self,
        image: Image,
        pooled: Pooled,
        mask: Mask,
        radial_counts: NDArray[np.float32],
        photons_per_px: float,
        *,
        is_hit: bool,
        frame: int,
    ) -> Entries:
        """Learn from a judged frame.

        Args:
            image: (ss, fs).
            pooled: its maps, of the pixels that are valid now.
            mask: of the pixels that count, without what was learned.
            radial_counts: float32 (2, bins), background photons and pixels per ring and sector.
            photons_per_px: its background.
            is_hit: its verdict; background is learned from misses.
            frame: its number, for the record.

        Returns:
            New entries, which the caller must take out of its tables and of the mask.
        """
        if photons_per_px <= 0 or not self._is_new(pooled):
            return learned.no_entries()
        self._n_taught += 1
        if not is_hit:
            self._n_misses += 1
            self._photons_per_px += photons_per_px
        is_early = self._n_taught <= EARLY_FRAMES
        if is_early or self._n_taught % LATE_EVERY == 0:
            self._add_rings(radial_counts, photons_per_px, is_hit=is_hit)
            self._set_limits(photons_per_px)
            self._hot.see(image, pooled.sums, pooled.maxima, mask, is_hit=is_hit)
        fresh = learned.no_entries()
        step = EARLY_STEP if is_early else LATE_STEP
        if self._n_taught >= FIRST_LOOK and self._n_taught % step == 0:
            fresh = self._hot_entries(image, mask, photons_per_px, frame)
        if self._n_taught % DIM_STEP == 0:
            fresh = np.concatenate((fresh, self._dim_entries(pooled.sums, photons_per_px, frame)))
        if len(fresh):
            self.entries = np.concatenate((self.entries, fresh))
        return fresh

    def forget(self, valid: NDArray[np.bool_]) -> None:
        """Drop what was noted of pixels that count no more."""
        self._hot.forget(valid)

    # ------------------------------------------------------------------------------------

    def _is_new(self, pooled: Pooled) -> bool:
        """Return whether these pixels were not seen before."""
        mark = (pooled.n_photons, hash(pooled.sums[::MARKED_ROWS].tobytes()))
        if mark in self._seen:
            return False
        self._seen[mark] = None
        if len(self._seen) > MOST_KNOWN_FRAMES:
            del self._seen[next(iter(self._seen))]
        return True

    def _add_rings(
        self, radial_counts: NDArray[np.float32], photons_per_px: float, *, is_hit: bool
    ) -> None:
        """Add a frame's rings, relative to its mean; those of hits only while there is no miss."""
        if is_hit and self._n_misses:
            return
        sectors = radial_counts.astype(np.float64).reshape(2, -1, N_SECTORS)
        # Over so short an axis numpy's own sum costs several times as much.
        counts_R, exposure_R = reduce(np.add, (sectors[..., k] for k in range(N_SECTORS)))
        self._counts_R += counts_R
        self._exposure_R += exposure_R * photons_per_px

    def _rate_R(self, photons_per_px: float) -> NDArray[np.float64]:
        """Return what a frame of this mean has per pixel in each ring, by all frames so far."""
        expected_R = self._exposure_R + RING_PRIOR_PHOTONS
        return photons_per_px * (self._counts_R + RING_PRIOR_PHOTONS) / expected_R

    def _set_limits(self, photons_per_px: float) -> None:
        scale = photons_per_px / self._limits_for if self._limits_for else np.inf
        is_old = self._n_taught >= self._limits_at + REFRESH
        if is_old or not SCALE_DOWN < scale < SCALE_UP:
            self._hot.expect(self._rate_R(photons_per_px * HEADROOM))
            self._limits_for, self._limits_at = photons_per_px, self._n_taught

    def _hot_entries(
        self,
        image: Image,
        mask: Mask,
        photons_per_px: float,
        frame: int,
    ) -> Entries:
        pixels, is_more_to_come = self._hot.look(image, mask, self._rate_R(photons_per_px))
        found = learned.entries(Kind.HOT, pixels, 1, frame)
        if len(pixels):
            self._found_at = self._n_taught
        is_quiet = not is_more_to_come and self._found_at < self._n_taught
        if not self._knows_hot_pixels and (is_quiet or self._n_taught >= SETTLE_AT_LATEST):
            self._knows_hot_pixels = True
            found = np.concatenate((found, learned.entries(Kind.SETTLED, [-1], 0, frame)))
        return found

    def _dim_entries(
        self, sums_HW: NDArray[np.uint32], photons_per_px: float, frame: int
    ) -> Entries:
        brightest = self._rate_R(photons_per_px).max(keepdims=True) * CELL_PX**2
        self._dim.add(sums_HW, int(least_counts(brightest, DIM_TAIL)[0]))
        n = self._dim.n_frames
        is_due = n >= DIM_FIRST and n & (n - 1) == 0
        return self._dim.look(frame) if is_due else learned.no_entries()
