"""The peak of the heads' likelihood where it is sharp: a series, or one bright frame.

One rule: the beam centre is a nuisance. Where the detector surrounds the beam, rings do not feel
it; where it is one-sided a shifted centre looks like another camera length, so the shift is fitted
with energy and clen under a prior of `CENTRE_PX`, and the errors given are those that remain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hitfinder.models.head_tables import Array, HeadTables

CENTRE_PX = 10.0
"""How far off a stated beam centre may be (one sigma, each axis)."""
STEP_EV, STEP_RATIO, STEP_PX = 10.0, 1e-3, 2.0
"""Of the numerical derivatives: wide enough to smooth the table of F2."""
MAX_STEPS = 20
MAX_MOVE = np.array([300.0, 0.03, 5.0, 5.0])
CLOSE = 0.01
"""It has arrived when a step is below this many sigma."""


@dataclass(frozen=True, slots=True, eq=False)
class Peak:
    """The best energy and log(energy / clen).

    Attributes:
        energy_eV, ratio: where it is.
        covariance: (2, 2) of (energy_eV, ratio), beam centre marginalised, Poisson counts.
        center_shift_px: (x, y) by which the beam centre seems off.
    """

    energy_eV: float
    ratio: float
    covariance: Array
    center_shift_px: tuple[float, float]


def newton(n: Array, w: Array, tables: HeadTables, energy_eV: float, ratio: float) -> Peak | None:
    """Climb to the peak by Fisher scoring; None if it does not get there.

    Args:
        n: (bins,) counts.
        w: (bins,) counted pixels.
        tables: of the detector.
        energy_eV: where to begin.
        ratio: log(energy / clen) where to begin.
    """
    at = np.array([energy_eV, ratio, 0.0, 0.0])
    prior = np.diag([0.0, 0.0, CENTRE_PX**-2, CENTRE_PX**-2])
    for _ in range(MAX_STEPS):
        score, information = score_and_information(n, w, tables, at)
        information = information + prior
        try:
            covariance = np.linalg.inv(information)
        except np.linalg.LinAlgError:
            return None
        if not (np.diag(covariance) > 0).all():
            return None
        step = covariance @ (score - prior @ at)
        at = at + step / max(1.0, float(np.max(np.abs(step) / MAX_MOVE)))
        if not 1000 < at[0] < 100_000:
            return None
        if (np.abs(step) < CLOSE * np.sqrt(np.diag(covariance))).all():
            shift = float(at[2]), float(at[3])
            least: Array = np.array(covariance[:2, :2], np.float64)
            return Peak(float(at[0]), float(at[1]), least, shift)
    return None


def score_and_information(
    n: Array, w: Array, tables: HeadTables, at: Array
) -> tuple[Array, Array]:
    """Return slope (4,) and Fisher information (4, 4), the scale of the counts profiled out.

    Args:
        n: (bins,) counts, drawn or expected.
        w: (bins,) counted pixels.
        tables: of the detector.
        at: energy in eV, log(energy / clen), shift of the beam centre in pixels (x, y).
    """
    energy, ratio, x_px, y_px = at
    h_m = STEP_PX * tables.pixel_size_m
    radius = tables.radius_m - (tables.cosine * x_px + tables.sine * y_px) * tables.pixel_size_m
    radius = np.maximum(radius, 0.0)
    energies = energy + STEP_EV * np.array([0.0, 1.0, -1.0, 0.0, 0.0])
    ratios = ratio + STEP_RATIO * np.array([0.0, 0.0, 0.0, 1.0, -1.0])
    m, up, down, wide, tight = tables.shape_at(energies, ratios, radius)
    farther = tables.shape_at(energies[:1], ratios[:1], radius + h_m)[0]
    nearer = tables.shape_at(energies[:1], ratios[:1], np.maximum(radius - h_m, 0.0))[0]
    outward = (farther - nearer) / (2 * STEP_PX)
    slopes = np.stack(
        (
            (up - down) / (2 * STEP_EV),
            (wide - tight) / (2 * STEP_RATIO),
            -outward * tables.cosine,
            -outward * tables.sine,
        )
    )
    relative = slopes / m
    expected = w * m
    expected *= n.sum() / expected.sum()
    mean = relative @ expected / expected.sum()
    score = relative @ n - n.sum() * mean
    relative -= mean[:, None]
    return score, (relative * expected) @ relative.T
