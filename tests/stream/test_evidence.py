"""Counts of a series in shared memory: added once each, whole for every reader, claimed by one."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from hitfinder.stream.evidence import Evidence
from hitfinder.stream.messages import FrameHeader
from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.stream.series import SeriesTable

N_BINS = 5
ONE, EXPOSURE = np.arange(N_BINS, dtype=np.float64), np.full(N_BINS, 16.0)


@pytest.fixture
def ring() -> Iterator[Ring]:
    layout = Layout(n_slots=4, slot_bytes=1 << 12)
    fd = create_memory(layout)
    yield Ring(fd, layout)
    os.close(fd)


@pytest.fixture
def entry(ring: Ring) -> int:
    entry = SeriesTable(ring).entry_for_frame(7, "UID", now_ns=1)
    assert entry is not None
    return entry


def slot_of(ring: Ring, entry: int, frame: int) -> int:
    slot = ring.take_free()
    assert slot is not None
    key = int(ring.series["key"][entry])
    ring.describe(slot, FrameHeader(7, frame, "UID"), key=key, t_received_ns=5)
    return slot


def test_workers_add_up(ring: Ring, entry: int) -> None:
    evidence = Evidence(ring)
    for frame, role in enumerate((2, 3, 2)):
        evidence.add(entry, role, slot_of(ring, entry, frame), 1, ONE, EXPOSURE, is_hit=False)
    total = Evidence(Ring(ring.fd, ring.layout)).total(entry, 1, N_BINS, is_hit=False)
    np.testing.assert_array_equal(total.counts, 3 * ONE)
    np.testing.assert_array_equal(total.exposure, 3 * EXPOSURE)
    assert total.n_frames == evidence.n_frames(entry) == 3


def test_a_frame_that_is_judged_again_counts_once(ring: Ring, entry: int) -> None:
    evidence, slot = Evidence(ring), slot_of(ring, entry, 0)
    evidence.add(entry, 2, slot, 1, ONE, EXPOSURE, is_hit=False)
    evidence.add(
        entry, 3, slot, 1, ONE, EXPOSURE, is_hit=True
    )  # its worker died before handing it on
    assert evidence.n_frames(entry) == 1


def test_a_worker_killed_while_adding_leaves_its_last_whole_frame(ring: Ring, entry: int) -> None:
    evidence = Evidence(ring)
    evidence.add(entry, 2, slot_of(ring, entry, 0), 1, ONE, EXPOSURE, is_hit=False)
    place = ring.evidence[entry, 2, 0]
    place["copies"][1 - int(place["active"])]["counts"] = np.nan  # half written
    np.testing.assert_array_equal(evidence.total(entry, 1, N_BINS, is_hit=False).counts, ONE)
    evidence.add(entry, 2, slot_of(ring, entry, 1), 1, ONE, EXPOSURE, is_hit=False)
    np.testing.assert_array_equal(evidence.total(entry, 1, N_BINS, is_hit=False).counts, 2 * ONE)


def test_a_later_header_forgets_what_was_counted_before(ring: Ring, entry: int) -> None:
    evidence = Evidence(ring)
    evidence.add(entry, 2, slot_of(ring, entry, 0), 0, ONE, EXPOSURE, is_hit=False)
    evidence.add(entry, 3, slot_of(ring, entry, 1), 1, ONE[:4], EXPOSURE[:4], is_hit=False)
    assert evidence.n_frames(entry) == 1
    assert evidence.total(entry, 1, 4, is_hit=False).n_frames == 1


def test_the_next_series_in_an_entry_starts_from_nothing(ring: Ring, entry: int) -> None:
    evidence = Evidence(ring)
    evidence.add(entry, 2, slot_of(ring, entry, 0), 1, ONE, EXPOSURE, is_hit=False)
    evidence.store(entry, {"n_frames": 1, "look": -1})
    assert evidence.is_settled(entry)
    ring.series["key"][entry] += 1
    assert evidence.estimate(entry) is None
    assert evidence.n_frames(entry) == 0


def test_an_estimate_is_claimed_by_one_worker_a_period(ring: Ring, entry: int) -> None:
    evidence = Evidence(ring)
    claims = [evidence.claim(entry, now_ms, 1000) for now_ms in (5000, 5001, 5999, 6000)]
    assert claims == [True, False, False, True]


def test_what_was_not_looked_at_is_published_as_unknown(ring: Ring, entry: int) -> None:
    evidence = Evidence(ring)
    evidence.store(entry, {"n_frames": 3, "look": -1, "header_chance": np.nan})
    said = evidence.said(entry)
    assert said is not None
    assert said["n_frames"] == 3
    assert said["header_mismatch"] is None
    evidence.store(entry, {"look": 0, "header_chance": 0.5, "header_mismatch": False})
    said = evidence.said(entry)
    assert said is not None
    assert said["header_mismatch"] is False
