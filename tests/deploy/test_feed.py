"""What CrystFEL is fed over ZMQ, read by CrystFEL's rules of keys and types."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that kept images need)
import msgpack
import numpy as np
import pytest
import zmq
from tests.deploy.conftest import Beamline
from tests.system.daemon import PROGRAM, WAIT_S, command, wait_for

pytestmark = pytest.mark.system

MAX_SERIES = 20


def found_by_crystfel(message: dict[str, Any], key: str) -> Any:
    """Return the first value whose key is the beginning of the one sought."""
    return next(value for name, value in message.items() if key.startswith(name))


@contextmanager
def feeding(beamline: Beamline, folder: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """Yield the address that a feed of the daemon's hits says it listens on, and its log."""
    log = folder / "feed.txt"
    line = [PROGRAM, "feed", str(beamline.daemon.out), "--results", beamline.daemon.endpoint]
    with log.open("w") as to:
        process = subprocess.Popen(
            [*line, "--bind", "tcp://127.0.0.1:*", *options], stdout=to, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: "--zmq-input" in log.read_text() or process.poll() is not None, "a feed")
        yield re.findall(r"--zmq-input=(\S+) --zmq-request=next", log.read_text())[0], log
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: process.poll() is not None, "the end of the feed")
        assert process.returncode == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def answers(beamline: Beamline, sockets: list[zmq.Socket[bytes]]) -> list[dict[str, Any]]:
    """Ask over each, send series until all are answered, and return the answers."""
    for socket in sockets:
        socket.send(b"next")
    heard: dict[int, dict[str, Any]] = {}
    while len(heard) < len(sockets):
        assert beamline.n_series < MAX_SERIES, "nobody was fed"
        n_before = len(beamline.daemon.records)
        beamline.send_series()
        wait_for(lambda n=n_before: len(beamline.daemon.records) >= n + 20, "verdicts")
        for k, socket in enumerate(sockets):
            if k not in heard and socket.poll(1000):
                heard[k] = msgpack.unpackb(socket.recv())
    return [heard[k] for k in range(len(sockets))]


@pytest.fixture
def askers() -> Iterator[list[zmq.Socket[bytes]]]:
    """Two indexing processes' sockets."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = [context.socket(zmq.REQ) for _ in range(2)]
    for socket in sockets:
        socket.set(zmq.RCVTIMEO, round(WAIT_S * 1000))
    yield sockets
    for socket in sockets:
        socket.close(0)
    context.term()


def test_each_process_that_asks_gets_a_hit_of_its_own(beamline, askers, tmp_path):
    out = beamline.daemon.out
    with feeding(beamline, tmp_path) as (endpoint, _):
        for asker in askers:
            asker.connect(endpoint)
        hits = answers(beamline, askers)
    places = [(hit["series"], hit["number"]) for hit in hits]
    assert len(set(places)) == len(hits)
    for hit in hits:
        verdict = next(
            r
            for r in beamline.daemon.records
            if (r["series"], r["frame"]) == (hit["series"], hit["number"])
        )
        assert verdict["outcome"] == "hit"
        image = found_by_crystfel(hit, "image")
        assert image["type"] == "<i4"
        pixels = np.frombuffer(image["data"], "<i4").reshape(image["shape"])
        (folder,) = out.glob(f"series_{hit['series']}_*")
        with h5py.File(folder / hit["hit_file"], "r", libver="latest", swmr=True) as file:
            kept = file["entry/data/data"][hit["row"]]
        with h5py.File(folder / "master.h5") as file:
            master = file["entry/instrument/detector"]
            bad = master["pixel_mask"][:] != 0 if "pixel_mask" in master else np.zeros(kept.shape)
        bad = (kept >= np.iinfo(kept.dtype).max - 1) | (bad != 0)
        assert np.array_equal(pixels, np.where(bad, -1, kept.astype(np.int64)))
        peaks = found_by_crystfel(hit, "peaks")
        for name in ("fs", "ss", "intensity"):
            values = found_by_crystfel(peaks, name)
            assert {type(v) for v in values} == {float}  # it takes integers for floats unseen
            assert np.array_equal(np.float32(values), np.frombuffer(verdict["peaks"][name], "<f4"))
        for name, key in (
            ("photon_energy_eV", "header_photon_energy_eV"),
            ("clen_m", "header_clen_m"),
        ):
            assert found_by_crystfel(hit, name) == verdict[key]
    text = (out / "live.geom").read_text()
    geom = dict(re.findall(r"^(\S+) = ([^;\n]+?) *(?:;.*)?$", text, re.M))
    shape = hits[0]["image"]["shape"]
    assert (geom["data"], geom["peak_list"]) == ("image", "peaks")
    assert (geom["photon_energy"], geom["clen"]) == ("photon_energy_eV eV", "clen_m m")
    assert [int(geom["panel0/max_ss"]) + 1, int(geom["panel0/max_fs"]) + 1] == shape
    assert not [name for name in geom if name.startswith(("dim", "mask", "peak_list_type"))]


def test_hits_that_nobody_asks_for_are_passed_over_and_counted(beamline, askers, tmp_path):
    with feeding(beamline, tmp_path, "--keep", "1") as (endpoint, log):
        askers[0].connect(endpoint)
        (first,) = answers(beamline, askers[:1])  # the feed hears the daemon
        n_before = len(beamline.daemon.records)
        beamline.send_series()
        wait_for(lambda: len(beamline.daemon.records) >= n_before + 70, "verdicts of a series")
        last = [r for r in beamline.daemon.records if r["outcome"] == "hit"][-1]
        # The one that is kept is the last one heard of: ask until it comes.
        number = (first["series"], first["number"])
        while number != (last["series"], last["frame"]):
            askers[0].send(b"next")
            if not askers[0].poll(5000):
                break
            hit = msgpack.unpackb(askers[0].recv())
            number = (hit["series"], hit["number"])
            last = [r for r in beamline.daemon.records if r["outcome"] == "hit"][-1]
    said = re.findall(r"\d+", log.read_text().splitlines()[-1])
    fed, passed_over, _, unreadable = map(int, said)
    assert passed_over > 0
    assert fed > 0
    assert unreadable == 0


def test_another_request_is_told_what_is_expected(beamline, askers, tmp_path):
    with feeding(beamline, tmp_path) as (endpoint, _):
        askers[0].connect(endpoint)
        askers[0].send(b"resetplots")
        assert "next" in msgpack.unpackb(askers[0].recv())["error"]


def test_a_port_that_is_taken_is_named(beamline, tmp_path):
    with feeding(beamline, tmp_path) as (endpoint, _):
        done = command("feed", str(beamline.daemon.out), "--bind", endpoint)
    assert done.returncode == 1
    assert endpoint in done.stderr


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path):
    done = command("feed", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "no such folder" in done.stderr
