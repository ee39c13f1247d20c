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

from hitfinder.sim.patterns import Pattern, Spots
from hitfinder.sim.physics import PULSE_PHOTONS, R_E_M, Detector, SimulationError, wavelength_A
from hitfinder.sim.reflections import Crystal, orient
from hitfinder.sim.spot_shapes import BraggSpots, render

BEAM_RADIUS_M = 5e-6
BEAM_DIRECTION = np.array([0.0, 0.0, 1.0])
# Reflections fainter than this (photons) are left out: a shot shows none of them.
FAINT_PHOTONS = 0.01
# Spots this far off the array are kept: their wings may reach it.
MARGIN_PX = 64
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
        divergence_ratio: its part along ss over its part along fs; their product stays.
        n_photons: photons in the pulse.
        radius_m: of the disc that they fall on evenly.
    """

    photon_energy_eV: float
    clen_m: float
    bandwidth: float = 0.01
    divergence_mrad: float = 0.0
    divergence_ratio: float = 1.0
    n_photons: float = PULSE_PHOTONS
    radius_m: float = BEAM_RADIUS_M

    @property
    def sigma_rad(self) -> tuple[float, float]:
        """Sigma of the directions along (ss, fs), in radian."""
        sigma, part = fwhm_sigma(self.divergence_mrad * 1e-3), np.sqrt(self.divergence_ratio)
        return float(sigma * part), float(sigma / part)

    @property
    def fluence_per_m2(self) -> float:
        """Photons a square metre."""
        return self.n_photons / (np.pi * self.radius_m**2)


@dataclass(frozen=True, slots=True)
class Block:
    """One crystal: a block of cells, or a mosaic of such blocks.

    Attributes:
        size_um: edge of the block.
        mosaicity_deg: FWHM of the mosaic blocks' tilts; 0 for a perfect crystal.
    """

    size_um: float = 10.0
    mosaicity_deg: float = 0.0

    @property
    def size_A(self) -> float:
        """Edge in Angstrom."""
        return self.size_um * 1e4

    @property
    def tilt_rad(self) -> float:
        """Sigma of the tilts about any axis, in radian."""
        return fwhm_sigma(np.radians(self.mosaicity_deg))


def fwhm_sigma(fwhm: float) -> float:
    """Return the sigma of a Gaussian given by its full width at half maximum."""
    return float(fwhm / np.sqrt(8 * np.log(2)))


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
    block: Block,
    g_max_inv_A: float,
) -> Excitation:
    """Find the reflections up to g_max that some photon of the band can excite."""
    n = int(np.searchsorted(crystal.g_inv_A, g_max_inv_A))
    k_inv_A = 1 / wavelength_A(beam.photon_energy_eV)
    k_first, k_last = k_inv_A * (1 - beam.bandwidth / 2), k_inv_A * (1 + beam.bandwidth / 2)
    tilts_rad = 4 * (max(beam.sigma_rad) + block.tilt_rad)
    margin = TAIL_WIDTHS / block.size_A + g_max_inv_A * tilts_rad
    # On a sphere 2 k g_z + g^2 = 0; this first sieve needs g_z alone, and single precision does.
    rough_z = crystal.hkl[:n].astype(np.float32) @ axes_inv_A[:, 2].astype(np.float32)
    g2_all = np.square(crystal.g_inv_A[:n])
    outside = (rough_z + g2_all * np.float32(0.5 / k_last) > margin) | (
        rough_z + g2_all * np.float32(0.5 / k_first) < -margin
    )
    near = np.flatnonzero(~outside & (g2_all > 0))
    g = crystal.hkl[near] @ axes_inv_A
    g_z, g_xy2 = g[:, 2], g[:, 0] ** 2 + g[:, 1] ** 2
    g2 = g_xy2 + g_z**2
    s_first, s_last = (np.sqrt(g_xy2 + (g_z + k) ** 2) - k for k in (k_first, k_last))
    best = np.clip(g2 / np.maximum(-2 * g_z, 1e-12), k_first, k_last)
    outgoing = g + best[:, None] * BEAM_DIRECTION
    normal = outgoing / np.linalg.norm(outgoing, axis=1, keepdims=True)
    n_cells = block.size_A / np.array(crystal.lengths_A)
    return Excitation(near, g, s_first, s_last, best, normal @ axes_inv_A.T / n_cells)


def _sinc2_below(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the integral of sinc^2 from minus infinity to u: 0 to 1."""
    safe = np.where(np.abs(u) < 1e-9, 1e-9, u)
    sine_integral, _ = sici(2 * np.pi * safe)
    return np.asarray(0.5 + sine_integral / np.pi - np.sin(np.pi * safe) ** 2 / (np.pi**2 * safe))


def _mean_transform_A(excited: Excitation, beam: Beam, block: Block) -> NDArray[np.float64]:
    """Return the block's transform across the sphere, of area 1, averaged over the band: Angstrom.

    A perfect crystal in a parallel beam sees sinc^2; divergence and mosaic tilts make it a
    Gaussian as wide as all of them together.
    """
    block_A, first, last = excited.block_A, excited.s_first_inv_A, excited.s_last_inv_A
    # A band narrower than a thousandth of the transform is one energy; this keeps it finite.
    width = np.maximum(first - last, 1e-3 / block_A)
    middle = (first + last) / 2
    upper, lower = middle + width / 2, middle - width / 2
    if max(beam.sigma_rad) == block.tilt_rad == 0:
        return (_sinc2_below(upper * block_A) - _sinc2_below(lower * block_A)) / width
    g, (along_ss, along_fs) = excited.g_inv_A, beam.sigma_rad
    beams = np.hypot(g[:, 0] * along_fs, g[:, 1] * along_ss)
    tilts = np.linalg.norm(g, axis=1) * block.tilt_rad
    sigma = np.sqrt(beams**2 + tilts**2 + 1 / (2 * np.pi * block_A**2))
    return np.asarray((ndtr(upper / sigma) - ndtr(lower / sigma)) / width)


def spot_photons(
    crystal: Crystal, excited: Excitation, beam: Beam, block: Block
) -> NDArray[np.float64]:
    """Return the expected photons of each excited reflection, over its whole spot and the band."""
    n_cells = float(np.prod(block.size_A / np.array(crystal.lengths_A)))
    integrated = n_cells / crystal.volume_A3 * _mean_transform_A(excited, beam, block)
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


def _shapes(
    excited: Excitation,
    row: NDArray[np.intp],
    outgoing: NDArray[np.float64],
    detector: Detector,
    beam: Beam,
    block: Block,
    radial_stretch: float,
) -> NDArray[np.float64]:
    """Return each spot's covariance in pixels, (n, 3): the beam's, the block's, and the tilts'.

    A tilted block reflects like a tilted mirror: by 2 tilts along the radius, as far as the band
    has an energy for it, and by 2 sin(theta) tilts across.
    """
    scale_px = beam.clen_m / detector.pixel_size_m / outgoing[:, 2]
    across_out = np.hypot(outgoing[:, 0], outgoing[:, 1])
    radial = outgoing[:, :2] / np.maximum(across_out, 1e-12)[:, None]
    k = np.linalg.norm(outgoing, axis=1)
    half_px2 = (scale_px / excited.block_A[row]) ** 2 / (2 * np.pi)
    distance_px = beam.clen_m / detector.pixel_size_m
    sin_theta = np.linalg.norm(outgoing - k[:, None] * BEAM_DIRECTION, axis=1) / (2 * k)
    tan_theta = sin_theta / np.sqrt(1 - sin_theta**2)
    # The band's own spread of angles, as the sigma of a top hat.
    band_rad = 2 * tan_theta * max(beam.bandwidth, 1e-9) / np.sqrt(12)
    tilt_rad = 2 * block.tilt_rad * band_rad / np.hypot(2 * block.tilt_rad, band_rad + 1e-30)
    along_px2 = (tilt_rad * distance_px) ** 2
    aside_px2 = (2 * sin_theta * block.tilt_rad * distance_px) ** 2
    var_ss, var_fs = ((sigma * distance_px) ** 2 for sigma in beam.sigma_rad)
    r_fs, r_ss = radial.T
    ss = var_ss + half_px2 + along_px2 * r_ss**2 + aside_px2 * r_fs**2
    cross = (along_px2 - aside_px2) * r_ss * r_fs
    fs = var_fs + half_px2 + along_px2 * r_fs**2 + aside_px2 * r_ss**2
    if radial_stretch == 1:
        return np.stack([ss, cross, fs], axis=1)
    more = radial_stretch - 1
    t_ss, t_cross, t_fs = 1 + more * r_ss**2, more * r_ss * r_fs, 1 + more * r_fs**2
    return np.stack(
        [
            t_ss**2 * ss + 2 * t_ss * t_cross * cross + t_cross**2 * fs,
            t_ss * t_cross * ss + (t_ss * t_fs + t_cross**2) * cross + t_cross * t_fs * fs,
            t_cross**2 * ss + 2 * t_cross * t_fs * cross + t_fs**2 * fs,
        ],
        axis=1,
    )


def bragg_spots(
    crystal: Crystal,
    detector: Detector,
    beam: Beam,
    quaternion_wxyz: NDArray[np.floating],
    block: Block | None = None,
    beam_center_px: tuple[float, float] | None = None,
    radial_stretch: float = 1.0,
) -> BraggSpots:
    """Compute which spots one crystal shows in one pulse, how bright and how wide.

    Args:
        crystal: cell and |F|^2; reflections beyond its resolution are absent.
        detector: shape and pixel size.
        beam: energy, band, divergence, flux and camera length.
        quaternion_wxyz: orientation (see `orient`).
        block: size and mosaicity; 10 um and perfect by default.
        beam_center_px: (fs, ss) from the corner; the detector's own by default.
        radial_stretch: every spot's width along the radius is this many times its own.

    Returns:
        Spots of at least 0.01 expected photons, on the array or near it.

    Raises:
        SimulationError: a crystal size that is not positive.
    """
    block = block or Block()
    if block.size_um <= 0:
        raise SimulationError(f"crystal size {block.size_um} um; expected a positive size")
    center_px = beam_center_px or detector.center_px
    axes = orient(crystal, quaternion_wxyz)
    excited = _excite(crystal, axes, beam, block, _g_max_inv_A(detector, beam, center_px))
    photons = spot_photons(crystal, excited, beam, block)
    row, point, photons = _split_tails(excited, photons, axes, block.size_A)
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
    shapes = _shapes(excited, row, outgoing, detector, beam, block, radial_stretch)
    near = _near_array(detector, spots)
    return BraggSpots(spots[near], shapes[near])


def _near_array(detector: Detector, spots: Spots) -> NDArray[np.bool_]:
    """Say which spots lie on the array or so near it that their light may fall on it."""
    n_ss, n_fs = detector.shape
    on_ss = (spots.ss > -MARGIN_PX) & (spots.ss < n_ss + MARGIN_PX)
    return np.asarray(on_ss & (spots.fs > -MARGIN_PX) & (spots.fs < n_fs + MARGIN_PX))


def bragg_pattern(
    crystal: Crystal,
    detector: Detector,
    beam: Beam,
    quaternion_wxyz: NDArray[np.floating],
    crystal_um: float = 10.0,
    beam_center_px: tuple[float, float] | None = None,
) -> Pattern:
    """Compute the noise-free Bragg pattern of one perfect crystal in one pulse.

    Returns:
        Expected photons per pixel, gaps not masked; spots of at least 0.01 photons. Arguments
        and errors as `bragg_spots`.
    """
    found = bragg_spots(
        crystal, detector, beam, quaternion_wxyz, Block(crystal_um), beam_center_px
    )
    return render(detector.shape, found)
