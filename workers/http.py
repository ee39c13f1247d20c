"""The status page: a face to look at and to scrape, never to change anything.

`/` for people, `/metrics` for Prometheus (text format 0.0.4). `/healthz` answers as long as there
is a daemon to restart things; `/readyz` refuses (503) while a child is down, and names it. It
binds to loopback unless told otherwise.
"""

from __future__ import annotations

import html
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hitfinder.workers.config import ConfigError

log = logging.getLogger(__name__)

STOP_S = 5.0


class StateCollector(Collector):
    """The daemon's state as Prometheus metric families, read anew at each scrape."""

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield the families; names carry their units."""
        state = self._state()
        frames = CounterMetricFamily(
            "hitfinder_frames", "Frames with a verdict.", labels=["outcome"]
        )
        for outcome, n in state["counts"].items():
            frames.add_metric([outcome], n)
        yield frames
        for name, help_text, key in (
            ("hitfinder_messages", "Messages received.", "n_messages"),
            ("hitfinder_received_bytes", "Bytes received.", "n_bytes"),
            ("hitfinder_malformed_messages", "Messages refused.", "n_malformed"),
            ("hitfinder_series", "Series closed.", "n_series_closed"),
        ):
            yield CounterMetricFamily(name, help_text, value=state[key])
        for name, help_text, key in (
            ("hitfinder_ring_slots", "Slots of the ring.", "ring_slots"),
            ("hitfinder_ring_slots_used", "Slots that hold a frame.", "ring_slots_used"),
            ("hitfinder_hot_pixels", "Pixels found hot, latest series.", "n_hot_pixels"),
            ("hitfinder_uptime_seconds", "Since the daemon started.", "uptime_s"),
        ):
            yield GaugeMetricFamily(name, help_text, value=state[key])
        latency = GaugeMetricFamily(
            "hitfinder_latency_seconds", "Reception to publication.", labels=["quantile"]
        )
        for quantile, key in (("0.5", "latency_p50_s"), ("0.99", "latency_p99_s")):
            if state[key] is not None:
                latency.add_metric([quantile], state[key])
        yield latency
        yield from _posteriors(state["series_open"])
        starts = CounterMetricFamily(
            "hitfinder_child_starts", "Starts of each child.", labels=["child", "index"]
        )
        for i, child in enumerate(state["children"]):
            starts.add_metric([child["name"], str(i)], child["starts"])
        yield starts


def _posteriors(series_open: list[dict[str, Any]]) -> Iterator[Metric]:
    """Yield what the frames of each open series say of energy and camera length."""
    for name, help_text, key in (
        ("photon_energy_eV", "Photon energy from the pixels.", "photon_energy_eV"),
        ("photon_energy_sigma_eV", "Its standard deviation.", "photon_energy_sigma_eV"),
        ("clen_meters", "Camera length from the pixels.", "clen_m"),
        ("clen_sigma_meters", "Its standard deviation.", "clen_sigma_m"),
        ("posterior_frames", "Frames in these.", "n_frames"),
        ("header_mismatch", "1 if the header contradicts them.", "header_mismatch"),
    ):
        family = GaugeMetricFamily(f"hitfinder_series_{name}", help_text, labels=["series"])
        for series in series_open:
            said = series["posterior"]
            if said is not None and said[key] is not None:
                family.add_metric([str(series["series"])], float(said[key]))
        yield family


def page(state: dict[str, Any]) -> str:
    """Return the daemon's state as a page that refreshes itself."""
    pretty = html.escape(json.dumps(state, indent=2))
    counts = " &middot; ".join(f"{n} {name}" for name, n in state["counts"].items())
    return (
        "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2>"
        "<title>hitfinder-stream</title>"
        "<body style='font:16px system-ui;margin:2em;max-width:60em'>"
        f"<h1>hitfinder-stream</h1><p><b>{counts}</b></p><pre>{pretty}</pre>"
    )


def application(state: Callable[[], dict[str, Any]]) -> Starlette:
    """Return the web application over a function that tells the daemon's state."""

    def show(request: Request) -> HTMLResponse:
        return HTMLResponse(page(state()))

    registry = CollectorRegistry()
    registry.register(StateCollector(state))

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    def readyz(request: Request) -> JSONResponse:
        down = [child["name"] for child in state()["children"] if not child["alive"]]
        return JSONResponse({"ready": not down, "down": down}, status_code=503 if down else 200)

    return Starlette(
        routes=[
            Route("/", show),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


@contextmanager
def serve_status(bind: str, state: Callable[[], dict[str, Any]]) -> Iterator[str]:
    """Serve the page from a thread while the daemon runs; yields HOST:PORT as bound.

    Raises:
        ConfigError: the address is malformed or taken.
    """
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--http {bind!r}: expected HOST:PORT")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"status page {bind}: {error}; is another daemon running? give another with --http"
        ) from error
    settings = uvicorn.Config(application(state), log_level="warning", lifespan="off")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listener],), name="http", daemon=True)
    thread.start()
    try:
        yield f"{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STOP_S)
        listener.close()
