"""`hitfinder-stream dataset`: make a data set tree, check one, repair one.

One rule: without `--repair` nothing that is there is changed: `--check` says what is wrong and
what `--repair` would do about it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hitfinder.workers.cli_app import app
from hitfinder.workers.config import ConfigError

_ALL = tuple(f"{n:02d}" for n in range(1, 10))


@app.command()
def dataset(
    tree: Annotated[Path, typer.Argument(help="Folder of the tree; its images/ is inside.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing, say what is wrong; exit 1 on faults.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what --check says can be mended.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --check: names and attributes, no images.")
    ] = False,
    per_set: Annotated[
        int, typer.Option("--per-set", min=0, help="Patterns in each data set.")
    ] = 100,
    blanks_per_set: Annotated[
        int,
        typer.Option("--blanks-per-set", min=0, help="Blanks beside each pattern's own water."),
    ] = 0,
    datasets: Annotated[
        str, typer.Option("--datasets", help="all, 02, 01..03 or commas between these.")
    ] = "all",
    crystal_um: Annotated[
        float, typer.Option("--crystal-um", help="Crystal's edge; but 10: generator only.")
    ] = 10.0,
    photons: Annotated[float, typer.Option("--photons", help="Photons a pulse.")] = 3e8,
    patterns: Annotated[
        str,
        typer.Option(
            "--patterns",
            help="generator: another orientation each frame; shipped: 8 of pattern_sim's a set, "
            "in turn; or the path of peaks_NN.h5 files (python -m hitfinder.sim.pattern_sim makes "
            "new ones where CrystFEL's program is installed) or of a tree.",
        ),
    ] = "generator",
    divergence_mrad: Annotated[
        float, typer.Option("--divergence-mrad", min=0, help="FWHM of the beam; widens spots.")
    ] = 0.0,
    label_photons: Annotated[
        float, typer.Option("--label-photons", help="Label pixels of so many expected photons.")
    ] = 1.0,
    vary: Annotated[
        bool, typer.Option("--vary", help="Vary thickness, beam centre, jet streak and rings.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same tree.")] = 0,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that draw and write.")
    ] = 1,
) -> None:
    """Make the report's tree images/{peaks,labels,water,peaks_water_overlay}/01..09, or check one.

    Each overlay is its water, drawn anew, plus Poisson counts of its noise-free peaks. A tree
    that was cut short goes on where it stopped. Train on it with `train --data`.

    Example: `hitfinder-stream dataset /data/sim --per-set 1000 --processes 8`

    Example: `hitfinder-stream dataset /data/sim --check`
    """
    if quick and not check:
        raise ConfigError("--quick goes with --check: made and repaired trees are looked at whole")
    if check or repair:
        raise typer.Exit(_check(tree, repair=repair, contents=not quick))
    from hitfinder.sim.physics import SimulationError
    from hitfinder.workers.dataset_making import TreeOptions, make_tree

    options = TreeOptions(
        datasets=parse_datasets(datasets),
        crystal_um=crystal_um,
        n_photons=photons,
        patterns=patterns,
        divergence_mrad=divergence_mrad,
        label_photons=label_photons,
        vary=vary,
        seed=seed,
    )
    _check_positive(crystal_um=crystal_um, photons=photons, label_photons=label_photons)
    n = (per_set + blanks_per_set) * len(options.datasets)
    try:
        with _progress("frames") as progress:
            bar = progress.add_task("frames", total=n)
            n_new = make_tree(
                tree,
                options,
                per_set,
                blanks_per_set,
                processes,
                on_frame=lambda _: progress.advance(bar),
            )
    except SimulationError as error:
        raise ConfigError(str(error)) from error
    print(f"{n} frames in {tree / 'images'}, {n_new} of them new")


def parse_datasets(text: str) -> tuple[str, ...]:
    """Return data set names from `all`, `02`, `01..03` or a list of these with commas.

    Raises:
        ConfigError: something else, or a data set that is none.
    """
    if text == "all":
        return _ALL
    chosen: set[str] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d\d)(?:\.\.(\d\d))?", part.strip())
        first, last = (found[1], found[2] or found[1]) if found else ("", "")
        names = [name for name in _ALL if first <= name <= last]
        if not found or first not in _ALL or last not in _ALL or not names:
            raise ConfigError(f"--datasets: got {text!r}, expected all, 02, 01..03 or 01,05,09")
        chosen.update(names)
    return tuple(sorted(chosen))


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')}: got {value}, expected more than 0")


def _check(tree: Path, *, repair: bool, contents: bool) -> int:
    """Check a tree, repair it if asked to; return the exit status."""
    from hitfinder.workers.dataset_check import check_tree, repair_tree
    from hitfinder.workers.dataset_mending import Action
    from hitfinder.workers.dataset_table import print_report

    console = Console(soft_wrap=True)

    def say(path: Path, action: Action, refused: str) -> None:
        outcome = f": NOT DONE: {refused}" if refused else ""
        console.print(f"{path}: {action}{outcome}", markup=False, highlight=False)

    with _progress("frames checked") as progress:
        bar = progress.add_task("frames checked", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        report = check_tree(tree, contents=contents, on_frame=advance)
        if repair:
            report = repair_tree(tree, report, say, advance)
    print_report(report, console, repaired=repair)
    return 0 if report.ok else 1


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """Show a bar on a terminal, nothing in a log."""
    with Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
    ) as progress:
        yield progress
