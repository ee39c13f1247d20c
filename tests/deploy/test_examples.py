"""The example clients understand what a running daemon publishes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deploy.conftest import Beamline
from tests.system.daemon import wait_for

pytestmark = pytest.mark.system

N_HITS = 3
MAX_SERIES = 20


def said_by(script: Path, beamline: Beamline, folder: Path, *arguments: str) -> list[str]:
    """Start an example and send series until it has printed `N_HITS` lines; return these.

    A subscriber hears nothing of what was before it, so frames are sent until it has heard some.
    """
    out, errors = folder / "out.txt", folder / "errors.txt"
    with out.open("w") as to, errors.open("w") as errors_to:
        client = subprocess.Popen(
            [sys.executable, str(script), beamline.daemon.endpoint, *arguments],
            stdout=to,
            stderr=errors_to,
        )
    try:
        while out.read_text().count("\n") < N_HITS:
            assert beamline.n_series < MAX_SERIES, f"it heard no hits; {errors.read_text()}"
            n_before = len(beamline.daemon.records)
            beamline.send_series()
            wait_for(
                lambda n=n_before: len(beamline.daemon.records) >= n + 20, "verdicts of a series"
            )
    finally:
        client.kill()
        client.wait()
    assert errors.read_text() == ""
    return out.read_text().splitlines()[:N_HITS]


def published(beamline: Beamline, series: int, frame: int) -> dict[str, Any]:
    """Return the verdict of a frame as another subscriber heard it."""
    wait_for(
        lambda: any((r["series"], r["frame"]) == (series, frame) for r in beamline.daemon.records),
        f"the verdict of frame {frame} of series {series}",
    )
    return next(r for r in beamline.daemon.records if (r["series"], r["frame"]) == (series, frame))


def test_ten_lines_read_hits_and_their_spots_without_the_package(deploy, beamline, tmp_path):
    script = deploy / "examples" / "ten_lines.py"
    tree = ast.parse(script.read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported == {"sys", "msgpack", "zmq"}
    assert sum(bool(line) and line[0] != "#" for line in script.read_text().split("\n")) == 10
    for line in said_by(script, beamline, tmp_path):
        series, frame, p_hit, spots = line.split(" ", 3)
        verdict = published(beamline, int(series), int(frame))
        assert verdict["outcome"] == "hit"
        assert float(p_hit) == verdict["p_hit"]
        columns = (np.frombuffer(verdict["peaks"][name], "<f4").tolist() for name in ("fs", "ss"))
        assert ast.literal_eval(spots) == list(zip(*columns, strict=True)) != []


def test_the_typed_client_says_where_a_hit_lies_and_the_hit_rate(deploy, beamline, tmp_path):
    script = deploy / "examples" / "live_hits.py"
    for line in said_by(script, beamline, tmp_path, "--hits", str(N_HITS)):
        found = re.fullmatch(
            r"series (\d+) frame (\d+): (\d+) spots, brightest \d+ photons"
            r" at fs [\d.]+ ss [\d.]+, (\S+) row (\d+); hit rate [\d.]+%",
            line,
        )
        assert found is not None, line
        verdict = published(beamline, int(found[1]), int(found[2]))
        assert int(found[3]) == verdict["n_peaks"]
        assert (found[4], int(found[5])) == (verdict["file"], verdict["row"])
