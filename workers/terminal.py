"""What a person at a terminal sees: the ready line, and bars for what takes its time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

T = TypeVar("T")


def say_ready(line: str) -> None:
    """Print the one `ready` line at once, also into a pipe."""
    print(line, flush=True)


def progressed(items: Sequence[T], what: str) -> Iterable[T]:
    """Hand on the items, with a progress bar on a terminal only."""
    console = Console(file=sys.stderr)
    return track(items, what, console=console, disable=not sys.stderr.isatty(), transient=True)


@contextmanager
def live_line() -> Iterator[Callable[[str], None]]:
    """Yield what shows one line of text that changes, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    with Console(file=sys.stderr).status("") as status:
        yield lambda text: status.update(text)


class ReplayProgress:
    """A progress bar over the frames of a replay, on a terminal only."""

    def __init__(self, *, enabled: bool) -> None:
        self._progress = Progress(
            TextColumn("replay"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not (enabled and sys.stderr.isatty()),
        )
        self._task = self._progress.add_task("frames", total=None, note="")

    def update(self, state: dict[str, Any]) -> None:
        """Take the daemon's state, once a second."""
        counts, total = state["counts"], state["source_total"]
        note = f"{counts['hit']} hits"
        if state["n_judges"]:
            note += f", {state['n_judges_up']} of {state['n_judges']} judges"
            note += f" on {state['n_nodes']} nodes"
        if (rate := state["frames_per_s"]) is not None:
            note += f", {rate:.0f} frames/s"
        self._progress.update(
            self._task,
            completed=sum(counts.values()),
            total=total if total > 0 else None,
            note=note,
        )

    def __enter__(self) -> ReplayProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
