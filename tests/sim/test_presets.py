"""Presets are what their names say, and every frame of theirs is whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hitfinder.sim.batches import dense_batch
from hitfinder.sim.crystal_pool import SPACE_GROUPS, CrystalPool
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import Detector, SimulationError
from hitfinder.sim.presets import (
    BLANK_KINDS,
    HELD_OUT,
    HELD_OUT_GROUPS,
    HOT,
    ICE,
    JITTER,
    RINGS,
    SALT,
    TRAINING,
    TRAINING_GROUPS,
)

# The EIGER2 4M's whole angle in fewer pixels.
COARSE = Detector(shape=(540, 516), pixel_size_m=300e-6)
SHIPPED = {
    kind: replace(settings, hit_fraction=0.3, datasets=("02",))
    for kind, settings in BLANK_KINDS.items()
}


@pytest.mark.parametrize("kind", ["training", "held_out", *BLANK_KINDS])
def test_lit_pixels_and_image_are_one_frame(kind: str) -> None:
    settings = {"training": TRAINING, "held_out": HELD_OUT, **SHIPPED}[kind]
    detector = COARSE if settings.patterns == "generator" else Detector()
    source = FrameSource(settings, 5, detector)
    for frame in range(3):
        exposure, photons = source.draw(frame), source.draw_photons(frame)
        image = exposure.image.copy()
        assert np.all(image[detector.gap_mask] == np.iinfo(image.dtype).max)
        image[detector.gap_mask] = 0
        assert np.array_equal(np.flatnonzero(image), photons.index)
        assert np.array_equal(image.reshape(-1)[photons.index], photons.counts)
        assert image[source.dark].sum() == 0
        assert (exposure.is_hit, exposure.kind) == (photons.is_hit, kind)
        assert np.array_equal(exposure.spots.photons, photons.spots.photons)
        assert len(exposure.spot_sigma_px) == len(exposure.spots)


def test_bright_and_saturated_frames_are_the_same_in_both_forms() -> None:
    settings = replace(JITTER, n_photons=3e10, count_cutoff=3, hit_fraction=0.0, datasets=("03",))
    source = FrameSource(settings, 1, Detector(shape=(300, 300)))
    image, photons = source.draw(0).image, source.draw_photons(0)
    assert image.max() == 3
    assert np.array_equal(np.flatnonzero(image), photons.index)
    assert np.array_equal(image[image > 0], photons.counts)


def test_a_batch_is_the_images_without_gaps() -> None:
    source = FrameSource(replace(TRAINING, n_photons=3e8), 2, COARSE)
    frames = source.draw_batch([4, 1])
    batch = dense_batch(frames, COARSE.shape, dtype=torch.int32)
    for b, frame in enumerate((4, 1)):
        image = source.draw(frame).image.astype(np.int32)
        image[COARSE.gap_mask] = 0
        assert np.array_equal(batch[b].numpy(), image)


def test_training_and_held_out_share_no_space_group_and_no_thickness() -> None:
    assert not set(TRAINING_GROUPS) & set(HELD_OUT_GROUPS)
    train, held = (FrameSource(s, 3, COARSE) for s in (TRAINING, HELD_OUT))
    ours, theirs = ([s.draw_photons(k) for k in range(12)] for s in (train, held))
    assert max(p.thickness_m for p in ours) < min(p.thickness_m for p in theirs)
    assert min(p.horizontal_polarization for p in ours) > max(
        p.horizontal_polarization for p in theirs
    )
    assert {p.n_crystals for p in theirs if p.is_hit} > {1}
    assert all(p.n_crystals == 0 for p in theirs if not p.is_hit)


def extra_photons(kind: FrameSettings, frame: int) -> NDArray[np.int64]:
    """What a kind adds to the ideal blank of the same number: int (ss, fs)."""
    plain = replace(BLANK_KINDS["ideal"], datasets=("01",), hit_fraction=0.0)
    settings = replace(kind, datasets=("01",), hit_fraction=0.0)
    clean, lit = (FrameSource(s, 8).draw(frame).image.astype(int) for s in (plain, settings))
    return lit - clean


def test_salt_is_one_or_two_spots_of_the_stated_photons() -> None:
    for frame in range(4):
        added = extra_photons(SALT, frame)
        assert 3 <= added.sum() <= 2500
        ss, fs = np.nonzero(added)
        corners = {(int(s) // 40, int(f) // 40) for s, f in zip(ss, fs, strict=True)}
        assert len(corners) <= 8


def test_hot_pixels_are_five_and_the_same_in_every_frame() -> None:
    lit = [set(np.flatnonzero(extra_photons(HOT, frame))) for frame in range(6)]
    assert len(set.union(*lit)) == 5


def test_powder_rings_are_there_in_every_frame() -> None:
    jitter = replace(JITTER, datasets=("03",), hit_fraction=0.0)
    rings = replace(RINGS, datasets=("03",), hit_fraction=0.0)
    detector = Detector((600, 600))
    more = [
        len(FrameSource(rings, 8).draw_photons(k).index)
        - len(FrameSource(jitter, 8).draw_photons(k).index)
        for k in range(6)
    ]
    assert min(more) > 50
    centers = [FrameSource(jitter, 8, detector).draw_photons(k).beam_center_px for k in range(9)]
    off = np.hypot(*(np.array(centers) - 300).T)
    assert 0 < off.min() < off.max() <= 10


def test_ice_lies_on_its_rings() -> None:
    added = extra_photons(ICE, 2)
    ss, fs = np.nonzero(added > 0)
    d_A = Detector().d_A(fs, ss, 0.15, 6000)
    assert np.percentile(d_A, [5, 95]) == pytest.approx([3.4, 3.95], abs=0.15)


def test_made_up_crystals_are_of_the_seed_and_of_the_groups_asked_for() -> None:
    pool = CrystalPool("both", 4, (40.0, 60.0), SPACE_GROUPS)
    again = CrystalPool("both", 4, (40.0, 60.0), SPACE_GROUPS)
    other = CrystalPool("both", 5, (40.0, 60.0), SPACE_GROUPS)
    assert pool[0] is pool[2]
    assert pool[0].lengths_A == pytest.approx((67.288, 67.288, 106.582))
    assert np.array_equal(pool[1].f2, again[1].f2)
    assert pool[1].lengths_A != other[1].lengths_A
    assert all(40 <= length <= 60 for length in pool[3].lengths_A)
    with pytest.raises(SimulationError, match="no such"):
        CrystalPool("random", 1, 50.0, ("no such",))[0]
