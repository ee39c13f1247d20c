"""The emulated detector's REST interface is asked, and what it drops becomes an alarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from tests.workers.page_parts import healthy_state

from hitfinder.sim.detector import DetectorConfig
from hitfinder.sim.emulator import Emulator, EmulatorOptions
from hitfinder.sim.rest_server import RestServer
from hitfinder.sim.simplon import Simplon
from hitfinder.workers import detector_status
from hitfinder.workers.alarms import alarms_of
from hitfinder.workers.config import Config, ConfigError, SourceConfig, check_values
from hitfinder.workers.detector_status import DetectorStatus

IMAGE = np.zeros((8, 8), np.uint16)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Yield a detector whose stream nobody takes."""
    monkeypatch.setattr(detector_status, "EVERY_S", 0.02)
    config = DetectorConfig(shape=IMAGE.shape, n_images=3)
    options = EmulatorOptions(bind="tcp://127.0.0.1:0", send_timeout_s=0.0)
    with Emulator(config, lambda series, frame: (IMAGE, None), options) as made:
        made.initialize()
        yield made


def until(status: DetectorStatus, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first answer that says so."""
    deadline = time.monotonic() + 20
    while status.latest is None or not holds(status.latest):
        assert time.monotonic() < deadline, status.latest
        time.sleep(0.005)
    return status.latest


def names(status: DetectorStatus) -> list[str]:
    return [alarm["name"] for alarm in alarms_of(healthy_state(detector=status.latest))]


def test_what_the_detector_drops_is_an_alarm_and_so_is_its_silence(emulator: Emulator) -> None:
    with RestServer(Simplon(emulator)) as server:
        with closing(DetectorStatus(f"127.0.0.1:{server.port}")) as status:
            said = until(status, lambda s: s["answers"])
            assert (said["state"], said["n_dropped"], said["buffer_used"]) == ("idle", 0, None)
            assert names(status) == []
            emulator.arm()
            emulator.trigger()
            until(status, lambda s: bool(s["n_dropped"] == 3))
            assert names(status) == ["detector_buffer"]
            emulator.arm()
            until(status, lambda s: bool(s["n_dropped"] == 0))
            assert names(status) == []
            server.close()
            until(status, lambda s: not s["answers"])
            assert names(status) == ["detector_silent"]


def test_what_is_no_answer_is_said_and_nobody_is_asked_without_an_address(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_status, "VERSION", "0.0.0")
    with RestServer(Simplon(emulator)) as server:
        with closing(DetectorStatus(f"127.0.0.1:{server.port}")) as status:
            assert "404" in until(status, lambda s: True)["error"]
    with closing(DetectorStatus(None)) as nobody:
        assert nobody.latest is None


@pytest.mark.parametrize("rest", ["10.0.0.1", "http://10.0.0.1:80", "10.0.0.1:port", ":80"])
def test_an_address_that_is_none_is_refused(rest: str) -> None:
    with pytest.raises(ConfigError, match="source.rest"):
        check_values(Config(source=SourceConfig(rest=rest)))
