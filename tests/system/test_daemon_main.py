"""The daemon's main job: nine series of the report's matrix, judged, kept and accounted for.

Frames are simulated at 3e8 photons a pulse with 10 um crystals, hits and blanks in turn, and
sent by the emulator over its real socket at full size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.system.daemon import Closed, Daemon, kept_images, pixels_sha256

from hitfinder.sim.detector import DetectorConfig, Protocol
from hitfinder.sim.emulator import Emulator, EmulatorOptions
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import data_sets

pytestmark = pytest.mark.system


@dataclass
class Beamtime:
    """Nine series, one a data set, and what was sent of each (series, frame)."""

    n_frames: int
    sha256: dict[tuple[int, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = sorted(data_sets())
        self._sources = {
            (name, hit_fraction): FrameSource(
                FrameSettings(datasets=(name,), hit_fraction=hit_fraction), seed=int(name)
            )
            for name in self.names
            for hit_fraction in (0.0, 1.0)
        }

    @staticmethod
    def is_hit(frame: int) -> bool:
        """Say which frames have a crystal in the beam: every second one, from the first."""
        return frame % 2 == 0

    def see(self, series: int, frame: int) -> tuple[NDArray[np.unsignedinteger], None]:
        """Return what the detector sees."""
        source = self._sources[self.names[series - 1], float(self.is_hit(frame))]
        image = source.draw(frame).image
        self.sha256[series, frame] = pixels_sha256(image)
        return image, None

    def judged(self, protocol: Protocol, folder: Path) -> Daemon:
        """Send all nine series to a daemon and return it once it has ended by itself."""
        options = EmulatorOptions(
            bind="tcp://127.0.0.1:0",
            protocol=protocol,
            send_hwm=8,
            send_timeout_s=60,
            wait_for_client_s=60,
        )
        config = DetectorConfig(n_images=self.n_frames, trigger_mode="ints")
        with Emulator(config, self.see, options) as detector:
            line = ("run", "--source", detector.endpoint, "--max-series", "9")
            with Daemon(folder, *line, device="cpu:2") as daemon:
                daemon.wait_ready()
                detector.initialize()
                for name in self.names:
                    stated = data_sets()[name]
                    detector.configure(
                        clen_m=stated.clen_m, photon_energy_eV=stated.photon_energy_eV
                    )
                    detector.arm()
                    detector.trigger()
                assert detector.n_lost == 0
                assert daemon.wait_exit() == 0, daemon.log
        return daemon


@pytest.mark.parametrize(("protocol", "n_frames"), [("v2", 8), ("v1", 2)])
def test_nine_series_are_judged_kept_and_accounted_for(tmp_path, protocol, n_frames):
    beamtime = Beamtime(n_frames)
    daemon = beamtime.judged(protocol, tmp_path)
    closed = [daemon.closed(series) for series in range(1, 10)]
    assert [c.counts for c in closed if c.n_judged != n_frames] == []
    found = {(c.end["series"], f): o for c in closed for f, o in c.outcomes.items()}
    assert found.keys() == beamtime.sha256.keys()
    of_hits = [outcome for (_, f), outcome in found.items() if beamtime.is_hit(f)]
    of_blanks = [outcome for (_, f), outcome in found.items() if not beamtime.is_hit(f)]
    assert of_hits.count("hit") >= 0.95 * len(of_hits)
    assert of_blanks.count("hit") <= 0.02 * len(of_blanks)
    for series in closed:
        assert_hits_are_kept(series, beamtime.sha256)


def assert_hits_are_kept(closed: Closed, sha256: dict[tuple[int, int], str]) -> None:
    """Check that the hit files hold the hits, all of them, as they were sent."""
    series, hits = closed.end["series"], {f for f, o in closed.outcomes.items() if o == "hit"}
    kept = kept_images(closed.folder)
    assert hits == {f for f in kept if closed.outcomes[f] == "hit"}
    for frame, images in kept.items():
        assert pixels_sha256(images["data"]) == sha256[series, frame]
        assert closed.records[frame]["n_peaks"] is not None
    if hits:
        assert_rows_agree(closed, hits)
    assert_summary_agrees(closed)


def assert_rows_agree(closed: Closed, hits: set[int]) -> None:
    """Check the columns beside the images, row by row, with what was published."""
    with h5py.File(closed.folder / "hits_000001.h5") as file:
        frames = file["entry/hitfinder/frame"][:].tolist()
        assert set(frames) == hits
        result = file["entry/result"]
        for row, frame in enumerate(frames):
            record = closed.records[frame]
            n_peaks = int(result["nPeaks"][row])
            assert (record["file"], record["row"]) == ("hits_000001.h5", row)
            assert n_peaks == record["n_peaks"] > 0
            for column, key in (("peakXPosRaw", "fs"), ("peakYPosRaw", "ss"), ("peakSNR", "snr")):
                published = np.frombuffer(record["peaks"][key], "<f4")
                assert np.array_equal(result[column][row, :n_peaks], published)


def assert_summary_agrees(closed: Closed) -> None:
    """Check the counts on disk with the counts on the topic."""
    summary: dict[str, Any] = json.loads((closed.folder / "summary.json").read_text())
    assert {o: n for o, n in summary["counts"].items() if n} == closed.counts
    assert summary["alarms"] == []
    assert len((closed.folder / "hits.lst").read_text().splitlines()) == closed.end["hit"]
