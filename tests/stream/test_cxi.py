"""The hits of a run as one CXI file: the bytes that were stored, and what its readers look for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from hitfinder.stream.check import series_folders
from hitfinder.stream.cxi import read_layouts, write_cxi
from hitfinder.stream.errors import StoreError
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import Blob, Codec
from hitfinder.stream.nexus import RunGeometry
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import SeriesFolder


@pytest.fixture
def run(tmp_path, start, judged) -> Path:
    """Return a run of two series: 5 hits in three files, then 2 at another energy and clen."""
    out = tmp_path / "run"
    bad = np.zeros((64, 48), bool)
    bad[3] = True
    first = SeriesFolder(out, start, {}, frames_per_file=2, bad_pixels=bad)
    first.write([judged(f, n_peaks=f) for f in range(5)])
    first.write([judged(7, Outcome.MISS)])
    first.close({}, [], "end")
    other = replace(start, series=6, photon_energy_eV=8000.0, clen_m=0.15)
    second = SeriesFolder(out, other, {})
    second.write([judged(f, n_peaks=2) for f in (10, 11)])
    second.close({}, [], "end")
    return out


FRAMES = [0, 1, 2, 3, 4, 10, 11]


def export(run: Path, out: Path) -> Path:
    write_cxi(out, read_layouts(series_folders(run)))
    return out


def test_images_are_the_stored_bytes_and_peaks_and_verdicts_stay_with_them(run, tmp_path, pixels):
    sources = []
    for path in sorted(run.glob("series_*/hits_*.h5")):
        with h5py.File(path) as file:
            images = file["entry/data/data"].id
            sources += [images.read_direct_chunk((k, 0, 0)) for k in range(images.shape[0])]
    with h5py.File(export(run, tmp_path / "run.cxi")) as file:
        assert file["cxi_version"][()] == 140
        images = file["entry_1/data_1/data"]
        assert images.shape == (7, 64, 48)
        assert images.chunks == (1, 64, 48)
        peaks = file["entry_1/result_1"]
        assert peaks["nPeaks"].dtype == np.int32
        assert peaks["nPeaks"][:].tolist() == [0, 1, 2, 3, 4, 2, 2]
        for row, frame in enumerate(FRAMES):
            assert images.id.read_direct_chunk((row, 0, 0)) == sources[row]
            np.testing.assert_array_equal(images[row], pixels(frame))
            n = int(peaks["nPeaks"][row])
            assert peaks["peakXPosRaw"][row, :n].tolist() == list(range(n))
            assert peaks["peakYPosRaw"][row, :n].tolist() == [k + 0.5 for k in range(n)]
            for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity", "peakSNR"):
                assert peaks[name].dtype == np.float32
                assert not peaks[name][row, n:].any()
        assert file["entry_1/hitfinder/frame"][:].tolist() == FRAMES
        assert set(file["entry_1/hitfinder/outcome"][:].tolist()) == {b"hit"}


def test_energy_and_distance_stand_where_cheetahs_readers_and_the_geom_look(run, tmp_path):
    out = export(run, tmp_path / "run.cxi")
    geom = dict(
        line.split(" = ", 1)
        for line in out.with_suffix(".geom").read_text().splitlines()
        if " = " in line and not line.startswith(";")
    )
    with h5py.File(out) as file:
        energy, energy_unit = geom["photon_energy"].split()
        distance, distance_unit = geom["clen"].split()
        assert (energy_unit, distance_unit) == ("eV", "mm")
        assert file[energy][:].tolist() == [7000.0] * 5 + [8000.0] * 2
        assert file[distance][:].tolist() == pytest.approx([250.0] * 5 + [150.0] * 2)
        assert file[geom["data"]].shape[0] == 7
        assert "nPeaks" in file[geom["peak_list"]]
        assert geom["mask0_file"] == "run.cxi"
        mask = file[geom["mask0_data"]][:]
        is_bad = (mask & int(geom["mask0_badbits"], 16)) != 0
        assert is_bad[3].all()
        assert is_bad.sum() == 48


def test_a_series_that_is_still_written_is_exported_as_far_as_it_is(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    series.write([judged(f) for f in range(3)])
    with h5py.File(export(tmp_path, tmp_path / "now.cxi")) as file:
        assert file["entry_1/hitfinder/frame"][:].tolist() == [0, 1, 2]
    series.close({}, [], "end")


def test_uncompressed_images_go_with_compressed_ones(tmp_path, start, judged, pixels):
    series = SeriesFolder(tmp_path / "run", start, {})
    raw = memoryview(pixels(1).tobytes())
    plain = Blob("threshold_1", (64, 48), "uint16", Codec.NONE, 2, raw)
    series.write([JudgedFrame(judged(1).record, (plain,)), judged(2)])
    series.close({}, [], "end")
    with h5py.File(export(tmp_path / "run", tmp_path / "both.cxi")) as file:
        for row, frame in enumerate((1, 2)):
            np.testing.assert_array_equal(file["entry_1/data_1/data"][row], pixels(frame))


@pytest.mark.parametrize("what", ["beam_center_px", "dtype"])
def test_what_one_file_cannot_hold_is_refused(run, tmp_path, start, judged, packed, pixels, what):
    geometry = RunGeometry.of_header(start)
    blob = packed(pixels(1, "uint32"))
    if what == "beam_center_px":
        geometry, blob = replace(geometry, beam_center_px=(1.0, 2.0)), judged(1).blobs[0]
    series = SeriesFolder(run, replace(start, series=7), {}, geometry=geometry)
    series.write([JudgedFrame(judged(1).record, (blob,))])
    series.close({}, [], "end")
    with pytest.raises(StoreError, match=f"{what}.*export each series"):
        export(run, tmp_path / "run.cxi")
    assert not list(tmp_path.glob("run.cxi*"))


def test_a_plug_in_path_in_the_environment_changes_nothing(run, tmp_path, pixels):
    """CrystFEL's users set HDF5_PLUGIN_PATH; the command is started from the same shell."""
    code = (
        "import sys; from pathlib import Path\n"
        "from hitfinder.stream.check import series_folders\n"
        "from hitfinder.stream.cxi import read_layouts, write_cxi\n"
        "write_cxi(Path(sys.argv[2]), read_layouts(series_folders(Path(sys.argv[1]))))\n"
    )
    env = {**os.environ, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH}
    out = tmp_path / "run.cxi"
    subprocess.run([sys.executable, "-c", code, str(run), str(out)], env=env, check=True)
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["entry_1/data_1/data"][6], pixels(11))
