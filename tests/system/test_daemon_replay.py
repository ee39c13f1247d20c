"""Recorded frames judged again: right, and the same live and replayed.

The recording holds hit, blank, hit, blank for each data set of the report's matrix.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers bitshuffle)
import pytest
from tests.system.daemon import Closed, Daemon, Detector, running

from hitfinder.sim import stream_v2
from hitfinder.sim.detector import DetectorConfig, Series, exposure_times
from hitfinder.sim.encoding import Encoder

pytestmark = pytest.mark.system

N_SERIES = 9
LIVE = (2, 6)  # replayed series whose frames are also sent: few, since they are 4M
VERDICT = ("outcome", "p_hit", "p_any", "p_spots3", "threshold", "n_peaks", "peaks", "n_photons")
VERDICT += ("photon_energy_eV", "photon_energy_sigma_eV", "clen_m", "clen_sigma_m")
VERDICT += ("background_photons_per_px", "model")


@pytest.fixture(scope="module")
def recording(shared: Path) -> Path:
    return shared / "data" / "pattern_sim" / "overlay_examples.h5"


@pytest.fixture(scope="module")
def replayed(recording, tmp_path_factory) -> dict[int, Closed]:
    with Daemon(tmp_path_factory.mktemp("replay"), "replay", str(recording)) as daemon:
        daemon.wait_ready()
        assert daemon.wait_exit() == 0, daemon.log
    return {series: daemon.closed(series) for series in range(1, N_SERIES + 1)}


def test_hits_and_blanks_of_a_recording_are_told_apart(replayed):
    found = {series: list(closed.outcomes.values()) for series, closed in replayed.items()}
    assert found == dict.fromkeys(range(1, N_SERIES + 1), ["hit", "miss", "hit", "miss"])


def test_a_frame_has_the_same_verdict_live_and_replayed(recording, replayed, tmp_path):
    with Detector() as detector, running(tmp_path, detector) as daemon:
        for series in LIVE:
            send_live(detector, recording, series)
            live = daemon.closed(series)
            for frame, record in live.records.items():
                again = replayed[series].records[frame]
                assert {k: record[k] for k in VERDICT} == {k: again[k] for k in VERDICT}
        assert daemon.terminate() == 0


def send_live(detector: Detector, recording: Path, series: int) -> None:
    """Send a recorded series as a V2 detector would."""
    with h5py.File(recording) as file:
        images = file[f"{series:02}/data"][:]
    config = DetectorConfig(shape=images.shape[1:], n_trigger=len(images), trigger_mode="inte")
    armed = datetime(2024, 1, 1, tzinfo=UTC)
    name, encode = Series(series, f"LIVE{series}", armed, armed), Encoder("v2", "bslz4", "uint16")
    detector.send(stream_v2.start(config, name))
    for k, image in enumerate(images):
        times = exposure_times(config, k)
        detector.send(stream_v2.image(config, name, k, [encode(image)], times))
    detector.send(stream_v2.end(name))
