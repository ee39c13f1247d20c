"""What the frames to train from are like: kinds of frames, and how widely each setting varies.

One rule: the generator's own orientations only, new ones in every hit; the shipped patterns and
pattern_sim's are kept for evaluation, and so is what the preset `HELD_OUT` draws. Each frame draws
its kind, then one of few settings, each of which holds spans (`sim.frame_settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

import numpy as np

from hitfinder.sim import presets
from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.sim.physics import PULSE_PHOTONS


class Kind(StrEnum):
    """What a frame holds besides water and perhaps a crystal: blanks of `sim.presets`."""

    IDEAL = "ideal"
    JITTER = "jitter"
    RINGS = "rings"
    HOT = "hot"  # at the same places all through a series, which learns them; blanks only
    SALT = "salt"  # one or two stray spots; spots3 alone has to withstand them
    STREAK = "streak"  # of the jet; pairs only: the brightest cannot be told from spots


SHARE = {
    Kind.IDEAL: 0.1,
    Kind.JITTER: 0.35,
    Kind.RINGS: 0.25,
    Kind.STREAK: 0.15,
    Kind.SALT: 0.15,
}
"""Of the pairs to learn from."""
CLEAN_SHARE = {Kind.IDEAL: 0.15, Kind.JITTER: 0.5, Kind.RINGS: 0.35}
"""Of the pairs that say what a probability means: what most frames of a clean beam are like."""
BLANKS = (Kind.IDEAL, Kind.JITTER, Kind.RINGS, Kind.HOT, Kind.SALT)
"""That set thresholds."""
HOT_SERIES = 1000
"""Blanks of a series with hot pixels, first frames included; each has its data set and flux."""
NOMINAL_FRACTION = 0.5
"""Of the hits: a 10 um crystal of 1IC6 in a 1 % band; the others are the preset `TRAINING`'s."""
WIDE_FRACTION, DIVERGENCE_MRAD = 0.67, (0.2, 2.5)
"""Of the nominal hits whose spots are wider than computed, and by how much (FWHM)."""
CRYSTAL_UM = (5.0, 20.0)
"""Of the others; strength makes them weaker."""
FULL_FLUX_FRACTION = 0.6
"""Of the frames: full flux and a crystal of any strength; the others the other way round."""
STRENGTH, STRONG = (0.001, 0.5), (0.03, 1.0)
LOW_FLUX = (1e7, PULSE_PHOTONS)


def draw_kind(rng: np.random.Generator, share: Mapping[Kind, float]) -> Kind:
    """Return the kind of a pair."""
    return list(share)[int(rng.choice(len(share), p=list(share.values())))]


def draw_hot_series(rng: np.random.Generator) -> FrameSettings:
    """Draw what all blanks of one series with hot pixels are like."""
    low, high = np.log(LOW_FLUX)
    full, flux = rng.random() < FULL_FLUX_FRACTION, float(np.exp(rng.uniform(low, high)))
    return replace(
        presets.HOT,
        datasets=(presets.ALL_SETS[int(rng.integers(len(presets.ALL_SETS)))],),
        hit_fraction=0.0,
        n_photons=PULSE_PHOTONS if full else flux,
    )


def draw_settings(
    rng: np.random.Generator, kind: Kind, *, is_hit: bool, own_patterns: bool
) -> FrameSettings:
    """Draw one frame's settings.

    Args:
        rng: of this frame.
        kind: what it holds.
        is_hit: with a crystal in the beam.
        own_patterns: patterns come from elsewhere, with the size, band, energy and camera length
            of the data sets.
    """
    nominal, wide, full = rng.random(3) < (NOMINAL_FRACTION, WIDE_FRACTION, FULL_FLUX_FRACTION)
    blank = presets.BLANK_KINDS[kind]
    settings = replace(
        blank,
        hit_fraction=float(is_hit),
        n_photons=PULSE_PHOTONS if full else LOW_FLUX,
        strength=STRENGTH if full else STRONG,
        divergence_mrad=DIVERGENCE_MRAD if wide else 0.0,
        n_hot_pixels=0,
        patterns="shipped" if own_patterns else "generator",
        vary=own_patterns,
    )
    if nominal or own_patterns:
        return settings
    wild = presets.TRAINING
    return replace(
        settings,
        photon_energy_eV=wild.photon_energy_eV,
        clen_m=wild.clen_m,
        crystal_um=CRYSTAL_UM,
        divergence_mrad=wild.divergence_mrad,
        bandwidth=wild.bandwidth,
        mosaicity_deg=wild.mosaicity_deg,
        divergence_ratio=wild.divergence_ratio,
        radial_stretch=wild.radial_stretch,
        n_crystals=wild.n_crystals,
        crystals=wild.crystals,
        cell_A=wild.cell_A,
        space_groups=wild.space_groups,
        horizontal_polarization=wild.horizontal_polarization,
    )
