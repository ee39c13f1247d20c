"""The gate on the host against its definition."""

import numpy as np
import pytest
import torch

from hitfinder.models.ablation import Evidence, take_away
from hitfinder.models.gate import GateNet
from hitfinder.models.host_gate import HostGate
from hitfinder.models.places import N_FEATURES, PLACES


@pytest.mark.parametrize("n_places", [0, 1, 5, PLACES])
@pytest.mark.parametrize("blind_to", [[], list(Evidence)])
@pytest.mark.parametrize("strength", [0.1, 3.0, 40.0])
def test_it_says_what_the_network_says(n_places: int, blind_to: list[Evidence], strength: float):
    torch.manual_seed(n_places)
    net = GateNet().eval()
    take_away(net, blind_to)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        features = strength * torch.randn(n_places, N_FEATURES)
        features[:, 0] = 1
        stacked = torch.zeros(1, PLACES, N_FEATURES)
        stacked[0, :n_places] = features
        logits, spots = net(stacked)
    host = HostGate(net.arrays())
    np.testing.assert_allclose(host.judge(features.numpy()), logits[0], rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(
        host.spot_logits(features.numpy()), spots[0, :n_places], rtol=1e-5, atol=2e-5
    )
