"""Files of a killed writer: a real process, a real kill -9, plain h5py afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that readers need)
import numpy as np
import pytest

from hitfinder.stream.check import check_run, check_series
from hitfinder.stream.errors import StoreError
from hitfinder.stream.hitfile import read_columns
from hitfinder.stream.ledger import Unjudged, read_ledger
from hitfinder.stream.recovery import (
    align_rows,
    clear_flags,
    is_being_written,
    is_cut_short,
    lookup3,
)
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import SeriesFolder

# Writes frames of series 5 until it is killed; says after each flush how far it got.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import conftest
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.results import Outcome, Record
from hitfinder.stream.series_folder import SeriesFolder
batch, stop = int(sys.argv[3]), int(sys.argv[4])
start = SeriesStart(series=5, series_uid="uid-5", n_frames=5000, shape=(64, 48), dtype="uint16")
folder = Path(sys.argv[1]) / "series_5_uid-5"
series = SeriesFolder(folder.parent, start, {}, frames_per_file=7, folder=folder)
for first in range(0, stop, batch):
    frames = []
    for f in range(first, first + batch):
        outcome = Outcome.HIT if f % 2 else Outcome.MISS
        record = Record(series=5, frame=f, outcome=outcome, peaks=conftest.peaks_of(2))
        frames.append(JudgedFrame(record, (conftest.bslz4_blob(conftest.image_of(f)),)))
    series.write(frames)
    print(first + batch, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def killed(tmp_path):
    """Return a function that kills a writer after it flushed some frames, at any point."""

    def run(batch: int, after: int, stop: int = 5000) -> tuple[Path, int]:
        here = str(Path(__file__).parent)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), here, str(batch), str(stop)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        flushed = 0
        while flushed < after:
            line = writer.stdout.readline()
            assert line, "the writer ended by itself"
            flushed = int(line)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdin.close()
        writer.stdout.close()
        return tmp_path / "series_5_uid-5", int(rest[-1]) if rest else flushed

    return run


def test_the_checksum_is_lookup3():
    # Known values of the hash's author, lookup3.c.
    text = b"Four score and seven years ago"
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"", 0xDEADBEEF) == 0xBD5B7DDE
    assert lookup3(text) == 0x17770551
    assert lookup3(text, 1) == 0xCD628161


@pytest.mark.system
@pytest.mark.parametrize(("batch", "after"), [(1, 9), (3, 30), (8, 100), (1, 64)])
def test_after_kill_9_a_repair_makes_every_flushed_row_readable(killed, pixels, batch, after):
    folder, flushed = killed(batch, after)
    assert any("run check --repair" in p for p in check_run(folder).problems)
    report = check_run(folder, repair=True)
    assert report.ok, str(report)
    assert report.repairs
    found = {}
    for path in sorted(folder.glob("hits_*.h5")):
        with h5py.File(path, "r") as file:  # not SWMR: as CrystFEL and DIALS open it
            for row, frame in enumerate(file["entry/hitfinder/frame"][:].tolist()):
                found[frame] = path.name
                np.testing.assert_array_equal(file["entry/data/data"][row], pixels(frame))
    assert {f for f in range(flushed) if f % 2} <= set(found)
    rows = read_ledger(folder / "ledger.h5")
    assert sorted(rows["frame"].tolist()) == list(range(5000))
    judged = np.isin(rows["outcome"], [b"hit", b"miss"])
    assert set(range(flushed)) <= set(rows["frame"][judged].tolist())
    assert check_run(folder, repair=True).repairs == ()


# Lets files grow to 400 kB, as a disk that fills up; writes until that is refused.
FULL_DISK = WRITER.replace(
    "for first in",
    """
import resource, signal
from hitfinder.stream.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
def stop_at_error(kind, error, trace):
    assert kind is StoreError, error
    try:
        series.close({}, [], "end")
    except StoreError as refused:
        assert "an earlier write failed" in str(refused)
        print("refused", flush=True)
sys.excepthook = stop_at_error
for first in""",
).replace("frames_per_file=7", "frames_per_file=1000")


@pytest.mark.system
def test_a_full_disk_is_an_error_and_loses_no_flushed_row(tmp_path):
    here = str(Path(__file__).parent)
    writer = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), here, "3", "5000"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=60,
    )
    *counts, last = writer.stdout.decode().split()
    assert last == "refused", writer.stderr.decode()
    report = check_run(tmp_path, repair=True)
    assert report.ok, str(report)
    rows = read_ledger(tmp_path / "series_5_uid-5" / "ledger.h5")
    judged = rows["frame"][np.isin(rows["outcome"], [b"hit", b"miss"])]
    assert set(range(int(counts[-1]))) <= set(judged.tolist())


@pytest.mark.system
def test_a_killed_sink_is_carried_on_without_a_frame_twice(killed, judged):
    folder, flushed = killed(3, 21)
    series = SeriesFolder.resume(folder)
    names = {p.name for p in folder.glob("hits_*.h5")}
    again = [judged(f, Outcome.HIT if f % 2 else Outcome.MISS) for f in range(flushed + 10)]
    places = series.write(again)
    assert all(name is not None for (name, _), f in zip(places, again, strict=True)
               if f.record.outcome is Outcome.HIT)  # fmt: skip
    series.close({}, [Unjudged(np.arange(5000), Outcome.MISSING, "never came")], "end")
    assert list(check_series(folder)) == []
    hits = [f for p in folder.glob("hits_*.h5") for f in read_columns(p)["frame"].tolist()]
    assert len(hits) == len(set(hits))
    assert names < {p.name for p in folder.glob("hits_*.h5")}


@pytest.mark.system
def test_a_folder_whose_writer_lives_is_left_alone(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    series.write([judged(0)])
    assert is_being_written(series.folder)
    report = check_run(tmp_path, repair=True)
    assert not report.ok
    assert is_cut_short(series.folder / "hits_000001.h5")
    series.write([judged(1)])
    series.close({}, [Unjudged(np.arange(40), Outcome.MISSING, "never came")], "end")
    assert not is_being_written(series.folder)
    assert check_run(tmp_path).ok


def test_frames_stored_without_a_ledger_row_get_it_from_the_hit_file(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    series.write([judged(f) for f in range(4)])
    series.close({}, [], "end")
    with h5py.File(series.folder / "ledger.h5", "r+") as file:
        file["ledger"].resize(2, axis=0)  # as if killed between the two flushes
    again = SeriesFolder.resume(series.folder)
    assert again.write([judged(3)]) == [("hits_000001.h5", 3)]
    again.close({}, [Unjudged(np.arange(40), Outcome.MISSING, "never came")], "end")
    assert list(check_series(series.folder)) == []
    rows = read_ledger(series.folder / "ledger.h5")
    assert rows["p_hit"][:4].tolist() == [0.75] * 4


def test_datasets_of_unequal_length_are_cut_to_the_whole_rows(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    series.write([judged(f) for f in range(4)])
    series.close({}, [], "end")
    path = series.folder / "hits_000001.h5"
    with h5py.File(path, "r+") as file:
        file["entry/data/data"].resize(6, axis=0)
        file["entry/hitfinder/frame"].resize(5, axis=0)  # its fifth row was never written
        file["entry/result/nPeaks"].resize(5, axis=0)
        for name in file["entry/hitfinder"]:
            file["entry/hitfinder"][name].resize(5, axis=0)
        for name in file["entry/result"]:
            file["entry/result"][name].resize(5, axis=0)
    assert align_rows(path) == 4
    assert len(read_columns(path)) == 4


def test_a_file_that_is_not_flagged_is_not_touched(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})
    series.write([judged(0)])
    series.close({}, [], "end")
    path = series.folder / "hits_000001.h5"
    before = path.read_bytes()
    assert clear_flags(path) is False
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "text", "old superblock", "checksum"])
def test_a_damaged_superblock_is_an_error_and_left_as_it_is(tmp_path, damage):
    path = tmp_path / "hits_000001.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["x"] = 1
    head = bytearray(path.read_bytes())
    match damage:
        case "empty":
            head = bytearray()
        case "text":
            head[:8] = b"not HDF5"
        case "old superblock":
            head[8] = 0
        case "checksum":
            head[11] = 5
    path.write_bytes(head)
    with pytest.raises(StoreError, match=r"hits_000001\.h5"):
        clear_flags(path)
    assert path.read_bytes() == bytes(head)


def test_a_folder_killed_before_its_first_frame_is_said_to_hold_nothing(tmp_path):
    folder = tmp_path / "series_1_x"
    folder.mkdir()
    (folder / "ledger.h5.part").write_bytes(b"half a file")
    report = check_run(tmp_path, repair=True)
    assert any("no frame was ever written" in p for p in report.problems)
