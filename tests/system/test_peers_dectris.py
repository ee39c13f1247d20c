"""Our V2 stream read the way the detector's maker reads it: cbor2 tag hooks, dectris-compression.

The decoder here is written from the format note (tags 40, 64-87 and 56500) and shares nothing
with the receiving floor, so an error common to simulator and receiver shows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import cbor2
import numpy as np
import pytest
from dectris.compression import decompress

from hitfinder.sim import stream_v2
from hitfinder.sim.detector import DetectorConfig, Series, exposure_times
from hitfinder.sim.encoding import Encoder
from hitfinder.stream import bslz4, wire
from hitfinder.stream.messages import Frame, SeriesStart

pytestmark = pytest.mark.system

SHAPE = (61, 83)  # neither a multiple of 8: leftovers at the end of a bitshuffle blob
CHANNELS = ("threshold_1", "threshold_2", "difference")
TYPED_ARRAYS = {64: "u1", 69: "<u2", 70: "<u4", 71: "<u8", 84: "<f2", 85: "<f4", 86: "<f8"}
ARMED = datetime(2024, 1, 1, 12, tzinfo=UTC)
SERIES = Series(15614, "01HBV3JPF9T4ZDPADX6EMK6XMZ", ARMED, ARMED)


def hook(tag: cbor2.CBORTag, _immutable: bool) -> Any:
    if tag.tag == 56500:
        algorithm, elem_size, packed = tag.value
        return decompress(packed, algorithm, elem_size=elem_size)
    if tag.tag in TYPED_ARRAYS:
        return np.frombuffer(tag.value, TYPED_ARRAYS[tag.tag])
    if tag.tag == 40:
        (rows, columns), pixels = tag.value
        return pixels.reshape(rows, columns)
    return tag


def read(message: bytes) -> Any:
    return cbor2.loads(message, tag_hook=hook)


def frames(dtype: str, n_channels: int) -> np.ndarray:
    images = np.random.default_rng(3).poisson(2.0, (n_channels, *SHAPE)).astype(dtype)
    images[:, :, 40:44] = np.iinfo(dtype).max
    return images


@pytest.mark.parametrize("prefix", [True, False], ids=["55799", "bare"])
@pytest.mark.parametrize("n_channels", [1, 2, 3])
@pytest.mark.parametrize("compression", ["bslz4", "lz4", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_an_image_message_holds_the_pixels_for_both_decoders(
    dtype, compression, n_channels, prefix
):
    channels = CHANNELS[:n_channels]
    config = DetectorConfig(
        shape=SHAPE, dtype=dtype, compression=compression, channels=channels, n_images=3
    )
    images = frames(dtype, n_channels)
    encode = Encoder("v2", compression, dtype)
    blobs = [encode(image) for image in images]
    times = exposure_times(config, 2)
    (message,) = stream_v2.image(config, SERIES, 2, blobs, times)
    assert message.startswith(stream_v2.SELF_DESCRIBE)
    message = message if prefix else message.removeprefix(stream_v2.SELF_DESCRIBE)

    fields = read(message)
    assert (fields["type"], fields["image_id"]) == ("image", 2)
    assert (fields["series_id"], fields["series_unique_id"]) == (15614, SERIES.uid)
    assert Fraction(*fields["start_time"]) == Fraction(times.start_ns, 10**9)
    assert tuple(fields["data"]) == channels
    for channel, image in zip(channels, images, strict=True):
        assert fields["data"][channel].dtype == dtype
        assert np.array_equal(fields["data"][channel], image)

    frame = wire.decode([message])
    assert isinstance(frame, Frame)
    assert [blob.channel for blob in frame.blobs] == list(channels)
    assert np.array_equal([bslz4.decode(blob) for blob in frame.blobs], images)


@pytest.mark.parametrize("block_bytes", [64, 4096, 16384])
@pytest.mark.parametrize("compression", ["bslz4", "lz4"])
def test_blocks_of_another_size_are_read_by_both_decoders(compression, block_bytes):
    (image,) = frames("uint16", 1)
    config = DetectorConfig(shape=SHAPE, compression=compression)
    blob = Encoder("v2", compression, "uint16", block_bytes)(image)
    (message,) = stream_v2.image(config, SERIES, 0, [blob], exposure_times(config, 0))
    assert np.array_equal(read(message)["data"]["threshold_1"], image)
    frame = wire.decode([message])
    assert isinstance(frame, Frame)
    assert np.array_equal(bslz4.decode(frame.blobs[0]), image)


def test_a_full_start_message_says_the_same_to_both_decoders():
    config = DetectorConfig(
        shape=SHAPE,
        header_detail="all",
        channels=CHANNELS[:2],
        n_images=4,
        n_trigger=2,
        pixel_mask=np.eye(*SHAPE, dtype=np.uint32),
    )
    (message,) = stream_v2.start(config, SERIES)
    fields, start = read(message), wire.decode([message])
    assert isinstance(start, SeriesStart)
    assert fields["type"] == "start"
    assert start.series_uid == fields["series_unique_id"]
    assert start.n_frames == fields["number_of_images"] == 8
    assert start.shape == (fields["image_size_y"], fields["image_size_x"]) == SHAPE
    assert start.channels == tuple(fields["channels"])
    assert start.photon_energy_eV == fields["incident_energy"] == config.photon_energy_eV
    assert start.clen_m == pytest.approx(-fields["detector_translation"][2])
    assert start.saturation_value == fields["saturation_value"]
    assert fields["arm_date"] == ARMED
    for channel in config.channels:
        assert np.array_equal(fields["pixel_mask"][channel], config.mask())
        assert np.array_equal(fields["flatfield"][channel], config.flat())
    assert np.array_equal(start.pixel_mask, config.mask())
    assert np.array_equal(start.flatfield, config.flat())
