"""`run` at a terminal: a view that is renewed, the log above it, and the terminal given back."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from tests.system.daemon import PROGRAM, Detector, wait_for
from tests.system.frames import wire_series

pytestmark = pytest.mark.system

N_FRAMES = 20


class Terminal:
    """A terminal's other end: what was written to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.written = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.written += os.read(self._ours, 65536)
            except OSError:  # nobody has it open any more
                break
        os.close(self._ours)

    @property
    def text(self) -> str:
        """What was written, without what moves the cursor and colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written.decode(errors="replace"))

    def close(self) -> None:
        """Wait for the last words."""
        self._reader.join(20)
        assert not self._reader.is_alive()


def test_a_view_that_is_renewed_and_the_log_above_it(tmp_path: Path) -> None:
    series, terminal = wire_series("v2", 1, N_FRAMES, has_spots=True), Terminal()
    line = [PROGRAM, "run", "--device", "cpu:1", "--http", "127.0.0.1:0"]
    line += ["--results", "tcp://127.0.0.1:*", "--out", str(tmp_path)]
    with Detector() as detector:
        daemon = subprocess.Popen(
            [*line, "--source", detector.endpoint],
            stdin=subprocess.DEVNULL,
            stdout=terminal.theirs,
            stderr=terminal.theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(terminal.theirs)
        try:
            wait_for(lambda: "no alarm" in terminal.text, "the view")
            detector.send(*series.messages[:-1])
            wait_for(lambda: f"{N_FRAMES} of {N_FRAMES} frames" in terminal.text, "the series")
            detector.send(series.end)
            wait_for(lambda: f"last series  1: {N_FRAMES} frames" in terminal.text, "its end")
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(60) == 0
        finally:
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
    terminal.close()
    assert "ready source=" in terminal.text
    last = terminal.text[terminal.text.rindex("hit rate") :]
    assert f"last series  1: {N_FRAMES} frames" in last
    assert f"INFO series 1 closed (ended): {N_FRAMES} frames" in terminal.text
    # It was renewed in its place, and the cursor is shown again.
    assert b"\x1b[1A" in terminal.written
    assert terminal.written.rfind(b"\x1b[?25h") > terminal.written.rfind(b"\x1b[?25l")
