"""A finished series' folder, point by point as CrystFEL, DIALS and CXI readers want it.

Read with h5py, hdf5plugin and text tools alone, none of our code: what is compared is what was
put in, by the rules that the readers state (crystfel_geometry(5), NXmx, the CXI peak layout).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that readers need)
import numpy as np
import pytest
from numpy.typing import NDArray

from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import Blob, SeriesStart
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import SeriesFolder

SHAPE = (64, 48)
GAP = (slice(20, 24), slice(None))
N_PEAKS = {0: 3, 1: 0, 2: 25, 5: 1}
PREDICTED = ("photon_energy_eV", "clen_m")


@pytest.fixture
def folder(
    tmp_path: Path,
    start: SeriesStart,
    judged: Callable[..., JudgedFrame],
    pixels: Callable[..., NDArray[np.uint16]],
    packed: Callable[..., Blob],
) -> Path:
    """Return a series of four hits in two files, with a gap, a mask and predictions."""
    mask = np.zeros(SHAPE, bool)
    mask[:2] = True
    series = SeriesFolder(tmp_path, start, {"version": "0"}, frames_per_file=3, bad_pixels=mask)
    frames = []
    for frame, n in N_PEAKS.items():
        image = pixels(frame)
        image[GAP] = 65535
        hit = judged(frame, Outcome.HIT, n)
        hit.record.photon_energy_eV, hit.record.clen_m = 9999.0, 0.999
        frames.append(JudgedFrame(hit.record, (packed(image),)))
    series.write(frames)
    series.close({}, [], "end")
    return series.folder


def geom_of(folder: Path) -> dict[str, str]:
    """Return a .geom file's `key = value` lines, comments cut off."""
    lines = (line.split(";")[0] for line in (folder / "detector.geom").read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def listed(folder: Path) -> list[tuple[Path, int]]:
    """Return the events of hits.lst as CrystFEL takes them: `FILE //ROW`, one dimension."""
    events = []
    for line in (folder / "hits.lst").read_text().splitlines():
        found = re.fullmatch(r"(\S+) //(\d+)", line)
        assert found, line
        events.append((folder / found[1], int(found[2])))
    return events


def test_every_listed_event_is_an_image_where_the_geom_says(folder, pixels):
    geom, events = geom_of(folder), listed(folder)
    assert [geom[f"dim{k}"] for k in range(3)] == ["%", "ss", "fs"]
    assert [(p.name, row) for p, row in events] == [
        ("hits_000001.h5", 0),
        ("hits_000001.h5", 1),
        ("hits_000001.h5", 2),
        ("hits_000002.h5", 0),
    ]
    for frame, (path, row) in zip(N_PEAKS, events, strict=True):
        with h5py.File(path) as file:  # plainly: CrystFEL knows no SWMR
            images = file[geom["data"]]
            assert images.shape[1:] == SHAPE
            assert images.chunks == (1, *SHAPE)
            wanted = pixels(frame)
            wanted[GAP] = 65535
            np.testing.assert_array_equal(images[row], wanted)


def test_the_geoms_panel_covers_the_image_and_flags_its_gaps(folder):
    geom = geom_of(folder)
    bounds = [int(geom[f"panel0/{k}"]) for k in ("min_ss", "max_ss", "min_fs", "max_fs")]
    assert bounds == [0, SHAPE[0] - 1, 0, SHAPE[1] - 1]
    path, row = listed(folder)[0]
    with h5py.File(path) as file:
        image = file[geom["data"]][row]
    is_flagged = image > float(geom["flag_morethan"])  # strictly more, says the manual
    assert is_flagged[GAP].all()
    assert not np.delete(is_flagged, np.r_[GAP[0]], axis=0).any()
    assert float(geom["adu_per_photon"]) == 1


def test_the_geoms_mask_marks_the_bad_pixels_and_no_others(folder):
    geom = geom_of(folder)
    with h5py.File(folder / geom["mask0_file"]) as file:
        mask = file[geom["mask0_data"]][:]
    good, bad = int(geom["mask0_goodbits"], 16), int(geom["mask0_badbits"], 16)
    is_bad = ((mask & bad) != 0) | ((mask & good) != good)
    assert is_bad[:2].all()
    assert not is_bad[2:].any()


def test_header_energy_and_distance_and_no_prediction_are_what_readers_get(folder):
    geom = geom_of(folder)
    assert geom["photon_energy"].split() == ["7000", "eV"]
    assert geom["clen"].split() == ["0.25", "m"]
    assert float(geom["res"]) == pytest.approx(1 / 75e-6)
    with h5py.File(folder / "master.h5") as file:
        wavelength = file["entry/instrument/beam/incident_wavelength"]
        assert wavelength[()] == pytest.approx(12398.41984 / 7000)
        assert wavelength.attrs["units"] == "angstrom"
        assert file["entry/instrument/detector/distance"][()] == 0.25
    with h5py.File(folder / "hits_000001.h5") as file:
        assert (file["entry/hitfinder/photon_energy_eV"][:] == 9999.0).all()
        assert set(file["entry"]) == {"data", "result", "hitfinder"}


def test_peaks_are_cxi_arrays_in_the_images_rows(folder):
    geom = geom_of(folder)
    assert geom["peak_list_type"] == "cxi"
    for (path, row), n in zip(listed(folder), N_PEAKS.values(), strict=True):
        with h5py.File(path) as file:
            peaks, n_rows = file[geom["peak_list"]], len(file[geom["data"]])
            assert peaks["nPeaks"].shape == (n_rows,)
            assert peaks["nPeaks"].dtype.kind == "i"
            assert peaks["nPeaks"][row] == n
            for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
                assert peaks[name].ndim == 2
                assert peaks[name].shape[0] == n_rows
                assert peaks[name].shape[1] >= n
                assert not peaks[name][row, n:].any()
            # Pixel index, the first pixel's centre 0.0: the reader adds half a pixel itself.
            assert peaks["peakXPosRaw"][row, :n].tolist() == list(range(n))
            assert peaks["peakYPosRaw"][row, :n].tolist() == [k + 0.5 for k in range(n)]


def test_crystfel_and_nxmx_put_a_peak_in_the_same_place(folder):
    """To half a pixel is asked for; they agree to a thousandth."""
    geom, fs, ss = geom_of(folder), 7.0, 11.5
    res = float(geom["res"])
    vectors = []
    for axis in ("fs", "ss"):
        found = re.fullmatch(r"([+-][\d.]+)x ([+-][\d.]+)y", geom[f"panel0/{axis}"])
        assert found
        vectors.append((float(found[1]), float(found[2])))
    corner = float(geom["panel0/corner_x"]), float(geom["panel0/corner_y"])
    crystfel_m = [
        (corner[k] + (fs + 0.5) * vectors[0][k] + (ss + 0.5) * vectors[1][k]) / res for k in (0, 1)
    ]
    with h5py.File(folder / "master.h5") as file:
        module = file["entry/instrument/detector/module"]
        place = np.zeros(3)
        for name, steps in (("fast_pixel_direction", fs), ("slow_pixel_direction", ss)):
            axis = module[name]
            place += (steps + 0.5) * axis[()] * axis.attrs["vector"]
        node = axis.attrs["depends_on"]
        while node != ".":
            axis = file[node]
            place += axis[()] * axis.attrs["vector"] + axis.attrs["offset"]
            node = axis.attrs["depends_on"]
    # CrystFEL looks along the beam with x to the left, as McStas does.
    np.testing.assert_allclose(place[:2], crystfel_m, atol=75e-9)
    assert place[2] == pytest.approx(0.25)
    # The header's centre counts from the array's corner: pixel index (19.5, 29.5) is on the beam.
    assert corner == (20.0, 30.0)


@pytest.mark.parametrize(
    ("path", "value", "units"),
    [
        ("distance", 0.25, "m"),
        ("detector_distance", 0.25, "m"),
        ("beam_center_x", 20.0, "pixel"),
        ("beam_center_y", 30.0, "pixel"),
        ("x_pixel_size", 75e-6, "m"),
        ("y_pixel_size", 75e-6, "m"),
        ("sensor_thickness", 450e-6, "m"),
        ("sensor_material", b"Si", None),
        ("count_time", 0.00099, "s"),
        ("frame_time", 0.001, "s"),
        ("saturation_value", 65534, None),
        ("underload_value", 0, None),
        ("bit_depth_readout", 16, None),
        ("bit_depth_image", 16, None),
        ("depends_on", b"/entry/instrument/detector/transformations/translation", None),
    ],
)
def test_the_masters_detector_has_what_nxmx_asks_for(folder, path, value, units):
    with h5py.File(folder / "master.h5") as file:
        node = file["entry/instrument/detector"][path]
        assert node[()] == value
        assert node.attrs.get("units") == units


def test_the_master_is_one_still_of_each_class_and_its_images_are_the_hits(folder, pixels):
    with h5py.File(folder / "master.h5", swmr=True) as file:  # as dxtbx opens it
        found = {}
        file.visititems(lambda name, node: found.update({name: node.attrs.get("NX_class")}))
        assert found["entry"] == "NXentry"
        assert file["entry/definition"][()] == b"NXmx"
        assert found["entry/data"] == "NXdata"
        assert found["entry/instrument"] == "NXinstrument"
        assert found["entry/instrument/detector"] == "NXdetector"
        assert found["entry/instrument/detector/module"] == "NXdetector_module"
        assert found["entry/instrument/detector/transformations"] == "NXtransformations"
        assert found["entry/instrument/beam"] == "NXbeam"
        assert found["entry/sample"] == "NXsample"
        assert file["entry/sample/depends_on"][()] == b"."
        assert file["entry/instrument/detector/pixel_mask"].dtype == np.uint32
        data = file["entry/data"]
        assert data.attrs["signal"] == "data"
        assert data["data"].shape == (len(N_PEAKS), *SHAPE)
        for row, frame in enumerate(N_PEAKS):
            wanted = pixels(frame)
            wanted[GAP] = 65535
            np.testing.assert_array_equal(data["data"][row], wanted)
        links = [data.get(name, getlink=True) for name in data if name != "data"]
        assert [link.filename for link in links] == ["hits_000001.h5", "hits_000002.h5"]
        assert all((folder / link.filename).exists() for link in links)


def test_side_columns_stand_beside_the_images_in_a_group_of_their_own(folder):
    with h5py.File(folder / "hits_000001.h5") as file:
        columns = file["entry/hitfinder"]
        assert columns.attrs["NX_class"] == "NXcollection"
        assert columns.attrs["version"] == "0"
        for name, dtype in (
            ("frame", np.int64),
            ("series", np.int64),
            ("t_detector_ns", np.int64),
            ("p_hit", np.float64),
            ("threshold", np.float64),
            *((name, np.float64) for name in PREDICTED),
            *((f"header_{name}", np.float64) for name in PREDICTED),
        ):
            assert columns[name].shape == (3,)
            assert columns[name].dtype == dtype
        assert columns["frame"][:].tolist() == [0, 1, 2]
