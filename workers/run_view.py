"""What `run` and `replay` show at a terminal: some lines that are renewed, the log above them.

One rule: nobody waits for the terminal but its own threads: the daemon's loop leaves its state,
and whoever writes to stderr, this process or a child, writes into a pipe. Without a terminal, or
on one that cannot move its cursor, there are plain log lines alone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

EVERY_S = 1.0
STOP_S = 2.0
BAR = 30
JUDGED = ("hit", "miss")
COLOUR = {"page": "bold red", "look": "yellow"}


class RunView:
    """The view, as a context manager around all that writes to stderr."""

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stderr: int | None = None
        self._console: Console | None = None

    def start(self) -> None:
        """Show it, from now on."""
        if self._console is not None:
            self._run(self._show, self._console)

    def update(self, state: dict[str, Any]) -> None:
        """Take the daemon's state; costs an assignment."""
        self._state = state

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal:
            self._stderr = os.dup(2)
            terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
            self._console = Console(file=terminal, force_terminal=True)
            reads, writes = os.pipe()
            os.dup2(writes, 2)  # children that are started now write there, too
            os.close(writes)
            self._run(self._pass_on, self._console, reads)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stderr is None:
            return
        self._over.set()
        os.dup2(self._stderr, 2)  # the pipe's last writer is gone, and so is its reader soon
        os.close(self._stderr)
        for thread in reversed(self._threads):
            thread.join(STOP_S)

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name="terminal", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _show(self, console: Console) -> None:
        with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
            is_last = False
            while not is_last:
                is_last = self._over.wait(EVERY_S)
                if self._state is not None:
                    live.update(view_of(self._state), refresh=True)

    @staticmethod
    def _pass_on(console: Console, reads: int) -> None:
        """Print what is written to stderr above the view, a line at a time."""
        with os.fdopen(reads, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                console.print(line.rstrip("\n"), markup=False, highlight=False, soft_wrap=True)


def view_of(state: Mapping[str, Any]) -> RenderableType:
    """Return what a person at a terminal should see of the daemon's state."""
    rates, counts = state["hit_rate"], state["counts"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("hit rate", Text(f"{_rate(rates['minute'])} last minute", "bold"))
    table.add_row("", f"{_rate(rates['second'])} last second, {_rate(rates['series'])} series")
    table.add_row(
        "flow",
        f"{state['frames_per_s']:.0f} frames/s, wire {_mb(state['wire_bytes_per_s'])}, disk "
        f"{_mb(state['stored_bytes_per_s'])}, latency {_ms(state['latency_p50_s'])} / "
        f"{_ms(state['latency_p99_s'])}",
    )
    lost = {name: n for name, n in counts.items() if name not in JUDGED}
    text = ", ".join(f"{n} {name}" for name, n in lost.items())
    table.add_row("not judged", Text(text, "bold red" if any(lost.values()) else ""))
    used, slots = state["ring_slots_used"], state["ring_slots"]
    table.add_row("ring", _bar(used, slots, f"{used} of {slots} slots"))
    done = sum(counts.values())
    if state["source_total"] > 0:
        total, rate_Hz = state["source_total"], state["frames_per_s"]
        left = f", {(total - done) / rate_Hz:.0f} s left" if 0 < rate_Hz and done < total else ""
        table.add_row("replay", _bar(done, total, f"{done} of {total} frames{left}"))
    for series in state["series_open"]:
        n, of = sum(series["counts"].values()), series["announced"]
        said = f"{n} of {of or 'an unknown number of'} frames, {series['counts']['hit']} hits"
        table.add_row(f"series {series['series']}", said)
    if (last := state["last_series"]) is not None:
        said = f"{last['announced']} frames, {last['hit']} hits, {last['reason']}"
        table.add_row("last series", f"{last['series']}: {said}")
    down = [c["name"] for c in state["children"] if not (c["ready"] or c["done"])]
    if down:
        table.add_row("starting", Text(", ".join(down), "yellow"))
    alarms = [
        Text(f"{alarm['name']}: {alarm['text']}. {alarm['advice']}", COLOUR[alarm["urgency"]])
        for alarm in state["alarms"]
    ]
    return Group("", table, *(alarms or [Text("no alarm", "green")]))


def _bar(n: int, of: int, text: str) -> RenderableType:
    both = Table.grid(padding=(0, 1))
    both.add_row(ProgressBar(total=max(of, 1), completed=n, width=BAR), text)
    return both


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None or rate["value"] is None:
        return "-"
    return f"{rate['value']:.1%} [{100 * rate['low']:.1f}-{100 * rate['high']:.1f}]"


def _mb(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:.1f} MB/s"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"
