"""The generator follows pattern_sim's model: positions, flux and integrals are the same."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from hitfinder.sim.crystal import Beam, bragg_pattern
from hitfinder.sim.physics import R_E_M, Detector, SimulationError, data_sets, wavelength_A
from hitfinder.sim.reflections import (
    Crystal,
    orient,
    random_crystal,
    random_quaternion,
    read_crystal,
)

# pattern_sim takes n wavelengths at (i + 1) / (n + 1) of the band, and 4 x 4 points of a pixel at
# its first, second, third and last quarter's start.
BAND_STEPS = (np.arange(7) + 1) / 8 - 0.5
PIXEL_STEPS = np.arange(4) / 4


@pytest.fixture(scope="module")
def protein() -> Crystal:
    return read_crystal()


class Recorded:
    """One noise-free frame of the recorded data set."""

    def __init__(self, shared: Path, name: str, group: str, frame: int) -> None:
        with h5py.File(shared / f"data/pattern_sim/peaks_{name}.h5") as file:
            frames = file[group]
            begin, end = frames["indptr"][frame : frame + 2]
            self.index = frames["index"][begin:end].astype(np.int64)
            self.photons = frames["photons"][begin:end].astype(float)
            self.quaternion = frames["quaternion_wxyz"][frame]
            self.axes_inv_A = frames["reciprocal_axes_inv_m"][frame].astype(float) * 1e-10
        setting = data_sets()[name]
        self.beam = Beam(setting.photon_energy_eV, setting.clen_m)

    def brightest(
        self, n: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        chosen = np.argsort(-self.photons)[:n]
        ss, fs = np.divmod(self.index[chosen], 2068)
        return ss, fs, self.photons[chosen]

    def lines(self) -> list[Beam]:
        """The seven single energies that pattern_sim samples the band at."""
        energies = self.beam.photon_energy_eV * (1 + self.beam.bandwidth * BAND_STEPS)
        return [Beam(float(e), self.beam.clen_m, 0.0, n_photons=3e8 / 7) for e in energies]


def sampled_like_pattern_sim(
    crystal: Crystal, seen: Recorded, ss: NDArray[np.int64], fs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Expected photons of some pixels by pattern_sim's sampling, from our F2, axes and flux."""
    f2 = np.zeros((161, 161, 161))
    f2[tuple(crystal.hkl.astype(int).T + 80)] = crystal.f2
    n_cells = np.floor(1e5 / np.array(crystal.lengths_A))
    grid = np.arange(1, 4096) / 4096
    # It interpolates the lattice amplitude between 4096 points of a cell.
    tables = [
        np.concatenate([[n], np.abs(np.sin(np.pi * n * grid) / np.sin(np.pi * grid)), [n]])
        for n in n_cells
    ]
    total = np.zeros(len(ss))
    for step_ss in PIXEL_STEPS:
        for step_fs in PIXEL_STEPS:
            ray = np.stack([(fs + step_fs - 1034) * 75e-6, (ss + step_ss - 1081) * 75e-6], axis=1)
            ray = np.column_stack([ray, np.full(len(ss), seen.beam.clen_m)])
            ray /= np.linalg.norm(ray, axis=1, keepdims=True)
            for line in seen.lines():
                q = (ray - [0, 0, 1]) / wavelength_A(line.photon_energy_eV)
                h = q @ np.linalg.inv(seen.axes_inv_A)
                nearest = np.rint(h)
                inside = (h - nearest) % 1 * 4096
                amplitudes = [
                    np.interp(inside[:, axis], np.arange(4097), tables[axis]) for axis in range(3)
                ]
                total += np.prod(amplitudes, axis=0) ** 2 * f2[tuple(nearest.astype(int).T + 80)]
    x, y = (fs + 0.5 - 1034) * 75e-6, (ss + 0.5 - 1081) * 75e-6
    solid_angle = 75e-6**2 * seen.beam.clen_m / np.hypot(np.hypot(x, y), seen.beam.clen_m) ** 3
    return total / 7 / 16 * solid_angle * seen.beam.fluence_per_m2 * R_E_M**2


@pytest.mark.parametrize("name", ["01", "05", "09"])
def test_sampled_its_way_our_model_gives_pattern_sims_pixels(
    shared: Path, protein: Crystal, name: str
) -> None:
    seen = Recorded(shared, name, "size_10000nm", 1)
    ss, fs, photons = seen.brightest(200)
    ratio = sampled_like_pattern_sim(protein, seen, ss, fs) / photons
    assert np.median(ratio) == pytest.approx(1, abs=0.01)
    # A tenth of a pixel's float32 rounding in h moves the sharpest by some per cent.
    assert np.percentile(ratio, [5, 95]) == pytest.approx([1, 1], abs=0.12)


def test_orientations_are_turned_as_pattern_sim_turns_them(shared: Path, protein: Crystal) -> None:
    for frame in range(8):
        seen = Recorded(shared, "02", "size_10000nm", frame)
        assert np.allclose(orient(protein, seen.quaternion), seen.axes_inv_A, atol=3e-8)


@pytest.mark.parametrize("name", list(data_sets()))
def test_brightest_pixels_are_where_we_put_spots_at_the_same_energies(
    shared: Path, protein: Crystal, name: str
) -> None:
    distance_px = []
    for frame in range(3):
        seen = Recorded(shared, name, "size_10000nm", frame)
        spots = [
            bragg_pattern(protein, Detector(), line, seen.quaternion).spots
            for line in seen.lines()
        ]
        our_fs = np.concatenate([s.fs for s in spots])
        our_ss = np.concatenate([s.ss for s in spots])
        for ss, fs, photons in zip(*seen.brightest(10), strict=True):
            if photons >= 3:
                distance_px.append(np.hypot(our_fs - fs, our_ss - ss).min())
    assert np.median(distance_px) < 0.5
    assert np.mean(np.array(distance_px) < 1.5) > 0.95


@pytest.mark.parametrize("name", ["01", "02", "03"])
def test_totals_agree_where_the_peaks_are_wide_enough_to_be_sampled(
    shared: Path, protein: Crystal, name: str
) -> None:
    # A 1 um crystal scatters 6-27 photons; a thousandfold pulse keeps its spots above the cut.
    ratios = []
    for frame in range(8):
        seen = Recorded(shared, name, "size_1000nm", frame)
        strong = Beam(seen.beam.photon_energy_eV, seen.beam.clen_m, n_photons=3e12)
        pattern = bragg_pattern(protein, Detector(), strong, seen.quaternion, 1.0)
        ratios.append(pattern.total / 1e4 / seen.photons.sum())
    assert np.median(ratios) == pytest.approx(1, abs=0.06)
    assert max(ratios) < 1.25
    assert min(ratios) > 0.75


def one_reflection(f2: float) -> Crystal:
    """A cubic cell of 60 A with a single reflection, 12 0 0."""
    return Crystal(
        reciprocal_inv_A=np.eye(3) / 60,
        volume_A3=60.0**3,
        lengths_A=(60.0, 60.0, 60.0),
        hkl=np.array([[12, 0, 0]], np.int16),
        f2=np.array([f2], np.float32),
        g_inv_A=np.array([0.2], np.float32),
    )


# A single energy far off the peak is left out: there the fringes of a block's three edges beat.
@pytest.mark.parametrize(
    ("bandwidth", "off_degree"),
    [(0.0, 0.0), (0.0, 0.05), *((b, off) for b in (0.01, 0.05) for off in (0.0, 0.05, -0.3))],
)
def test_a_spots_photons_are_the_integral_of_the_blocks_transform(
    bandwidth: float, off_degree: float
) -> None:
    energy_eV, size_A, n = 7000.0, 3000.0, 50
    k = 1 / wavelength_A(energy_eV)
    tilt = np.arcsin(0.2 / (2 * k)) + np.radians(off_degree)
    quaternion = np.array([np.cos(tilt / 2), 0, -np.sin(tilt / 2), 0])
    crystal = one_reflection(1e12)
    axes = orient(crystal, quaternion)
    if axes[0, 2] > 0:
        quaternion[2] *= -1
        axes = orient(crystal, quaternion)
    beam = Beam(energy_eV, 0.1, bandwidth)
    ours = bragg_pattern(crystal, Detector(), beam, quaternion, size_A * 1e-4).total

    middle = 12 * axes[0] + [0, 0, k]
    middle /= np.linalg.norm(middle)
    across = np.cross(middle, [0, 1, 0])
    across /= np.linalg.norm(across)
    # The transform has no detail finer than 1 / size, so this grid integrates it without error.
    step = np.arange(-150, 151) * 0.4 / size_A / k
    along_y, along_x = np.meshgrid(step, step, indexing="ij")
    ray = middle + along_x[..., None] * across + along_y[..., None] * np.array([0.0, 1.0, 0.0])
    ray /= np.linalg.norm(ray, axis=2, keepdims=True)
    energies = 1 + bandwidth * (np.linspace(-0.5, 0.5, 61) if bandwidth else np.zeros(1))
    transform = 0.0
    for factor in energies:
        h = k * factor * (ray - [0, 0, 1]) @ np.linalg.inv(axes) - [12, 0, 0] + 1e-9
        block = np.prod(np.sin(np.pi * n * h) / np.sin(np.pi * h), axis=2) ** 2
        # Beyond half a cell it is the next reflection's.
        transform += np.mean(block * (np.abs(h) < 0.5).all(axis=2))
    window_sr = (len(step) * (step[1] - step[0])) ** 2
    expected = beam.fluence_per_m2 * R_E_M**2 * 1e12 * transform / len(energies) * window_sr
    assert ours == pytest.approx(expected, rel=0.15)


def test_photons_grow_with_flux_and_with_the_crystals_volume(protein: Crystal) -> None:
    turns = [random_quaternion(np.random.default_rng(n)) for n in range(6)]

    def total(n_photons: float, crystal_um: float) -> float:
        beam = Beam(7000, 0.15, n_photons=n_photons)
        return sum(bragg_pattern(protein, Detector(), beam, q, crystal_um).total for q in turns)

    assert total(3e9, 10) == pytest.approx(10 * total(3e8, 10), rel=0.01)
    assert total(3e8, 20) == pytest.approx(8 * total(3e8, 10), rel=0.15)


def test_divergence_widens_spots_and_excites_more_with_the_same_photons(protein: Crystal) -> None:
    turns = [random_quaternion(np.random.default_rng(n)) for n in range(12)]
    sharp = [bragg_pattern(protein, Detector(), Beam(7000, 0.15), q) for q in turns]
    wide_beam = Beam(7000, 0.15, divergence_mrad=2.0)
    wide = [bragg_pattern(protein, Detector(), wide_beam, q) for q in turns]
    assert np.median([p.photons.max() / p.total for p in wide]) < 0.02
    assert sum(p.total for p in wide) == pytest.approx(sum(p.total for p in sharp), rel=0.3)
    n_sharp, n_wide = (sum((p.spots.photons >= 3).sum() for p in ps) for ps in (sharp, wide))
    assert n_wide > 1.5 * n_sharp


def test_spots_have_the_resolution_of_their_place(protein: Crystal) -> None:
    detector = Detector()
    pattern = bragg_pattern(protein, detector, Beam(7000, 0.25), np.array([0.3, 0.1, -0.8, 0.5]))
    # Low orders may show off their place, where a rod cuts the sphere.
    bright = pattern.spots[(pattern.spots.photons > 3) & (pattern.spots.d_A < 10)]
    d_A = detector.d_A(bright.fs, bright.ss, 0.25, 7000)
    assert len(bright) > 5
    assert np.allclose(d_A / bright.d_A, 1, atol=0.02)


def test_a_made_up_crystal_has_its_groups_symmetry_and_absences() -> None:
    crystal = random_crystal((40, 50, 60, 90, 90, 90), "P 21 21 21", d_min_A=4.0, seed=3)
    f2 = {tuple(h): value for h, value in zip(crystal.hkl.tolist(), crystal.f2, strict=True)}
    assert f2[2, 3, 4] == f2[-2, -3, 4] == f2[-2, -3, -4] == f2[2, -3, 4]
    assert (3, 0, 0) not in f2
    assert (4, 0, 0) in f2
    assert np.all(np.diff(crystal.g_inv_A) >= 0)
    again = random_crystal((40, 50, 60, 90, 90, 90), "P 21 21 21", d_min_A=4.0, seed=3)
    assert np.array_equal(again.f2, crystal.f2)


def test_a_triclinic_crystal_of_another_size_gives_a_pattern_too() -> None:
    crystal = random_crystal((30, 45, 70, 80, 95, 105), "P 1", d_min_A=3.0)
    beam = Beam(9000, 0.12, bandwidth=0.03, divergence_mrad=1.0)
    pattern = bragg_pattern(crystal, Detector((512, 512), 300e-6), beam, np.ones(4), 15.0)
    assert pattern.total > 100
    assert pattern.index.max() < 512 * 512


def test_a_cell_that_its_space_group_does_not_allow_is_refused() -> None:
    with pytest.raises(SimulationError, match="P 43 21 2"):
        random_crystal((40, 50, 60, 90, 90, 90), "P 43 21 2")
    with pytest.raises(SimulationError, match="no such"):
        random_crystal((40, 50, 60, 90, 90, 90), "no such")


def test_a_crystal_without_size_is_refused(protein: Crystal) -> None:
    with pytest.raises(SimulationError, match="crystal size"):
        bragg_pattern(protein, Detector(), Beam(7000, 0.15), np.ones(4), 0.0)
