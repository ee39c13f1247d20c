"""A change holds from a stated frame on, for every process alike."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hitfinder.stream.controls import AS_CONFIGURED, Controls, Replacement
from hitfinder.stream.messages import SeriesEnd, SeriesStart
from hitfinder.stream.ring import MAX_CHANGES, Layout, Ring, Seen, create_memory
from hitfinder.stream.series import SeriesTable

LAYOUT = Layout(8, 4096)


@pytest.fixture
def ring() -> Iterator[Ring]:
    """Yield a ring of its own."""
    fd = create_memory(LAYOUT)
    yield Ring(fd, LAYOUT)
    os.close(fd)


def opened(ring: Ring, series: int, latest: int) -> int:
    """Open a series whose latest frame has this number; returns its key."""
    table = SeriesTable(ring)
    entry = table.start(SeriesStart(series=series, n_frames=1000), 0)
    assert entry is not None
    if latest >= 0:
        table.mark(entry, latest, Seen.RECEIVED)
    return int(ring.series["key"][entry])


def test_nothing_is_changed_at_first(ring: Ring) -> None:
    assert Controls(ring).at(1, 0) is AS_CONFIGURED


def test_a_change_begins_beyond_what_the_ring_can_hold(ring: Ring) -> None:
    key = opened(ring, 12, 99)
    change = Controls(ring).put(threshold=0.5)
    assert (change.series, change.frame) == (12, 100 + LAYOUT.n_slots)
    # Another process, which maps the same memory.
    seen = Controls(Ring(ring.fd, LAYOUT))
    assert seen.at(key, change.frame - 1) is AS_CONFIGURED
    for later in ((key, change.frame), (key, 5000), (key + 1, 0)):
        found = seen.at(*later)
        assert (found.threshold, found.miss_sample_fraction) == (0.5, None)


def test_between_series_it_begins_with_the_next(ring: Ring) -> None:
    opened(ring, 12, 99)
    SeriesTable(ring).end(SeriesEnd(12), 1)
    controls = Controls(ring)
    change = controls.put(miss_sample_fraction=1.0)
    assert (change.series, change.frame) == (None, 0)
    key = opened(ring, 13, -1)
    assert controls.at(key - 1, 500) is AS_CONFIGURED
    found = controls.at(key, 0)
    assert found.miss_sample_fraction == 1.0


def test_what_is_not_named_stays(ring: Ring) -> None:
    key, controls = opened(ring, 12, 10), Controls(ring)
    first = controls.put(threshold=0.5)
    second = controls.put(miss_sample_fraction=0.25)
    assert (second.threshold, second.miss_sample_fraction) == (0.5, 0.25)
    # Both begin at one frame; the later one holds.
    assert first[:2] == second[:2]
    assert controls.at(key, second.frame) == second


def test_a_change_that_was_put_off_is_not_overtaken(ring: Ring) -> None:
    controls = Controls(ring)
    waiting = controls.put(threshold=0.5)  # for the first series, which is to come
    assert controls.put(threshold=0.6)[:2] == waiting[:2]
    key = opened(ring, 1, 20)
    third = controls.put(threshold=0.7)
    assert [c.threshold for c in controls.all()] == [0.5, 0.6, 0.7]
    before, after = controls.at(key, 20), controls.at(key, third.frame)
    assert (before.threshold, after.threshold) == (0.6, 0.7)


def test_a_model_and_a_mask_stay_until_they_are_replaced(ring: Ring) -> None:
    key, controls = opened(ring, 12, 10), Controls(ring)
    model, mask = "a1" * 32, "b2" * 32
    controls.put(model=Replacement(model), mask=Replacement(mask))
    change = controls.put(threshold=0.5)
    assert (change.model, change.mask, change.n_masks) == (model, mask, 1)
    seen = Controls(Ring(ring.fd, LAYOUT)).at(key, change.frame)
    assert seen == change
    assert seen.values()["mask"] == mask[:12]
    back = controls.put(mask=Replacement(None))
    # The third mask, though it is the first again: what is learned under it is another list.
    assert (back.model, back.mask, back.n_masks) == (model, None, 2)


def test_the_table_is_bounded(ring: Ring) -> None:
    controls = Controls(ring)
    for _ in range(MAX_CHANGES):
        controls.put(threshold=0.5)
    with pytest.raises(ValueError, match="restart"):
        controls.put(threshold=0.6)
    assert {c.threshold for c in controls.all()} == {0.5}
