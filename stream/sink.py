"""Judged frames into files: the one process that writes a run's folders.

One rule: a slot becomes STORED only when its ledger row (and image, for hits) is flushed, so a
killed sink's successor finds in memory everything that is not on disk yet.
"""

from __future__ import annotations

import ctypes
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.controls import AS_CONFIGURED, Controls, mask_path
from hitfinder.stream.evidence import Evidence
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.intake import header_path
from hitfinder.stream.learned import NO_MASK, all_learned, store_masks
from hitfinder.stream.ledger import Unjudged
from hitfinder.stream.messages import SeriesStart, unpack_start
from hitfinder.stream.nexus import RunGeometry, combined_mask
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import Bells, Ring, State
from hitfinder.stream.series import SeriesTable
from hitfinder.stream.series_folder import SeriesFolder, new_folder

log = logging.getLogger(__name__)

# Frames written in one go. Enough to share the cost of a flush, few enough to publish soon.
MAX_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class InForce:
    """What holds for a series once the operator's configuration is put over its header.

    Attributes:
        geometry: and which source won.
        bad_pixels: bool (ss, fs), beside the header's mask; None if there are none.
        mask: names the operator's mask, as `Record.mask`.
        stamps: further values for every file, e.g. the mask's hash.
    """

    geometry: RunGeometry
    bad_pixels: NDArray[np.bool_] | None
    mask: str | None
    stamps: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Where and what to write; the config's `[sink]` and what is stamped into every file."""

    out: Path
    frames_per_file: int
    miss_sample_fraction: float
    provenance: Mapping[str, str]
    in_force: Callable[[SeriesStart, Path | None], InForce]
    """Of a header and the mask file that the operator has put in force, if any."""
    first_file: int = 1


class Sink:
    """Writes what the workers judged; one `SeriesFolder` a series."""

    def __init__(self, ring: Ring, bells: Bells, runtime: Path, settings: SinkSettings) -> None:
        self.ring, self.bells, self.runtime, self.settings = ring, bells, runtime, settings
        self.series, self.evidence = SeriesTable(ring), Evidence(ring)
        self.controls = Controls(ring)
        self._folders: dict[int, SeriesFolder] = {}

    def run_once(self, timeout_s: float) -> None:
        """Write what is judged, finish what is drained, else wait for the doorbell.

        Raises:
            StoreError: the disk refuses; the frames stay in the ring.
        """
        if not self.store() and not self.finalise():
            self.bells.wait("sink", timeout_s)

    def store(self) -> int:
        """Write the judged frames that are here now, oldest first; returns how many."""
        slots = self.ring.in_state(State.JUDGED)[:MAX_BATCH]
        by_key: dict[int, list[int]] = defaultdict(list)
        for slot in slots:
            by_key[int(self.ring.slots["key"][slot])].append(slot)
        for key, of_series in by_key.items():
            frames = [self._judged(key, slot) for slot in of_series]
            folder = self._folder(key)
            if any(folder.rests_on_more(f.record) for f in frames):
                folder.keep_learned(all_learned(self.runtime, key))
            places = folder.write(frames)
            for slot, (file, row) in zip(of_series, places, strict=True):
                header = self.ring.slots[slot]
                header["file"] = (file or "").encode()
                header["row"] = -1 if row is None else row
                self.ring.set_state(slot, State.STORED)
        if slots:
            self.bells.ring("supervisor")
        return len(slots)

    def finalise(self) -> bool:
        """Close the folders of series whose frames are all stored; True if there was one."""
        e = self.ring.series
        ripe = [
            entry
            for entry in self.series.open_entries()
            if e["drained"][entry] and not e["finalised"][entry]
        ]
        for entry in ripe:
            key = int(e["key"][entry])
            missing, dropped = self.series.unseen(entry)
            counts = {o.value: int(e["counts"][entry, i]) for i, o in enumerate(OUTCOMES)}
            posterior = self.evidence.said(entry)
            tallies = {n: int(e[n][entry]) for n in ("n_duplicate", "n_late")}
            folder = self._folder(key)
            folder.close(
                {**counts, "announced": self.series.announced(entry)},
                [
                    Unjudged(missing, Outcome.MISSING, "announced, not received"),
                    Unjudged(dropped, Outcome.DROPPED, "ring full"),
                ],
                e["reason"][entry].decode(),
                extra={**tallies, "posterior": posterior, "changes": self._changes(key)},
                learned=all_learned(self.runtime, key),
                alarms=header_alarms(posterior),
            )
            if masks := self._later_masks(key, folder.start):
                store_masks(folder.folder / "ledger.h5", masks)
            del self._folders[key]
            e["finalised"][entry] = 1
            self.bells.ring("supervisor")
        if ripe:
            give_back_memory()
        return bool(ripe)

    # ------------------------------------------------------------------------------------

    def _changes(self, key: int) -> list[dict[str, Any]] | None:
        """Return what the operator changed for frames of a series, None if nothing."""
        before = self.controls.at(key, 0)
        mine = [] if before is AS_CONFIGURED else [before._replace(frame=0)]
        mine += [c for c in self.controls.all() if c.key == key and c.frame > 0]
        return [change.values() for change in mine] or None

    def _later_masks(self, key: int, start: SeriesStart) -> dict[str, NDArray[np.uint32]]:
        """Return the masks that came into force within a series, by the name that rows have."""
        found, n_masks = {}, self.controls.at(key, 0).n_masks
        for change in self.controls.all():
            if change.key == key and change.n_masks > n_masks:
                in_force = self.settings.in_force(start, self._mask_file(change.mask))
                pixel_mask = combined_mask(start.pixel_mask, in_force.bad_pixels)
                if pixel_mask is not None:
                    found[in_force.mask or NO_MASK] = pixel_mask
        return found

    def _mask_file(self, mask: str | None) -> Path | None:
        return None if mask is None else mask_path(self.runtime, mask)

    def _judged(self, key: int, slot: int) -> JudgedFrame:
        """Return what stands in a slot, with the share of misses to keep that holds for it."""
        record = self.ring.record(slot)
        fraction = self.controls.at(key, record.frame).miss_sample_fraction
        return JudgedFrame(record, self.ring.blobs(slot), fraction)

    def _folder(self, key: int) -> SeriesFolder:
        """Return the folder of a series, begun now or taken over from a killed predecessor."""
        if key in self._folders:
            return self._folders[key]
        entry, settings = self.series.entry_of(key), self.settings
        if entry is None:
            raise AssertionError(f"slot of series key {key} outlived its series")
        start = unpack_start(header_path(self.runtime, key).read_bytes())
        named = self.ring.series["folder"][entry].decode()
        path = settings.out / named if named else new_folder(settings.out, start)
        self.ring.series["folder"][entry] = path.name.encode()
        in_force = settings.in_force(start, self._mask_file(self.controls.at(key, 0).mask))
        folder = SeriesFolder(
            settings.out,
            start,
            {**settings.provenance, **in_force.stamps},
            frames_per_file=settings.frames_per_file,
            miss_sample_fraction=settings.miss_sample_fraction,
            geometry=in_force.geometry,
            bad_pixels=in_force.bad_pixels,
            folder=path,
            is_share=bool(self.ring.control["is_share"][0]),
            first_file=settings.first_file,
        )
        for sentence in folder.recovered:
            log.warning("%s: %s", path.name, sentence)
        self._folders[key] = folder
        return folder


def give_back_memory() -> None:
    """Hand what is free to the system: among small pieces glibc keeps a series' masks for ever."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def header_alarms(posterior: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence if the frames together contradict the header."""
    if posterior is None or not posterior["header_mismatch"]:
        return []
    p = posterior
    return [
        f"the pixels of {p['n_frames']} frames say {p['photon_energy_eV']:.0f} +- "
        f"{p['photon_energy_sigma_eV']:.0f} eV and {p['clen_m']:.4f} +- {p['clen_sigma_m']:.4f} "
        "m; the header says otherwise"
    ]
