"""Hit files: the received bytes come back as the pixels that were sent, whatever the codec."""

import os
import struct
import subprocess
import sys
from dataclasses import replace

import bitshuffle
import h5py
import hdf5plugin
import lz4.block
import numpy as np
import pytest

from hitfinder.stream.hitfile import MAX_PEAKS, HitFile, JudgedFrame, read_columns
from hitfinder.stream.ledger import COLUMNS, rows_of
from hitfinder.stream.messages import Blob, Codec
from hitfinder.stream.results import Outcome, Peaks, Record


def write(path, frames):
    file = HitFile(path, frames[0].blobs, {"version": "0", "config": {"gate": {"mode": "any"}}})
    file.append(frames, rows_of([f.record for f in frames]))
    file.flush()
    return file


def lz4_hdf5(raw, block):
    """Frame raw bytes as the LZ4 filter does: incompressible blocks stand raw."""
    blocks = [raw[i : i + block] for i in range(0, len(raw), block)]
    packed = [min(b, lz4.block.compress(b, store_size=False), key=len) for b in blocks]
    return struct.pack(">QI", len(raw), block) + b"".join(
        struct.pack(">I", len(p)) + p for p in packed
    )


def variants(image):
    raw, size = image.tobytes(), image.itemsize
    body = bitshuffle.compress_lz4(image, 0).tobytes()
    wide = bitshuffle.compress_lz4(image.view(np.uint32), 0).tobytes()
    large = bitshuffle.compress_lz4(image, 1024).tobytes()
    head = struct.pack(">QI", image.nbytes, 8192)

    def blob(codec, payload, elem_size=size, has_header=True):
        return Blob(
            "t", image.shape, image.dtype.name, codec, elem_size, memoryview(payload), has_header
        )

    return {
        "bslz4": blob(Codec.BSLZ4, head + body),
        "bslz4, another block size": blob(
            Codec.BSLZ4, struct.pack(">QI", image.nbytes, 1024 * size) + large
        ),
        "bslz4 without its header": blob(Codec.BSLZ4, body, has_header=False),
        "bslz4 shuffled over 4 bytes": blob(Codec.BSLZ4, head + wide, elem_size=4),
        "lz4 of HDF5": blob(Codec.LZ4_HDF5, lz4_hdf5(raw, 1000)),
        "bare lz4 block": blob(Codec.LZ4_BLOCK, lz4.block.compress(raw, store_size=False)),
        "raw": blob(Codec.NONE, raw),
    }


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("variant", list(variants(np.zeros((8, 8), np.uint16))))
def test_pixels_come_back_through_the_declared_filter(tmp_path, pixels, judged, variant, dtype):
    image = pixels(1, dtype)
    frame = JudgedFrame(judged(1).record, (variants(image)[variant],))
    write(tmp_path / "hits_000001.h5", [frame]).close()
    with h5py.File(tmp_path / "hits_000001.h5") as file:
        assert file["entry/data/data"].dtype == dtype
        np.testing.assert_array_equal(file["entry/data/data"][0], image)


def test_a_bare_block_as_long_as_its_image_is_not_taken_for_raw(tmp_path, judged):
    noise = np.random.default_rng(1).integers(1, 256, 256, np.uint8).tobytes()
    for n_zeros in range(4, 40):  # what the zeros save must make up for what the noise costs
        raw = noise[:30] + bytes(n_zeros) + noise[30 + n_zeros :]
        packed = lz4.block.compress(raw, store_size=False)
        if len(packed) == len(raw):
            break
    else:
        pytest.fail("no block of that length")
    blob = Blob("t", (16, 16), "uint8", Codec.LZ4_BLOCK, 1, memoryview(packed))
    write(tmp_path / "h.h5", [JudgedFrame(judged(0).record, (blob,))]).close()
    with h5py.File(tmp_path / "h.h5") as file:
        assert file["entry/data/data"][0].tobytes() == raw


def test_bytes_on_disk_are_the_bytes_received(tmp_path, judged):
    frame = judged(4)
    write(tmp_path / "h.h5", [frame]).close()
    with h5py.File(tmp_path / "h.h5") as file:
        _, chunk = file["entry/data/data"].id.read_direct_chunk((0, 0, 0))
    assert chunk == bytes(frame.blobs[0].payload)


def test_filter_values_state_element_size_and_block(tmp_path, judged):
    write(tmp_path / "h.h5", [judged(0)]).close()
    with h5py.File(tmp_path / "h.h5") as file:
        create = file["entry/data/data"].id.get_create_plist()
        number, _, values, _ = create.get_filter(0)
        assert (number, values[2:5]) == (32008, (2, 4096, 2))
        assert create.get_chunk() == (1, 64, 48)


def test_peaks_and_columns_are_aligned_with_images(tmp_path, judged):
    frames = [judged(f, n_peaks=n) for f, n in ((4, 0), (9, 70), (2, 1))]
    write(tmp_path / "hits_000001.h5", frames).close()
    with h5py.File(tmp_path / "hits_000001.h5") as file:
        entry = file["entry"]
        assert entry["result/nPeaks"][:].tolist() == [0, 70, 1]
        assert entry["result/nPeaks"].dtype == np.int32
        for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity", "peakSNR"):
            assert entry["result"][name].shape == (3, MAX_PEAKS)
            assert entry["result"][name].dtype == np.float32
        assert entry["result/peakXPosRaw"][1, :70].tolist() == list(range(70))
        assert entry["result/peakYPosRaw"][1, 69] == 69.5
        assert not entry["result/peakXPosRaw"][1, 70:].any()
        assert set(entry["hitfinder"]) == set(COLUMNS)
        assert entry["hitfinder/frame"][:].tolist() == [4, 9, 2]
        assert entry["hitfinder/row"][:].tolist() == [0, 1, 2]
        assert entry["hitfinder/file"][0] == b"hits_000001.h5"
        assert np.isnan(entry["hitfinder/clen_m"][:]).all()
        assert entry["hitfinder"].attrs["version"] == "0"
        assert '"mode": "any"' in entry["hitfinder"].attrs["config"]
        assert entry.attrs["NX_class"] == "NXentry"


def test_of_too_many_peaks_the_most_intense_are_kept(tmp_path, judged):
    n = MAX_PEAKS + 100
    column = np.arange(n, dtype="<f4")  # the later the more intense
    peaks = Peaks(*[column.tobytes()] * 5)
    record = Record(series=1, frame=0, outcome=Outcome.HIT, n_peaks=n, peaks=peaks)
    write(tmp_path / "h.h5", [JudgedFrame(record, judged(0).blobs)]).close()
    with h5py.File(tmp_path / "h.h5") as file:
        assert file["entry/result/nPeaks"][0] == MAX_PEAKS
        assert file["entry/hitfinder/n_peaks"][0] == n
        assert file["entry/result/peakXPosRaw"][0].tolist() == column[100:].tolist()


def test_every_channel_is_kept_under_a_name_of_its_own(tmp_path, judged, packed, pixels):
    names = ("threshold_1", "threshold_2", "../data", "data", "")
    blobs = tuple(packed(pixels(i), name) for i, name in enumerate(names))
    write(tmp_path / "h.h5", [JudgedFrame(judged(0).record, blobs)]).close()
    with h5py.File(tmp_path / "h.h5") as file:
        data = file["entry/data"]
        assert set(data) == {"data", "threshold_2", "___data", "data_", "channel"}
        np.testing.assert_array_equal(data["data"][0], pixels(0))
        np.testing.assert_array_equal(data["threshold_2"][0], pixels(1))


def test_a_second_channel_that_is_no_image_leaves_its_row_empty(tmp_path, judged, packed, pixels):
    rubbish = Blob("t2", (64, 48), "uint16", Codec.BSLZ4, 4, memoryview(b"\0" * 11 + b"\1" * 40))
    frame = JudgedFrame(judged(0).record, (packed(pixels(0)), rubbish))
    write(tmp_path / "h.h5", [frame, frame]).close()
    with h5py.File(tmp_path / "h.h5") as file:
        assert file["entry/data/t2"].shape == (2, 64, 48)
        assert not file["entry/data/t2"][:].any()


def test_flushed_rows_can_be_read_while_the_file_is_open(tmp_path, judged, pixels):
    path = tmp_path / "hits_000001.h5"
    file = write(path, [judged(0), judged(1)])
    assert read_columns(path)["frame"].tolist() == [0, 1]
    with h5py.File(path, libver="latest", swmr=True) as reader:
        np.testing.assert_array_equal(reader["entry/data/data"][1], pixels(1))
    file.close()


def test_an_absurd_block_size_in_a_header_does_not_stop_the_file(tmp_path, judged, packed, pixels):
    good = packed(pixels(0))
    payload = bytes(good.payload[:8]) + b"\xff\xff\xff\xff" + bytes(good.payload[12:])
    blob = replace(good, payload=memoryview(payload))
    write(tmp_path / "h.h5", [JudgedFrame(judged(0).record, (blob,))]).close()
    assert len(read_columns(tmp_path / "h.h5")) == 1


def test_a_plug_in_path_in_the_environment_changes_nothing(tmp_path):
    """CrystFEL's users set HDF5_PLUGIN_PATH; the daemon is started from the same shell."""
    code = (
        "import sys, numpy as np, bitshuffle, struct\n"
        "from pathlib import Path\n"
        "from hitfinder.stream.hitfile import HitFile\n"
        "from hitfinder.stream.messages import Blob, Codec\n"
        "body = bitshuffle.compress_lz4(np.zeros((48, 64), np.uint16)).tobytes()\n"
        "payload = memoryview(struct.pack('>QI', 6144, 8192) + body)\n"
        "blob = Blob('threshold_1', (48, 64), 'uint16', Codec.BSLZ4, 2, payload)\n"
        "HitFile(Path(sys.argv[1]), (blob,), {}).close()\n"
    )
    env = {**os.environ, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH}
    path = tmp_path / "hits_000001.h5"
    subprocess.run([sys.executable, "-c", code, str(path)], env=env, check=True)
    with h5py.File(path) as file:
        number, _, values, _ = file["/entry/data/data"].id.get_create_plist().get_filter(0)
    assert number == 32008
    assert values[2:] == (2, 4096, 2)
