"""A recording of which HDF5 2.0 never comes back: the reader hangs, and the file is named."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
# An attribute's heap with a size that cannot be, in a file of our own; found by fuzzing.
DAMAGED = Path(__file__).parents[1] / "golden" / "recording_that_hdf5_never_leaves.h5.gz"
PATIENT_FOR_10_S = """
from hitfinder.workers import cli, supervisor
supervisor.READY_TIMEOUT_S = 10.0
cli.main()
"""


def test_a_file_that_cannot_be_opened_to_the_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    path.write_bytes(gzip.decompress(DAMAGED.read_bytes()))
    line = [
        sys.executable,
        "-c",
        PATIENT_FOR_10_S,
        "replay",
        str(path),
        "--out",
        str(tmp_path / "o"),
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=90)
    assert done.returncode != 0
    assert "damaged.h5" in done.stderr
    assert "Traceback" not in done.stderr
