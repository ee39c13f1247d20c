"""Ten series replayed on three nodes: as one process does it, whatever dies, however often begun.

A node's death is that of its processes without a word. The daemon that deals is the one that users
start; what is on the nodes is only seen by what comes back.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.system.daemon import Closed, Daemon, command, wait_for
from tests.system.ray_nodes import RayNodes
from tests.system.recorded import recorded_series

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

SERIES, N_FRAMES = range(1, 11), 100
N_ALL = len(SERIES) * N_FRAMES
# Judges load torch on each node, side by side on this machine.
START_S = 180.0
# Of a ledger's row and a summary: when it was, and where the files of this run are.
OF_THE_RUN = {"t_received_ns"}
OF_THE_RUN_IN_SUMMARY = {"folder", "closed_at", "provenance"}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[Path]:
    return recorded_series(tmp_path_factory.mktemp("recorded"), SERIES, N_FRAMES)


@pytest.fixture
def on_nodes(recordings, ray_nodes: RayNodes, tmp_path) -> Callable[..., Daemon]:
    """Return what replays the ten series on the nodes; `out` is one folder for all of a test."""

    def start(name: str, n_times: int = 1) -> Daemon:
        paths = list(map(str, recordings)) * n_times
        arguments = ["replay", *paths, "--cluster", ray_nodes.address]
        return Daemon(tmp_path / name, *arguments, device="cpu", out=tmp_path / "out")

    return start


def _ledger(folder: Path) -> NDArray[np.void]:
    with h5py.File(folder / "ledger.h5") as file:
        return np.sort(file["ledger"][:], order="frame")


def _packed(folder: Path) -> list[tuple[str, bytes]]:
    """Return (file, bytes) of each image that is kept, in order."""
    found = []
    for path in sorted(folder.glob("*s_??????.h5")):
        with h5py.File(path) as file:
            images = file["entry/data/data"].id
            found += [
                (path.name, images.read_direct_chunk((row, 0, 0))[1])
                for row in range(images.shape[0])
            ]
    return found


def _finish(daemon: Daemon) -> None:
    """Wait for the end of a replay that has done all it was asked."""
    wait_for(lambda: not daemon.is_alive, "the end of the replay", START_S)
    assert daemon.wait_exit() == 0, daemon.log


def _judging(daemon: Daemon) -> set[str]:
    """Return the nodes on which a judge has come up."""
    return set(re.findall(r"judges on node (\S+)", daemon.log))


def _closed(daemon: Daemon) -> dict[int, Closed]:
    return {series: daemon.closed(series) for series in SERIES}


def _summary(folder: Path) -> dict[str, Any]:
    said = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in said.items() if name not in OF_THE_RUN_IN_SUMMARY}


def test_three_nodes_leave_what_one_process_leaves(recordings, on_nodes, tmp_path):
    with Daemon(tmp_path / "alone", "replay", *map(str, recordings)) as daemon:
        assert daemon.wait_exit() == 0, daemon.log
        alone = _closed(daemon)
    with on_nodes("cluster") as daemon:
        _finish(daemon)
        spread = _closed(daemon)
        assert daemon.status["n_judges"] == daemon.status["n_judges_up"] == 3
        assert daemon.status["n_nodes"] == 3
        assert daemon.status["source_total"] == N_ALL
    for series in SERIES:
        one, many = alone[series].folder, spread[series].folder
        rows, again = _ledger(one), _ledger(many)
        assert rows.dtype == again.dtype
        for name in set(rows.dtype.names) - OF_THE_RUN:
            np.testing.assert_array_equal(again[name], rows[name], err_msg=name)
        assert _packed(many) == _packed(one)
        assert _summary(many) == _summary(one)
        names = {path.name for path in many.iterdir()} - {"recording.json"}
        assert names == {path.name for path in one.iterdir()}
    hits = {frame for frame, outcome in spread[1].outcomes.items() if outcome == "hit"}
    assert hits >= set(range(0, N_FRAMES, 2))
    assert command("check", str(tmp_path / "out")).returncode == 0


def test_a_node_and_the_dealer_die_and_every_frame_is_judged_once(on_nodes, ray_nodes, tmp_path):
    with on_nodes("killed", 2) as daemon:
        wait_for(lambda: bool(_judging(daemon) - {"one"}), "a judge on another node", START_S)
        victim = min(_judging(daemon) - {"one"})
        n_before = len(daemon.records)
        ray_nodes.kill(victim)
        wait_for(lambda: "frames are dealt again" in daemon.log, "the node's death is noticed")
        os.kill(daemon.children()["cluster"], signal.SIGKILL)
        _finish(daemon)
        closed = [daemon.closed(series) for series in range(1, 2 * len(SERIES) + 1)]
    ray_nodes.start(victim)
    assert n_before < 2 * N_ALL
    for series in closed:
        assert set(series.counts) == {"hit", "miss"}
        assert series.n_judged == N_FRAMES
    assert command("check", str(tmp_path / "out")).returncode == 0


def test_a_replay_that_was_stopped_and_one_that_was_killed_are_gone_on_with(on_nodes, tmp_path):
    published: Counter[tuple[int, int]] = Counter()
    with on_nodes("stopped") as daemon:
        wait_for(lambda: len(daemon.records) > N_ALL // 5, "a fifth of the verdicts", START_S)
        assert daemon.terminate() == 0, daemon.log
        assert "the same command goes on with it" in daemon.log
        published.update((r["series"], r["frame"]) for r in daemon.records)
    with on_nodes("killed") as daemon:
        wait_for(lambda: len(daemon.records) > N_ALL // 5, "a fifth more", START_S)
        os.kill(daemon.process.pid, signal.SIGKILL)
        wait_for(lambda: not daemon.orphans(), "the children end")
        published.update((r["series"], r["frame"]) for r in daemon.records)
    with on_nodes("finished") as daemon:
        _finish(daemon)
        published.update((r["series"], r["frame"]) for r in daemon.records)
        ends = [m for topic, m in daemon.results if topic == "series.end"]
    assert all(end["balanced"] for end in ends)
    # What a killed supervisor had stored but not said yet is not judged, nor said, again.
    assert max(published.values()) == 1
    folders = sorted((tmp_path / "out").glob("series_*"))
    assert len(folders) == len(SERIES)
    for folder in folders:
        rows = _ledger(folder)
        assert rows["frame"].tolist() == list(range(N_FRAMES))
        assert set(rows["outcome"].tolist()) == {b"hit", b"miss"}
    assert command("check", str(tmp_path / "out")).returncode == 0
