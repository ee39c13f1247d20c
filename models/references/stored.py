"""Weights of references: one safetensors file each and beside it a JSON card.

One rule: as for the gate's weights, nothing is used that the card's sha256 does not vouch for,
and loading never runs code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from hitfinder.models.errors import ModelError
from hitfinder.models.weights import card_path

FORMAT = "hitfinder-reference-1"


def weights_path(folder: Path, name: str) -> Path:
    """Return where a reference's weights lie."""
    return folder / f"{name}.safetensors"


def is_stored(folder: Path, name: str) -> bool:
    """Return whether a folder holds a reference's weights."""
    return weights_path(folder, name).is_file()


def save(folder: Path, name: str, net: torch.nn.Module, card: dict[str, Any]) -> Path:
    """Write a network and its card; returns the weights' path."""
    arrays = {k: t.detach().cpu().contiguous() for k, t in net.state_dict().items()}
    packed = safetensors.torch.save(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    path = weights_path(folder, name)
    path.write_bytes(packed)
    whole = {"format": FORMAT, "name": name, "sha256": hashlib.sha256(packed).hexdigest(), **card}
    card_path(path).write_text(json.dumps(whole, indent=2) + "\n")
    return path


def shape_of(card: dict[str, Any]) -> tuple[int, int]:
    """Return the shape (ss, fs) of the frames that a reference was trained on."""
    n_ss, n_fs = card["shape"]
    return int(n_ss), int(n_fs)


def fill(net: torch.nn.Module, arrays: dict[str, torch.Tensor], name: str) -> None:
    """Put arrays into a network and make it ready to score.

    Raises:
        ModelError: they are not those of this network.
    """
    try:
        net.load_state_dict(arrays)
    except RuntimeError as err:
        raise ModelError(f"{name}: arrays are not those of this network: {err}") from err
    net.eval()


def load(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a reference's arrays and card.

    Raises:
        ModelError: a file is missing, no safetensors, of another format, or not the card's.
    """
    path = weights_path(folder, name)
    try:
        packed, card = path.read_bytes(), json.loads(card_path(path).read_text())
    except (OSError, ValueError) as err:
        raise ModelError(
            f"reference {name}: {err}; train it: python -m hitfinder.workers.train_references"
        ) from err
    stated = card if isinstance(card, dict) else {}
    if stated.get("format") != FORMAT:
        raise ModelError(f"{path.name}: format {stated.get('format')!r}; expected {FORMAT!r}")
    if hashlib.sha256(packed).hexdigest() != stated.get("sha256"):
        raise ModelError(f"{path.name}: is not what its card describes; restore both")
    try:
        return safetensors.torch.load(packed), stated
    except safetensors.SafetensorError as err:
        raise ModelError(f"{path.name}: not a safetensors file ({err})") from err
