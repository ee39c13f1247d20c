"""Which judges are asked for, and what a killed dealer's successor makes of half-filled slots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.system.recorded import recorded_series

from hitfinder.stream.capture import CaptureWriter
from hitfinder.stream.errors import StoreError
from hitfinder.stream.messages import FrameHeader, SeriesStart
from hitfinder.stream.recordings import open_recordings
from hitfinder.stream.ring import Layout, Ring, Seen, State, create_memory
from hitfinder.stream.series import SeriesTable
from hitfinder.workers import cluster
from hitfinder.workers.cluster import ClusterError
from hitfinder.workers.cluster_replay import absolute, judges, recover, series_of
from hitfinder.workers.config import Config, ConfigError


@pytest.mark.parametrize(
    ("devices", "n_gpus", "asked"),
    [
        (["auto"], 2, ("cuda:0", 2)),
        (["auto"], 0, ("cpu", 24)),
        (["cpu"], 2, ("cpu", 24)),
        (["cpu:48"], 0, ("cpu", 48)),
        (["cuda"], 2, ("cuda:0", 2)),
    ],
)
def test_judges_are_as_many_as_the_cluster_has_devices(devices, n_gpus, asked, monkeypatch):
    monkeypatch.setattr(cluster, "count", {"GPU": n_gpus, "CPU": 24}.get)
    assert judges(devices) == asked


@pytest.mark.parametrize(
    ("devices", "error", "why"),
    [
        (["cuda:1"], ConfigError, "Ray places"),
        (["cpu", "cuda"], ConfigError, "Ray places"),
        (["cuda"], ClusterError, "no node of the cluster has a GPU"),
        (["cpu"], ClusterError, "offers a CPU"),
    ],
)
def test_a_device_that_cannot_be_had_is_refused(devices, error, why, monkeypatch):
    monkeypatch.setattr(cluster, "count", {"GPU": 0, "CPU": 0}.get)
    with pytest.raises(error, match=why):
        judges(devices)


def test_files_are_named_as_on_every_node(tmp_path, monkeypatch):
    recorded_series(tmp_path, range(1, 2), 2)
    monkeypatch.chdir(tmp_path)
    (recording,) = open_recordings([Path("run01.h5")])
    (series,) = series_of(recording)
    assert {span.path for span in series.spans} == {tmp_path / "run01.h5"}
    config = Config()
    config.gate.model = config.geometry.mask_file = "mine"
    named = absolute(config)
    assert named.gate.model == named.geometry.mask_file == str(tmp_path / "mine")
    assert named.geometry.geom_file is None
    assert config.gate.model == "mine"


def test_a_capture_is_refused_with_what_to_do(tmp_path):
    with CaptureWriter(tmp_path / "run.wire") as capture:
        capture.write([b"{}"], 0)
    (recording,) = open_recordings([tmp_path / "run.wire"])
    with pytest.raises(StoreError, match=r"run.wire.*without --cluster"):
        series_of(recording)


def test_what_was_being_filled_is_handed_on_if_whole_and_asked_again_if_not():
    layout = Layout(4, 1 << 12)
    ring = Ring(create_memory(layout), layout)
    table = SeriesTable(ring)
    entry = table.begin(SeriesStart(7, n_frames=10), 1)
    assert entry is not None
    key = int(ring.series["key"][entry])
    unnamed, unseen, whole = (ring.take_free() for _ in range(3))
    for slot, frame in ((unseen, 3), (whole, 4)):
        ring.describe(slot, FrameHeader(7, frame), key, 1)
    table.mark(entry, 4, Seen.RECEIVED)
    recover(ring)
    assert [ring.state_of(slot) for slot in (unnamed, unseen, whole)] == [
        State.FREE,
        State.FREE,
        State.JUDGED,
    ]
    os.close(ring.fd)
