"""What the page is told: the state, its history as columns, and the frames that can be seen.

One rule: it is made when a browser asks, at most twice a second however many ask, from what the
supervisor's loop has left; arrays travel apart, as numbers, and the browser draws.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.results import Outcome
from hitfinder.workers.control import Control
from hitfinder.workers.frame_samples import FrameSamples, SampledFrame
from hitfinder.workers.history import History
from hitfinder.workers.powder import RING_PX

KEPT_S = 0.5
# Bins of the two histograms of hits; resolutions beyond the last edge are in the last bin.
SPOT_BINS, RESOLUTION_EDGES_A = 40, np.arange(1.0, 10.25, 0.25)
COLUMNS = ("hits", "misses", "failed", "wire_bytes", "stored_bytes", "span_s")
LEVELS = ("ring_used", "latency_p50_s", "latency_p99_s", "n_hot")


class PageState:
    """The page's JSON, over the parts of a daemon.

    Args:
        state: tells the daemon's latest state.
        history: what it has been doing.
        samples: the frames that can be seen.
        control: what can be changed.
    """

    def __init__(
        self,
        state: Callable[[], dict[str, Any]],
        history: History,
        samples: FrameSamples,
        control: Control,
    ) -> None:
        self.state, self.samples, self.control, self._history = state, samples, control, history
        self._making = threading.Lock()
        self._made_s, self._json = 0.0, b""

    def json(self) -> bytes:
        """Return it as JSON."""
        with self._making:
            if time.monotonic() - self._made_s > KEPT_S:
                self._json = msgspec.json.encode(self._make())
                self._made_s = time.monotonic()
            return self._json

    def _make(self) -> dict[str, Any]:
        seconds = list(self._history.seconds)
        columns: dict[str, Any] = {n: [getattr(s, n) for s in seconds] for n in COLUMNS}
        columns |= {n: [_short(getattr(s, n)) for s in seconds] for n in LEVELS}
        columns["t_s"] = [round(s.t_s, 2) for s in seconds]
        columns["background_photons_per_px"] = [
            _short(s.miss_photons_per_px / s.misses) if s.misses else None for s in seconds
        ]
        return {
            **self.state(),
            "history": columns,
            "series_closed": list(self._history.series),
            "spots": self._spots(),
            "resolution": self._resolution(),
            "frames": {
                outcome.value: [_names(f) for f in self.samples.latest(outcome)]
                for outcome in (Outcome.HIT, Outcome.MISS)
            },
            "powder": self._powder(),
            "can_change": self.control.is_open,
        }

    def _spots(self) -> dict[str, Any]:
        n = np.array([spots for spots, _ in list(self._history.hits)], np.int64)
        most = int(n.max(initial=0))
        width = -(-(most + 1) // SPOT_BINS)
        edges = np.arange(0, most + width + 1, width)
        counts, _ = np.histogram(n, edges)
        return {"n": len(n), "edges": edges.tolist(), "counts": counts.tolist()}

    def _resolution(self) -> dict[str, Any]:
        told = [d_A for _, d_A in list(self._history.hits) if d_A is not None]
        edges = RESOLUTION_EDGES_A
        counts, _ = np.histogram(np.clip(told, edges[0], edges[-1]), edges)
        return {"n": len(told), "edges": edges.tolist(), "counts": counts.tolist()}

    def _powder(self) -> dict[str, Any] | None:
        series = self.samples.series
        if series is None:
            return None
        geometry = series.geometry.geometry
        return {
            "series": series.series,
            "shape": geometry.shape,
            "beam_center_px": geometry.beam_center_px,
            "pixel_size_m": geometry.pixel_size_m,
            "clen_m": geometry.clen_m,
            "photon_energy_eV": geometry.photon_energy_eV,
            "ring_px": RING_PX,
            "n_frames": {o.value: p.n_frames for o, p in series.powder.items()},
            "profile": {
                o.value: _numbers(p.profile(series.rings))
                for o, p in series.powder.items()
                if p.n_frames
            },
        }


def _names(frame: SampledFrame) -> dict[str, Any]:
    r = frame.record
    return {"number": frame.number, "series": r.series, "frame": r.frame, "n_peaks": r.n_peaks}


def frame_json(frame: SampledFrame) -> dict[str, Any]:
    """Return what a sampled frame's picture is labelled and circled with."""
    record = msgspec.structs.asdict(frame.record)
    peaks = frame.record.peaks.arrays() if frame.record.peaks is not None else {}
    places = {name: [round(float(x), 1) for x in peaks.get(name, ())] for name in ("fs", "ss")}
    return {**record, "number": frame.number, "shape": frame.blob.shape, "peaks": places}


def _numbers(column: NDArray[np.floating]) -> list[float | None]:
    return [None if not np.isfinite(x) else float(f"{x:.4g}") for x in column]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
