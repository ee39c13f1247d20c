"""Names of a tree's files are the report's, and each says what it is a name of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitfinder.sim.physics import data_sets
from hitfinder.workers.dataset_names import Folder, FrameName, mean_water_place, parse_name

frame_names = st.builds(
    FrameName, st.sampled_from(sorted(data_sets())), st.booleans(), st.integers(1, 99999)
)


@given(frame_names, st.sampled_from(Folder))
def test_a_name_says_its_folder_its_data_set_and_its_number(
    name: FrameName, folder: Folder
) -> None:
    place = name.place(folder)
    said = parse_name(place.name)
    assert said is not None
    assert (said.folder, said.dataset, said.frame) == (place.parts[0], place.parts[1], name)


def test_names_are_those_of_the_report() -> None:
    assert FrameName("01", False, 62).file_name(Folder.PEAKS) == "img_6keV_clen01_00062.h5"
    overlay = FrameName("06", False, 26975).file_name(Folder.OVERLAYS)
    assert overlay == "overlay_img_8keV_clen02_26975.h5"
    label = FrameName("08", False, 1).file_name(Folder.LABELS)
    assert label == "label_img_7keV_clen03_00001.h5"
    assert FrameName("09", True, 3).file_name(Folder.PEAKS) == "empty_peak_09_00003.h5"
    assert str(mean_water_place("04")) == "water/04/water04.h5"


@pytest.mark.parametrize(
    "name",
    ["img_9keV_clen01_00001.h5", "img_6keV_clen04_00001.h5", "img_6keV_clen00_00001.h5"]
    + ["water10.h5", "empty_peak_00_00001.h5", "img_6keV_clen01_00001.hdf5"],
)
def test_a_setting_that_no_data_set_has_is_no_name(name: str) -> None:
    assert parse_name(name) is None
