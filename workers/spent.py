"""What the processes of a daemon have spent: core time, page faults, turns on a core."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from hitfinder.workers.processes import PROC, jobs_of, stat_fields

# Fields of /proc/PID/stat after the command's name: minor faults and user and system time of the
# process, each followed or preceded by that of its reaped children.
FAULTS, USER, SYSTEM = (7, 8), (11, 13), (12, 14)


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
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    jobs: dict[str, Spent] = {}
    for pid, job in jobs_of(root).items():
        try:
            stat, switches = stat_fields(pid), _switches(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended since it was listed
        user, system, faults = (sum(int(stat[i]) for i in at) for at in (USER, SYSTEM, FAULTS))
        one = Spent(tick_s * user, tick_s * system, faults, switches)
        jobs[job] = jobs.get(job, Spent()) + one
    return jobs


def _switches(pid: int) -> int:
    n = 0
    for thread in (PROC / str(pid) / "task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.endswith("ctxt_switches"):
                n += int(value)
    return n
