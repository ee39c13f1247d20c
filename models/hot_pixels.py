"""Hot pixels, told from Bragg spots by when they are lit, not by how bright they are.

One rule: a pixel is hot if it is lit often, alone, and no matter which others are lit. A pixel
of a pattern that comes again and again is lit together with the rest of its pattern; a pixel in
a wide spot has neighbours; neither is taken however often it comes. What cannot be told is one
and the same still pattern of single-pixel spots in nearly every frame.

Pixels far above the background are remembered and read in every later frame. The frame that
made a pixel remembered does not count for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hitfinder.models import _lit
from hitfinder.models.frontend import CELL_PX
from hitfinder.models.image import Image, Mask, counts_at, memory, valid_at

NEW_TAIL = 1e-7
"""A pixel is remembered if background makes its counts this rarely: 0.4 in a blank 4M frame."""
LIT_TAIL = 1e-3
"""A remembered pixel is lit in a frame if the background makes its counts this rarely."""
CAPACITY, MOST_NEW, MOST_FOUND = 2048, 256, 8192
"""Pixels remembered; taken from one frame, in the darkest cells first; looked through for them."""
WINDOW = 64
"""Frames in which pixels are compared with each other, one bit each."""
DOUBT = 1e-4
"""Chance that a pixel at the rates below looks as if it were above."""
STEADY_RATE = 0.25
"""Lit more often than this over all frames: more than one pattern of several can be."""
FLICKER_RATE, FLICKER_LIT = 0.08, 6
"""Lit more often than this over blank frames, and so often within the window."""
BLANK_LIT = 4
"""Up to so many pixels lit that are not alone: the frame shows no pattern."""
DARK_FRAMES, DARK_HITS = 8, 0.5
"""Of blank frames in which no pixel that is alone is lit, more than this share are hits: all are
weak hits, of whose patterns one pixel may be all that is seen, and no flickering is learned."""
SAME_SIGMA, SAME_CORRELATION, SAME_FRAMES = 4.5, 0.95, 3
"""Two pixels are of one pattern if their frames agree this much; lit and dark in 3 frames each."""
SAME_CHANCE = 2e-4
"""Two pixels that have nothing to do with each other agree so much this rarely."""
MOST_COMPARED = 256
FORGET_RATE, TRIAL_FRAMES = 0.04, 16
NEAR_PX, NEAR_TAIL = 2, 0.05
"""Half width of the surroundings that must look like background but for one more pixel."""

REMEMBERED = np.dtype(
    [("pixel", "i8"), ("limit", "i8"), ("history", "u8"), ("frames", "i8"), ("lit", "i8")]
    + [("blanks", "i8"), ("lit_blanks", "i8"), ("is_alone", "i8")]
)
"""A flat index; counts from which it is lit; a bit for each of the last frames, the latest lowest;
frames since it is remembered and of these lit; the same of blank frames; nothing else is lit when
it is."""


def least_counts(mean: NDArray[np.floating], tail: float) -> NDArray[np.int64]:
    """Return the smallest n that a Poisson variable reaches with at most this probability.

    Args:
        mean: above 0.
        tail: P(X >= n), 0 to 0.5.
    """
    low = np.floor(mean).astype(np.int64)
    high = np.ceil(mean + 8 * np.sqrt(mean) + 16).astype(np.int64)
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        rare = special.gammainc(middle, mean) <= tail
        low, high = np.where(rare, low, middle), np.where(rare, middle, high)
    return np.asarray(high)


class HotPixels:
    """The pixels that were far above the background lately, and when they were lit.

    Args:
        shape: (ss, fs).
        ring_HW: int32, ring of each cell.
    """

    def __init__(self, shape: tuple[int, int], ring_HW: NDArray[np.int32]) -> None:
        self._shape, self._ring_HW = shape, np.ascontiguousarray(ring_HW)
        self._table = np.zeros(0, REMEMBERED)  # by rising pixel
        self._fresh = np.zeros(MOST_FOUND, np.int64)
        self._n_dark, self._n_dark_hits = 0, 0
        self._new_limit_R, self._lit_limit_R = np.zeros(0, np.uint32), np.zeros(0, np.int64)

    def expect(self, rate_R: NDArray[np.floating]) -> None:
        """Set what the background may reach: photons per pixel of each ring, above 0."""
        self._new_limit_R = np.minimum(least_counts(rate_R, NEW_TAIL), 2**32 - 1).astype(np.uint32)
        self._lit_limit_R = least_counts(rate_R, LIT_TAIL)
        self._table["limit"] = self._lit_limit_R[self._rings(self._table["pixel"])]

    def see(
        self,
        image: Image,
        sums_HW: NDArray[np.uint32],
        maxima_HW: NDArray[np.uint32],
        mask: Mask,
        *,
        is_hit: bool,
    ) -> None:
        """Note which remembered pixels are lit in a judged frame, and remember new ones."""
        n_fresh, n_together, n_alone = _lit.see(
            *memory(image),
            mask,
            np.ascontiguousarray(maxima_HW),
            self._ring_HW,
            self._new_limit_R,
            self._table,
            self._fresh,
            self._shape,
            image.dtype.itemsize,
        )
        if n_together <= BLANK_LIT:
            self._table["blanks"] += 1
            self._table["lit_blanks"] += (self._table["history"] & np.uint64(1)).astype(np.int64)
            if not n_alone:
                self._n_dark, self._n_dark_hits = self._n_dark + 1, self._n_dark_hits + is_hit
        if n_fresh:
            self._remember(self._fresh[:n_fresh].copy(), sums_HW, maxima_HW)

    def look(
        self,
        image: Image,
        mask: Mask,
        rate_R: NDArray[np.floating],
    ) -> tuple[NDArray[np.int64], bool]:
        """Decide which pixels are hot, and forget what was nothing; after `see` of this frame.

        Returns:
            flat indices of new hot pixels, and whether others look as if they will be.
        """
        t = self._table
        is_alone = self._without_partners()
        t["is_alone"] = is_alone
        steady = special.bdtrc(t["lit"] - 1, t["frames"], STEADY_RATE) < DOUBT
        flickering = special.bdtrc(t["lit_blanks"] - 1, t["blanks"], FLICKER_RATE) < DOUBT
        flickering &= np.bitwise_count(t["history"]) >= FLICKER_LIT
        if self._n_dark >= DARK_FRAMES and self._n_dark_hits > DARK_HITS * self._n_dark:
            flickering[:] = False
        often = t["lit"] >= np.maximum(STEADY_RATE * t["frames"], SAME_FRAMES)
        suspected = is_alone & (often | steady | flickering)
        wanted = np.flatnonzero(is_alone & (steady | flickering))
        hot = wanted[self._in_the_dark(image, mask, t["pixel"][wanted], rate_R)]
        suspected[hot] = False
        keep = (t["frames"] < TRIAL_FRAMES) | (t["lit"] >= FORGET_RATE * t["frames"])
        if len(keep) > CAPACITY // 2:
            keep &= (t["frames"] < TRIAL_FRAMES // 2) | (t["lit"] > 0)
        keep[hot] = False
        self._table = t[keep]
        return t["pixel"][hot], bool(suspected.any())

    def forget(self, valid: NDArray[np.bool_]) -> None:
        """Forget pixels that count no more."""
        self._table = self._table[valid.reshape(-1)[self._table["pixel"]]]

    # ------------------------------------------------------------------------------------

    def _rings(self, pixels: NDArray[np.int64]) -> NDArray[np.int32]:
        row, column = np.divmod(pixels, self._shape[1])
        return np.asarray(self._ring_HW[row // CELL_PX, column // CELL_PX])

    def _remember(
        self,
        pixels: NDArray[np.int64],
        sums_HW: NDArray[np.uint32],
        maxima_HW: NDArray[np.uint32],
    ) -> None:
        """Add pixels to the table; of too many those whose cells hold little else."""
        room = min(MOST_NEW, CAPACITY - len(self._table))
        if len(pixels) > room:
            row, column = np.divmod(pixels, self._shape[1])
            cell = row // CELL_PX, column // CELL_PX
            pixels = pixels[np.argsort(sums_HW[cell] - maxima_HW[cell], kind="stable")[:room]]
        fresh = np.zeros(len(pixels), REMEMBERED)
        fresh["pixel"], fresh["limit"] = pixels, self._lit_limit_R[self._rings(pixels)]
        table = np.concatenate((self._table, fresh))
        self._table = table[np.argsort(table["pixel"], kind="stable")]

    def _without_partners(self) -> NDArray[np.bool_]:
        """Return the pixels lit often enough to tell that no others are lit with them.

        Two pixels are compared over the frames in which both were remembered, by the correlation
        of their being lit; a few chance pairs among many pixels are allowed.
        """
        t = self._table
        alone = np.zeros(len(t), np.bool_)
        often = np.flatnonzero(np.bitwise_count(t["history"]) >= SAME_FRAMES)
        if len(often) > MOST_COMPARED:
            most = np.argsort(-t["lit"][often] / t["frames"][often], kind="stable")
            often = np.sort(often[most[:MOST_COMPARED]])
        ago = np.arange(WINDOW, dtype=np.uint64)
        lit = (t["history"][often, None] >> ago & np.uint64(1)).astype(np.float32)
        frames = np.minimum(t["frames"][often], WINDOW)
        seen = (np.arange(WINDOW) < frames[:, None]).astype(np.float32)
        both, mine = lit @ lit.T, lit @ seen.T
        theirs = mine.T
        n = np.minimum(frames[:, None], frames).astype(np.float32)
        neither = n - mine - theirs + both
        spread = np.sqrt(mine * theirs * (n - mine) * (n - theirs))
        correlation = (both * n - mine * theirs) / np.maximum(spread, 1e-9)
        sigma = correlation * np.sqrt(np.maximum(n - 1, 0))
        same = (sigma > SAME_SIGMA) | (correlation > SAME_CORRELATION)
        same &= (both >= SAME_FRAMES) & (neither >= SAME_FRAMES)
        np.fill_diagonal(same, False)
        chance = len(often) * SAME_CHANCE
        alone[often] = same.sum(1) <= chance + 3 * chance**0.5 + 0.5
        return alone

    def _in_the_dark(
        self,
        image: Image,
        mask: Mask,
        pixels: NDArray[np.int64],
        rate_R: NDArray[np.floating],
    ) -> NDArray[np.bool_]:
        """Return the pixels around which there is background but for one more pixel."""
        span = np.arange(-NEAR_PX, NEAR_PX + 1)
        row, column = np.divmod(pixels, self._shape[1])
        rows, columns = row[:, None, None] + span[:, None], column[:, None, None] + span
        used = (rows >= 0) & (rows < self._shape[0]) & (columns >= 0) & (columns < self._shape[1])
        rows = np.clip(rows, 0, self._shape[0] - 1)
        columns = np.clip(columns, 0, self._shape[1] - 1)
        near = rows * self._shape[1] + columns
        counts = counts_at(image, near)
        used &= valid_at(mask, near) & (counts != np.iinfo(image.dtype).max)
        used[:, NEAR_PX, NEAR_PX] = False
        photons = np.where(used, counts, 0).astype(np.int64).reshape(len(pixels), len(span) ** 2)
        others = photons.sum(1) - photons.max(1, initial=0)
        expected = rate_R[self._rings(pixels)] * used.sum((1, 2))
        chance = special.gammainc(np.maximum(others, 1), np.maximum(expected, 1e-9))
        return np.asarray((others == 0) | (chance > NEAR_TAIL))
