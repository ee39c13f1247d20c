"""Exposures with their truth: Poisson frames of water, Bragg spots and what else is on a detector.

One rule: a frame is a function of (settings, detector, seed, frame number) alone, whichever
frames were drawn before. Gap pixels hold the pixel type's highest value, as an Eiger sends them,
and no other pixel reaches it. Numbers and model: `physics.py`, `patterns.py`, `crystal.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.crystal import Beam, bragg_pattern
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
    SimulationError,
    WaterField,
    data_sets,
    water_field,
    water_form_factor,
)
from hitfinder.sim.reflections import Crystal, random_quaternion, read_crystal

# A reflection is in the truth from this many expected photons on (physics.md, peak positions).
TRUTH_PHOTONS = 3.0
SHIPPED_CRYSTAL_UM = 10.0
SHIPPED_BANDWIDTH = 0.01

# A value, or the two ends between which each frame draws its own.
Span = float | tuple[float, float]


@dataclass(frozen=True, slots=True)
class FrameSettings:
    """What a source's frames are like. A `Span` of two values is drawn anew for each frame.

    Attributes:
        datasets: data sets ("01" to "09") to draw from evenly.
        photon_energy_eV, clen_m: instead of the data sets' (generator only).
        hit_fraction: share of frames with a crystal in the beam.
        n_photons: photons a pulse; a pair is drawn evenly in the logarithm.
        strength: factor on the Bragg photons alone; a pair evenly in the logarithm.
        crystal_um: edge of the crystal (a pair evenly in the logarithm); shipped ones are 10 um.
        divergence_mrad: FWHM of the beam's divergence, which widens spots; 0 = as computed.
        bandwidth: full relative width of the top hat (a pair evenly in the logarithm); shipped
            patterns have 1 %.
        thickness_jitter: relative sigma of the water's thickness.
        center_jitter_px: sigma of the beam centre along each axis.
        n_hot_pixels: hot pixels, at fixed places for a seed.
        hot_photons: mean counts of a hot pixel, each drawn once evenly in the logarithm.
        patterns: "shipped" (8 orientations a set) or "generator" (a new one every hit).
        vary: also show shipped patterns mirrored and turned by 180 degrees.
        dtype: pixel type.
    """

    datasets: tuple[str, ...] = ("02",)
    photon_energy_eV: Span | None = None
    clen_m: Span | None = None
    hit_fraction: float = 0.2
    n_photons: Span = PULSE_PHOTONS
    strength: Span = 1.0
    crystal_um: Span = SHIPPED_CRYSTAL_UM
    divergence_mrad: Span = 0.0
    bandwidth: Span = SHIPPED_BANDWIDTH
    thickness_jitter: float = 0.0
    center_jitter_px: float = 0.0
    n_hot_pixels: int = 0
    hot_photons: Span = (1.0, 1000.0)
    patterns: Literal["shipped", "generator"] = "shipped"
    vary: bool = False
    dtype: Literal["uint8", "uint16", "uint32"] = "uint16"


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


def _draw(rng: np.random.Generator, span: Span, *, log: bool = False) -> float:
    """Return the value, or one drawn between the two ends."""
    if not isinstance(span, tuple):
        return float(span)
    if log:
        return float(np.exp(rng.uniform(np.log(span[0]), np.log(span[1]))))
    return float(rng.uniform(*span))


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

    Raises:
        SimulationError: settings that contradict each other or name no data set.
    """

    def __init__(
        self,
        settings: FrameSettings | None = None,
        seed: int = 0,
        detector: Detector | None = None,
        crystals: tuple[Crystal, ...] = (),
    ) -> None:
        self.settings = settings or FrameSettings()
        self.seed = seed
        self.detector = detector or Detector()
        _check(self.settings, self.detector)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
        n_hot = self.settings.n_hot_pixels
        active = np.flatnonzero(~self.detector.gap_mask)
        self.hot_index = rng.choice(active, n_hot, replace=False) if n_hot else active[:0]
        span = self.settings.hot_photons
        self._hot_mean = np.array([_draw(rng, span, log=True) for _ in range(n_hot)])
        self._form_factor = water_form_factor()
        self._crystals = crystals
        if self.settings.patterns == "generator" and not crystals:
            self._crystals = (read_crystal(),)
        self._shipped_sets: dict[str, tuple[Pattern, ...]] = {}
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
        s = self.settings
        rng, water_rng, bragg_rng = self._streams(frame)
        is_hit = bool(rng.random() < s.hit_fraction)
        setting = self._setting(rng)
        n_photons, strength = _draw(rng, s.n_photons, log=True), _draw(rng, s.strength, log=True)
        thickness_m = JET_THICKNESS_M * max(0.0, 1 + s.thickness_jitter * rng.standard_normal())
        shift_fs, shift_ss = s.center_jitter_px * rng.standard_normal(2)
        center_fs, center_ss = self.detector.center_px
        center_px = (float(center_fs + shift_fs), float(center_ss + shift_ss))
        energy_eV, clen_m = setting.photon_energy_eV, setting.clen_m
        field = water_field(
            self.detector,
            energy_eV,
            clen_m,
            n_photons,
            thickness_m,
            center_px,
            form_factor=self._form_factor,
        )
        image = draw_background(field, water_rng, s.dtype)
        if len(self.hot_index):
            _add_saturating(image, self.hot_index, water_rng.poisson(self._hot_mean))
        bragg, counts = None, np.zeros(0, np.int64)
        if is_hit:
            bragg = self._pattern(rng, setting, center_px)
            bragg = bragg.scaled(strength * n_photons / PULSE_PHOTONS)
            counts = draw_counts(bragg.photons, bragg_rng)
            lit = np.flatnonzero(counts)
            _add_saturating(image, bragg.index[lit], counts[lit])
        image[self.detector.gap_index] = np.iinfo(image.dtype).max
        return Exposure(
            frame=frame,
            image=image.reshape(self.detector.shape),
            is_hit=is_hit,
            dataset=setting.name or None,
            photon_energy_eV=energy_eV,
            clen_m=clen_m,
            n_photons=n_photons,
            strength=strength,
            thickness_m=thickness_m,
            beam_center_px=center_px,
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

    def _setting(self, rng: np.random.Generator) -> DataSet:
        """Choose a frame's energy and camera length; no name where either was drawn freely."""
        s = self.settings
        setting = data_sets()[s.datasets[int(rng.integers(len(s.datasets)))]]
        if s.photon_energy_eV is None and s.clen_m is None:
            return setting
        energy_eV, clen_m = setting.photon_energy_eV, setting.clen_m
        return DataSet(
            name="",
            clen_m=clen_m if s.clen_m is None else _draw(rng, s.clen_m),
            photon_energy_eV=energy_eV
            if s.photon_energy_eV is None
            else _draw(rng, s.photon_energy_eV),
        )

    def _pattern(
        self, rng: np.random.Generator, setting: DataSet, center_px: tuple[float, float]
    ) -> Pattern:
        """Return the expected Bragg photons of one hit at 3e8 photons a pulse."""
        s = self.settings
        divergence_mrad = _draw(rng, s.divergence_mrad)
        if s.patterns == "shipped":
            return self._shipped(rng, setting, center_px, divergence_mrad)
        beam = Beam(
            setting.photon_energy_eV,
            setting.clen_m,
            bandwidth=_draw(rng, s.bandwidth, log=True),
            divergence_mrad=divergence_mrad,
        )
        crystal = self._crystals[int(rng.integers(len(self._crystals)))]
        crystal_um = _draw(rng, s.crystal_um, log=True)
        turn = random_quaternion(rng)
        return bragg_pattern(crystal, self.detector, beam, turn, crystal_um, center_px)

    def _shipped(
        self,
        rng: np.random.Generator,
        setting: DataSet,
        center_px: tuple[float, float],
        divergence_mrad: float,
    ) -> Pattern:
        """Choose one shipped pattern, as wide as asked for, on this detector."""
        if setting.name not in self._shipped_sets:
            self._shipped_sets[setting.name] = shipped_patterns(setting.name)
        patterns = self._shipped_sets[setting.name]
        chosen = int(rng.integers(len(patterns)))
        turned = rng.random(2) < 0.5
        flip = (bool(turned[0]), bool(turned[1])) if self.settings.vary else (False, False)
        sigma_px = spot_sigma_px(divergence_mrad, setting.clen_m)
        key = (setting.name, chosen, sigma_px)
        wide = self._widened.get(key) or widen(patterns[chosen], sigma_px)
        if not isinstance(self.settings.divergence_mrad, tuple):
            # At most 8 patterns of 9 data sets; a width drawn anew would never be met again.
            self._widened[key] = wide
        home_fs, home_ss = Detector().center_px
        shift_px = (round(center_px[1] - home_ss), round(center_px[0] - home_fs))
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


def _check(settings: FrameSettings, detector: Detector) -> None:
    """Refuse settings that no frame can have."""
    unknown = [name for name in settings.datasets if name not in data_sets()]
    if unknown or not settings.datasets:
        raise SimulationError(
            f"data sets {settings.datasets}; expected some of {', '.join(data_sets())}"
        )
    if not 0 <= settings.hit_fraction <= 1:
        raise SimulationError(f"hit fraction {settings.hit_fraction}; expected 0 to 1")
    if settings.patterns == "shipped":
        _check_shipped(settings, detector)


def _check_shipped(settings: FrameSettings, detector: Detector) -> None:
    """Refuse what the shipped patterns were not made for."""
    fixed = {
        "crystal_um": SHIPPED_CRYSTAL_UM,
        "bandwidth": SHIPPED_BANDWIDTH,
        "photon_energy_eV": None,
        "clen_m": None,
    }
    for name, value in fixed.items():
        asked = getattr(settings, name)
        if asked != value:
            raise SimulationError(
                f"{name} = {asked}; shipped patterns have {value or 'their own'}; "
                'use patterns="generator"'
            )
    if detector.pixel_size_m != Detector().pixel_size_m:
        raise SimulationError(
            f"shipped patterns are made for 75 um pixels, not {detector.pixel_size_m:g} m; use "
            'patterns="generator"'
        )
