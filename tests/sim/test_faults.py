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
    spec = "drop:0.01, duplicate:0.02,corrupt:0.03,truncate:0.04,reorder:4,no-header,no-end"
    assert parse_faults(spec) == Faults(0.01, 0.02, 0.03, 0.04, 4, True, True)
    assert parse_faults("") == Faults()


@pytest.mark.parametrize(
    "spec",
    ["lose:0.1", "drop", "drop:x", "drop:-0.1", "drop:0.7,corrupt:0.7", "no-end:1", "reorder:-2"],
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
