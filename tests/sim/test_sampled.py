"""The sampling mode gives the pixels that pattern_sim gave, and files that hold them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from hitfinder.sim import sampled
from hitfinder.sim.crystal import Beam
from hitfinder.sim.patterns import Pattern, find_spots
from hitfinder.sim.physics import Detector, SimulationError, data_sets
from hitfinder.sim.reflections import read_crystal
from hitfinder.sim.sampled import lattice_tables, sampled_pattern, write_set

ROWS, COLS = slice(700, 1400), slice(600, 1500)


@pytest.mark.parametrize("name", ["02", "09"])
def test_it_gives_the_pixels_that_pattern_sim_gave(shared: Path, name: str) -> None:
    setting, crystal = data_sets()[name], read_crystal()
    with h5py.File(shared / f"data/pattern_sim/peaks_{name}.h5") as file:
        frames = file["size_10000nm"]
        begin, end = frames["indptr"][:2]
        recorded = np.zeros(2162 * 2068)
        recorded[frames["index"][begin:end]] = frames["photons"][begin:end]
        quaternion = frames["quaternion_wxyz"][0]
    recorded = recorded.reshape(2162, 2068)[ROWS, COLS]
    window = Detector(recorded.shape, beam_center_px=(1034 - COLS.start, 1081 - ROWS.start))
    beam = Beam(setting.photon_energy_eV, setting.clen_m)
    ours = sampled_pattern(crystal, lattice_tables(crystal), window, beam, quaternion)
    seen = recorded >= 2e-3
    assert seen.sum() > 200
    ratio = ours.dense()[seen] / recorded[seen]
    assert np.median(ratio) == pytest.approx(1, abs=0.01)
    # Orientations are recorded in single precision, which moves the sharpest peaks.
    assert np.mean(np.abs(ratio - 1) < 0.2) > 0.95
    assert ours.total == pytest.approx(recorded.sum(), rel=0.07)


def test_a_crystal_smaller_than_its_cell_is_refused() -> None:
    with pytest.raises(SimulationError, match="at least one cell"):
        lattice_tables(read_crystal(), 0.005)


def test_a_file_of_patterns_has_the_recorded_layout(tmp_path: Path) -> None:
    shape = Detector().shape
    turn = np.array([1.0, 0.0, 0.0, 0.0])
    made = []
    for pixels in ([5, 9], [7]):
        index = np.array(pixels, np.int32)
        photons = np.arange(1, len(pixels) + 1, dtype=np.float32)
        made.append((Pattern(shape, index, photons, find_spots(shape, index, photons)), turn))
    write_set(tmp_path / "peaks_04.h5", "04", made, seed=3)
    with h5py.File(tmp_path / "peaks_04.h5") as file:
        assert file.attrs["dataset"] == 4
        assert (file.attrs["n_rows_ss"], file.attrs["n_cols_fs"]) == shape
        assert file.attrs["nphotons"] == 3e8
        frames = file["size_10000nm"]
        assert frames["indptr"][:].tolist() == [0, 2, 3]
        assert frames["index"][:].tolist() == [5, 9, 7]
        assert frames["photons"][:].tolist() == [1, 2, 1]
        assert frames["quaternion_wxyz"].shape == (2, 4)


def test_the_command_writes_one_file_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled, "Detector", lambda: Detector(shape=(64, 64)))
    sampled.main([str(tmp_path / "out"), "--datasets", "02", "08", "--per-set", "2"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["peaks_02.h5", "peaks_08.h5"]
    with h5py.File(tmp_path / "out/peaks_02.h5") as file:
        turns = file["size_10000nm/quaternion_wxyz"][:]
    assert np.linalg.norm(turns, axis=1) == pytest.approx([1, 1])
    assert not np.allclose(turns[0], turns[1])
