"""Pictures and lines of the heads' accuracy: errors against sigma and bound, series against n."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hitfinder.workers.evaluate_heads import SERIES_FRAMES, WRONG_HEADER, HeadsStudy


def lines_of(study: HeadsStudy) -> list[str]:
    """Return the study as lines of text, Markdown tables included."""
    kinds = {
        "drawn water": study.drawn,
        "judged hits": study.judged.of(is_hit=True),
        "judged blanks": study.judged.of(is_hit=False),
    }
    lines = [
        "Single frames, 5-10 keV and 0.1-0.5 m evenly; energy / clen:",
        "",
        "| | n | within 1 sigma | within 2 sigma | median error / bound |",
        "|---|---|---|---|---|",
    ]
    for name, figures in kinds.items():
        if not figures.rows:
            continue
        one, two = figures.coverage(1), figures.coverage(2)
        ratio, told = figures.error_over_bound()
        lines.append(
            f"| {name} | {len(figures.rows)} | {one[0]:.2f} / {one[1]:.2f} | {two[0]:.2f} / "
            f"{two[1]:.2f} | {ratio[0]:.2f} / {ratio[1]:.2f} (of {told[0]} / {told[1]}) |"
        )
    lines += ["", "| set | one frame: median error | within 1 sigma | setting named |"]
    lines[-1] += "".join(f" {n} frames: median (largest) |" for n in SERIES_FRAMES)
    lines[-1] += " judged frames as a series |"
    lines.append("|---" * (5 + len(SERIES_FRAMES)) + "|")
    for name, frames in study.sets.items():
        middle, one = np.median(frames.error, axis=0), frames.coverage(1)
        cells = [
            f"{middle[0]:.0f} eV {1e3 * middle[1]:.1f} mm",
            f"{one[0]:.2f} / {one[1]:.2f}",
            f"{frames.named:.2f}",
        ]
        for n in SERIES_FRAMES:
            error = study.series[name, n].error
            middle, most = np.median(error, axis=0), error.max(axis=0)
            cells.append(
                f"{middle[0]:.0f} ({most[0]:.0f}) eV {1e3 * middle[1]:.1f} "
                f"({1e3 * most[1]:.1f}) mm"
            )
        n_judged, row = study.judged_series[name]
        off = np.subtract(row.value, row.truth)
        cells.append(
            f"{n_judged}: {off[0]:+.0f} ± {row.sigma[0]:.0f} eV {1e3 * off[1]:+.1f} ± "
            f"{1e3 * row.sigma[1]:.1f} mm"
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if study.linear_named:
        named = ", ".join(f"{name} {share:.2f}" for name, share in study.linear_named.items())
        lines += ["", f"Setting named by the report's linear heads on the same frames: {named}."]
    energy_eV, clen_m = WRONG_HEADER
    lines += [
        "",
        f"Right headers called wrong: {study.n_alarms} of {study.n_honest} series of "
        f"{SERIES_FRAMES[-1]} frames. Header {energy_eV:.0f} eV and {clen_m:g} m over frames of "
        f"02: found after {study.wrong_after} frames.",
    ]
    return lines


def draw_heads(study: HeadsStudy, path: Path) -> None:
    """Draw errors in units of sigma, errors against the bound, and series against frames."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    pulls, bounds, series = figure.subplots(1, 3)
    for name, figures in (("drawn", study.drawn), ("judged", study.judged)):
        z = (figures.error / figures.sigma)[:, 0]
        z = np.sort(z)
        pulls.plot(z, (np.arange(len(z)) + 0.5) / max(len(z), 1), label=name)
        bound = np.array([r.bound[0] for r in figures.rows])
        bounds.plot(bound, np.maximum(figures.error[:, 0], 1), ".", markersize=3, label=name)
    for n_sigma, share in ((1, 0.683), (2, 0.954)):
        pulls.plot([n_sigma], [share], "k+", markersize=12)
    pulls.set(xlim=(0, 3), xlabel="|error of energy| / sigma", ylabel="share of frames")
    limits = np.array([10, 5000])
    bounds.plot(limits, 0.674 * limits, "k-", linewidth=0.8)
    bounds.set(xscale="log", yscale="log", xlabel="bound, eV", ylabel="|error|, eV")
    for name in sorted({name for name, _ in study.series}):
        error = [np.median(study.series[name, n].error[:, 0]) for n in SERIES_FRAMES]
        series.plot(SERIES_FRAMES, np.maximum(error, 0.1), ".-", label=name)
    series.axhline(50, color="k", linewidth=0.8)
    series.set(xscale="log", yscale="log", xlabel="frames of a series", ylabel="|error|, eV")
    for axes in (pulls, bounds, series):
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
