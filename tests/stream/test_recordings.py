"""Recordings of every kind, written here with h5py, come back as the messages of a detector."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from hitfinder.stream import bslz4
from hitfinder.stream.capture import CaptureWriter
from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import Codec, Frame, SeriesEnd, SeriesStart
from hitfinder.stream.recording_series import Span, dealt
from hitfinder.stream.recording_series import frames_of as stored
from hitfinder.stream.recordings import Kind, open_recording, open_recordings
from hitfinder.stream.results import Outcome, Record
from hitfinder.stream.series_folder import SeriesFolder

SHAPE = (38, 52)
TOP = {"uint8": 255, "uint16": 65535, "uint32": 4294967295}


def images(n: int, dtype: str = "uint16", seed: int = 1) -> np.ndarray:
    frames = np.random.default_rng(seed).poisson(0.4, (n, *SHAPE)).astype(dtype)
    frames[:, 20:23] = TOP.get(dtype, 0)
    return frames


def frames_of(recording) -> list[Frame]:
    return [m for m in recording.messages() if isinstance(m, Frame)]


def pixels_of(recording) -> np.ndarray:
    return np.stack([bslz4.decode(f.blobs[0]) for f in frames_of(recording)])


def start_of(recording) -> SeriesStart:
    return next(m for m in recording.messages() if isinstance(m, SeriesStart))


def write_stack(path: Path, stack: np.ndarray, name: str = "/entry/data/data", **how) -> Path:
    frame = stack.shape[1:]
    bslz4_frames = {"chunks": (1, *frame), **hdf5plugin.Bitshuffle(cname="lz4")}
    how = how or {"maxshape": (None, *frame), **bslz4_frames}
    with h5py.File(path, "a") as f:
        f.create_dataset(name, data=stack, **how)
    return path


def write_master(folder: Path, parts: list[np.ndarray], n_images: int | None = None) -> Path:
    with h5py.File(folder / "run_master.h5", "w") as f:
        for i, part in enumerate(parts, 1):
            write_stack(folder / f"run_data_{i:06d}.h5", part)
            f[f"entry/data/data_{i:06d}"] = h5py.ExternalLink(
                f"run_data_{i:06d}.h5", "/entry/data/data"
            )
        detector = f.create_group("entry/instrument/detector")
        for name, value, unit in (
            ("detector_distance", 150.0, "mm"),
            ("x_pixel_size", 75e-6, "m"),
            ("y_pixel_size", 75e-6, "m"),
            ("sensor_thickness", 450.0, "um"),
            ("count_time", 0.0009, "s"),
            ("frame_time", 0.001, "s"),
        ):
            detector[name] = value
            detector[name].attrs["units"] = unit
        detector["beam_center_x"], detector["beam_center_y"] = 25.5, 19.25
        detector["saturation_value"] = 21517
        detector["description"] = "Dectris EIGER2 Si 4M"
        detector["pixel_mask"] = np.eye(*SHAPE, dtype=np.uint32)
        specific = detector.create_group("detectorSpecific")
        specific["nimages"] = n_images or sum(map(len, parts))
        specific["ntrigger"] = 1
        specific["series_unique_id"] = "01HBV3JPF9T4ZDPADX6EMK6XMZ"
        f["entry/instrument/beam/incident_wavelength"] = 1.7712028
        f["entry/instrument/beam/incident_wavelength"].attrs["units"] = "angstrom"
    return folder / "run_master.h5"


def test_a_master_yields_start_frames_and_end_in_the_order_of_the_wire(tmp_path):
    stack = images(7)
    recording = open_recording(write_master(tmp_path, [stack[:3], stack[3:6], stack[6:]]))
    messages = list(recording.messages())
    assert (recording.kind, recording.n_frames, recording.warnings) == (Kind.HDF5, 7, ())
    assert isinstance(messages[0], SeriesStart)
    assert [m.header.frame for m in messages[1:-1]] == list(range(7))
    assert messages[-1] == SeriesEnd(1, "01HBV3JPF9T4ZDPADX6EMK6XMZ")
    assert np.array_equal(pixels_of(recording), stack)


def test_a_masters_header_is_read_in_our_units(tmp_path):
    start = start_of(open_recording(write_master(tmp_path, [images(1)])))
    assert start.photon_energy_eV == pytest.approx(7000, abs=0.01)
    assert start.clen_m == pytest.approx(0.15)
    assert start.beam_center_px == (25.5, 19.25)
    assert start.pixel_size_m == (75e-6, 75e-6)
    assert start.sensor_thickness_m == pytest.approx(450e-6)
    assert (start.count_time_s, start.frame_time_s) == (0.0009, 0.001)
    assert (start.shape, start.dtype, start.saturation_value) == (SHAPE, "uint16", 21517)
    assert start.detector == "Dectris EIGER2 Si 4M"
    assert np.array_equal(start.pixel_mask, np.eye(*SHAPE))
    assert start.warnings == ()


@pytest.mark.parametrize(("lost", "expected"), [(1, [3, 4, 5, 6]), (3, [0, 1, 2, 3, 4, 5])])
def test_frames_of_a_missing_data_file_stay_announced(tmp_path, lost, expected):
    stack = images(7)
    master = write_master(tmp_path, [stack[:3], stack[3:6], stack[6:]])
    (tmp_path / f"run_data_{lost:06d}.h5").unlink()
    recording = open_recording(master)
    assert start_of(recording).n_frames == recording.n_frames == 7
    assert [f.header.frame for f in frames_of(recording)] == expected
    assert np.array_equal(pixels_of(recording), stack[expected])
    assert f"run_data_{lost:06d}.h5, is missing" in recording.warnings[0]


def test_a_master_without_any_of_its_files_is_refused(tmp_path):
    master = write_master(tmp_path, [images(2)])
    (tmp_path / "run_data_000001.h5").unlink()
    with pytest.raises(StoreError, match="none of its 1 data files"):
        open_recording(master)


def test_a_data_file_without_rows_yet_adds_no_frame(tmp_path):
    stack = images(2)
    empty = np.empty((0, *SHAPE), np.uint16)
    recording = open_recording(write_master(tmp_path, [stack[:1], empty, stack[1:]]))
    assert recording.n_frames == 2
    assert np.array_equal(pixels_of(recording), stack)


def test_a_data_file_cut_off_after_opening_makes_its_frames_errors(tmp_path):
    stack = images(6)
    recording = open_recording(write_master(tmp_path, [stack[:3], stack[3:]]))
    data = tmp_path / "run_data_000001.h5"
    data.write_bytes(data.read_bytes()[:700])
    messages = list(recording.messages())
    errors = [m for m in messages if isinstance(m, WireError)]
    assert [(e.series, e.frame) for e in errors] == [(1, 0), (1, 1), (1, 2)]
    assert np.array_equal(pixels_of(recording), stack[3:])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize(
    ("how", "codec"),
    [
        (hdf5plugin.Bitshuffle(cname="lz4"), Codec.BSLZ4),
        (hdf5plugin.Bitshuffle(nelems=64, cname="lz4"), Codec.BSLZ4),
        (hdf5plugin.LZ4(), Codec.LZ4_HDF5),
        ({}, Codec.NONE),
        (hdf5plugin.Bitshuffle(cname="zstd"), Codec.NONE),
        (hdf5plugin.Zstd(), Codec.NONE),
        ({"compression": "gzip", "shuffle": True}, Codec.NONE),
    ],
    ids=["bslz4", "bslz4-64", "lz4", "plain", "bszstd", "zstd", "gzip"],
)
def test_chunks_of_every_filter_decode_to_the_stored_pixels(tmp_path, dtype, how, codec):
    stack = images(2, dtype)
    path = write_stack(tmp_path / "stack.h5", stack, chunks=(1, *SHAPE), **how)
    recording = open_recording(path)
    assert {f.blobs[0].codec for f in frames_of(recording)} == {codec}
    assert np.array_equal(pixels_of(recording), stack)
    assert pixels_of(recording).dtype == dtype


def test_a_whole_frame_chunk_is_handed_on_byte_for_byte(tmp_path):
    path = write_stack(tmp_path / "stack.h5", images(2))
    with h5py.File(path) as f:
        _, stored = f["/entry/data/data"].id.read_direct_chunk((1, 0, 0))
    blob = frames_of(open_recording(path))[1].blobs[0]
    assert bytes(blob.payload) == stored
    assert (blob.codec, blob.elem_size) == (Codec.BSLZ4, 2)


def test_a_chunk_stored_unfiltered_is_raw_pixels(tmp_path):
    stack = images(1)
    path = write_stack(tmp_path / "stack.h5", stack)
    with h5py.File(path, "r+") as f:
        chunk = stack[0].tobytes()
        f["/entry/data/data"].id.write_direct_chunk((0, 0, 0), chunk, filter_mask=1)
    assert np.array_equal(pixels_of(open_recording(path)), stack)


@pytest.mark.parametrize("chunks", [None, (2, *SHAPE), (1, 19, 52)])
def test_chunks_that_are_not_one_frame_are_read_by_hdf5(tmp_path, chunks):
    stack = images(4)
    path = write_stack(tmp_path / "stack.h5", stack, chunks=chunks)
    assert np.array_equal(pixels_of(open_recording(path)), stack)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (">u2", "uint16"),
        (">u4", "uint32"),
        ("int8", "uint8"),
        ("int16", "uint16"),
        ("int32", "uint32"),
        ("int64", "uint32"),
        ("uint64", "uint32"),
        ("float32", "uint32"),
        ("float64", "uint32"),
    ],
)
def test_other_number_types_become_counts_and_bad_pixels_all_ones(tmp_path, stored, expected):
    counts = np.random.default_rng(2).poisson(3.0, (2, *SHAPE)).astype(stored)
    is_signed = np.dtype(stored).kind in "if"
    if is_signed:
        counts[0, 5, 6] = -1
    if np.dtype(stored).kind == "f":
        counts[1, 7, 8] = np.nan
    bad = (counts == -1) | np.isnan(counts) if is_signed else np.zeros(counts.shape, bool)
    wanted = np.where(bad, TOP[expected], np.nan_to_num(counts).astype(np.float64))
    decoded = pixels_of(open_recording(write_stack(tmp_path / "stack.h5", counts)))
    assert decoded.dtype == expected
    assert np.array_equal(decoded, wanted)


@pytest.mark.parametrize(
    ("stored", "value"),
    [("float32", 0.5), ("float64", 2.0**33), ("float32", np.inf), ("int16", -2), ("int64", 2**32)],
)
def test_values_that_are_no_counts_make_that_frame_an_error(tmp_path, stored, value):
    counts = np.ones((2, *SHAPE), stored)
    counts[1, 3, 4] = value
    path = write_stack(tmp_path / "stack.h5", counts)
    _, good, bad, _ = open_recording(path).messages()
    assert (good.header.frame, bad.series, bad.frame) == (0, 1, 1)
    assert f"{path}:/entry/data/data row 1: {stored} values" in str(bad)
    assert "supported: uint8, uint16, uint32" in str(bad)


@pytest.mark.parametrize("damage", ["foreign bytes", "too long", "never written"])
def test_a_damaged_chunk_is_an_error_of_its_frame_alone(tmp_path, damage):
    stack = images(3)
    path = tmp_path / "stack.h5"
    with h5py.File(path, "w") as f:
        images_ = f.create_dataset(
            "/entry/data/data",
            (3, *SHAPE),
            "uint16",
            chunks=(1, *SHAPE),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        images_[0], images_[2] = stack[0], stack[2]
        if damage != "never written":
            size = 20 if damage == "foreign bytes" else 1 << 20
            images_.id.write_direct_chunk((1, 0, 0), bytes(size))
    refused = []
    for message in list(open_recording(path).messages())[1:-1]:
        try:
            if isinstance(message, WireError):
                raise message
            assert np.array_equal(bslz4.decode(message.blobs[0]), stack[message.header.frame])
        except WireError:
            refused.append(message.frame if isinstance(message, WireError) else 1)
    assert refused == [1]


def test_a_cxi_file_gives_its_energy_and_encoder_value(tmp_path):
    stack = images(3)
    path = write_stack(tmp_path / "run.cxi", stack, "/entry_1/data_1/data")
    with h5py.File(path, "a") as f:
        f["/LCLS/photon_energy_eV"] = np.full(3, 8000.0)
        f["/LCLS/detector_1/EncoderValue"] = np.full(3, 250.0)
    recording = open_recording(path)
    start = start_of(recording)
    assert start.photon_energy_eV == 8000
    assert start.clen_m == pytest.approx(0.25)
    assert "coffset" in start.warnings[0]
    assert np.array_equal(pixels_of(recording), stack)


def test_an_energy_that_varies_over_the_frames_is_said(tmp_path):
    path = write_stack(tmp_path / "run.cxi", images(2), "/entry_1/data_1/data")
    with h5py.File(path, "a") as f:
        f["/LCLS/photon_energy_eV"] = [8000.0, 8100.0]
    start = start_of(open_recording(path))
    assert start.photon_energy_eV == 8000
    assert "varies from 8000 to 8100" in start.warnings[0]


def test_several_stacks_in_one_file_are_one_series_each(tmp_path):
    path = tmp_path / "examples.h5"
    for k, (clen_m, energy_eV) in enumerate([(0.15, 6000.0), (0.25, 7000.0)], 1):
        write_stack(path, images(2, seed=k), f"/{k:02d}/data")
        with h5py.File(path, "a") as f:
            f[f"{k:02d}"].attrs.update({"clen_m": clen_m, "photon_energy_eV": energy_eV})
            f[f"{k:02d}/kind"] = np.array([1, 0], np.uint8)
    recording = open_recording(path)
    starts = [m for m in recording.messages() if isinstance(m, SeriesStart)]
    assert [(s.series, s.n_frames, s.clen_m, s.photon_energy_eV) for s in starts] == [
        (1, 2, 0.15, 6000.0),
        (2, 2, 0.25, 7000.0),
    ]
    assert recording.truth == {(1, 0): True, (1, 1): False, (2, 0): True, (2, 1): False}


def test_the_shared_overlay_examples_open_as_nine_series(shared):
    recording = open_recording(shared / "data" / "pattern_sim" / "overlay_examples.h5")
    messages = recording.messages()
    start, frame = next(messages), next(messages)
    assert recording.n_frames == 36
    assert sorted({series for series, _ in recording.truth}) == list(range(1, 10))
    assert (start.clen_m, start.photon_energy_eV, start.shape) == (0.15, 6000.0, (2162, 2068))
    assert bslz4.decode(frame.blobs[0])[0, 1030] == 65535


def write_image(path: Path, image: np.ndarray, clen: float, energy: float, peak: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        f["entry/data/data"] = image
        f.attrs.update({"clen": clen, "photon_energy": energy, "peak": peak})


def test_the_seeds_tree_gives_a_series_per_folder_of_overlays(tmp_path):
    stack = images(6, "int32")
    for k in range(6):
        folder = ("01", "02")[k % 2]
        place = tmp_path / "peaks_water_overlay" / folder / f"overlay_img_{9 + k}.h5"
        write_image(place, stack[k], 0.15, (6000.0, 7000.0)[k % 2], peak=k < 3)
        write_image(tmp_path / "peaks" / folder / place.name, stack[k] * 0.5, 0.15, 6000.0, True)
    recording = open_recording(tmp_path)
    starts = [m for m in recording.messages() if isinstance(m, SeriesStart)]
    assert recording.kind is Kind.IMAGES
    assert [(s.series, s.n_frames, s.photon_energy_eV) for s in starts] == [
        (1, 3, 6000.0),
        (2, 3, 7000.0),
    ]
    assert np.array_equal(pixels_of(recording), stack[[0, 2, 4, 1, 3, 5]])
    assert [recording.truth[1, f] for f in range(3)] == [True, True, False]
    assert [recording.truth[2, f] for f in range(3)] == [True, False, False]


def test_single_image_files_named_one_by_one_join_to_a_series(tmp_path):
    stack = images(3)
    paths = [tmp_path / f"img_{k}.h5" for k in range(3)]
    for path, image in zip(paths, stack, strict=True):
        write_image(path, image, 0.25, 7.0, peak=False)
    (recording,) = open_recordings(paths)
    assert np.array_equal(pixels_of(recording), stack)
    assert start_of(recording).photon_energy_eV == 7000
    assert "keV" in start_of(recording).warnings[0]


def test_a_folder_with_a_master_is_the_master_alone(tmp_path):
    write_master(tmp_path, [images(2), images(2)])
    (recording,) = open_recordings([tmp_path])
    assert recording.path.name == "run_master.h5"
    assert recording.n_frames == 4


def test_a_file_without_frames_in_a_folder_is_named_and_left_out(tmp_path):
    write_stack(tmp_path / "b.h5", images(2))
    (tmp_path / "a.h5").write_bytes(b"not an HDF5 file")
    (recording,) = open_recordings([tmp_path])
    assert recording.n_frames == 2
    assert "a.h5" in recording.warnings[0]


def test_a_list_plays_its_rows_in_its_own_order(tmp_path):
    a, b = images(4), images(3, seed=2)
    (tmp_path / "deep").mkdir()
    write_stack(tmp_path / "a.h5", a)
    write_stack(tmp_path / "deep" / "b.h5", b)
    (tmp_path / "some.lst").write_text(
        "# a comment\n; another\n\na.h5 //2\na.h5 //3\ndeep/b.h5\na.h5 entry/data//1\n"
    )
    recording = open_recording(tmp_path / "some.lst")
    assert recording.kind is Kind.LIST
    assert [f.header.frame for f in frames_of(recording)] == list(range(6))
    assert np.array_equal(pixels_of(recording), np.concatenate([a[2:4], b, a[1:2]]))
    assert "first of 3 files" in recording.warnings[0]


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        ("a.h5 //4", WireError, "line 2: .*rows 0 to 3; got row 4"),
        ("gone.h5 //0", StoreError, "line 2: .*gone.h5: no such file"),
        ("two.h5 //0", WireError, "line 2: .*several stacks .*group//row"),
        ("a.h5 nowhere//0", WireError, "line 2: .*no image data set found below /nowhere"),
    ],
)
def test_a_line_that_cannot_be_followed_is_named(tmp_path, line, error, text):
    write_stack(tmp_path / "a.h5", images(4))
    write_stack(tmp_path / "two.h5", images(1), "x/one")
    write_stack(tmp_path / "two.h5", images(1), "x/two")
    (tmp_path / "some.lst").write_text(f"a.h5 //0\n{line}\n")
    with pytest.raises(error, match=text):
        open_recording(tmp_path / "some.lst")


def test_a_list_of_a_masters_rows_counts_through_its_data_files(tmp_path):
    stack = images(5)
    write_master(tmp_path, [stack[:3], stack[3:]])
    (tmp_path / "some.lst").write_text("run_master.h5 //4\nrun_master.h5 //0\n")
    recording = open_recording(tmp_path / "some.lst")
    assert np.array_equal(pixels_of(recording), stack[[4, 0]])
    assert start_of(recording).clen_m == pytest.approx(0.15)


def v1_image(frame: int, image: np.ndarray) -> list[bytes]:
    about = {"htype": "dimage-1.0", "series": 9, "frame": frame, "hash": ""}
    layout = {
        "htype": "dimage_d-1.0",
        "shape": list(image.shape[::-1]),
        "type": image.dtype.name,
        "encoding": "<",
        "size": image.nbytes,
    }
    times = {"htype": "dconfig-1.0", "start_time": 0, "stop_time": 1, "real_time": 1}
    return [*(json.dumps(part).encode() for part in (about, layout)), image.tobytes(),
            json.dumps(times).encode()]  # fmt: skip


def test_captured_messages_play_as_received_and_a_bad_one_does_not_stop_them(tmp_path):
    stack = images(2)
    with CaptureWriter(tmp_path / "night.wire") as capture:
        capture.write(v1_image(0, stack[0]), 1)
        capture.write([b'{"htype":"dimage-1.0","series":9,"frame":1}', b"{"], 2)
        capture.write(v1_image(2, stack[1]), 3)
        capture.write([b'{"htype":"dseries_end-1.0","series":9}'], 4)
    recording = open_recording(tmp_path / "night.wire")
    first, bad, last, end = recording.messages()
    assert (recording.kind, recording.n_frames) == (Kind.CAPTURE, None)
    assert (bad.series, bad.frame) == (9, 1)
    assert np.array_equal(bslz4.decode(first.blobs[0]), stack[0])
    assert (last.header.frame, end) == (2, SeriesEnd(9))


def test_a_capture_damaged_in_the_middle_ends_with_an_error(tmp_path):
    path = tmp_path / "night.wire"
    with CaptureWriter(path) as capture:
        capture.write(v1_image(0, images(1)[0]), 1)
    path.write_bytes(path.read_bytes() + b"JUNK" * 10)
    first, bad = open_recording(path).messages()
    assert isinstance(first, Frame)
    assert isinstance(bad, WireError)


def test_virtual_stacks_are_read_from_their_sources_and_lost_ones_left_out(tmp_path):
    stack = images(6)
    layout = h5py.VirtualLayout((6, *SHAPE), "uint16")
    for k in range(3):  # block-interleaved, as odin-data writes: 0 3, 1 4, 2 5
        write_stack(tmp_path / f"part_{k}.h5", stack[k::3], "data")
        layout[k::3] = h5py.VirtualSource(f"part_{k}.h5", "data", (2, *SHAPE))
    with h5py.File(tmp_path / "all.nxs", "w") as f:
        f.create_virtual_dataset("/entry/data/data", layout)
    whole = open_recording(tmp_path / "all.nxs")
    assert np.array_equal(pixels_of(whole), stack)
    assert {f.blobs[0].codec for f in frames_of(whole)} == {Codec.BSLZ4}
    (tmp_path / "part_1.h5").unlink()
    holed = open_recording(tmp_path / "all.nxs")
    assert [f.header.frame for f in frames_of(holed)] == [0, 2, 3, 5]
    assert holed.n_frames == 6
    assert "part_1.h5 is missing" in holed.warnings[0]


def test_stated_series_ids_are_kept_and_clashes_get_the_next_free_one(tmp_path):
    paths = []
    for name, series in (("a", 34), ("b", 34), ("c", None)):
        paths.append(write_stack(tmp_path / f"{name}.h5", images(2)))
        if series is not None:
            with h5py.File(paths[-1], "a") as f:
                f.create_group("/entry/hitfinder").attrs["series"] = series
    recordings = open_recordings(paths)
    assert [start_of(r).series for r in recordings] == [34, 1, 2]


def test_a_run_of_ours_replays_its_hits_under_its_own_id(tmp_path):
    stack = images(7)
    start = SeriesStart(34, "01HBV3JPF9T4ZDPADX6EMK6XMZ", 9, SHAPE, "uint16", clen_m=0.15)
    packed = frames_of(open_recording(write_stack(tmp_path / "stack.h5", stack)))
    folder = SeriesFolder(tmp_path, start, {}, frames_per_file=3)
    records = [Record(series=34, frame=2 * f, outcome=Outcome.HIT) for f in range(7)]
    folder.write([JudgedFrame(r, f.blobs) for r, f in zip(records, packed, strict=True)])
    folder.close({"hit": 7, "missing": 2}, [], "end message")
    for path in (folder.folder, folder.folder / "hits.lst"):
        recording = open_recording(path)
        replayed = start_of(recording)
        assert (replayed.series, replayed.series_uid) == (34, start.series_uid)
        assert recording.n_frames == 7
        assert [f.header.frame for f in frames_of(recording)] == list(range(7))
        assert np.array_equal(pixels_of(recording), stack)
    assert start_of(open_recording(folder.folder)).clen_m == 0.15


def test_a_run_of_two_thresholds_replays_both_channels(tmp_path):
    stack = images(4)
    packed = [f.blobs[0] for f in frames_of(open_recording(write_stack(tmp_path / "s.h5", stack)))]
    folder = SeriesFolder(tmp_path, SeriesStart(3), {})
    for frame in range(2):
        second = replace(packed[2 + frame], channel="threshold_2")
        record = Record(series=3, frame=frame, outcome=Outcome.HIT)
        folder.write([JudgedFrame(record, (packed[frame], second))])
    folder.close({"hit": 2}, [], "end message")
    recording = open_recording(folder.folder)
    assert start_of(recording).channels == ("threshold_1", "threshold_2")
    for number, frame in enumerate(frames_of(recording)):
        assert [blob.channel for blob in frame.blobs] == ["threshold_1", "threshold_2"]
        assert np.array_equal([bslz4.decode(b) for b in frame.blobs], stack[number::2])


def test_a_file_that_a_killed_swmr_writer_left_is_read(tmp_path):
    stack = images(2)
    path = tmp_path / "hits_000001.h5"
    file = h5py.File(tmp_path / "live.h5", "w", libver="latest")
    file.create_dataset(
        "/entry/data/data", data=stack, chunks=(1, *SHAPE), maxshape=(None, *SHAPE)
    )
    file.swmr_mode = True
    file.flush()
    path.write_bytes((tmp_path / "live.h5").read_bytes())
    file.close()
    assert np.array_equal(pixels_of(open_recording(path)), stack)


def test_paths_that_are_no_recording_say_what_is_wrong(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.bin").write_bytes(struct.pack("<4d", 1, 2, 3, -4))
    (tmp_path / "empty.lst").write_text("# nothing\n")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with h5py.File(tmp_path / "words.h5", "w") as f:
        f["a/b"] = ["text"]
    for name, error, text in (
        ("gone.h5", StoreError, "no such file or folder"),
        ("empty", StoreError, "name a folder of recordings"),
        ("noise.bin", WireError, "neither HDF5, a capture nor a text list"),
        ("empty.lst", WireError, "empty list"),
        ("cut.h5", StoreError, "HDF5 cannot open it"),
        ("words.h5", WireError, "no image data set found below /"),
    ):
        with pytest.raises(error, match=text):
            open_recording(tmp_path / name)


def test_files_cut_off_or_flipped_anywhere_only_ever_raise_our_errors(tmp_path):
    whole = write_stack(tmp_path / "stack.h5", images(3)).read_bytes()
    rng = np.random.default_rng(5)
    for k in range(60):
        damaged = bytearray(whole)
        if k % 2:
            del damaged[int(rng.integers(len(whole))) :]
        else:
            for at in rng.integers(len(whole), size=8):
                damaged[at] ^= int(rng.integers(1, 256))
        path = tmp_path / f"damaged_{k}.h5"
        path.write_bytes(damaged)
        try:
            for message in open_recording(path).messages():
                if isinstance(message, Frame):
                    bslz4.decode(message.blobs[0])
        except (StoreError, WireError):
            continue


def test_frames_are_dealt_in_portions_that_read_like_the_whole(tmp_path):
    paths = [write_stack(tmp_path / f"{n}.h5", images(5, seed=n)) for n in (1, 2)]
    spans = (
        Span(paths[0], "/entry/data/data", 0, range(5)),
        Span(paths[1], "/entry/data/data", 7, (4, 2)),
    )
    portions = list(dealt(spans, 3, lambda frame: frame != 1))
    assert [[s.first_frame + i for s in p for i in range(len(s.rows))] for p in portions] == [
        [0, 2, 3],
        [4, 7, 8],
    ]
    whole = {m.header.frame: bytes(m.blobs[0].payload) for m in stored(spans, SeriesStart(1))}
    parts = {
        m.header.frame: bytes(m.blobs[0].payload)
        for portion in portions
        for m in stored(portion, SeriesStart(1))
    }
    assert parts == {frame: payload for frame, payload in whole.items() if frame != 1}
