"""The comparison's figures are those of the patterns, and report and plot are written."""

from pathlib import Path

import numpy as np
import pytest

from hitfinder.sim.compare import SIDES, Figures, recorded, report
from hitfinder.sim.compare_plot import draw_comparison
from hitfinder.sim.patterns import Pattern, find_spots, shipped_patterns
from hitfinder.sim.physics import Detector, data_sets


def test_recorded_patterns_come_with_their_orientations(shared: Path) -> None:
    pairs = list(recorded(shared / "data/pattern_sim", "09"))
    assert len(pairs) == 32
    assert all(np.linalg.norm(turn) == pytest.approx(1, abs=1e-5) for _, turn in pairs)
    for (pattern, _), shipped in zip(pairs, shipped_patterns("09"), strict=False):
        assert pattern.total == pytest.approx(shipped.total, rel=0.01)


def test_figures_report_and_plot_say_what_the_patterns_hold(tmp_path: Path) -> None:
    shape = Detector().shape
    index = np.array([4, 5, 900, 5000], np.int32)
    photons = np.array([10, 20, 400, 1e-4], np.float32)
    pattern = Pattern(shape, index, photons, find_spots(shape, index, photons))
    figures = {}
    for name in data_sets():
        for side in SIDES:
            for mrad in (0.0, 2.0):
                figures[name, side, mrad] = one = Figures()
                one.add(pattern)
                assert one.total == [430.0]
                assert one.brightest_px == [400.0]
                assert one.n_spots == [2]
                assert one.profile.sum() == pytest.approx(430)
    draw_comparison(figures, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    text = report(figures, {"01": 1.0}, [("jitter", 3.0, 4.0)], "plot.png")
    assert "| 05 | 430 : 430 | 1.00 / 1.00 | 2 : 2 | 400 : 400 | 215 / 363 : 215 / 363 |" in text
    assert "| jitter | 3.0 | 4.0 |" in text
