"""Diamond's control client fastcs-eiger drives the emulated detector over its REST interface."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cbor2
import numpy as np
import pytest
import zmq
from tests.system.conftest import PeerEnv

from hitfinder.sim.detector import DetectorConfig
from hitfinder.sim.emulator import Emulator, EmulatorOptions
from hitfinder.sim.rest_server import RestServer
from hitfinder.sim.simplon import Simplon

# The first run makes the peer's environment.
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

CLIENT = Path(__file__).with_name("fastcs_peer.py")
IMAGE = np.arange(40 * 64, dtype=np.uint16).reshape(40, 64)


@pytest.mark.parametrize("version", ["1.8.0", "1.6.0"])
def test_fastcs_eiger_sets_arms_and_triggers_the_emulator(peer_env: PeerEnv, version: str) -> None:
    python = peer_env("fastcs-eiger")
    options = EmulatorOptions(bind="tcp://127.0.0.1:0", send_timeout_s=10)
    config = DetectorConfig(shape=IMAGE.shape)
    with (
        Emulator(config, lambda series, frame: (IMAGE + frame, None), options) as emulator,
        RestServer(Simplon(emulator)) as server,
        zmq.Context() as context,
        context.socket(zmq.PULL) as pull,
    ):
        pull.connect(emulator.endpoint)
        done = subprocess.run(
            [python, CLIENT, str(server.port), version], capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr[:3000]
        messages = [cbor2.loads(pull.recv()) for _ in range(8) if pull.poll(5000)]

    said = json.loads(done.stdout.splitlines()[-1])
    assert said["found"]["detector"] > 50
    assert said["read"] == {
        "nimages": 3,
        "ntrigger": 2,
        "trigger_mode": "ints",
        "photon_energy": 7000.0,
        "threshold_energy": 3500.0,
    }
    assert said["states"] == ["ready", "idle"]
    assert [m["type"] for m in messages] == ["start", *["image"] * 6, "end"]
    assert [m["image_id"] for m in messages[1:-1]] == [0, 1, 2, 3, 4, 5]
    assert messages[0]["number_of_images"] == 6
    assert messages[0]["incident_energy"] == 7000.0
