"""A daemon's state as the page gets it, without a daemon."""

from __future__ import annotations

from typing import Any

import bitshuffle
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.messages import Blob, Codec
from hitfinder.stream.results import Outcome, Peaks, Record


def level(hits: int = 0, misses: int = 0, **others: Any) -> dict[str, Any]:
    """Return what `lately` says of a span of time."""
    from hitfinder.workers.history import hit_rate

    quiet = {"background_photons_per_px": 0.03, "n_hot_pixels": 12}
    return {"hit_rate": hit_rate(hits, misses), **quiet, **others}


def healthy_state(**changes: Any) -> dict[str, Any]:
    """Return the state of a daemon that does well, but for `changes`."""
    return {
        "t_monotonic_s": 1e12,
        "uptime_s": 300.5,
        "counts": {"hit": 20, "miss": 80, "dropped": 0, "corrupt": 0, "lost": 0, "missing": 0},
        "n_messages": 102,
        "n_bytes": 1000,
        "n_malformed": 0,
        "n_stale": 0,
        "n_major_faults": 0,
        "connected": 1,
        "n_series_open": 1,
        "n_series_closed": 1,
        "source_total": 0,
        "series_open": [open_series()],
        "ring_slots": 64,
        "ring_slots_used": 3,
        "n_hot_pixels": 12,
        "latency_p50_s": 0.0125,
        "latency_p99_s": None,
        "brightest": {
            "dtype": "uint16",
            "n_frames": 30,
            "n_saturated_frames": 0,
            "most_counts": 40,
            "most_counts_median": 12,
        },
        "children": [child("receiver"), child("sink"), child("worker")],
        "errors": [],
        "lately": {
            "ring_used": 0.05,
            "failed": 0,
            "malformed": 0,
            "restarts": 0,
            "now": level(200, 800),
            "before": level(800, 3200),
        },
        "alarms": [],
        "changes": [],
        "candidate": None,
        "detector": None,
        "last_series": None,
        **changes,
    }


def child(name: str, **changes: Any) -> dict[str, Any]:
    """Return a child that is at work, but for `changes`."""
    well = {"alive": True, "ready": True, "done": False, "starts": 1, "last_exit": ""}
    return {"name": name, **well, **changes}


def open_series(**posterior: Any) -> dict[str, Any]:
    """Return an open series whose header and pixels agree, but for `posterior`."""
    said = {
        "n_frames": 40,
        "photon_energy_eV": 7001.5,
        "photon_energy_sigma_eV": 8.0,
        "clen_m": 0.15,
        "clen_sigma_m": 2e-4,
        "tells_parameters": True,
        "header_mismatch": None,
    }
    return {
        "series": 12,
        "series_uid": None,
        "announced": 1000,
        "n_received": 100,
        "n_dropped": 0,
        "counts": {"hit": 20, "miss": 80},
        "header_photon_energy_eV": 7000.0,
        "header_clen_m": 0.15,
        "posterior": {**said, **posterior},
    }


def blob_of(image: NDArray[Any]) -> Blob:
    """Return an image as a detector sends it."""
    packed = bitshuffle.compress_lz4(image, 0).tobytes()
    body = memoryview(packed)
    return Blob(
        "threshold_1",
        (image.shape[0], image.shape[1]),
        image.dtype.name,
        Codec.BSLZ4,
        image.dtype.itemsize,
        body,
        has_header=False,
    )


def judged(outcome: Outcome, frame: int = 0, **values: Any) -> Record:
    """Return a frame's verdict."""
    one = np.array([5.0], "<f4").tobytes()
    peaks = Peaks(one, one, one, one, one) if outcome is Outcome.HIT else None
    return Record(series=12, frame=frame, outcome=outcome, n_peaks=1, peaks=peaks, **values)
