"""One series' folder as a report reads it: what holds for all of it, and a few columns a frame.

One rule: whole rows of a ledger are in memory only a block at a time; a series that is still
written, or whose writer was killed, is read up to its last flush.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.errors import StoreError
from hitfinder.stream.messages import SeriesStart, unpack_start
from hitfinder.stream.nexus import RunGeometry
from hitfinder.stream.recovery import is_being_written, is_growing
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.summary import SeriesSummary, read_summary

BLOCK_ROWS = 65536  # 35 MB of whole rows
COMPLETE, OPEN, NOT_CLOSED = "complete", "still open", "not closed"
HIT, MISS = OUTCOMES.index(Outcome.HIT), OUTCOMES.index(Outcome.MISS)
FRAME = np.dtype(
    [
        ("series", "<i4"),
        ("frame", "<i8"),
        ("outcome", "<i1"),
        ("p_hit", "<f4"),
        ("threshold", "<f4"),
        ("n_peaks", "<i4"),
        ("photon_energy_eV", "<f4"),
        ("photon_energy_sigma_eV", "<f4"),
        ("clen_m", "<f4"),
        ("clen_sigma_m", "<f4"),
        ("mismatch", "<i1"),
        ("d_min_A", "<f4"),
        ("background_photons_per_px", "<f4"),
        ("flux_scale", "<f4"),
        ("t_received_ns", "<i8"),
        ("file", "<i4"),
        ("row", "<i8"),
    ]
)
"""Columns kept of a frame, named as in the ledger; `series` is the place of its `StoredSeries` in
the run, `outcome` the place in `OUTCOMES`, `file` in `StoredSeries.files`, -1 for no image."""
_SAME = [n for n in FRAME.names or () if n not in ("series", "outcome", "file")]
H5_ERRORS = (OSError, KeyError, ValueError, IndexError, RuntimeError)


@dataclass(frozen=True, slots=True, eq=False)
class StoredSeries:
    """What one folder holds.

    Attributes:
        state: `COMPLETE`, `OPEN` (a living process writes it) or `NOT_CLOSED` (a dead one did).
        start: the detector's header, without its large arrays.
        geometry: in force, and which source won.
        provenance: what every file of it is stamped with.
        n_announced: None if the header did not say.
        frames: dtype `FRAME`, in order of arrival.
        files: names that `frames["file"]` counts into.
        reasons: (outcome, why) -> frames, of those that are neither hit nor miss.
        models: hashes of the weights that judged.
        learned: fields `pixel`, `edge_px`, `kind`, `frame` of all workers; None before the end.
        summary: None before the end.
    """

    folder: Path
    state: str
    start: SeriesStart
    geometry: RunGeometry
    provenance: Mapping[str, Any]
    n_announced: int | None
    frames: NDArray[np.void]
    files: tuple[str, ...]
    reasons: Counter[tuple[str, str]]
    models: frozenset[str]
    learned: NDArray[np.void] | None
    summary: SeriesSummary | None

    @property
    def counts(self) -> dict[str, int]:
        """Return outcome -> frames, all six."""
        n = np.bincount(self.frames["outcome"], minlength=len(OUTCOMES))
        return {o.value: int(n[i]) for i, o in enumerate(OUTCOMES)}

    @property
    def posterior(self) -> Mapping[str, Any]:
        """Return what its frames together say of energy and clen; empty before the end."""
        said = self.summary.extra.get("posterior") if self.summary else None
        return said if isinstance(said, dict) else {}

    @property
    def changes(self) -> list[dict[str, Any]]:
        """What the operator changed while it ran, as its summary says."""
        said = self.summary.extra.get("changes") if self.summary else None
        return [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []


def read_series(folder: Path, place: int) -> StoredSeries:
    """Read a series' folder.

    Args:
        place: what `frames["series"]` is to be.

    Raises:
        StoreError: there is no ledger that can be read.
    """
    is_open = is_being_written(folder)
    path = folder / "ledger.h5"
    if not path.exists():
        raise StoreError(f"{folder.name}: no ledger.h5, so no frame was ever written")
    try:
        with h5py.File(path, "r", libver="latest", swmr=is_growing(path)) as file:
            said = dict(file["ledger"].attrs)
            columns = _Columns(place)
            for first in range(0, len(file["ledger"]), BLOCK_ROWS):
                columns.add(file["ledger"][first : first + BLOCK_ROWS])
            learned = [file["learned"][name][:] for name in file.get("learned", ())]
        start = unpack_start(said["start"].tobytes())
        n_announced = int(said["n_announced"])
        geometry = RunGeometry.from_json(said["geometry"])
        provenance = json.loads(said["provenance"])
    except (*H5_ERRORS, TypeError, msgspec.DecodeError) as error:
        raise StoreError(
            f"{folder.name}/ledger.h5: cannot be read ({error}); run check --repair"
        ) from error
    # A series that is closed has its summary from then on: looked for last.
    summary_file = folder / "summary.json"
    summary = read_summary(summary_file) if summary_file.exists() else None
    return StoredSeries(
        folder=folder,
        state=COMPLETE if summary else OPEN if is_open else NOT_CLOSED,
        start=start,
        geometry=geometry,
        provenance=provenance,
        n_announced=None if n_announced < 0 else n_announced,
        frames=columns.frames(),
        files=tuple(columns.files),
        reasons=columns.reasons,
        models=frozenset(columns.models),
        learned=np.concatenate(learned) if learned else None,
        summary=summary,
    )


class _Columns:
    """Gathers blocks of ledger rows as `FRAME`s."""

    def __init__(self, place: int) -> None:
        self._place = place
        self._blocks = [np.zeros(0, FRAME)]
        self.files: dict[str, int] = {}
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.models: set[str] = set()

    def add(self, rows: NDArray[np.void]) -> None:
        """Take what is wanted of some rows; those that a killed writer never filled fall away."""
        rows = rows[rows["outcome"] != b""]
        block = np.zeros(len(rows), FRAME)
        for name in _SAME:
            block[name] = rows[name]
        block["series"], block["outcome"], block["file"] = self._place, -1, -1
        for i, outcome in enumerate(OUTCOMES):
            block["outcome"][rows["outcome"] == outcome.value.encode()] = i
        for name in np.unique(rows["file"][rows["row"] >= 0]):
            code = self.files.setdefault(name.decode(errors="replace"), len(self.files))
            block["file"][rows["file"] == name] = code
        unjudged = rows[(block["outcome"] != HIT) & (block["outcome"] != MISS)]
        whys, n = np.unique(unjudged[["outcome", "reason"]], return_counts=True)
        for why, k in zip(whys, n.tolist(), strict=True):
            said = tuple(why[name].decode(errors="replace") for name in ("outcome", "reason"))
            self.reasons[said[0], said[1]] += k
        self.models.update(m.decode(errors="replace") for m in np.unique(rows["model"]) if m)
        self._blocks.append(block[block["outcome"] >= 0])

    def frames(self) -> NDArray[np.void]:
        """Return what was taken."""
        return np.concatenate(self._blocks)
