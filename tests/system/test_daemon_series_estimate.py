"""What the frames of a series say together: published, stored, and held against the header."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
from tests.system.daemon import Closed, Daemon

from hitfinder.sim.detector import DetectorConfig
from hitfinder.sim.emulator import Emulator, EmulatorOptions
from hitfinder.sim.frames import FrameSettings, FrameSource

pytestmark = pytest.mark.system

N_FRAMES = 8


def closed_with_header(folder: Path, photon_energy_eV: float, clen_m: float) -> Closed:
    """Return a series of set 02 (7 keV, 0.15 m) under this header."""
    source = FrameSource(FrameSettings(datasets=("02",), hit_fraction=0.25), seed=5)
    options = EmulatorOptions(
        bind="tcp://127.0.0.1:0",
        protocol="v2",
        send_hwm=8,
        send_timeout_s=60,
        wait_for_client_s=60,
    )
    config = DetectorConfig(
        n_images=N_FRAMES,
        trigger_mode="ints",
        clen_m=clen_m,
        photon_energy_eV=photon_energy_eV,
    )
    see = lambda series, frame: (source.draw(frame).image, None)  # noqa: E731
    with Emulator(config, see, options) as detector:
        line = ("run", "--source", detector.endpoint, "--max-series", "1")
        with Daemon(folder, *line, device="cpu:2") as daemon:
            daemon.wait_ready()
            detector.initialize()
            detector.arm()
            detector.trigger()
            assert daemon.wait_exit() == 0, daemon.log
    return daemon.closed(1)


def test_a_series_tells_energy_and_camera_length_and_a_right_header_raises_no_alarm(tmp_path):
    closed = closed_with_header(tmp_path, 7000.0, 0.15)
    told = closed.end["posterior"]
    assert told["n_frames"] == N_FRAMES
    assert abs(told["photon_energy_eV"] - 7000) < 4 * told["photon_energy_sigma_eV"] < 120
    assert abs(told["clen_m"] - 0.15) < 4 * told["clen_sigma_m"] < 0.003
    assert told["tells_parameters"]
    assert told["matrix"][1][0] > 0.99
    assert told["header_mismatch"] is False
    summary = json.loads((closed.folder / "summary.json").read_text())
    assert summary["alarms"] == []
    assert summary["extra"]["posterior"] == told
    with h5py.File(closed.folder / "ledger.h5") as file:
        assert json.loads(file["ledger"].attrs["summary"])["posterior"] == told
        rows = file["ledger"][:]
    hits = rows[rows["outcome"] == b"hit"]
    assert len(hits)
    assert (hits["tells_parameters"] == 1).all()
    assert sum(summary["d_min_A_hits"].values()) == len(hits)
    assert ((hits["d_min_A"] > 1.5) & (hits["d_min_A"] < 10)).all()


def test_a_wrong_header_is_an_alarm(tmp_path):
    closed = closed_with_header(tmp_path, 8000.0, 0.25)
    assert closed.end["posterior"]["header_mismatch"] is True
    assert closed.end["posterior"]["header_chance"] < 1e-6
    summary = json.loads((closed.folder / "summary.json").read_text())
    assert len(summary["alarms"]) == 1
    assert "header" in summary["alarms"][0]
