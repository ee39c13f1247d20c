"""A series' master as DIALS' own reader sees it: geometry, images, mask, sentinels.

Read by the `nxmx` package in an environment without our code, from files that the daemon wrote.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.system.conftest import PeerEnv
from tests.system.daemon import Detector, kept_images, running
from tests.system.frames import SHAPE, wire_series

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PEER = Path(__file__).with_name("nxmx_peer.py")
CONFIG = """
[geometry]
beam_center_px = [130.25, 120.75]
clen_m = 0.15
photon_energy_eV = 7000.0
mask_file = "{mask}"
"""


def test_the_nxmx_reader_finds_geometry_images_and_mask(peer_env: PeerEnv, tmp_path: Path) -> None:
    python = peer_env("nxmx")
    mask = np.ones(SHAPE, bool)
    mask[10:14] = False
    np.save(tmp_path / "mask.npy", mask)
    config = CONFIG.format(mask=tmp_path / "mask.npy")
    series = wire_series("v2", 8, 12, has_spots=True)
    with Detector() as detector, running(tmp_path / "run", detector, config=config) as daemon:
        detector.send(*series.messages)
        closed = daemon.closed(8)
        assert daemon.terminate() == 0, daemon.log
    line = [str(python), str(PEER), str(closed.folder / "master.h5")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["definition"] == "NXmx"
    assert said["is_still"] is True
    assert said["wavelength_A"] == pytest.approx(12398.41984 / 7000, abs=1e-6)
    assert said["distance_mm"] == pytest.approx(150)
    assert said["size_ss_fs"] == list(SHAPE)
    assert said["begin_ss_fs"] == [0, 0]
    assert said["pixel_mm"] == pytest.approx([0.075, 0.075])
    assert said["thickness_mm"] == pytest.approx(0.45)
    assert said["material"] == "Si"
    assert said["n_masked"] == 4 * SHAPE[1]
    # imgCIF, as dxtbx: the beam runs along -z; +x and -y are the detector's fast and slow axes.
    fast, slow, origin = (np.array(said[k]) for k in ("fast", "slow", "origin_mm"))
    np.testing.assert_allclose([fast, slow], [[1, 0, 0], [0, -1, 0]], atol=1e-9)
    assert origin[2] == pytest.approx(-150)
    at_px = -origin @ np.stack([fast, slow]).T / 0.075
    np.testing.assert_allclose(at_px, [130.25, 120.75], atol=1e-6)
    hits = {f: kept["data"] for f, kept in kept_images(closed.folder).items()}
    hits = {f: hits[f] for f, outcome in sorted(closed.outcomes.items()) if outcome == "hit"}
    assert len(hits) >= 6
    assert said["shape"] == [len(hits), *SHAPE]
    assert said["sum_trusted"] == [int(image.sum()) for image in hits.values()]
    assert said["n_untrusted"] == [0] * len(hits)
