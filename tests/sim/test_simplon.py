"""The SIMPLON subset: shapes of replies, couplings, states, and one TCP segment a reply."""

from __future__ import annotations

import base64
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hitfinder import HitfinderError
from hitfinder.sim.detector import DetectorConfig
from hitfinder.sim.emulator import Emulator, EmulatorOptions, State
from hitfinder.sim.rest_server import RestServer
from hitfinder.sim.simplon import Simplon

SHAPE = (24, 40)
IMAGE = np.arange(24 * 40, dtype=np.uint16).reshape(SHAPE)
# What fastcs-eiger's parser of a GET reply admits.
VALUE_TYPES = {"float", "int", "bool", "uint", "string", "datetime", "State", "string[]"}
# Names it leaves out.
NOT_SCALARS = {"pixel_mask", "flatfield", "detector_translation", "buffer_fill_level"}


class Browser:
    """Asks a `Simplon` and expects JSON."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.simplon = Simplon(emulator)

    def get(self, path: str, version: str = "1.8.0") -> Any:
        reply = self.simplon.answer("GET", path.replace("/api/", f"/api/{version}/"))
        assert reply.status == 200, reply
        return json.loads(reply.body)

    def put(self, path: str, *value: Any) -> Any:
        body = json.dumps({"value": value[0]}).encode() if value else b""
        reply = self.simplon.answer("PUT", path.replace("/api/", "/api/1.8.0/"), body)
        assert reply.status == 200, reply
        return json.loads(reply.body)

    def refused(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        reply = self.simplon.answer(method, path.replace("/api/", "/api/1.8.0/"), body)
        assert reply.media_type == "text/plain"
        return reply.status, reply.body.decode()


@pytest.fixture
def browser() -> Iterator[Browser]:
    options = EmulatorOptions(bind="tcp://127.0.0.1:0")
    with Emulator(DetectorConfig(shape=SHAPE), lambda s, f: (IMAGE, None), options) as emulator:
        yield Browser(emulator)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("module", ["detector", "stream", "monitor", "filewriter", "system"])
def test_the_version_answers_with_and_without_a_slash(browser, module, slash):
    reply = browser.simplon.answer("GET", f"/{module}/api/version{slash}")
    assert json.loads(reply.body) == {"value": "1.8.0", "value_type": "string"}


@pytest.mark.parametrize("version", ["1.6.0", "1.8.0"])
@pytest.mark.parametrize("module", ["detector", "stream", "monitor"])
@pytest.mark.parametrize("task", ["config", "status"])
def test_every_listed_key_answers_with_a_type_clients_know(browser, module, task, version):
    keys = browser.get(f"{module}/api/{task}/keys", version)
    assert keys == sorted(set(keys))
    for key in keys:
        said = browser.get(f"{module}/api/{task}/{key}", version)
        if key.rpartition("/")[2] not in NOT_SCALARS:
            assert said["value_type"] in VALUE_TYPES, key
            assert said["access_mode"] in ("r", "rw")


def test_what_clients_ask_for_unlisted_answers_too(browser):
    assert "wavelength" not in browser.get("detector/api/config/keys")
    assert browser.get("detector/api/config/wavelength")["value"] == pytest.approx(
        1.5498, abs=1e-4
    )
    for module in ("detector", "stream", "monitor", "filewriter"):
        assert "error" not in browser.get(f"{module}/api/status/keys")
        assert browser.get(f"{module}/api/status/error")["value"] == []


def test_a_setting_says_its_limits_and_leaves_out_what_it_has_not(browser):
    assert browser.get("detector/api/config/count_time") == {
        "value": 0.0099,
        "value_type": "float",
        "access_mode": "rw",
        "min": 1e-07,
        "unit": "s",
    }
    assert browser.get("detector/api/config/x_pixels_in_detector") == {
        "value": 40,
        "value_type": "uint",
        "access_mode": "r",
    }
    assert browser.get("detector/api/config/compression")["allowed_values"] == [
        "bslz4",
        "lz4",
        "none",
    ]


@pytest.mark.parametrize(
    ("name", "value", "changed"),
    [
        ("nimages", 7, ["nimages"]),
        ("nimages", 1, []),
        ("count_time", 0.5, ["count_time", "frame_time"]),
        ("beam_center_x", 3, ["beam_center_x", "detector_translation"]),
        ("beam_center_y", 3.5, ["beam_center_y", "detector_translation"]),
        ("threshold/1/energy", 5000.0, ["threshold/1/energy", "threshold_energy"]),
        ("threshold/2/energy", 9000.0, ["threshold/2/energy"]),
        ("threshold/difference/mode", "enabled", ["threshold/difference/mode"]),
        ("omega_increment", 0.1, ["omega_increment"]),
        ("chi_start", 0.1, ["chi_start"]),
        ("roi_mode", "4M", ["roi_mode"]),
        ("auto_summation", False, ["auto_summation"]),
        ("mask_to_zero", True, ["mask_to_zero"]),
        (
            "photon_energy",
            7000.0,
            [
                "incident_energy",
                "photon_energy",
                "threshold/1/energy",
                "threshold_energy",
                "wavelength",
            ],
        ),
        (
            "wavelength",
            1.0,
            [
                "incident_energy",
                "photon_energy",
                "threshold/1/energy",
                "threshold_energy",
                "wavelength",
            ],
        ),
    ],
)
def test_a_put_takes_effect_and_names_all_that_changed(browser, name, value, changed):
    assert browser.put(f"detector/api/config/{name}", value) == changed
    assert browser.get(f"detector/api/config/{name}")["value"] == value


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("detector/api/config/nimages", b'{"value": "many"}', 400),
        ("detector/api/config/nimages", b'{"value": true}', 400),
        ("detector/api/config/nimages", b'{"value": 0}', 400),
        ("detector/api/config/count_time", b'{"value": NaN}', 400),
        ("detector/api/config/count_time", b"not JSON", 400),
        ("detector/api/config/compression", b'{"value": "zip"}', 400),
        ("detector/api/config/threshold/1/mode", b'{"value": "disabled"}', 400),
        ("detector/api/config/bit_depth_image", b'{"value": 8}', 400),
        ("detector/api/config/pixel_mask", b'{"value": {"type": "<u4"}}', 400),
        ("detector/api/config/nothing", b'{"value": 8}', 404),
        ("detector/api/command/trigger", b"", 400),
        ("detector/api/command/explode", b"", 404),
        ("stream/api/config/format", b'{"value": "xml"}', 400),
        ("stream/api/config/mode", b'{"value": 1}', 400),
        ("stream/api/config/nothing", b'{"value": 1}', 404),
        ("camera/api/config/keys", b"", 404),
        ("system/api/status/keys", b"", 404),
        ("stream/api/command/explode", b"", 404),
    ],
)
def test_bad_requests_are_refused_with_a_text(browser, path, body, status):
    browser.emulator.initialize()
    before = browser.emulator.config
    assert browser.refused("PUT", path, body)[0] == status
    assert browser.emulator.config is before


def test_other_api_versions_and_commands_by_get_are_refused(browser):
    assert browser.refused("GET", "detector/api/9.9.9/config/nimages")[0] == 404
    assert browser.refused("GET", "detector/api/command/arm")[0] == 400
    assert browser.refused("GET", "")[0] == 404


def test_the_life_of_a_series_by_commands(browser):
    def state() -> Any:
        return browser.get("detector/api/status/state")["value"]

    assert state() == "na"
    browser.put("detector/api/command/initialize")
    assert state() == "idle"
    browser.put("detector/api/config/ntrigger", 2)
    assert browser.put("detector/api/command/arm") == {"sequence id": 1}
    assert state() == "ready"
    assert browser.get("stream/api/status/state")["value"] == "acquire"
    assert browser.refused("PUT", "detector/api/config/nimages", b'{"value": 9}') == (
        400,
        "configure in state ready; expected na or idle",
    )
    assert browser.put("detector/api/command/trigger") == {}
    assert state() == "ready"
    assert browser.put("detector/api/command/trigger", 0.1) == {}
    assert state() == "idle"
    assert browser.get("stream/api/status/state")["value"] == "ready"
    assert browser.get("stream/api/status/dropped")["value"] == 2
    for command in ("disarm", "cancel", "abort"):
        assert browser.put(f"detector/api/command/{command}") == {"sequence id": 1}
    for command in ("status_update", "hv_reset", "wait", "check_connections"):
        assert browser.put(f"detector/api/command/{command}") == {}


def test_stream_settings_reach_the_detector(browser):
    for name, value in {
        "format": "legacy",
        "header_detail": "all",
        "header_appendix": "run 7",
        "image_appendix": "spot",
        "mode": "disabled",
    }.items():
        assert browser.put(f"stream/api/config/{name}", value) == [name]
        assert browser.get(f"stream/api/config/{name}")["value"] == value
    assert browser.emulator.protocol == "v1"
    assert browser.emulator.config.header_appendix == "run 7"
    assert browser.get("stream/api/status/state")["value"] == "disabled"
    browser.put("stream/api/config/mode", "enabled")
    browser.put("stream/api/command/initialize")
    assert browser.get("stream/api/config/mode")["value"] == "disabled"


@pytest.mark.parametrize("name", ["pixel_mask", "threshold/1/pixel_mask", "flatfield"])
def test_mask_and_flatfield_go_up_and_come_down(browser, name):
    dtype = np.uint32 if name.endswith("mask") else np.float32
    array = np.random.default_rng(0).integers(0, 9, SHAPE).astype(dtype)
    up = {
        "__darray__": [1, 0, 0],
        "type": array.dtype.str,
        "shape": [40, 24],
        "filters": ["base64"],
        "data": base64.b64encode(array.tobytes()).decode(),
    }
    assert browser.put(f"detector/api/config/{name}", up) == [name]
    assert browser.get(f"detector/api/config/{name}")["value"] == up
    reply = browser.simplon.answer(
        "GET", f"detector/api/1.8.0/config/{name}", accept="application/tiff"
    )
    with Image.open(BytesIO(reply.body)) as tiff:
        assert np.array_equal(np.asarray(tiff).astype(dtype), array)


def test_the_monitor_shows_the_latest_image_once(browser):
    ask = browser.simplon.answer
    assert ask("GET", "monitor/api/1.8.0/images/next").status == 408
    assert browser.put("monitor/api/config/mode", "enabled") == ["mode"]
    browser.put("detector/api/command/initialize")
    browser.put("detector/api/command/arm")
    browser.put("detector/api/command/trigger")
    assert browser.get("monitor/api/images") == [[1, [0]]]
    assert browser.get("monitor/api/status/buffer_fill_level")["value"] == [1, 1]
    reply = ask("GET", "monitor/api/1.8.0/images/next")
    assert (reply.status, reply.media_type) == (200, "application/tiff")
    with Image.open(BytesIO(reply.body)) as tiff:
        assert np.array_equal(np.asarray(tiff), IMAGE)
    # The OM program reads 29 characters of RFC 3339 time at this place.
    start = browser.emulator.series.start_date.isoformat(timespec="milliseconds")
    assert reply.body[162:191].decode() == start
    assert ask("GET", "monitor/api/1.8.0/images/next").status == 408
    for path in ("monitor", "1/0"):
        assert ask("GET", f"monitor/api/1.8.0/images/{path}").body == reply.body
    assert ask("GET", "monitor/api/1.8.0/images/1/7").status == 404
    browser.put("monitor/api/command/clear")
    assert browser.get("monitor/api/status/buffer_free")["value"] == 1


def test_there_is_no_file_writer_and_it_says_so(browser):
    browser.put("filewriter/api/config/mode", "enabled")
    assert browser.put("filewriter/api/config/name_pattern", "run_$id") == ["name_pattern"]
    assert browser.get("filewriter/api/config/mode")["value"] == "disabled"
    assert browser.get("filewriter/api/status/state")["value"] == "disabled"
    assert browser.get("filewriter/api/files") == []
    assert browser.put("filewriter/api/command/clear") == {}
    assert browser.put("system/api/command/restart") == {}


# -- over HTTP ---------------------------------------------------------------------------------


def request(server: RestServer, method: str, path: str, value: Any = None) -> Any:
    body = None if value is None else json.dumps({"value": value}).encode()
    url = f"http://127.0.0.1:{server.port}/{path}"
    asked = urllib.request.Request(url, method=method, data=body)
    with urllib.request.urlopen(asked, timeout=10) as reply:
        return json.loads(reply.read())


def test_a_reply_arrives_in_one_segment_on_a_connection_kept_open(browser):
    with (
        RestServer(browser.simplon) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
    ):
        for _ in range(20):
            connection.sendall(b"GET /detector/api/1.8.0/status/state HTTP/1.1\r\nHost: d\r\n\r\n")
            reply = connection.recv(512)
            head, _, body = reply.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
            assert b"chunked" not in head.lower()
            assert json.loads(body)["value"] == "na"


def test_large_masks_and_errors_pass_over_http(browser):
    with RestServer(browser.simplon) as server:
        said = request(server, "GET", "detector/api/1.8.0/config/pixel_mask")
        assert len(base64.b64decode(said["value"]["data"])) == 24 * 40 * 4
        assert request(server, "PUT", "detector/api/1.8.0/config/pixel_mask", said["value"])
        with pytest.raises(urllib.error.HTTPError, match="404") as failed:
            request(server, "GET", "detector/api/1.8.0/config/nothing")
        failed.value.close()


def test_a_trigger_blocks_its_caller_and_others_are_answered_meanwhile(browser):
    showing, go_on = threading.Event(), threading.Event()

    def hold(series: int, frame: int) -> tuple[Any, None]:
        showing.set()
        assert go_on.wait(10)
        return IMAGE, None

    options = EmulatorOptions(bind="tcp://127.0.0.1:0")
    with (
        Emulator(browser.emulator.config, hold, options) as emulator,
        RestServer(Simplon(emulator)) as server,
        ThreadPoolExecutor() as pool,
    ):
        emulator.initialize()
        emulator.arm()
        trigger = pool.submit(request, server, "PUT", "detector/api/1.8.0/command/trigger")
        assert showing.wait(10)
        state = request(server, "GET", "detector/api/1.8.0/status/state")["value"]
        assert state == "acquire"
        assert not trigger.done()
        go_on.set()
        assert trigger.result(10) == {}
        assert emulator.state is State.IDLE


def test_closing_the_server_interrupts_a_trigger(browser):
    options = EmulatorOptions(bind="tcp://127.0.0.1:0", rate_Hz=0.001)
    config = DetectorConfig(shape=SHAPE, n_images=2)
    showing = threading.Event()

    def show(series: int, frame: int) -> tuple[Any, None]:
        showing.set()
        return IMAGE, None

    with (
        Emulator(config, show, options) as emulator,
        ThreadPoolExecutor() as pool,
    ):
        emulator.initialize()
        emulator.arm()
        with RestServer(Simplon(emulator)) as server:
            path = "detector/api/1.8.0/command/trigger"
            trigger = pool.submit(request, server, "PUT", path)
            assert showing.wait(10)
        assert trigger.result(10) == {}
        assert emulator.state is State.IDLE


def test_a_taken_port_is_named(browser):
    with (
        RestServer(browser.simplon) as server,
        pytest.raises(HitfinderError, match=f"cannot serve SIMPLON on 127.0.0.1:{server.port}"),
    ):
        RestServer(browser.simplon, port=server.port)
