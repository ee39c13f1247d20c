"""What /proc says of a daemon's processes is what the kernel says elsewhere."""

import os
import resource
import subprocess
import sys

from hitfinder.workers.processes import major_faults


def test_major_faults_are_those_of_the_process_its_children_and_its_dead() -> None:
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    own, dead = (
        resource.getrusage(who).ru_majflt
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    assert major_faults(os.getpid(), []) == own + dead
    assert major_faults(os.getpid(), [os.getpid(), 1 << 22]) == 2 * own + dead
