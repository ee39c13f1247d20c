"""A real browser without a screen, steered over WebDriver by Chromium's own `chromedriver`.

One rule: it sees the page as people do: what is asked of it is a place to go, a script to run, a
picture to take. Protocol: W3C WebDriver; started with an empty profile and no network of its own.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any, Self

from hitfinder import HitfinderError

START_S, ANSWER_S, STOP_S = 60.0, 60.0, 20.0
LOOK_S = 0.1
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--password-store=basic",
)


class BrowserError(HitfinderError):
    """There is no Chromium, or it did not do what it was asked."""


def is_installed() -> bool:
    """Say whether there is a browser to steer."""
    return all(shutil.which(name) for name in ("chromium", "chromedriver"))


class Browser:
    """A Chromium of its own, as a context manager.

    Args:
        width, height: of what it shows, CSS pixels.
        is_phone: a touch screen with a narrow page.

    Raises:
        BrowserError: it is not installed, or does not start.
    """

    def __init__(self, width: int = 1440, height: int = 1000, *, is_phone: bool = False) -> None:
        if not is_installed():
            raise BrowserError("needs chromium and chromedriver; e.g. apt install chromium-driver")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._url = f"http://127.0.0.1:{port}"
        self._session = ""
        options: dict[str, Any] = {
            "args": [*OPTIONS, f"--user-data-dir={self._profile.name}"],
        }
        if is_phone:
            metrics = {"width": width, "height": height, "pixelRatio": 2.0, "touch": True}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        else:
            options["args"].append(f"--window-size={width},{height}")
        try:
            self._start({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def go(self, url: str) -> None:
        """Open a page."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script, the body of a function, and return what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, what: str, within_s: float = 30.0) -> Any:
        """Return what a script returns as soon as that is true.

        Raises:
            BrowserError: it never was; names `what`.
        """
        deadline = time.monotonic() + within_s
        while not (found := self.run(script)):
            if time.monotonic() > deadline:
                raise BrowserError(f"not within {within_s:.0f} s: {what}")
            time.sleep(LOOK_S)
        return found

    def keys(self, text: str) -> None:
        """Press keys, one after the other."""
        strokes = [{"type": kind, "value": k} for k in text for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": strokes}]
        self._ask("POST", "/actions", {"actions": actions})

    def complaints(self) -> list[str]:
        """Return the errors that the page wrote to the console since the last call."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] == "SEVERE"]

    def picture(self) -> bytes:
        """Return what is shown, as PNG."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def close(self) -> None:
        """End the browser and forget its profile."""
        try:
            if self._session:
                self._ask("DELETE", "")
        except (BrowserError, OSError):
            pass  # it is gone already
        self._driver.terminate()
        self._driver.wait(STOP_S)
        self._profile.cleanup()

    # ------------------------------------------------------------------------------------

    def _start(self, capabilities: dict[str, Any]) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                self._send("GET", "/status", None)
                break
            except OSError as error:
                if time.monotonic() > deadline or self._driver.poll() is not None:
                    raise BrowserError(f"chromedriver did not start: {error}") from error
                time.sleep(LOOK_S)
        wanted = {"capabilities": {"alwaysMatch": capabilities}}
        self._session = self._send("POST", "/session", wanted)["sessionId"]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._send(method, f"/session/{self._session}{path}", body)

    def _send(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            said = json.loads(error.read() or b"{}").get("value", {})
            raise BrowserError(f"{path}: {said.get('message', error)}") from error
