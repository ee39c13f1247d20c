"""V2 messages against a recording of a real EIGER2, the format note and the receiving floor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest

from hitfinder.sim import stream_v2
from hitfinder.sim.detector import DetectorConfig, ExposureTimes, Series, exposure_times
from hitfinder.sim.encoding import EncodedImage, Encoder
from hitfinder.stream import wire
from hitfinder.stream.messages import Frame, SeriesEnd, SeriesStart

SHAPE = (40, 64)
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
SERIES = Series(6, "01HBV3JPF9T4ZDPADX6EMK6XMZ", NOW, NOW)
IMAGE = np.random.default_rng(1).poisson(1.0, SHAPE).astype(np.uint16)


def recorded(shared: Path, message: int) -> bytes:
    folder = shared / "protocol" / "vectors" / "streams" / "v2_tickit_eiger2_16m"
    return (folder / f"m{message:03}_p0.bin").read_bytes()


def fields(parts: list[bytes]) -> Any:
    (message,) = parts
    return cbor2.loads(message)


def test_an_image_of_a_real_eiger2_is_rebuilt_byte_for_byte(shared: Path):
    real = recorded(shared, 1)
    payload = real[real.index(bytes.fromhex("0000000002282c10 00002000")) :]
    image = EncodedImage(payload, (4362, 4148), Encoder("v2", "bslz4", "uint16"), "")
    summer_time = timezone(timedelta(hours=2))
    start = datetime(2023, 10, 3, 17, 47, 49, 434000, summer_time)
    series = Series(2, SERIES.uid, start, start)
    times = ExposureTimes(0, 4317460, 4317460)
    built = stream_v2.image(DetectorConfig(), series, 0, [image], times)
    # The program it was captured from wrote the date anew, with microseconds; the detector's own
    # bytes have milliseconds (protocol note, 4.2).
    anew, own = "x 2023-10-03T17:47:49.434000+02:00", "x\x1d2023-10-03T17:47:49.434+02:00"
    assert built == [real.replace(anew.encode(), own.encode())]


def test_the_start_message_has_the_keys_of_a_real_eiger2_in_its_order(shared: Path):
    real = cbor2.loads(recorded(shared, 0))
    ours = fields(stream_v2.start(DetectorConfig(), SERIES))
    # image_dtype came with release 2024.1, after the recording.
    assert [key for key in ours if key != "image_dtype"] == list(real)
    for key, value in real.items():
        assert type(ours[key]) is type(value), key


def test_times_are_rationals_of_the_detectors_clock():
    config = DetectorConfig(shape=SHAPE, frame_time_s=0.01, count_time_s=0.0099)
    image = Encoder("v2", "bslz4", "uint16")(IMAGE)
    said = fields(stream_v2.image(config, SERIES, 3, [image], exposure_times(config, 3)))
    assert list(said["start_time"]) == [1_500_000, 50_000_000]
    assert list(said["stop_time"]) == [1_995_000, 50_000_000]
    assert list(said["real_time"]) == [495_000, 50_000_000]
    assert said["series_date"] == NOW


@pytest.mark.parametrize(
    ("dtype", "compression", "tag", "modifier"),
    [
        ("uint8", "bslz4", 64, 1),
        ("uint16", "bslz4", 69, 2),
        ("uint32", "bslz4", 70, 4),
        ("uint16", "lz4", 69, 0),
    ],
)
def test_pixels_are_tagged_with_shape_type_and_packing(dtype, compression, tag, modifier):
    image = Encoder("v2", compression, dtype)(IMAGE.astype(dtype))
    config = DetectorConfig(shape=SHAPE)
    said = fields(stream_v2.image(config, SERIES, 0, [image], exposure_times(config, 0)))
    array = said["data"]["threshold_1"]
    assert (array.tag, list(array.value[0])) == (40, [40, 64])
    assert array.value[1].tag == tag
    packed = array.value[1].value
    assert packed.tag == 56500
    assert list(packed.value) == [compression, modifier, image.payload]


def test_an_image_that_is_not_packed_holds_its_bytes_plainly():
    image = Encoder("v2", "none", "uint16")(IMAGE)
    config = DetectorConfig(shape=SHAPE)
    said = fields(stream_v2.image(config, SERIES, 0, [image], exposure_times(config, 0)))
    assert said["data"]["threshold_1"].value[1].value == IMAGE.tobytes()


def test_a_message_starts_with_the_prefix_and_the_type():
    for parts in (stream_v2.start(DetectorConfig(), SERIES), stream_v2.end(SERIES)):
        assert parts[0][:3] == bytes.fromhex("d9d9f7")
        assert cbor2.loads(parts[0]).keys() >= {"series_id", "series_unique_id"}
        assert next(iter(cbor2.loads(parts[0]))) == "type"
    assert fields(stream_v2.end(SERIES)) == {
        "type": "end",
        "series_id": 6,
        "series_unique_id": SERIES.uid,
    }


def test_the_count_rate_table_ends_with_the_cutoff_before_the_last_entry():
    config = DetectorConfig(shape=SHAPE, header_detail="all", dtype="uint16")
    said = fields(stream_v2.start(config, SERIES))
    table = said["countrate_correction_lookup_table"]
    assert table.tag == 70
    assert np.frombuffer(table.value, "<u4")[-2] == said["saturation_value"] == 65534


@pytest.mark.parametrize("detail", ["none", "basic"])
def test_a_header_that_is_not_full_has_no_tables(detail):
    said = fields(stream_v2.start(DetectorConfig(header_detail=detail), SERIES))
    assert not {"flatfield", "pixel_mask", "countrate_correction_lookup_table"} & said.keys()


def test_appendices_are_sent_as_user_data():
    config = DetectorConfig(shape=SHAPE, header_appendix="run 7", image_appendix="spot 3")
    image = Encoder("v2", "bslz4", "uint16")(IMAGE)
    assert fields(stream_v2.start(config, SERIES))["user_data"] == "run 7"
    said = fields(stream_v2.image(config, SERIES, 0, [image], exposure_times(config, 0)))
    assert said["user_data"] == "spot 3"


def test_the_receiving_floor_reads_a_full_series_of_two_thresholds():
    channels = ("threshold_1", "threshold_2")
    config = DetectorConfig(
        shape=SHAPE, header_detail="all", channels=channels, n_images=2, clen_m=0.35
    )
    images = [Encoder("v2", "lz4", "uint16")(image) for image in (IMAGE, IMAGE // 2)]
    start = wire.decode(stream_v2.start(config, SERIES))
    frame = wire.decode(stream_v2.image(config, SERIES, 1, images, exposure_times(config, 1)))
    assert isinstance(start, SeriesStart)
    assert (start.n_frames, start.shape, start.dtype, start.clen_m) == (2, SHAPE, "uint16", 0.35)
    assert (start.channels, start.warnings) == (channels, ())
    assert np.array_equal(start.pixel_mask, config.mask())
    assert isinstance(frame, Frame)
    assert [blob.payload for blob in frame.blobs] == [image.payload for image in images]
    assert wire.decode(stream_v2.end(SERIES)) == SeriesEnd(6, SERIES.uid)
