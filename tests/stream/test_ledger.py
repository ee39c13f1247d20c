"""The ledger: one row a frame, unknown stays unknown, absurd input does not break it."""

import numpy as np
import pytest

from hitfinder.stream.errors import StoreError
from hitfinder.stream.ledger import (
    ROW,
    Ledger,
    Unjudged,
    outcome_counts,
    read_ledger,
    record_of,
    rows_of,
)
from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.stream.results import Outcome, Record


def test_a_row_has_every_key_of_a_record_but_the_peaks():
    assert set(ROW.names) == set(Record.__struct_fields__) - {"peaks"}


def test_known_values_come_back_and_unknown_ones_are_marked():
    record = Record(series=3, frame=8, outcome=Outcome.HIT, p_hit=0.5, clen_m=0.25, mismatch=True)
    row = rows_of([record])[0]
    assert (row["series"], row["frame"], row["outcome"], row["p_hit"]) == (3, 8, b"hit", 0.5)
    assert (row["clen_m"], row["mismatch"]) == (0.25, 1)
    assert np.isnan(row["threshold"])
    assert (row["row"], row["n_photons"], row["file"], row["reason"]) == (-1, -1, b"", b"")


def test_a_row_becomes_the_record_that_it_was_made_of():
    record = Record(
        series=3,
        series_uid="uid-3",
        frame=0,
        outcome=Outcome.HIT,
        p_hit=0.5,
        n_peaks=0,
        mismatch=False,
        tells_parameters=True,
        t_received_ns=17,
        file="hits_000001.h5",
        row=0,
    )
    assert record_of(rows_of([record])[0]) == record


def test_text_outside_ascii_too_long_text_and_huge_numbers_do_not_break_a_row():
    record = Record(
        series=1,
        series_uid="Röntgen\ud800",
        frame=2,
        outcome=Outcome.CORRUPT,
        reason="x" * 500,
        t_detector_ns=1 << 80,
        n_photons=-(1 << 70),
    )
    row = rows_of([record])[0]
    assert row["series_uid"].decode() == "Röntgen?"
    assert row["reason"] == b"x" * ROW["reason"].itemsize
    assert (row["t_detector_ns"], row["n_photons"]) == (-1, -1)


def test_rows_can_be_read_while_the_ledger_grows(tmp_path):
    path = tmp_path / "ledger.h5"
    ledger = Ledger.create(path, {"series": 1})
    for frame in range(5):
        ledger.append(rows_of([Record(series=1, frame=frame, outcome=Outcome.MISS)]))
        ledger.flush()
        assert read_ledger(path)["frame"].tolist() == list(range(frame + 1))
    ledger.close()


def test_frames_without_a_slot_get_one_row_each_and_no_second_one(tmp_path):
    ledger = Ledger.create(tmp_path / "ledger.h5", {})
    template = Record(series=1, frame=0, outcome=Outcome.MISSING, header_clen_m=0.2)
    ledger.append(rows_of([Record(series=1, frame=3, outcome=Outcome.HIT)]))
    frames = np.array([5, 3, 4, 4, 5], np.int64)
    assert ledger.append_unjudged(template, Unjudged(frames, Outcome.DROPPED, "ring full")) == 2
    everything = Unjudged(np.arange(7), Outcome.MISSING, "never came")
    assert ledger.append_unjudged(template, everything) == 4
    ledger.close()
    rows = read_ledger(tmp_path / "ledger.h5")
    assert sorted(rows["frame"].tolist()) == list(range(7))
    assert outcome_counts(rows) == {
        "hit": 1,
        "miss": 0,
        "dropped": 2,
        "corrupt": 0,
        "lost": 0,
        "missing": 4,
    }
    assert rows[rows["frame"] == 4]["reason"] == b"ring full"
    assert rows[rows["frame"] == 4]["header_clen_m"] == 0.2


def test_a_million_missing_frames_are_written_in_blocks(tmp_path):
    ledger = Ledger.create(tmp_path / "ledger.h5", {})
    template = Record(series=1, frame=0, outcome=Outcome.MISSING)
    unjudged = Unjudged(np.arange(1_000_000), Outcome.MISSING, "never came")
    assert ledger.append_unjudged(template, unjudged) == len(ledger) == 1_000_000
    ledger.close()


@pytest.mark.parametrize("frame", [-1, MAX_FRAMES])
def test_a_frame_number_out_of_range_is_refused(tmp_path, frame):
    ledger = Ledger.create(tmp_path / "ledger.h5", {})
    with pytest.raises(StoreError, match=f"frame {frame}"):
        ledger.append(rows_of([Record(series=1, frame=frame, outcome=Outcome.MISS)]))
    ledger.close()
    assert len(read_ledger(tmp_path / "ledger.h5")) == 0


def test_a_reopened_ledger_knows_its_frames_and_their_places(tmp_path):
    path = tmp_path / "ledger.h5"
    ledger = Ledger.create(path, {})
    rows = rows_of([Record(series=1, frame=f, outcome=Outcome.HIT) for f in (7, 2)])
    rows["file"], rows["row"] = b"hits_000001.h5", [0, 1]
    ledger.append(rows)
    ledger.close()
    again = Ledger.reopen(path)
    assert 7 in again
    assert 3 not in again
    assert again.place(2) == ("hits_000001.h5", 1)
    assert again.place(3) == (None, None)
    assert again.counts["hit"] == 2
    again.close()


def test_something_that_is_no_ledger_is_named(tmp_path):
    (tmp_path / "ledger.h5").write_bytes(b"not HDF5")
    with pytest.raises(StoreError, match=r"ledger\.h5"):
        read_ledger(tmp_path / "ledger.h5")
