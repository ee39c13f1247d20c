"""Where a training stands, on disk: arrays and plain values in one safetensors file.

One rule: a checkpoint is whole or absent. The values stand as JSON in the file's own header, and a
new file takes the old one's name only once it is written; reading one runs no code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from hitfinder.models.errors import ModelError

VALUES = "training"
"""Key of the values in the file's header."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """State of a training.

    Attributes:
        arrays: name -> tensor on the CPU.
        values: JSON-like.
    """

    arrays: dict[str, torch.Tensor]
    values: dict[str, Any]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the arrays whose names begin so, without the prefix."""
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


def write_checkpoint(path: Path, state: Checkpoint) -> None:
    """Replace the checkpoint at `path`."""
    # Tensors that share memory must not: an optimiser's step counters may.
    arrays = {name: tensor.clone().contiguous() for name, tensor in state.arrays.items()}
    packed = safetensors.torch.save(arrays, {VALUES: json.dumps(state.values)})
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(packed)
    os.replace(fresh, path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: it cannot be read, or is none.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {})[VALUES])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"checkpoint {path}: {error}; remove it to train from the start"
        ) from error
    return Checkpoint(arrays, values)
