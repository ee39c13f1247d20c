"""The generator beside pattern_sim on the same orientations: figures, a plot, frames a second.

One rule: both sides are noise-free patterns of the same crystals at 3e8 photons, cut and named by
the same code (`patterns.find_spots`), so what differs is the model. Run as
`python -m hitfinder.sim.compare SOURCE OUT.md`; SOURCE is the project's pattern_sim data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hitfinder.sim.compare_plot import draw_comparison
from hitfinder.sim.crystal import Beam, bragg_pattern
from hitfinder.sim.frames import FrameSource
from hitfinder.sim.make_data import CUT_PHOTONS
from hitfinder.sim.patterns import Pattern, find_spots, spot_sigma_px, widen
from hitfinder.sim.physics import Detector, data_sets, water_mean
from hitfinder.sim.presets import HELD_OUT, JITTER, TRAINING
from hitfinder.sim.reflections import read_crystal
from hitfinder.sim.sampled import lattice_tables, sampled_pattern

DIVERGENCE_MRAD = 2.0
RADIUS_STEP_PX = 20
SIDES = ("pattern_sim", "generator", "sampled")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side's patterns of one data set say; lists have one entry a pattern.

    Attributes:
        total, brightest_px, n_spots: photons, photons of the brightest pixel, spots of at least 3
            photons.
        spots, pixels: photons of every spot and pixel of all patterns.
        profile: photons in rings of 20 px about the centre, summed.
    """

    total: list[float] = field(default_factory=list)
    brightest_px: list[float] = field(default_factory=list)
    n_spots: list[int] = field(default_factory=list)
    spots: list[NDArray[np.float32]] = field(default_factory=list)
    pixels: list[NDArray[np.float32]] = field(default_factory=list)
    profile: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros(1500 // RADIUS_STEP_PX + 1)
    )

    def add(self, pattern: Pattern) -> None:
        """Take one pattern into account, its pixels cut as the shipped ones are."""
        bright = pattern.photons >= CUT_PHOTONS
        index, photons = pattern.index[bright], pattern.photons[bright]
        spots = find_spots(pattern.shape, index, photons).photons
        self.total.append(float(photons.sum(dtype=float)))
        self.brightest_px.append(float(photons.max(initial=0)))
        self.n_spots.append(int((spots >= 3).sum()))
        self.spots.append(spots)
        self.pixels.append(photons)
        ss, fs = np.divmod(index, pattern.shape[1])
        radius = np.hypot(ss + 0.5 - pattern.shape[0] / 2, fs + 0.5 - pattern.shape[1] / 2)
        self.profile[:] += np.bincount(
            (radius / RADIUS_STEP_PX).astype(int), photons, len(self.profile)
        )


def recorded(source: Path, name: str) -> Iterator[tuple[Pattern, NDArray[np.float64]]]:
    """Yield a data set's recorded 10 um patterns with their orientations."""
    shape = Detector().shape
    for path in (source / f"peaks_{name}.h5", source / "more" / f"peaks_{name}.h5"):
        with h5py.File(path) as file:
            frames = file["size_10000nm"]
            index, photons = frames["index"][:].astype(np.int32), frames["photons"][:]
            starts, turns = frames["indptr"][:], frames["quaternion_wxyz"][:].astype(float)
        for begin, end, turn in zip(starts[:-1], starts[1:], turns, strict=True):
            pixels, expected = index[begin:end], photons[begin:end]
            yield Pattern(shape, pixels, expected, find_spots(shape, pixels, expected)), turn


def compare(source: Path, n_sampled: int) -> dict[tuple[str, str, float], Figures]:
    """Return figures by (data set, side, divergence in mrad); `n_sampled` patterns a set."""
    crystal, detector = read_crystal(), Detector()
    tables = lattice_tables(crystal)
    figures: dict[tuple[str, str, float], Figures] = {}
    for name, setting in track(data_sets().items(), "data sets", console=Console(stderr=True)):
        sharp = Beam(setting.photon_energy_eV, setting.clen_m)
        wide = Beam(setting.photon_energy_eV, setting.clen_m, divergence_mrad=DIVERGENCE_MRAD)
        sigma_px = spot_sigma_px(DIVERGENCE_MRAD, setting.clen_m)
        of = {
            (side, mrad): figures.setdefault((name, side, mrad), Figures())
            for side in SIDES
            for mrad in (0.0, DIVERGENCE_MRAD)
        }
        for number, (pattern, turn) in enumerate(recorded(source, name)):
            of["pattern_sim", 0.0].add(pattern)
            of["pattern_sim", DIVERGENCE_MRAD].add(widen(pattern, sigma_px))
            of["generator", 0.0].add(bragg_pattern(crystal, detector, sharp, turn))
            of["generator", DIVERGENCE_MRAD].add(bragg_pattern(crystal, detector, wide, turn))
            if number < n_sampled:
                of["sampled", 0.0].add(sampled_pattern(crystal, tables, detector, sharp, turn))
    return figures


def water_ratio(source: Path) -> dict[str, float]:
    """Return our mean water over the recorded one, for each data set."""
    with h5py.File(source / "water.h5") as file:
        return {
            name: float(
                water_mean(Detector(), s.photon_energy_eV, s.clen_m).sum(dtype=float)
                / file[f"mean_{name}"][:].sum(dtype=float)
            )
            for name, s in data_sets().items()
        }


def speeds(n_frames: int) -> list[tuple[str, float, float]]:
    """Return (kind, ms as lit pixels, ms as an image): medians of one core's time."""
    rows: list[tuple[str, float, float]] = []
    for settings in (JITTER, TRAINING, HELD_OUT):
        source = FrameSource(settings, 1)
        for frame in range(3 * n_frames):
            source.draw_photons(n_frames + frame)  # Crystals are made when first shot.
        taken: tuple[list[float], list[float]] = ([], [])
        for frame in range(n_frames):
            for draw, seconds in zip((source.draw_photons, source.draw), taken, strict=True):
                begin = time.process_time()
                draw(frame)
                seconds.append(time.process_time() - begin)
        lit_ms, image_ms = (1e3 * float(np.median(s)) for s in taken)
        rows.append((settings.kind, lit_ms, image_ms))
    return rows


def table(figures: dict[tuple[str, str, float], Figures], mrad: float) -> list[str]:
    """Return the lines of a table: pattern_sim, the generator, and their ratio."""
    lines = [
        "| set | total photons, median | ratio median / pooled | spots >= 3, median |"
        " brightest pixel, median | spot photons, 50 / 90 % |",
        "|---|---|---|---|---|---|",
    ]
    for name in data_sets():
        a, b = figures[name, "pattern_sim", mrad], figures[name, "generator", mrad]
        ratio = np.median(np.array(b.total) / np.maximum(a.total, 1e-9))
        pooled = sum(b.total) / sum(a.total)
        quantiles = [np.percentile(_bright(f.spots), [50, 90]) for f in (a, b)]
        lines.append(
            f"| {name} | {np.median(a.total):.0f} : {np.median(b.total):.0f} "
            f"| {ratio:.2f} / {pooled:.2f} "
            f"| {np.median(a.n_spots):.0f} : {np.median(b.n_spots):.0f} "
            f"| {np.median(a.brightest_px):.0f} : {np.median(b.brightest_px):.0f} "
            f"| {quantiles[0][0]:.0f} / {quantiles[0][1]:.0f} : "
            f"{quantiles[1][0]:.0f} / {quantiles[1][1]:.0f} |"
        )
    return lines


def sampled_table(figures: dict[tuple[str, str, float], Figures]) -> list[str]:
    """Return the lines that set our sampling mode beside the recorded patterns."""
    lines = [
        "| set | total, recorded : ours | spots >= 3 | brightest pixel |",
        "|---|---|---|---|",
    ]
    for name in data_sets():
        a, b = figures[name, "pattern_sim", 0.0], figures[name, "sampled", 0.0]
        for k in range(len(b.total)):
            lines.append(
                f"| {name} | {a.total[k]:.0f} : {b.total[k]:.0f} "
                f"| {a.n_spots[k]} : {b.n_spots[k]} "
                f"| {a.brightest_px[k]:.1f} : {b.brightest_px[k]:.1f} |"
            )
    return lines


def _bright(spots: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the photons of all spots of at least 3."""
    every = np.concatenate(spots)
    return np.asarray(every[every >= 3])


def report(
    figures: dict[tuple[str, str, float], Figures],
    water: dict[str, float],
    rows: list[tuple[str, float, float]],
    picture: str,
) -> str:
    """Return the report as Markdown, each pair of figures as pattern_sim : generator."""
    n = len(figures["01", "pattern_sim", 0.0].total)
    lines = [
        f"# The generator beside pattern_sim, {time.strftime('%Y-%m-%d')}",
        "",
        "    python -m hitfinder.sim.compare SOURCE OUT.md",
        "",
        f"{n} recorded orientations a data set, 10 um, 3e8 photons, 1 % band, no noise; the same "
        "orientations on both sides. Figures are pattern_sim : generator.",
        "",
        f"![Totals, spots, pixels and radial profiles of both]({picture})",
        "",
        "## Sharp, as computed",
        "",
        *table(figures, 0.0),
        "",
        "pattern_sim samples band and pixel more coarsely than a 10 um crystal's peaks are wide: "
        "it misses most of many reflections and puts too much into a few, so its typical frame "
        "and spot are fainter. Over many frames the totals come closer (the pooled ratio, which a "
        "few bright frames rule). The generator integrates.",
        "",
        f"## {DIVERGENCE_MRAD:g} mrad: pattern_sim's blurred, the generator's divergent beam",
        "",
        *table(figures, DIVERGENCE_MRAD),
        "",
        "A divergent beam also excites more reflections, each less; a blur does not.",
        "",
        "## pattern_sim's own sampling (`sim/sampled.py`), same orientations",
        "",
        *sampled_table(figures),
        "",
        "## Water, mean over the recorded mean",
        "",
        ", ".join(f"{name} {ratio:.4f}" for name, ratio in water.items()),
        "",
        "## Speed: 4M frames, median CPU ms of one core",
        "",
        "| settings | lit pixels | image |",
        "|---|---|---|",
        *(f"| {kind} | {a:.1f} | {b:.1f} |" for kind, a, b in rows),
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and write the report with its plot beside it."""
    parser = argparse.ArgumentParser(prog="python -m hitfinder.sim.compare")
    parser.add_argument("source", type=Path, help="folder with peaks_NN.h5, more/ and water.h5")
    parser.add_argument("out", type=Path, help="the report, .md; the plot is its .png")
    parser.add_argument("--sampled", type=int, default=1, help="patterns a set to sample again")
    parser.add_argument("--timed", type=int, default=100, help="frames to time, of each kind")
    chosen = parser.parse_args(arguments)
    figures = compare(chosen.source, chosen.sampled)
    picture = chosen.out.with_suffix(".png")
    draw_comparison(figures, picture)
    text = report(figures, water_ratio(chosen.source), speeds(chosen.timed), picture.name)
    chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
