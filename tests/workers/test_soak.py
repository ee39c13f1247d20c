"""A soak's account names each frame that does not add up, and is silent where all do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hitfinder.sim.faults import AppliedFault
from hitfinder.stream.ledger import Unjudged
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.results import Outcome, Record
from hitfinder.stream.series_folder import JudgedFrame, SeriesFolder
from hitfinder.workers.soak_account import Account, Sample, as_markdown
from hitfinder.workers.soak_beam import Sent
from hitfinder.workers.soak_watch import Topic, hits_not_where_said

N_FRAMES, UID = 200, "UID1"
GAP = (7, 8)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """Return what a soak with one series saw, of which two frames never left."""
    folder = SeriesFolder(tmp_path, SeriesStart(1, UID, n_frames=N_FRAMES), {})
    judged = [k for k in range(N_FRAMES) if k not in GAP]
    folder.write(
        [
            JudgedFrame(Record(series=1, series_uid=UID, frame=k, outcome=Outcome.MISS))
            for k in judged
        ]
    )
    missing = Unjudged(np.array(GAP), Outcome.MISSING, "announced, not received")
    folder.close({}, [missing], "ended")
    account = Account(tmp_path, exit_status=0)
    faults = tuple(AppliedFault(1, k, "gap") for k in GAP)
    account.sent = [Sent(UID, N_FRAMES, faults, 0)]
    topic = Topic()
    topic.take("series.start", {"series_uid": UID, "n_frames": N_FRAMES})
    for k in range(N_FRAMES):
        outcome = "missing" if k in GAP else "miss"
        topic.take("result.miss", {"series_uid": UID, "frame": k, "outcome": outcome})
    end = {"series_uid": UID, "announced": N_FRAMES, "balanced": True}
    topic.take("series.end", {**end, "folder": folder.folder.name})
    account.topics = [topic]
    return account


def test_a_sound_soak_is_silent_and_counted(account):
    account.close()
    assert account.problems == []
    assert account.figures["left_whole"] == N_FRAMES - len(GAP)
    assert account.figures["judged_share"] == 1.0
    assert account.figures["by_fault"] == {"gap": {"missing: announced, not received": 2}}
    assert "nothing amiss" in as_markdown(account, "soak")


def test_a_second_verdict_is_named(account):
    account.topics[0].take("result.miss", {"series_uid": UID, "frame": 3, "outcome": "miss"})
    account.close()
    assert account.problems == ["1 frames have two verdicts"]


def test_a_verdict_that_the_ledger_does_not_know_is_named(account):
    account.topics[0].verdicts[UID][3] = "hit"
    account.close()
    assert account.problems == [f"series_1_{UID}: ledger and topic differ"]


def test_a_verdict_that_was_never_published_is_named(account):
    del account.topics[0].verdicts[UID][3]
    account.close()
    assert account.problems[0] == (
        f"series_1_{UID}: {N_FRAMES} frames announced, {N_FRAMES - 1} verdicts on the topic"
    )


def test_too_few_judged_frames_and_an_exit_status_are_named(account):
    account.sent = [Sent(UID, N_FRAMES, (), 0)]  # nothing happened to the two, and yet
    account.sent += [Sent("UID2", 1, (), 0)]
    account.exit_status = 1
    account.close()
    assert account.problems == [
        "the daemon ended with status 1",
        "98.51% of the frames that left whole were judged",
    ]


def test_memory_and_handles_that_grow_are_named(account):
    account.samples = [Sample(t, "sink", 5, 50.0 + t / 10, 9) for t in range(0, 3600, 5)]
    account.samples += [Sample(t, "worker", 6, 200.0, 9 + t / 100) for t in range(0, 3600, 5)]
    account.samples += [Sample(t, "receiver", 7, 25.0, 18) for t in range(0, 3600, 5)]
    account.close()
    assert [p.split(":")[0] for p in account.problems] == ["sink grew", "worker grew"]


def test_a_published_hit_that_no_file_holds_is_named(account, tmp_path):
    hit = {"series_uid": UID, "frame": 3, "outcome": "hit", "file": "hits_000001.h5", "row": 0}
    account.topics[0].take("result.hit", hit)
    (said,) = hits_not_where_said(account.topics[0], tmp_path)
    assert said == f"hit 3 of {UID}: hits_000001.h5 is not there"
