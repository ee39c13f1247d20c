"""Time a peakfinder8 extension on given frames: a program of its own that needs numpy alone.

    python tests/bench/peakfinder8.py EXTENSION.so FRAMES.npz N

EXTENSION is OM's `_crystallography*.so` (GPL) or psana's `peakfinder8*.so`, as it lies in the
unpacked wheel; it is told by its signature which. FRAMES holds `frames` (k, ss, fs), `mask` (ss,
fs) and `radius_px` (ss, fs). Prints one JSON list of {name, ms, memcpy_ms, peaks}: core time of
one frame, conversion to float32 included as the programs do it, medians of N turns; a memcpy of
the frame takes turns with it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# What both are asked for: at most so many peaks of 1 to 30 pixels, 8 photons, SNR 5, background
# from a square of this half width; fast mode looks at 100 pixels a ring.
MAX_PEAKS, ADC, SNR, MIN_PX, MAX_PX, RADIUS, PER_RING = 1024, 8.0, 5.0, 1, 30, 3, 100
COPIES = 16


def ring_pixels(radius_px: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return flat indices and rings, int32, of up to `PER_RING` pixels a ring."""
    seen = np.flatnonzero(mask.ravel())
    shuffled = np.random.default_rng(0).permutation(seen)
    ring = np.rint(radius_px.ravel()[shuffled]).astype(np.int32)
    order = np.argsort(ring, kind="stable")
    ring, pixels = ring[order], shuffled[order]
    place = np.arange(len(ring)) - np.searchsorted(ring, ring)
    kept = place < PER_RING
    return pixels[kept].astype(np.int32), ring[kept]


def main(extension: Path, frames_file: Path, n: int) -> None:
    """Measure and print."""
    name = extension.name.partition(".")[0]
    spec = importlib.util.spec_from_file_location(name, extension)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{extension} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = np.load(frames_file)
    frames, mask = given["frames"], given["mask"].astype(np.int8)
    radius_px = given["radius_px"].astype(np.float32)
    n_ss, n_fs = frames.shape[1:]
    asked = (n_fs, n_ss, 1, 1, ADC, SNR, MIN_PX, MAX_PX, RADIUS)
    pixels, rings = ring_pixels(radius_px, mask)

    def om(is_fast: int) -> Callable[[Any], Any]:
        statistics = (len(pixels), pixels, rings, is_fast)
        return lambda f: module.peakfinder_8(
            MAX_PEAKS, f.astype(np.float32), mask, radius_px, *statistics, *asked
        )

    def psana(f: Any) -> Any:
        return module.peakfinder_8(MAX_PEAKS, f.astype(np.float32), mask, radius_px, *asked)

    is_om = name == "_crystallography"
    finders = {"OM, fast mode": om(1), "OM": om(0)} if is_om else {"psana": psana}
    told = [{"name": label, **measure(find, frames, n)} for label, find in finders.items()]
    print(json.dumps(told))


def measure(find: Callable[[Any], Any], frames: np.ndarray[Any, Any], n: int) -> dict[str, Any]:
    """Return medians of core time, of a memcpy in turn with it, and the peaks of each turn."""
    copies = [frames[0].copy() for _ in range(COPIES)]
    taken, copied, peaks = [], [], []
    for k in range(n):
        frame = frames[k % len(frames)]
        begin_s = time.thread_time()
        np.copyto(copies[k % COPIES], frame)
        copied_s = time.thread_time()
        found = find(frame)
        taken.append(1e3 * (time.thread_time() - copied_s))
        copied.append(1e3 * (copied_s - begin_s))
        peaks.append(len(found[0]))
    return {"ms": float(np.median(taken)), "memcpy_ms": float(np.median(copied)), "peaks": peaks}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
