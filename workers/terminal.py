"""What a person at a terminal sees: the ready line, and bars for what takes its time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import track

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
