"""The page and its neighbours: to look at, to scrape, and with the token to change.

`/` for people, `/state.json` what it shows, `/metrics` for Prometheus (text format 0.0.4).
`/healthz` answers as long as the supervisor's loop turns; `/readyz` refuses (503) while a child is
not at work, and names it. `/control` takes changes. It binds to loopback unless told otherwise,
loads nothing from elsewhere, and shows bytes from the wire as text only.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hitfinder.stream.results import Outcome
from hitfinder.workers.config import ConfigError
from hitfinder.workers.control import Control
from hitfinder.workers.frame_samples import SampledFrame
from hitfinder.workers.metrics import StateCollector
from hitfinder.workers.page_state import PageState, frame_json
from hitfinder.workers.refusal import RefusedError

log = logging.getLogger(__name__)

STOP_S = 5.0
# The supervisor's loop turns at least once a second; silent for so long it hangs.
HUNG_S = 30.0
# Requests at a time; beyond, a browser is told to come again.
MOST_REQUESTS = 64
# Side of a square at full resolution, the most that is given at once.
MOST_SIDE_PX = 1024
FILES = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    **{
        name: (name, "text/javascript")
        for name in (
            "page.js",
            "charts.js",
            "colours.js",
            "controls.js",
            "format.js",
            "frame_view.js",
            "pictures.js",
        )
    },
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
MOST_WISH_BYTES = 4096
LOOPBACK = ("127.0.0.1", "localhost")
PIXELS = "application/octet-stream"


def application(page: PageState, host: str) -> Starlette:
    """Return the web application over what the page is told, bound to `host`."""
    # Faint frames are mostly zeros; the lowest level packs them as well as the highest.
    middleware = [Middleware(GZipMiddleware, minimum_size=1000, compresslevel=1)]
    if host in LOOPBACK:
        # A page from elsewhere that rebinds its name to this machine still asks by its name.
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    routes = [*_files(), *_health(page.state), *_live(page), _control(page.control)]
    return Starlette(routes=routes, middleware=middleware)


def _files() -> Iterator[Route]:
    folder = files("hitfinder.workers") / "page"
    for path, (name, kind) in FILES.items():
        body = (folder / name).read_bytes()

        def show(request: Request, body: bytes = body, kind: str = kind) -> Response:
            return Response(body, media_type=kind, headers=HEADERS)

        yield Route(f"/{path}", show)


def _health(state: Callable[[], dict[str, Any]]) -> Iterator[Route]:
    registry = CollectorRegistry()
    registry.register(StateCollector(state))

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def healthz(request: Request) -> JSONResponse:
        silent_s = time.monotonic() - state()["t_monotonic_s"]
        hangs = silent_s > HUNG_S
        said = {"status": "hangs" if hangs else "ok", "silent_s": round(silent_s, 1)}
        return JSONResponse(said, status_code=503 if hangs else 200)

    def readyz(request: Request) -> JSONResponse:
        down = [c["name"] for c in state()["children"] if not (c["ready"] or c["done"])]
        return JSONResponse({"ready": not down, "down": down}, status_code=503 if down else 200)

    yield Route("/metrics", metrics)
    yield Route("/healthz", healthz)
    yield Route("/readyz", readyz)


def _live(page: PageState) -> Iterator[Route]:
    def state(request: Request) -> Response:
        return Response(page.json(), media_type="application/json", headers=HEADERS)

    def of_frame(show: Callable[[Request, SampledFrame], Response]) -> Callable[..., Response]:
        def answer(request: Request) -> Response:
            frame = page.samples.frame(request.path_params["number"])
            if frame is None:
                return PlainTextResponse("this frame is kept no longer", 404)
            return show(request, frame)

        return answer

    @of_frame
    def frame(request: Request, frame: SampledFrame) -> Response:
        body = msgspec.json.encode(frame_json(frame))
        return Response(body, media_type="application/json", headers=HEADERS)

    @of_frame
    def pooled(request: Request, frame: SampledFrame) -> Response:
        body = page.samples.pooled(frame).tobytes()
        return Response(body, media_type=PIXELS, headers=HEADERS)

    @of_frame
    def crop(request: Request, frame: SampledFrame) -> Response:
        at = request.path_params
        side_px = min(at["side"], MOST_SIDE_PX)
        body = page.samples.crop(frame, at["ss"], at["fs"], side_px).tobytes()
        return Response(body, media_type=PIXELS, headers=HEADERS)

    def powder(request: Request) -> Response:
        series, outcome = page.samples.series, request.path_params["outcome"]
        if series is None or outcome not in (Outcome.HIT, Outcome.MISS):
            return PlainTextResponse("there is no such sum", 404)
        body = series.powder[Outcome(outcome)].per_px().tobytes()
        return Response(body, media_type=PIXELS, headers=HEADERS)

    yield Route("/state.json", state)
    yield Route("/frames/{number:int}", frame)
    yield Route("/frames/{number:int}/pooled", pooled)
    yield Route("/frames/{number:int}/{ss:int}/{fs:int}/{side:int}", crop)
    yield Route("/powder/{outcome}", powder)


def _control(control: Control) -> Route:
    """Return where changes are asked for: JSON with the token, from the page or a program."""

    async def change(request: Request) -> Response:
        try:
            # A page from elsewhere that a browser also shows must not use what it holds.
            origin = request.headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
                raise RefusedError(403, f"not from {origin}")
            if request.headers.get("content-type") != "application/json":
                raise RefusedError(415, "expected application/json")
            control.check(request.headers.get("authorization", ""))
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > MOST_WISH_BYTES:
                    raise RefusedError(413, f"expected at most {MOST_WISH_BYTES} bytes")
            said = await run_in_threadpool(control.change, bytes(body))
        except RefusedError as error:
            return PlainTextResponse(str(error), error.status, headers=HEADERS)
        return JSONResponse(said, headers=HEADERS)

    return Route("/control", change, methods=["POST"])


@contextmanager
def serve(bind: str, page: PageState) -> Iterator[str]:
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
    settings = uvicorn.Config(
        application(page, host),
        log_level="warning",
        lifespan="off",
        limit_concurrency=MOST_REQUESTS,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listener],), name="http", daemon=True)
    thread.start()
    try:
        yield f"{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STOP_S)
        listener.close()
