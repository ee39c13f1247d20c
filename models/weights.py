"""The gate's weights on disk: network, calibration and water table in one file with its card.

One rule: what the card does not vouch for is refused (`vouched.py`), and so is a network of
another shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors.numpy

from hitfinder.models import vouched, weights_file
from hitfinder.models.calibration import Calibration, GateMode
from hitfinder.models.errors import ModelError
from hitfinder.models.host_gate import HostGate, NetArrays
from hitfinder.models.vouched import Vouched
from hitfinder.models.water import WaterTable

WATER = "water_f2.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Everything trained or tabulated that a `Pipeline` needs.

    Attributes:
        net: the weights of the gate's network, which `HostGate` and `GateNet` take.
        calibration: probabilities and thresholds.
        water: F2(q) of the heads.
        model_id: first 12 hex digits of the file's sha256; stamped on every result.
        card: the model card as read.
    """

    net: NetArrays
    calibration: Calibration
    water: WaterTable
    model_id: str
    card: dict[str, Any]


def load(path: Path | None = None) -> Weights:
    """Load weights and check them against their card.

    Args:
        path: a `.safetensors` file with its card beside it; None for the shipped one.

    Raises:
        ModelError: a file is missing or too large, the sha256 differs from the card's, or the
            arrays are not those of this network.
    """
    found = weights_file.read(path)
    return _unpack(found, (path or weights_file.shipped_path()).name)


def save(
    path: Path, net: NetArrays, calibration: Calibration, water: WaterTable, card: dict[str, Any]
) -> Path:
    """Write weights and card; returns the weights' path.

    Args:
        path: a `.safetensors` file; the card goes beside it as `.json`.
        net: a trained network's `GateNet.arrays`.
        calibration: its calibration.
        water: F2(q), copied in so that the sha256 covers it.
        card: what the card says beyond format and sha256.
    """
    arrays = {f"net.{name}": a for name, a in net.items()}
    arrays["calibration.slope"] = calibration.slope
    arrays["calibration.offset"] = calibration.offset
    for mode, scores in zip(GateMode, calibration.blank_scores, strict=True):
        arrays[f"calibration.blank_scores_{mode}"] = scores
    arrays["calibration.spot"] = calibration.spot
    arrays["water.q_inv_A"], arrays["water.f2_e2"] = water.q_inv_A, water.f2_e2
    return vouched.write(path, arrays, weights_file.FORMAT, card)


def load_water() -> WaterTable:
    """Return the F2(q) of water that comes with the program."""
    table = safetensors.numpy.load((files("hitfinder.models") / "weights" / WATER).read_bytes())
    return WaterTable.from_table(table["q_inv_A"], table["f2_e2"])


def _unpack(found: Vouched, name: str) -> Weights:
    arrays = found.arrays
    net = {k[4:]: a for k, a in arrays.items() if k.startswith("net.")}
    try:
        HostGate(net)
        calibration = Calibration.of_arrays(arrays)
        water = WaterTable.from_table(arrays["water.q_inv_A"], arrays["water.f2_e2"])
    except (KeyError, ValueError) as err:
        raise ModelError(f"{name}: arrays are not those of {weights_file.FORMAT}: {err}") from err
    return Weights(net, calibration, water, found.sha256[:12], found.card)
