"""What a detector should never send, sent to a running daemon between good frames.

Every bad message is counted and named, costs its own frame at most, and kills nobody: one daemon
takes all of this file and has the children at its end that it began with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import cbor2
import pytest
from tests.system.daemon import Closed, Daemon, Detector, running
from tests.system.frames import Parts, WireSeries, changed, wire_series

pytestmark = pytest.mark.system

Wire = tuple[Daemon, Detector]


@pytest.fixture(scope="module")
def wire(tmp_path_factory) -> Iterator[Wire]:
    folder = tmp_path_factory.mktemp("bad_input")
    with Detector() as detector, running(folder, detector) as daemon:
        yield daemon, detector
        assert daemon.terminate() == 0, daemon.log
        assert [child["starts"] for child in daemon.status["children"]] == [1, 1, 1]
        assert "Traceback" not in daemon.log


def blob_of(image: Parts) -> bytes:
    """Return the packed pixels of a V2 image."""
    array = cbor2.loads(image[0])["data"]["threshold_1"]
    return bytes(array.value[1].value.value[2])


def with_blob(image: Parts, blob: bytes) -> Parts:
    """Return a V2 image with other packed pixels."""
    return [image[0].replace(_byte_string(blob_of(image)), _byte_string(blob))]


def _byte_string(content: bytes) -> bytes:
    return bytes(cbor2.dumps(content))


def with_data(image: Parts, shape: Any, tag: int = 69, algorithm: str = "bslz4") -> Parts:
    """Return a V2 image whose pixels are described otherwise."""
    packed = cbor2.CBORTag(56500, [algorithm, 2, blob_of(image)])
    return changed(
        image, data={"threshold_1": cbor2.CBORTag(40, [shape, cbor2.CBORTag(tag, packed)])}
    )


def garbled(blob: bytes) -> bytes:
    """Return a blob whose header is right and whose blocks are not."""
    return blob[:16] + bytes(b ^ 0xFF for b in blob[16:])


# What is done to a good V2 image -> a word of the verdict's reason.
BAD_V2: dict[str, tuple[Callable[[Parts], Parts], str]] = {
    "blob cut in half": (lambda i: with_blob(i, blob_of(i)[: len(blob_of(i)) // 2]), "block"),
    "blob of its header only": (lambda i: with_blob(i, blob_of(i)[:12]), "block"),
    "blob shorter than a header": (lambda i: with_blob(i, b"\0" * 5), "header"),
    "empty blob": (lambda i: with_blob(i, b""), "header"),
    "blob with bytes to spare": (lambda i: with_blob(i, blob_of(i) + b"\0" * 100), "bytes"),
    "garbled blocks": (lambda i: with_blob(i, garbled(blob_of(i))), "block"),
    "size word of an exabyte": (lambda i: with_blob(i, b"\x0f" * 8 + blob_of(i)[8:]), "needs"),
    "another shape": (lambda i: with_data(i, [256, 289]), "needs"),
    "shape of nothing": (lambda i: with_data(i, [0, 288]), "pixels"),
    "shape of 2^60 pixels": (lambda i: with_data(i, [1 << 30, 1 << 30]), "pixels"),
    "negative shape": (lambda i: with_data(i, [-256, 288]), "tag 40"),
    "three-dimensional shape": (lambda i: with_data(i, [1, 256, 288]), "tag 40"),
    "shape that is text": (lambda i: with_data(i, "256x288"), "tag 40"),
    "floating-point pixels": (lambda i: with_data(i, [256, 288], 85), "typed array tag 85"),
    "big-endian pixels": (lambda i: with_data(i, [256, 288], 65), "typed array tag 65"),
    "64-bit pixels": (lambda i: with_data(i, [256, 288], 71), "typed array tag 71"),
    "unknown compression": (lambda i: with_data(i, [256, 288], 69, "zip"), "algorithm"),
    "no data": (lambda i: changed(i, data=None), "data"),
    "no channel": (lambda i: changed(i, data={}), "channels"),
    "seventeen channels": (lambda i: changed(i, data={f"c{k}": 0 for k in range(17)}), "channels"),
    "channel of an odd name": (lambda i: changed(i, data={"../x": 0}), "channel"),
    "data that is a number": (lambda i: changed(i, data=5), "data"),
}

BAD_V1: dict[str, tuple[Callable[[Parts], Parts], str]] = {
    "no pixels part": (lambda p: p[:2], "parts"),
    "six parts": (lambda p: [*p, b"appendix", b"more"], "parts"),
    "size not the part's": (lambda p: [p[0], part_2(p, size=7), *p[2:]], "size"),
    "floating-point pixels": (lambda p: [p[0], part_2(p, type="float32"), *p[2:]], "type"),
    "unknown encoding": (lambda p: [p[0], part_2(p, encoding="gzip"), *p[2:]], "encoding"),
    "big-endian": (lambda p: [p[0], part_2(p, encoding="bs16-lz4>"), *p[2:]], "big-endian"),
    "part 2 not JSON": (lambda p: [p[0], b"{", *p[2:]], "part 2"),
    "part 4 not UTF-8": (lambda p: [*p[:3], b"\xff\xfe"], "part 4"),
    "part 2 a list": (lambda p: [p[0], b"[1]", *p[2:]], "part 2"),
    "nested without end": (lambda p: [p[0], b"[" * 50_000, *p[2:]], "part 2"),
    "shape of four": (lambda p: [p[0], part_2(p, shape=[1, 1, 1, 1]), *p[2:]], "shape"),
    "pixels cut": (lambda p: [p[0], part_2(p, size=99), p[2][:99], p[3]], "block"),
}

# Messages that name no frame -> a word of the error.
NAMELESS: dict[str, tuple[Parts, str]] = {
    "more parts than any message has": ([b"{}"] * 17, "17 parts"),  # refused before it is decoded
    "empty message": ([b""], "neither JSON"),
    "noise": ([b"\x00\x01\x02\x03" * 50], "neither JSON"),
    "JSON that is cut": ([b'{"htype":"dimage-1.0","series":'], "not JSON"),
    "JSON of an unknown type": ([b'{"htype":"dpixels-1.0","series":1}'], "htype"),
    "JSON without series": ([b'{"htype":"dimage-1.0","frame":1}'], "series"),
    "frame number of 2^40": (
        [b'{"htype":"dimage-1.0","series":11,"frame":1099511627776}'],
        "fram",
    ),
    "CBOR that is cut": ([b"\xd9\xd9\xf7\xa3\x64type\x65imag"], "left"),
    "CBOR of an unknown type": ([cbor2.dumps({"type": "picture", "series_id": 1})], "type"),
    "CBOR nested without end": ([b"\xa1\x61a" + b"\x81" * 50_000], "nest"),
    "CBOR in two parts": ([cbor2.dumps({"type": "end", "series_id": 1}), b""], "parts"),
    "CBOR with a negative series": ([cbor2.dumps({"type": "end", "series_id": -1})], "series_id"),
}


def part_2(parts: Parts, **fields: Any) -> bytes:
    """Return a V1 image's description with some fields replaced."""
    return json.dumps({**json.loads(parts[1]), **fields}).encode()


def send_with_bad_frames(
    wire: Wire, series: WireSeries, bad: dict[str, tuple[Callable[[Parts], Parts], str]]
) -> Closed:
    """Send a series in which every second frame is a bad one; the first and last are good."""
    daemon, detector = wire
    detector.send(series.start)
    for frame, (damage, _) in enumerate(bad.values()):
        detector.send(series.images[2 * frame], damage(series.images[2 * frame + 1]))
    detector.send(series.images[-1], series.end)
    return daemon.closed(series.number)


@pytest.mark.parametrize(
    ("protocol", "number", "bad"), [("v2", 10, BAD_V2), ("v1", 11, BAD_V1)], ids=["v2", "v1"]
)
def test_a_bad_frame_is_corrupt_and_its_neighbours_are_judged(wire, protocol, number, bad):
    before = wire[0].wait_status(lambda s: True, "a status")["n_malformed"]
    closed = send_with_bad_frames(wire, wire_series(protocol, number, 2 * len(bad) + 1), bad)
    assert closed.counts["corrupt"] == len(bad)
    assert closed.n_judged == len(bad) + 1
    for frame, (name, (_, word)) in enumerate(bad.items()):
        record = closed.records[2 * frame + 1]
        assert record["outcome"] == "corrupt", name
        assert word in record["reason"], (name, record["reason"])
    status = wire[0].wait_status(
        lambda s: s["n_malformed"] == before + len(bad), f"{len(bad)} more malformed messages"
    )
    last = closed.records[2 * len(bad) - 1]["reason"]
    assert any(last in text for text in status["errors"])


def test_messages_that_name_no_frame_are_counted_and_named(wire):
    daemon, detector = wire
    before = daemon.wait_status(lambda s: True, "a status")["n_malformed"]
    series = wire_series("v2", 12, len(NAMELESS))
    detector.send(series.start)
    for image, (message, _) in zip(series.images, NAMELESS.values(), strict=True):
        detector.send(message, image)
    detector.send(series.end)
    closed = daemon.closed(12)
    assert closed.n_judged == closed.end["announced"] == len(NAMELESS)
    status = daemon.wait_status(
        lambda s: s["n_malformed"] == before + len(NAMELESS), "each to be counted"
    )
    named = zip(NAMELESS.items(), status["errors"][-len(NAMELESS) :], strict=True)
    assert [(name, error) for (name, (_, word)), error in named if word not in error] == []


def test_a_frame_with_more_channels_than_a_slot_takes_is_dropped_and_says_so(wire):
    daemon, detector = wire
    series = wire_series("v2", 13, 2)
    array = cbor2.loads(series.images[0][0])["data"]["threshold_1"]
    many = changed(series.images[0], data={f"threshold_{k}": array for k in range(1, 6)})
    detector.send(series.start, many, series.images[1], series.end)
    closed = daemon.closed(13)
    assert closed.outcomes[0] == "dropped"
    assert "5 channels" in closed.records[0]["reason"]
    assert closed.n_judged == 1


def test_images_of_other_shapes_than_their_series_are_judged_too(wire):
    daemon, detector = wire
    usual = wire_series("v2", 14, 6)
    odd = wire_series("v2", 14, 6, shape=(64, 40))
    one = wire_series("v2", 14, 6, shape=(1, 1))
    mixed = [(usual, odd, usual, one, odd, usual)[k].images[k] for k in range(6)]
    detector.send(usual.start, *mixed, usual.end)
    assert daemon.closed(14).n_judged == 6


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (20, {"incident_energy": 1e299}),
        (21, {"beam_center_x": 1e299, "beam_center_y": -1e299}),
        (22, {"pixel_size_x": 1e-299, "pixel_size_y": 1e299}),
        (23, {"detector_translation": [0, 0, 1e-200]}),
        (24, {"image_size_x": 7, "image_size_y": 9}),
        (25, {"number_of_images": 1 << 62}),
        (26, {"channels": ["threshold_1"] * 20, "image_dtype": "float64"}),
        (27, {"sensor_thickness": float("nan"), "saturation_value": 1 << 70}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_absurd_header_costs_no_frame(wire, number, fields):
    daemon, detector = wire
    series = wire_series("v2", number, 2)
    detector.send(changed(series.start, **fields), *series.images, series.end)
    assert daemon.closed(number).n_judged == 2


def test_a_time_beyond_64_bits_costs_nothing_but_the_time(wire):
    daemon, detector = wire
    series = wire_series("v1", 30, 2)
    count_time_s = json.loads(series.start[1])["count_time"]
    ticks = {"start_time": 1 << 62, "stop_time": 1 << 62, "real_time": int(count_time_s * 5e7)}
    late = [*series.images[1][:3], json.dumps({"htype": "dconfig-1.0", **ticks}).encode()]
    detector.send(series.start, series.images[0], late, series.end)
    closed = daemon.closed(30)
    assert closed.n_judged == 2
    assert closed.records[1]["t_detector_ns"] is None


def test_gaps_are_missing_and_duplicates_counted_once(wire):
    daemon, detector = wire
    series = wire_series("v2", 40, 8)
    sent = [series.images[k] for k in (0, 1, 1, 4, 3, 4, 6)]
    detector.send(series.start, *sent, series.end)
    closed = daemon.closed(40)
    missing = [frame for frame, outcome in closed.outcomes.items() if outcome == "missing"]
    assert sorted(missing) == [2, 5, 7]
    assert (closed.n_judged, closed.end["duplicate"], closed.end["late"]) == (5, 2, 0)
    assert closed.end["reason"] == "ended"


def test_frames_may_come_after_the_end_message_but_not_after_the_end(wire):
    daemon, detector = wire
    series = wire_series("v2", 41, 3)
    detector.send(series.start, series.images[0], series.end, series.images[1])
    closed = daemon.closed(41)
    assert closed.counts.get("missing") == 1
    assert closed.n_judged == 2
    before = daemon.wait_status(lambda s: True, "a status")["n_messages"]
    detector.send(series.images[2], series.images[0], series.end)
    status = daemon.wait_status(lambda s: s["n_messages"] == before + 3, "three messages more")
    assert status["n_series_open"] == 0
    assert daemon.closed(41) == closed


def test_the_end_of_an_unknown_series_is_stale(wire):
    daemon, detector = wire
    before = daemon.wait_status(lambda s: True, "a status")
    detector.send(wire_series("v2", 42, 1).end, wire_series("v1", 43, 1).end)
    status = daemon.wait_status(
        lambda s: s["n_messages"] == before["n_messages"] + 2, "two messages more"
    )
    assert status["n_stale"] == before["n_stale"] + 2
    assert status["n_series_open"] == 0


@pytest.mark.parametrize(("protocol", "number"), [("v2", 44), ("v1", 45)])
def test_a_series_joined_late_has_verdicts_from_its_first_frame_on(wire, protocol, number):
    daemon, detector = wire
    series = wire_series(protocol, number, 6)
    detector.send(series.images[2], *series.images[4:], series.end)
    closed = daemon.closed(number)
    # Without a header only what lies between the frames that came is known to exist.
    assert sorted(closed.outcomes) == [2, 3, 4, 5]
    assert closed.outcomes[3] == "missing"
    assert (closed.n_judged, closed.end["announced"]) == (3, 4)


def test_a_number_far_beyond_the_header_is_named_and_announces_nothing(wire):
    daemon, detector = wire
    series = wire_series("v2", 60, 3)
    far = changed(series.images[1], image_id=4_000_000)
    detector.send(series.start, *series.images, far, series.end)
    closed = daemon.closed(60)
    assert (closed.n_judged, closed.end["announced"]) == (3, 3)
    named = "frame 4000000 of series 60: the header announced 3"
    daemon.wait_status(lambda s: named in s["errors"], "the number's name in status")


def test_a_new_header_ends_the_series_before_it(wire):
    daemon, detector = wire
    first, second = wire_series("v2", 46, 4), wire_series("v2", 47, 2)
    detector.send(first.start, first.images[0], first.images[1], *second.messages)
    closed = daemon.closed(46)
    assert closed.end["reason"] == "superseded"
    assert (closed.n_judged, closed.counts["missing"]) == (2, 2)
    assert daemon.closed(47).n_judged == 2


@pytest.mark.parametrize(("protocol", "number"), [("v2", 48), ("v1", 49)])
def test_a_series_number_may_come_again_after_a_restart_of_the_detector(wire, protocol, number):
    daemon, detector = wire
    first = wire_series(protocol, number, 3, uid="FIRST")
    again = wire_series(protocol, number, 5, uid="AGAIN")
    detector.send(*first.messages)
    old = daemon.closed(number)
    n_before = len(daemon.results)
    detector.send(*again.messages)
    new = daemon.closed(number, since=n_before)
    assert (old.n_judged, new.n_judged) == (3, 5)
    assert old.folder != new.folder


def test_more_open_series_than_any_detector_has_do_not_stop_the_next(wire):
    daemon, detector = wire
    strays = [wire_series("v2", 100 + k, 1) for k in range(20)]
    detector.send(*(stray.images[0] for stray in strays))
    good = wire_series("v2", 50, 2)
    detector.send(*good.messages)
    assert daemon.closed(50).n_judged == 2
    assert sum(daemon.closed(stray.number).n_judged for stray in strays) == len(strays)
