"""Faults leave exactly the messages that their record says."""

from __future__ import annotations

from collections import Counter

import pytest

from hitfinder.sim.faults import (
    AppliedFault,
    FaultInjector,
    Faults,
    FaultsError,
    WireMessage,
    parse_faults,
)

BLOB = bytes(range(1, 200))


def series(number: int = 1, n_frames: int = 200) -> list[WireMessage]:
    images = [
        WireMessage("image", number, [b"%d" % k, b"head" + BLOB], k, BLOB) for k in range(n_frames)
    ]
    return [
        WireMessage("start", number, [b"start"]),
        *images,
        WireMessage("end", number, [b"end"]),
    ]


def sent(faults: Faults, messages: list[WireMessage], seed: int = 0):
    injector = FaultInjector(faults, seed)
    return [m for message in messages for m in injector.feed(message)], injector.applied


def test_a_spec_of_every_word_is_read():
    chances = "drop:0.01, duplicate:0.02,corrupt:0.03,truncate:0.04,reorder:4"
    spans = "gap:3-5,late:2,thief:3,promise:9,disconnect:6,interleave:7,rearm:8"
    assert parse_faults(f"{chances},{spans},shape,depth,no-header,no-end") == Faults(
        drop=0.01,
        duplicate=0.02,
        corrupt=0.03,
        truncate=0.04,
        reorder=4,
        gap=(3, 5),
        late=2,
        thief=3,
        promise=9,
        disconnect=6,
        interleave=7,
        cut=("rearm", 8),
        shape=True,
        depth=True,
        no_header=True,
        no_end=True,
    )
    assert parse_faults("") == Faults()


@pytest.mark.parametrize(
    "spec",
    ["lose:0.1", "drop", "drop:x", "drop:-0.1", "drop:0.7,corrupt:0.7", "no-end:1", "reorder:-2"]
    + ["gap:5", "gap:5-3", "late:x", "cancel:3,abort:4", "drop:0.1,drop:0.2", "drop:nan"],
)
def test_a_spec_outside_the_grammar_is_refused(spec):
    with pytest.raises(FaultsError, match="fault"):
        parse_faults(spec)


def test_no_faults_change_nothing():
    assert sent(Faults(), series()) == (series(), [])


def test_each_image_leaves_as_often_as_its_record_says():
    out, applied = sent(Faults(drop=0.1, duplicate=0.1, corrupt=0.1, truncate=0.1), series())
    kinds = {fault.frame: fault.kind for fault in applied}
    n_sent = Counter(m.frame for m in out if m.kind == "image")
    for frame in range(200):
        assert n_sent[frame] == {"drop": 0, "duplicate": 2}.get(kinds.get(frame, ""), 1)
    assert {kind: 5 < n < 40 for kind, n in Counter(kinds.values()).items()} == dict.fromkeys(
        ("drop", "duplicate", "corrupt", "truncate"), True
    )


def test_a_corrupt_image_has_the_first_eight_bytes_of_its_blob_inverted():
    out, applied = sent(Faults(corrupt=1.0), series(n_frames=1))
    assert applied == [AppliedFault(1, 0, "corrupt")]
    damaged = out[1].parts[1]
    assert damaged == b"head" + bytes(b ^ 0xFF for b in BLOB[:8]) + BLOB[8:]


def test_a_truncated_image_has_half_of_its_longest_part():
    out, _ = sent(Faults(truncate=1.0), series(n_frames=1))
    assert out[1].parts == [b"0", (b"head" + BLOB)[:101]]


def test_reordered_images_all_leave_before_the_end_and_the_moved_ones_are_known():
    out, applied = sent(Faults(reorder=4), series(n_frames=10))
    frames = [m.frame for m in out if m.kind == "image"]
    assert (out[0].kind, out[-1].kind) == ("start", "end")
    assert sorted(frames) == list(range(10))
    assert [sorted(frames[k : k + 4]) for k in (0, 4, 8)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert {f.frame for f in applied} == {frame for k, frame in enumerate(frames) if k != frame}
    assert applied


def test_header_and_end_can_be_lost():
    out, applied = sent(Faults(no_header=True, no_end=True), series(n_frames=2))
    assert [m.kind for m in out] == ["image", "image"]
    assert applied == [AppliedFault(1, -1, "no-header"), AppliedFault(1, -1, "no-end")]


def test_images_held_back_by_a_series_that_never_ended_leave_before_the_next_header():
    out, _ = sent(Faults(reorder=8), series(1, 3)[:-1] + series(2, 3))
    assert [(m.kind, m.series) for m in out] == [
        ("start", 1),
        *[("image", 1)] * 3,
        ("start", 2),
        *[("image", 2)] * 3,
        ("end", 2),
    ]


def test_the_same_seed_makes_the_same_faults_and_series_differ():
    faults = Faults(drop=0.2, reorder=3)
    first = sent(faults, series(1), seed=5)
    assert first == sent(faults, series(1), seed=5)
    assert first != sent(faults, series(1), seed=6)
    dropped = [f.frame for f in first[1] if f.kind == "drop"]
    assert dropped != [f.frame for f in sent(faults, series(2), seed=5)[1] if f.kind == "drop"]


def shape_of(messages: list[WireMessage]) -> list[str]:
    """Return `1s 1.0 1e`: series, and start, frame or end, of each message."""
    ends = {"start": "s", "end": "e"}
    return [f"{m.series}{ends.get(m.kind) or f'.{m.frame}'}" for m in messages]


@pytest.mark.parametrize(
    ("faults", "left"),
    [
        (Faults(gap=(1, 2)), "1s 1.0 1.3 1e"),
        (Faults(late=2), "1.2 1.3 1e"),
        (Faults(thief=2), "1s 1.1 1.3"),
        (Faults(thief=3), "1s 1.2"),
        (Faults(no_end=True, reorder=9), "1s 1.0 1.1 1.2 1.3"),
    ],
)
def test_what_leaves_of_a_series_of_four(faults, left):
    out, applied = sent(faults, series(1, 4))
    assert sorted(shape_of(out)) == sorted(left.split())
    lost = [f.frame for f in applied if f.kind != "reorder"]
    assert sorted(lost) == sorted(m.frame for m in series(1, 4) if m not in out)


def test_an_aborting_detector_loses_what_is_in_its_queue_and_the_next_series_is_whole():
    out, applied = sent(Faults(cut=("abort", 6)), series(1, 6) + series(2, 6))
    assert shape_of(out)[:4] == ["1s", "1.0", "1.1", "1e"]
    assert shape_of(out)[4:] == shape_of(series(2, 6))
    assert [f.frame for f in applied] == [2, 3, 4, 5]


def test_every_other_series_leaves_between_the_messages_of_the_next():
    out, _ = sent(Faults(interleave=2), series(1, 4) + series(2, 4) + series(3, 2))
    assert shape_of(out[:13]) == "1s 1.0 1.1 2s 2.0 1.2 2.1 1.3 2.2 1e 2.3 2e 3s".split()


def test_a_rearmed_detector_ends_every_other_series_without_a_word():
    out, applied = sent(Faults(cut=("rearm", 2)), series(1, 2) + series(2, 2))
    assert shape_of(out) == "1s 1.0 1.1 2s 2.0 2.1 2e".split()
    assert applied == [AppliedFault(1, -1, "rearm")]
