"""Checking and repairing a data set tree: every file, then every frame, then what is left.

One rule: a check changes nothing; a repair does what the check says mends a fault, each action
once, and its word on the outcome is another check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hitfinder.workers.dataset import DatasetError, images_folder
from hitfinder.workers.dataset_faults import Fault, file_faults
from hitfinder.workers.dataset_mending import Action
from hitfinder.workers.dataset_names import FrameName, parse_name
from hitfinder.workers.dataset_pairing import Seen, frame_faults, mean_water_notes


@dataclass(frozen=True, slots=True)
class TreeReport:
    """What a check found.

    Attributes:
        images: the folder that holds the four; paths of faults are under it.
        counts: files by (data set, folder); blanks and what is misplaced count where they lie.
        n_frames: frames of which at least one file is in its place.
        faults: in the order of their files.
    """

    images: Path
    counts: Counter[tuple[str, str]]
    n_frames: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """No faults; notes do not count."""
        return all(fault.is_note for fault in self.faults)


def check_tree(
    top: Path,
    *,
    contents: bool = True,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> TreeReport:
    """Check a tree.

    Args:
        contents: read the images too, not only names and attributes.
        on_frame: told how many of how many frames are done.

    Raises:
        DatasetError: there is no tree.
    """
    images = images_folder(top)
    paths = sorted(path.relative_to(images) for path in images.rglob("*.h5"))
    counts = Counter((p.parts[1], p.parts[0]) for p in paths if len(p.parts) == 3)
    faults = [fault for path in paths for fault in file_faults(images, path)]
    faults += [
        Fault(p.relative_to(images), "left by a writer that was killed; delete it")
        for p in sorted(images.rglob("*.h5.part"))
    ]
    frames = _frames(paths)
    seen = Seen()
    for done, name in enumerate(frames, 1):
        faults += frame_faults(images, name, contents, seen)
        on_frame(done, len(frames))
    faults += mean_water_notes(images, frames)
    faults.sort(key=lambda fault: fault.path)
    return TreeReport(images, counts, len(frames), tuple(faults))


def repair_tree(
    top: Path,
    report: TreeReport,
    on_action: Callable[[Path, Action, str], None] = lambda path, action, refused: None,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> TreeReport:
    """Do what mends the faults of a report, stage by stage, each action once, and check again.

    Args:
        on_action: told of each action, with the reason why it could not be done, or "".
        on_frame: as for `check_tree`.
    """
    tried: set[Action] = set()
    while open_faults := [f for f in report.faults if f.mend is not None and f.mend not in tried]:
        stage = min(f.mend.stage for f in open_faults if f.mend is not None)
        for fault in open_faults:
            if fault.mend is None or fault.mend.stage != stage:
                continue
            tried.add(fault.mend)
            try:
                fault.mend.do(report.images)
            except (DatasetError, OSError) as reason:
                on_action(fault.path, fault.mend, str(reason))
            else:
                on_action(fault.path, fault.mend, "")
        report = check_tree(top, on_frame=on_frame)
    return report


def _frames(paths: Sequence[Path]) -> list[FrameName]:
    """Return the frames of which a file is in its place."""
    said = ((path, parse_name(path.name)) for path in paths)
    return sorted(
        {s.frame for path, s in said if s and s.frame and path == s.frame.place(s.folder)}
    )
