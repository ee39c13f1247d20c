"""Noise-free Bragg patterns: the sparse type, the shipped ones, and what may be done to them.

One rule: a pattern holds expected photons per pixel per shot, never counts, and a change of
place or width keeps its total except what leaves the array. The shipped patterns are CrystFEL
pattern_sim's: 1IC6, a 10 um crystal, 3e8 photons on 5 um, 1 % top hat, 8 orientations a set;
each pixel of at least 1e-3 photons (`make_data.py`; 1.3e-4 of the photons are dropped).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import erf

from hitfinder.sim.physics import DataSet, Detector, SimulationError, data_sets

# Two reflections are one spot where pixels this bright (photons at 3e8) join them.
LINK_PHOTONS = 0.05
# Spots fainter than this are not worth naming: a shot shows none of them.
FAINT_PHOTONS = 0.1
# Less than this in a pixel is rounding of a spot's far wing.
NOTHING_PHOTONS = 1e-7
# A blurred pixel reaches this many sigma; 0.01 % of a Gaussian lies outside and is scaled back.
REACH_SIGMA = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Where reflections fall: arrays of one length n.

    Attributes:
        fs: float32, fast index in pixels, centre of the first pixel 0.0.
        ss: float32, slow index in pixels, centre of the first pixel 0.0.
        photons: float32, expected photons of the whole spot.
        hkl: int16 (n, 3), Miller indices; 0 0 0 where the pattern does not know them.
        d_A: float32, resolution in Angstrom.
    """

    fs: NDArray[np.float32]
    ss: NDArray[np.float32]
    photons: NDArray[np.float32]
    hkl: NDArray[np.int16]
    d_A: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.fs)

    def __getitem__(self, chosen: NDArray[np.generic] | slice) -> Spots:
        """Return the spots that a mask, an index array or a slice chooses."""
        return Spots(
            self.fs[chosen],
            self.ss[chosen],
            self.photons[chosen],
            self.hkl[chosen],
            self.d_A[chosen],
        )


def no_spots() -> Spots:
    """Return spots of length 0, for a blank."""
    none = np.zeros(0, np.float32)
    return Spots(none, none, none, np.zeros((0, 3), np.int16), none)


def join_spots(lists: Sequence[Spots]) -> Spots:
    """Return one list of several."""
    return Spots(
        *(
            np.concatenate([getattr(spots, name) for spots in (no_spots(), *lists)])
            for name in ("fs", "ss", "photons", "hkl", "d_A")
        )
    )


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """Expected Bragg photons of one shot on an array; pixels that are not named have none.

    Attributes:
        shape: (ss, fs) of the array.
        index: int32, flat pixel index ss * n_fs + fs, ascending, each once. Gaps not masked.
        photons: float32, expected photons of each.
        spots: the reflections it is made of.
    """

    shape: tuple[int, int]
    index: NDArray[np.int32]
    photons: NDArray[np.float32]
    spots: Spots

    @property
    def total(self) -> float:
        """Expected photons on the whole array."""
        return float(self.photons.sum(dtype=np.float64))

    def scaled(self, factor: float) -> Pattern:
        """Return the pattern of a beam or crystal `factor` times as strong."""
        scale = np.float32(factor)
        spots = replace(self.spots, photons=self.spots.photons * scale)
        return replace(self, photons=self.photons * scale, spots=spots)

    def dense(self) -> NDArray[np.float32]:
        """Return the image, float32 (ss, fs), photons a pixel."""
        image = np.zeros(self.shape, np.float32)
        image.reshape(-1)[self.index] = self.photons
        return image


def _sum_repeated(
    flat: NDArray[np.int32], photons: NDArray[np.floating], n_pixels: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return each named pixel once, ascending, with the sum of its photons."""
    if len(flat) > n_pixels // 50:
        # Past this, a whole image costs less than sorting.
        image = np.zeros(n_pixels, np.float32)
        np.add.at(image, flat, photons.astype(np.float32))
        index = np.flatnonzero(image > 0).astype(np.int32)
        return index, image[index]
    order = np.argsort(flat)
    flat, weight = flat[order], photons[order].astype(np.float64)
    begins = np.flatnonzero(np.diff(flat, prepend=-1))
    summed = np.add.reduceat(weight, begins) if len(begins) else weight
    return flat[begins], summed.astype(np.float32)


def gather(
    shape: tuple[int, int],
    ss: NDArray[np.integer],
    fs: NDArray[np.integer],
    photons: NDArray[np.floating],
    spots: Spots,
) -> Pattern:
    """Build a pattern from pixels in any order, repeated or off the array (those are left out)."""
    on_ss, on_fs = (ss >= 0) & (ss < shape[0]), (fs >= 0) & (fs < shape[1])
    inside = on_ss & on_fs & (photons > NOTHING_PHOTONS)
    flat = ss[inside].astype(np.int32) * np.int32(shape[1]) + fs[inside].astype(np.int32)
    index, summed = _sum_repeated(flat, photons[inside], shape[0] * shape[1])
    on_array = (np.abs(spots.ss - (shape[0] - 1) / 2) <= shape[0] / 2) & (
        np.abs(spots.fs - (shape[1] - 1) / 2) <= shape[1] / 2
    )
    return Pattern(shape, index, summed, spots[on_array])


def total(patterns: Sequence[Pattern]) -> Pattern:
    """Return the sum of one or more patterns on arrays of the same shape, spots of all of them."""
    if len(patterns) == 1:
        return patterns[0]
    shape = patterns[0].shape
    index, photons = _sum_repeated(
        np.concatenate([p.index for p in patterns]),
        np.concatenate([p.photons for p in patterns]),
        shape[0] * shape[1],
    )
    return Pattern(shape, index, photons, join_spots([p.spots for p in patterns]))


def find_spots(
    shape: tuple[int, int], index: NDArray[np.int32], photons: NDArray[np.float32]
) -> Spots:
    """Merge touching bright pixels of a noise-free pattern (8 neighbours) into spots.

    Returns:
        Centroids and photons of every group of at least `FAINT_PHOTONS`; d and hkl are 0.
    """
    bright = photons >= LINK_PHOTONS
    pixel, weight = index[bright].astype(np.int64), photons[bright].astype(np.float64)
    n, n_fs = len(pixel), shape[1]
    left, right = [], []
    for step_ss, step_fs in ((0, 1), (1, -1), (1, 0), (1, 1)):
        on_row = (pixel % n_fs + step_fs >= 0) & (pixel % n_fs + step_fs < n_fs)
        beside = pixel + step_ss * n_fs + step_fs
        at = np.minimum(np.searchsorted(pixel, beside), max(n - 1, 0))
        touches = np.flatnonzero(on_row & (pixel[at] == beside)) if n else np.zeros(0, np.int64)
        left.append(touches)
        right.append(at[touches] if n else touches)
    rows, cols = np.concatenate(left), np.concatenate(right)
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), shape=(n, n))
    n_groups, group = connected_components(graph, directed=False)
    total = np.bincount(group, weight, n_groups)
    fs = np.bincount(group, weight * (pixel % n_fs), n_groups) / np.maximum(total, 1e-30)
    ss = np.bincount(group, weight * (pixel // n_fs), n_groups) / np.maximum(total, 1e-30)
    seen = total >= FAINT_PHOTONS
    unknown = np.zeros((int(seen.sum()), 3), np.int16)
    return Spots(
        fs[seen].astype(np.float32),
        ss[seen].astype(np.float32),
        total[seen].astype(np.float32),
        unknown,
        unknown[:, 0].astype(np.float32),
    )


def shipped_patterns(dataset: str) -> tuple[Pattern, ...]:
    """Return the 8 shipped patterns of a data set ("01" to "09") on the whole EIGER2 4M.

    Raises:
        SimulationError: there is no such data set.
    """
    if dataset not in data_sets():
        raise SimulationError(f"data set {dataset!r}; expected one of {', '.join(data_sets())}")
    setting, detector = data_sets()[dataset], Detector()
    stored = files("hitfinder.sim").joinpath("data/patterns_10um.npz")
    with stored.open("rb") as file, np.load(file) as arrays:
        index, photons = arrays[f"index_{dataset}"], arrays[f"photons_{dataset}"]
        starts = arrays[f"indptr_{dataset}"]
    return tuple(
        named_pattern(detector, setting, index[begin:end], photons[begin:end])
        for begin, end in zip(starts[:-1], starts[1:], strict=True)
    )


def named_pattern(
    detector: Detector,
    setting: DataSet,
    index: NDArray[np.int32],
    photons: NDArray[np.float32],
) -> Pattern:
    """Return a pattern of a data set from its pixels, spots found and their resolution named.

    Args:
        detector: the array that the pixels lie on.
        setting: camera length and photon energy.
        index: int32, flat pixels, ascending, each once.
        photons: float32, expected photons of each.
    """
    spots = find_spots(detector.shape, index, photons)
    d_A = detector.d_A(spots.fs, spots.ss, setting.clen_m, setting.photon_energy_eV)
    return Pattern(detector.shape, index, photons, replace(spots, d_A=d_A.astype(np.float32)))


def spot_sigma_px(divergence_mrad: float, clen_m: float, pixel_size_m: float = 75e-6) -> float:
    """Return the Gaussian sigma in pixels of a spot of a beam of this divergence (FWHM).

    2 mrad gives 1.7, 2.8 and 4.0 px at 0.15, 0.25 and 0.35 m with 75 um pixels.
    """
    fwhm_px = divergence_mrad * 1e-3 * clen_m / pixel_size_m
    return fwhm_px / float(np.sqrt(8 * np.log(2)))


def gaussian_pixels(
    offset_px: NDArray[np.floating], sigma_px: NDArray[np.floating], reach_px: int
) -> NDArray[np.float32]:
    """Return the share of a Gaussian in each of 2 * reach_px + 1 pixels: float32 (n, pixels).

    Args:
        offset_px: (n,), where the Gaussian lies from the centre of the middle pixel.
        sigma_px: (n,) or (1,), its sigma; 0 puts everything in the middle pixel.
        reach_px: pixels on each side; what lies beyond is scaled back, so each row sums to 1.
    """
    edges = np.arange(-reach_px - 0.5, reach_px + 1)
    scale = np.sqrt(2) * np.maximum(sigma_px, 1e-6)
    shares = np.diff(erf((edges[None, :] - offset_px[:, None]) / scale[:, None]), axis=1)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)


def widen(pattern: Pattern, sigma_px: float) -> Pattern:
    """Blur a pattern by a Gaussian of `sigma_px` pixels; its total stays, but at the edges.

    Spots keep their place and photons: two reflections that run together stay two.
    """
    if sigma_px <= 0:
        return pattern
    reach = int(np.ceil(REACH_SIGMA * sigma_px + 0.5))
    shares = gaussian_pixels(np.zeros(1), np.array([sigma_px]), reach)[0]
    steps = np.arange(-reach, reach + 1)
    ss, fs = np.divmod(pattern.index, np.int32(pattern.shape[1]))
    photons = pattern.photons[:, None, None] * shares[:, None] * shares[None, :]
    all_ss = np.broadcast_to(ss[:, None, None] + steps[:, None], photons.shape)
    all_fs = np.broadcast_to(fs[:, None, None] + steps[None, :], photons.shape)
    return gather(pattern.shape, all_ss.ravel(), all_fs.ravel(), photons.ravel(), pattern.spots)


def place(
    pattern: Pattern,
    shape: tuple[int, int],
    shift_px: tuple[int, int],
    flip: tuple[bool, bool] = (False, False),
) -> Pattern:
    """Turn a pattern over, then move it by whole pixels on to an array of another shape.

    Args:
        shape: (ss, fs) of the new array.
        shift_px: (ss, fs) added to every position after the flip.
        flip: (ss, fs): mirror along an axis about the middle of the old array; both together
            are a rotation by 180 degrees. A mirrored pattern is that of the mirrored lattice.
    """
    ss, fs = np.divmod(pattern.index, np.int32(pattern.shape[1]))
    spot_ss, spot_fs = pattern.spots.ss, pattern.spots.fs
    if flip[0]:
        ss, spot_ss = pattern.shape[0] - 1 - ss, pattern.shape[0] - 1 - spot_ss
    if flip[1]:
        fs, spot_fs = pattern.shape[1] - 1 - fs, pattern.shape[1] - 1 - spot_fs
    spots = replace(
        pattern.spots,
        ss=(spot_ss + np.float32(shift_px[0])).astype(np.float32),
        fs=(spot_fs + np.float32(shift_px[1])).astype(np.float32),
    )
    return gather(shape, ss + shift_px[0], fs + shift_px[1], pattern.photons, spots)
