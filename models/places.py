"""Places worth a look, at full resolution: how much better a spot explains the pixels there.

One rule: a place's worth is a likelihood ratio, natural logarithm: Poisson counts of background
plus a Gaussian spot against background alone, averaged over intensities, for a few widths, less
the logarithm of the number of places that chance could choose from. The scan (`scan`) says where
to look; what it sees in cells of 4 x 4 pixels is settled here photon by photon. A place that looks
good is compared with what lies beside it along its ring and along its radius, so that powder rings
and streaks, narrower than any background map, are no spots.

Suffixes: S scales, K places, F features of a place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import _cells, _places
from hitfinder.models.frontend import CELL_PX
from hitfinder.models.image import Image, Mask, memory
from hitfinder.models.scan import FLOOR, SCALES_PX

PLACES = 48
"""Strongest places of a frame that are looked at."""
CONSIDERED = 128
WIDTHS_PX = (0.35, 1.0, 1.8, 2.8, 4.2)
"""Gaussian sigma of the spots looked for."""
N_WIDTHS = len(WIDTHS_PX)
FEATURES = (
    "present",
    *(f"log_ratio_{w}" for w in WIDTHS_PX),
    "evidence",
    "rest",
    "log10_background_per_px",
    "radius_kpx",
    "log10_intensity",
    "log10_background_raised",
)
"""What is said of a place, in this order; all float32, all 0 where there is no place."""
N_FEATURES = len(FEATURES)
ABSENT = 0.0
LOWEST_BACKGROUND = 1e-6
MAX_RATIO = 60.0
"""A likelihood ratio of e^60 settles any frame; more is not told apart."""
INTENSITIES = (2.0, 3.2, 5.0, 8.0, 13.0, 22.0, 50.0, 200.0)
"""Photons of the spots looked for, roughly even in the logarithm."""
PRIOR = (0.24, 0.2, 0.16, 0.13, 0.1, 0.08, 0.05, 0.04)
"""Their shares: weak spots are more."""
REACH_SIGMA, MAX_REACH_PX = 3.0, 14
STEPS_PER_OCTAVE, LOWEST_OCTAVE, N_OCTAVES = 16, -20, 30
"""Background per pixel of the table: 1e-6 to 1e3 photons in steps of 4 %."""
SAME_SPOT_PX = 3.0
"""Places this near are one, even of the sharpest spots."""
BLUR2_PX2 = 1 / 6
"""Variance that a pixel's size and a centre between pixels add."""

Float = NDArray[np.float32]
Looks = tuple[Float, Float]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The places of one frame, float32, strongest likelihood ratio first.

    Attributes:
        features: (n, F), see `FEATURES`.
        ss: (n,) centre in pixels, to the pixel.
        fs: (n,) centre in pixels.
        sigma_px: (n,) width that explains most.
        background_per_px: (n,) photons expected.
        looks: what `log_ratios` said of all boxes looked at, in their order.
    """

    features: Float
    ss: Float
    fs: Float
    sigma_px: Float
    background_per_px: Float
    looks: Looks

    def __len__(self) -> int:
        return len(self.ss)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What a photon at a squared distance says for a spot, by background, width and intensity.

    Attributes:
        gain: float32 (backgrounds, rows, intensities), log(1 + intensity share / background).
        share: float32 (rows,), share of a spot's photons in one pixel at that distance.
        first: int32 (widths,), row of distance 0; rows go by squared distance in pixels, and
            after the last comes one of what is beyond reach: 0.
        reach: int32 (widths,), pixels.
        width_px: float32 (widths,), `WIDTHS_PX`.
        intensity, log_prior: float32 (intensities,), `INTENSITIES` and logarithms of `PRIOR`.
    """

    gain: Float
    share: Float
    first: NDArray[np.int32]
    reach: NDArray[np.int32]
    width_px: Float
    intensity: Float
    log_prior: Float


@lru_cache(maxsize=1)
def ratio_table() -> Table:
    """Return the table, made once a process: 6 MB."""
    shares: list[NDArray[np.float64]] = []
    first: list[int] = []
    reach: list[int] = []
    for sigma in WIDTHS_PX:
        wide = math.sqrt(sigma**2 + BLUR2_PX2)
        far = min(math.ceil(REACH_SIGMA * wide), MAX_REACH_PX)
        span = np.arange(-far, far + 1)
        d2 = np.square(span)[:, None] + np.square(span)
        total = np.exp(-d2[d2 <= far**2] / (2 * wide**2)).sum()
        first.append(sum(len(s) for s in shares))
        reach.append(far)
        shares.append(np.append(np.exp(-np.arange(far**2 + 1) / (2 * wide**2)) / total, 0.0))
    share = np.concatenate(shares)
    octaves = LOWEST_OCTAVE + np.arange(N_OCTAVES * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE
    ratio = share[:, None] * np.array(INTENSITIES) / np.exp2(octaves)[:, None, None]
    return Table(
        np.log1p(ratio).astype(np.float32),
        share.astype(np.float32),
        np.array(first, np.int32),
        np.array(reach, np.int32),
        np.array(WIDTHS_PX, np.float32),
        np.array(INTENSITIES, np.float32),
        np.log(np.array(PRIOR, np.float32)),
    )


def merge(candidates_5SK: Float, n_keep: int = CONSIDERED) -> Float:
    """Join the scales of a frame: the strongest box at a place hides those that overlap it.

    Args:
        candidates_5SK: columns of one frame's `device_scan.Candidates`.
        n_keep: boxes of all scales that are considered, hidden ones too.

    Returns:
        float32 (6, boxes), by falling evidence: the columns of `Candidates`, and the box's edge in
        pixels, 1 for a single pixel of a cell.
    """
    _, n_scales, n_each = candidates_5SK.shape
    boxes = np.empty((6, min(n_keep, n_scales * n_each)), np.float32)
    n_boxes = _cells.merge(candidates_5SK, boxes, n_each, (FLOOR, CELL_PX), SCALES_PX)
    return boxes[:, :n_boxes]


def look_closer(
    image: Image,
    mask: Mask,
    boxes: Float,
    beam_center_px: tuple[float, float],
    trust_bright_pixels: bool,
    n_places: int = PLACES,
    looks: Looks | None = None,
) -> Places:
    """Look at the best boxes of one frame in its pixels.

    Args:
        image: (ss, fs) uint8, uint16 or uint32, photons; the type's largest value is no count.
        mask: `mask_of` the pixels that count.
        boxes: `merge`'s, float32 (6, boxes).
        beam_center_px: (fs, ss) pixel index.
        trust_bright_pixels: False lets no pixel count more than its neighbours vouch for.
        n_places: boxes looked at, the best.
        looks: of the first of these boxes, if they were looked at before.
    """
    columns = np.ascontiguousarray(boxes[:, :n_places])
    n, n_known = columns.shape[1], 0 if looks is None else len(looks[0])
    ratio, found = log_ratios(
        image, mask, columns[2:, n_known:], beam_center_px, trust_bright_pixels
    )
    if looks is not None:
        ratio, found = (
            np.concatenate((a[:n], b)) for a, b in zip(looks, (ratio, found), strict=True)
        )
    features, said = np.empty((n, N_FEATURES), np.float32), np.empty((5, n), np.float32)
    n_distinct = _places.name_places(
        ratio,
        found,
        columns[0],
        columns[1],
        ratio_table().width_px,
        (beam_center_px[1], beam_center_px[0]),
        (SAME_SPOT_PX, MAX_RATIO, LOWEST_BACKGROUND),
        features,
        said,
    )
    ss, fs, sigma_px, per_px, _ = said[:, :n_distinct]
    return Places(features[:n_distinct], ss, fs, sigma_px, per_px, (ratio, found))


def log_ratios(
    image: Image,
    mask: Mask,
    boxes_4K: Float,
    beam_center_px: tuple[float, float],
    trust_bright_pixels: bool,
) -> Looks:
    """Climb to the best spot of each width near each box.

    Args:
        image: as in `look_closer`.
        mask: as in `look_closer`.
        boxes_4K: float32, centre ss and fs in cells, mean photons, edge in pixels.
        beam_center_px: as in `look_closer`.
        trust_bright_pixels: as in `look_closer`.

    Returns:
        float32 (K, widths) log likelihood ratio averaged over intensities, less the logarithm of
        the places that chance could choose from; float32 (K, 6): ss and fs in pixels, index of
        the width and photons of the spot that explains most, background a pixel, and how many
        times that of the box it is.
    """
    table = ratio_table()
    n = boxes_4K.shape[1]
    ratio, found = np.empty((n, N_WIDTHS), np.float32), np.empty((n, 6), np.float32)
    _places.log_ratios(
        *memory(image),
        mask,
        (image.shape[0], image.shape[1]),
        image.dtype.itemsize,
        np.ascontiguousarray(boxes_4K),
        CELL_PX,
        not trust_bright_pixels,
        table.gain,
        table.share,
        table.intensity,
        table.log_prior,
        _log_chances(image.shape[0] * image.shape[1]),
        table.first,
        table.reach,
        (LOWEST_OCTAVE, STEPS_PER_OCTAVE),
        (beam_center_px[1], beam_center_px[0]),
        _tiles((image.shape[0], image.shape[1])),
        ratio,
        found,
    )
    return ratio, found


@lru_cache(maxsize=1)
def _tiles(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return memory in which frames of a shape are looked at, the same for one after the other."""
    return np.empty(_places.tiles_bytes(*shape), np.uint8)


@lru_cache(maxsize=8)
def _log_chances(n_pixels: int) -> Float:
    """Return log of the places of each width that chance could choose from."""
    n_chances = n_pixels / np.maximum(1.0, 4 * np.square(WIDTHS_PX))
    return np.asarray(np.log(np.maximum(n_chances, 1.0)), np.float32)
