"""The Cramer-Rao bound of the water is the one that the field's table gives."""

import numpy as np
import pytest

from hitfinder.models import weights
from hitfinder.models.bound import cramer_rao
from hitfinder.models.geometry import Geometry
from hitfinder.sim.physics import Detector


@pytest.mark.parametrize(
    ("energy_eV", "clen_m", "n_photons", "sigma_eV", "sigma_mm"),
    [
        (6000.0, 0.15, 87e3, 47, 1.8),
        (8000.0, 0.25, 26.5e3, 572, 22),
        (7000.0, 0.35, 10e3, 1578, 114),
    ],
)
def test_bound_of_one_frame(energy_eV, clen_m, n_photons, sigma_eV, sigma_mm):
    detector = Detector()
    geometry = Geometry(detector.shape, (75e-6, 75e-6), (1033.5, 1080.5))
    least = cramer_rao(
        weights.load_water(), geometry, ~detector.gap_mask, energy_eV, clen_m, n_photons
    )
    assert np.sqrt(least[0, 0]) == pytest.approx(sigma_eV, rel=0.04)
    assert 1e3 * np.sqrt(least[1, 1]) == pytest.approx(sigma_mm, rel=0.04)
