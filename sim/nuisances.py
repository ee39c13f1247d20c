"""What lights a detector besides water and the crystal: jet streak, rings, stray spots.

One rule: everything is drawn as single photons at 3e8 photons a pulse and scales with the flux,
and none of it makes a frame a hit. Blanks of a real beamline have all of these (physics.md, "How
accuracy is reported": blanks with nuisances); hot pixels, which stay in place, are the source's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.physics import PULSE_PHOTONS, Detector, wavelength_A

# A value, or the two ends between which each frame draws its own.
Span = float | tuple[float, float]


def draw_span(rng: np.random.Generator, span: Span, *, log: bool = False) -> float:
    """Return the value, or one drawn between the two ends, evenly or evenly in the logarithm."""
    if not isinstance(span, tuple):
        return float(span)
    if log:
        return float(np.exp(rng.uniform(np.log(span[0]), np.log(span[1]))))
    return float(rng.uniform(*span))


@dataclass(frozen=True, slots=True)
class Nuisances:
    """How much of each; photons are means a frame at 3e8 photons a pulse.

    Attributes:
        streak_photons: in the jet's streak, a line through the beam.
        streak_angle_deg: its direction from fs.
        streak_length_px, streak_width_px: 1/e length from the beam, and Gaussian sigma across.
        rings: mean number of powder or ice rings a frame.
        ring_d_A: their resolution, drawn evenly in the logarithm; off the array they do not show.
        ring_photons: in a ring (log), ring_width_px: its Gaussian sigma.
        stray_spots: mean number of stray spots a frame: cosmic rays, scatter, salt.
        stray_photons: in a spot (log), stray_sigma_px: its Gaussian sigma.
    """

    streak_photons: Span = 0.0
    streak_angle_deg: Span = (80.0, 100.0)
    streak_length_px: Span = (50.0, 300.0)
    streak_width_px: Span = (1.0, 5.0)
    rings: Span = 0.0
    ring_d_A: Span = (2.5, 40.0)
    ring_photons: Span = (100.0, 5000.0)
    ring_width_px: Span = (1.0, 6.0)
    stray_spots: Span = 0.0
    stray_photons: Span = (3.0, 300.0)
    stray_sigma_px: Span = (0.0, 3.0)


Offsets = tuple[NDArray[np.float64], NDArray[np.float64]]


def _streak(n: Nuisances, scale: float, rng: np.random.Generator) -> Offsets:
    """Draw the streak's photons: offsets (fs, ss) from the beam centre in pixels."""
    photons = int(rng.poisson(scale * draw_span(rng, n.streak_photons)))
    angle = np.radians(draw_span(rng, n.streak_angle_deg))
    along = rng.laplace(0.0, draw_span(rng, n.streak_length_px), photons)
    across = rng.normal(0.0, draw_span(rng, n.streak_width_px), photons)
    cos, sin = np.cos(angle), np.sin(angle)
    return along * cos - across * sin, along * sin + across * cos


def _ring(
    n: Nuisances, scale: float, rng: np.random.Generator, wave_A: float, clen_px: float
) -> Offsets:
    """Draw one ring's photons: offsets (fs, ss) from the beam centre in pixels."""
    photons = int(rng.poisson(scale * draw_span(rng, n.ring_photons, log=True)))
    sin_theta = wave_A / (2 * draw_span(rng, n.ring_d_A, log=True))
    if sin_theta >= np.sqrt(0.5):  # scattered backwards
        photons = 0
    two_theta = 2 * np.arcsin(min(sin_theta, np.sqrt(0.5) - 1e-6))
    radius = clen_px * np.tan(two_theta) + rng.normal(
        0.0, draw_span(rng, n.ring_width_px), photons
    )
    azimuth = rng.uniform(0.0, 2 * np.pi, photons)
    return radius * np.cos(azimuth), radius * np.sin(azimuth)


def _stray(
    n: Nuisances,
    scale: float,
    rng: np.random.Generator,
    shape: tuple[int, int],
    center_px: tuple[float, float],
) -> Offsets:
    """Draw one stray spot's photons: offsets (fs, ss) from the beam centre in pixels."""
    photons = int(rng.poisson(scale * draw_span(rng, n.stray_photons, log=True)))
    sigma = draw_span(rng, n.stray_sigma_px)
    fs, ss = rng.uniform(0, shape[1]) - center_px[0], rng.uniform(0, shape[0]) - center_px[1]
    return rng.normal(fs, sigma, photons), rng.normal(ss, sigma, photons)


def draw_nuisances(
    nuisances: Nuisances,
    rng: np.random.Generator,
    detector: Detector,
    photon_energy_eV: float,
    clen_m: float,
    n_photons: float,
    center_px: tuple[float, float],
) -> NDArray[np.int64]:
    """Draw one frame's nuisances.

    Returns:
        Flat pixel index of every photon on the array, int64, in no order; gaps not masked.
    """
    scale = n_photons / PULSE_PHOTONS
    wave_A, clen_px = wavelength_A(photon_energy_eV), clen_m / detector.pixel_size_m
    parts = [_streak(nuisances, scale, rng)]
    for _ in range(int(rng.poisson(draw_span(rng, nuisances.rings)))):
        parts.append(_ring(nuisances, scale, rng, wave_A, clen_px))
    for _ in range(int(rng.poisson(draw_span(rng, nuisances.stray_spots)))):
        parts.append(_stray(nuisances, scale, rng, detector.shape, center_px))
    fs = np.floor(np.concatenate([part[0] for part in parts]) + center_px[0]).astype(np.int64)
    ss = np.floor(np.concatenate([part[1] for part in parts]) + center_px[1]).astype(np.int64)
    n_ss, n_fs = detector.shape
    inside = (fs >= 0) & (fs < n_fs) & (ss >= 0) & (ss < n_ss)
    return ss[inside] * n_fs + fs[inside]
