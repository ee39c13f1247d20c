"""The master: NXmx that says where the panel stands and names only files that exist."""

from dataclasses import replace

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that readers need)
import numpy as np
import pytest

from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.nexus import (
    ImageFile,
    RunGeometry,
    combined_mask,
    link_images,
    write_master,
)
from hitfinder.stream.series_folder import SeriesFolder

DETECTOR = "/entry/instrument/detector"


@pytest.fixture
def master(tmp_path, start):
    path = tmp_path / "master.h5"
    mask = np.zeros((64, 48), np.uint32)
    mask[3] = 1
    write_master(
        path,
        start,
        RunGeometry.of_header(start),
        {"version": "0"},
        shape=(64, 48),
        dtype="uint16",
        pixel_mask=mask,
    )
    return path


def text(node):
    return node[()].decode()


def nx_classes(file):
    found = {}
    file.visititems(lambda name, o: found.update({name: o.attrs.get("NX_class")}))
    return {name: c for name, c in found.items() if c}


def test_the_classes_of_nxmx_are_there_once(master):
    with h5py.File(master) as file:
        assert text(file["entry/definition"]) == "NXmx"
        classes = list(nx_classes(file).values())
    for nx_class in (
        "NXentry",
        "NXdata",
        "NXinstrument",
        "NXdetector",
        "NXdetector_module",
        "NXtransformations",
        "NXbeam",
        "NXsample",
    ):
        assert classes.count(nx_class) == 1


def test_header_values_stand_with_their_units(master):
    with h5py.File(master) as file:
        for name, value, units in (
            ("distance", 0.25, "m"),
            ("detector_distance", 0.25, "m"),
            ("beam_center_x", 20.0, "pixel"),
            ("beam_center_y", 30.0, "pixel"),
            ("x_pixel_size", 75e-6, "m"),
            ("sensor_thickness", 450e-6, "m"),
            ("count_time", 0.00099, "s"),
            ("frame_time", 0.001, "s"),
        ):
            assert file[DETECTOR][name][()] == value
            assert file[DETECTOR][name].attrs["units"] == units
        wavelength = file["entry/instrument/beam/incident_wavelength"]
        assert wavelength[()] == pytest.approx(1.7712, abs=1e-4)
        assert wavelength.attrs["units"] == "angstrom"
        assert file[DETECTOR]["saturation_value"][()] == 65534
        assert text(file["entry/sample/depends_on"]) == "."
        assert text(file["entry/start_time"]) == "2026-01-01T00:00:00Z"


def pixel_position(file, fs, ss):
    """Return a pixel's place in the laboratory (m) by following the chain of axes."""
    place = np.zeros(3)
    for name, steps in (("fast_pixel_direction", fs), ("slow_pixel_direction", ss)):
        axis = file[f"{DETECTOR}/module/{name}"]
        place += steps * axis[()] * axis.attrs["vector"]
    node = axis.attrs["depends_on"]
    while node != ".":
        axis = file[node]
        place += axis[()] * axis.attrs["vector"]
        node = axis.attrs["depends_on"]
    return place


def test_the_chain_of_axes_puts_the_beam_centre_on_the_beam(master):
    with h5py.File(master) as file:
        np.testing.assert_allclose(pixel_position(file, 20, 30), [0, 0, 0.25], atol=1e-12)
        # McStas: y is up and the slow axis goes down; x is left, the fast axis goes right.
        np.testing.assert_allclose(
            pixel_position(file, 0, 0), [20 * 75e-6, 30 * 75e-6, 0.25], atol=1e-12
        )
        assert file[f"{DETECTOR}/module/data_size"][:].tolist() == [64, 48]


@pytest.mark.parametrize(("dtype", "depth"), [("uint8", 8), ("uint16", 16), ("uint32", 32)])
def test_the_depth_is_that_of_the_pixels(tmp_path, start, dtype, depth):
    path = tmp_path / "master.h5"
    write_master(
        path, start, RunGeometry(), {}, shape=(64, 48), dtype=dtype, pixel_mask=None
    )  # fmt: skip
    with h5py.File(path) as file:
        assert file[DETECTOR]["bit_depth_readout"][()] == depth
        assert "pixel_mask" not in file[DETECTOR]


def test_without_a_geometry_no_position_is_made_up(tmp_path):
    path = tmp_path / "master.h5"
    bare = SeriesStart(series=1)
    write_master(path, bare, RunGeometry(), {}, shape=None, dtype=None, pixel_mask=None)
    with h5py.File(path) as file:
        assert text(file[DETECTOR]["depends_on"]) == "."
        assert not {"distance", "beam_center_x", "transformations"} & set(file[DETECTOR])
        assert list(file["entry/instrument/beam"]) == []


def test_links_are_relative_and_survive_a_move(tmp_path, start, judged, pixels):
    series = SeriesFolder(tmp_path / "a", start, {}, frames_per_file=2)
    series.write([judged(f) for f in range(5)])
    series.close({}, [], "end")
    moved = (tmp_path / "a").rename(tmp_path / "b") / series.folder.name
    with h5py.File(moved / "master.h5") as file:
        data = file["entry/data"]
        assert data.attrs["signal"] == "data"
        for frame in range(5):
            np.testing.assert_array_equal(data["data"][frame], pixels(frame))
        assert [data[f"data_{i:06d}"].shape[0] for i in (1, 2, 3)] == [2, 2, 1]
        np.testing.assert_array_equal(data["data_000003"][0], pixels(4))


def test_relinking_forgets_what_is_gone_and_keeps_the_rest(master, tmp_path):
    link_images(master, [ImageFile("gone.h5", 3, closed=False)])
    link_images(master, [])
    with h5py.File(master) as file:
        assert list(file["entry/data"]) == []
        assert file[DETECTOR]["pixel_mask"][3, 0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["master.h5"]


def test_the_operators_bad_pixels_are_marked_as_his(start):
    header = np.zeros((4, 4), np.uint32)
    header[0, 0] = 1
    bad = np.zeros((4, 4), bool)
    bad[0, :2] = True
    assert combined_mask(header, bad)[0].tolist() == [1, 256, 0, 0]
    assert combined_mask(None, bad)[0].tolist() == [256, 256, 0, 0]
    assert combined_mask(header, None) is header
    assert combined_mask(None, None) is None


def test_geometry_goes_through_json(start):
    geometry = RunGeometry.of_header(start)
    assert RunGeometry.from_json(geometry.to_json()) == geometry
    assert geometry.sources["clen_m"] == "header"


def test_the_headers_flatfield_is_kept_where_it_fits_the_images(tmp_path, start):
    flatfield = np.full((64, 48), 1.25, np.float32)
    header = replace(start, flatfield=flatfield)
    for name, shape, is_kept in (("fits.h5", (64, 48), True), ("not.h5", (64, 40), False)):
        write_master(
            tmp_path / name,
            header,
            RunGeometry(),
            {},
            shape=shape,
            dtype="uint16",
            pixel_mask=None,
        )
        with h5py.File(tmp_path / name) as file:
            assert ("flatfield" in file[DETECTOR]) is is_kept
            if is_kept:
                np.testing.assert_array_equal(file[DETECTOR]["flatfield"], flatfield)
