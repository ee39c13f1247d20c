"""What the frames of a series say on all hosts together, from what they say on each.

One rule: each host's frames are others, so what their photons say is independent and adds up as
Gaussians do, by the inverse of their covariance in (photon energy, camera length). What widens a
host's sigmas beyond its photons, `dispersion`, is the same wrong shape on all: it grows with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Sigmas up to which an estimate is believed, as of one frame (models/heads.py).
TELLS_EV, TELLS_M = 500.0, 0.025
_NUMBERS = ("n_frames", "n_hits_used", "n_misses_used", "n_photons")


def joined_estimate(said: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return the estimate of all hosts, keys as one host's; None if no host has one.

    Args:
        said: each host's, as its summary has it under `posterior`.
    """
    known = [p for p in said if p is not None and p["n_frames"]]
    if len(known) < 2:
        return dict(known[0]) if known else None
    information = [np.linalg.inv(_covariance(p) / p["dispersion"]) for p in known]
    of_photons = np.linalg.inv(sum(information, np.zeros((2, 2))))
    values = [np.array([p["photon_energy_eV"], p["clen_m"]]) for p in known]
    mean = of_photons @ sum((i @ v for i, v in zip(information, values, strict=True)), np.zeros(2))
    dispersion = 1 + sum(max(0.0, p["dispersion"] - 1) for p in known)
    covariance = dispersion * of_photons
    sigma = np.sqrt(np.diag(covariance))
    chances = [p["header_chance"] for p in known if p["header_chance"] is not None]
    verdicts = [p["header_mismatch"] for p in known if p["header_mismatch"] is not None]
    largest = max(known, key=lambda p: p["n_frames"])
    return {
        **largest,
        **{name: sum(p[name] for p in known) for name in _NUMBERS},
        "photon_energy_eV": float(mean[0]),
        "photon_energy_sigma_eV": float(sigma[0]),
        "clen_m": float(mean[1]),
        "clen_sigma_m": float(sigma[1]),
        "correlation": float(covariance[0, 1] / sigma.prod()),
        "dispersion": dispersion,
        "matrix": _product([p["matrix"] for p in known]),
        "tells_parameters": bool(sigma[0] <= TELLS_EV and sigma[1] <= TELLS_M),
        "header_chance": min(chances, default=None),
        "header_mismatch": any(verdicts) if verdicts else None,
    }


def _covariance(said: Mapping[str, Any]) -> NDArray[np.float64]:
    energy_eV, clen_m = said["photon_energy_sigma_eV"], said["clen_sigma_m"]
    shared = said["correlation"] * energy_eV * clen_m
    return np.array([[energy_eV**2, shared], [shared, clen_m**2]])


def _product(matrices: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Return the probabilities of (energy, clen) pairs that all hosts' frames give together."""
    log = np.log(np.maximum(np.array(matrices, np.float64), np.finfo(np.float64).tiny)).sum(0)
    weights = np.exp(log - log.max())
    together: list[list[float]] = (weights / weights.sum()).tolist()
    return together
