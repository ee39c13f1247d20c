"""Exposures with their truth: Poisson frames of water, Bragg spots and what else is on a detector.

One rule: a frame is a function of (settings, detector, seed, frame number) alone, whichever
frames were drawn before and whichever form is asked for. Gap pixels hold the pixel type's highest
value, as an Eiger sends them, and no other pixel reaches it. Numbers and model: `physics.py`,
`shots.py`, `crystal.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.crystal_pool import CrystalPool
from hitfinder.sim.defects import dark_pixels
from hitfinder.sim.exposure import Exposure, Photons
from hitfinder.sim.frame_settings import FrameSettings, check_settings
from hitfinder.sim.nuisances import Nuisances, Span, draw_nuisances, draw_span
from hitfinder.sim.patterns import Pattern
from hitfinder.sim.physics import (
    JET_THICKNESS_M,
    DataSet,
    Detector,
    WaterField,
    data_sets,
    water_field,
    water_form_factor,
)
from hitfinder.sim.reflections import Crystal
from hitfinder.sim.shots import GeneratedCrystals, RecordedCrystals, Scene, Shot, blank
from hitfinder.sim.spot_shapes import BraggSpots

__all__ = [
    "Exposure",
    "FrameSettings",
    "FrameSource",
    "Nuisances",
    "Photons",
    "Span",
    "draw_background",
]

# A reflection is in the truth from this many expected photons on (physics.md, peak positions).
TRUTH_PHOTONS = 3.0


# Water of so many settings is kept, 9 MB each.
KEPT_FIELDS = 16


def _varies_water(s: FrameSettings) -> bool:
    """Tell whether hardly any two frames have the same water."""
    spans = (s.n_photons, s.thickness, s.center_shift_px, s.horizontal_polarization)
    drawn = any(isinstance(span, tuple) for span in (*spans, s.photon_energy_eV, s.clen_m))
    return drawn or bool(s.thickness_jitter or s.center_jitter_px)


def _highest(dtype: str) -> int:
    """Return the largest count: the type's highest value marks gaps."""
    return int(np.iinfo(dtype).max) - 1


def _lay(photons: NDArray[np.int32], n_pixels: int, dtype: str) -> NDArray[np.unsignedinteger]:
    """Count photons one by one; for so few in a pixel that none fills even a uint8."""
    image = np.zeros(n_pixels, dtype)
    np.add.at(image, photons, image.dtype.type(1))
    return image


def _pile(field: WaterField, rng: np.random.Generator, dtype: str) -> NDArray[np.unsignedinteger]:
    """Draw a bright field pixel by pixel: flat counts."""
    return np.minimum(rng.poisson(field.mean()).ravel(), _highest(dtype)).astype(dtype)


def draw_background(
    field: WaterField, rng: np.random.Generator, dtype: str
) -> NDArray[np.unsignedinteger]:
    """Draw one frame of water: flat counts of `dtype`, gaps not masked."""
    photons = field.draw(rng)
    if photons is None:
        return _pile(field, rng, dtype)
    return _lay(photons, len(field.y2) * len(field.x2), dtype)


@dataclass(frozen=True, slots=True, eq=False)
class _Light:
    """What met the array in one frame, before the detector had its say.

    Attributes:
        scene, shot: see there.
        water: flat pixel of every water photon; none where `bright` is given.
        bright: flat counts of water that was drawn pixel by pixel.
        others: flat pixel of every other photon.
    """

    scene: Scene
    shot: Shot
    water: NDArray[np.int32]
    bright: NDArray[np.unsignedinteger] | None
    others: NDArray[np.int32]


class FrameSource:
    """A seeded, endless supply of exposures.

    Args:
        settings: what the frames are like.
        seed: the same seed gives the same frames.
        detector: the array; by default the EIGER2 4M.
        crystals: what the generator shoots, one drawn evenly for each hit, instead of
            `settings.crystals`.
        pattern_sets: data set -> patterns to show instead of the shipped ones, expected photons
            at 3e8 a pulse on 75 um pixels (`patterns="shipped"` only).
        detector_seed: of the pixels that are hot or dark; `seed` if not given. Sources of one
            detector share it.

    Attributes:
        hot_index: flat index of the hot pixels.
        dark: bool (ss, fs), pixels that `settings.defects` keeps from the light.

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
        detector_seed: int | None = None,
    ) -> None:
        self.settings = s = settings or FrameSettings()
        self.seed = seed
        self.detector = detector or Detector()
        check_settings(s, self.detector, pattern_sets)
        of_detector = seed if detector_seed is None else detector_seed
        self.dark = np.zeros(self.detector.shape, np.bool_)
        if s.defects is not None:
            rng = np.random.default_rng(np.random.SeedSequence(of_detector, spawn_key=(2,)))
            self.dark = dark_pixels(s.defects, self.detector, rng)
        rng = np.random.default_rng(np.random.SeedSequence(of_detector, spawn_key=(1,)))
        active = np.flatnonzero(~(self.detector.gap_mask | self.dark))
        n_hot = s.n_hot_pixels
        self.hot_index = rng.choice(active, n_hot, replace=False) if n_hot else active[:0]
        self._hot_mean = np.array([draw_span(rng, s.hot_photons, log=True) for _ in range(n_hot)])
        self._dark_index = np.flatnonzero(self.dark)
        self._is_blind = (self.dark | self.detector.gap_mask).reshape(-1)
        self._limit = min(_highest(s.dtype), s.count_cutoff or _highest(s.dtype))
        self._fields: dict[Scene, WaterField] = {}
        self._form_factor = water_form_factor()
        self._targets: RecordedCrystals | GeneratedCrystals
        if s.patterns == "shipped":
            self._targets = RecordedCrystals(s, self.detector, pattern_sets)
        else:
            pool = CrystalPool(s.crystals, seed, s.cell_A, s.space_groups, crystals)
            self._targets = GeneratedCrystals(s, self.detector, pool)

    def __iter__(self) -> Iterator[Exposure]:
        """Yield frame 0, 1, 2, ... without end."""
        frame = 0
        while True:
            yield self.draw(frame)
            frame += 1

    def draw(self, frame: int) -> Exposure:
        """Return one exposure; the same number always gives the same frame.

        The scene, the background's photons and the Bragg photons come from streams of chance of
        their own: with `hit_fraction` 0 and 1 a frame number gives the same water without and
        with its crystal, and another flux shows the same crystal.
        """
        light = self._expose(frame)
        image = self._image(light)
        image[self.detector.gap_index] = np.iinfo(image.dtype).max
        return Exposure(
            image=image.reshape(self.detector.shape), **self._truth(frame, light.scene, light.shot)
        )

    def draw_photons(self, frame: int) -> Photons:
        """Return the same frame as its lit pixels, without making an image.

        But for frames of more than 0.25 photons a pixel, which are drawn pixel by pixel.
        """
        light = self._expose(frame)
        if light.bright is None:
            index, met = _runs(np.concatenate((light.water, light.others)))
        else:
            image = self._image(light)
            index = np.flatnonzero(image).astype(np.int32)
            met = image[index].astype(np.int64)
        seen = ~self._is_blind[index]
        counts = np.minimum(met[seen], self._limit)
        return Photons(
            index=index[seen],
            counts=counts.astype(np.uint32),
            **self._truth(frame, light.scene, light.shot),
        )

    def draw_batch(self, frames: Sequence[int]) -> list[Photons]:
        """Return several frames as their lit pixels, in the order asked for."""
        return [self.draw_photons(frame) for frame in frames]

    def _expose(self, frame: int) -> _Light:
        """Draw everything that meets the array."""
        rng, background_rng, bragg_rng, extra = (
            np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, frame, stream)))
            for stream in range(4)
        )
        scene = self._scene(rng, extra)
        field = self._field(scene)
        water = field.draw(background_rng)
        bright = _pile(field, background_rng, self.settings.dtype) if water is None else None
        hot = background_rng.poisson(self._hot_mean)
        others = [np.repeat(self.hot_index, hot).astype(np.int32)]
        if self.settings.nuisances is not None:
            others.append(self._nuisances(self.settings.nuisances, scene, background_rng))
        shot = blank()
        if scene.is_hit:
            shot = self._targets.shoot(scene, rng, extra, bragg_rng)
            others.append(shot.photons)
        none = np.zeros(0, np.int32)
        return _Light(
            scene, shot, none if water is None else water, bright, np.concatenate(others)
        )

    def _image(self, light: _Light) -> NDArray[np.unsignedinteger]:
        """Count what met the array: flat, gaps not marked."""
        dtype = self.settings.dtype
        n_ss, n_fs = self.detector.shape
        image = _lay(light.water, n_ss * n_fs, dtype) if light.bright is None else light.bright
        index, counts = _runs(light.others)
        image[index] = np.minimum(image[index] + counts, self._limit)
        if light.bright is not None and self.settings.count_cutoff is not None:
            np.minimum(image, image.dtype.type(self._limit), out=image)
        image[self._dark_index] = 0
        return image

    def _scene(self, rng: np.random.Generator, extra: np.random.Generator) -> Scene:
        """Draw what one frame is made with, but for its crystals."""
        s = self.settings
        is_hit = bool(rng.random() < s.hit_fraction)
        setting = self._setting(rng)
        n_photons = draw_span(rng, s.n_photons, log=True)
        strength = draw_span(rng, s.strength, log=True)
        thickness_m = JET_THICKNESS_M * max(0.0, 1 + s.thickness_jitter * rng.standard_normal())
        shift_fs, shift_ss = s.center_jitter_px * rng.standard_normal(2)
        thickness_m *= draw_span(extra, s.thickness)
        shift_px, angle = draw_span(extra, s.center_shift_px), extra.uniform(0, 2 * np.pi)
        center_fs, center_ss = self.detector.center_px
        center_px = (
            float(center_fs + shift_fs + shift_px * np.cos(angle)),
            float(center_ss + shift_ss + shift_px * np.sin(angle)),
        )
        polarized = draw_span(extra, s.horizontal_polarization)
        return Scene(is_hit, setting, n_photons, strength, thickness_m, polarized, center_px)

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

    def _field(self, scene: Scene) -> WaterField:
        """Return the scene's water, which is the same with and without a crystal."""
        key = replace(scene, is_hit=False, strength=1.0)
        field = self._fields.get(key)
        if field is None:
            field = water_field(
                self.detector,
                scene.setting.photon_energy_eV,
                scene.setting.clen_m,
                scene.n_photons,
                scene.thickness_m,
                scene.center_px,
                scene.horizontal_polarization,
                form_factor=self._form_factor,
            )
        # Data sets come again and again, drawn settings never do.
        if not _varies_water(self.settings) and len(self._fields) < KEPT_FIELDS:
            self._fields[key] = field
        return field

    def _nuisances(
        self, nuisances: Nuisances, scene: Scene, rng: np.random.Generator
    ) -> NDArray[np.int32]:
        return draw_nuisances(
            nuisances,
            rng,
            self.detector,
            scene.setting.photon_energy_eV,
            scene.setting.clen_m,
            scene.n_photons,
            scene.center_px,
        ).astype(np.int32)

    def _truth(self, frame: int, scene: Scene, shot: Shot) -> dict[str, Any]:
        """Return the fields of `Truth`."""
        bragg = self._visible(shot.bragg)
        index, counts = _runs(shot.photons)
        return {
            "frame": frame,
            "kind": self.settings.kind,
            "is_hit": scene.is_hit,
            "dataset": scene.setting.name or None,
            "photon_energy_eV": scene.setting.photon_energy_eV,
            "clen_m": scene.setting.clen_m,
            "n_photons": scene.n_photons,
            "strength": scene.strength,
            "thickness_m": scene.thickness_m,
            "horizontal_polarization": scene.horizontal_polarization,
            "beam_center_px": scene.center_px,
            "n_crystals": shot.n_crystals,
            "spots": bragg.spots,
            "spot_sigma_px": bragg.sigma_px,
            "all_spots": shot.bragg.spots,
            "bragg_index": index,
            "bragg_counts": counts,
            "expect": shot.expect,
        }

    def _visible(self, bragg: BraggSpots) -> BraggSpots:
        """Return the spots a frame can show: bright enough, and centred on a pixel that sees."""
        n_ss, n_fs = self.detector.shape
        bright = np.flatnonzero(bragg.spots.photons >= TRUTH_PHOTONS)
        ss, fs = (np.rint(at[bright]).astype(np.int64) for at in (bragg.spots.ss, bragg.spots.fs))
        on = (ss >= 0) & (ss < n_ss) & (fs >= 0) & (fs < n_fs)
        on[on] = ~self._is_blind[ss[on] * n_fs + fs[on]]
        return BraggSpots(bragg.spots[bright[on]], bragg.covariance_px2[bright[on]])


def _runs(photons: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return each pixel that photons met, ascending, and how many met it."""
    ordered = np.sort(photons)
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    return ordered[begins], np.diff(begins, append=len(ordered))
