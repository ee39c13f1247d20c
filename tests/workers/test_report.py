"""The report: one file by itself, its counts those of the ledger, whatever the state of the run.

The page is read as a browser would: with an HTML parser, pictures decoded. Counts are compared
with what the daemon published and with the ledger as h5py reads it.
"""

from __future__ import annotations

import base64
import io
import os
import re
import signal
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import h5py
import matplotlib.image
import numpy as np
import pytest
from tests.system.daemon import Daemon, Detector, running, wait_for
from tests.system.frames import wire_series

from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.ledger import Unjudged
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.results import Outcome, Record
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.workers.cli import main

OUTCOMES = ("hit", "miss", "dropped", "corrupt", "lost", "missing")
VOID = {"meta", "img", "br", "!doctype"}
CONFIG = "[sink]\nmiss_sample_fraction = 1.0\n"


class Page(HTMLParser):
    """A page taken apart: tables, texts, pictures; fails on tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: Counter[str] = Counter()
        self.pictures: list[tuple[str, bytes]] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        said = dict(attrs)
        self.links += [v for k in ("src", "href", "srcset", "data") if (v := said.get(k))]
        if tag == "img":
            head, _, body = (said["src"] or "").partition(";base64,")
            self.pictures.append((head.removeprefix("data:image/"), base64.b64decode(body)))
            assert said["alt"]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def numbers(self, title: str, column: int = -1) -> dict[str, int]:
        """Return first cell -> a whole number, of the table with a cell of that title."""
        (table,) = [t for t in self.tables if any(title in row for row in t)]
        cells = {row[0]: row[column].replace("\u202f", "") for row in table}
        return {name: int(cell) for name, cell in cells.items() if cell.isdigit()}

    def check_alone(self) -> None:
        """Fail if the page needs anything beside it, or a picture is none."""
        assert not {"script", "link", "iframe", "object", "base"} & set(self.tags)
        assert [link for link in self.links if not link.startswith("data:image/")] == []
        for kind, data in self.pictures:
            if kind == "png":
                assert matplotlib.image.imread(io.BytesIO(data)).shape[2] in (3, 4)
            else:
                assert kind == "svg+xml"
                assert ElementTree.fromstring(data).tag.endswith("svg")
                assert b'href="http' not in data


def report(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(["report", *(str(a) for a in arguments)])
    return int(left.value.code or 0)


def page_of(run: Path, out: Path) -> Page:
    assert report(run, "--out", out) == 0
    page = Page(out)
    page.check_alone()
    return page


def ledger_counts(run: Path) -> dict[str, int]:
    found: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
    for path in run.glob("series_*/ledger.h5"):
        with h5py.File(path, "r", libver="latest", swmr=True) as file:
            found.update(o.decode() for o in file["ledger"].fields("outcome")[:].tolist())
    return dict(found)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of three series: hits, a frame that is no image, blanks."""
    folder = tmp_path_factory.mktemp("run")
    series = [
        wire_series("v2", 3, 24, has_spots=True, hot_pixels=[500, 9000]),
        wire_series("v1", 4, 12, has_spots=True),
        wire_series("v2", 5, 6),
    ]
    series[1].images[5][2] = series[1].images[5][2][:40]
    del series[1].images[8]
    with Detector() as detector, running(folder, detector, config=CONFIG) as daemon:
        for one in series:
            detector.send(*one.messages)
        for one in series:
            daemon.closed(one.number)
        assert daemon.terminate() == 0, daemon.log
    return daemon.out


@pytest.mark.system
def test_the_page_counts_what_the_ledgers_hold(run: Path, tmp_path: Path) -> None:
    page, counts = page_of(run, tmp_path / "report.html"), ledger_counts(run)
    assert counts["hit"] >= 12
    assert counts["corrupt"] == counts["missing"] == 1
    said = page.numbers("dropped", column=2)
    assert {name: said[name] for name in OUTCOMES} == counts
    assert said["sum"] == said["announced"] == sum(counts.values()) == 42
    n_judged = counts["hit"] + counts["miss"]
    assert f"{counts['hit']} hits of {n_judged} judged frames" in page.text
    reasons = page.numbers("neither hit nor miss")
    assert reasons == {"corrupt": 1, "missing": 1}
    by_series = page.numbers("header eV", column=4)
    assert sum(by_series.values()) == counts["hit"]
    assert sorted(by_series) == ["3", "4", "5"]


@pytest.mark.system
def test_the_page_shows_hits_sums_and_settings(run: Path, tmp_path: Path) -> None:
    page = page_of(run, tmp_path / "report.html")
    kinds = Counter(kind for kind, _ in page.pictures)
    assert kinds["svg+xml"] == 8
    assert kinds["png"] >= 6 + 3
    for words in ("most spots", "kept misses", "sum of", "hot", "sha256", "gate.mode", "header"):
        assert words in page.text
    assert "indexamajig -i hits.lst -g detector.geom --peaks=cxi" in page.text
    assert "dials.import" in page.text
    assert "not closed" not in page.text
    assert (tmp_path / "report.html").stat().st_size < 5e6


@pytest.mark.system
def test_one_series_folder_is_reported_by_itself(run: Path, tmp_path: Path) -> None:
    (folder,) = run.glob("series_4_*")
    page = page_of(folder, tmp_path / "four.html")
    assert page.numbers("dropped", column=2)["sum"] == 12
    assert list(page.numbers("header eV", column=4)) == ["4"]


@pytest.mark.system
def test_without_a_name_the_page_stands_in_the_run_and_disturbs_no_check(run: Path) -> None:
    assert report(run) == 0
    assert (run / "report.html").exists()
    with pytest.raises(SystemExit) as left:
        main(["check", str(run)])
    assert left.value.code == 0
    (run / "report.html").unlink()


@pytest.mark.system
def test_a_run_is_reported_while_it_is_written_and_after_a_kill(tmp_path: Path) -> None:
    series = wire_series("v2", 7, 16, has_spots=True)
    with Detector() as detector, running(tmp_path, detector, config=CONFIG) as daemon:
        detector.send(series.start, *series.images[:10])
        wait_for(lambda: len(daemon.records) == 10, "ten verdicts")
        page = page_of(daemon.out, tmp_path / "open.html")
        assert "series 7: still open: 10 frames have a verdict so far (header: 16)" in page.text
        assert page.numbers("dropped", column=2)["sum"] == 10
        n_hits = sum(r["outcome"] == "hit" for r in daemon.records)
        assert page.numbers("dropped", column=2)["hit"] == n_hits > 0
        assert "most spots" in page.text
        kill_all(daemon)
        page = page_of(daemon.out, tmp_path / "killed.html")
    assert "series 7: not closed, its writer was killed: 10 frames have a verdict" in page.text
    assert page.numbers("dropped", column=2)["hit"] == n_hits
    assert "most spots" in page.text
    assert re.search(r"hitfinder-stream check \S+ --repair", page.text)
    with pytest.raises(SystemExit):
        main(["check", str(daemon.out), "--repair"])
    page = page_of(daemon.out, tmp_path / "mended.html")
    assert "not closed" not in page.text
    assert page.numbers("dropped", column=2)["missing"] == 6


def kill_all(daemon: Daemon) -> None:
    """Kill the supervisor and its children as a power cut would, and wait until they are gone."""
    children = daemon.children().values()
    os.killpg(daemon.process.pid, signal.SIGKILL)
    for pid in children:
        wait_for(lambda pid=pid: not is_running(pid), f"the end of {pid}")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(**changed: object) -> SeriesStart:
    whole = SeriesStart(
        series=1,
        series_uid="uid",
        n_frames=4,
        shape=(64, 48),
        dtype="uint16",
        photon_energy_eV=7000.0,
        clen_m=0.25,
        beam_center_px=(20.0, 30.0),
        pixel_size_m=(75e-6, 75e-6),
    )
    return replace(whole, **changed)  # type: ignore[arg-type]


def unseen(n: int) -> list[Unjudged]:
    return [Unjudged(np.arange(n), Outcome.MISSING, "never came")]


def test_a_series_that_nothing_came_of_is_reported(tmp_path: Path) -> None:
    n = 70_000  # more than are read at once
    SeriesFolder(tmp_path, start(n_frames=n), {}).close({}, unseen(n), "end")
    page = page_of(tmp_path, tmp_path / "report.html")
    assert page.numbers("dropped", column=2)["missing"] == n
    assert "0 hits of 0 judged frames: ?" in page.text
    assert "No hit is shown" in page.text


def test_an_unlimited_series_without_a_frame_or_a_geometry_is_reported(tmp_path: Path) -> None:
    changes = [{"frame": 46, "threshold": 0.25, "model": None, "mask": "b2" * 6}]
    series = SeriesFolder(tmp_path, SeriesStart(series=9), {})
    series.close({}, [], "stopped", extra={"changes": changes})
    page = page_of(tmp_path, tmp_path / "report.html")
    assert page.numbers("dropped", column=2)["sum"] == 0
    assert "1 did not say" in page.text
    assert f"changed: series 9 from frame 46 on: threshold 0.25, mask {'b2' * 6}" in page.text


def test_a_run_of_misses_that_know_nothing_else_is_reported(tmp_path: Path) -> None:
    series = SeriesFolder(tmp_path, SeriesStart(series=9), {})
    common = {"series": 9, "outcome": Outcome.MISS, "p_hit": 0.1}
    frames = [Record(frame=k, t_received_ns=10**18 + k * 10**6, **common) for k in range(30)]
    series.write([JudgedFrame(f) for f in frames])
    series.close({}, [], "end")
    page = page_of(tmp_path, tmp_path / "report.html")
    assert page.numbers("dropped", column=2)["miss"] == 30
    assert "2001-09-09 01:46:40" in page.text  # 1e18 ns
    assert "1000.0 while a series ran" in page.text
    assert Counter(kind for kind, _ in page.pictures) == {"svg+xml": 4}


def test_alarms_and_odd_headers_stand_at_the_top_and_nothing_in_them_is_markup(
    tmp_path: Path,
) -> None:
    evil = "<script>alert(1)</script>"
    header = start(detector=evil, warnings=(f"{evil} is odd",))
    series = SeriesFolder(tmp_path, header, {"config": evil, "version": evil})
    series.write([JudgedFrame(Record(series=1, frame=0, outcome=Outcome.CORRUPT, reason=evil))])
    series.close({"hit": 3}, unseen(4), "end", alarms=[f"{evil} rang"])
    page = page_of(tmp_path, tmp_path / "report.html")
    top = page.text[: page.text.index("What became of every frame")]
    assert f"series 1: {evil} rang" in top
    assert f"series 1, header: {evil} is odd" in top
    assert "3 frames were counted as hit, the ledger has 0" in top
    assert page.text.count(evil) >= 5


def test_a_series_that_cannot_be_read_is_named_and_the_others_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hitfinder.stream.apart.PATIENCE_S", 1.0)
    for number in (1, 2, 4):
        SeriesFolder(tmp_path, start(series=number), {}).close({}, unseen(4), "end")
    (tmp_path / "series_1_uid" / "ledger.h5").write_bytes(b"gone")
    looped = tmp_path / "series_4_uid" / "ledger.h5"  # over by HDF5: its texts are zeros
    content = looped.read_bytes()
    kept = content.index(b"GCOL") + 100
    looped.write_bytes(content[:kept] + bytes(len(content) - kept))
    (tmp_path / "series_3_uid").mkdir()
    page = page_of(tmp_path, tmp_path / "report.html")
    assert "series_1_uid/ledger.h5: cannot be read" in page.text
    assert "series_3_uid: no ledger.h5" in page.text
    assert "series_4_uid: HDF5 has not come back" in page.text
    assert page.numbers("dropped", column=2)["missing"] == 4


@pytest.mark.system
def test_images_that_are_not_there_any_more_are_said_to_be(run: Path, tmp_path: Path) -> None:
    moved = list(run.glob("series_3_*/hits_*.h5"))
    for path in moved:
        path.rename(path.with_suffix(".away"))
    try:
        (folder,) = run.glob("series_3_*")
        page = page_of(folder, tmp_path / "report.html")
    finally:
        for path in moved:
            path.with_suffix(".away").rename(path)
    assert "No hit is shown" in page.text
    assert page.numbers("dropped", column=2)["hit"] >= 12


@pytest.mark.parametrize(
    ("run_name", "out", "status", "word"),
    [
        ("absent", "r.html", 2, "no such folder"),
        ("file.h5", "r.html", 2, "no such folder"),
        ("empty", "r.html", 2, "series_*/ledger.h5"),
        ("one", "empty", 2, "is a folder"),
        ("one", "absent/r.html", 1, "--out"),
    ],
)
def test_wrong_usage_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    run_name: str,
    out: str,
    status: int,
    word: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.h5").touch()
    SeriesFolder(tmp_path / "one", start(), {}).close({}, unseen(4), "end")
    assert report(tmp_path / run_name, "--out", tmp_path / out) == status
    assert word in capsys.readouterr().err
    assert not list(tmp_path.glob("r.html*"))
