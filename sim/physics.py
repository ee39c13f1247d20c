"""The experiment in numbers: detector, data sets, and the water every frame is drawn from.

One rule: coordinates are (fs, ss) pixels from the array's corner for the beam centre, as in the
detector's header, so pixel 0 covers 0 to 1 and has its centre at 0.5; arrays are (ss, fs).
Water: photons x thickness x n_water x r_e^2 x solid angle x polarisation x F2(q), with F2 the
radial table of reborn (Hura 2003, Clark 2010) at 298 K; a single shot, never a sum of shots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from hitfinder import HitfinderError

HC_EV_A = 12398.41984
R_E_M = 2.8179403262e-15
WATER_PER_M3 = 33.3679e27
PULSE_PHOTONS = 3e8
JET_THICKNESS_M = 100e-6
# Water's radial table in equal steps of r^2: a step changes the mean by less than 1e-4.
RADIAL_STEPS = 32768
# Above this many expected photons a pixel a frame is drawn pixel by pixel, not photon by photon.
DENSE_PHOTONS_PER_PX = 0.25

# So many candidates at a time stay in the cache while they are thinned.
CACHED_CANDIDATES = 16384


class SimulationError(HitfinderError):
    """The simulator was asked for something it cannot make (operator)."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """One of the nine settings of the seed's report: camera length x photon energy."""

    name: str
    clen_m: float
    photon_energy_eV: float


def data_sets() -> dict[str, DataSet]:
    """Return the nine data sets by name, "01" to "09"."""
    settings = ((clen_m, keV) for clen_m in (0.15, 0.25, 0.35) for keV in (6, 7, 8))
    names = (f"{n:02d}" for n in range(1, 10))
    return {
        name: DataSet(name, clen_m, keV * 1000.0)
        for name, (clen_m, keV) in zip(names, settings, strict=True)
    }


def wavelength_A(photon_energy_eV: float) -> float:
    """Return the wavelength in Angstrom of photons of an energy in eV."""
    return HC_EV_A / photon_energy_eV


@dataclass(frozen=True, slots=True)
class ModuleGrid:
    """How modules tile an array: size of a module and of the gap after it, in pixels."""

    rows: int
    cols: int
    gap_rows: int
    gap_cols: int


EIGER2_MODULES = ModuleGrid(rows=512, cols=1028, gap_rows=38, gap_cols=12)
EIGER_X_MODULES = ModuleGrid(rows=514, cols=1030, gap_rows=37, gap_cols=10)


@dataclass(frozen=True)
class Detector:
    """A pixel array detector; by default the EIGER2 4M.

    A smaller array (for quick tests) has gaps only where they fall on it: 512 x 512 has none.

    Attributes:
        shape: (ss, fs) pixels.
        pixel_size_m: edge of a square pixel.
        beam_center_px: (fs, ss) from the array's corner; None means the middle of the array.
        modules: where the gaps are.
    """

    shape: tuple[int, int] = (2162, 2068)
    pixel_size_m: float = 75e-6
    beam_center_px: tuple[float, float] | None = None
    modules: ModuleGrid = EIGER2_MODULES

    @property
    def center_px(self) -> tuple[float, float]:
        """Beam centre (fs, ss) in pixels from the corner, also where none was given."""
        return self.beam_center_px or (self.shape[1] / 2, self.shape[0] / 2)

    @cached_property
    def gap_mask(self) -> NDArray[np.bool_]:
        """Bool (ss, fs): True on the gaps between modules."""
        m = self.modules
        rows = np.arange(self.shape[0]) % (m.rows + m.gap_rows) >= m.rows
        cols = np.arange(self.shape[1]) % (m.cols + m.gap_cols) >= m.cols
        return rows[:, None] | cols[None, :]

    @cached_property
    def gap_index(self) -> NDArray[np.intp]:
        """Flat index (ss * n_fs + fs) of every gap pixel, ascending."""
        return np.flatnonzero(self.gap_mask)

    def d_A(
        self, fs: NDArray[np.floating], ss: NDArray[np.floating], clen_m: float, energy_eV: float
    ) -> NDArray[np.float64]:
        """Return the resolution d in Angstrom at pixel indices (centre of the first pixel 0.0)."""
        center_fs, center_ss = self.center_px
        radius_px = np.hypot(fs + 0.5 - center_fs, ss + 0.5 - center_ss)
        two_theta = np.arctan2(radius_px * self.pixel_size_m, clen_m)
        sin_theta = np.maximum(np.sin(two_theta / 2), 1e-9)
        return np.asarray(wavelength_A(energy_eV) / (2 * sin_theta), dtype=np.float64)


def water_form_factor() -> CubicSpline:
    """Return F2(q), electrons^2 a molecule, over q = 4 pi sin(theta) / lambda in 1/A."""
    with (
        files("hitfinder.sim").joinpath("data/water_f2.npz").open("rb") as stored,
        np.load(stored) as table,
    ):
        return CubicSpline(table["q_inv_A"], table["f2_e2_per_molecule"])


@dataclass(frozen=True, slots=True, eq=False)
class WaterField:
    """Expected water photons of every pixel as separable pieces, so that no image is needed.

    The mean at (ss, fs) is `radial[x2[fs] + y2[ss]]` times the polarisation; x2, y2 and
    `clen2` are squared lengths in steps of the radial table. Build it with `water_field`.
    """

    x2: NDArray[np.float32]
    y2: NDArray[np.float32]
    clen2: float
    radial: NDArray[np.float32]
    horizontal: float

    @property
    def bound(self) -> float:
        """No pixel's mean is above this, in photons."""
        return float(self.radial.max())

    def at(self, x2: NDArray[np.float32], y2: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean in photons where the squared distances are (x2, y2), broadcast."""
        r2 = x2 + y2
        h = self.horizontal
        field = x2 if h == 1 else h * x2 + (1 - h) * y2
        polarised = 1 - field / (r2 + np.float32(self.clen2))
        # No index lies outside; to clip is the fastest way to look up.
        radial = self.radial.take(r2.astype(np.int32), mode="clip")
        return np.asarray(radial * polarised, dtype=np.float32)

    def mean(self) -> NDArray[np.float32]:
        """Return the mean image, float32 (ss, fs), photons a pixel a shot, gaps not masked."""
        return self.at(self.x2[None, :], self.y2[:, None])

    def draw(self, rng: np.random.Generator) -> NDArray[np.int32] | None:
        """Draw one Poisson frame as the flat pixel index of every photon, in no order.

        Candidates fall evenly on the array at the highest mean and stay with the ratio of the
        local mean to it (thinning of a Poisson process, exact). Returns None where the frame is so
        bright that drawing pixel by pixel from `mean()` is cheaper.
        """
        n_ss, n_fs = len(self.y2), len(self.x2)
        bound = self.bound
        if bound > DENSE_PHOTONS_PER_PX:
            return None
        n = int(rng.poisson(bound * n_ss * n_fs))
        all_fs = rng.integers(0, n_fs, n, dtype=np.uint16)
        all_ss = rng.integers(0, n_ss, n, dtype=np.uint16)
        level = rng.random(n, dtype=np.float32)
        level *= np.float32(bound)
        kept = [np.zeros(0, np.int32)]
        for begin in range(0, n, CACHED_CANDIDATES):
            part = slice(begin, begin + CACHED_CANDIDATES)
            fs, ss = all_fs[part], all_ss[part]
            mean = self.at(self.x2.take(fs, mode="clip"), self.y2.take(ss, mode="clip"))
            keep = np.flatnonzero(level[part] < mean)
            kept.append(ss[keep].astype(np.int32) * np.int32(n_fs) + fs[keep])
        return np.concatenate(kept)


def water_field(
    detector: Detector,
    photon_energy_eV: float,
    clen_m: float,
    n_photons: float = PULSE_PHOTONS,
    thickness_m: float = JET_THICKNESS_M,
    beam_center_px: tuple[float, float] | None = None,
    horizontal_polarization: float = 1.0,
    form_factor: CubicSpline | None = None,
) -> WaterField:
    """Prepare the mean water scattering of one shot on a detector.

    Args:
        detector: shape and pixel size.
        photon_energy_eV: photon energy.
        clen_m: camera length.
        n_photons: photons in the pulse.
        thickness_m: water along the beam.
        beam_center_px: (fs, ss) from the corner; the detector's own by default.
        horizontal_polarization: share of the beam polarised along fs, 0 to 1.
        form_factor: `water_form_factor()`, for callers who need many fields; read if None.

    Raises:
        SimulationError: an energy, camera length, flux or thickness that is not positive.
    """
    if min(photon_energy_eV, clen_m) <= 0 or min(n_photons, thickness_m) < 0:
        raise SimulationError(
            f"energy {photon_energy_eV} eV, clen {clen_m} m, {n_photons} photons, thickness "
            f"{thickness_m} m; expected positive values"
        )
    center_fs, center_ss = beam_center_px or detector.center_px
    x_m = (np.arange(detector.shape[1]) + 0.5 - center_fs) * detector.pixel_size_m
    y_m = (np.arange(detector.shape[0]) + 0.5 - center_ss) * detector.pixel_size_m
    r2_max = np.max(x_m**2) + np.max(y_m**2)
    step_m2 = r2_max / (RADIAL_STEPS - 1)
    r2_m2 = (np.arange(RADIAL_STEPS + 1) + 0.5) * step_m2
    R_m = np.sqrt(r2_m2 + clen_m**2)
    sin_theta = np.sqrt((1 - clen_m / R_m) / 2)
    form_factor = form_factor or water_form_factor()
    # The table ends at q = 4 1/A; past it (10 keV below 0.11 m, the corners) F2 is held.
    q_inv_A = np.minimum(4 * np.pi * sin_theta / wavelength_A(photon_energy_eV), form_factor.x[-1])
    solid_angle = detector.pixel_size_m**2 * clen_m / R_m**3
    molecules_per_m2 = thickness_m * WATER_PER_M3
    radial = n_photons * molecules_per_m2 * R_E_M**2 * solid_angle * form_factor(q_inv_A)
    return WaterField(
        x2=(x_m**2 / step_m2).astype(np.float32),
        y2=(y_m**2 / step_m2).astype(np.float32),
        clen2=clen_m**2 / step_m2,
        radial=radial.astype(np.float32),
        horizontal=horizontal_polarization,
    )


def water_mean(
    detector: Detector,
    photon_energy_eV: float,
    clen_m: float,
    n_photons: float = PULSE_PHOTONS,
    thickness_m: float = JET_THICKNESS_M,
    beam_center_px: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Return the mean water image: float32 (ss, fs), photons a pixel a shot, gaps not masked.

    Arguments and errors as `water_field`, the beam fully polarised along fs.
    """
    field = water_field(detector, photon_energy_eV, clen_m, n_photons, thickness_m, beam_center_px)
    return field.mean()
