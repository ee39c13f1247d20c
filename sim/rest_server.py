"""SIMPLON over HTTP: uvicorn in a thread, on a socket bound before anybody is told of it.

Its one rule: a small reply leaves in one TCP segment with a `Content-Length`, because detector
clients exist that read a whole reply with one recv (protocol note, section 9). Loopback unless
told otherwise: the interface has no password.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from hitfinder import HitfinderError
from hitfinder.sim.simplon import Simplon

# Clients keep their connections open between commands, for longer than uvicorn's 5 s.
KEEP_ALIVE_s = 600
STOP_TIMEOUT_s = 10
# A pixel mask of a 16M detector in base64 is 97 MB; nothing a client sends is larger.
MAX_BODY_BYTES = 1 << 27
BACKLOG = 64


class RestServer:
    """Serves one `Simplon` until closed.

    Args:
        simplon: who answers.
        host: address to bind.
        port: 0 takes a free one, see `port`.

    Raises:
        HitfinderError: the address cannot be bound.
    """

    def __init__(self, simplon: Simplon, host: str = "127.0.0.1", port: int = 0) -> None:
        self._simplon = simplon
        self._socket = _listen(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        route = Route("/{path:path}", self._answer, methods=["GET", "PUT"])
        config = uvicorn.Config(
            Starlette(routes=[route]),
            http=_OneSegmentProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_s,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="simplon"
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; a trigger that blocks its caller is aborted first."""
        self._simplon.emulator.abort()
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_s)
        self._socket.close()

    async def _answer(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return Response("body too large", 413)
        accept = request.headers.get("accept", "")
        # In a thread: arm may wait for a client, trigger blocks until its images are out.
        reply = await run_in_threadpool(
            self._simplon.answer, request.method, request.url.path, bytes(body), accept
        )
        response = Response(status_code=reply.status)
        response.body = reply.body
        response.raw_headers = [
            (b"Content-Type", reply.media_type.encode()),
            (b"Content-Length", str(len(reply.body)).encode()),
        ]
        return response


class _OneSegmentProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, writing head and body of a reply together."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        gathering = _GatheringTransport(transport, asyncio.get_running_loop())
        super().connection_made(gathering)


class _GatheringTransport(asyncio.Transport):
    """Joins the writes of one turn of the event loop into one."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._waiting: list[bytes] = []

    def write(self, data: Any) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(bytes(data))

    def close(self) -> None:
        self._flush()
        self._inner.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._inner.set_protocol(protocol)

    def abort(self) -> None:
        self._waiting.clear()
        self._inner.abort()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and not self._inner.is_closing():
            self._inner.write(b"".join(waiting))


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket: connections wait in it until the server runs."""
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as reason:
        raise HitfinderError(
            f"cannot serve SIMPLON on {host}:{port}: {reason}; choose a free port"
        ) from reason
