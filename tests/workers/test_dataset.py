"""A made tree is what the report describes, pairs hold pixel by pixel, and a split has no leak."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.sim.pattern_files import read_patterns
from hitfinder.sim.physics import SimulationError, data_sets
from hitfinder.stream.recordings import open_recording
from hitfinder.workers.dataset import DatasetError, DatasetTree
from hitfinder.workers.dataset_making import TreeOptions, make_tree
from hitfinder.workers.dataset_names import Folder, FrameName

SMALL = TreeOptions(datasets=("02", "05"), patterns="shipped", seed=3, shape=(600, 500))
N_PATTERNS, N_BLANKS = 10, 3


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    assert make_tree(top, SMALL, N_PATTERNS, N_BLANKS) == 2 * (N_PATTERNS + N_BLANKS)
    return top


def test_a_tree_has_the_reports_folders_names_and_attributes(top: Path) -> None:
    for folder in Folder:
        assert sorted(p.name for p in (top / "images" / folder).iterdir()) == ["02", "05"]
    n_of = {folder: len(list((top / "images" / folder / "02").iterdir())) for folder in Folder}
    assert n_of.pop(Folder.WATER) == N_PATTERNS
    assert set(n_of.values()) == {N_PATTERNS + N_BLANKS}
    tree = DatasetTree(top)
    for name in tree.frames:
        setting = data_sets()[name.dataset]
        for folder in Folder:
            with h5py.File(tree.path(name, folder)) as file:
                assert file.attrs["clen"] == setting.clen_m
                assert file.attrs["photon_energy"] == setting.photon_energy_eV
                is_peak = not name.is_blank and folder is not Folder.WATER
                assert bool(file.attrs["peak"]) is is_peak
                assert file["entry/data/data"].shape == SMALL.shape
                assert file["entry/data/data"].id.get_create_plist().get_filter(0)[0] == 32008


def test_an_overlay_is_its_water_plus_poisson_counts_of_its_peaks(top: Path) -> None:
    tree = DatasetTree(top)
    pulls = []
    for name in tree.frames:
        frame = tree.read(name)
        added = frame.overlay.astype(int) - frame.water
        assert added.min() >= 0
        assert not added[frame.peaks == 0].any()
        assert np.array_equal(frame.labels, frame.peaks >= 1)
        if name.is_blank:
            assert not added.any()
            assert not frame.peaks.any()
        else:
            expected = frame.peaks[frame.water < 65535].sum(dtype=float)
            pulls.append((added.sum() - expected) / np.sqrt(expected))
    assert len(pulls) == 2 * N_PATTERNS
    assert abs(np.mean(pulls)) < 4 / np.sqrt(len(pulls))


def test_water_is_drawn_anew_for_each_frame(top: Path) -> None:
    tree = DatasetTree(top)
    waters = {tree.read(name).water.tobytes() for name in tree.frames}
    assert len(waters) == len(tree.frames)


def test_a_tree_cut_short_goes_on_with_the_same_frames(tmp_path: Path, top: Path) -> None:
    told: list[FrameName] = []
    assert make_tree(tmp_path, SMALL, 1) == 2
    (tmp_path / "images/peaks_water_overlay/05/overlay_img_7keV_clen02_00001.h5").unlink()
    assert make_tree(tmp_path, SMALL, 2, processes=2, on_frame=told.append) == 3
    assert len(told) == 4
    mine, whole = DatasetTree(tmp_path), DatasetTree(top)
    for name in mine.frames:
        assert np.array_equal(mine.read(name).overlay, whole.read(name).overlay)


def test_a_tree_is_not_mixed_from_two_sets_of_options(tmp_path: Path) -> None:
    make_tree(tmp_path, SMALL, 1)
    other = TreeOptions(datasets=("02",), patterns="shipped", seed=4, shape=(600, 500))
    with pytest.raises(DatasetError, match="other|name another folder"):
        make_tree(tmp_path, other, 1)


def test_what_cannot_be_made_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="crystal_um"):
        make_tree(tmp_path, TreeOptions(patterns="shipped", crystal_um=5.0), 1)
    with pytest.raises(SimulationError, match="path that exists"):
        make_tree(tmp_path, TreeOptions(patterns=str(tmp_path / "absent")), 1)
    with pytest.raises(DatasetError, match="99999"):
        make_tree(tmp_path, SMALL, 100_000)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        make_tree(tmp_path, SMALL, 1)


def test_a_trees_peaks_are_patterns_of_the_next_tree(tmp_path: Path) -> None:
    full = TreeOptions(("05",), patterns="shipped", n_photons=3e7)
    make_tree(tmp_path / "first", full, 1)
    make_tree(tmp_path / "next", TreeOptions(("05",), patterns=str(tmp_path / "first")), 1)
    first, again = (read_patterns(tmp_path / name)["05"] for name in ("first", "next"))
    assert np.array_equal(again[0].index, first[0].index)
    assert np.allclose(again[0].photons, first[0].photons)


def test_patterns_of_another_array_are_refused(tmp_path: Path, top: Path) -> None:
    with pytest.raises(SimulationError, match=r"\(600, 500\)"):
        make_tree(tmp_path, TreeOptions(("05",), patterns=str(top)), 1)


def test_replay_reads_a_trees_overlays_with_their_truth(top: Path) -> None:
    recording = open_recording(top)
    assert recording.n_frames == 2 * (N_PATTERNS + N_BLANKS)
    assert sum(recording.truth.values()) == 2 * N_PATTERNS
    start = next(iter(recording.messages()))
    assert (start.clen_m, start.photon_energy_eV) == (0.15, 7000.0)
    assert start.beam_center_px == (250, 300)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), fraction=st.floats(0.05, 0.95))
def test_no_pattern_is_on_both_sides_of_a_split(top: Path, seed: int, fraction: float) -> None:
    tree = DatasetTree(top)
    split = tree.split(seed, fraction)
    assert sorted(split.train + split.test) == list(tree.frames)
    sides = [{tree.patterns[name] for name in side} for side in (split.train, split.test)]
    assert not sides[0] & sides[1]
    for dataset in tree.datasets:
        for is_blank in (False, True):
            for side in (split.train, split.test):
                assert any(n.dataset == dataset and n.is_blank is is_blank for n in side)
    assert DatasetTree(top).split(seed, fraction) == split


def test_a_split_keeps_a_fifth_of_the_patterns_and_follows_its_seed(top: Path) -> None:
    tree = DatasetTree(top)
    for dataset in tree.datasets:
        held_out = {tree.patterns[n] for n in tree.split().test if n.dataset == dataset}
        assert len(held_out) == 2 + 1  # of 8 patterns, shown 10 times, and of 3 blanks
    assert len({tree.split(seed) for seed in range(5)}) > 1
    with pytest.raises(DatasetError, match="between 0 and 1"):
        tree.split(test_fraction=1.0)


def test_what_is_no_tree_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="images/peaks"):
        DatasetTree(tmp_path)
    (tmp_path / "images/peaks/01").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no overlay"):
        DatasetTree(tmp_path)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.zeros((2, 3, 4), np.uint16), "one image"),
        (np.zeros((3, 4), "S3"), "of numbers"),
        (np.zeros((3, 4), np.uint16), "make no frame"),
    ],
)
def test_a_file_that_is_no_image_of_its_frame_is_refused_by_name(
    tmp_path: Path, top: Path, image: np.ndarray, match: str
) -> None:
    make_tree(tmp_path, SMALL, 1)
    tree = DatasetTree(tmp_path)
    name = tree.frames[0]
    with h5py.File(tree.path(name, Folder.PEAKS), "r+") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = image
    with pytest.raises(DatasetError, match=match):
        tree.read(name)
    tree.path(name, Folder.PEAKS).write_bytes(b"not HDF5")
    with pytest.raises(DatasetError, match="img_7keV_clen01_00001"):
        tree.read(name)
