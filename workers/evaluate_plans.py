"""What an evaluation shows: series of frames, planned before one of them is drawn.

One rule: a plan is a value. The same options and seed give the same series, so every scorer sees
the same frames and what was scored yesterday need not be scored again. A series is what a
detector would send: one setting, hot pixels at fixed places from its first frame on, hits
scattered among blanks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.sim.nuisances import Span
from hitfinder.sim.patterns import spot_sigma_px
from hitfinder.sim.physics import PULSE_PHOTONS, data_sets

STRENGTHS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 1.0)
"""Of the crystal; 1 is 10 um at 3e8 photons."""
WIDTHS_MRAD = (0.0, 2.0)
"""FWHM of the beam's divergence: sharp spots, and 1.7, 2.8 or 4.0 px at the three lengths."""
LOW_FLUXES = (3e7, 1e7)
N_HOT_PIXELS = 5
FULL_REPEATS = 4
"""The strongest crystals are shown this many times as often: their rate must be told to 1e-3."""
BLANKS_A_LOW_FLUX_HIT = 2
LONG_SERIES, SHORT_SERIES = 1000, 200
"""Frames of a series of blanks: long where hot pixels are to be learned, else short."""
BLANK_FLUXES = (PULSE_PHOTONS, PULSE_PHOTONS, PULSE_PHOTONS, 3e7, 1e7)
"""Taken in turn: three of five series have the normal flux."""
SUBSET_BLANKS = 50
"""Of a series: with both widths 100 of a data set, just enough for a rate of 1e-2."""
FREE = -1.0
"""Stands for a width or flux that each frame draws for itself."""
SHOWN_BY_CHANCE = -2
BLANK = -1


@dataclass(frozen=True, slots=True)
class FramePlan:
    """One frame of a series.

    Attributes:
        pattern: which of the data set's patterns, BLANK, or SHOWN_BY_CHANCE where the settings
            decide everything, hit or blank included.
        strength: of the crystal; 0 where there is none or the settings decide.
        repeat: how often this pattern was shown before at this strength.
    """

    pattern: int
    strength: float = 0.0
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """One series, to be judged in order through one context.

    Attributes:
        part: "gate", "held-out", "blanks" or "calibration".
        kind: of blanks, or "" elsewhere.
        settings: of its frames; one data set.
        seed: of its frames.
        frames: in order.
        first: number that the source draws the first one by.
    """

    part: str
    kind: str
    settings: FrameSettings
    seed: int
    frames: tuple[FramePlan, ...]
    first: int = 0

    @property
    def dataset(self) -> str:
        """Name of its data set."""
        return self.settings.datasets[0]

    @property
    def width_mrad(self) -> float:
        """FWHM of the divergence, or FREE."""
        return _one_value(self.settings.divergence_mrad)

    @property
    def sigma_px(self) -> float:
        """Gaussian sigma that this width gives spots, on 75 um pixels."""
        return spot_sigma_px(self.width_mrad, data_sets()[self.dataset].clen_m)

    @property
    def n_photons(self) -> float:
        """Photons a pulse, or FREE."""
        return _one_value(self.settings.n_photons)

    @property
    def name(self) -> str:
        """Words for a file name."""
        width = "free" if self.width_mrad == FREE else f"{self.width_mrad:g}mrad"
        flux = "free" if self.n_photons == FREE else f"{self.n_photons:.0e}".replace("e+0", "e")
        words = (self.part, self.kind, self.dataset, width, flux)
        return "-".join(word for word in words if word) + f"-{self.seed}"


@dataclass(frozen=True, slots=True)
class Subset:
    """The part of the main table's frames that slow scorers look at: all strengths, once.

    Attributes:
        n_patterns: the last so many of a data set.
        datasets: of these.
    """

    n_patterns: int
    datasets: tuple[str, ...]

    def frames(self, plan: SeriesPlan) -> NDArray[np.int64]:
        """Return the numbers of its frames in a series; none in most."""
        is_shown = plan.part == "gate" and plan.n_photons == PULSE_PHOTONS
        if not is_shown or plan.dataset not in self.datasets:
            return np.zeros(0, np.int64)
        first = max(f.pattern for f in plan.frames) + 1 - self.n_patterns
        return np.array([k for k, f in enumerate(plan.frames) if self._holds(f, first)], np.int64)

    @staticmethod
    def _holds(frame: FramePlan, first: int) -> bool:
        if frame.pattern == BLANK:
            return frame.repeat < SUBSET_BLANKS
        return frame.pattern >= first and frame.repeat == 0


def gate_plans(
    n_patterns: Mapping[str, int], repeats: int, seed: int, strengths: Sequence[float] = STRENGTHS
) -> list[SeriesPlan]:
    """Plan the main table: data sets x widths x fluxes, strengths at the normal flux.

    Args:
        n_patterns: how many there are to show of each data set.
        repeats: times a pattern is shown at each strength.
        seed: of all.
        strengths: rising; the last is the full one.
    """
    plans = []
    for dataset, n in n_patterns.items():
        for width in WIDTHS_MRAD:
            settings = FrameSettings(
                datasets=(dataset,), divergence_mrad=width, n_hot_pixels=N_HOT_PIXELS
            )
            hits = _hits(n, strengths[:-1], repeats)
            hits += _hits(n, strengths[-1:], FULL_REPEATS * repeats)
            plans.append(_mixed("gate", settings, hits, len(hits), seed))
            for flux in LOW_FLUXES:
                hits = _hits(n, strengths[-1:], FULL_REPEATS * repeats // 2)
                n_blanks = BLANKS_A_LOW_FLUX_HIT * len(hits)
                plans.append(
                    _mixed("gate", replace(settings, n_photons=flux), hits, n_blanks, seed)
                )
    return plans


def held_out_plans(
    settings: FrameSettings,
    datasets: Sequence[str],
    n_patterns: int,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
) -> list[SeriesPlan]:
    """Plan series of the generator's settings that no training used, at each strength."""
    hits = _hits(n_patterns, strengths, 1)
    return [
        _mixed("held-out", replace(settings, datasets=(name,)), hits, len(hits), seed)
        for name in datasets
    ]


def blank_plans(
    kinds: Mapping[str, FrameSettings], datasets: Sequence[str], n_blanks: int, seed: int
) -> list[SeriesPlan]:
    """Plan at least `n_blanks` blanks of each kind, dealt to data sets and fluxes in turn."""
    plans = []
    for kind, settings in kinds.items():
        longest = LONG_SERIES if settings.n_hot_pixels else SHORT_SERIES
        length = min(longest, n_blanks)
        for k in range(-(-n_blanks // length)):
            shown = replace(
                settings,
                datasets=(datasets[k % len(datasets)],),
                n_photons=BLANK_FLUXES[k % len(BLANK_FLUXES)],
                hit_fraction=0.0,
            )
            frames = (FramePlan(BLANK),) * length
            plans.append(SeriesPlan("blanks", kind, shown, _seed(seed, kind, k), frames))
    return plans


def chance_plans(
    settings: FrameSettings, datasets: Sequence[str], n_frames: int, seed: int
) -> list[SeriesPlan]:
    """Plan one series a data set where the settings decide: what probabilities mean."""
    frames = (FramePlan(SHOWN_BY_CHANCE),) * n_frames
    return [
        SeriesPlan("calibration", "", replace(settings, datasets=(d,)), _seed(seed, d), frames)
        for d in datasets
    ]


def _hits(n_patterns: int, strengths: Sequence[float], repeats: int) -> list[FramePlan]:
    return [
        FramePlan(pattern, strength, repeat)
        for strength in strengths
        for pattern in range(n_patterns)
        for repeat in range(repeats)
    ]


def _mixed(
    part: str, settings: FrameSettings, hits: Sequence[FramePlan], n_blanks: int, seed: int
) -> SeriesPlan:
    """Return a series with its hits scattered among its blanks."""
    s = settings
    own = _seed(seed, part, s.datasets, s.divergence_mrad, s.n_photons)
    frames = [*hits, *(FramePlan(BLANK, repeat=k) for k in range(n_blanks))]
    order = np.random.default_rng(own).permutation(len(frames))
    return SeriesPlan(part, "", settings, own, tuple(frames[k] for k in order))


def _one_value(span: Span) -> float:
    return FREE if isinstance(span, tuple) else float(span)


def _seed(*words: object) -> int:
    """Return a seed that is a function of the words alone, whatever else is planned."""
    return zlib.crc32(repr(words).encode())
