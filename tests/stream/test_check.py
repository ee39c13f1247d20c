"""`check` finds what is wrong with a run, says it in words, and stays silent on a sound one."""

import json

import h5py
import numpy as np
import pytest

from hitfinder.stream.check import check_run
from hitfinder.stream.ledger import Unjudged
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import SeriesFolder


@pytest.fixture
def run(tmp_path, start, judged):
    """Return the folder of a sound series: 10 hits, 10 misses, 20 missing."""
    series = SeriesFolder(tmp_path, start, {}, frames_per_file=6, miss_sample_fraction=1)
    series.write([judged(f, Outcome.HIT if f % 2 else Outcome.MISS) for f in range(20)])
    series.close({}, [Unjudged(np.arange(40), Outcome.MISSING, "never came")], "end")
    return series.folder


def problem(run):
    report = check_run(run)
    assert not report.ok
    return "\n".join(report.problems)


def test_a_sound_run_is_silent_alone_and_among_others(run):
    for path in (run, run.parent):
        report = check_run(path)
        assert report.ok, str(report)
        assert report.folders == (run.name,)
        assert str(report) == "1 series checked: adds up"


def test_a_folder_without_series_is_said(tmp_path):
    assert "no series folder" in problem(tmp_path)


def test_a_missing_ledger_row_is_named(run):
    with h5py.File(run / "ledger.h5", "r+") as file:
        file["ledger"].resize(39, axis=0)
    assert "no row for announced frames 39" in problem(run)
    assert "summary.json: 20 frames missing, the ledger has 19" in problem(run)


def test_a_doubled_ledger_row_is_named(run):
    with h5py.File(run / "ledger.h5", "r+") as file:
        file["ledger"].resize(41, axis=0)
        file["ledger"][40] = file["ledger"][30]
    assert "more than one row for frames 30" in problem(run)


def test_a_count_of_the_topic_that_is_not_the_ledgers_is_named(run):
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    summary["reported"] = {**summary["counts"], "hit": 9}
    path.write_text(json.dumps(summary))
    assert problem(run) == f"{run.name}/summary.json: 9 frames published as hit, the ledger has 10"


def test_an_unknown_outcome_and_a_hit_without_image_are_named(run):
    with h5py.File(run / "ledger.h5", "r+") as file:
        rows = file["ledger"][:]
        rows["outcome"][39], rows["outcome"][38] = b"perhaps", b"hit"
        file["ledger"][:] = rows
    said = problem(run)
    assert "no known outcome for frames 39" in said
    assert "hits without a stored image: frames 38" in said


@pytest.mark.parametrize("name", ["/entry/result/nPeaks", "/entry/hitfinder/frame"])
def test_rows_that_do_not_align_are_named(run, name):
    with h5py.File(run / "hits_000001.h5", "r+") as file:
        file[name].resize(5, axis=0)
    assert f"{name} has 5 rows, the images 6" in problem(run)


def test_a_row_without_an_image_is_named(run):
    with h5py.File(run / "hits_000002.h5", "r+") as file:
        for group in ("data", "result", "hitfinder"):
            for dataset in file["entry"][group].values():
                dataset.resize(5, axis=0)
    assert "hits_000002.h5: 5 rows, but 4 images" in problem(run)


def test_a_frame_in_another_place_than_the_ledger_says_is_named(run):
    with h5py.File(run / "hits_000001.h5", "r+") as file:
        file["entry/hitfinder/frame"][0] = 31
    assert "row 0 is frame 31, the ledger says 1" in problem(run)


def test_a_hit_file_that_is_gone_is_named_everywhere(run):
    (run / "hits_000002.h5").unlink()
    said = problem(run)
    assert "master.h5: names hits_000002.h5, which is not there" in said
    assert "is said to lie in hits_000002.h5 row 0, which is not there" in said
    assert "hits.lst: 10 lines do not match the files' 6 rows" in said


def test_a_list_that_was_edited_is_named(run):
    (run / "misses.lst").write_text("rubbish\n")
    (run / "hits.lst").unlink()
    said = problem(run)
    assert "misses.lst: not a list" in said
    assert "hits.lst: not there" in said


def test_a_summary_that_is_not_a_summary_is_named(run):
    (run / "summary.json").write_text(json.dumps({"counts": 3}))
    assert "summary.json: not a readable summary" in problem(run)


def test_a_file_that_is_not_hdf5_is_named(run):
    (run / "hits_000001.h5").write_bytes(b"rubbish" * 100)
    assert "hits_000001.h5: not readable" in problem(run)


def test_one_bad_series_does_not_hide_the_others(run, start):
    (run / "hits.lst").unlink()
    second = SeriesFolder(run.parent, start, {})
    second.close({}, [Unjudged(np.arange(39), Outcome.MISSING, "never came")], "end")
    said = problem(run.parent)
    assert f"{run.name}/hits.lst" in said
    assert f"{second.folder.name}/ledger.h5: no row for announced frames 39" in said


def test_repair_of_a_sound_run_changes_nothing(run):
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    report = check_run(run, repair=True)
    assert report.ok
    assert report.repairs == ()
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_a_ledger_over_which_hdf5_loops_is_named_by_check_and_repair(run, monkeypatch):
    """Cut within its texts and filled up with zeros, as a file system does after a crash."""
    monkeypatch.setattr("hitfinder.stream.apart.PATIENCE_S", 1.0)
    path = run / "ledger.h5"
    content = path.read_bytes()
    kept = content.index(b"GCOL") + 100
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    for repair in (False, True):
        report = check_run(run, repair=repair)
        assert report.problems == (
            f"{run.name}: HDF5 has not come back from a file within 1 s; it is damaged: move the "
            "folder away",
        )
