"""Small judged frames for the tests of what a run leaves on disk: 64 x 48 pixels, seeded."""

import struct
from collections.abc import Callable

import bitshuffle
import numpy as np
import pytest
from numpy.typing import NDArray

from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import Blob, Codec, SeriesStart
from hitfinder.stream.results import Outcome, Peaks, Record

SHAPE = (64, 48)


def image_of(frame: int, dtype: str = "uint16") -> NDArray[np.unsignedinteger]:
    """Return the pixels that frame number `frame` has in every test."""
    return np.random.default_rng(frame).poisson(1.5, SHAPE).astype(dtype)


def bslz4_blob(image: NDArray[np.unsignedinteger], channel: str = "threshold_1") -> Blob:
    body = bitshuffle.compress_lz4(image, 0).tobytes()
    payload = struct.pack(">QI", image.nbytes, 8192) + body
    dtype = image.dtype.name
    codec, size = Codec.BSLZ4, image.dtype.itemsize
    return Blob(channel, image.shape, dtype, codec, size, memoryview(payload))


def peaks_of(n: int) -> Peaks:
    column = np.arange(n, dtype="<f4")
    return Peaks(
        fs=column.tobytes(),
        ss=(column + 0.5).tobytes(),
        intensity=(100 - column).tobytes(),
        snr=(column / 2).tobytes(),
        p=np.ones(n, "<f4").tobytes(),
    )


@pytest.fixture
def judged() -> Callable[..., JudgedFrame]:
    """Return a maker of judged frames of series 5."""

    def make(frame: int, outcome: Outcome = Outcome.HIT, n_peaks: int = 3) -> JudgedFrame:
        record = Record(
            series=5,
            series_uid="uid-5",
            frame=frame,
            outcome=outcome,
            p_hit=0.75,
            n_peaks=n_peaks,
            peaks=peaks_of(n_peaks),
            t_detector_ns=1000 * frame,
            mismatch=False,
            model="abc",
        )
        has_image = outcome in (Outcome.HIT, Outcome.MISS)
        return JudgedFrame(record, (bslz4_blob(image_of(frame)),) if has_image else ())

    return make


@pytest.fixture
def pixels() -> Callable[..., NDArray[np.unsignedinteger]]:
    """Return the function frame number -> pixels."""
    return image_of


@pytest.fixture
def packed() -> Callable[..., Blob]:
    """Return the function pixels -> bitshuffle-LZ4 blob."""
    return bslz4_blob


@pytest.fixture
def start() -> SeriesStart:
    """Return the header of series 5: 40 frames of 64 x 48 pixels, complete geometry."""
    return SeriesStart(
        series=5,
        series_uid="uid-5",
        n_frames=40,
        shape=SHAPE,
        dtype="uint16",
        photon_energy_eV=7000.0,
        clen_m=0.25,
        beam_center_px=(20.0, 30.0),
        pixel_size_m=(75e-6, 75e-6),
        sensor_thickness_m=450e-6,
        sensor_material="Si",
        saturation_value=65534,
        count_time_s=0.00099,
        frame_time_s=0.001,
        detector="EIGER2 Si 4M",
        serial_number="E-08-0000",
        arm_date="2026-01-01T00:00:00Z",
    )
