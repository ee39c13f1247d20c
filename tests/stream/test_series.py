"""The life of a series: what arrives in any order is accounted for exactly once."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.stream.messages import SeriesEnd, SeriesStart
from hitfinder.stream.ring import MAX_SERIES, Layout, Ring, Seen, create_memory
from hitfinder.stream.series import (
    COMPLETE_GRACE_S,
    GRACE_S,
    LATE_S,
    OVERTAKEN_S,
    SILENT_S,
    Admission,
    SeriesTable,
)

S = 1_000_000_000


@pytest.fixture
def table() -> Iterator[SeriesTable]:
    layout = Layout(2, 1 << 12)
    fd = create_memory(layout)
    yield SeriesTable(Ring(fd, layout))
    os.close(fd)


def opened(table: SeriesTable, series: int = 1, n: int | None = 3, uid: str | None = None) -> int:
    entry = table.start(SeriesStart(series, uid, n_frames=n), now_ns=0)
    assert entry is not None
    return entry


def take(table: SeriesTable, series: int, frame: int, uid: str | None = None, at_s: float = 0):
    """Do what the intake does with a frame; returns its admission."""
    now_ns = int(at_s * S)
    entry = table.entry_for_frame(series, uid, now_ns)
    assert entry is not None
    admission = table.admit(entry, frame, now_ns)
    if admission is Admission.ADMIT:
        table.mark(entry, frame, Seen.RECEIVED)
    return admission


def close(table: SeriesTable, entry: int, at_s: float = 0.0) -> None:
    """Do what supervisor and sink do to end a series."""
    table.request_close(entry, "ended")
    table.seal_requested()
    table.entries["released"][entry] = 1
    table.entries["t_released_ns"][entry] = int(at_s * S)


def test_a_complete_series_closes_at_its_end_message(table: SeriesTable) -> None:
    entry = opened(table)
    for frame in range(3):
        assert take(table, 1, frame) is Admission.ADMIT
    assert table.wants_closing(entry, 0) is None
    assert table.end(SeriesEnd(1), now_ns=0)
    assert table.wants_closing(entry, 0) == "ended"


def test_frames_may_come_after_the_end_within_the_grace_time(table: SeriesTable) -> None:
    entry = opened(table)
    take(table, 1, 0)
    table.end(SeriesEnd(1), 0)
    assert table.wants_closing(entry, int(0.5 * GRACE_S * S)) is None
    assert take(table, 1, 2, at_s=0.5 * GRACE_S) is Admission.ADMIT
    assert table.wants_closing(entry, int(1.2 * GRACE_S * S)) is None
    assert table.wants_closing(entry, int(1.6 * GRACE_S * S)) == "ended"
    missing, dropped = table.unseen(entry)
    assert list(missing) == [1]
    assert len(dropped) == 0


def test_a_lost_end_message_does_not_keep_a_complete_series_open(table: SeriesTable) -> None:
    entry = opened(table)
    for frame in range(3):
        take(table, 1, frame)
    assert table.wants_closing(entry, int((COMPLETE_GRACE_S + 0.1) * S)) is not None


def test_a_detector_that_falls_silent_is_given_up_late(table: SeriesTable) -> None:
    entry = opened(table)
    take(table, 1, 0)
    assert table.wants_closing(entry, int((SILENT_S - 1) * S)) is None
    assert table.wants_closing(entry, int((SILENT_S + 1) * S)) == "silent"


def test_a_series_whose_end_was_lost_goes_once_a_later_one_has_begun(table: SeriesTable) -> None:
    first = opened(table, 1)
    take(table, 1, 0)
    take(table, 2, 0, at_s=1)  # its header was lost, too
    assert table.wants_closing(first, int((OVERTAKEN_S - 1) * S)) is None
    assert table.wants_closing(first, int((OVERTAKEN_S + 1) * S)) == "superseded"


def test_a_second_start_before_end_closes_the_first_series(table: SeriesTable) -> None:
    first = opened(table, 1)
    take(table, 1, 0)
    second = opened(table, 2)
    assert first != second
    assert table.wants_closing(first, int((GRACE_S + 0.1) * S)) == "superseded"
    assert table.wants_closing(second, int((GRACE_S + 0.1) * S)) is None


def test_a_frame_sent_twice_counts_once(table: SeriesTable) -> None:
    entry = opened(table)
    assert take(table, 1, 1) is Admission.ADMIT
    assert take(table, 1, 1) is Admission.DUPLICATE
    assert table.entries["n_duplicate"][entry] == 1
    assert table.entries["n_received"][entry] == 1


def test_a_frame_of_a_closed_series_is_late_and_opens_nothing(table: SeriesTable) -> None:
    entry = opened(table)
    take(table, 1, 0)
    close(table, entry, at_s=1.0)
    assert take(table, 1, 1, at_s=1.0 + LATE_S / 2) is Admission.LATE
    assert table.entries["n_late"][entry] == 1
    assert table.open_entries() == []


def test_a_series_id_that_restarts_long_after_is_a_new_series(table: SeriesTable) -> None:
    entry = opened(table)
    close(table, entry, at_s=1.0)
    assert take(table, 1, 0, at_s=2.0 + LATE_S) is Admission.ADMIT
    (new,) = table.open_entries()
    assert new != entry


def test_a_header_with_a_used_id_is_a_new_series_at_once(table: SeriesTable) -> None:
    first = opened(table, 1, uid="A")
    take(table, 1, 0, "A")
    second = opened(table, 1, uid="B")
    assert second != first
    assert take(table, 1, 0, "B") is Admission.ADMIT
    assert take(table, 1, 1, "A") is Admission.ADMIT
    assert table.entries["n_received"][first] == 2


def test_the_same_unique_header_again_changes_nothing(table: SeriesTable) -> None:
    entry = opened(table, 1, uid="A")
    take(table, 1, 0, "A")
    assert opened(table, 1, uid="A") == entry
    assert take(table, 1, 0, "A") is Admission.DUPLICATE


def test_a_late_join_has_frames_but_no_count(table: SeriesTable) -> None:
    assert take(table, 9, 5) is Admission.ADMIT
    (entry,) = table.open_entries()
    assert not table.entries["has_start"][entry]
    assert take(table, 9, 8) is Admission.ADMIT
    assert table.announced(entry) == 4
    assert list(table.unseen(entry)[0]) == [6, 7]


def test_a_number_far_beyond_the_announced_is_not_believed(table: SeriesTable) -> None:
    entry = opened(table, n=3)
    assert take(table, 1, 4_000_000) is Admission.ABSURD
    assert take(table, 1, 5) is Admission.ADMIT
    assert table.announced(entry) == 6


def test_a_header_after_the_first_frames_completes_their_series(table: SeriesTable) -> None:
    take(table, 9, 1)
    (entry,) = table.open_entries()
    assert opened(table, 9, n=4) == entry
    assert table.announced(entry) == 4
    assert take(table, 9, 1) is Admission.DUPLICATE


def test_an_end_of_a_series_that_is_not_open_is_stale(table: SeriesTable) -> None:
    opened(table, 1)
    assert not table.end(SeriesEnd(4), 0)
    assert not table.end(SeriesEnd(1, "OTHER"), 0) or table.entries["uid"][0] == b""


def test_more_frames_than_promised_are_all_counted(table: SeriesTable) -> None:
    entry = opened(table, n=2)
    for frame in range(4):
        assert take(table, 1, frame) is Admission.ADMIT
    assert table.announced(entry) == 4


def test_an_entry_is_reused_only_when_released_and_forgets_its_frames(table: SeriesTable) -> None:
    for series in range(1, 3 * MAX_SERIES):
        entry = opened(table, series, n=2)
        assert take(table, series, 0) is Admission.ADMIT
        close(table, entry)
    for series in range(100, 100 + MAX_SERIES):
        opened(table, series)
    assert table.start(SeriesStart(999), 0) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.integers(1, 12),
    st.lists(st.integers(0, 15), max_size=40),
    st.lists(st.integers(0, 15), max_size=5),
)
def test_any_order_repetition_and_loss_adds_up(
    announced: int, frames: list[int], dropped: list[int]
) -> None:
    layout = Layout(2, 1 << 12)
    fd = create_memory(layout)
    table = SeriesTable(Ring(fd, layout))
    entry = opened(table, n=announced)
    admitted = [f for f in frames if take(table, 1, f) is Admission.ADMIT]
    for f in dropped:
        if table.admit(entry, f, 0) is Admission.ADMIT:
            table.mark(entry, f, Seen.DROPPED)
    missing, n_dropped = table.unseen(entry)
    assert len(set(admitted)) == len(admitted)
    total = len(admitted) + len(missing) + len(n_dropped)
    assert total == table.announced(entry) == max([announced, *[f + 1 for f in frames + dropped]])
    os.close(fd)


def test_an_open_series_says_how_many_frames_lack_so_far(table: SeriesTable) -> None:
    entry = opened(table, n=9)
    for frame in (0, 1, 4):
        take(table, 1, frame)
    table.mark(entry, 5, Seen.DROPPED)
    said = {"n_received": 3, "n_dropped": 1, "n_missing": 2}
    assert table.so_far(entry) == said
    take(table, 1, 2)
    assert table.so_far(entry) == {**said, "n_received": 4, "n_missing": 1}


def test_a_series_joined_late_lacks_nothing_before_its_first_frame(table: SeriesTable) -> None:
    take(table, 7, 5)
    entry = table.entry_of(1)
    assert entry is not None
    said = {"n_received": 1, "n_dropped": 0, "n_missing": 0}
    assert table.so_far(entry) == said


def test_time_in_which_the_wire_was_not_read_closes_nothing(table: SeriesTable) -> None:
    entry = opened(table)
    take(table, 1, 0)
    table.end(SeriesEnd(1), now_ns=0)
    table.ring.control["t_unread_ns"][0] = 20 * S  # the ring was full until then
    assert table.wants_closing(entry, int((20 + GRACE_S / 2) * S)) is None
    assert table.wants_closing(entry, int((20 + 2 * GRACE_S) * S)) == "ended"


def test_a_frame_with_the_unique_id_of_a_closed_series_is_late_for_ever(
    table: SeriesTable,
) -> None:
    entry = opened(table, uid="UID")
    close(table, entry)
    assert take(table, 1, 0, "UID", at_s=100 * LATE_S) is Admission.LATE
    assert table.open_entries() == []


def test_nothing_is_missing_of_a_share(table: SeriesTable) -> None:
    table.ring.control["is_share"][0] = 1
    entry = opened(table, n=10)
    for frame in (1, 4, 7):
        take(table, 1, frame)
    table.mark(entry, 8, Seen.DROPPED)
    assert table.announced(entry) == 4
    missing, dropped = table.unseen(entry)
    assert (missing.tolist(), dropped.tolist()) == ([], [8])
    assert table.so_far(entry)["n_missing"] == 0
    assert table.wants_closing(entry, S) is None


def test_a_series_is_known_from_its_first_message_until_its_late_frames_are_over(
    table: SeriesTable,
) -> None:
    assert not table.is_known(1, None, 0)
    entry = opened(table)
    assert table.is_known(1, None, 0)
    assert not table.is_known(2, None, 0)
    close(table, entry)
    assert table.is_known(1, None, int(LATE_S * S) - 1)
    assert not table.is_known(1, None, int(LATE_S * S) + 1)


def test_a_series_begun_beside_another_does_not_end_it(table: SeriesTable) -> None:
    first = opened(table, 1)
    second = table.begin(SeriesStart(2, n_frames=3), now_ns=0)
    assert second is not None
    assert not table.entries["ended"][first]
    assert table.open_entries() == [first, second]
    for series in (1, 2):
        assert take(table, series, 0) is Admission.ADMIT


def test_what_was_seen_of_a_series_is_forgotten_alone(table: SeriesTable) -> None:
    first, second = opened(table, 1), table.begin(SeriesStart(2, n_frames=3), now_ns=0)
    assert second is not None
    for series in (1, 2):
        take(table, series, 1)
    table.forget(first)
    assert not table.is_seen(first, 1)
    assert table.so_far(first) == {"n_received": 0, "n_dropped": 0, "n_missing": 0}
    assert table.is_seen(second, 1)
