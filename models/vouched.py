"""Arrays on disk that a card vouches for: a safetensors file and beside it a JSON card.

One rule: nothing is used whose sha256 is not the card's, and loading never runs code: safetensors
holds arrays only. The gate's weights and the references' are such files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from hitfinder.models.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Vouched:
    """A file's arrays by name, its sha256 in hex, and its card as read."""

    arrays: dict[str, NDArray[Any]]
    sha256: str
    card: dict[str, Any]


def card_path(arrays: Path) -> Path:
    """Return where the card of a file of arrays lies."""
    return arrays.with_suffix(".json")


def write(
    path: Path, arrays: Mapping[str, NDArray[Any]], form: str, card: Mapping[str, Any]
) -> Path:
    """Write arrays and their card, its folder too; return the arrays' path.

    Args:
        form: name of the layout, which a reader asks for.
        card: what the card says beyond format and sha256.
    """
    packed = safetensors.numpy.save({k: np.ascontiguousarray(a) for k, a in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    whole = {"format": form, "sha256": hashlib.sha256(packed).hexdigest(), **card}
    card_path(path).write_text(json.dumps(whole, indent=2) + "\n")
    return path


def read(path: Path, form: str, most_bytes: int, advice: str) -> Vouched:
    """Read arrays and check them against their card.

    Args:
        form: the layout expected.
        most_bytes: a larger file is not read.
        advice: what to do where there is no such file.

    Raises:
        ModelError: a file is missing or too large, the sha256 or the format is not the card's,
            or it is no safetensors file.
    """
    card = _read_card(card_path(path), advice)
    try:
        if path.stat().st_size > most_bytes:
            raise ModelError(f"{path} has more than {most_bytes} bytes; it is not one of ours")
        packed = path.read_bytes()
    except OSError as err:
        raise ModelError(f"{path}: {err.strerror}; {advice}") from err
    digest = hashlib.sha256(packed).hexdigest()
    if digest != card.get("sha256"):
        raise ModelError(
            f"{path.name}: sha256 is {digest[:12]}..., its card says "
            f"{str(card.get('sha256'))[:12]}...; the file was changed or mixed up, restore both"
        )
    if card.get("format") != form:
        raise ModelError(f"{path.name}: format {card.get('format')!r}; expected {form!r}")
    try:
        return Vouched(safetensors.numpy.load(packed), digest, card)
    except safetensors.SafetensorError as err:
        raise ModelError(f"{path.name}: not a safetensors file ({err})") from err


def _read_card(path: Path, advice: str) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
    except OSError as err:
        raise ModelError(
            f"model card {path}: {err.strerror}; it lies beside the weights; {advice}"
        ) from err
    except ValueError as err:
        raise ModelError(f"model card {path} is not JSON: {err}") from err
    if not isinstance(card, dict):
        raise ModelError(f"model card {path}: expected a JSON object")
    return card
