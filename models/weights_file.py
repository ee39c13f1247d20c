"""The gate's weights as a file: where the shipped one lies, and how one is read."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from hitfinder.models import vouched
from hitfinder.models.vouched import Vouched

FORMAT = "hitfinder-gate-2"
SHIPPED = "gate_v2.safetensors"
MAX_BYTES = 64 * 2**20
"""No weights of this program come near it; a larger file is not one of ours."""


def shipped_path() -> Path:
    """Return the weights that come with the program."""
    return Path(str(files("hitfinder.models") / "weights" / SHIPPED))


def read(path: Path | None = None) -> Vouched:
    """Read the arrays of a weights file and check them against their card.

    Args:
        path: a `.safetensors` file with its card beside it; None for the shipped one.

    Raises:
        ModelError: a file is missing or too large, or the sha256 differs from the card's.
    """
    return vouched.read(
        path or shipped_path(), FORMAT, MAX_BYTES, "name a weights file or train one"
    )
