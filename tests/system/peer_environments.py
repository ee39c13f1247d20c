"""Environments of foreign programs, each below our own, made once for its requirements.

`python -m tests.system.peer_environments` makes all that are missing.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PEERS = {
    "eiger-simulator": ("eiger-simulator==0.5.1",),
    "nxmx": ("nxmx==0.0.8", "hdf5plugin>=5"),
    "fastcs-eiger": ("fastcs-eiger==0.4.0",),
}
INSTALL_TIMEOUT_S = 540


def python_of(name: str) -> Path:
    """Return the Python of a peer's environment, once it is there.

    Raises:
        RuntimeError: pip could not install it.
    """
    requirements = PEERS[name]
    folder = Path(sys.prefix) / "peers" / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    folder.parent.mkdir(exist_ok=True)
    wanted = "\n".join(requirements) + "\n"
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, symlinks=True)
            _pip_install(python, requirements)
            stamp.write_text(wanted)
    return python


def _pip_install(python: Path, requirements: tuple[str, ...]) -> None:
    """Install with our pip, so that the peer's environment needs none."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", *requirements],
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode:
        wanted = " ".join(requirements)
        raise RuntimeError(f"pip could not install {wanted}:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    for peer in PEERS:
        python_of(peer)
