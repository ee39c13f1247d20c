"""Frames to train the gate on: hits with their twins, and blanks to calibrate with.

One rule: each frame is a function of (seed, part, number) alone and shows a crystal orientation
that no other frame shows, so a split of the numbers is a split by orientation. With patterns of a
data set tree, the tree's orientations are split instead. Twins share water, jitter and decoys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.geometry import Geometry
from hitfinder.models.labelled_frames import LabelledFrames, joined
from hitfinder.models.places import PLACES, Places
from hitfinder.sim import presets
from hitfinder.sim.crystal_pool import CrystalKind, CrystalPool
from hitfinder.sim.exposure import Exposure
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.patterns import Pattern
from hitfinder.sim.physics import Detector, SimulationError
from hitfinder.sim.reflections import Crystal, read_crystal
from hitfinder.stream.bslz4 import Pixels
from hitfinder.workers import training_settings as settings
from hitfinder.workers.training_scout import Scout, SeriesScout
from hitfinder.workers.training_settings import Kind, draw_kind, draw_settings

SPOT_REACH_PX = 6.0
"""Photons of the crystal within this of a place are the place's."""
SPOT_PHOTONS = 3
"""So many of them make it a spot; fewer leave it undecided."""
NO_PHOTONS = np.zeros(0, np.int64)

PatternSets = Mapping[str, Sequence[Pattern]]


class Part(IntEnum):
    """What a frame is for; part of its random seed."""

    TRAIN = 0
    TEST = 1
    CALIBRATE = 2
    BLANKS = 3


class TrainingFrames:
    """Draws frames of any part; holds their sources and the detector's tables.

    Args:
        seed: of everything drawn.
        pattern_sets: data set -> patterns to show instead of the generator's.
        detector: the array; by default the EIGER2 4M.
        n_made_up: crystals that the generator shoots besides proteinase K.
    """

    def __init__(
        self,
        seed: int,
        pattern_sets: PatternSets | None = None,
        detector: Detector | None = None,
        n_made_up: int = 16,
    ) -> None:
        self.seed, self.detector = seed, detector or Detector()
        self._patterns = None if pattern_sets is None else split_patterns(pattern_sets, seed)
        # Made once for all sources: a made-up one takes half a second and 3 MB.
        self._crystals = {} if pattern_sets is not None else _crystals(seed, n_made_up)
        self._part = Part.TRAIN
        self._sources: dict[tuple[Kind, FrameSettings], FrameSource] = {}
        fs, ss = self.detector.center_px
        size_m = (self.detector.pixel_size_m, self.detector.pixel_size_m)
        self._geometry = Geometry(self.detector.shape, size_m, (fs - 0.5, ss - 0.5))
        self._scout = Scout(self._geometry, ~self.detector.gap_mask)

    def pair(self, part: Part, number: int) -> LabelledFrames:
        """Return a hit and its twin without the crystal, in that order."""
        rng = self._rng(part, number)
        share = settings.CLEAN_SHARE if part is Part.CALIBRATE else settings.SHARE
        kind = draw_kind(rng, share)
        exposure = self._draw(rng, part, number, kind, is_hit=True)
        hit, twin = exposure.image, _without_crystal(exposure)
        index, counts = exposure.bragg_index, exposure.bragg_counts
        frames = (
            self._labelled(
                self._scout.places(hit), kind, len(exposure.spots) >= 3, index, counts, number
            ),
            self._labelled(self._scout.places(twin), kind, None, index[:0], counts[:0], number),
        )
        return joined(frames)

    def blank(self, kind: Kind, number: int) -> LabelledFrames:
        """Return one frame of water and what its kind has."""
        rng = self._rng(Part.BLANKS, number, list(Kind).index(kind))
        exposure = self._draw(rng, Part.BLANKS, number, kind, is_hit=False)
        return self._labelled(
            self._scout.places(exposure.image), kind, None, NO_PHOTONS, NO_PHOTONS, number
        )

    def hot_series(self, first: int, n: int) -> LabelledFrames:
        """Return `n` blanks of one series with hot pixels, judged in order; `first` names it."""
        seed = np.random.SeedSequence(
            self.seed, spawn_key=(Part.BLANKS, first, list(Kind).index(Kind.HOT))
        )
        drawn = settings.draw_hot_series(np.random.default_rng(seed))
        source = FrameSource(drawn, int(seed.generate_state(1)[0]), self.detector)
        scout = SeriesScout(self._geometry, ~self.detector.gap_mask)
        frames = []
        for k in range(n):
            places = scout.places(source.draw(k).image)
            frames.append(
                self._labelled(places, Kind.HOT, None, NO_PHOTONS, NO_PHOTONS, first + k)
            )
        return joined(frames)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _draw(
        self, rng: np.random.Generator, part: Part, number: int, kind: Kind, *, is_hit: bool
    ) -> Exposure:
        own = self._patterns is not None
        drawn = draw_settings(rng, kind, is_hit=is_hit, own_patterns=own)
        if part is not self._part:  # 10 MB each, and parts are drawn one after the other
            self._sources, self._part = {}, part
        key = (kind, drawn)
        if key not in self._sources:
            # Kinds of blanks must not share their water, or they would be one kind.
            spawned = np.random.SeedSequence(self.seed, spawn_key=(part, list(Kind).index(kind)))
            seed = int(spawned.generate_state(1)[0])
            sets = None if self._patterns is None else self._patterns[part]
            crystals = () if own else self._crystals[drawn.crystals]
            self._sources[key] = FrameSource(drawn, seed, self.detector, crystals, sets)
        return self._sources[key].draw(number)

    def _labelled(
        self,
        places: Places,
        kind: Kind,
        has_3_spots: bool | None,
        lit: NDArray[np.integer],
        counts: NDArray[np.int64],
        number: int,
    ) -> LabelledFrames:
        """Return a frame's places with their truth; `has_3_spots` is None for a blank."""
        features = np.zeros((1, PLACES, places.features.shape[1]), np.float32)
        features[0, : len(places)] = places.features
        label = np.full((1, PLACES), -1, np.int8)
        label[0, : len(places)] = _spot_labels(places, lit, counts, self.detector.shape[1])
        return LabelledFrames(
            places_BKF=features,
            is_hit=np.array([has_3_spots is not None]),
            has_3_spots=np.array([bool(has_3_spots)]),
            has_decoys=np.array([kind is Kind.SALT]),
            spot_label_BK=label,
            pair=np.array([number], np.int64),
        )


def _crystals(seed: int, n_made_up: int) -> dict[CrystalKind, tuple[Crystal, ...]]:
    """Return proteinase K, and for "both" as many shots of it as of made-up crystals."""
    wild = presets.TRAINING
    protein = read_crystal()
    made_up = CrystalPool("random", seed, wild.cell_A, wild.space_groups)
    both = [crystal for n in range(n_made_up) for crystal in (protein, made_up[n])]
    return {"1IC6": (protein,), "both": tuple(both) or (protein,)}


def split_patterns(pattern_sets: PatternSets, seed: int) -> dict[Part, PatternSets]:
    """Split patterns by orientation: 80 % to train, the others to test and to calibrate.

    With five there is one to test and to calibrate; test and calibration show the same ones.

    Raises:
        SimulationError: a data set has fewer than five patterns.
    """
    parts: dict[Part, dict[str, list[Pattern]]] = {part: {} for part in Part}
    for number, (name, patterns) in enumerate(sorted(pattern_sets.items())):
        if len(patterns) < 5:
            raise SimulationError(
                f"data set {name} has {len(patterns)} patterns; expected 5 or more, four to "
                "train and one to test"
            )
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        shuffled = [patterns[i] for i in rng.permutation(len(patterns))]
        n_train = int(0.8 * len(patterns))
        for part in Part:
            parts[part][name] = shuffled[:n_train] if part is Part.TRAIN else shuffled[n_train:]
    return dict(parts)


def _without_crystal(exposure: Exposure) -> Pixels:
    """Return the same frame without its Bragg photons.

    Where they filled a pixel to its type's top the water under them is lost; that is a photon or
    two of a pixel that held tens of thousands.
    """
    twin = exposure.image.copy()
    flat, at = twin.reshape(-1), exposure.bragg_index
    seen = flat[at] != np.iinfo(twin.dtype).max
    at, counts = at[seen], exposure.bragg_counts[seen]
    flat[at] -= np.minimum(counts, flat[at]).astype(twin.dtype)
    return twin


def _spot_labels(
    places: Places, lit: NDArray[np.integer], counts: NDArray[np.int64], n_fs: int
) -> NDArray[np.int8]:
    """Return 1 where the crystal's photons make a place, 0 where none came near, else -1."""
    ss, fs = np.divmod(lit, n_fs)
    near_ss = np.abs(places.ss[:, None] - ss) <= SPOT_REACH_PX
    near_fs = np.abs(places.fs[:, None] - fs) <= SPOT_REACH_PX
    photons = (near_ss & near_fs) @ counts
    return np.where(photons >= SPOT_PHOTONS, 1, np.where(photons == 0, 0, -1)).astype(np.int8)
