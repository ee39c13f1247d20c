"""V2: any CBOR spelling of a message is read; odd ones are warnings or a `WireError`, no more."""

import json
import struct
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from cbor2 import CBORTag
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.stream import eiger_v2
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import (
    MAX_FRAMES,
    Codec,
    Frame,
    SeriesEnd,
    SeriesStart,
    pack_start,
)

# Reproducible, and without a clock: other tests may share the core.
SEEDED = settings(deadline=None, derandomize=True)

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "wire_messages.json"
MESSAGES = {
    name: bytes.fromhex(message["parts"][0])
    for name, message in json.loads(GOLDEN.read_text()).items()
    if name.startswith("v2")
}
PIXELS = bytes(range(6)) * 2  # 2 x 3 uint16
UID = "01HT0000000000000000000077"


def array(tag: int = 69, content: Any = PIXELS, dims: Any = (2, 3), outer: int = 40) -> CBORTag:
    return CBORTag(outer, [dims, CBORTag(tag, content)])


def message(**values: Any) -> bytes:
    """Return an image message with fields replaced, or removed if `...`."""
    fields = {"type": "image", "series_id": 4, "series_unique_id": UID, "image_id": 2}
    fields |= {"real_time": [1, 1000], "data": {"threshold_1": array()}} | values
    return cbor2.dumps({key: value for key, value in fields.items() if value is not ...})


def start_message(**values: Any) -> bytes:
    fields = {"type": "start", "series_id": 4, "image_size_x": 3, "image_size_y": 2}
    return cbor2.dumps(fields | {"channels": ["threshold_1"]} | values)


def frame(packed: bytes | memoryview, **options: bool) -> Frame:
    decoded = eiger_v2.decode(packed, **options)
    assert isinstance(decoded, Frame)
    return decoded


def start(packed: bytes) -> SeriesStart:
    decoded = eiger_v2.decode(packed)
    assert isinstance(decoded, SeriesStart)
    pack_start(decoded)
    return decoded


def refused(packed: bytes, match: str, **options: bool) -> WireError:
    with pytest.raises(WireError, match=match) as caught:
        eiger_v2.decode(packed, **options)
    return caught.value


def test_a_payload_is_a_view_of_the_message() -> None:
    received = bytearray(message())
    blob = frame(memoryview(received)).blobs[0]
    at = received.index(PIXELS)
    received[at] = 99
    assert blob.payload[0] == 99
    assert blob.payload.readonly


def test_a_byte_string_of_indefinite_length_is_joined() -> None:
    chunks = b"\x5f\x45" + PIXELS[:5] + b"\x40\x47" + PIXELS[5:] + b"\xff"
    spelled = message().replace(b"\x4c" + PIXELS, chunks)
    assert frame(spelled).blobs[0].payload == PIXELS


def test_text_and_arrays_of_indefinite_length_are_read() -> None:
    spelled = message().replace(b"\x64type\x65image", b"\x7f\x62ty\x62pe\xff\x7f\x65image\xff")
    spelled = spelled.replace(b"\x82\x02\x03", b"\x9f\x02\x18\x03\xff")
    assert frame(spelled).blobs[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("tag", "itemsize", "dtype"), [(64, 1, "uint8"), (69, 2, "uint16"), (70, 4, "uint32")]
)
def test_typed_array_tags_name_the_pixel_type(tag: int, itemsize: int, dtype: str) -> None:
    blob = frame(message(data={"t": array(tag, bytes(6 * itemsize))})).blobs[0]
    assert (blob.dtype, blob.elem_size, blob.codec) == (dtype, itemsize, Codec.NONE)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"t": array(outer=1040)}, "column major"),
        ({"t": array(outer=41)}, "expected tag 40"),
        ({"t": array(65)}, "little-endian"),
        ({"t": array(66)}, "little-endian"),
        ({"t": array(68)}, "tag 68"),
        ({"t": array(85)}, "tag 85"),
        ({"t": array(dims=(2, 4))}, "expected 16"),
        ({"t": array(dims=(2, 3, 1))}, "columns"),
        ({"t": array(dims=(0, 3))}, "shape"),
        ({"t": array(dims=(1 << 40, 1 << 40))}, "shape"),
        ({"t": array(dims=(-2, 3))}, "columns"),
        ({"t": array(dims=(2.0, 3))}, "columns"),
        ({"t": array(content="text")}, "typed array of"),
        ({"t": array(content=CBORTag(56500, ["zstd", 2, PIXELS]))}, "zstd"),
        ({"t": array(content=CBORTag(56500, ["bszstd", 2, PIXELS]))}, "bszstd"),
        ({"t": array(content=CBORTag(56500, [7, 2, PIXELS]))}, "algorithm 7"),
        ({"t": array(content=CBORTag(56500, ["bslz4", 4, PIXELS]))}, "element size 4"),
        ({"t": array(content=CBORTag(56500, ["bslz4", 2]))}, "tag 56500"),
        ({"t": array(content=CBORTag(56500, ["bslz4", 2, PIXELS]))}, "header says"),
        ({"t": array(content=CBORTag(56500, ["lz4", 0, PIXELS]))}, "header says"),
        ({"t": array(content=CBORTag(56500, ["lz4", 0, b"\0" * 11]))}, "11 bytes"),
        ({"t": PIXELS}, "memoryview"),
        ({"../t": array()}, "channel"),
        ({"t\n": array()}, "channel"),
        ({1: array()}, "channel 1"),
        ({}, "data is"),
        ({f"t{i}": array() for i in range(17)}, "data is"),
        (PIXELS, "data is"),
        (..., "data is"),
    ],
)
def test_an_image_that_cannot_be_read_is_an_error_with_its_frame(data: Any, match: str) -> None:
    error = refused(message(data=data), match)
    assert (error.series, error.frame) == (4, 2)
    assert "frame 2 of series 4" in str(error)


@pytest.mark.parametrize("image_id", [-1, MAX_FRAMES, 1 << 70, "2", 2.0, None, True, ...])
def test_an_absurd_image_id_is_refused_with_the_series_only(image_id: object) -> None:
    error = refused(message(image_id=image_id), "image_id")
    assert (error.series, error.frame) == (4, None)


@pytest.mark.parametrize("series_id", [-1, 1 << 63, "9", None, ...])
def test_an_absurd_series_is_refused_without_ids(series_id: object) -> None:
    error = refused(message(series_id=series_id), "series_id")
    assert (error.series, error.frame) == (None, None)


@pytest.mark.parametrize("kind", ["calibration", 1, None, ..., ["image"]])
def test_another_type_of_message_is_refused(kind: object) -> None:
    refused(message(type=kind), "message type")


def test_a_truncated_image_is_refused_with_the_ids_before_the_cut() -> None:
    packed = message()
    for n in range(len(packed)):
        error = refused(packed[:n], "CBOR")
        assert error.frame in (None, 2)
    assert (error.series, error.frame) == (4, 2)


def test_bytes_after_the_message_are_refused_with_the_frame() -> None:
    assert refused(message() + b"\0", "1 bytes after").frame == 2


def test_times_are_nanoseconds_rounded() -> None:
    header = frame(message(start_time=[2, 3], stop_time=[1 << 40, 1], real_time=[3, 7])).header
    assert (header.start_ns, header.real_ns) == (666_666_667, 428_571_429)
    assert header.stop_ns is None


@pytest.mark.parametrize("time", [[1, 0], [1], [-1, 5], [1.0, 5], 7, "x", None, [1, 2, 3]])
def test_an_odd_time_is_unknown_and_the_image_is_kept(time: object) -> None:
    assert frame(message(real_time=time)).header.real_ns is None


@pytest.mark.parametrize(
    ("user_data", "appendix"), [("free", b"free"), ({"n": [1, b"ab"]}, b'{"n": [1, "<2 bytes>"]}')]
)
def test_user_data_of_an_image_is_its_appendix(user_data: object, appendix: bytes) -> None:
    assert frame(message(user_data=user_data)).appendix == appendix


@pytest.mark.parametrize("unique", ["../../etc", "", "a" * 65, "ä", 5, ".hidden"])
def test_a_unique_id_that_no_folder_can_have_is_unknown_with_a_warning(unique: object) -> None:
    started = start(start_message(series_unique_id=unique))
    assert started.series_uid is None
    assert "series_unique_id" in started.warnings[0]


def test_a_blob_without_header_is_read_when_lenient() -> None:
    body = bytes([0, 0, 0, 9, 1, 2, 3])
    for payload in (body, bytes(12) + body):
        packed = message(data={"t": array(content=CBORTag(56500, ["bslz4", 2, payload]))})
        refused(packed, "header")
        blob = frame(packed, lenient=True).blobs[0]
        assert (blob.has_header, bytes(blob.payload)) == (False, body)


def test_the_channel_order_is_the_message_order() -> None:
    packed = message(data={"difference": array(), "threshold_1": array()})
    assert [blob.channel for blob in frame(packed).blobs] == ["difference", "threshold_1"]


@pytest.mark.parametrize(
    ("tag", "code"), [(70, "<6I"), (66, ">6I"), (69, "<6H"), (65, ">6H"), (64, "6B"), (71, "<6Q")]
)
def test_a_mask_of_any_unsigned_type_becomes_uint32(tag: int, code: str) -> None:
    packed = struct.pack(code, 1, 2, 3, 4, 5, 6)
    mask = start(start_message(pixel_mask={"threshold_1": array(tag, packed)})).pixel_mask
    assert mask is not None
    assert mask.dtype == np.uint32
    assert mask.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(("tag", "code"), [(85, "<6f"), (81, ">6f"), (82, ">6d"), (84, "<6e")])
def test_a_flatfield_of_any_float_type_becomes_float32(tag: int, code: str) -> None:
    packed = struct.pack(code, 1, 0.5, 3, 4, 5, 6)
    flatfield = start(start_message(flatfield={"threshold_1": array(tag, packed)})).flatfield
    assert flatfield is not None
    assert flatfield.dtype == np.float32
    assert flatfield.tolist() == [[1, 0.5, 3], [4, 5, 6]]


def test_the_mask_is_that_of_the_first_announced_channel() -> None:
    masks = {"difference": array(64, bytes(6)), "threshold_1": array(64, bytes([7]) * 6)}
    mask = start(start_message(pixel_mask=masks)).pixel_mask
    assert mask is not None
    assert mask[0, 0] == 7


@pytest.mark.parametrize(
    "value",
    [
        b"AAAA",
        {},
        {"threshold_1": b"AAAA"},
        {"threshold_1": array(70, bytes(23))},
        {"threshold_1": array(70, bytes(24), (3, 2))},
        {"threshold_1": array(85, bytes(24))},
        {"threshold_1": array(83, bytes(96))},
        {"threshold_1": array(70, CBORTag(56500, ["bslz4", 4, bytes(12)]))},
        {"threshold_1": array(70, CBORTag(56500, ["lz4", 0, bytes(7) + b"\x18" + bytes(9)]))},
        {"threshold_1": array(71, CBORTag(56500, ["bslz4", 8, bytes(40)]))},
        {"threshold_1": array(70, CBORTag(56500, ["trpx", 4, bytes(12)]))},
        {"threshold_1": array(70, b"", (1 << 40, 1 << 40))},
    ],
)
def test_a_mask_that_cannot_be_used_is_a_warning(value: Any) -> None:
    started = start(start_message(pixel_mask=value, number_of_images=3))
    assert (started.pixel_mask, started.n_frames) == (None, 3)
    assert "pixel_mask" in started.warnings[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("incident_energy", "12 keV"),
        ("incident_energy", -1),
        ("number_of_images", 0),
        ("number_of_images", 1 << 60),
        ("image_size_x", 1 << 60),
        ("detector_translation", [0, 0]),
        ("detector_translation", [0, 0, float("nan")]),
        ("detector_translation", [0, 0, -(1 << 64)]),
        ("channels", "threshold_1"),
        ("channels", ["a/b"]),
        ("detector_description", 7),
        ("saturation_value", -1),
        ("beam_center_x", float("inf")),
    ],
)
def test_an_odd_header_value_is_a_warning(key: str, value: object) -> None:
    started = start(start_message(**{key: value}))
    assert len(started.warnings) == 1
    assert started.warnings[0].startswith(key) or "number of images" in started.warnings[0]


def test_half_and_single_floats_and_integers_are_numbers() -> None:
    packed = start_message(count_time=2, frame_time=0)
    packed = packed.replace(b"\x6aframe_time\x00", b"\x6aframe_time\xf9\x3c\x00")
    started = start(packed)
    assert (started.count_time_s, started.frame_time_s) == (2.0, 1.0)


def test_the_end_names_its_series() -> None:
    assert eiger_v2.decode(message(type="end")) == SeriesEnd(4, UID)


@SEEDED
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_never_raise_anything_else(packed: bytes, lenient: bool) -> None:
    for prefix in (b"", b"\xd9\xd9\xf7", b"\xbf", b"\xa1\x64data"):
        try:
            eiger_v2.decode(prefix + packed, lenient=lenient)
        except WireError:
            pass


CBOR = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.binary(max_size=2), inner)
        | st.builds(CBORTag, st.sampled_from([2, 6, 40, 64, 69, 70, 85, 1040, 56500]), inner)
    ),
    max_leaves=8,
)


@SEEDED
@given(st.sampled_from(["start", "image", "end"]), st.data())
def test_any_cbor_in_any_field_never_raises_anything_else(kind: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(["data", "pixel_mask", "user_data", "channels", "real_time"]))
    values = {"type": kind, "pixel_mask": {"threshold_1": array()}, key: data.draw(CBOR)}
    try:
        decoded = eiger_v2.decode(message(**values))
    except WireError:
        return
    if isinstance(decoded, SeriesStart):
        pack_start(decoded)


@SEEDED
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_a_golden_message_with_any_bytes_changed_never_raises_anything_else(
    name: str, data: st.DataObject
) -> None:
    packed = bytearray(MESSAGES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
    try:
        decoded = eiger_v2.decode(bytes(packed))
    except WireError:
        return
    if isinstance(decoded, SeriesStart):
        pack_start(decoded)
