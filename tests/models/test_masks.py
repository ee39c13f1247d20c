"""Masks from headers, images and files."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from hitfinder.models.errors import GeometryError
from hitfinder.models.masks import read_mask_file, valid_from_gap_value, valid_from_pixel_mask

GOOD = np.ones((6, 8), np.bool_)
GOOD[2, 3] = False


def test_any_bad_bit_takes_a_pixel_away_and_virtual_pixels_stay():
    mask = np.array([[0, 1, 2, 16, 256, 1 << 31]], np.uint32)
    assert valid_from_pixel_mask(mask).tolist() == [[True, False, False, False, False, True]]


def test_the_largest_value_of_the_type_is_a_gap():
    image = np.array([[0, 255, 65535]], np.uint16)
    assert valid_from_gap_value(image).tolist() == [[True, True, False]]


@pytest.mark.parametrize("stored", [GOOD, GOOD.astype(np.uint8), (~GOOD).astype(np.uint32) * 4])
def test_booleans_crystfel_ones_and_detector_bits_mean_the_same(tmp_path: Path, stored):
    np.save(tmp_path / "mask.npy", stored)
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["my/mask"] = stored if stored.dtype != np.bool_ else stored.astype("u1")
    for name in ("mask.npy", "mask.h5:/my/mask"):
        assert (read_mask_file(tmp_path / name, GOOD.shape) == GOOD).all()


def test_a_mask_that_does_not_fit_or_is_not_there_is_refused(tmp_path: Path):
    np.save(tmp_path / "mask.npy", GOOD)
    np.save(tmp_path / "float.npy", GOOD * 1.5)
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "text.h5").write_text("not hdf5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name, says in (
        ("mask.npy", "expected"),
        ("float.npy", "float64"),
        ("text.npy", "not a .npy"),
        ("text.h5", "not an HDF5"),
        ("empty.h5", "after a colon"),
        ("none.h5", "no such file"),
    ):
        shape = (6, 9) if name == "mask.npy" else GOOD.shape
        with pytest.raises(GeometryError, match=says):
            read_mask_file(tmp_path / name, shape)
