"""What CrystFEL is started with: every line says what the file and the header say."""

import pytest

from hitfinder.stream.lists import Places, read_list, write_geom, write_list
from hitfinder.stream.nexus import RunGeometry

GEOMETRY = RunGeometry(
    beam_center_px=(20.5, 30.25),
    pixel_size_m=(75e-6, 75e-6),
    clen_m=0.25,
    photon_energy_eV=7000.0,
    sources={"clen_m": "config"},
)


def geom_of(path):
    """Return a geometry's lines as a dict, comments left out."""
    lines = (line.split(";")[0] for line in path.read_text().splitlines())
    return {k.strip(): v.strip() for k, _, v in (x.partition("=") for x in lines) if v.strip()}


def test_a_list_names_every_row_and_is_read_back(tmp_path):
    write_list(tmp_path / "hits.lst", [("hits_000001.h5", 2), ("hits_000002.h5", 1)])
    text = (tmp_path / "hits.lst").read_text()
    assert text == "hits_000001.h5 //0\nhits_000001.h5 //1\nhits_000002.h5 //0\n"
    assert read_list(tmp_path / "hits.lst")[2] == ("hits_000002.h5", 0)
    assert [p.name for p in tmp_path.iterdir()] == ["hits.lst"]


def test_a_line_that_is_no_list_line_is_an_error(tmp_path):
    (tmp_path / "hits.lst").write_text("hits_000001.h5\n")
    with pytest.raises(ValueError, match="unpack"):
        read_list(tmp_path / "hits.lst")


def test_the_geometry_says_what_the_header_says(tmp_path):
    write_geom(
        tmp_path / "d.geom", GEOMETRY, (64, 48), "uint16", 65000, Places(mask_file="master.h5")
    )
    said = geom_of(tmp_path / "d.geom")
    assert said["photon_energy"] == "7000 eV"
    assert said["clen"] == "0.25 m"
    assert float(said["res"]) == pytest.approx(1 / 75e-6)
    assert said["adu_per_photon"] == "1"
    assert (said["data"], said["dim0"], said["dim1"], said["dim2"]) == (
        "/entry/data/data",
        "%",
        "ss",
        "fs",
    )
    assert (said["peak_list"], said["peak_list_type"]) == ("/entry/result", "cxi")
    assert (said["mask0_file"], said["mask0_data"]) == (
        "master.h5",
        "/entry/instrument/detector/pixel_mask",
    )
    assert (said["panel0/max_fs"], said["panel0/max_ss"]) == ("47", "63")
    # Fast axis to the right seen from the sample: x, to the left along the beam, falls.
    assert said["panel0/fs"] == "-1.0x +0.0y"
    assert (float(said["panel0/corner_x"]), float(said["panel0/corner_y"])) == (20.5, 30.25)
    text = (tmp_path / "d.geom").read_text()
    assert "clen = 0.25 m ; from config" in text
    assert "valid up to 65000" in text


@pytest.mark.parametrize(
    ("dtype", "most"), [("uint8", 254), ("uint16", 65534), ("uint32", 2_000_000_000)]
)
def test_the_value_that_marks_a_pixel_follows_the_depth(tmp_path, dtype, most):
    write_geom(tmp_path / "d.geom", GEOMETRY, (64, 48), dtype)
    said = geom_of(tmp_path / "d.geom")
    assert int(said["flag_morethan"]) == most
    assert "mask0_file" not in said


def test_what_is_unknown_is_said_and_not_guessed(tmp_path):
    write_geom(tmp_path / "d.geom", RunGeometry(), (64, 48), "uint16")
    said = geom_of(tmp_path / "d.geom")
    assert not {"clen", "photon_energy", "res", "panel0/corner_x"} & set(said)
    text = (tmp_path / "d.geom").read_text()
    for name in ("clen", "photon_energy", "res", "panel0/corner_x"):
        assert f"; {name}" in text
