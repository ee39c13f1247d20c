"""What is fuzzed: each target takes seeds' parts and may raise nothing but its own errors.

One rule: a target also checks what it can: nothing outside a buffer is touched, two
implementations agree, what is refused says why.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tests.fuzz.mutate import Parts

from hitfinder import HitfinderError
from hitfinder.models.crystfel_geom import parse_geom
from hitfinder.models.errors import GeometryError
from hitfinder.models.image import mask_of
from hitfinder.sim.encoding import Encoder
from hitfinder.stream import bslz4, wire
from hitfinder.stream.capture import CaptureWriter
from hitfinder.stream.check import check_run, repair_folder
from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import Blob, Codec, Frame, SeriesStart, pack_start, unpack_start
from hitfinder.stream.pooling import pool4, pooled_shape
from hitfinder.stream.recordings import open_recordings
from hitfinder.stream.reduction import Reduction
from hitfinder.stream.results import Outcome, Record
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.workers.config import Config, ConfigError, read_config

GOLDEN = Path(__file__).parents[1] / "golden" / "wire_messages.json"
EXAMPLE = Path(__file__).parents[2] / "deploy" / "config.example.toml"
SHAPE = (16, 20)
CANARY = 0xA5
GEOM = """clen = 0.15
photon_energy = 7000 eV
res = 13333.3
adu_per_photon = 1
p0/min_fs = 0
p0/max_fs = 19
p0/min_ss = 0
p0/max_ss = 15
p0/fs = +1.0x +0.0y
p0/ss = +0.0x +1.0y
p0/corner_x = -10
p0/corner_y = -8
bad_a/min_x = -2
bad_a/max_x = 2
bad_a/min_y = -2
bad_a/max_y = 2
"""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz.

    Attributes:
        seeds: makes the inputs to begin with.
        try_one: takes an input; what it raises is a finding.
    """

    seeds: Callable[[], list[Parts]]
    try_one: Callable[[Parts], None]


def _wire_seeds(is_v1: bool) -> list[Parts]:
    messages = json.loads(GOLDEN.read_text()).values()
    found = [[bytes.fromhex(p) for p in m["parts"]] for m in messages]
    return [parts for parts in found if (parts[0][:1] == b"{") == is_v1]


def _try_wire(parts: Parts) -> None:
    for lenient in (False, True):
        try:
            message = wire.decode(parts, "auto", lenient, verify_hash=lenient)
        except WireError:
            continue
        if isinstance(message, Frame):
            for blob in message.blobs:
                _try_blob(blob)
        elif isinstance(message, SeriesStart):
            unpack_start(pack_start(message))


def _try_blob(blob: Blob) -> None:
    """Decode between canaries, and hold the one-pass reduction against decode and pool."""
    if blob.n_bytes > 1 << 20:
        return
    around = np.full(blob.n_bytes + 128, CANARY, np.uint8)
    out = around[64:-64].view(blob.dtype).reshape(blob.shape)
    try:
        bslz4.decode_into(blob, out)
        whole: np.ndarray | None = out
    except WireError:
        whole = None
    assert (around[:64] == CANARY).all()
    assert (around[-64:] == CANARY).all()
    valid = np.ones(blob.shape, np.bool_)
    valid.reshape(-1)[::7] = False
    reduction = Reduction(blob.shape, blob.dtype)
    try:
        reduction.take(blob, mask_of(valid))
    except WireError:
        assert whole is None
        return
    assert whole is not None
    masked = np.where(valid, whole, 0).astype(blob.dtype)
    sums, maxima = (np.zeros(pooled_shape(blob.shape), np.uint32) for _ in range(2))
    counts = pool4(masked, valid.astype(np.uint8), sums, maxima)
    assert np.array_equal(reduction.sums, sums)
    assert np.array_equal(reduction.maxima, maxima)
    assert np.array_equal(reduction.pixels, masked)
    assert (reduction.n_photons, reduction.n_saturated) == counts


CODECS = (
    ("v2", "bslz4", Codec.BSLZ4),
    ("v2", "lz4", Codec.LZ4_HDF5),
    ("v1", "lz4", Codec.LZ4_BLOCK),
    ("v2", "none", Codec.NONE),
)


def _blob_seeds() -> list[Parts]:
    """Return [which codec and type, payload]."""
    found = []
    for k, (protocol, name, _) in enumerate(CODECS):
        for elem_size, dtype in ((1, "uint8"), (2, "uint16"), (4, "uint32")):
            for seed, mean in enumerate((0.05, 5.0, 200.0)):
                image = np.random.default_rng(seed).poisson(mean, SHAPE).astype(dtype)
                payload = Encoder(protocol, name, dtype)(image).payload
                found.append([bytes([k, elem_size, 1]), payload])
    return found


def _try_codec(parts: Parts) -> None:
    kind, payload = (parts[0] + b"\0\2\1")[:3], parts[-1]
    codec, elem_size = CODECS[kind[0] % 4][2], kind[1] % 9
    dtype = {1: "uint8", 4: "uint32"}.get(elem_size, "uint16")
    _try_blob(
        Blob("threshold_1", SHAPE, dtype, codec, elem_size, memoryview(payload), bool(kind[2]))
    )


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _series(folder: Path) -> Path:
    """Write a small run: three hits, three misses, two missing."""
    start = SeriesStart(5, "uid", n_frames=8, shape=SHAPE, dtype="uint16", clen_m=0.15)
    provenance = {"config": Config().as_json()}
    series = SeriesFolder(folder, start, provenance, miss_sample_fraction=1)
    frames = []
    for k in range(6):
        image = np.random.default_rng(k).poisson(0.5, SHAPE).astype(np.uint16)
        payload = memoryview(Encoder("v2", "bslz4", "uint16")(image).payload)
        outcome = Outcome.HIT if k % 2 else Outcome.MISS
        record = Record(series=5, series_uid="uid", frame=k, outcome=outcome, n_peaks=0)
        blob = Blob("threshold_1", SHAPE, "uint16", Codec.BSLZ4, 2, payload)
        frames.append(JudgedFrame(record, (blob,)))
    series.write(frames)
    series.close({}, [], "ended")
    return series.folder


def _recording_seeds() -> list[Parts]:
    folder = _series(_scratch() / "recording")
    seeds = [[b"h5", (folder / "hits_000001.h5").read_bytes()]]
    capture = _scratch() / "seed.wire"
    writer = CaptureWriter(capture)
    for parts in _wire_seeds(is_v1=False)[:6]:
        writer.write(parts, 1)
    writer.close()
    seeds += [[b"wire", capture.read_bytes()]] * 3
    lines = [b"hits_000001.h5 //0\nhits_000001.h5 //2\n", b"image.cxi //1\n/nowhere //x\n"]
    return seeds + [[b"lst", line] for line in lines]


def _try_recording(parts: Parts) -> None:
    suffix = {b"h": "h5", b"w": "wire"}.get(parts[0][:1], "lst")
    path = _scratch() / f"input.{suffix}"
    path.write_bytes(parts[-1])
    with suppress(HitfinderError):
        for recording in open_recordings([path]):
            for message in recording.messages():
                if isinstance(message, Frame):
                    _try_blob(message.blobs[0])


# What a run's files do to the process that reads them apart; that HDF5 loops is known, and ended.
DIED = "ended a process"
RUN_FILES = ("ledger.h5", "master.h5", "hits_000001.h5", "hits.lst", "summary.json")


def _run_seeds() -> list[Parts]:
    folder = _series(_scratch() / "run")
    return [[bytes([k]), (folder / name).read_bytes()] for k, name in enumerate(RUN_FILES)]


@cache
def _whole_run() -> dict[str, bytes]:
    folder = _series(_scratch() / "whole")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _try_run(parts: Parts) -> None:
    """Check a run one of whose files is damaged, then repair it."""
    folder = _scratch() / "series_5_uid"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in _whole_run().items():
        (folder / name).write_bytes(content)
    index = (parts[0] or b"\0")[0] % len(RUN_FILES)
    (folder / RUN_FILES[index]).write_bytes(parts[-1])
    said = str(check_run(folder.parent))
    try:
        repair_folder(folder)
    except StoreError as error:
        said += str(error)
    assert DIED not in said


def _try_config(parts: Parts) -> None:
    path = _scratch() / "config.toml"
    path.write_bytes(parts[0])
    with suppress(ConfigError):
        read_config(path)


def _try_geom(parts: Parts) -> None:
    with suppress(GeometryError):
        parse_geom(parts[0].decode("utf-8", "replace"), SHAPE)


TARGETS = {
    "v1": Target(lambda: _wire_seeds(is_v1=True), _try_wire),
    "v2": Target(lambda: _wire_seeds(is_v1=False), _try_wire),
    "blobs": Target(_blob_seeds, _try_codec),
    "recordings": Target(_recording_seeds, _try_recording),
    "runs": Target(_run_seeds, _try_run),
    "config": Target(lambda: [[EXAMPLE.read_bytes()]], _try_config),
    "geom": Target(lambda: [[GEOM.encode()]], _try_geom),
}
