"""What a worker does for the series as a whole: counts its frames in, and estimates when due.

One rule: the estimate is made from what all workers counted, by whichever holds the series' tables
and claims the turn: about once a second, and once more when the last frame is judged.
"""

from __future__ import annotations

import logging
import time

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.head_tables import HeadTables, fold
from hitfinder.models.judgement import Judgement
from hitfinder.models.series_posterior import SeriesPosterior, look, with_hits_if_needed
from hitfinder.stream.evidence import Evidence
from hitfinder.stream.ring import MAX_BINS, Ring, State
from hitfinder.stream.series import SeriesTable
from hitfinder.workers.geometry import SeriesGeometry

log = logging.getLogger(__name__)

PERIOD_MS = 1000
# Once a series is sealed its end waits for us; the pause keeps two workers from the same work.
LAST_PERIOD_MS = 50
# How often it is asked whether an estimate is due: it costs tens of microseconds.
ASK_S = 0.05
# Fields of an estimate that the ring's `ESTIMATE` has under the same name.
FOUND = (
    "photon_energy_eV",
    "photon_energy_sigma_eV",
    "clen_m",
    "clen_sigma_m",
    "correlation",
    "dispersion",
    "matrix",
    "tells_parameters",
)
UNJUDGED = (State.FILLING, State.RECEIVED, State.JUDGING)


# Background photons and exposure of one frame, float64 (bins,) each; see `evidence.Total`.
Counted = tuple[NDArray[np.float64], NDArray[np.float64]]


def counted_in(judgement: Judgement) -> Counted:
    """Return what a judged frame adds to its series' evidence."""
    counts, exposure = fold(judgement.radial_counts)
    return counts, exposure * counts.sum()


class SeriesEstimates:
    """Counts the frames of one worker in, and estimates the series that it knows."""

    def __init__(self, ring: Ring, role: int) -> None:
        self.ring, self.role = ring, role
        self.series, self.evidence = SeriesTable(ring), Evidence(ring)
        self._known: dict[int, tuple[int, HeadTables, SeriesGeometry]] = {}
        self._asked_s = 0.0

    def add(
        self,
        slot: int,
        version: int,
        tables: HeadTables,
        geometry: SeriesGeometry,
        judgement: Judgement,
    ) -> None:
        """Count a judged frame in; call it before the slot is handed on."""
        if len(tables.radius_m) > MAX_BINS:
            return
        counted = counted_in(judgement)
        self.count(slot, self.role, version, counted, is_hit=judgement.is_hit)
        self.know(int(self.ring.slots["key"][slot]), version, tables, geometry)

    def count(self, slot: int, role: int, version: int, counted: Counted, *, is_hit: bool) -> None:
        """Count in what one frame says, as the worker of a role."""
        entry = self.series.entry_of(int(self.ring.slots["key"][slot]))
        if entry is not None:
            self.evidence.add(entry, role, slot, version, *counted, is_hit=is_hit)

    def know(self, key: int, version: int, tables: HeadTables, geometry: SeriesGeometry) -> None:
        """Take what a series is estimated with."""
        self._known[key] = version, tables, geometry

    def step(self) -> None:
        """Estimate what is due."""
        now_s = time.monotonic()
        if now_s - self._asked_s < ASK_S:
            return
        self._asked_s = now_s
        for key in list(self._known):
            entry = self.series.entry_of(key)
            if entry is None or self.ring.series["released"][entry]:
                del self._known[key]
            elif self._is_due(entry, key, int(now_s * 1e3)):
                self._estimate(entry, *self._known[key])

    def _is_due(self, entry: int, key: int, now_ms: int) -> bool:
        is_last = bool(self.ring.series["sealed"][entry]) and not self._is_awaited(key)
        is_mine = self.evidence.claim(entry, now_ms, LAST_PERIOD_MS if is_last else PERIOD_MS)
        return is_mine and not self.evidence.is_settled(entry)

    def _is_awaited(self, key: int) -> bool:
        """Say whether a frame of the series is still to be judged."""
        states = self.ring.states & 0xFF
        return bool(np.isin(states[self.ring.slots["key"] == key], UNJUDGED).any())

    def _estimate(
        self, entry: int, version: int, tables: HeadTables, geometry: SeriesGeometry
    ) -> None:
        n_bins = len(tables.radius_m)
        totals = [
            self.evidence.total(entry, version, n_bins, is_hit=is_hit) for is_hit in (True, False)
        ]
        hits, misses = (SeriesPosterior(t.counts, t.exposure, t.n_frames) for t in totals)
        n_frames, misses_used = hits.n_frames + misses.n_frames, misses.n_frames
        series = with_hits_if_needed(misses, hits)
        found = series.estimate(tables)
        before = self.evidence.estimate(entry) or {}
        said = {
            "n_frames": n_frames,
            "n_misses_used": misses_used,
            "n_hits_used": series.n_frames - misses_used,
            "n_photons": series.n_photons,
            "look": before.get("look", -1),
            "header_chance": before.get("header_chance", np.nan),
            "header_mismatch": before.get("header_mismatch", False),
            **{n: getattr(found, n) for n in FOUND},
        }
        stated = geometry.geometry
        header = stated.photon_energy_eV, stated.clen_m
        # What spots leave behind in hits is no reason for an alarm.
        is_clean = series.n_frames == misses_used
        seen = look(found, series.n_photons, said["look"], *header) if is_clean else None
        if seen is not None:
            said["look"], said["header_chance"] = seen.number, seen.chance
            said["header_mismatch"] = said["header_mismatch"] or seen.is_mismatch
        if said["header_mismatch"] and not before.get("header_mismatch"):
            log.warning(
                "series %d: the pixels say %.0f +- %.0f eV and %.4f +- %.4f m, the header %s eV "
                "and %s m",
                self.ring.series["series"][entry],
                found.photon_energy_eV,
                found.photon_energy_sigma_eV,
                found.clen_m,
                found.clen_sigma_m,
                *header,
            )
        self.evidence.store(entry, said)
