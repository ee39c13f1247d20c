"""V1 messages against recordings of real detectors, the format note and the receiving floor."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from hitfinder.sim import stream_v1
from hitfinder.sim.detector import (
    DetectorConfig,
    ExposureTimes,
    Series,
    exposure_times,
    simplon_values,
)
from hitfinder.sim.encoding import EncodedImage, Encoder
from hitfinder.stream import wire
from hitfinder.stream.messages import Frame, SeriesEnd, SeriesStart

SHAPE = (40, 64)
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
SERIES = Series(6, "01HBV3JPF9T4ZDPADX6EMK6XMZ", NOW, NOW)
IMAGE = np.random.default_rng(1).poisson(1.0, SHAPE).astype(np.uint16)


def test_an_image_of_a_real_eiger_is_rebuilt_byte_for_byte(shared: Path):
    folder = shared / "protocol" / "vectors" / "streams" / "v1_real_eiger1_4m_image"
    parts = [(folder / f"m000_p{k}.bin").read_bytes() for k in range(4)]
    ids, times = json.loads(parts[0]), json.loads(parts[3])
    payload = parts[2]
    encoder = Encoder("v1", "bslz4", "uint16")
    # Its hash is no digest of any of its bytes, so it is taken from the recording.
    image = EncodedImage(payload, (2167, 2070), encoder, ids["hash"])
    series = Series(ids["series"], "", NOW, NOW)
    ticks_ns = [20 * times[f"{name}_time"] for name in ("start", "stop", "real")]
    config = DetectorConfig(tick_ns=20)
    built = stream_v1.image(config, series, ids["frame"], [image], ExposureTimes(*ticks_ns))
    assert built == parts


@pytest.mark.parametrize(("detail", "n_parts"), [("none", 1), ("basic", 2), ("all", 8)])
@pytest.mark.parametrize("appendix", ["", '{"run": 7}'])
def test_the_header_has_as_many_parts_as_its_detail_says(detail, n_parts, appendix):
    config = DetectorConfig(shape=SHAPE, header_detail=detail, header_appendix=appendix)
    parts = stream_v1.start(config, SERIES)
    assert parts[0].decode() == f'{{"header_detail":"{detail}","htype":"dheader-1.0","series":6}}'
    assert len(parts) == n_parts + bool(appendix)
    assert parts[-1] == appendix.encode() or not appendix


def test_the_tables_of_a_full_header_have_the_announced_size_and_shape():
    mask = np.random.default_rng(2).integers(0, 32, SHAPE).astype(np.uint32)
    flat = np.random.default_rng(3).normal(1, 0.1, SHAPE).astype(np.float32)
    config = DetectorConfig(shape=SHAPE, header_detail="all", pixel_mask=mask, flatfield=flat)
    parts = stream_v1.start(config, SERIES)
    announced = [json.loads(part) for part in parts[2::2]]
    assert [a["htype"] for a in announced] == [
        "dflatfield-1.0",
        "dpixelmask-1.0",
        "dcountrate_table-1.0",
    ]
    assert [a["shape"] for a in announced] == [[64, 40], [64, 40], [2, 1000]]
    assert [a["type"] for a in announced] == ["float32", "uint32", "float32"]
    assert (parts[3], parts[5]) == (flat.tobytes(), mask.tobytes())
    assert len(parts[7]) == 8000


def test_the_second_part_states_every_setting_a_receiver_may_use():
    config = DetectorConfig(shape=SHAPE, n_images=5, n_trigger=2, photon_energy_eV=7000.0)
    said = json.loads(stream_v1.start(config, SERIES)[1])
    assert said == simplon_values(config)
    assert (said["nimages"], said["ntrigger"], said["trigger_mode"]) == (5, 2, "ints")
    assert (said["x_pixels_in_detector"], said["y_pixels_in_detector"]) == (64, 40)
    assert (said["bit_depth_image"], said["compression"]) == (16, "bslz4")
    assert said["wavelength"] == pytest.approx(1.7712, abs=1e-4)
    assert said["detector_distance"] == 0.15
    assert "htype" not in said


@pytest.mark.parametrize(
    ("dtype", "compression", "encoding"),
    [
        ("uint8", "bslz4", "bs8-lz4<"),
        ("uint16", "bslz4", "bs16-lz4<"),
        ("uint32", "bslz4", "bs32-lz4<"),
        ("uint32", "lz4", "lz4<"),
        ("uint16", "none", "<"),
    ],
)
def test_an_image_states_its_encoding_size_and_hash(dtype, compression, encoding):
    image = Encoder("v1", compression, dtype)(IMAGE.astype(dtype))
    config = DetectorConfig(shape=SHAPE, image_appendix="text")
    parts = stream_v1.image(config, SERIES, 3, [image], exposure_times(config, 3))
    about = json.loads(parts[1])
    assert about["encoding"] == encoding
    assert about["shape"] == [64, 40]
    assert (about["size"], about["type"]) == (len(parts[2]), dtype)
    assert json.loads(parts[0])["hash"] == hashlib.md5(parts[2]).hexdigest()
    assert parts[4:] == [b"text"]


def test_old_firmware_counts_time_in_ticks_of_20_ns():
    image = Encoder("v1", "none", "uint16")(IMAGE)
    times = ExposureTimes(start_ns=2_000_000, stop_ns=3_990_000, real_ns=1_990_000)
    config = DetectorConfig(shape=SHAPE, tick_ns=20)
    said = json.loads(stream_v1.image(config, SERIES, 1, [image], times)[3])
    assert (said["start_time"], said["stop_time"], said["real_time"]) == (100_000, 199_500, 99_500)


def test_the_end_message_is_as_the_format_note_prints_it():
    assert stream_v1.end(SERIES) == [b'{"htype":"dseries_end-1.0","series":6}']


@pytest.mark.parametrize("detail", ["none", "basic", "all"])
def test_the_receiving_floor_reads_a_series(detail):
    config = DetectorConfig(shape=SHAPE, header_detail=detail, n_images=2, clen_m=0.25)
    image = Encoder("v1", "bslz4", "uint16")(IMAGE)
    start = wire.decode(stream_v1.start(config, SERIES))
    frame = wire.decode(stream_v1.image(config, SERIES, 1, [image], exposure_times(config, 1)))
    end = wire.decode(stream_v1.end(SERIES))
    assert isinstance(start, SeriesStart)
    assert (start.series, start.warnings) == (6, ())
    if detail != "none":
        assert (start.n_frames, start.shape, start.clen_m) == (2, SHAPE, 0.25)
    if detail == "all":
        assert np.array_equal(start.pixel_mask, config.mask())
        assert np.array_equal(start.flatfield, config.flat())
    assert isinstance(frame, Frame)
    assert (frame.header.series, frame.header.frame) == (6, 1)
    assert frame.blobs[0].payload == image.payload
    assert end == SeriesEnd(6)
