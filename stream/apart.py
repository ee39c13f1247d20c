"""Work on files that may be damaged, in a process of its own that can be killed.

One rule: HDF5 can loop for ever over bytes that cannot be, and nothing in the process that called
it can end that; so whoever must not hang lets a child do it, and waits no longer than the files'
size can explain.
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hitfinder.stream.errors import StoreError

# What reading takes at the very most: a start, and the slowest disk that anybody would use.
PATIENCE_S, SLOWEST_BYTES_PER_S = 20.0, 10_000_000


def apart(folder: Path, work: Callable[[], Sequence[str]]) -> list[str]:
    """Return the sentences of `work`, done in a forked child.

    Args:
        folder: whose files it reads or writes; their size bounds its time.
        work: what it prints goes where ours goes, what it changes in memory is lost.

    Raises:
        StoreError: as `work` does; or it did not come back in time, or died of it.
    """
    n_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    limit_s = PATIENCE_S + n_bytes / SLOWEST_BYTES_PER_S
    ours, childs = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_the_child(work, childs, limit_s)
    os.close(childs)
    said, is_late = _read(ours, limit_s)
    os.close(ours)
    if is_late:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if is_late:
        raise StoreError(
            f"{folder.name}: HDF5 has not come back from a file within {limit_s:.0f} s; it is "
            "damaged: move the folder away"
        )
    if status != 0:
        raise StoreError(f"{folder.name}: its files ended a process ({status}); move it away")
    what, sentences = json.loads(said)
    if what == "error":
        raise StoreError(sentences[0])
    return [str(sentence) for sentence in sentences]


def _be_the_child(work: Callable[[], Sequence[str]], pipe: int, limit_s: float) -> NoReturn:
    """Say what came of the work, and leave without the parent's farewells."""
    status = 1
    try:
        # Who waits for us may be killed, and a loop has no end of its own.
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit_s), math.ceil(limit_s) + 1))
        try:
            said = ["done", list(work())]
        except StoreError as error:
            said = ["error", [str(error)]]
        with os.fdopen(pipe, "w") as out:
            json.dump(said, out)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _read(pipe: int, limit_s: float) -> tuple[bytes, bool]:
    """Return all that the child wrote, and whether it was silent for too long."""
    parts: list[bytes] = []
    while select.select([pipe], [], [], limit_s)[0]:
        part = os.read(pipe, 1 << 16)
        if not part:
            return b"".join(parts), False
        parts.append(part)
    return b"", True
