"""What one series leaves on disk: its folder of hit files, ledger, master, lists and summary.

One rule: when `write` returns, its frames survive a kill -9 of this process. The order makes
that true: images and columns, flush, ledger row, flush; so a frame may stand in a hit file
without its ledger row (`resume` then writes the row), never the other way round. Layout is a
fixed contract (design section 7).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.errors import StoreError
from hitfinder.stream.hitfile import JudgedFrame, read_columns, read_frames
from hitfinder.stream.learned import (
    IN_FOLDER,
    LearnedList,
    drop_learned,
    save_learned,
    store_learned,
    summarise_learned,
)
from hitfinder.stream.ledger import Ledger, Unjudged, check_frame, rows_of
from hitfinder.stream.lists import Places, write_geom, write_list
from hitfinder.stream.messages import SeriesStart, pack_start, unpack_start
from hitfinder.stream.nexus import RunGeometry, combined_mask, link_images, write_master
from hitfinder.stream.recovery import WriterLock, recover_files
from hitfinder.stream.results import OUTCOMES, Outcome, Record
from hitfinder.stream.rolling import RollingFiles
from hitfinder.stream.summary import (
    SeriesSummary,
    StoredFile,
    count_alarms,
    hit_rate,
    utc_now,
    write_summary,
)

__all__ = ["JudgedFrame", "SeriesFolder", "Unjudged", "new_folder"]

_KINDS = {Outcome.HIT: "hits", Outcome.MISS: "misses"}


def folder_name(start: SeriesStart) -> str:
    """Return `series_<series>_<uid or UTC time>`, safe as one path component."""
    uid = _path_safe(start.series_uid)
    return f"series_{start.series}_{uid or datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"


def folders_of(out: Path, series: int, series_uid: str | None) -> list[Path]:
    """Return the folders that a series may have in a run's, the newest last."""
    uid = _path_safe(series_uid)
    if not uid:
        found = list(out.glob(f"series_{series}_*"))
    else:
        found = [*out.glob(f"series_{series}_{uid}"), *out.glob(f"series_{series}_{uid}-*")]
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def _path_safe(uid: str | None) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", uid or "")[:64].strip(".")


def new_folder(out: Path, start: SeriesStart) -> Path:
    """Make and return a folder that nothing else uses: `-2`, `-3` ... if the name is taken."""
    name = folder_name(start)
    n = 1
    while True:
        folder = out / (name if n == 1 else f"{name}-{n}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            n += 1
        else:
            return folder


def is_sampled(series: int, frame: int, fraction: float) -> bool:
    """Return whether a miss is kept for audit: always the same ones, spread as if at random."""
    digest = blake2b(f"{series}/{frame}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2.0**64


class SeriesFolder:
    """A series on disk, open for writing by this process alone."""

    def __init__(
        self,
        out: Path,
        start: SeriesStart,
        provenance: Mapping[str, Any],
        *,
        frames_per_file: int = 1000,
        miss_sample_fraction: float = 0.01,
        geometry: RunGeometry | None = None,
        bad_pixels: NDArray[np.bool_] | None = None,
        folder: Path | None = None,
        is_share: bool = False,
        first_file: int = 1,
    ) -> None:
        """Begin a series, or carry on with one.

        Args:
            out: where the series' folder is made.
            start: its header.
            provenance: versions, sha256 of model, config and mask, the effective config; plain
                values, stamped on every file.
            frames_per_file: rows at which a hit file is closed and the next begun.
            miss_sample_fraction: part of the misses whose images are kept, 0 to 1.
            geometry: what header or config say; None: what the header says.
            bad_pixels: bool (ss, fs), True where a pixel must not be used, beside the header's
                pixel mask; None if there is nothing beside it.
            folder: the folder itself, for one that may have been begun by a killed process: if a
                ledger is there the series is carried on, and no frame of it is written twice.
            is_share: its frames were dealt over several hosts, and these are one's: what the
                header announced is not what is expected here.
            first_file: number of the first hit file.

        Raises:
            StoreError: the folder cannot be written, or a living process writes it.
        """
        self._start, self._provenance = start, dict(provenance)
        self._geometry = geometry or RunGeometry.of_header(start)
        self._bad_pixels = bad_pixels
        self._fraction = miss_sample_fraction
        self._n_announced = None if is_share else start.n_frames
        self._layout: tuple[tuple[int, int], str] | None = None
        self._summary: SeriesSummary | None = None
        self._is_intact = True
        self._n_learned: dict[int, int] = {}
        with disk_errors(folder or out):
            self.folder = folder or new_folder(out, start)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(self.folder)
            try:
                self._begin(frames_per_file, first_file)
            except BaseException:
                self._lock.release()
                raise

    @classmethod
    def resume(cls, folder: Path) -> SeriesFolder:
        """Carry on with a folder whose writer was killed, with nothing but what is in it.

        Raises:
            StoreError: a living process writes it, or it has no ledger to carry on from.
        """
        lock = WriterLock(folder)
        try:
            with disk_errors(folder):
                recovered = recover_files(folder)
                if not (folder / "ledger.h5").exists():
                    raise StoreError(f"{folder.name}: no ledger.h5, so no frame was ever written")
                with h5py.File(folder / "ledger.h5", "r") as file:
                    said = dict(file["ledger"].attrs)
        finally:
            lock.release()
        series = cls(
            folder.parent,
            unpack_start(said["start"].tobytes()),
            json.loads(said["provenance"]),
            frames_per_file=int(said["frames_per_file"]),
            miss_sample_fraction=float(said["miss_sample_fraction"]),
            geometry=RunGeometry.from_json(said["geometry"]),
            folder=folder,
            is_share=int(said["n_announced"]) < 0,
        )
        series.recovered = (*recovered, *series.recovered)
        return series

    @property
    def start(self) -> SeriesStart:
        """The header of the series."""
        return self._start

    @property
    def n_announced(self) -> int | None:
        """Frames that must have a row; None if the header does not say, or this is a share."""
        return self._n_announced

    def write(self, frames: Sequence[JudgedFrame]) -> list[tuple[str | None, int | None]]:
        """Store judged frames; they survive this process when this returns.

        Returns:
            For each frame the file in the folder and the row that hold its image, (None, None)
            if the image is not kept. A frame that is already stored keeps its place.

        Raises:
            StoreError: a frame number is out of range, the series is closed, or the disk
                refuses; then end this process and carry on in another (`folder`).
        """
        self._require_intact()
        if self._summary is not None:
            raise StoreError(f"{self.folder.name}: closed; frames come too late")
        fresh = {f.record.frame: f for f in reversed(frames) if f.record.frame not in self._ledger}
        for frame in fresh:
            check_frame(frame)
        if fresh:
            self._is_intact = False
            with disk_errors(self.folder):
                self._store(list(reversed(fresh.values())))
            self._is_intact = True
        return [self._ledger.place(f.record.frame) for f in frames]

    def rests_on_more(self, record: Record) -> bool:
        """Say whether a verdict rests on more learned pixels than are kept in the folder."""
        worker, n_learned = record.learned_by, record.n_learned
        return (
            worker is not None
            and n_learned is not None
            and n_learned > self._n_learned.get(worker, 0)
        )

    def keep_learned(self, learned: Sequence[LearnedList]) -> None:
        """Keep the workers' lists beside the ledger, before the verdicts that rest on them.

        Raises:
            StoreError: the disk refuses.
        """
        with disk_errors(self.folder):
            for one in learned:
                save_learned(self.folder, IN_FOLDER, one)
                self._n_learned[one.worker] = len(one.entries)

    def close(
        self,
        counts: Mapping[str, int],
        tail: Iterable[Unjudged],
        reason: str,
        extra: Mapping[str, Any] | None = None,
        alarms: Sequence[str] = (),
        learned: Sequence[LearnedList] = (),
    ) -> SeriesSummary:
        """Write the rows of frames that were never judged, then everything that ends a series.

        Args:
            counts: the caller's own counts by outcome, compared with the ledger's.
            tail: frames without a verdict; those that have a row already are passed over.
            reason: why the series closed.
            extra: JSON-like values for the summary.
            alarms: what somebody should look at, one sentence each.
            learned: the workers' lists; those of images of another shape are left out.

        Returns:
            The summary; a second call returns the same and writes nothing.
        """
        if self._summary is not None:
            return self._summary
        self._require_intact()
        with disk_errors(self.folder):
            for unjudged in tail:
                self._ledger.append_unjudged(self._unjudged_record(), unjudged)
            said = {k: v for k, v in (extra or {}).items() if v is not None}
            self._ledger.close({"summary": json.dumps(said)})
            for files in self._files.values():
                files.close()
            self._publish()
            fitting = [one for one in learned if self._layout and one.shape == self._layout[0]]
            if fitting:
                store_learned(self.folder / "ledger.h5", fitting)
            drop_learned(self.folder, IN_FOLDER)
            summary = self._summarise(counts, reason, extra or {}, alarms, fitting)
            write_summary(self.folder / "summary.json", summary)
        self._summary = summary
        self._lock.release()
        return summary

    def _require_intact(self) -> None:
        """Refuse to go on after a failed write: a retry could store an image twice.

        Raises:
            StoreError: a write has failed.
        """
        if not self._is_intact:
            raise StoreError(
                f"{self.folder.name}: an earlier write failed half-way; end this process, the "
                "next one mends the files and carries on"
            )

    def _begin(self, frames_per_file: int, first_file: int) -> None:
        """Make the folder's files, or take over what a killed process left of them."""
        self.recovered = tuple(recover_files(self.folder))
        self._ledger = self._open_ledger(frames_per_file)
        attributes = {
            "series": self._start.series,
            "series_uid": self._start.series_uid,
            "miss_sample_fraction": self._fraction,
            **self._provenance,
        }
        self._files = {
            outcome: RollingFiles(self.folder, kind, frames_per_file, attributes, first_file)
            for outcome, kind in _KINDS.items()
        }
        self._adopt_rows()
        self._describe(self._start.shape, self._start.dtype)
        self._publish()

    def _open_ledger(self, frames_per_file: int) -> Ledger:
        path = self.folder / "ledger.h5"
        if path.exists():
            return Ledger.reopen(path)
        bare = replace(self._start, pixel_mask=None, flatfield=None)
        attributes = {
            "series": self._start.series,
            "series_uid": self._start.series_uid or "",
            "n_announced": -1 if self._n_announced is None else self._n_announced,
            "start": np.void(pack_start(bare)),
            "geometry": self._geometry.to_json(),
            "provenance": json.dumps(self._provenance, default=str),
            "frames_per_file": frames_per_file,
            "miss_sample_fraction": self._fraction,
        }
        return Ledger.create(path, attributes)

    def _adopt_rows(self) -> None:
        """Give a ledger row to frames that a killed writer stored without reaching the ledger."""
        for files in self._files.values():
            for image_file in files.files():
                path = self.folder / image_file.name
                is_new = [f not in self._ledger for f in read_frames(path).tolist()]
                if any(is_new):
                    self._ledger.append(read_columns(path)[np.array(is_new)])
        self._ledger.flush()

    def _store(self, frames: list[JudgedFrame]) -> None:
        rows = rows_of([f.record for f in frames])
        rows["file"], rows["row"] = b"", -1
        has_new_file = False
        for outcome, files in self._files.items():
            chosen = [i for i, f in enumerate(frames) if self._is_kept(f, outcome)]
            if chosen:
                kept = rows[chosen]
                blob = frames[chosen[0]].blobs[0]
                self._describe(blob.shape, blob.dtype)
                has_new_file |= files.write([frames[i] for i in chosen], kept)
                rows[chosen] = kept
        self._ledger.append(rows)
        self._ledger.flush()
        if has_new_file:
            self._publish()

    def _is_kept(self, frame: JudgedFrame, outcome: Outcome) -> bool:
        record = frame.record
        if record.outcome is not outcome or not frame.blobs:
            return False
        fraction = frame.miss_sample_fraction
        fraction = self._fraction if fraction is None else fraction
        return outcome is Outcome.HIT or is_sampled(record.series, record.frame, fraction)

    def _describe(self, shape: tuple[int, int] | None, dtype: str | None) -> None:
        """Write master and geometry, anew if the images are not what they say."""
        if shape is None or dtype is None:
            if not (self.folder / "master.h5").exists():
                self._write_master(None, None)
            return
        if self._layout == (shape, dtype):
            return
        # Those of a killed predecessor stand: it may have known a mask that we do not.
        stands = self._layout is None and (self.folder / "detector.geom").exists()
        self._layout = (shape, dtype)
        if stands:
            return
        places = Places(mask_file="master.h5" if self._write_master(shape, dtype) else None)
        saturation = self._start.saturation_value
        write_geom(self.folder / "detector.geom", self._geometry, shape, dtype, saturation, places)

    def _write_master(self, shape: tuple[int, int] | None, dtype: str | None) -> bool:
        """Write a master without images; return whether it has a pixel mask."""
        mask = combined_mask(self._start.pixel_mask, self._bad_pixels)
        if mask is not None and mask.shape != shape:
            mask = None
        write_master(
            self.folder / "master.h5",
            self._start,
            self._geometry,
            self._provenance,
            shape=shape,
            dtype=dtype,
            pixel_mask=mask,
        )
        return mask is not None

    def _publish(self) -> None:
        """Refresh what names the files, so that a killed run is still of use."""
        link_images(self.folder / "master.h5", self._files[Outcome.HIT].files())
        for outcome, files in self._files.items():
            write_list(
                self.folder / f"{_KINDS[outcome]}.lst",
                [(f.name, f.n_rows) for f in files.files()],
            )

    def _unjudged_record(self) -> Record:
        return Record(
            series=self._start.series,
            series_uid=self._start.series_uid,
            frame=0,
            outcome=Outcome.MISSING,
            header_photon_energy_eV=self._start.photon_energy_eV,
            header_clen_m=self._start.clen_m,
        )

    def _summarise(
        self,
        counts: Mapping[str, int],
        reason: str,
        extra: Mapping[str, Any],
        alarms: Sequence[str],
        learned: Sequence[LearnedList],
    ) -> SeriesSummary:
        found = {o.value: self._ledger.counts[o.value] for o in OUTCOMES}
        files = [f for kind in self._files.values() for f in kind.files()]
        return SeriesSummary(
            folder=self.folder.name,
            series=self._start.series,
            series_uid=self._start.series_uid,
            n_announced=self._n_announced,
            counts=found,
            hit_rate=hit_rate(found),
            reason=reason,
            files=[StoredFile(f.name, f.n_rows) for f in files],
            closed_at=utc_now(),
            geometry=asdict(self._geometry),
            provenance=self._provenance,
            d_min_A_hits={f"{d:.1f}": n for d, n in sorted(self._ledger.resolutions.items())},
            reported=dict(counts),
            warnings=list(self._start.warnings),
            alarms=[*alarms, *count_alarms(found, self._n_announced, counts)],
            extra=dict(extra),
            learned=summarise_learned(self.folder / "ledger.h5", learned),
        )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what HDF5 and the file system raise into a StoreError that names the folder."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise StoreError(
            f"{folder.name}: cannot be written ({error}); check space and permissions of the disk"
        ) from error
