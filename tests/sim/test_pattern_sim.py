"""pattern_sim is called as the report called it, and what goes wrong is named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hitfinder.sim.pattern_sim import PatternSimInputs, run_pattern_sim
from hitfinder.sim.physics import SimulationError

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
