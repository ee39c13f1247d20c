"""V1: odd headers become warnings, odd images a `WireError` with the frame, no more."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.stream import eiger_v1
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import (
    MAX_FRAMES,
    Codec,
    Frame,
    Message,
    SeriesEnd,
    SeriesStart,
    pack_start,
)

# Reproducible, and without a clock: other tests may share the core.
SEEDED = settings(deadline=None, derandomize=True)

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "wire_messages.json"
MESSAGES = {
    name: [bytes.fromhex(part) for part in message["parts"]]
    for name, message in json.loads(GOLDEN.read_text()).items()
    if name.startswith("v1")
}
IMAGE = MESSAGES["v1_image_u16_bslz4"]


def changed(parts: list[bytes], number: int, **values: Any) -> list[bytes]:
    """Return the message with keys of JSON part `number` replaced, or removed if `...`."""
    about = json.loads(parts[number - 1]) | values
    about = {key: value for key, value in about.items() if value is not ...}
    return [*parts[: number - 1], json.dumps(about).encode(), *parts[number:]]


def frame(parts: list[bytes], **options: bool) -> Frame:
    message = eiger_v1.decode(parts, **options)
    assert isinstance(message, Frame)
    return message


def start(parts: list[bytes]) -> SeriesStart:
    message = eiger_v1.decode(parts)
    assert isinstance(message, SeriesStart)
    return message


def refused(parts: list[bytes], match: str, **options: bool) -> WireError:
    with pytest.raises(WireError, match=match) as caught:
        eiger_v1.decode(parts, **options)
    return caught.value


def test_a_payload_is_a_view_of_the_part_it_came_in() -> None:
    received = bytearray(IMAGE[2])
    blob = frame([*IMAGE[:2], memoryview(received), IMAGE[3]]).blobs[0]  # type: ignore[list-item]
    received[-1] ^= 0xFF
    assert bytes(blob.payload) == bytes(received)
    assert blob.payload.readonly


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.17"])
def test_every_minor_version_of_a_known_htype_is_read(version: str) -> None:
    assert frame(changed(IMAGE, 1, htype=f"dimage-{version}")).header.frame == 1


@pytest.mark.parametrize("htype", ["dimage-2.0", "dimage-1.", "xdimage-1.0", "dimage-1.0\n", 1])
def test_every_other_htype_is_refused(htype: object) -> None:
    refused(changed(IMAGE, 1, htype=htype), "htype")


@pytest.mark.parametrize(
    ("encoding", "codec", "elem_size"),
    [
        ("bs8-lz4<", Codec.BSLZ4, 1),
        ("bs16-lz4<", Codec.BSLZ4, 2),
        ("bs32lz4<", Codec.BSLZ4, 4),
        ("bs64-lz4<", Codec.BSLZ4, 8),
        ("lz4<", Codec.LZ4_BLOCK, 2),
        ("-lz4<", Codec.LZ4_BLOCK, 2),
    ],
)
def test_the_encoding_names_codec_and_shuffle_width(
    encoding: str, codec: Codec, elem_size: int
) -> None:
    blob = frame(changed(IMAGE, 2, encoding=encoding)).blobs[0]
    assert (blob.codec, blob.elem_size, blob.dtype) == (codec, elem_size, "uint16")


@pytest.mark.parametrize(
    ("part", "values", "match"),
    [
        (2, {"encoding": "bs16-lz4>"}, "big-endian"),
        (2, {"encoding": ">"}, "big-endian"),
        (2, {"encoding": "bs16<"}, "not compressed"),
        (2, {"encoding": "bs16-lz4<\n"}, "encoding"),
        (2, {"encoding": "bs12-lz4<"}, "encoding"),
        (2, {"encoding": ...}, "encoding"),
        (2, {"encoding": "<"}, "raw pixels"),
        (2, {"size": 3}, "size is 3"),
        (2, {"size": "40"}, "size"),
        (2, {"type": "float32"}, "type"),
        (2, {"type": ["uint16"]}, "type"),
        (2, {"type": "uint32"}, "header says"),
        (2, {"shape": [9]}, "dimensions"),
        (2, {"shape": [9, 7, 2]}, "dimensions"),
        (2, {"shape": [9, -7]}, "shape"),
        (2, {"shape": [9, 0]}, "shape"),
        (2, {"shape": [True, 7]}, "shape"),
        (2, {"shape": [1 << 40, 1 << 40]}, "shape"),
        (2, {"shape": [10**400, 7]}, "shape"),
        (2, {"shape": ...}, "shape"),
    ],
)
def test_an_image_that_cannot_be_read_is_an_error_with_its_frame(
    part: int, values: dict[str, Any], match: str
) -> None:
    error = refused(changed(IMAGE, part, **values), match)
    assert (error.series, error.frame) == (9, 1)
    assert "frame 1 of series 9" in str(error)


@pytest.mark.parametrize("n_parts", [1, 2, 3, 6])
def test_an_image_of_too_few_or_too_many_parts_is_an_error_with_its_frame(n_parts: int) -> None:
    error = refused((IMAGE * 2)[:n_parts], f"{n_parts} parts")
    assert (error.series, error.frame) == (9, 1)


@pytest.mark.parametrize("frame_number", [-1, MAX_FRAMES, 10**30, "1", 1.0, None, True])
def test_an_absurd_frame_number_is_refused_with_the_series_only(frame_number: object) -> None:
    error = refused(changed(IMAGE, 1, frame=frame_number), "frame is")
    assert (error.series, error.frame) == (9, None)


@pytest.mark.parametrize("series", [-1, 1 << 63, "9", None, False])
def test_an_absurd_series_is_refused_without_ids(series: object) -> None:
    error = refused(changed(IMAGE, 1, series=series), "series is")
    assert (error.series, error.frame) == (None, None)


def test_the_third_dimension_may_be_one() -> None:
    assert frame(changed(IMAGE, 2, shape=[9, 7, 1])).blobs[0].shape == (7, 9)


def test_size_and_hash_may_be_missing() -> None:
    parts = changed(changed(IMAGE, 2, size=...), 1, hash=...)
    assert frame(parts, verify_hash=True).blobs[0].n_bytes == 126


@pytest.mark.parametrize("hash_", ["", "2837916079010770444", 7, "z" * 32])
def test_a_hash_that_is_no_md5_is_not_compared(hash_: object) -> None:
    frame(changed(IMAGE, 1, hash=hash_), verify_hash=True)


def test_a_wrong_md5_is_refused_only_when_asked() -> None:
    parts = changed(IMAGE, 1, hash="0" * 32)
    frame(parts)
    error = refused(parts, "MD5", verify_hash=True)
    assert (error.series, error.frame) == (9, 1)


def test_an_md5_in_capitals_is_the_same() -> None:
    md5 = hashlib.md5(IMAGE[2], usedforsecurity=False).hexdigest().upper()
    frame(changed(IMAGE, 1, hash=md5), verify_hash=True)


@pytest.mark.parametrize("time", [-5, 1 << 63, "12", None, 1.5])
def test_an_odd_time_is_unknown_and_the_image_is_kept(time: object) -> None:
    assert frame(changed(IMAGE, 4, start_time=time)).header.start_ns is None


def test_a_blob_without_header_is_read_when_lenient_with_its_md5() -> None:
    blob = IMAGE[2]
    for payload in (blob[12:], bytes(12) + blob[12:]):
        md5 = hashlib.md5(payload, usedforsecurity=False).hexdigest()
        parts = changed([*IMAGE[:2], payload, IMAGE[3]], 2, size=len(payload))
        parts = changed(parts, 1, hash=md5)
        refused(parts, "lenient", verify_hash=True)
        lenient = frame(parts, lenient=True, verify_hash=True).blobs[0]
        assert (lenient.has_header, bytes(lenient.payload)) == (False, blob[12:])


@pytest.mark.parametrize(
    ("mode", "nimages", "ntrigger", "n_frames"),
    [
        ("ints", 5, 2, 10),
        ("exts", 5, 2, 10),
        ("exte", 5, 2, 2),
        ("inte", ..., 3, 3),
        ("extg", 5, 2, None),
        ("eies", 5, 2, None),
        (..., 5, 2, None),
        ("ints", 5, ..., None),
        ("ints", ..., 2, None),
    ],
)
def test_the_number_of_images_follows_the_trigger_mode(
    mode: object, nimages: object, ntrigger: object, n_frames: int | None
) -> None:
    parts = MESSAGES["v1_start_basic_appendix"]
    parts = changed(parts, 2, trigger_mode=mode, nimages=nimages, ntrigger=ntrigger)
    assert start(parts).n_frames == n_frames


@pytest.mark.parametrize("ntrigger", [0, MAX_FRAMES, 10**18, 1 << 62])
def test_an_absurd_number_of_images_is_unknown_with_a_warning(ntrigger: int) -> None:
    message = start(changed(MESSAGES["v1_start_basic_appendix"], 2, ntrigger=ntrigger))
    assert message.n_frames is None
    assert "number of images" in message.warnings[0]


@pytest.mark.parametrize("value", ["x", -1.0, [1], float("nan"), float("inf"), 10**400, True])
@pytest.mark.parametrize("key", ["photon_energy", "detector_distance", "count_time"])
def test_an_odd_header_value_is_unknown_with_a_warning(key: str, value: object) -> None:
    message = start(changed(MESSAGES["v1_start_basic_appendix"], 2, **{key: value}))
    facts = (message.photon_energy_eV, message.clen_m, message.count_time_s)
    assert facts.count(None) == 1
    assert len(message.warnings) == 1
    assert message.warnings[0].startswith(key)
    pack_start(message)


def test_zeros_of_an_unset_detector_are_unknown_without_a_warning() -> None:
    zeros = {"detector_distance": 0, "beam_center_x": 0, "beam_center_y": 0.0}
    message = start(changed(MESSAGES["v1_start_basic_appendix"], 2, **zeros))
    assert (message.clen_m, message.beam_center_px, message.warnings) == (None, None, ())


def test_the_wavelength_stands_in_for_a_missing_photon_energy() -> None:
    parts = changed(MESSAGES["v1_start_basic_appendix"], 2, photon_energy=..., wavelength=1.0)
    assert start(parts).photon_energy_eV == pytest.approx(12398.4198, abs=1e-3)


def test_text_that_cannot_be_encoded_is_made_printable() -> None:
    parts = changed(
        MESSAGES["v1_start_basic_appendix"], 2, description="\ud800", odd={"\udfff": 1}
    )
    message = start(parts)
    assert message.detector == "?"
    assert message.header["odd"] == {"?": 1}
    pack_start(message)


@pytest.mark.parametrize("name", ["flatfield", "pixel_mask"])
@pytest.mark.parametrize("damage", ["placeholder", "other shape", "no JSON", "missing"])
def test_an_array_that_cannot_be_used_is_a_warning(name: str, damage: str) -> None:
    parts = list(MESSAGES["v1_start_all"])
    at = 2 if name == "flatfield" else 4
    if damage == "placeholder":
        parts[at + 1] = b"flatfield-data-blob-here"
    elif damage == "other shape":
        parts = changed(parts, at + 1, shape=[7, 9])
    elif damage == "no JSON":
        parts[at] = b"\xff"
    else:
        del parts[at:]
    message = start(parts)
    assert getattr(message, name) is None
    assert name.replace("_", " ") in " ".join(message.warnings)
    assert message.n_frames == 10


def test_arrays_of_the_header_do_not_borrow_from_the_message() -> None:
    parts: list[Any] = [bytearray(part) for part in MESSAGES["v1_start_all"]]
    message = start(parts)
    assert message.pixel_mask is not None
    before = message.pixel_mask.copy()
    parts[5][:] = bytes(len(parts[5]))
    np.testing.assert_array_equal(message.pixel_mask, before)


def test_a_header_split_in_two_messages_gives_a_start_and_an_unknown_message() -> None:
    first, second = MESSAGES["v1_start_basic_appendix"][:2]
    assert "configuration is missing" in start([first]).warnings[0]
    assert refused([second], "htype").series is None


def test_an_unknown_header_detail_is_guessed_from_the_parts_with_a_warning() -> None:
    parts = changed(MESSAGES["v1_start_all"], 1, header_detail="most")
    message = start(parts)
    assert message.pixel_mask is not None
    assert "header_detail" in message.warnings[0]


def test_more_parts_than_one_appendix_are_a_warning() -> None:
    message = start([*MESSAGES["v1_start_none"], b"one", b"two"])
    assert message.header["header_appendix"] == "one"
    assert "3 parts" in message.warnings[0]


def test_the_end_names_its_series() -> None:
    assert eiger_v1.decode(MESSAGES["v1_end"]) == SeriesEnd(9)


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"[1]",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"series": ' + b"9" * 5000 + b"}",
        b'{"pad": "' + b" " * (1 << 20) + b'"}',
    ],
)
def test_a_first_part_that_is_no_json_object_is_refused(part: bytes) -> None:
    refused([part], "part 1")


def test_no_parts_are_refused() -> None:
    refused([], "without parts")


@pytest.mark.parametrize(
    ("real_ns_raw", "count_time_s", "unit_ns"),
    [
        (99251, 0.0019925357773900032, 20),  # EIGER 4M, firmware 1.6.6
        (1985020, 0.0019925357773900032, 1),
        (500000, 0.0009999, 1),
        (4317460, 0.004317472232502031, 1),
        (0, 0.1, 1),
        (None, 0.1, 1),
        (99251, None, 1),
        (99251, 0.0, 1),
        (99251, -1.0, 1),
        (1 << 62, 1e-9, 1),
    ],
)
def test_the_tick_is_the_unit_that_fits_the_count_time(
    real_ns_raw: int | None, count_time_s: float | None, unit_ns: int
) -> None:
    assert eiger_v1.tick_ns(real_ns_raw, count_time_s) == unit_ns


def decoded_or_refused(parts: list[bytes]) -> Message | WireError:
    try:
        return eiger_v1.decode(parts, lenient=False, verify_hash=True)
    except WireError as error:
        return error


@SEEDED
@given(st.lists(st.binary(max_size=60), max_size=10), st.booleans())
def test_random_parts_never_raise_anything_else(parts: list[bytes], lenient: bool) -> None:
    try:
        eiger_v1.decode(parts, lenient=lenient)
    except WireError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@SEEDED
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_a_golden_message_with_any_json_value_changed_never_raises_anything_else(
    name: str, data: st.DataObject
) -> None:
    parts = MESSAGES[name]
    objects = [i for i, part in enumerate(parts) if part.startswith(b'{"')]
    number = data.draw(st.sampled_from(objects)) + 1
    key = data.draw(st.sampled_from(sorted(json.loads(parts[number - 1]))))
    result = decoded_or_refused(changed(parts, number, **{key: data.draw(JSON)}))
    if isinstance(result, SeriesStart):
        pack_start(result)
    if isinstance(result, WireError) and number > 1:
        assert result.series == 9


@SEEDED
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_a_golden_message_with_any_bytes_changed_never_raises_anything_else(
    name: str, data: st.DataObject
) -> None:
    parts = [bytearray(part) for part in MESSAGES[name]]
    part = data.draw(st.sampled_from([p for p in parts if p]))
    for _ in range(data.draw(st.integers(1, 4))):
        part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del part[data.draw(st.integers(0, len(part) - 1)) :]
    decoded_or_refused([bytes(part) for part in parts])
