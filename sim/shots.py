"""What crystals add to a frame: spots, the photons of one shot, and the picture without noise.

One rule: the two kinds, recorded patterns and the generator's, are asked in the same way and draw
in the same order: which crystal, then its photons. A recorded pattern is widened photon by
photon, so a wide one costs no more than a sharp one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.crystal import Beam, Block, bragg_spots
from hitfinder.sim.crystal_pool import CrystalPool
from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.sim.nuisances import draw_span
from hitfinder.sim.patterns import Pattern, place, shipped_patterns, spot_sigma_px, total, widen
from hitfinder.sim.physics import PULSE_PHOTONS, DataSet, Detector
from hitfinder.sim.reflections import random_quaternion
from hitfinder.sim.spot_shapes import BraggSpots, draw_spots, joined, land, render, round_spots


@dataclass(frozen=True, slots=True)
class Scene:
    """What one frame is made with, but for its crystals; see `exposure.Truth`."""

    is_hit: bool
    setting: DataSet
    n_photons: float
    strength: float
    thickness_m: float
    horizontal_polarization: float
    center_px: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """What the crystals of one frame gave.

    Attributes:
        bragg: every reflection worth naming, with its shape.
        photons: int32, flat pixel of every Bragg photon on the array, in no order.
        n_crystals: crystals in the beam.
        expect: makes the picture without noise; None for a blank.
    """

    bragg: BraggSpots
    photons: NDArray[np.int32]
    n_crystals: int
    expect: Callable[[], Pattern] | None


def blank() -> Shot:
    """Return the shot that met no crystal."""
    return Shot(joined([]), np.zeros(0, np.int32), 0, None)


class RecordedCrystals:
    """Crystals whose noise-free patterns are at hand: the shipped ones, or a caller's.

    Args:
        settings: what the frames are like.
        detector: the array that they fall on.
        pattern_sets: data set -> patterns; None for the shipped ones.
    """

    def __init__(
        self,
        settings: FrameSettings,
        detector: Detector,
        pattern_sets: Mapping[str, Sequence[Pattern]] | None,
    ) -> None:
        self._settings = settings
        self._detector = detector
        self._sets: dict[str, Sequence[Pattern]] = dict(pattern_sets or {})

    def shoot(
        self,
        scene: Scene,
        rng: np.random.Generator,
        extra: np.random.Generator,
        photon_rng: np.random.Generator,
    ) -> Shot:
        """Show one pattern, or several at once, at the scene's flux."""
        divergence_mrad = draw_span(rng, self._settings.divergence_mrad)
        sigma_px = spot_sigma_px(divergence_mrad, scene.setting.clen_m)
        n_crystals = draw_count(extra, self._settings.n_crystals)
        sharp = [self._choose(rng, scene) for _ in range(n_crystals)]
        photons = [self._draw(pattern, sigma_px, photon_rng) for pattern in sharp]
        return Shot(
            joined([round_spots(pattern.spots, sigma_px) for pattern in sharp]),
            np.concatenate(photons),
            n_crystals,
            partial(_widened_total, sharp, sigma_px),
        )

    def _choose(self, rng: np.random.Generator, scene: Scene) -> Pattern:
        """Choose a pattern of the scene's data set and put it on this detector at its flux."""
        name = scene.setting.name
        if name not in self._sets:
            self._sets[name] = shipped_patterns(name)
        pattern = self._sets[name][int(rng.integers(len(self._sets[name])))]
        turned = rng.random(2) < 0.5
        flip = (bool(turned[0]), bool(turned[1])) if self._settings.vary else (False, False)
        home_fs, home_ss = Detector().center_px
        center_fs, center_ss = scene.center_px
        shift_px = (round(center_ss - home_ss), round(center_fs - home_fs))
        if flip != (False, False) or shift_px != (0, 0) or pattern.shape != self._detector.shape:
            pattern = place(pattern, self._detector.shape, shift_px, flip)
        return pattern.scaled(scene.n_photons * scene.strength / PULSE_PHOTONS)

    def _draw(
        self, pattern: Pattern, sigma_px: float, rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """Draw a pattern's photons; each is displaced on its own where spots are wide."""
        photons = np.repeat(pattern.index, draw_counts(pattern.photons, rng))
        if sigma_px == 0:
            return photons
        ss, fs = np.divmod(photons, np.int32(pattern.shape[1]))
        spread_px2 = np.array([[sigma_px**2, 0.0, sigma_px**2]])
        return land(pattern.shape, ss, fs, spread_px2, rng)


class GeneratedCrystals:
    """Crystals whose patterns are computed anew for each hit.

    Args:
        settings: what the frames are like.
        detector: the array that they fall on.
        crystals: what is shot.
    """

    def __init__(self, settings: FrameSettings, detector: Detector, crystals: CrystalPool) -> None:
        self._settings = settings
        self._detector = detector
        self._crystals = crystals

    def shoot(
        self,
        scene: Scene,
        rng: np.random.Generator,
        extra: np.random.Generator,
        photon_rng: np.random.Generator,
    ) -> Shot:
        """Put one crystal or several of a kind into the beam."""
        s = self._settings
        divergence_mrad = draw_span(rng, s.divergence_mrad)
        beam = Beam(
            scene.setting.photon_energy_eV,
            scene.setting.clen_m,
            bandwidth=draw_span(rng, s.bandwidth, log=True),
            divergence_mrad=divergence_mrad,
            divergence_ratio=draw_span(extra, s.divergence_ratio, log=True),
            n_photons=scene.n_photons * scene.strength,
        )
        radial_stretch = draw_span(extra, s.radial_stretch)
        crystal = self._crystals[int(rng.integers(len(self._crystals)))]
        shown = []
        for _ in range(draw_count(extra, s.n_crystals)):
            size_um = draw_span(rng, s.crystal_um, log=True)
            block = Block(size_um, draw_span(extra, s.mosaicity_deg))
            turn = random_quaternion(rng)
            center_px = scene.center_px
            shown.append(
                bragg_spots(crystal, self._detector, beam, turn, block, center_px, radial_stretch)
            )
        bragg, shape = joined(shown), self._detector.shape
        photons = draw_spots(shape, bragg, photon_rng)
        return Shot(bragg, photons, len(shown), partial(render, shape, bragg))


def draw_count(rng: np.random.Generator, count: int | tuple[int, int]) -> int:
    """Return the number, or one drawn evenly from the first to the last of a pair."""
    if not isinstance(count, tuple):
        return count
    return int(rng.integers(*count, endpoint=True))


def draw_counts(photons: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw Poisson counts of a sparse pattern: one for each expected number of photons.

    Faint patterns name far more pixels than photons come: then they are placed one by one.
    """
    expected = float(photons.sum(dtype=np.float64))
    if expected > len(photons):
        return rng.poisson(photons)
    cumulative = np.cumsum(photons, dtype=np.float64)
    landed = rng.random(int(rng.poisson(expected))) * expected
    pixel = np.minimum(np.searchsorted(cumulative, landed, side="right"), len(photons) - 1)
    return np.bincount(pixel, minlength=len(photons))


def _widened_total(patterns: Sequence[Pattern], sigma_px: float) -> Pattern:
    """Return the sum of the patterns, each widened."""
    return total([widen(pattern, sigma_px) for pattern in patterns])
