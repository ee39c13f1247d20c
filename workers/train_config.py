"""What `train` makes and how: one typed tree, read from TOML.

One rule: the card holds the whole tree, so weights can be made again from their card. Keys of
`[gate]` that are left out take the value of `[train]`, which holds for everything trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from hitfinder.models.ablation import Evidence
from hitfinder.models.training import FitOptions
from hitfinder.workers.config import check_bounds, read_tree


class FitSection(msgspec.Struct, forbid_unknown_fields=True):
    """`[train]`: how anything is fitted, and the seed of everything."""

    seed: int = 1
    epochs: int = 60
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    plateau_epochs: int = 3
    """Epochs without a smaller test loss before the rate shrinks by `plateau_factor`."""
    plateau_factor: float = 0.5
    precision: Literal["float32", "bfloat16"] = "float32"


class FramesSection(msgspec.Struct, forbid_unknown_fields=True):
    """`[frames]`: what is drawn. A pair is a hit and the same water without its crystal."""

    pairs: int = 5_000
    """To train and to test."""
    test_fraction: float = 0.2
    """Of the pairs, by orientation."""
    calibration_pairs: int = 1_000
    """For probabilities; of orientations that nothing was trained on."""
    blanks: int = 6_000
    """Of each kind, for the thresholds; a rate r needs more than 1 / r."""
    made_up_crystals: int = 16
    """That the generator shoots, besides proteinase K in half of the hits and more."""
    head_frames: int = 600
    """To measure the heads' coverage and their matrix."""


class GateSection(msgspec.Struct, forbid_unknown_fields=True):
    """`[gate]`: its own values of `[train]`, and what only it has."""

    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    plateau_epochs: int | None = None
    plateau_factor: float | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    positive_weight_any: float | None = None
    """Of hits in the loss; left out, the classes are balanced."""
    positive_weight_spots3: float | None = None
    spot_weight: float = 0.3
    """Of the places' loss: is there a spot?"""
    paired: bool = True
    """False leaves twins wherever chance puts them (ablation)."""
    without: list[Evidence] = []
    """Evidence to do without (ablation)."""


class TrainConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The whole tree; every section may be left out."""

    train: FitSection = msgspec.field(default_factory=FitSection)
    frames: FramesSection = msgspec.field(default_factory=FramesSection)
    gate: GateSection = msgspec.field(default_factory=GateSection)

    def as_plain(self) -> dict[str, Any]:
        """Return the tree as JSON-like values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def gate_options(self) -> FitOptions:
        """Return how the gate is fitted."""
        shared, own = msgspec.structs.asdict(self.train), msgspec.structs.asdict(self.gate)
        values = {k: v if own.get(k) is None else own[k] for k, v in shared.items()}
        gate = self.gate
        return FitOptions(
            **values,
            is_paired=gate.paired,
            positive_weight=(gate.positive_weight_any, gate.positive_weight_spots3),
            spot_weight=gate.spot_weight,
            without=tuple(gate.without),
        )


def read_train_config(path: Path | None) -> TrainConfig:
    """Read a TOML file, or return the defaults.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or a value out of range.
    """
    config = TrainConfig() if path is None else read_tree(path, TrainConfig)
    t, f, g = config.train, config.frames, config.gate
    check_bounds(
        [
            ("train.seed", t.seed, 0, 2**32 - 1),
            ("frames.pairs", f.pairs, 2, 10**7),
            ("frames.test_fraction", f.test_fraction, 0.01, 0.9),
            ("frames.calibration_pairs", f.calibration_pairs, 1, 10**7),
            ("frames.blanks", f.blanks, 1, 10**7),
            ("frames.made_up_crystals", f.made_up_crystals, 0, 1000),
            ("frames.head_frames", f.head_frames, 0, 10**6),
            ("gate.positive_weight_any", g.positive_weight_any, 1e-3, 1e3),
            ("gate.positive_weight_spots3", g.positive_weight_spots3, 1e-3, 1e3),
            ("gate.spot_weight", g.spot_weight, 0.0, 100.0),
        ]
    )
    for name, section in (("train", t), ("gate", g)):
        check_bounds(
            [
                (f"{name}.epochs", section.epochs, 1, 10_000),
                (f"{name}.batch", section.batch, 2, 10**6),
                (f"{name}.learning_rate", section.learning_rate, 1e-7, 1.0),
                (f"{name}.weight_decay", section.weight_decay, 0.0, 1.0),
                (f"{name}.plateau_epochs", section.plateau_epochs, 0, 10_000),
                (f"{name}.plateau_factor", section.plateau_factor, 0.01, 0.99),
            ]
        )
    return config
