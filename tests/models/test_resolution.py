"""Resolution of a hit from where its peaks lie."""

import numpy as np
import pytest

from hitfinder.models.geometry import Geometry
from hitfinder.models.resolution import d_min_A
from hitfinder.models.spots import Spots

GEOMETRY = Geometry((2162, 2068), (75e-6, 75e-6), (1033.5, 1080.5), 0.15, 7000.0)


def peaks_at(radius_px):
    n = len(radius_px)
    fs = (1033.5 + np.asarray(radius_px)).astype(np.float32)
    other = np.ones(n, np.float32)
    return Spots(fs, np.full(n, 1080.5, np.float32), other, other, other)


def test_nineteen_of_twenty_peaks_lie_at_larger_d():
    radius_px = np.concatenate((np.linspace(100, 800, 96), np.full(4, 1000.0)))
    d_A = d_min_A(peaks_at(radius_px), GEOMETRY, None, None)
    two_theta = np.arctan2(800 * 75e-6, 0.15)
    assert d_A == pytest.approx(12398.42 / 7000 / (2 * np.sin(two_theta / 2)), rel=0.01)


def test_without_a_header_the_frames_own_estimate_serves():
    bare = Geometry(GEOMETRY.shape, GEOMETRY.pixel_size_m, GEOMETRY.beam_center_px)
    peaks = peaks_at(np.full(10, 500.0))
    assert d_min_A(peaks, bare, 7000.0, 0.15) == d_min_A(peaks, GEOMETRY, 9000.0, 0.3)
    assert d_min_A(peaks, bare, None, None) is None


def test_few_peaks_tell_nothing():
    assert d_min_A(peaks_at([100.0, 200.0]), GEOMETRY, None, None) is None
