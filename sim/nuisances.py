"""What lights a detector besides water and the crystal: streak, halo, rings, ice, stray, salt.

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
        rings: mean number of powder rings a frame; rings_at_least: never fewer.
        ring_d_A: their resolution, drawn evenly in the logarithm; off the array they do not show.
        ring_photons: in a ring (log), ring_width_px: its Gaussian sigma.
        stray_spots: mean number of stray spots a frame: cosmic rays, scatter.
        stray_photons: in a spot (log), stray_sigma_px: its Gaussian sigma.
        halo_photons: of air and slits about the beam, falling off by 1/e in halo_radius_px.
        ice_photons: in all rings of hexagonal ice; they are as wide as powder rings.
        ice_spots: mean number of spots on ice rings, each of ice_spot_photons (log).
        salt_spots: spots of a salt crystal, drawn evenly from first to last; salt_photons: in a
            spot (log), salt_sigma_px: its Gaussian sigma.
    """

    streak_photons: Span = 0.0
    streak_angle_deg: Span = (80.0, 100.0)
    streak_length_px: Span = (50.0, 300.0)
    streak_width_px: Span = (1.0, 5.0)
    rings: Span = 0.0
    rings_at_least: int = 0
    ring_d_A: Span = (2.5, 40.0)
    ring_photons: Span = (100.0, 5000.0)
    ring_width_px: Span = (1.0, 6.0)
    stray_spots: Span = 0.0
    stray_photons: Span = (3.0, 300.0)
    stray_sigma_px: Span = (0.0, 3.0)
    halo_photons: Span = 0.0
    halo_radius_px: Span = (20.0, 150.0)
    ice_photons: Span = 0.0
    ice_spots: Span = 0.0
    ice_spot_photons: Span = (8.0, 1000.0)
    salt_spots: tuple[int, int] = (0, 0)
    salt_photons: Span = (8.0, 1000.0)
    salt_sigma_px: Span = (0.0, 2.0)


# Rings of hexagonal ice and what part of its photons each has, roughly.
ICE_D_A = np.array([3.90, 3.67, 3.44, 2.67, 2.25, 2.07, 1.95, 1.92, 1.88, 1.72])
ICE_PART = np.array([1.0, 0.5, 0.75, 0.2, 0.4, 0.4, 0.05, 0.3, 0.05, 0.15]) / 3.8

Offsets = tuple[NDArray[np.float64], NDArray[np.float64]]


def _streak(n: Nuisances, scale: float, rng: np.random.Generator) -> Offsets:
    """Draw the streak's photons: offsets (fs, ss) from the beam centre in pixels."""
    photons = int(rng.poisson(scale * draw_span(rng, n.streak_photons)))
    angle = np.radians(draw_span(rng, n.streak_angle_deg))
    along = rng.laplace(0.0, draw_span(rng, n.streak_length_px), photons)
    across = rng.normal(0.0, draw_span(rng, n.streak_width_px), photons)
    cos, sin = np.cos(angle), np.sin(angle)
    return along * cos - across * sin, along * sin + across * cos


def _ring_px(d_A: float, wave_A: float, clen_px: float) -> float | None:
    """Return the radius of a ring of resolution d; None if it is scattered backwards."""
    sin_theta = wave_A / (2 * d_A)
    if sin_theta >= np.sqrt(0.5):
        return None
    return float(clen_px * np.tan(2 * np.arcsin(sin_theta)))


def _ring(
    radius_px: float | None, mean: float, width_px: float, rng: np.random.Generator
) -> Offsets:
    """Draw one ring's photons: offsets (fs, ss) from the beam centre in pixels."""
    photons = int(rng.poisson(mean)) if radius_px is not None else 0
    radius = (radius_px or 0.0) + rng.normal(0.0, width_px, photons)
    azimuth = rng.uniform(0.0, 2 * np.pi, photons)
    return radius * np.cos(azimuth), radius * np.sin(azimuth)


def _halo(n: Nuisances, scale: float, rng: np.random.Generator) -> Offsets:
    """Draw the halo's photons: offsets (fs, ss) from the beam centre in pixels."""
    photons = int(rng.poisson(scale * draw_span(rng, n.halo_photons)))
    radius = rng.gamma(2.0, draw_span(rng, n.halo_radius_px), photons)
    azimuth = rng.uniform(0.0, 2 * np.pi, photons)
    return radius * np.cos(azimuth), radius * np.sin(azimuth)


def _spot(
    at: tuple[float, float], mean: float, sigma_px: float, rng: np.random.Generator
) -> Offsets:
    """Draw one spot's photons about (fs, ss): offsets from the beam centre in pixels."""
    photons = int(rng.poisson(mean))
    return rng.normal(at[0], sigma_px, photons), rng.normal(at[1], sigma_px, photons)


def _anywhere(
    rng: np.random.Generator, shape: tuple[int, int], center_px: tuple[float, float]
) -> tuple[float, float]:
    """Return a place on the array: offset (fs, ss) from the beam centre in pixels."""
    fs, ss = rng.uniform(0, shape[1]) - center_px[0], rng.uniform(0, shape[0]) - center_px[1]
    return fs, ss


def _powder(
    n: Nuisances, scale: float, rng: np.random.Generator, wave_A: float, clen_px: float
) -> list[Offsets]:
    """Draw the photons of powder rings."""
    parts = []
    for _ in range(max(int(rng.poisson(draw_span(rng, n.rings))), n.rings_at_least)):
        mean = scale * draw_span(rng, n.ring_photons, log=True)
        radius_px = _ring_px(draw_span(rng, n.ring_d_A, log=True), wave_A, clen_px)
        parts.append(_ring(radius_px, mean, draw_span(rng, n.ring_width_px), rng))
    return parts


def _ice(
    n: Nuisances, scale: float, rng: np.random.Generator, wave_A: float, clen_px: float
) -> list[Offsets]:
    """Draw the photons of ice: its rings, and spots on them."""
    parts = []
    mean, width_px = scale * draw_span(rng, n.ice_photons), draw_span(rng, n.ring_width_px)
    if mean > 0:
        for d_A, part in zip(ICE_D_A, ICE_PART, strict=True):
            parts.append(_ring(_ring_px(d_A, wave_A, clen_px), mean * part, width_px, rng))
    for _ in range(int(rng.poisson(draw_span(rng, n.ice_spots)))):
        radius_px = _ring_px(float(rng.choice(ICE_D_A, p=ICE_PART)), wave_A, clen_px)
        azimuth, mean = (
            rng.uniform(0, 2 * np.pi),
            scale * draw_span(rng, n.ice_spot_photons, log=True),
        )
        if radius_px is not None:
            at = (radius_px * np.cos(azimuth), radius_px * np.sin(azimuth))
            parts.append(_spot(at, mean, draw_span(rng, n.stray_sigma_px), rng))
    return parts


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
    n, shape, scale = nuisances, detector.shape, n_photons / PULSE_PHOTONS
    wave_A, clen_px = wavelength_A(photon_energy_eV), clen_m / detector.pixel_size_m
    parts = [_streak(n, scale, rng), *_powder(n, scale, rng, wave_A, clen_px)]
    for _ in range(int(rng.poisson(draw_span(rng, n.stray_spots)))):
        mean = scale * draw_span(rng, n.stray_photons, log=True)
        sigma_px, at = draw_span(rng, n.stray_sigma_px), _anywhere(rng, shape, center_px)
        parts.append(_spot(at, mean, sigma_px, rng))
    parts += [_halo(n, scale, rng), *_ice(n, scale, rng, wave_A, clen_px)]
    for _ in range(int(rng.integers(*n.salt_spots, endpoint=True))):
        mean = scale * draw_span(rng, n.salt_photons, log=True)
        sigma_px, at = draw_span(rng, n.salt_sigma_px), _anywhere(rng, shape, center_px)
        parts.append(_spot(at, mean, sigma_px, rng))
    fs = np.floor(np.concatenate([part[0] for part in parts]) + center_px[0]).astype(np.int64)
    ss = np.floor(np.concatenate([part[1] for part in parts]) + center_px[1]).astype(np.int64)
    n_ss, n_fs = detector.shape
    inside = (fs >= 0) & (fs < n_fs) & (ss >= 0) & (ss < n_ss)
    return ss[inside] * n_fs + fs[inside]
