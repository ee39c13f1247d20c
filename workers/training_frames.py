"""Frames to train the gate on: pairs with and without a crystal, and blanks to calibrate with.

One rule: patterns are split by orientation (5 to train, 1 to calibrate, 2 to validate, in each of
the nine data sets), so nothing the network is judged by was seen in training. Each frame is a
function of (seed, part, number) alone. Water, patterns and spots come from `sim`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models.frontend import CELL_PX, Pooled, cell_tables, stack_maps
from hitfinder.models.gate import merge, spot_terms
from hitfinder.models.geometry import Geometry
from hitfinder.models.pipeline import gather_evidence
from hitfinder.models.scan import FLOOR
from hitfinder.sim.frames import draw_background
from hitfinder.sim.patterns import Pattern, shipped_patterns
from hitfinder.sim.physics import JET_THICKNESS_M, PULSE_PHOTONS, Detector, data_sets, water_field
from hitfinder.stream.pooling import pool4, pooled_shape

SPOT_SIGMA_PX = (0.0, 4.0)
"""Of the beam's divergence; a third of the frames has none."""
SHARP_FRACTION = 0.33
FLUX = (1e7, PULSE_PHOTONS)
STRENGTH = (0.005, 1.0)
THICKNESS_JITTER = 0.15
CENTER_JITTER_PX = 3.0
HOT_FRACTION = 0.25
HOT_PIXELS = (1, 20)
HOT_PHOTONS = (3.0, 1000.0)
TRUE_SPOT_PHOTONS = 3.0
TRUE_SPOT_PX = 10.0
"""A place is the centre of a box of up to 16 px."""
PLACES_PER_FRAME = 48


class Part(IntEnum):
    """What a frame is for; a part of its random seed."""

    TRAIN = 0
    CALIBRATE = 1
    VALIDATE = 2
    BLANKS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Features and truth of one frame.

    Attributes:
        features: float32 (48,).
        is_hit, has_3_spots, has_hot_pixels: as `training.LabelledFrames`.
        spot_terms: float64 (places, 4).
        is_spot: bool (places,), a true spot lies there.
    """

    features: NDArray[np.float32]
    is_hit: bool
    has_3_spots: bool
    has_hot_pixels: bool
    spot_terms: NDArray[np.float64]
    is_spot: NDArray[np.bool_]


PATTERNS_OF = {Part.TRAIN: (0, 1, 2, 3, 4), Part.CALIBRATE: (5,), Part.VALIDATE: (6, 7)}


class TrainingFrames:
    """Draws frames of any part; holds the patterns and the detector's tables."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.detector = Detector()
        fs, ss = self.detector.center_px
        size_m = (self.detector.pixel_size_m, self.detector.pixel_size_m)
        self.geometry = Geometry(self.detector.shape, size_m, (fs - 0.5, ss - 0.5))
        valid = ~self.detector.gap_mask
        self._cells = cell_tables(self.geometry, valid)
        self._valid = valid.view(np.uint8)
        self._patterns: dict[str, tuple[Pattern, ...]] = {}

    def draw(self, part: Part, number: int) -> list[Drawn]:
        """Return a blank and, for parts with patterns, the same frame with a crystal."""
        rng = np.random.default_rng(
            np.random.SeedSequence(self.seed, spawn_key=(int(part), number))
        )
        dataset = list(data_sets())[int(rng.integers(len(data_sets())))]
        n_photons = float(np.exp(rng.uniform(*np.log(FLUX))))
        shift_px = rng.normal(0, CENTER_JITTER_PX, 2)
        image = self._water(rng, dataset, n_photons, shift_px)
        is_hot = bool(rng.random() < HOT_FRACTION)
        if is_hot:
            self._add_hot_pixels(rng, image)
        drawn = [self._judge(image, is_hot, None, np.zeros((0, 2)))]
        if part is not Part.BLANKS:
            strength = float(np.exp(rng.uniform(*np.log(STRENGTH))))
            pattern = self._pattern(rng, dataset, part)
            scale = strength * n_photons / PULSE_PHOTONS
            spots = self._add_crystal(rng, image, pattern, scale, shift_px)
            drawn.append(self._judge(image, is_hot, len(spots) >= 3, spots))
        return drawn

    def _water(
        self,
        rng: np.random.Generator,
        dataset: str,
        n_photons: float,
        shift_px: NDArray[np.float64],
    ) -> NDArray[np.unsignedinteger]:
        setting = data_sets()[dataset]
        center = self.detector.center_px
        field = water_field(
            self.detector,
            setting.photon_energy_eV,
            setting.clen_m,
            n_photons,
            JET_THICKNESS_M * max(0.2, 1 + THICKNESS_JITTER * rng.standard_normal()),
            (center[0] + shift_px[1], center[1] + shift_px[0]),
        )
        return draw_background(field, rng, "uint16").reshape(self.detector.shape)

    def _pattern(self, rng: np.random.Generator, dataset: str, part: Part) -> Pattern:
        if dataset not in self._patterns:
            self._patterns[dataset] = shipped_patterns(dataset)
        return self._patterns[dataset][int(rng.choice(PATTERNS_OF[part]))]

    def _add_hot_pixels(
        self, rng: np.random.Generator, image: NDArray[np.unsignedinteger]
    ) -> None:
        n = int(rng.integers(*HOT_PIXELS, endpoint=True))
        at = rng.integers(0, image.size, n)
        counts = rng.poisson(
            np.exp(rng.uniform(np.log(HOT_PHOTONS[0]), np.log(HOT_PHOTONS[1]), n))
        )
        image.reshape(-1)[at] += counts.astype(image.dtype)

    def _add_crystal(
        self,
        rng: np.random.Generator,
        image: NDArray[np.unsignedinteger],
        pattern: Pattern,
        scale: float,
        shift_px: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Add Bragg photons; return the true spots' (ss, fs).

        Each photon is displaced on its own: a displaced Poisson process is one of the blurred
        mean, so any spot width comes at the cost of the photons alone.
        """
        n_ss, n_fs = self.detector.shape
        sigma_px = 0.0 if rng.random() < SHARP_FRACTION else rng.uniform(*SPOT_SIGMA_PX)
        flip = rng.random(2) < 0.5
        photons = np.repeat(pattern.index, rng.poisson(pattern.photons * scale))
        at = np.stack(np.divmod(photons, n_fs), axis=1).astype(np.float64)
        spots = np.stack((pattern.spots.ss, pattern.spots.fs), axis=1).astype(np.float64)
        for points in (at, spots):
            points[:, flip] = (np.array([n_ss, n_fs]) - 1 - points)[:, flip]
            points += shift_px
        at = np.rint(at + rng.normal(0, sigma_px, at.shape)).astype(np.int64)
        inside = ((at >= 0) & (at < (n_ss, n_fs))).all(axis=1)
        np.add.at(image, tuple(at[inside].T), image.dtype.type(1))
        bright = pattern.spots.photons * scale >= TRUE_SPOT_PHOTONS
        ss, fs = np.rint(spots[bright]).astype(np.int64).T
        on = (ss >= 0) & (ss < n_ss) & (fs >= 0) & (fs < n_fs)
        on[on] &= self._valid[ss[on], fs[on]] > 0
        return np.asarray(spots[bright][on])

    def _judge(
        self,
        image: NDArray[np.unsignedinteger],
        is_hot: bool,
        has_3_spots: bool | None,
        spots: NDArray[np.float64],
    ) -> Drawn:
        """Run the pipeline's evidence on a frame; `has_3_spots` is None for a blank."""
        sums = np.empty(pooled_shape(self.detector.shape), np.uint32)
        maxima = np.empty_like(sums)
        pooled = Pooled(sums, maxima, *pool4(image, self._valid, sums, maxima))
        with torch.inference_mode():
            evidence = gather_evidence(*stack_maps([pooled], "cpu"), self._cells)
            places = merge(evidence.candidates, PLACES_PER_FRAME)
        columns = (places.evidence, places.rest, places.mean, places.ss, places.fs)
        strength, rest, mean, ss, fs = (c[0].numpy() for c in columns)
        seen = strength > FLOOR
        middle = (CELL_PX - 1) / 2
        at = np.stack((ss, fs), axis=1)[seen] * CELL_PX + middle
        apart = np.abs(at[:, None] - spots[None]).max(axis=2)
        return Drawn(
            features=evidence.features[0].numpy(),
            is_hit=has_3_spots is not None,
            has_3_spots=bool(has_3_spots),
            has_hot_pixels=is_hot,
            spot_terms=spot_terms(strength[seen], rest[seen], mean[seen]),
            is_spot=(apart < TRUE_SPOT_PX).any(axis=1),
        )
