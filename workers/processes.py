"""The processes of a daemon, by the job that each was started for.

One rule: the tree is read from /proc (proc(5)), so that it is what the kernel says of any daemon,
not what the daemon says of itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
ROOT_JOB = "supervisor"
# Where the parent stands in /proc/PID/stat after the command's name.
PARENT = 1
# Faults that a disk had to answer, of the process and of its reaped children.
MAJOR_FAULTS, REAPED_MAJOR_FAULTS = 9, 10


def stat_fields(pid: int) -> list[str]:
    """Return /proc/PID/stat from the state on, that is without PID and the command's name.

    Raises:
        OSError: no such process any more.
    """
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def major_faults(root: int, children: Iterable[int]) -> int:
    """Return how often a process, its children and those it buried waited for a page of disk."""
    own = stat_fields(root)
    n = int(own[MAJOR_FAULTS]) + int(own[REAPED_MAJOR_FAULTS])
    for pid in children:
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended since it was listed
            n += int(stat_fields(pid)[MAJOR_FAULTS])
    return n


def jobs_of(root: int) -> dict[int, str]:
    """Return PID -> job of a process and its living descendants; the root is `supervisor`."""
    parents: dict[int, int] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int(stat_fields(int(folder.name))[PARENT])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended between listing and reading
    family = [pid for pid in parents if _descends(pid, root, parents)]
    return {pid: ROOT_JOB if pid == root else _job_of(pid) for pid in family}


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root:
        if pid not in parents:
            return False
        pid = parents[pid]
    return True


def _job_of(pid: int) -> str:
    """Return what a child was started as: `... -m hitfinder.workers.child NAME ROLE SESSION`."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return "ended"
    at = words.index("hitfinder.workers.child") if "hitfinder.workers.child" in words else -1
    return words[at + 1] if at >= 0 else "other"
