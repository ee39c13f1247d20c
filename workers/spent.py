"""What the processes of a daemon have spent: core time, page faults, turns on a core.

One rule: it is read from /proc for the whole process tree (proc(5)), so that it is what the
kernel says of any daemon, not what the daemon says of itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

# Fields of /proc/PID/stat after the command's name: parent; minor faults and user and system time
# of the process, each followed or preceded by that of its reaped children.
PARENT, FAULTS, USER, SYSTEM = 1, (7, 8), (11, 13), (12, 14)


@dataclass(frozen=True, slots=True)
class Spent:
    """What one job has spent so far.

    Attributes:
        user_s, system_s: core seconds in the program and in the kernel.
        minor_faults: pages that were given memory or mapped.
        switches: times that its threads left a core, waiting or not.
    """

    user_s: float = 0.0
    system_s: float = 0.0
    minor_faults: int = 0
    switches: int = 0

    @property
    def core_s(self) -> float:
        """Core seconds in all."""
        return self.user_s + self.system_s

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def spent_by_job(root: int) -> dict[str, Spent]:
    """Return what a process and its descendants have spent, by job; the root is `supervisor`.

    A process that died is in its parent's figures but for its switches, so differences hold
    across restarts.
    """
    parents: dict[int, int] = {}
    spent: dict[int, Spent] = {}
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            switches = _switches(folder)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between listing and reading
        pid = int(folder.name)
        parents[pid] = int(stat[PARENT])
        user, system, faults = (sum(int(stat[i]) for i in at) for at in (USER, SYSTEM, FAULTS))
        spent[pid] = Spent(tick_s * user, tick_s * system, faults, switches)
    jobs: dict[str, Spent] = {}
    for pid, one in spent.items():
        if _descends(pid, root, parents):
            job = "supervisor" if pid == root else job_of(pid)
            jobs[job] = jobs.get(job, Spent()) + one
    return jobs


def _switches(folder: Path) -> int:
    n = 0
    for thread in (folder / "task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.endswith("ctxt_switches"):
                n += int(value)
    return n


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root:
        if pid not in parents:
            return False
        pid = parents[pid]
    return True


def job_of(pid: int) -> str:
    """Return what a child was started as: `... -m hitfinder.workers.child NAME ROLE SESSION`."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return "ended"
    at = words.index("hitfinder.workers.child") if "hitfinder.workers.child" in words else -1
    return words[at + 1] if at >= 0 else "other"
