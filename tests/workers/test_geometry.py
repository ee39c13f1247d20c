"""Which geometry is in force, and where it came from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hitfinder.models.pipeline import Pipeline
from hitfinder.stream.messages import SeriesStart
from hitfinder.workers.config import ConfigError, GeometryConfig
from hitfinder.workers.geometry import OperatorGeometry, gaps
from hitfinder.workers.reduction import pool

IMAGE = np.zeros((60, 80), np.uint16)
HEADER = SeriesStart(
    1, beam_center_px=(40.0, 30.0), pixel_size_m=(75e-6, 75e-6), clen_m=0.2, photon_energy_eV=6e3
)
GEOM = """
photon_energy = 8000 eV
clen = 0.35 m
res = 13333.3333
adu_per_photon = 1
data = /entry/data/data
dim0 = %
dim1 = ss
dim2 = fs
p0/min_fs = 0
p0/max_fs = 79
p0/min_ss = 0
p0/max_ss = 59
p0/corner_x = -41.0
p0/corner_y = -31.0
p0/fs = +1.0x +0.0y
p0/ss = +0.0x +1.0y
bad_a/min_fs = 0
bad_a/max_fs = 9
bad_a/min_ss = 0
bad_a/max_ss = 59
bad_a/panel = p0
"""


def test_the_header_counts_from_the_corner_a_pixel_index_from_its_centre() -> None:
    geometry = OperatorGeometry(GeometryConfig()).of_series(HEADER, IMAGE).geometry
    assert geometry.beam_center_px == (39.5, 29.5)


def test_config_wins_over_geom_file_wins_over_header(tmp_path: Path) -> None:
    path = tmp_path / "d.geom"
    path.write_text(GEOM)
    operator = OperatorGeometry(GeometryConfig(clen_m=0.15, geom_file=str(path)))
    stated = operator.stated(HEADER)
    assert (stated.clen_m, stated.sources["clen_m"]) == (0.15, "config")
    assert stated.photon_energy_eV == pytest.approx(8000)
    assert stated.sources["photon_energy_eV"] == "geom file"
    assert stated.beam_center_px == pytest.approx((41.0, 31.0))


def test_bad_regions_header_mask_and_mask_file_all_take_pixels_away(tmp_path: Path) -> None:
    geom = tmp_path / "d.geom"
    geom.write_text(GEOM)
    mask = np.ones((60, 80), bool)
    mask[:, 79] = False
    np.save(tmp_path / "mask.npy", mask)
    pixel_mask = np.zeros((60, 80), np.uint32)
    pixel_mask[0, :] = 1
    header = SeriesStart(1, pixel_mask=pixel_mask)
    config = GeometryConfig(geom_file=str(geom), mask_file=str(tmp_path / "mask.npy"))
    valid = OperatorGeometry(config).of_series(header, IMAGE).valid
    assert not valid[:, :10].any()
    assert not valid[:, 79].any()
    assert not valid[0].any()
    assert valid[1:, 10:79].all()


def test_a_mask_of_another_shape_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "mask.npy", np.zeros((3, 3), bool))
    operator = OperatorGeometry(GeometryConfig(mask_file=str(tmp_path / "mask.npy")))
    assert operator.of_series(HEADER, IMAGE).valid.all()
    assert "this series goes on without it" in caplog.text


def test_a_geom_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"geometry\.geom_file"):
        OperatorGeometry(GeometryConfig(geom_file=str(tmp_path / "absent.geom")))


def test_module_gaps_are_found_and_overflows_are_not() -> None:
    image = np.zeros((60, 80), np.uint16)
    image[20:32, :] = 65535
    image[:, 70:] = 65535
    image[50, 10] = image[5, 5:8] = 65535
    found = gaps(image)
    assert found[20:32, :].all()
    assert found[:, 70:].all()
    assert int(found.sum()) == int((image == 65535).sum()) - 4


@pytest.mark.parametrize(
    "absurd",
    [
        {"beam_center_px": (-5000.0, 1e6)},
        {"pixel_size_m": (1e-9, 75e-6)},
        {"pixel_size_m": (5e-6, 75e-6)},
        {"clen_m": 1e-9},
        {"clen_m": float("nan")},
        {"photon_energy_eV": 1.0},
    ],
)
def test_a_header_that_cannot_be_is_left_out_and_said(
    absurd: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (name,) = absurd
    stated = OperatorGeometry(GeometryConfig()).stated(SeriesStart(1, **absurd))
    assert getattr(stated, name) is None
    assert name not in stated.sources
    assert "which cannot be; left out" in caplog.text


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 900), (900, 1), (17, 33)])
@pytest.mark.parametrize("mean", [0.0, 0.02, 1000.0])
def test_a_frame_of_any_shape_is_judged_under_any_header(
    shape: tuple[int, int], mean: float
) -> None:
    header = SeriesStart(1, beam_center_px=(-2e4, 2e4), pixel_size_m=(1e-5, 1e-4), clen_m=1e-3)
    image = np.random.default_rng(1).poisson(mean, shape).astype(np.uint16)
    in_force = OperatorGeometry(GeometryConfig()).of_series(header, image)
    pipeline = Pipeline()
    context = pipeline.begin(in_force.geometry, in_force.valid)
    (judgement,) = pipeline.judge([image], context, [pool(image, in_force.valid)])
    assert 0.0 <= judgement.p_hit <= 1.0
    assert judgement.n_photons == int(image.sum())
