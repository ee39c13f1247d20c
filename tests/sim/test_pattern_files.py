"""Patterns read from files are those that were made, and what is no pattern file is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from hitfinder.sim.pattern_files import read_patterns
from hitfinder.sim.patterns import shipped_patterns
from hitfinder.sim.physics import SimulationError

SHAPE = (40, 30)


def write_sparse(path: Path, n_photons: float = 3e8, dataset: int = 5) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset=dataset, nphotons=n_photons, n_rows_ss=40, n_cols_fs=30)
        frames = file.create_group("size_10000nm")
        frames["index"] = np.array([31, 32, 700, 901], np.uint32)
        frames["photons"] = np.array([4.0, 2.0, 5e-4, 7.0], np.float32)
        frames["indptr"] = np.array([0, 3, 4])


def write_image(path: Path, image: np.ndarray, **attributes: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = image
        file.attrs.update(attributes)


def test_the_files_of_the_shipped_patterns_give_the_shipped_patterns(shared: Path) -> None:
    read = read_patterns(shared / "data/pattern_sim/peaks_02.h5")["02"]
    for mine, shipped in zip(read, shipped_patterns("02"), strict=True):
        assert np.array_equal(mine.index, shipped.index)
        assert np.array_equal(mine.photons, shipped.photons)
        assert np.array_equal(mine.spots.photons, shipped.spots.photons)
        assert np.array_equal(mine.spots.d_A, shipped.spots.d_A)


def test_a_folder_gives_every_data_set_that_it_has(tmp_path: Path) -> None:
    write_sparse(tmp_path / "peaks_05.h5")
    write_sparse(tmp_path / "peaks_09.h5", dataset=9)
    read = read_patterns(tmp_path)
    assert list(read) == ["05", "09"]
    first, second = read["05"]
    assert first.index.tolist() == [31, 32]  # the third pixel is below the cut
    assert first.spots.photons.tolist() == [6.0]
    assert second.total == 7.0


def test_patterns_of_another_flux_are_scaled_to_3e8(tmp_path: Path) -> None:
    write_sparse(tmp_path / "peaks_05.h5", n_photons=3e7)
    assert read_patterns(tmp_path / "peaks_05.h5")["05"][1].total == pytest.approx(70)


def test_a_tree_gives_its_peaks_without_its_blanks(tmp_path: Path) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[10, 5:7] = 4.0
    peaks = tmp_path / "images/peaks/03"
    write_image(peaks / "img_8keV_clen01_00001.h5", image, peak=True, n_photons=3e8)
    write_image(peaks / "img_8keV_clen01_00002.h5", image, peak=True, n_photons=6e8)
    write_image(peaks / "empty_peak_03_00001.h5", np.zeros(SHAPE, np.float32), peak=False)
    for top in (tmp_path, tmp_path / "images"):
        read = read_patterns(top)
        assert list(read) == ["03"]
        assert [p.total for p in read["03"]] == [8.0, 4.0]
        assert read["03"][0].spots.fs.tolist() == [5.5]


def test_what_is_no_pattern_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="no such file"):
        read_patterns(tmp_path / "absent")
    with pytest.raises(SimulationError, match="none found"):
        read_patterns(tmp_path)
    text = tmp_path / "peaks_01.h5"
    text.write_text("not HDF5")
    with pytest.raises(SimulationError, match="peaks_01"):
        read_patterns(tmp_path)
    write_sparse(text, dataset=12)
    with pytest.raises(SimulationError, match="'12'"):
        read_patterns(tmp_path)
    with h5py.File(text, "a") as file:
        file.attrs["dataset"] = 1
        del file["size_10000nm/indptr"]
        file["size_10000nm/indptr"] = np.array([0, 3])
    with pytest.raises(SimulationError, match="cut off"):
        read_patterns(text)


def test_a_tree_file_that_is_not_one_image_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "peaks/01/img_6keV_clen01_00001.h5"
    write_image(place, np.full(SHAPE, -1.0, np.float32))
    with pytest.raises(SimulationError, match="none negative"):
        read_patterns(tmp_path)
    write_image(place, np.zeros((2, *SHAPE), np.float32))
    with pytest.raises(SimulationError, match="one \\(ss, fs\\) image"):
        read_patterns(tmp_path)
