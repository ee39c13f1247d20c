"""Claims for `bench`: figures are complete, in proportion, and say where they were taken."""

import io
import json
import multiprocessing
import os
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from hitfinder.sim.encoding import EncodedImage
from hitfinder.stream import bslz4, wire
from hitfinder.stream.messages import Blob, Codec, Frame
from hitfinder.workers.bench import BenchOptions, bench
from hitfinder.workers.bench_end_to_end import DaemonSettings
from hitfinder.workers.bench_frames import BenchFrames, FrameMix, PixelType
from hitfinder.workers.bench_plots import draw_soak
from hitfinder.workers.bench_soak import Reading, soak
from hitfinder.workers.config import ConfigError
from hitfinder.workers.daemon_process import DaemonError, DaemonProcess
from hitfinder.workers.held import Held, held_by_job
from hitfinder.workers.spent import Spent, spent_by_job

SHAPE = (512, 512)
SECONDS = 1.0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return a small bench's JSON and what it printed."""
    return _bench(tmp_path_factory.mktemp("bench"))


def blob_of(image: EncodedImage) -> Blob:
    return Blob("", image.shape, image.dtype, Codec.BSLZ4, 2, memoryview(image.payload))


def _bench(folder: Path, **options: Any) -> tuple[dict[str, Any], str]:
    path, said = folder / "bench.json", io.StringIO()
    bench(BenchOptions(3, SECONDS, device="cpu", json_file=path, shape=SHAPE, **options), to=said)
    return json.loads(path.read_text()), said.getvalue()


@pytest.mark.parametrize("hit_fraction", [0.0, 0.2, 1.0])
def test_every_frame_shown_is_a_new_one_and_a_hit_where_it_begins_as_one(
    hit_fraction: float,
) -> None:
    frames = BenchFrames(SHAPE, FrameMix(hit_fraction=hit_fraction), 20)
    pool = [bslz4.decode(blob_of(image)) for image in frames.images]
    half, n_hits, seen = SHAPE[0] // 2, 0, set()
    for number in range(20 * 13):
        shown = bslz4.decode(blob_of(frames.shown(number)))
        seen.add(shown.tobytes())
        (own,) = (k for k, image in enumerate(pool) if np.array_equal(image[:half], shown[:half]))
        n_hits += frames.is_hit[own]
    assert len(seen) > 0.9 * 20 * 13  # a join may fall on the same blocks
    assert n_hits == 13 * sum(frames.is_hit)


@pytest.mark.system
def test_every_stage_is_a_multiple_of_memcpy(measured: tuple[dict[str, Any], str]) -> None:
    stages = measured[0]["stages"]
    assert stages[0]["x_memcpy"] == 1.0
    assert all(s["ms"] > 0 for s in stages)
    for s in stages:
        assert s["x_memcpy"] == pytest.approx(s["ms"] / stages[0]["ms"])
        assert s["frames_per_s"] == pytest.approx(1e3 / s["ms"])
    words = " ".join(s["stage"] for s in stages)
    for word in ("V1", "V2", "slot", "bslz4", "pool", "blank", "write a hit", "record"):
        assert word in words


@pytest.mark.system
def test_end_to_end_accounts_for_every_frame(measured: tuple[dict[str, Any], str]) -> None:
    for run in measured[0]["end_to_end"]:
        parts = ("n_hits", "n_misses", "n_dropped", "n_other")
        assert run["n_frames"] == sum(run[name] for name in parts)
        assert run["n_dropped"] == run["n_other"] == 0
        assert run["core_ms"] == pytest.approx(sum(p["core_ms"] for p in run["processes"]))
        assert run["x_memcpy"] == pytest.approx(run["core_ms"] / run["memcpy_ms"])
        names = {p["process"] for p in run["processes"]}
        assert names >= {"receiver", "worker", "sink", "supervisor"}
        assert all(p["switches"] > 0 and p["minor_faults"] >= 0 for p in run["processes"])
        assert 0 < run["latency_p50_ms"] <= run["latency_p99_ms"] <= run["latency_p999_ms"]


@pytest.mark.system
def test_the_relaxed_run_is_sent_at_half_the_rate(measured: tuple[dict[str, Any], str]) -> None:
    flat_out, relaxed = measured[0]["end_to_end"]
    assert flat_out["sent_per_s"] is None
    assert relaxed["sent_per_s"] == pytest.approx(flat_out["frames_per_s"] / 2)


@pytest.mark.system
def test_stages_and_the_rest_make_up_each_process(measured: tuple[dict[str, Any], str]) -> None:
    one = measured[0]
    whole = {p["process"]: p["x_memcpy"] for p in one["end_to_end"][0]["processes"]}
    for process, x_memcpy in whole.items():
        first, *parts = [line for line in one["profile"] if line["process"] == process]
        assert (first["stage"], first["x_memcpy"]) == ("", x_memcpy)
        assert x_memcpy == pytest.approx(sum(line["x_memcpy"] for line in parts))
        assert process in measured[1]
    named = {line["stage"] for line in one["profile"]}
    assert {"decode, mask and pool in one pass", "record out of the slot"} <= named


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_frames_are_as_bright_and_deep_and_hit_as_often_as_asked(dtype: PixelType) -> None:
    frames = BenchFrames((256, 320), FrameMix(0.4, 0.5, dtype))
    assert sum(frames.is_hit) == 18
    for k, is_hit in enumerate(frames.is_hit[:9]):
        message = wire.decode(frames.message(k, "v2"))
        assert isinstance(message, Frame)
        image = bslz4.decode(message.blobs[0])
        assert image.dtype == dtype
        assert image[image < np.iinfo(dtype).max].mean() == pytest.approx(0.5, rel=0.2) or is_hit


def test_hits_show_as_many_spots_as_asked() -> None:
    """A crowd's photons stand in the hits alone, and gaps stay gaps."""
    crowds, blanks = (
        BenchFrames((256, 320), FrameMix(f, n_spots=n), 9) for f, n in ((1.0, 40), (0.0, None))
    )
    for k in range(9):
        with_spots, without = (_image(frames, k).astype(int) for frames in (crowds, blanks))
        gap = without == np.iinfo(np.uint16).max
        assert (with_spots[gap] == np.iinfo(np.uint16).max).all()
        more = (with_spots - without)[~gap]
        assert more.min() >= 0
        # 40 spots of 190 photons in the mean; gaps and the rim take some.
        assert 3000 < more.sum() < 14_000


def _image(frames: BenchFrames, k: int) -> np.ndarray[Any, Any]:
    message = wire.decode(frames.message(k, "v2"))
    assert isinstance(message, Frame)
    return bslz4.decode(message.blobs[0])


@pytest.mark.system
def test_a_sweep_tells_each_point_and_draws_it(tmp_path: Path) -> None:
    result, said = _bench(tmp_path, sweep="decoders")
    assert [p["value"] for p in result["points"]] == [1, 2]
    for point in result["points"]:
        assert point["run"]["n_frames"] == point["run"]["n_hits"] + point["run"]["n_misses"]
        assert point["run"]["x_memcpy"] > 0
        assert point["stages"][0]["x_memcpy"] == 1.0
    assert "sweep over decoders" in said
    assert matplotlib.image.imread(tmp_path / "bench.png").std() > 0


def test_a_cpu_has_no_batches_to_sweep_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch.*--device cuda"):
        _bench(tmp_path, sweep="batch")


@pytest.mark.system
def test_a_soak_reads_what_is_held_until_it_is_interrupted(tmp_path: Path) -> None:
    frames = BenchFrames((256, 256), FrameMix())
    shown: list[Reading] = []

    def show(reading: Reading) -> None:
        shown.append(reading)
        if len(shown) == 3:
            raise KeyboardInterrupt

    found = soak(frames, 400, 4, DaemonSettings(), "cpu", show)
    assert found.n_frames == 250 == found.counts["hit"] + found.counts["miss"]
    assert found.n_series == 2
    assert shown == found.readings
    assert [r.n_frames for r in shown] == [50, 150, 250]
    for job in ("receiver", "worker", "sink", "supervisor"):
        held = shown[0].jobs[job]
        # An interpreter with numpy takes more than the first, and nothing here the last.
        assert 10e6 < held.private_bytes < held.pss_bytes < 1e9
        assert held.handles > 3
        assert held.threads >= 1
    assert shown[0].total.handles == sum(h.handles for h in shown[0].jobs.values())
    assert found.grown_bytes_per_frame is None  # of two series nothing can be said
    draw_soak(found, tmp_path / "soak.png")
    assert matplotlib.image.imread(tmp_path / "soak.png").std() > 0


@pytest.mark.system
def test_figures_say_where_they_were_taken(measured: tuple[dict[str, Any], str]) -> None:
    result, said = measured
    assert {"cpu", "cores", "date", "python", "torch"} <= set(result["machine"])
    assert result["options"]["device"] == "cpu"
    assert result["frame"]["shape"] == list(SHAPE)
    for words in ("x memcpy", "latency p99.9", "dropped", str(result["machine"]["cores"])):
        assert words in said


def test_what_a_process_holds_is_told() -> None:
    # Of processes of their own: what this one holds depends on the tests before.
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_hold, args=(theirs,))
    child.start()
    try:
        before, after = (_held_when_told(ours, child.pid) for _ in range(2))
    finally:
        ours.close()
        child.join()
    assert 60 << 20 < after.private_bytes - before.private_bytes < 80 << 20
    assert after.private_bytes < after.pss_bytes
    assert after.handles == before.handles + 1


def test_what_shared_memory_is_held_is_divided_among_its_holders() -> None:
    spawn = multiprocessing.get_context("spawn")
    memory = shared_memory.SharedMemory(create=True, size=32 << 20)
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_touch, args=(memory.name, theirs))
    child.start()
    try:
        memory.buf[:] = b"1" * memory.size
        held = _held_when_told(ours, child.pid)
        assert held.shared_bytes == pytest.approx(16 << 20, rel=0.1)
    finally:
        ours.close()
        child.join()
        memory.close()
        memory.unlink()


def _held_when_told(told: Any, pid: int | None) -> Held:
    """Return what a process holds once it says so, and let it go on."""
    assert pid is not None
    assert told.poll(60)
    told.recv()
    held = held_by_job(pid)["supervisor"]
    told.send(None)
    return held


def _hold(tell: Any) -> None:
    tell.send(None)
    tell.recv()
    held = bytearray(b"1" * (64 << 20))
    with Path(os.devnull).open():
        tell.send(None)
        tell.recv()
    assert len(held) == 64 << 20


def _touch(name: str, tell: Any) -> None:
    memory = shared_memory.SharedMemory(name)
    sum(memory.buf[::4096])
    tell.send(None)
    tell.recv()
    memory.close()


def _spend(core_s: float, done: Any) -> None:
    while time.process_time() < core_s:
        pass
    done.wait()


def test_what_descendants_spend_is_told() -> None:
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Event()
    child = spawn.Process(target=_spend, args=(0.3, done))
    child.start()
    try:
        deadline = time.monotonic() + 60
        while spent_by_job(child.pid or 0).get("supervisor", Spent()).core_s < 0.3:
            assert time.monotonic() < deadline
        spent = spent_by_job(os.getpid())["other"]
        assert spent.core_s >= 0.3
        assert spent.core_s == spent.user_s + spent.system_s
        assert spent.minor_faults > 100  # an interpreter has been loaded
        assert spent.switches > 0
    finally:
        done.set()
        child.join()


@pytest.mark.system
def test_a_daemon_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    arguments = ("--device", "abacus")
    with DaemonProcess("tcp://127.0.0.1:9", tmp_path, arguments) as daemon:
        with pytest.raises(DaemonError, match="abacus"):
            daemon.wait_ready()
