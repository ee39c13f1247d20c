"""Weights of references: one safetensors file each and beside it a JSON card.

One rule: as for the gate's weights, nothing is used that the card's sha256 does not vouch for,
and loading never runs code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hitfinder.models import vouched
from hitfinder.models.errors import ModelError

FORMAT = "hitfinder-reference-1"
MAX_BYTES = 2**30
"""Two linear layers over all pixels of a 16M detector."""


def weights_path(folder: Path, name: str) -> Path:
    """Return where a reference's weights lie."""
    return folder / f"{name}.safetensors"


def is_stored(folder: Path, name: str) -> bool:
    """Return whether a folder holds a reference's weights."""
    return weights_path(folder, name).is_file()


def save(folder: Path, name: str, net: torch.nn.Module, card: dict[str, Any]) -> Path:
    """Write a network and its card; returns the weights' path."""
    arrays = {k: t.detach().cpu().numpy() for k, t in net.state_dict().items()}
    return vouched.write(weights_path(folder, name), arrays, FORMAT, {"name": name, **card})


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
    found = vouched.read(
        weights_path(folder, name),
        FORMAT,
        MAX_BYTES,
        f"train reference {name}: python -m hitfinder.workers.train_references",
    )
    return {k: torch.from_numpy(a) for k, a in found.arrays.items()}, found.card
