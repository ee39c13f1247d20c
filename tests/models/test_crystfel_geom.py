"""CrystFEL geometry files: what is read, and what is refused by line."""

from pathlib import Path

import pytest

from hitfinder.models.crystfel_geom import parse_geom, read_geom
from hitfinder.models.errors import GeometryError

ONE_PANEL = """
photon_energy = 7 keV ; of the run
clen = 150 mm
res = 13333.3333
data = /entry/data/data
p0/dim0 = %
p0/min_fs = 0
p0/max_fs = 63
p0/min_ss = 0
p0/max_ss = 31
p0/corner_x = -30.0
p0/corner_y = -12.0
p0/fs = +1.0x +0.0y
p0/ss = +0.0x +1.0y
bad_gap/min_fs = 10
bad_gap/max_fs = 11
bad_gap/min_ss = 0
bad_gap/max_ss = 31
bad_gap/panel = p0
"""


def test_a_single_panel_gives_centre_distance_energy_and_bad_regions():
    read = parse_geom(ONE_PANEL, (32, 64))
    assert read.geometry.shape == (32, 64)
    assert read.geometry.beam_center_px == pytest.approx((29.5, 11.5))
    assert read.geometry.pixel_size_m[0] == pytest.approx(75e-6)
    assert read.geometry.clen_m == pytest.approx(0.15)
    assert read.geometry.photon_energy_eV == pytest.approx(7000)
    assert (~read.valid).sum() == 2 * 32
    assert not read.valid[:, 10:12].any()


def test_panels_that_lie_as_stored_agree_on_one_centre_and_leave_gaps_invalid():
    text = """
    res = 13333
    clen = /entry/clen
    a/min_fs = 0
    a/max_fs = 9
    a/min_ss = 0
    a/max_ss = 9
    a/corner_x = -12
    a/corner_y = -5
    b/min_fs = 14
    b/max_fs = 23
    b/min_ss = 0
    b/max_ss = 9
    b/corner_x = 2
    b/corner_y = -5
    """
    read = parse_geom(text, (10, 24))
    assert read.geometry.beam_center_px == pytest.approx((11.5, 4.5))
    assert read.geometry.clen_m is None
    assert not read.valid[:, 10:14].any()
    assert read.valid.sum() == 200


def test_a_bad_region_in_laboratory_coordinates_is_cut_out():
    text = ONE_PANEL + "bad_beam/min_x = -2\nbad_beam/max_x = 2\n"
    text += "bad_beam/min_y = -2\nbad_beam/max_y = 2\n"
    read = parse_geom(text, (32, 64))
    assert not read.valid[12, 30]
    assert read.valid[20, 30]


@pytest.mark.parametrize(
    ("line", "replacement", "says"),
    [
        ("p0/max_fs = 63", "p0/max_fs = sixty", "line 8: p0/max_fs"),
        ("clen = 150 mm", "clen 150 mm", "line 3: 'clen 150 mm'"),
        ("clen = 150 mm", "clen = 150 furlongs", "line 3: clen in 'furlongs'"),
        ("p0/fs = +1.0x +0.0y", "p0/fs = +0.0x +1.0y", "p0 is turned"),
        ("p0/max_ss = 31", "p0/max_ss = 500", "the images have"),
        ("bad_gap/panel = p0", "bad_gap/panel = q7", "line 19: no panel 'q7'"),
        ("res = 13333.3333", "", "p0 has no res"),
        ("p0/min_ss = 0", "p0/min_ss = -7", "expected 0 <= min <= max"),
    ],
)
def test_a_wrong_line_is_named(line: str, replacement: str, says: str):
    with pytest.raises(GeometryError, match=says.replace("(", r"\(")):
        parse_geom(ONE_PANEL.replace(line, replacement), (32, 64))


def test_a_file_without_panels_or_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(GeometryError, match="no panel"):
        parse_geom("clen = 0.1\n", (8, 8))
    with pytest.raises(GeometryError, match="nowhere"):
        read_geom(tmp_path / "nowhere.geom")


def test_the_nine_recorded_geometries_are_read(shared: Path):
    for data_set in range(1, 10):
        path = shared / f"data/pattern_sim/Eiger4M_{data_set:02d}.geom"
        read = read_geom(path, (2162, 2068))
        assert read.geometry.clen_m == pytest.approx((0.15, 0.25, 0.35)[(data_set - 1) // 3])
        assert read.geometry.photon_energy_eV == pytest.approx(
            (6000, 7000, 8000)[(data_set - 1) % 3]
        )
        assert read.geometry.beam_center_px == pytest.approx((1033.5, 1080.5))
        assert (~read.valid).sum() == 12 * 2162 + 3 * 38 * (2068 - 12)
