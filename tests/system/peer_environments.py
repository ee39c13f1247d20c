"""Environments of foreign programs, each below our own, made once for its requirements; and
packages that only tests import, which are too large for everybody's environment.

`python -m tests.system.peer_environments` makes all that are missing.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

PEERS = {
    "eiger-simulator": ("eiger-simulator==0.5.1",),
    "nxmx": ("nxmx==0.0.8", "hdf5plugin>=5"),
    "fastcs-eiger": ("fastcs-eiger==0.4.0",),
}
PACKAGES = {"triton": ("triton==3.9.0",)}
INSTALL_TIMEOUT_S = 540


def python_of(name: str) -> Path:
    """Return the Python of a peer's environment, once it is there.

    Raises:
        RuntimeError: pip could not install it.
    """

    def make(folder: Path) -> None:
        venv.create(folder, symlinks=True)
        # With our pip, so that the peer's environment needs none.
        _pip("--python", str(folder / "bin" / "python"), "install", *PEERS[name])

    return _made(name, PEERS[name], make) / "bin" / "python"


def packages(name: str) -> Path:
    """Return the folder that holds a package, once it is there.

    Raises:
        RuntimeError: pip could not install it.
    """

    def make(folder: Path) -> None:
        _pip("install", "--no-deps", "--target", str(folder), *PACKAGES[name])

    return _made(name, PACKAGES[name], make)


def _made(name: str, requirements: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """Return a folder, made anew unless it was made for these requirements."""
    folder = Path(sys.prefix) / "peers" / name
    stamp, wanted = folder / "requirements.txt", "\n".join(requirements) + "\n"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            stamp.write_text(wanted)
    return folder


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"pip {' '.join(arguments)}:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    for peer in PEERS:
        python_of(peer)
    for package in PACKAGES:
        packages(package)
