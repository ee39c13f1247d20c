"""Bragg patterns of any crystal, without noise: smooth where pattern_sim samples.

One rule: lengths in reciprocal space are 1/A with k = 1/lambda (no 2 pi); the beam runs along +z,
fs along x, ss along y, as in CrystFEL. Model: |F|^2 times the transform of a block of cells
(physics.md), integrated in closed form over the spot and the top-hat band. A reflection gives
fluence r_e^2 F^2 (N / V) / k^2 x (mean of the transform across the sphere over the band) photons,
the Laue formula where the band is wide; what misses the band shows where the rods cut the sphere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, sici

from hitfinder.sim.patterns import Pattern, Spots, gather, gaussian_pixels, spot_sigma_px
from hitfinder.sim.physics import PULSE_PHOTONS, R_E_M, Detector, SimulationError, wavelength_A
from hitfinder.sim.reflections import Crystal, orient

BEAM_RADIUS_M = 5e-6
BEAM_DIRECTION = np.array([0.0, 0.0, 1.0])
# Reflections fainter than this (photons) are left out: a shot shows none of them.
FAINT_PHOTONS = 0.01
# Excitation is looked for this many widths 1/L of the transform beyond the band. Its tail there is
# 1e-6 of the peak, and only the strongest low orders still show.
TAIL_WIDTHS = 200.0


@dataclass(frozen=True, slots=True)
class Beam:
    """One pulse and the distance to the detector.

    Attributes:
        photon_energy_eV: centre of the band.
        clen_m: camera length.
        bandwidth: full relative width of the top hat.
        divergence_mrad: FWHM of the directions in the beam; widens spots and excitation alike.
        n_photons: photons in the pulse.
        radius_m: of the disc that they fall on evenly.
    """

    photon_energy_eV: float
    clen_m: float
    bandwidth: float = 0.01
    divergence_mrad: float = 0.0
    n_photons: float = PULSE_PHOTONS
    radius_m: float = BEAM_RADIUS_M

    @property
    def fluence_per_m2(self) -> float:
        """Photons a square metre."""
        return self.n_photons / (np.pi * self.radius_m**2)


@dataclass(frozen=True, slots=True, eq=False)
class Excitation:
    """Reflections near the Ewald spheres of a band: arrays of one length n, lengths in 1/A.

    Attributes:
        chosen: index into the crystal's reflections.
        g_inv_A: float64 (n, 3), reciprocal vector in the laboratory.
        s_first_inv_A, s_last_inv_A: distance outside the sphere of the lowest and highest energy.
        k_inv_A: 1/lambda within the band that excites the reflection best.
        slopes_inv_A: float64 (n, 3), cells per Angstrom along the sphere's normal over the cells
            in the block, for a, b, c: how fast the block stops overlapping itself. Signed.
    """

    chosen: NDArray[np.intp]
    g_inv_A: NDArray[np.float64]
    s_first_inv_A: NDArray[np.float64]
    s_last_inv_A: NDArray[np.float64]
    k_inv_A: NDArray[np.float64]
    slopes_inv_A: NDArray[np.float64]

    @property
    def block_A(self) -> NDArray[np.float64]:
        """Thickness L of the block along the normal (mean chord): (n,)."""
        return np.asarray(1 / np.abs(self.slopes_inv_A).sum(axis=1))

    @property
    def miss_inv_A(self) -> NDArray[np.float64]:
        """Distance outside the nearest sphere of the band, 0 within the band: (n,)."""
        outside = np.maximum(self.s_last_inv_A, 0.0)
        return outside + np.minimum(self.s_first_inv_A, 0.0)


def _excite(
    crystal: Crystal,
    axes_inv_A: NDArray[np.float64],
    beam: Beam,
    size_A: float,
    g_max_inv_A: float,
) -> Excitation:
    """Find the reflections up to g_max that some photon of the band can excite."""
    n = int(np.searchsorted(crystal.g_inv_A, g_max_inv_A))
    k_inv_A = 1 / wavelength_A(beam.photon_energy_eV)
    k_first, k_last = k_inv_A * (1 - beam.bandwidth / 2), k_inv_A * (1 + beam.bandwidth / 2)
    margin = TAIL_WIDTHS / size_A + g_max_inv_A * 4 * _sigma_rad(beam.divergence_mrad)
    # On a sphere 2 k g_z + g^2 = 0; this first sieve needs g_z alone.
    g_z = crystal.hkl[:n] @ axes_inv_A[:, 2]
    g2 = crystal.g_inv_A[:n].astype(np.float64) ** 2
    outside = (g_z + g2 / (2 * k_last) > margin) | (g_z + g2 / (2 * k_first) < -margin)
    near = np.flatnonzero(~outside & (g2 > 0))
    g = crystal.hkl[near] @ axes_inv_A
    g2, g_z, g_xy2 = g2[near], g[:, 2], g[:, 0] ** 2 + g[:, 1] ** 2
    s_first, s_last = (np.sqrt(g_xy2 + (g_z + k) ** 2) - k for k in (k_first, k_last))
    best = np.clip(g2 / np.maximum(-2 * g_z, 1e-12), k_first, k_last)
    outgoing = g + best[:, None] * BEAM_DIRECTION
    normal = outgoing / np.linalg.norm(outgoing, axis=1, keepdims=True)
    n_cells = size_A / np.array(crystal.lengths_A)
    return Excitation(near, g, s_first, s_last, best, normal @ axes_inv_A.T / n_cells)


def _sigma_rad(divergence_mrad: float) -> float:
    """Return the sigma in radian of a Gaussian divergence given by its FWHM."""
    return divergence_mrad * 1e-3 / float(np.sqrt(8 * np.log(2)))


def _sinc2_below(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the integral of sinc^2 from minus infinity to u: 0 to 1."""
    safe = np.where(np.abs(u) < 1e-9, 1e-9, u)
    sine_integral, _ = sici(2 * np.pi * safe)
    return np.asarray(0.5 + sine_integral / np.pi - np.sin(np.pi * safe) ** 2 / (np.pi**2 * safe))


def _mean_transform_A(excited: Excitation, beam: Beam) -> NDArray[np.float64]:
    """Return the block's transform across the sphere, of area 1, averaged over the band: Angstrom.

    A parallel beam sees sinc^2; a divergent one a Gaussian as wide as both together.
    """
    block, first, last = excited.block_A, excited.s_first_inv_A, excited.s_last_inv_A
    # A band narrower than a thousandth of the transform is one energy; this keeps it finite.
    width = np.maximum(first - last, 1e-3 / block)
    middle = (first + last) / 2
    upper, lower = middle + width / 2, middle - width / 2
    sigma_rad = _sigma_rad(beam.divergence_mrad)
    if sigma_rad == 0:
        return (_sinc2_below(upper * block) - _sinc2_below(lower * block)) / width
    across = np.hypot(excited.g_inv_A[:, 0], excited.g_inv_A[:, 1]) * sigma_rad
    sigma = np.hypot(across, 1 / (np.sqrt(2 * np.pi) * block))
    return np.asarray((ndtr(upper / sigma) - ndtr(lower / sigma)) / width)


def spot_photons(
    crystal: Crystal, excited: Excitation, beam: Beam, size_A: float
) -> NDArray[np.float64]:
    """Return the expected photons of each excited reflection, over its whole spot and the band."""
    n_cells = float(np.prod(size_A / np.array(crystal.lengths_A)))
    integrated = n_cells / crystal.volume_A3 * _mean_transform_A(excited, beam)
    scale = beam.fluence_per_m2 * R_E_M**2
    f2 = crystal.f2[excited.chosen].astype(np.float64)
    return np.asarray(scale * f2 * integrated / excited.k_inv_A**2)


def _split_tails(
    excited: Excitation, photons: NDArray[np.float64], axes_inv_A: NDArray[np.float64], size: float
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Put reflections that miss the band where the sphere cuts their three rods.

    Outside its centre the transform of a block runs along a*, b* and c*; each rod's share is its
    slope's. `size` is the block's edge in Angstrom.

    Returns:
        row of `excited` (m,), point of reciprocal space (m, 3), photons (m,).
    """
    miss, slopes = excited.miss_inv_A, excited.slopes_inv_A
    is_tail = np.abs(miss) > 1 / excited.block_A
    core, tail = np.flatnonzero(~is_tail), np.flatnonzero(is_tail)
    rows, points, parts = [core], [excited.g_inv_A[core]], [photons[core]]
    lengths = np.linalg.norm(np.linalg.inv(axes_inv_A), axis=0)
    for axis in range(3):
        slope = slopes[tail, axis]
        cut = -miss[tail] * lengths[axis] / np.where(slope == 0, 1e-30, slope * size)
        # Beyond half a cell the rod belongs to the next reflection.
        reached = np.abs(cut) < 0.5
        rows.append(tail[reached])
        points.append(excited.g_inv_A[rows[-1]] + cut[reached, None] * axes_inv_A[axis])
        share = np.abs(slope[reached]) * excited.block_A[rows[-1]]
        parts.append(photons[rows[-1]] * share)
    return np.concatenate(rows), np.concatenate(points), np.concatenate(parts)


def _g_max_inv_A(detector: Detector, beam: Beam, center_px: tuple[float, float]) -> float:
    """Return the largest |G| that the band can send to the array's farthest corner."""
    (center_fs, center_ss), (n_ss, n_fs) = center_px, detector.shape
    corner_px = np.hypot(max(center_fs, n_fs - center_fs), max(center_ss, n_ss - center_ss))
    two_theta = np.arctan2(corner_px * detector.pixel_size_m, beam.clen_m)
    k_max = (1 + beam.bandwidth / 2) / wavelength_A(beam.photon_energy_eV)
    return float(2 * k_max * np.sin(two_theta / 2))


def bragg_pattern(
    crystal: Crystal,
    detector: Detector,
    beam: Beam,
    quaternion_wxyz: NDArray[np.floating],
    crystal_um: float = 10.0,
    beam_center_px: tuple[float, float] | None = None,
) -> Pattern:
    """Compute the noise-free Bragg pattern of one crystal in one pulse.

    Args:
        crystal: cell and |F|^2; reflections beyond its resolution are absent.
        detector: shape and pixel size.
        beam: energy, band, divergence, flux and camera length.
        quaternion_wxyz: orientation (see `orient`).
        crystal_um: edge of the block of cells.
        beam_center_px: (fs, ss) from the corner; the detector's own by default.

    Returns:
        Expected photons per pixel, gaps not masked; spots of at least 0.01 photons.

    Raises:
        SimulationError: a crystal size that is not positive.
    """
    if crystal_um <= 0:
        raise SimulationError(f"crystal size {crystal_um} um; expected a positive size")
    size_A, center_px = crystal_um * 1e4, beam_center_px or detector.center_px
    axes = orient(crystal, quaternion_wxyz)
    excited = _excite(crystal, axes, beam, size_A, _g_max_inv_A(detector, beam, center_px))
    photons = spot_photons(crystal, excited, beam, size_A)
    row, point, photons = _split_tails(excited, photons, axes, size_A)
    outgoing = point + excited.k_inv_A[row, None] * BEAM_DIRECTION
    seen = (photons >= FAINT_PHOTONS) & (outgoing[:, 2] > 0)
    row, outgoing = row[seen], outgoing[seen]
    scale_px = beam.clen_m / detector.pixel_size_m / outgoing[:, 2]
    chosen = excited.chosen[row]
    spots = Spots(
        fs=(outgoing[:, 0] * scale_px + center_px[0] - 0.5).astype(np.float32),
        ss=(outgoing[:, 1] * scale_px + center_px[1] - 0.5).astype(np.float32),
        photons=photons[seen].astype(np.float32),
        hkl=crystal.hkl[chosen],
        d_A=(1 / crystal.g_inv_A[chosen]).astype(np.float32),
    )
    beam_px = spot_sigma_px(beam.divergence_mrad, beam.clen_m, detector.pixel_size_m)
    size_px = scale_px / (np.sqrt(2 * np.pi) * excited.block_A[row])
    return render(detector.shape, spots, np.hypot(beam_px, size_px))


def render(shape: tuple[int, int], spots: Spots, sigma_px: NDArray[np.floating]) -> Pattern:
    """Spread spots as Gaussians over the pixels of an array; a sharp spot stays in one pixel.

    Args:
        shape: (ss, fs).
        spots: what to draw.
        sigma_px: (n,), one sigma a spot.
    """
    reach = int(np.ceil(4 * float(sigma_px.max(initial=0.0)) + 0.5))
    at_ss, at_fs = np.rint(spots.ss).astype(np.int64), np.rint(spots.fs).astype(np.int64)
    shares_ss = gaussian_pixels(spots.ss - at_ss, sigma_px, reach)
    shares_fs = gaussian_pixels(spots.fs - at_fs, sigma_px, reach)
    photons = spots.photons[:, None, None] * shares_ss[:, :, None] * shares_fs[:, None, :]
    steps = np.arange(-reach, reach + 1)
    ss = np.broadcast_to((at_ss[:, None] + steps)[:, :, None], photons.shape)
    fs = np.broadcast_to((at_fs[:, None] + steps)[:, None, :], photons.shape)
    return gather(shape, ss.ravel(), fs.ravel(), photons.ravel(), spots)
