"""A series on disk: every frame in its one place, once, and nothing outside the folder."""

import json
import struct

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that readers need)
import numpy as np
import pytest

from hitfinder.stream.check import check_series
from hitfinder.stream.errors import StoreError
from hitfinder.stream.hitfile import JudgedFrame, read_columns
from hitfinder.stream.ledger import Unjudged, read_ledger
from hitfinder.stream.lists import read_list
from hitfinder.stream.messages import Blob, Codec, SeriesStart
from hitfinder.stream.nexus import RunGeometry
from hitfinder.stream.results import Outcome, Peaks, Record
from hitfinder.stream.series_folder import SeriesFolder, is_sampled
from hitfinder.stream.summary import read_summary

PROVENANCE = {"version": "0.1", "model_sha256": "ab" * 32, "config": {"gate": {"mode": "any"}}}


def missing(n):
    return [Unjudged(np.arange(n), Outcome.MISSING, "never came")]


def test_every_announced_frame_has_one_row_and_every_hit_its_pixels(
    tmp_path, start, judged, pixels
):
    series = SeriesFolder(tmp_path, start, PROVENANCE, frames_per_file=4, miss_sample_fraction=1)
    outcomes = [Outcome.HIT, Outcome.MISS, Outcome.CORRUPT]
    frames = [judged(f, outcomes[f % 3]) for f in range(30)]
    places = [p for i in range(0, 30, 7) for p in series.write(frames[i : i + 7])]
    summary = series.close({"hit": 10}, missing(40), "end of series")
    assert summary.counts == {
        "hit": 10,
        "miss": 10,
        "corrupt": 10,
        "missing": 10,
        "dropped": 0,
        "lost": 0,
    }
    assert summary.alarms == []
    assert list(check_series(series.folder)) == []
    for frame, (name, row) in enumerate(places):
        if frame % 3 == 2:
            assert (name, row) == (None, None)
            continue
        with h5py.File(series.folder / name) as file:
            assert file["entry/hitfinder/frame"][row] == frame
            np.testing.assert_array_equal(file["entry/data/data"][row], pixels(frame))
    rows = read_ledger(series.folder / "ledger.h5")
    assert sorted(rows["frame"].tolist()) == list(range(40))
    assert [(r["file"].decode() or None) for r in rows[:30]] == [p[0] for p in places]


def test_files_roll_by_count_and_by_layout(tmp_path, start, judged, packed, pixels):
    series = SeriesFolder(tmp_path, start, {}, frames_per_file=3)
    series.write([judged(f) for f in range(7)])
    wide = JudgedFrame(judged(7).record, (packed(pixels(7, "uint32")),))
    series.write([wide])
    series.close({}, [], "end")
    names = sorted(p.name for p in series.folder.glob("hits_*.h5"))
    assert names == [f"hits_{i:06d}.h5" for i in (1, 2, 3, 4)]
    assert [len(read_columns(series.folder / n)) for n in names] == [3, 3, 1, 1]
    with h5py.File(series.folder / "hits_000004.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], pixels(7, "uint32"))


def test_a_frame_written_again_keeps_its_place(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    places = series.write([judged(0), judged(1, Outcome.MISS), judged(0)])
    assert places[0] == places[2] == ("hits_000001.h5", 0)
    assert series.write([judged(1), judged(0)]) == [places[1], places[0]]
    series.close({}, missing(40), "end")
    assert list(check_series(series.folder)) == []


def test_a_series_without_hits_leaves_no_hit_file_and_a_master_without_links(tmp_path, start):
    series = SeriesFolder(tmp_path, start, {})
    series.close({}, missing(40), "end")
    assert not list(series.folder.glob("hits_*.h5"))
    assert (series.folder / "hits.lst").read_text() == ""
    with h5py.File(series.folder / "master.h5") as file:
        assert list(file["entry/data"]) == []
    assert list(check_series(series.folder)) == []


def test_a_header_that_says_nothing_still_makes_a_readable_folder(tmp_path, judged):
    series = SeriesFolder(tmp_path, SeriesStart(series=5), {})
    series.write([judged(0)])
    summary = series.close({}, [], "end")
    assert summary.n_announced is None
    assert list(check_series(series.folder)) == []
    with h5py.File(series.folder / "master.h5") as file:
        assert file["entry/instrument/detector/bit_depth_readout"][()] == 16
        assert file["entry/data/data"].shape == (1, 64, 48)
    assert "clen is unknown" in (series.folder / "detector.geom").read_text()


def test_misses_are_sampled_by_frame_number_alone(tmp_path, start, judged):
    kept = {f for f in range(2000) if is_sampled(5, f, 0.1)}
    assert 140 < len(kept) < 260
    assert kept != {f for f in range(2000) if is_sampled(6, f, 0.1)}
    assert not any(is_sampled(5, f, 0.0) for f in range(2000))
    assert all(is_sampled(5, f, 1.0) for f in range(2000))
    series = SeriesFolder(tmp_path, start, {}, miss_sample_fraction=0.1)
    series.write([judged(f, Outcome.MISS) for f in range(40)])
    series.close({}, [], "end")
    files = [read_columns(p) for p in series.folder.glob("misses_*.h5")]
    assert {int(f) for rows in files for f in rows["frame"]} == kept & set(range(40))
    with h5py.File(series.folder / "misses_000001.h5") as file:
        assert file["entry/hitfinder"].attrs["miss_sample_fraction"] == 0.1


@pytest.mark.parametrize("uid", ["../../etc/passwd", "/root", "..", "a/b\0c", "ü" * 300, "", "."])
def test_a_hostile_uid_stays_inside_the_output_folder(tmp_path, uid):
    out = tmp_path / "out"
    series = SeriesFolder(out, SeriesStart(series=1, series_uid=uid), {})
    series.close({}, [], "end")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.resolve().parent for p in out.iterdir()] == [out.resolve()]
    assert series.folder.name.startswith("series_1_")


def test_a_folder_that_is_taken_gets_a_suffix(tmp_path, start):
    names = []
    for _ in range(3):
        series = SeriesFolder(tmp_path, start, {})
        series.close({}, [], "end")
        names.append(series.folder.name)
    assert names == ["series_5_uid-5", "series_5_uid-5-2", "series_5_uid-5-3"]


def test_everything_is_stamped_with_where_it_comes_from(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, PROVENANCE, miss_sample_fraction=1)
    series.write([judged(0), judged(1, Outcome.MISS)])
    series.close({}, [], "end")
    for name in ("hits_000001.h5", "misses_000001.h5", "master.h5"):
        with h5py.File(series.folder / name) as file:
            said = file["entry/hitfinder"].attrs
            assert said["model_sha256"] == "ab" * 32
            assert json.loads(said["config"]) == PROVENANCE["config"]
    assert read_summary(series.folder / "summary.json").provenance == PROVENANCE


def test_counts_that_do_not_add_up_raise_an_alarm(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    series.write([judged(0)])
    summary = series.close({"hit": 2, "announced": 40}, missing(39), "end", alarms=["hot pixels"])
    assert len(summary.alarms) == 3
    assert summary.alarms[0] == "hot pixels"
    assert "2 frames were counted as hit, the ledger has 1" in summary.alarms[1]
    assert "40 frames were announced, the ledger has 39 rows" in summary.alarms[2]


def test_closing_twice_gives_the_same_summary_and_later_frames_are_refused(
    tmp_path, start, judged
):
    series = SeriesFolder(tmp_path, start, {})
    first = series.close({}, missing(40), "end")
    assert series.close({}, missing(40), "again") is first
    with pytest.raises(StoreError, match="closed"):
        series.write([judged(0)])


def test_master_and_lists_are_useful_as_soon_as_a_file_rolls(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {}, frames_per_file=2)
    series.write([judged(f) for f in range(3)])
    assert read_list(series.folder / "hits.lst") == [
        ("hits_000001.h5", 0),
        ("hits_000001.h5", 1),
        ("hits_000002.h5", 0),
    ]
    with h5py.File(series.folder / "master.h5") as file:
        assert file["entry/data/data"].shape[0] == 2  # the file that is still written is a link
        assert "data_000002" in set(file["entry/data"])
    assert (series.folder / "detector.geom").exists()
    series.close({}, [], "end")


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path, start):
    series = SeriesFolder(tmp_path, start, {})
    with pytest.raises(StoreError, match="another process"):
        SeriesFolder.resume(series.folder)
    series.close({}, [], "end")


def test_a_frame_number_out_of_range_stores_nothing(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    with pytest.raises(StoreError, match="frame -1"):
        series.write([judged_at(judged, -1)])
    series.close({}, missing(40), "end")
    assert list(check_series(series.folder)) == []


def judged_at(judged, frame):
    good = judged(0)
    record = Record(series=5, frame=frame, outcome=Outcome.HIT, peaks=Peaks())
    return JudgedFrame(record, good.blobs)


def test_an_unwritable_folder_is_an_error_that_names_it(tmp_path, start):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="out"):
        SeriesFolder(tmp_path / "out", start, {})


def test_geometry_of_the_config_wins_and_is_said(tmp_path, start, judged):
    geometry = RunGeometry(
        beam_center_px=(21.0, 31.0),
        pixel_size_m=(75e-6, 75e-6),
        clen_m=0.3,
        photon_energy_eV=8000.0,
        sources={"clen_m": "config", "photon_energy_eV": "config", "pixel_size_m": "header"},
    )
    series = SeriesFolder(tmp_path, start, {}, geometry=geometry)
    series.write([judged(0)])
    summary = series.close({}, [], "end")
    with h5py.File(series.folder / "master.h5") as file:
        assert file["entry/instrument/detector/distance"][()] == 0.3
    assert "clen = 0.3 m ; from config" in (series.folder / "detector.geom").read_text()
    assert summary.geometry["sources"]["clen_m"] == "config"


def test_bslz4_of_a_4m_frame_of_any_real_shape_is_declared_right(tmp_path, start):
    payload = struct.pack(">QI", 2162 * 2068 * 2, 8192)
    blob = Blob("t", (2162, 2068), "uint16", Codec.BSLZ4, 2, memoryview(payload))
    series = SeriesFolder(tmp_path, start, {})
    record = Record(series=5, frame=0, outcome=Outcome.HIT)
    series.write([JudgedFrame(record, (blob,))])
    series.close({}, [], "end")
    with h5py.File(series.folder / "hits_000001.h5") as file:
        assert file["entry/data/data"].chunks == (1, 2162, 2068)
    with h5py.File(series.folder / "master.h5") as file:
        assert file["entry/instrument/detector/module/data_size"][:].tolist() == [2162, 2068]
