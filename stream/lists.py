"""What CrystFEL is started with: `hits.lst`, `misses.lst` and `detector.geom`.

One rule: a list line is `file //row` with the file named beside the list, so CrystFEL runs in
the series folder; peaks of a row are at the same row (crystfel_geometry(5), indexamajig(1)).
The panel lies as in the master file: x to the left seen along the beam, y up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hitfinder.stream.nexus import RunGeometry
from hitfinder.stream.swmr import replace_file

# CrystFEL compares as 32-bit floats, where 2**32 - 2 and 2**32 - 1 are the same number; no
# real count comes near 2e9.
_MOST_UINT32 = 2_000_000_000
_BAD_BITS = 0x1FF  # NeXus pixel_mask bits 0-7 and the user's bit 8


@dataclass(frozen=True, slots=True)
class Places:
    """Where a .geom sends CrystFEL for what stands in the files.

    Attributes:
        images, peaks: datasets (N, ss, fs) and a group of CXI peaks.
        photon_energy, clen: a dataset (N,) and its unit; None where one value holds for all.
        mask: dataset (ss, fs); mask_file: the file it is in, None if there is no mask.
        is_streamed: not in files: an image a message, -1 where nothing was counted.
    """

    images: str = "/entry/data/data"
    peaks: str = "/entry/result"
    photon_energy: str | None = None
    clen: str | None = None
    mask: str = "/entry/instrument/detector/pixel_mask"
    mask_file: str | None = None
    is_streamed: bool = False


def write_list(path: Path, files: Iterable[tuple[str, int]]) -> None:
    """Write every row of the files, given as (name, number of rows), one line each."""
    lines = (f"{name} //{row}\n" for name, n_rows in files for row in range(n_rows))
    replace_file(path, lambda part: _write(part, "".join(lines)))


def read_list(path: Path) -> list[tuple[str, int]]:
    """Return a list's lines as (file, row).

    Raises:
        ValueError: a line is not `file //row`.
    """
    places = []
    for line in path.read_text().splitlines():
        name, row = line.rsplit(" //", 1)
        places.append((name, int(row)))
    return places


def write_geom(
    path: Path,
    geometry: RunGeometry,
    shape: tuple[int, int],
    dtype: str,
    saturation_value: int | None = None,
    places: Places | None = None,
) -> None:
    """Write a CrystFEL geometry for one panel of shape (ss, fs).

    What is unknown is a comment that says so: CrystFEL then names the line it misses.

    Args:
        dtype: of the images; its highest value marks pixels without a count.
        saturation_value: highest valid count, if the header says.
        places: where things stand; None for hit files without a mask.
    """
    places = places or Places()
    text = "\n".join(
        [
            "; written by hitfinder-stream: geometry of header and config, not predicted",
            *_beam_lines(geometry, places),
            "adu_per_photon = 1",
            *_layout_lines(dtype, places),
            *_panel_lines(geometry, shape, saturation_value),
            "",
        ]
    )
    replace_file(path, lambda part: _write(part, text))


def _write(part: Path, text: str) -> None:
    part.write_text(text)


def _beam_lines(geometry: RunGeometry, places: Places) -> list[str]:
    said = geometry.sources
    columns = {"photon_energy": places.photon_energy, "clen": places.clen}
    energy, clen, size = geometry.photon_energy_eV, geometry.clen_m, geometry.pixel_size_m
    lines = []
    for name, value, unit, key in (
        ("photon_energy", energy, " eV", "photon_energy_eV"),
        ("clen", clen, " m", "clen_m"),
        ("res", 1 / size[0] if size else None, "", "pixel_size_m"),
    ):
        if column := columns.get(name):
            lines.append(f"{name} = {column}")
        elif value is None:
            lines.append(f"; {name} is unknown: neither the header nor the config says")
        else:
            lines.append(f"{name} = {value:.10g}{unit} ; from {said.get(key, 'header')}")
    return lines


def _layout_lines(dtype: str, places: Places) -> list[str]:
    if places.is_streamed:
        return [f"data = {places.images}", f"peak_list = {places.peaks}", "flag_lessthan = 0"]
    most = min(int(np.iinfo(dtype).max) - 1, _MOST_UINT32)
    lines = [
        f"data = {places.images}",
        "dim0 = %",
        "dim1 = ss",
        "dim2 = fs",
        f"peak_list = {places.peaks}",
        "peak_list_type = cxi",
        f"flag_morethan = {most}",
    ]
    if places.mask_file is not None:
        lines += [
            f"mask0_file = {places.mask_file}",
            f"mask0_data = {places.mask}",
            "mask0_goodbits = 0x0",
            f"mask0_badbits = {_BAD_BITS:#x}",
        ]
    return lines


def _panel_lines(
    geometry: RunGeometry, shape: tuple[int, int], saturation_value: int | None
) -> list[str]:
    n_ss, n_fs = shape
    lines = [
        "panel0/min_fs = 0",
        f"panel0/max_fs = {n_fs - 1}",
        "panel0/min_ss = 0",
        f"panel0/max_ss = {n_ss - 1}",
        "panel0/fs = -1.0x +0.0y",
        "panel0/ss = +0.0x -1.0y",
    ]
    if saturation_value is not None:  # CrystFEL wants it when merging, not here
        lines.append(f"; counts are valid up to {saturation_value}: merge with --max-adu")
    if geometry.beam_center_px is None:
        return [*lines, "; panel0/corner_x, corner_y are unknown: no beam centre"]
    fs, ss = geometry.beam_center_px
    return [*lines, f"panel0/corner_x = {fs:.6f}", f"panel0/corner_y = {ss:.6f}"]
