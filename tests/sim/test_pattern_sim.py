"""pattern_sim is called as the report called it, and what goes wrong is named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hitfinder.models.crystfel_geom import parse_geom
from hitfinder.sim.pattern_files import read_patterns
from hitfinder.sim.pattern_sim import PatternSimInputs, geometry_text, main, run_pattern_sim
from hitfinder.sim.physics import Detector, SimulationError, data_sets

TURNS = [np.array([1.0, 0, 0, 0]), np.array([0, 0.6, 0.8, 0])]
FAKE = """#!{python}
import pathlib, sys
stem, n = sys.argv[-1], int([a for a in sys.argv if a.startswith("--number=")][0][9:])
pathlib.Path("arguments").write_text("\\n".join(sys.argv[1:]))
pathlib.Path("turns").write_text(sys.stdin.read())
{body}
"""
WRITES = """for k in range(1, n + 1):
    pathlib.Path(f"{stem}.h5" if n == 1 else f"{stem}-{k}.h5").touch()"""


@pytest.fixture
def inputs(tmp_path: Path) -> PatternSimInputs:
    named = [tmp_path / name for name in ("Eiger4M_02.geom", "1IC6.cell", "1IC6.hkl")]
    for path in named:
        path.touch()
    return PatternSimInputs(geometry=named[0], cell=named[1], intensities=named[2])


def program(tmp_path: Path, body: str) -> str:
    fake = tmp_path / "pattern_sim"
    fake.write_text(FAKE.format(python=sys.executable, body=body))
    fake.chmod(0o755)
    return str(fake)


def test_it_is_given_the_reports_arguments_and_the_orientations(
    tmp_path: Path, inputs: PatternSimInputs
) -> None:
    out = tmp_path / "out"
    made = run_pattern_sim(inputs, out, TURNS, "02", program(tmp_path, WRITES))
    assert made == [out / "02-1.h5", out / "02-2.h5"]
    given = (out / "arguments").read_text().splitlines()
    for word in (
        "--number=2",
        "--min-size=10000",
        "--max-size=10000",
        "--spectrum=tophat",
        "--background=0",
        "--nphotons=3e+08",
        "--beam-radius=5e-06",
        "--no-noise",
    ):
        assert word in given
    assert given[given.index("-s") + 1] == "7"
    assert given[given.index("-y") + 1] == "4/mmm"
    assert given[given.index("-g") + 1] == str(inputs.geometry)
    turns = np.loadtxt(out / "turns")
    assert np.allclose(turns, TURNS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('no such cell')", "ended with 1: no such cell"),
        ("pass", "02-1.h5 is not there"),
    ],
)
def test_a_program_that_fails_is_quoted(
    tmp_path: Path, inputs: PatternSimInputs, body: str, said: str
) -> None:
    with pytest.raises(SimulationError, match=said):
        run_pattern_sim(inputs, tmp_path, TURNS, "02", program(tmp_path, body))


def test_what_is_missing_is_named(tmp_path: Path, inputs: PatternSimInputs) -> None:
    with pytest.raises(SimulationError, match=r"not installed .*sim\.sampled"):
        run_pattern_sim(inputs, tmp_path, TURNS, program="no-such-pattern-sim")
    inputs.cell.unlink()
    with pytest.raises(SimulationError, match=r"needs .*1IC6\.cell"):
        run_pattern_sim(inputs, tmp_path, TURNS, program=program(tmp_path, WRITES))


# Writes one lit pixel a frame, as bright as the frame's number, into an image of the 4M.
IMAGES = """import h5py, numpy as np
text = pathlib.Path([a for a in sys.argv if a.endswith(".geom")][0]).read_text()
assert "photon_energy = 7000 eV" in text and "bandwidth = 0.01" in text
hkl = pathlib.Path([a for a in sys.argv if a.endswith(".hkl")][0]).read_text()
assert hkl.startswith("CrystFEL reflection list")
for k in range(1, n + 1):
    image = np.zeros((2162, 2068), np.float32)
    image[100, 200 + k], image[0, 0] = k, 1e-5
    with h5py.File(f"{stem}-{k}.h5", "w") as file:
        file["entry/data/data"] = image"""


def test_its_patterns_are_files_that_dataset_and_evaluate_read(tmp_path: Path) -> None:
    fake = program(tmp_path, IMAGES)
    out = tmp_path / "out"
    main([str(out), "--datasets", "02", "--per-set", "3", "--seed", "4", "--program", fake])
    patterns = read_patterns(out)["02"]
    assert [p.index.tolist() for p in patterns] == [[100 * 2068 + 200 + k] for k in (1, 2, 3)]
    assert [p.photons.tolist() for p in patterns] == [[1], [2], [3]]


def test_a_frame_of_another_detector_is_refused(tmp_path: Path) -> None:
    fake = program(tmp_path, IMAGES.replace("2162", "2160"))
    with pytest.raises(SimulationError, match=r"image \(2160, 2068\); expected \(2162, 2068\)"):
        main([str(tmp_path / "out"), "--datasets", "02", "--per-set", "2", "--program", fake])


def test_the_geometry_says_what_the_data_set_is() -> None:
    said = parse_geom(geometry_text(data_sets()["06"], Detector()), Detector().shape).geometry
    assert (said.photon_energy_eV, said.clen_m) == (8000, 0.25)
    assert said.beam_center_px == pytest.approx(Detector().center_px, abs=0.51)
