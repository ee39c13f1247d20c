"""The sub-command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hitfinder import HitfinderError
from hitfinder.workers.cli_app import app
from hitfinder.workers.config import ConfigError


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one series' folder in it.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, NAME.cxi.")],
) -> None:
    """Copy the hits of a run into one CXI file, with a .geom beside it.

    CrystFEL and DIALS need none: they read a series' `hits.lst` and `master.h5` as they are. Take
    it for programs that read Cheetah's layout, or to hand over one file. Images stay the bytes
    that they are; spots, verdicts, energy and camera length of header or config go with them.

    Example: `hitfinder-stream export /data/run12 --out run12.cxi`
    """
    from hitfinder.stream.check import series_folders
    from hitfinder.stream.cxi import read_layouts, write_cxi
    from hitfinder.workers.terminal import progressed

    if out.suffix != ".cxi":
        raise ConfigError(f"--out: got {out}, expected a name that ends in .cxi")
    if not run.is_dir():
        raise ConfigError(f"run {run}: no such folder; give what `run` was given as --out")
    layouts = read_layouts(series_folders(run))
    if not layouts:
        raise HitfinderError(f"run {run}: no hits in series_*/hits_*.h5, so nothing to export")
    n_rows = write_cxi(out, layouts, lambda files: progressed(files, "files"))
    print(
        f"{out}: {n_rows} hits of {len(layouts)} files; {out.with_suffix('.geom').name} beside it"
    )
