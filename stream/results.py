"""The results topic: what is published for every frame and series (design section 7, fixed).

ZMQ PUB, two parts: topic, then one msgpack map. `Record` is the map of `result.*`; a missing
value is nil, a key is never left out. Peak arrays travel as little-endian float32 byte strings.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

SCHEMA = 1


class Outcome(StrEnum):
    """The one verdict that each announced frame gets."""

    HIT = "hit"
    MISS = "miss"
    DROPPED = "dropped"  # we had no room for it, and say so
    CORRUPT = "corrupt"  # its bytes were wrong
    LOST = "lost"  # received, but lost by a failure of ours
    MISSING = "missing"  # announced, never received


OUTCOMES = tuple(Outcome)


class Peaks(msgspec.Struct, frozen=True):
    """Spots of one frame: five `<f4` byte strings of equal length.

    `fs`, `ss` are pixel indices, centre of the first pixel 0.0; `intensity` in photons above
    background; `snr` = intensity / its sigma; `p` the probability that it is a Bragg spot.
    """

    fs: bytes = b""
    ss: bytes = b""
    intensity: bytes = b""
    snr: bytes = b""
    p: bytes = b""

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the five columns as float32 arrays of shape (n_peaks,)."""
        names = ("fs", "ss", "intensity", "snr", "p")
        return {name: np.frombuffer(getattr(self, name), "<f4") for name in names}


class Record(msgspec.Struct, kw_only=True):
    """One frame's verdict as published and as stored, a column a key."""

    schema: int = SCHEMA
    seq: int | None = None
    series: int
    series_uid: str | None = None
    frame: int
    outcome: Outcome
    p_hit: float | None = None
    threshold: float | None = None
    p_any: float | None = None
    p_spots3: float | None = None
    n_peaks: int | None = None
    peaks: Peaks | None = None
    photon_energy_eV: float | None = None
    photon_energy_sigma_eV: float | None = None
    clen_m: float | None = None
    clen_sigma_m: float | None = None
    header_photon_energy_eV: float | None = None
    header_clen_m: float | None = None
    mismatch: bool | None = None
    tells_parameters: bool | None = None
    """Whether this frame alone knows energy and clen to 500 eV and 25 mm."""
    d_min_A: float | None = None
    """Resolution: 95 % of the peaks lie at larger d."""
    model: str | None = None
    mask: str | None = None
    """First 12 hex digits of the sha256 of the operator's mask (bytes, 1 = good); None without."""
    n_photons: int | None = None
    background_photons_per_px: float | None = None
    learned_by: int | None = None
    """Number of the list of learned pixels that the frame was judged with: its worker's, and 16
    more for each time that the mask was changed."""
    n_learned: int | None = None
    """Length of that list then; `/learned` of the ledger holds it."""
    flux_scale: float | None = None
    """Background over the mean of the worker's misses of the series before."""
    t_detector_ns: int | None = None
    t_received_ns: int | None = None
    t_published_ns: int | None = None
    file: str | None = None
    row: int | None = None
    reason: str | None = None
    """Why, for outcomes that are neither hit nor miss."""


def topic_of(outcome: Outcome) -> bytes:
    """Return the topic that a verdict is published under."""
    if outcome in (Outcome.HIT, Outcome.MISS):
        return b"result." + outcome.value.encode()
    return b"result.other"
