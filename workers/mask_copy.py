"""`python -m hitfinder.workers.mask_copy FILE FOLDER`: an operator's mask as the daemon keeps it.

One rule: a file that comes while frames do is opened by a process that may hang or die of it, as
HDF5 can of a damaged one. What it leaves is a plain array under its own sha256, which it prints.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from hitfinder.models.errors import GeometryError
from hitfinder.models.masks import mask_sha256, read_mask_file
from hitfinder.stream.controls import mask_path
from hitfinder.stream.swmr import replace_file

# The largest detector has 16 million pixels; a mask of 64-bit numbers and what reading it takes.
MOST_BYTES = 4 << 30
READ_S = 60.0


def copy_mask(file: str, folder: Path) -> str:
    """Have a mask copied by a process of its own; returns its sha256.

    Raises:
        GeometryError: it is none, or cannot be read in time.
    """
    command = [sys.executable, "-m", "hitfinder.workers.mask_copy", file, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=READ_S)
    except subprocess.TimeoutExpired as error:
        raise GeometryError(f"mask {file}: not read within {READ_S:.0f} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise GeometryError(said[-1] if said else f"mask {file}: reading it died")
    return done.stdout.strip()


def main(file: str, folder: Path) -> int:
    """Copy it; returns the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    try:
        mask = read_mask_file(file)
    except (GeometryError, MemoryError) as error:
        print(str(error) or f"mask {file}: too large", file=sys.stderr)
        return 1
    digest = mask_sha256(mask)

    def write(part: Path) -> None:
        with part.open("wb") as out:
            np.save(out, mask)

    replace_file(mask_path(folder, digest), write)
    print(digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
