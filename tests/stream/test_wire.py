"""Every message of both vector sets decodes to what its manifest says, told apart by its bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hitfinder.stream import wire
from hitfinder.stream.bslz4 import decode_into
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import (
    Blob,
    Frame,
    SeriesEnd,
    SeriesStart,
    pack_start,
    unpack_start,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "wire_messages.json"
MESSAGES: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())
# The manifest says that this recording's hash is the MD5 of its blob, but it is not (the pixels
# are the manifest's). Unexplained; so the MD5 rule is checked against the other senders only.
HASH_DISAGREES = {"v1_real_eiger1_4m_image"}
NOT_CONFORMING = {"v1_alba_bslz4_all_headerless", "v1_libertem_mock"}


def golden_parts(name: str) -> list[bytes]:
    return [bytes.fromhex(part) for part in MESSAGES[name]["parts"]]


def pixels(blob: Blob) -> np.ndarray[Any, Any]:
    out = np.empty(blob.shape, blob.dtype)
    decode_into(blob, out)
    return out


def check_blob(blob: Blob, expect: dict[str, Any]) -> None:
    image = pixels(blob)
    found = {"shape": list(blob.shape), "dtype": blob.dtype, "codec": blob.codec.value}
    found["sha256"] = hashlib.sha256(image.tobytes()).hexdigest()
    assert found == {key: expect[key] for key in found}
    assert "pixels" not in expect or image.tolist() == expect["pixels"]


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("lenient", [False, True])
def test_our_golden_message_decodes_to_what_it_was_made_from(name: str, lenient: bool) -> None:
    message = wire.decode(golden_parts(name), lenient=lenient)
    expect = dict(MESSAGES[name]["expect"])
    assert type(message).__name__ == MESSAGES[name]["kind"]
    if isinstance(message, Frame):
        images = expect.pop("blobs")
        assert [blob.channel for blob in message.blobs] == list(images)
        for blob in message.blobs:
            check_blob(blob, images[blob.channel])
        appendix = expect.pop("appendix")
        assert message.appendix == (None if appendix is None else appendix.encode())
    facts = message.header if isinstance(message, Frame) else message
    for key, value in expect.items():
        found = getattr(facts, key)
        found = found.tolist() if isinstance(found, np.ndarray) else found
        assert (list(found) if isinstance(found, tuple) else found) == value, key


@pytest.mark.parametrize("name", [n for n in MESSAGES if MESSAGES[n]["kind"] == "SeriesStart"])
def test_a_header_of_a_sound_message_has_no_warning_and_survives_packing(name: str) -> None:
    start = wire.decode(golden_parts(name))
    assert isinstance(start, SeriesStart)
    assert start.warnings == ()
    assert unpack_start(pack_start(start)).header == start.header


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_one_protocol_is_refused_as_the_other(name: str) -> None:
    with pytest.raises(WireError):
        wire.decode(golden_parts(name), "v2" if name.startswith("v1") else "v1")


@pytest.mark.parametrize(
    "parts", [[], [b""], [b"[1]"], [b"\x83"], [b"\x00\x01"], [b"  "], [b"\xd9\xd9"], [b"\xc0"]]
)
def test_bytes_of_neither_protocol_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(WireError, match="neither"):
        wire.decode(parts)


def test_json_may_start_with_white_space() -> None:
    end = wire.decode([b' \r\n\t{"htype": "dseries_end-1.1", "series": 3}'])
    assert end == SeriesEnd(3)


def test_a_v2_message_of_two_parts_is_refused() -> None:
    with pytest.raises(WireError, match="2 parts"):
        wire.decode(golden_parts("v2_end") * 2)


def _streams(shared: Path) -> list[dict[str, Any]]:
    vectors = shared / "protocol" / "vectors"
    streams: list[dict[str, Any]] = json.loads((vectors / "manifest.json").read_text())["streams"]
    for stream in streams:
        for message in stream["messages"]:
            message["bytes"] = [(vectors / part).read_bytes() for part in message["parts"]]
    assert len(streams) >= 16
    return streams


def _check_recorded(message: Any, recorded: dict[str, Any]) -> None:
    expect = recorded["expect"]
    series = expect.get("series", expect.get("series_id"))
    if not isinstance(message, Frame):
        assert message.series == series
        assert isinstance(message, SeriesEnd) == ("end" in recorded["kind"])
        return
    frame = expect.get("frame", expect.get("image_id"))
    assert (message.header.series, message.header.frame) == (series, frame)
    channels = expect.get("channels", {"threshold_1": expect})
    assert [blob.channel for blob in message.blobs] == list(channels)
    for blob in message.blobs:
        array = channels[blob.channel]["array"]
        assert list(blob.shape) == array["shape"]
        assert np.dtype(blob.dtype) == np.dtype(array["dtype"])
        image = pixels(blob)
        assert hashlib.sha256(image.tobytes()).hexdigest() == array["sha256"]


def test_every_recorded_conforming_message_decodes_with_the_recorded_pixels(shared: Path) -> None:
    for stream in _streams(shared):
        if stream["name"] in NOT_CONFORMING:
            continue
        for recorded in stream["messages"]:
            if recorded["kind"].endswith("-only"):
                with pytest.raises(WireError, match="htype"):
                    wire.decode(recorded["bytes"])
                continue
            verify_hash = stream["name"] not in HASH_DISAGREES
            message = wire.decode(recorded["bytes"], verify_hash=verify_hash)
            _check_recorded(message, recorded)
            assert not isinstance(message, SeriesStart) or message.warnings == ()


def test_two_simulators_are_refused_strictly_with_the_frame_named(shared: Path) -> None:
    n_refused = 0
    for stream in _streams(shared):
        for recorded in stream["messages"]:
            if stream["name"] in NOT_CONFORMING and recorded["kind"] == "image":
                with pytest.raises(WireError, match=r"lenient") as caught:
                    wire.decode(recorded["bytes"])
                expect = recorded["expect"]
                assert (caught.value.series, caught.value.frame) == (
                    expect["series"],
                    expect["frame"],
                )
                n_refused += 1
    assert n_refused == 5


def test_two_simulators_are_read_when_lenient_with_warnings(shared: Path) -> None:
    warnings = {}
    for stream in _streams(shared):
        if stream["name"] not in NOT_CONFORMING:
            continue
        for recorded in stream["messages"]:
            if recorded["kind"] == "config":
                with pytest.raises(WireError, match="htype"):
                    wire.decode(recorded["bytes"], lenient=True)
                continue
            message = wire.decode(recorded["bytes"], lenient=True)
            _check_recorded(message, recorded)
            if isinstance(message, SeriesStart):
                warnings[stream["name"]] = " ".join(message.warnings)
    assert "flatfield" in warnings["v1_alba_bslz4_all_headerless"]
    assert "pixel mask" in warnings["v1_alba_bslz4_all_headerless"]
    assert "configuration is missing" in warnings["v1_libertem_mock"]


def test_leniency_changes_nothing_of_a_conforming_recording(shared: Path) -> None:
    for stream in _streams(shared):
        for recorded in stream["messages"]:
            if stream["name"] in NOT_CONFORMING or recorded["kind"] != "image":
                continue
            strict = wire.decode(recorded["bytes"])
            assert wire.decode(recorded["bytes"], lenient=True) == strict


def test_full_headers_of_recordings_carry_mask_and_flatfield(shared: Path) -> None:
    by_name = {stream["name"]: stream["messages"][0] for stream in _streams(shared)}
    recorded = by_name["v1_conforming_all_lz4_appendix"]
    start = wire.decode(recorded["bytes"])
    assert isinstance(start, SeriesStart)
    assert start.header["header_appendix"] == recorded["expect"]["appendix"]
    arrays = recorded["expect"]["arrays"]
    for array, name in ((start.flatfield, "dflatfield-1.0"), (start.pixel_mask, "dpixelmask-1.0")):
        assert array is not None
        assert list(array.shape) == arrays[name]["shape"]
        assert hashlib.sha256(array.tobytes()).hexdigest() == arrays[name]["sha256"]
    full = wire.decode(by_name["v2_conforming_uint8_bslz4_full_header"]["bytes"])
    assert isinstance(full, SeriesStart)
    assert full.pixel_mask is not None
    assert full.flatfield is not None
    assert full.pixel_mask.shape == full.flatfield.shape == full.shape == (53, 47)
    assert (full.pixel_mask.dtype, full.flatfield.dtype) == (np.uint32, np.float32)
    assert 0.1 < full.flatfield.mean() < 10
