"""Places worth a look, at full resolution: how much better a spot explains the pixels there.

One rule: a place's worth is a likelihood ratio, natural logarithm: Poisson counts of background
plus a Gaussian spot against background alone, averaged over intensities, for a few widths, less
the logarithm of the number of places that chance could choose from. The scan (`scan`) says where
to look; what it sees in cells of 4 x 4 pixels is settled here photon by photon. A place that looks
good is compared with what lies beside it along its ring and along its radius, so that powder rings
and streaks, narrower than any background map, are no spots.

Suffixes: B batch, K places, F features of a place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models import _places
from hitfinder.models.frontend import CELL_PX
from hitfinder.models.scan import FLOOR, SCALES_PX, Candidates, suppress

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


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The places of one frame, float32, strongest likelihood ratio first.

    Attributes:
        features: (n, F), see `FEATURES`.
        ss: (n,) centre in pixels, to the pixel.
        fs: (n,) centre in pixels.
        sigma_px: (n,) width that explains most.
        background_per_px: (n,) photons expected.
    """

    features: Float
    ss: Float
    fs: Float
    sigma_px: Float
    background_per_px: Float

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
    """

    gain: Float
    share: Float
    first: NDArray[np.int32]
    reach: NDArray[np.int32]


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
    )


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes of all scales that no stronger one hides, (B, K) each, by falling evidence.

    Columns as in `Candidates`; `edge_px` is 1 for a single pixel of a cell. Hidden and empty ones
    hold `FLOOR` evidence.
    """

    evidence: torch.Tensor
    rest: torch.Tensor
    ss: torch.Tensor
    fs: torch.Tensor
    mean: torch.Tensor
    edge_px: torch.Tensor

    def columns(self) -> tuple[torch.Tensor, ...]:
        """Return all columns in the order of the fields."""
        return self.evidence, self.rest, self.ss, self.fs, self.mean, self.edge_px

    def of_frame(self, row: int) -> tuple[Float, ...]:
        """Return the columns of one frame, (K,) each, without hidden and empty ones."""
        kept = self.evidence[row] > FLOOR
        return tuple(c[row][kept].cpu().numpy() for c in self.columns())


def merge(candidates: Candidates, n_keep: int = CONSIDERED) -> Boxes:
    """Join the scales of each frame: the strongest box at a place hides those that overlap it."""
    scales = torch.tensor(SCALES_PX, dtype=torch.float32, device=candidates.ss.device)
    edge_px = scales[None, :, None].expand(candidates.evidence.shape)
    columns = (*candidates.columns(), edge_px)
    order = torch.argsort(candidates.evidence.flatten(1), dim=1, descending=True, stable=True)
    order = order[:, :n_keep]
    evidence, rest, ss, fs, mean, edge_px = (c.flatten(1).gather(1, order) for c in columns)
    hidden = ~suppress(evidence, ss, fs, (edge_px / CELL_PX).clamp(min=1))
    return Boxes(
        evidence.masked_fill(hidden, FLOOR), rest.masked_fill(hidden, FLOOR), ss, fs, mean, edge_px
    )


def look_closer(
    image: NDArray[np.unsignedinteger],
    valid: NDArray[np.bool_],
    boxes: Sequence[Float],
    beam_center_px: tuple[float, float],
    trust_bright_pixels: bool,
    n_places: int = PLACES,
) -> Places:
    """Look at the best boxes of one frame in its pixels.

    Args:
        image: (ss, fs) uint8, uint16 or uint32, photons; the type's largest value is no count.
        valid: bool (ss, fs).
        boxes: `Boxes.of_frame`.
        beam_center_px: (fs, ss) pixel index.
        trust_bright_pixels: False lets no pixel count more than its neighbours vouch for.
        n_places: boxes looked at, the best.
    """
    evidence, rest, ss, fs, mean, edge_px = (column[:n_places] for column in boxes)
    ratio, found = log_ratios(
        image, valid, (ss, fs, mean, edge_px), beam_center_px, trust_bright_pixels
    )
    order = np.argsort(-ratio.max(axis=1), kind="stable")
    width = found[order, 2].astype(np.intp)
    reach = np.maximum(2 * np.array(WIDTHS_PX, np.float32)[width], np.float32(SAME_SPOT_PX))
    kept = np.empty(len(order), np.bool_)
    at_ss, at_fs = (np.ascontiguousarray(found[order, k]) for k in (0, 1))
    _places.keep_distinct(at_ss, at_fs, reach, kept)
    order, width, at_ss, at_fs = order[kept], width[kept], at_ss[kept], at_fs[kept]
    features = np.empty((len(order), N_FEATURES), np.float32)
    features[:, 0] = 1
    features[:, 1 : 1 + N_WIDTHS] = np.clip(ratio[order], -MAX_RATIO, MAX_RATIO)
    features[:, -6] = np.minimum(evidence[order], MAX_RATIO)
    features[:, -5] = np.minimum(rest[order], MAX_RATIO)
    per_px = np.maximum(found[order, 4], np.float32(LOWEST_BACKGROUND))
    features[:, -4] = np.log10(per_px)
    features[:, -3] = np.hypot(at_fs - beam_center_px[0], at_ss - beam_center_px[1]) / 1000
    features[:, -2] = np.log10(found[order, 3])
    features[:, -1] = np.log10(found[order, 5])
    return Places(features, at_ss, at_fs, np.array(WIDTHS_PX, np.float32)[width], per_px)


def stack_places(of_frames: Sequence[Places]) -> torch.Tensor:
    """Return what the gate takes of the places of several frames, float32 (B, `PLACES`, F)."""
    stacked = np.zeros((len(of_frames), PLACES, N_FEATURES), np.float32)
    for row, found in zip(stacked, of_frames, strict=True):
        row[: len(found)] = found.features[:PLACES]
    return torch.from_numpy(stacked)


def log_ratios(
    image: NDArray[np.unsignedinteger],
    valid: NDArray[np.bool_],
    boxes: tuple[Float, Float, Float, Float],
    beam_center_px: tuple[float, float],
    trust_bright_pixels: bool,
) -> tuple[Float, Float]:
    """Climb to the best spot of each width near each box.

    Args:
        image: as in `look_closer`.
        valid: as in `look_closer`.
        boxes: (K,) each: centre ss and fs in cells, mean photons, edge in pixels.
        beam_center_px: as in `look_closer`.
        trust_bright_pixels: as in `look_closer`.

    Returns:
        float32 (K, widths) log likelihood ratio averaged over intensities, less the logarithm of
        the places that chance could choose from; float32 (K, 6): ss and fs in pixels, index of
        the width and photons of the spot that explains most, background a pixel, and how many
        times that of the box it is.
    """
    table = ratio_table()
    ss, fs, mean, edge_px = boxes
    cells = np.maximum(edge_px / CELL_PX, 1)
    corner = (np.stack((ss, fs), axis=1) - (cells[:, None] - 1) / 2) * CELL_PX
    middle = corner + np.maximum(edge_px, CELL_PX)[:, None] // 2
    ratio = np.empty((len(ss), N_WIDTHS), np.float32)
    found = np.empty((len(ss), 6), np.float32)
    n_chances = np.maximum(valid.size / np.maximum(1.0, 4 * np.square(WIDTHS_PX)), 1.0)
    _places.log_ratios(
        image,
        valid.view(np.uint8),
        (image.shape[0], image.shape[1]),
        image.itemsize,
        middle.astype(np.int32),
        edge_px.astype(np.int32),
        mean.astype(np.float32),
        not trust_bright_pixels,
        table.gain,
        table.share,
        np.array(INTENSITIES, np.float32),
        np.log(np.array(PRIOR, np.float32)),
        np.log(n_chances).astype(np.float32),
        table.first,
        table.reach,
        (float(LOWEST_OCTAVE), float(STEPS_PER_OCTAVE)),
        (float(beam_center_px[1]), float(beam_center_px[0])),
        ratio,
        found,
    )
    return ratio, found
