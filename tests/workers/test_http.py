"""The status page answers, shows the figures, and loads nothing from elsewhere."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.workers.page_parts import blob_of, child, healthy_state, judged

from hitfinder.stream.intake import header_path
from hitfinder.stream.messages import SeriesStart, pack_start
from hitfinder.stream.results import Outcome
from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.workers.config import Config, ConfigError, GeometryConfig, HttpConfig
from hitfinder.workers.control import Control
from hitfinder.workers.frame_samples import FrameSamples
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.history import History
from hitfinder.workers.http import FILES, HUNG_S, serve
from hitfinder.workers.page_state import PageState

TOKEN = "0123456789abcdef0123456789abcdef"


class Page:
    """A served page over a state that a test can change."""

    def __init__(self, runtime: Path) -> None:
        self.state = healthy_state(t_monotonic_s=time.monotonic())
        self.history, self.runtime = History(), runtime
        self.samples = FrameSamples(runtime, OperatorGeometry(GeometryConfig()))
        layout = Layout(8, 4096)
        self.ring_fd = create_memory(layout)
        (runtime / "token").write_text(TOKEN)
        config = Config(http=HttpConfig(token_file=str(runtime / "token")))
        self.control = Control(Ring(self.ring_fd, layout), config, runtime, 1)
        self.address = ""

    @property
    def shown(self) -> PageState:
        """What is served."""
        return PageState(lambda: self.state, self.history, self.samples, self.control)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Return status and body."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
        return status, body

    def json(self, path: str) -> Any:
        """Return what an answer says."""
        status, body = self.ask(path)
        assert status == 200
        return json.loads(body)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """Yield a page that is served on a free port."""
    made = Page(tmp_path)
    with serve("127.0.0.1:0", made.shown) as made.address:
        yield made
    made.samples.close()
    os.close(made.ring_fd)


def test_metrics_are_prometheus_text_with_units_in_the_names(page: Page) -> None:
    page.state["series_open"].append({"series": 13, "posterior": None})
    page.state["alarms"] = [{"name": "saturation"}]
    page.state["children"][2] = child("worker", ready=False, starts=2)
    status, body = page.ask("/metrics")
    text = body.decode()
    assert status == 200
    assert 'hitfinder_frames_total{outcome="hit"} 20.0\n' in text
    assert "hitfinder_received_bytes_total 1000.0\n" in text
    assert "hitfinder_hot_pixels 12.0\n" in text
    assert 'hitfinder_latency_seconds{quantile="0.5"} 0.0125\n' in text
    assert 'quantile="0.99"' not in text
    assert 'hitfinder_series_photon_energy_eV{series="12"} 7001.5\n' in text
    assert 'hitfinder_series_clen_meters{series="12"} 0.15\n' in text
    assert "header_mismatch{" not in text
    assert "hitfinder_connected 1.0\n" in text
    assert 'hitfinder_child_up{child="worker",index="2"} 0.0\n' in text
    assert 'hitfinder_child_starts_total{child="worker",index="2"} 2.0\n' in text
    assert 'hitfinder_alarm{alarm="saturation"} 1.0\n' in text
    assert 'hitfinder_alarm{alarm="frames_lost"} 0.0\n' in text


def test_the_page_loads_nothing_from_elsewhere_and_runs_only_its_own_script(page: Page) -> None:
    connection = http.client.HTTPConnection(page.address, timeout=20)
    connection.request("GET", "/")
    answer = connection.getresponse()
    policy, text = answer.headers["Content-Security-Policy"], answer.read().decode()
    connection.close()
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    for path in FILES:
        status, body = page.ask(f"/{path}")
        assert status == 200
        # Names of formats are addresses, too; nobody goes there.
        assert not re.findall(rb"https?://(?!www\.w3\.org/2000/svg)", body), path
    linked = re.findall(r'(?:src|href)="([\w./]+)"', text)
    imported = [
        name
        for path in FILES
        for name in re.findall(rb'from "\./([\w.]+)"', page.ask(f"/{path}")[1])
    ]
    assert {*linked, *(name.decode() for name in imported)} == set(FILES) - {""}


def test_the_state_goes_out_with_its_history(page: Page) -> None:
    page.history.step(healthy_state(), 1000.0)
    page.history.count(judged(Outcome.HIT, d_min_A=2.1), 0)
    page.history.step(healthy_state(), 1001.0)
    said = page.json("/state.json")
    assert said["counts"]["hit"] == 20
    assert said["history"]["t_s"] == [1000.0, 1001.0]
    assert said["spots"]["n"] == 1
    assert sum(said["resolution"]["counts"]) == 1
    assert said["frames"] == {"hit": [], "miss": []}
    assert said["powder"] is None
    status, packed = page.ask("/state.json", **{"Accept-Encoding": "gzip"})
    assert status == 200
    assert json.loads(gzip.decompress(packed))["counts"]["hit"] == 20


def test_frames_and_sums_come_as_numbers(page: Page) -> None:
    header_path(page.runtime, 3).write_bytes(pack_start(SeriesStart(series=12)))
    image = np.ones((64, 80), np.uint16)
    page.samples.take(3, judged(Outcome.HIT, 7), blob_of(image))
    deadline = time.monotonic() + 20
    while not page.samples.latest(Outcome.HIT):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (frame,) = page.json("/state.json")["frames"]["hit"]
    number = frame["number"]
    said = page.json(f"/frames/{number}")
    assert (said["frame"], said["shape"]) == (7, [64, 80])
    assert said["peaks"] == {"fs": [5.0], "ss": [5.0]}
    pooled = np.frombuffer(page.ask(f"/frames/{number}/pooled")[1], "<u2")
    assert pooled.tolist() == [16] * 320
    assert page.ask(f"/frames/{number}/62/70/100")[1] == np.ones(20, "<u2").tobytes()
    assert page.ask(f"/frames/{number}/9999/0/100") == (200, b"")
    assert np.all(np.frombuffer(page.ask("/powder/hit")[1], "<f4") == 1.0)
    assert page.ask("/frames/999/pooled")[0] == 404
    assert page.ask("/frames/-1/pooled")[0] == 404
    assert page.ask("/powder/lost")[0] == 404


def test_not_ready_while_a_child_is_not_at_work_and_says_which(page: Page) -> None:
    assert page.ask("/readyz")[0] == 200
    page.state["children"] = [child("receiver"), child("worker", ready=False)]
    status, body = page.ask("/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "down": ["worker"]})
    assert page.ask("/healthz")[0] == 200
    # A reader that has read everything is done, not down.
    page.state["children"] = [child("reader", alive=False, ready=False, done=True)]
    assert page.ask("/readyz")[0] == 200


def test_a_supervisor_that_hangs_is_not_healthy(page: Page) -> None:
    page.state["t_monotonic_s"] = time.monotonic() - 2 * HUNG_S
    assert page.ask("/healthz")[0] == 503


@pytest.mark.parametrize("path", ["/", "/state.json", "/metrics", "/frames/1"])
def test_nothing_can_be_written(page: Page, path: str) -> None:
    assert page.ask(path, "POST")[0] == 405
    assert page.ask(path, "PUT")[0] == 405


def with_token(**others: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **others}


def test_the_token_changes_what_it_asks_for(page: Page) -> None:
    wish = b'{"threshold": 0.95}'
    origin = {"Origin": f"http://{page.address}"}
    for headers in (with_token(), with_token(**origin)):
        status, body = page.ask("/control", "POST", wish, **headers)
        assert status == 200
        assert json.loads(body)["threshold"] == 0.95
    assert len(page.control.latest()) == 2
    assert page.json("/state.json")["can_change"] is True


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (401, {"Authorization": "Bearer wrong"}, b'{"threshold": 0.5}'),
        (403, {"Origin": "http://elsewhere.example"}, b'{"threshold": 0.5}'),
        (403, {"Origin": "null"}, b'{"threshold": 0.5}'),
        (415, {"Content-Type": "text/plain"}, b'{"threshold": 0.5}'),
        (413, {}, b" " * 5000),
        (400, {}, b'{"threshold": 7}'),
    ],
)
def test_other_wishes_are_refused(
    page: Page, status: int, headers: dict[str, str], body: bytes
) -> None:
    assert page.ask("/control", "POST", body, **with_token(**headers))[0] == status
    assert page.control.latest() == []


def test_a_name_that_was_rebound_to_this_machine_is_not_answered(page: Page) -> None:
    port = page.address.rpartition(":")[2]
    assert page.ask("/state.json", Host=f"localhost:{port}")[0] == 200
    for path in ("/state.json", "/metrics", "/"):
        assert page.ask(path, Host=f"elsewhere.example:{port}")[0] == 400


def test_files_are_served_by_name_alone(page: Page) -> None:
    for path in ("/page/index.html", "/../page_state.py", "/%2e%2e/page_state.py", "/http.py"):
        assert page.ask(path)[0] == 404


@pytest.mark.parametrize("bind", ["8080", "localhost:", "127.0.0.1:port"])
def test_a_malformed_address_is_said(bind: str, page: Page) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"), serve(bind, page.shown):
        pass


def test_a_taken_port_is_said_at_once(page: Page) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="give another with --http"):
            with serve(bind, page.shown):
                pass
