"""Fixtures shared by all tests: where recordings of foreign programs and detectors lie."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of recordings; skip only where nobody promised that it is there."""
    named = os.environ.get("HITFINDER_SHARED")
    folder = (ROOT / (named or "../shared")).resolve()
    if named is None and not folder.is_dir():
        pytest.skip("recordings of real detectors are not at hand (HITFINDER_SHARED)")
    return folder
