"""A detector's bad days, one after the other on one daemon: each with its exact verdicts.

`simulate --faults` makes them; a verdict is a letter: j judged, m missing, c corrupt, a dot for a
frame that nobody announced. At the end `check` finds that all of it adds up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.system.daemon import Closed, Daemon, command, free_port, kept_images
from tests.system.faults_table import tell

from hitfinder.sim.simulate import SimulateOptions, SimulateReport, simulate

pytestmark = pytest.mark.system

N_FRAMES = 10
WHOLE = "j" * N_FRAMES
LETTERS = {"hit": "j", "miss": "j", "missing": "m", "corrupt": "c"}


@dataclass(frozen=True, slots=True)
class Day:
    """One run of the simulator.

    Attributes:
        verdicts: expected of each series, a letter a frame.
        reasons: why each series closed.
        series: numbers that the detector gives them.
    """

    verdicts: tuple[str, ...]
    reasons: tuple[str, ...] = ("ended", "ended")
    series: tuple[int, ...] = (1, 2)


DAYS = {
    "": Day((WHOLE,)),
    "late:4": Day(("....jjjjjj",)),
    "no-header": Day((WHOLE,)),
    "no-end": Day((WHOLE,), ("complete, no end message",)),
    "gap:3-5": Day(("jjjmmmjjjj",)),
    "reorder:5": Day((WHOLE,)),
    "disconnect:5": Day((WHOLE,)),
    "promise:14": Day((WHOLE + "mmmm",)),
    "promise:7": Day((WHOLE,)),
    "cancel:6": Day(("jjjjjjmmmm", WHOLE)),
    "abort:8": Day(("jjjjmmmmmm", WHOLE)),
    "rearm:6": Day(("jjjjjjmmmm", WHOLE), ("superseded", "ended")),
    "initialize:6": Day(("jjjjjjmmmm", WHOLE), series=(1, 1)),
    "interleave:5": Day((WHOLE, WHOLE), ("superseded", "ended")),
    "shape": Day((WHOLE, WHOLE)),
    "depth": Day((WHOLE, WHOLE)),
    # Dealt to five in turn: header, 4 and 9 of the first; 2 and 7, without header, of the second.
    "thief:5": Day(("mmmmjmmmmj", "..jmmmmj"), ("superseded", "superseded")),
    "reorder:4,gap:2-2,no-end": Day(("jjmjjjjjjj",), ("superseded",)),
}
BY_CHANCE = "drop:0.2,duplicate:0.2,corrupt:0.2,truncate:0.2"


@dataclass(frozen=True, slots=True)
class Beamtime:
    """What was sent and what the daemon made of it, by the faults that were asked for."""

    daemon: Daemon
    reports: dict[str, SimulateReport]
    n_stale: int

    def closed(self, faults: str) -> list[Closed]:
        """Return the series of one run, in the order in which they were armed."""
        numbers = DAYS[faults].series if faults in DAYS else (1,)
        uids = self.reports[faults].uids
        return [
            self.daemon.closed(number, uid=uid) for number, uid in zip(numbers, uids, strict=False)
        ]


@pytest.fixture(scope="module")
def beamtime(tmp_path_factory) -> Iterator[Beamtime]:
    source = f"tcp://127.0.0.1:{free_port()}"
    config = "[sink]\nmiss_sample_fraction = 1.0\n"
    folder = tmp_path_factory.mktemp("faults")
    with Daemon(folder, "run", "--source", source, config=config) as daemon:
        daemon.wait_ready()
        reports = {}
        for faults in (*DAYS, BY_CHANCE, "the end"):
            reports[faults] = simulate(
                SimulateOptions(
                    bind=source,
                    frames=N_FRAMES,
                    series=len(DAYS[faults].verdicts) if faults in DAYS else 1,
                    rate_Hz=None,
                    shape=(128, 128),
                    pool=2,
                    faults="" if faults == "the end" else faults,
                    progress=False,
                )
            )
            if faults == "no-end":  # before another header ends it
                daemon.closed(1, uid=reports[faults].uids[0])
        daemon.closed(1, uid=reports["the end"].uids[0])
        daemon.wait_status(lambda s: s["n_series_open"] == 0, "the end of all series")
        yield Beamtime(daemon, reports, daemon.status["n_stale"])


def letters(closed: Closed) -> str:
    """Return the verdicts, a letter a frame."""
    last = max(closed.outcomes)
    return "".join(LETTERS.get(closed.outcomes.get(k, ""), ".") for k in range(last + 1))


@pytest.mark.parametrize("faults", DAYS)
def test_each_fault_has_its_exact_verdicts(beamtime, faults, record_property):
    closed = beamtime.closed(faults)
    found = [letters(c) for c in closed]
    tell(record_property, faults or "none", DAYS[faults].verdicts, found)
    assert found == list(DAYS[faults].verdicts)
    assert tuple(c.end["reason"] for c in closed) == DAYS[faults].reasons[: len(closed)]
    assert [c.end["duplicate"] + c.end["late"] for c in closed] == [0] * len(closed)


def test_faults_by_chance_have_the_verdicts_that_the_simulator_noted(beamtime, record_property):
    (closed,) = beamtime.closed(BY_CHANCE)
    made = {f.frame: f.kind for f in beamtime.reports[BY_CHANCE].faults}
    assert set(made.values()) == {"drop", "duplicate", "corrupt", "truncate"}
    letter = {"drop": "m", "corrupt": "c", "truncate": "c"}
    wanted = "".join(letter.get(made.get(k, ""), "j") for k in range(N_FRAMES))
    tell(record_property, BY_CHANCE, [wanted], [letters(closed)])
    assert letters(closed) == wanted
    assert closed.end["duplicate"] == Counter(made.values())["duplicate"]


def test_the_end_of_a_superseded_series_is_stale(beamtime):
    assert beamtime.n_stale == 1  # of the interleaved day


@pytest.mark.parametrize(
    ("faults", "kept"),
    [
        ("shape", [((64, 128), "uint16"), ((128, 128), "uint16")]),
        ("depth", [((128, 128), "uint32"), ((128, 128), "uint16")]),
    ],
)
def test_series_of_another_shape_or_depth_are_kept_as_they_were_sent(beamtime, faults, kept):
    for closed, (shape, dtype) in zip(beamtime.closed(faults), kept, strict=True):
        images = [
            image for frame in kept_images(closed.folder).values() for image in frame.values()
        ]
        assert [(i.shape, i.dtype.name) for i in images] == [(shape, dtype)] * N_FRAMES


def test_all_of_it_adds_up_and_no_child_died(beamtime):
    daemon = beamtime.daemon
    assert daemon.terminate() == 0, daemon.log
    assert [child["starts"] for child in daemon.status["children"]] == [1, 1, 1]
    checked = command("check", str(daemon.out))
    n_series = sum(report.n_series for report in beamtime.reports.values())
    assert checked.stdout.endswith(f"{n_series} series checked: adds up\n"), checked.stdout
