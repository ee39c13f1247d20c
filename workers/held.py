"""What the processes of a daemon hold: memory and file handles."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hitfinder.workers.processes import PROC, jobs_of

KIB = 1024
ROLLUP = {"Pss": "pss_bytes", "Pss_Anon": "private_bytes", "Pss_Shmem": "shared_bytes"}


@dataclass(frozen=True, slots=True)
class Held:
    """What one job holds.

    Attributes:
        pss_bytes: resident memory, what several processes share divided among them; with pages of
            program files, whose share depends on who else on the machine runs the same.
        private_bytes: of it the program's own data.
        shared_bytes: of it shared memory, the ring.
        handles: open files, sockets and pipes.
        threads: running and waiting.
    """

    pss_bytes: int = 0
    private_bytes: int = 0
    shared_bytes: int = 0
    handles: int = 0
    threads: int = 0

    def __add__(self, other: Held) -> Held:
        return Held(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def held_by_job(root: int) -> dict[str, Held]:
    """Return what a process and its descendants hold, by job; the root is `supervisor`."""
    jobs: dict[str, Held] = {}
    for pid, job in jobs_of(root).items():
        folder, sizes = PROC / str(pid), dict.fromkeys(ROLLUP.values(), 0)
        try:
            for line in (folder / "smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ROLLUP:
                    sizes[ROLLUP[name]] = KIB * int(value.split()[0])
            counts = [len(list((folder / of).iterdir())) for of in ("fd", "task")]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended since it was listed
        jobs[job] = jobs.get(job, Held()) + Held(**sizes, handles=counts[0], threads=counts[1])
    return jobs
