"""`export`: one CXI file through the command line, which says what it wrote or why it did not."""

from __future__ import annotations

import struct
from pathlib import Path

import bitshuffle
import h5py
import hdf5plugin  # noqa: F401  (registers the filter of the images)
import numpy as np
import pytest

from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import Blob, Codec, SeriesStart
from hitfinder.stream.results import Outcome, Record
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.workers.cli import main

IMAGE = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


def export(run: Path, out: Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(["export", str(run), "--out", str(out)])
    return int(left.value.code or 0)


def write_series(out: Path, number: int, outcome: Outcome) -> None:
    body = bitshuffle.compress_lz4(IMAGE, 0).tobytes()
    payload = memoryview(struct.pack(">QI", IMAGE.nbytes, 8192) + body)
    blob = Blob("threshold_1", IMAGE.shape, "uint16", Codec.BSLZ4, 2, payload)
    series = SeriesFolder(out, SeriesStart(series=number), {})
    series.write([JudgedFrame(Record(series=number, frame=0, outcome=outcome), (blob,))])
    series.close({}, [], "end")


def test_the_hits_of_all_series_are_in_the_file(tmp_path, capsys):
    for number in (1, 2):
        write_series(tmp_path / "run", number, Outcome.HIT)
    assert export(tmp_path / "run", tmp_path / "run.cxi") == 0
    assert "2 hits of 2 files; run.geom beside it" in capsys.readouterr().out
    with h5py.File(tmp_path / "run.cxi") as file:
        for image in file["entry_1/data_1/data"]:
            np.testing.assert_array_equal(image, IMAGE)
        assert np.isnan(file["LCLS/photon_energy_eV"][:]).all()  # the header said nothing


def test_a_run_without_hits_writes_nothing_and_says_so(tmp_path, capsys):
    write_series(tmp_path / "run", 1, Outcome.MISS)
    assert export(tmp_path / "run", tmp_path / "run.cxi") == 1
    assert "nothing to export" in capsys.readouterr().err
    assert not list(tmp_path.glob("run.cxi*"))


def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys):
    write_series(tmp_path / "run", 1, Outcome.HIT)
    assert export(tmp_path / "run", tmp_path / "absent" / "run.cxi") == 1
    assert "absent/run.cxi" in capsys.readouterr().err
