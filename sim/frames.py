"""Exposures with their truth: Poisson frames of water, Bragg spots and what else is on a detector.

One rule: a frame is a function of (settings, detector, seed, frame number) alone, whichever
frames were drawn before. Gap pixels hold the pixel type's highest value, as an Eiger sends them,
and no other pixel reaches it. Numbers and model: `physics.py`, `patterns.py`, `crystal.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.crystal import Beam, bragg_pattern
from hitfinder.sim.frame_settings import FrameSettings, check_settings
from hitfinder.sim.nuisances import Nuisances, Span, draw_nuisances, draw_span
from hitfinder.sim.patterns import (
    Pattern,
    Spots,
    no_spots,
    place,
    shipped_patterns,
    spot_sigma_px,
    widen,
)
from hitfinder.sim.physics import (
    JET_THICKNESS_M,
    PULSE_PHOTONS,
    DataSet,
    Detector,
    WaterField,
    data_sets,
    water_field,
    water_form_factor,
)
from hitfinder.sim.reflections import Crystal, random_quaternion, read_crystal

__all__ = [
    "Exposure",
    "FrameSettings",
    "FrameSource",
    "Nuisances",
    "Span",
    "draw_background",
    "draw_counts",
]

# A reflection is in the truth from this many expected photons on (physics.md, peak positions).
TRUTH_PHOTONS = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """One frame and everything that is true of it.

    Attributes:
        frame: its number.
        image: (ss, fs) counts in photons, gap pixels at the type's highest value.
        is_hit: a crystal was in the beam (its spots may still be too faint to see).
        dataset: the data set's name, None where energy and camera length were drawn freely.
        photon_energy_eV, clen_m, n_photons, strength, thickness_m: what the frame was made with.
        beam_center_px: (fs, ss) from the array's corner.
        spots: reflections of at least 3 expected photons whose centre is on an active pixel.
        bragg: the expected Bragg photons (gaps not masked), None for a blank.
        bragg_counts: int64, the Bragg photons that came, one number for each `bragg.index`.
    """

    frame: int
    image: NDArray[np.unsignedinteger]
    is_hit: bool
    dataset: str | None
    photon_energy_eV: float
    clen_m: float
    n_photons: float
    strength: float
    thickness_m: float
    beam_center_px: tuple[float, float]
    spots: Spots
    bragg: Pattern | None
    bragg_counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Scene:
    """What one frame is made with, but for its crystal; see `Exposure`."""

    is_hit: bool
    setting: DataSet
    n_photons: float
    strength: float
    thickness_m: float
    center_px: tuple[float, float]


def _add_saturating(
    image: NDArray[np.unsignedinteger], index: NDArray[np.integer], counts: NDArray[np.int64]
) -> None:
    """Add counts to distinct flat pixels; a pixel stops one below the type's highest value."""
    highest = int(np.iinfo(image.dtype).max) - 1
    image[index] = np.minimum(image[index].astype(np.int64) + counts, highest)


def draw_counts(photons: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw Poisson counts of a sparse pattern: one for each expected number of photons.

    Wide spots name far more pixels than photons come: then the photons are placed one by one.
    """
    total = float(photons.sum(dtype=np.float64))
    if total > len(photons):
        return rng.poisson(photons)
    cumulative = np.cumsum(photons, dtype=np.float64)
    landed = rng.random(int(rng.poisson(total))) * total
    pixel = np.minimum(np.searchsorted(cumulative, landed, side="right"), len(photons) - 1)
    return np.bincount(pixel, minlength=len(photons))


def draw_background(
    field: WaterField, rng: np.random.Generator, dtype: str
) -> NDArray[np.unsignedinteger]:
    """Draw one frame of water: flat counts of `dtype`, gaps not masked."""
    photons = field.draw(rng)
    highest = int(np.iinfo(dtype).max) - 1
    if photons is None:
        counts = rng.poisson(field.mean()).ravel()
        return np.minimum(counts, highest).astype(dtype)
    # A mean below 0.25 photons never fills even a uint8 pixel, so plain addition is enough.
    image = np.zeros(len(field.y2) * len(field.x2), dtype)
    np.add.at(image, photons, image.dtype.type(1))
    return image


class FrameSource:
    """A seeded, endless supply of exposures.

    Args:
        settings: what the frames are like.
        seed: the same seed gives the same frames.
        detector: the array; by default the EIGER2 4M.
        crystals: what the generator shoots, one drawn evenly for each hit; by default 1IC6.
        pattern_sets: data set -> patterns to show instead of the shipped ones, expected photons
            at 3e8 a pulse on 75 um pixels (`patterns="shipped"` only).

    Raises:
        SimulationError: settings that contradict each other or name no data set.
    """

    def __init__(
        self,
        settings: FrameSettings | None = None,
        seed: int = 0,
        detector: Detector | None = None,
        crystals: tuple[Crystal, ...] = (),
        pattern_sets: Mapping[str, Sequence[Pattern]] | None = None,
    ) -> None:
        self.settings = settings or FrameSettings()
        self.seed = seed
        self.detector = detector or Detector()
        check_settings(self.settings, self.detector, pattern_sets)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
        n_hot = self.settings.n_hot_pixels
        active = np.flatnonzero(~self.detector.gap_mask)
        self.hot_index = rng.choice(active, n_hot, replace=False) if n_hot else active[:0]
        span = self.settings.hot_photons
        self._hot_mean = np.array([draw_span(rng, span, log=True) for _ in range(n_hot)])
        self._form_factor = water_form_factor()
        self._crystals = crystals
        if self.settings.patterns == "generator" and not crystals:
            self._crystals = (read_crystal(),)
        self._pattern_sets: dict[str, Sequence[Pattern]] = dict(pattern_sets or {})
        self._widened: dict[tuple[str, int, float], Pattern] = {}

    def __iter__(self) -> Iterator[Exposure]:
        """Yield frame 0, 1, 2, ... without end."""
        frame = 0
        while True:
            yield self.draw(frame)
            frame += 1

    def draw(self, frame: int) -> Exposure:
        """Return one exposure; the same number always gives the same frame.

        The scene, the background's photons and the Bragg photons come from three streams of
        chance: with `hit_fraction` 0 and 1 a frame number gives the same water without and with
        its crystal, and another flux shows the same crystal.
        """
        rng, background_rng, bragg_rng = self._streams(frame)
        scene = self._scene(rng)
        image = self._background(scene, background_rng)
        bragg, counts = None, np.zeros(0, np.int64)
        if scene.is_hit:
            bragg = self._pattern(rng, scene)
            counts = draw_counts(bragg.photons, bragg_rng)
            lit = np.flatnonzero(counts)
            _add_saturating(image, bragg.index[lit], counts[lit])
        image[self.detector.gap_index] = np.iinfo(image.dtype).max
        return Exposure(
            frame=frame,
            image=image.reshape(self.detector.shape),
            is_hit=scene.is_hit,
            dataset=scene.setting.name or None,
            photon_energy_eV=scene.setting.photon_energy_eV,
            clen_m=scene.setting.clen_m,
            n_photons=scene.n_photons,
            strength=scene.strength,
            thickness_m=scene.thickness_m,
            beam_center_px=scene.center_px,
            spots=self._truth(bragg),
            bragg=bragg,
            bragg_counts=counts,
        )

    def _streams(self, frame: int) -> list[np.random.Generator]:
        """Return independent generators for a frame's scene, background and Bragg photons."""
        return [
            np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, frame, stream)))
            for stream in range(3)
        ]

    def _scene(self, rng: np.random.Generator) -> _Scene:
        """Draw what one frame is made with, but for its crystal."""
        s = self.settings
        is_hit = bool(rng.random() < s.hit_fraction)
        setting = self._setting(rng)
        n_photons = draw_span(rng, s.n_photons, log=True)
        strength = draw_span(rng, s.strength, log=True)
        thickness_m = JET_THICKNESS_M * max(0.0, 1 + s.thickness_jitter * rng.standard_normal())
        shift_fs, shift_ss = s.center_jitter_px * rng.standard_normal(2)
        center_fs, center_ss = self.detector.center_px
        center_px = (float(center_fs + shift_fs), float(center_ss + shift_ss))
        return _Scene(is_hit, setting, n_photons, strength, thickness_m, center_px)

    def _setting(self, rng: np.random.Generator) -> DataSet:
        """Choose a frame's energy and camera length; no name where either was drawn freely."""
        s = self.settings
        setting = data_sets()[s.datasets[int(rng.integers(len(s.datasets)))]]
        if s.photon_energy_eV is None and s.clen_m is None:
            return setting
        energy_eV = s.photon_energy_eV or setting.photon_energy_eV
        return DataSet(
            name="",
            clen_m=draw_span(rng, s.clen_m or setting.clen_m),
            photon_energy_eV=draw_span(rng, energy_eV),
        )

    def _background(self, scene: _Scene, rng: np.random.Generator) -> NDArray[np.unsignedinteger]:
        """Draw water, nuisances and hot pixels: flat counts, gaps not masked."""
        energy_eV, clen_m = scene.setting.photon_energy_eV, scene.setting.clen_m
        field = water_field(
            self.detector,
            energy_eV,
            clen_m,
            scene.n_photons,
            scene.thickness_m,
            scene.center_px,
            form_factor=self._form_factor,
        )
        image = draw_background(field, rng, self.settings.dtype)
        if len(self.hot_index):
            _add_saturating(image, self.hot_index, rng.poisson(self._hot_mean))
        if self.settings.nuisances is not None:
            photons = draw_nuisances(
                self.settings.nuisances,
                rng,
                self.detector,
                energy_eV,
                clen_m,
                scene.n_photons,
                scene.center_px,
            )
            _add_saturating(image, *np.unique(photons, return_counts=True))
        return image

    def _pattern(self, rng: np.random.Generator, scene: _Scene) -> Pattern:
        """Return the expected Bragg photons of one hit."""
        s = self.settings
        divergence_mrad = draw_span(rng, s.divergence_mrad)
        n_photons = scene.n_photons * scene.strength
        if s.patterns == "shipped":
            pattern = self._shipped(rng, scene, divergence_mrad)
            return pattern.scaled(n_photons / PULSE_PHOTONS)
        beam = Beam(
            scene.setting.photon_energy_eV,
            scene.setting.clen_m,
            bandwidth=draw_span(rng, s.bandwidth, log=True),
            divergence_mrad=divergence_mrad,
            n_photons=n_photons,
        )
        crystal = self._crystals[int(rng.integers(len(self._crystals)))]
        crystal_um = draw_span(rng, s.crystal_um, log=True)
        turn = random_quaternion(rng)
        return bragg_pattern(crystal, self.detector, beam, turn, crystal_um, scene.center_px)

    def _shipped(self, rng: np.random.Generator, scene: _Scene, divergence_mrad: float) -> Pattern:
        """Choose one shipped pattern, as wide as asked for, on this detector, at 3e8 photons."""
        name = scene.setting.name
        if name not in self._pattern_sets:
            self._pattern_sets[name] = shipped_patterns(name)
        patterns = self._pattern_sets[name]
        chosen = int(rng.integers(len(patterns)))
        turned = rng.random(2) < 0.5
        flip = (bool(turned[0]), bool(turned[1])) if self.settings.vary else (False, False)
        sigma_px = spot_sigma_px(divergence_mrad, scene.setting.clen_m)
        key = (name, chosen, sigma_px)
        wide = self._widened.get(key) or widen(patterns[chosen], sigma_px)
        if not isinstance(self.settings.divergence_mrad, tuple):
            # At most 8 patterns of 9 data sets; a width drawn anew would never be met again.
            self._widened[key] = wide
        home_fs, home_ss = Detector().center_px
        center_fs, center_ss = scene.center_px
        shift_px = (round(center_ss - home_ss), round(center_fs - home_fs))
        if flip == (False, False) and shift_px == (0, 0) and wide.shape == self.detector.shape:
            return wide
        return place(wide, self.detector.shape, shift_px, flip)

    def _truth(self, bragg: Pattern | None) -> Spots:
        """Return the spots a frame can show: bright enough, and centred on an active pixel."""
        if bragg is None:
            return no_spots()
        spots = bragg.spots
        n_ss, n_fs = self.detector.shape
        ss = np.clip(np.rint(spots.ss), 0, n_ss - 1).astype(np.int64)
        fs = np.clip(np.rint(spots.fs), 0, n_fs - 1).astype(np.int64)
        return spots[(spots.photons >= TRUTH_PHOTONS) & ~self.detector.gap_mask[ss, fs]]
