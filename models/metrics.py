"""Figures of merit: rates with intervals, thresholds from blanks, S90, reliability, positions.

One rule: every figure says how sure it is or how many cases it rests on, and a rate that the
blanks at hand cannot tell is never claimed. Plain numpy; nothing here knows a network. Terms as
in "How accuracy is reported": TPR and FPR are shares of hits and of blanks that pass, S90 is the
smallest strength from which the TPR stays at 0.9 or above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hitfinder.models.errors import ModelError

Z_95 = 1.959964
TARGET_TPR = 0.9
QUANTILES = (0.16, 0.5, 0.84)
N_BINS = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of cases with its Wilson interval (Wilson, J. Am. Stat. Assoc. 22, 209, 1927).

    Attributes:
        k: cases that passed.
        n: cases.
        low, high: ends of the 95 % interval.
    """

    k: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; NaN of no cases."""
        return self.k / self.n if self.n else math.nan


@dataclass(frozen=True, slots=True)
class Threshold:
    """A cut that blanks at hand set: a score passes if it is greater.

    Attributes:
        value: the cut.
        rate: the share of further blanks like those that may be expected to pass.
    """

    value: float
    rate: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure's 16, 50 and 84 % quantiles over resampled patterns."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How far stated probabilities come true.

    Attributes:
        stated: float64 (bins,), mean probability of the frames in the bin; NaN if empty.
        true: float64 (bins,), share of them that are hits.
        n: int64 (bins,).
        expected_calibration_error: mean of |true - stated| over the frames.
    """

    stated: Floats
    true: Floats
    n: NDArray[np.int64]
    expected_calibration_error: float


def wilson(k: int, n: int, z: float = Z_95) -> Rate:
    """Return a rate with its interval; [0, 1] of no cases.

    Raises:
        ModelError: more passed than there are.
    """
    if not 0 <= k <= n:
        raise ModelError(f"{k} of {n} cases; expected 0 <= k <= n")
    if n == 0:
        return Rate(0, 0, 0.0, 1.0)
    share, z2 = k / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the exact bounds are 0 and 1; rounding must not pass by them.
    low = 0.0 if k == 0 else max(middle - half, 0.0)
    return Rate(k, n, low, 1.0 if k == n else min(middle + half, 1.0))


def rate_above(scores: NDArray[np.floating], threshold: float) -> Rate:
    """Return the share of scores greater than the threshold; NaN never passes."""
    return wilson(int(np.count_nonzero(scores > threshold)), len(scores))


def threshold_for(blank_scores: NDArray[np.floating], rate: float) -> Threshold:
    """Return the conformal cut of a false-positive rate, or of the least rate that can be told.

    Args:
        blank_scores: (n,), higher = more like a hit. Ties count as one: they fall together.
        rate: wanted; n blanks can tell none below 1 / (n + 1).

    Raises:
        ModelError: no blanks, or a rate outside (0, 1].
    """
    n = len(blank_scores)
    if n == 0 or not 0 < rate <= 1:
        raise ModelError(f"rate {rate:g} from {n} blanks; expected 0 < rate <= 1 and some blanks")
    allowed = min(max(int(rate * (n + 1)), 1), n)
    value = np.partition(np.asarray(blank_scores, np.float64), n - allowed)[n - allowed]
    return Threshold(float(value), max(rate, 1 / (n + 1)))


def s90(strengths: Sequence[float], tpr: NDArray[np.floating]) -> float:
    """Return the smallest strength from which the TPR stays at 0.9, between the grid's points.

    Linear in the TPR and in log strength. The first point if all pass: then it is an upper
    limit. Infinite if the last point fails.

    Args:
        strengths: rising, positive.
        tpr: (strengths,).
    """
    return float(_s90_rows(strengths, np.asarray(tpr, np.float64)[None])[0])


def _s90_rows(strengths: Sequence[float], tpr: Floats) -> Floats:
    """Return S90 of each row of (rows, strengths)."""
    log_s, n = np.log(strengths), len(strengths)
    fails = ~(tpr >= TARGET_TPR)
    last = np.where(fails.any(axis=1), n - 1 - fails[:, ::-1].argmax(axis=1), -1)
    inside = (last >= 0) & (last < n - 1)
    before, row = np.clip(last, 0, n - 2), np.arange(len(tpr))
    low, high = tpr[row, before], tpr[row, before + 1]
    share = (TARGET_TPR - low) / np.where(inside, high - low, 1.0)
    between = np.exp(log_s[before] + share * (log_s[before + 1] - log_s[before]))
    return np.where(inside, between, np.where(last < 0, strengths[0], np.inf))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; infinite if one value is."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def bootstrap_s90(
    strengths: Sequence[float],
    tpr_by_set: Sequence[NDArray[np.floating]],
    seed: int = 0,
    n_rounds: int = 1000,
) -> Spread:
    """Return how far the mean S90 depends on which patterns were shown.

    Args:
        strengths: rising, (strengths,).
        tpr_by_set: (patterns, strengths) for each data set, TPR of each pattern; patterns are
            drawn anew within their data set, as frames of one pattern are not independent.
        seed: of the drawing.
        n_rounds: times.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(n_rounds)
    for tpr in tpr_by_set:
        drawn = rng.integers(0, len(tpr), (n_rounds, len(tpr)))
        total += np.log(_s90_rows(strengths, tpr[drawn].mean(axis=1)))
    means = np.exp(total / len(tpr_by_set))
    # A quantile between a finite and an infinite value has none: take one that occurred.
    low, middle, high = np.quantile(means, QUANTILES, method="inverted_cdf")
    return Spread(float(low), float(middle), float(high))


def reliability(
    p: NDArray[np.floating], is_true: NDArray[np.bool_], n_bins: int = N_BINS
) -> Reliability:
    """Compare stated probabilities with what came true, in bins of equal width.

    Args:
        p: (n,), 0 to 1.
        is_true: (n,).
        n_bins: between 0 and 1.
    """
    at = np.minimum((np.asarray(p) * n_bins).astype(np.int64), n_bins - 1)
    n = np.bincount(at, minlength=n_bins)
    some = np.where(n > 0, n, np.nan)
    stated, true = (np.bincount(at, w, n_bins) / some for w in (p, is_true))
    error = np.nansum(np.abs(stated - true) * n) / max(len(at), 1)
    return Reliability(stated, true, n, float(error))


def match(
    reported: NDArray[np.floating], truth: NDArray[np.floating], reach_px: float
) -> NDArray[np.int64]:
    """Pair reported positions with true ones, nearest pairs first, each at most once.

    Args:
        reported: (n, 2) pixels.
        truth: (m, 2) pixels.
        reach_px: greatest distance of a pair, included.

    Returns:
        int64 (n,), index of the true position, -1 for none.
    """
    partner = np.full(len(reported), -1, np.int64)
    if not len(reported) or not len(truth):
        return partner
    pairs = cKDTree(reported).sparse_distance_matrix(
        cKDTree(truth), reach_px, output_type="ndarray"
    )
    is_free = np.ones(len(truth), np.bool_)
    for k in np.argsort(pairs["v"], kind="stable"):
        i, j = int(pairs["i"][k]), int(pairs["j"][k])
        if partner[i] < 0 and is_free[j]:
            partner[i], is_free[j] = j, False
    return partner


def distance_to_nearest(
    reported: NDArray[np.floating], truth: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the distance in pixels of each position to the nearest true one; inf of none.

    Args:
        reported: (n, 2).
        truth: (m, 2).
    """
    if not len(reported) or not len(truth):
        return np.full(len(reported), np.inf)
    return np.asarray(cKDTree(truth).query(reported)[0], np.float64)
