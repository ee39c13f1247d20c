"""The gate: places of a frame -> is it a hit.

One rule: the network starts equal to a statistic of its own. A place is as good as its likelihood
ratio says (`places`), a frame as good as all its places together (any) or as its third best
(spots3); what is learned is a correction of both. Thresholds are conformal: a quantile of the
scores of blanks kept out of training, so the false-positive rate holds for blanks like those.

Suffixes: B batch, K places, F features of a place.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import nn
from torch.nn.functional import softplus

from hitfinder.models.host_gate import CEILING, FAINTEST, HIDDEN, SCALE, TOP, NetArrays
from hitfinder.models.places import ABSENT, FEATURES, N_FEATURES, N_WIDTHS

UNSEEN = ("evidence", "rest")
"""The scan knows neither rings nor streaks: its numbers would bring back what the ratios deny."""


class GateNet(nn.Module):
    """Places -> logits (any, spots3) of the frame and the logit of each place to be a spot.

    `column_F` and `factor_F` say what it sees of a place: all but `UNSEEN`, less in an ablation.
    """

    column_F: torch.Tensor
    factor_F: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("column_F", torch.arange(N_FEATURES))
        seen = [float(name not in UNSEEN) for name in FEATURES]
        self.register_buffer("factor_F", torch.tensor(seen))
        self.place_branch = _branch(N_FEATURES)
        self.any_branch = _branch(TOP)
        self.spots3_branch = _branch(TOP - 2)

    @classmethod
    def of_arrays(cls, arrays: NetArrays) -> Self:
        """Return the network with these weights, in evaluation mode.

        Raises:
            RuntimeError: they are not those of this network.
        """
        net = cls()
        net.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in arrays.items()})
        return net.eval()

    def arrays(self) -> NetArrays:
        """Return copies of its weights by their names."""
        return {name: t.detach().cpu().numpy().copy() for name, t in self.state_dict().items()}

    def forward(self, places_BKF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits_B2 and spot_logits_BK; absent places have `FAINTEST`."""
        spot_BK = self.spot_logits(places_BKF)
        best_BT = spot_BK.topk(TOP, 1).values
        # What a spot is must not be learned from frames with decoys, which teach spots3 alone.
        third_BT = best_BT[:, 2:].detach()
        learned_any = self.any_branch(best_BT / SCALE)[:, 0]
        learned_spots3 = self.spots3_branch(third_BT / SCALE)[:, 0]
        # Strong places add up, faint ones fade out: the sum of log(1 + ratio) over the places.
        any_B = softplus(spot_BK).sum(1).clamp(1e-12, CEILING).expm1().log()
        return torch.stack((any_B + learned_any, third_BT[:, 0] + learned_spots3), 1), spot_BK

    def spot_logits(self, places_BKF: torch.Tensor) -> torch.Tensor:
        """Return spot_logits_BK of any number of places."""
        absent = places_BKF[:, :, 0] == ABSENT
        places_BKF = places_BKF[:, :, self.column_F] * self.factor_F
        ratio = places_BKF[:, :, 1 : 1 + N_WIDTHS].logsumexp(2) - math.log(N_WIDTHS)
        spot_BK: torch.Tensor = ratio + self.place_branch(places_BKF)[:, :, 0]
        return spot_BK.clamp(FAINTEST, CEILING).masked_fill(absent, FAINTEST)


def _branch(n_inputs: int) -> nn.Sequential:
    """Return a small network whose output starts at zero."""
    last = nn.Linear(HIDDEN, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(n_inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), last
    )
