"""Read CrystFEL geometry files (.geom), as far as a hit finder needs them.

One rule: a line that is not understood where it matters is an error with its line number, never
skipped; properties that do not matter here (cards of other programs) are. Source: CrystFEL
manual page crystfel_geometry(5). Panels must lie along the axes of the image (fs = +-x, ss = +-y).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.errors import GeometryError
from hitfinder.models.geometry import Geometry

ELECTRONVOLTS = {"": 1.0, "ev": 1.0, "kev": 1e3, "mev": 1e6}
HC_EV_M = 1.239841984e-6
DIRECTION = re.compile(r"([+-]?\s*\d*\.?\d*(?:[eE][+-]?\d+)?)\s*([xyz])")


@dataclass(frozen=True, slots=True, eq=False)
class CrystfelGeometry:
    """What a .geom file says.

    Attributes:
        geometry: shape, pixel size, beam centre, and clen and photon energy where they are
            plain numbers (a path into the image file is left None).
        valid: bool (ss, fs), False in bad regions and outside all panels.
        mask_path: first `mask`/`mask0_data` entry, None if there is none.
    """

    geometry: Geometry
    valid: NDArray[np.bool_]
    mask_path: str | None


@dataclass(slots=True)
class _Region:
    """A panel or bad region while it is being read: key -> (text, line)."""

    name: str
    line: int
    keys: dict[str, tuple[str, int]] = field(default_factory=dict)

    def number(self, key: str, default: float | None = None) -> float:
        if key not in self.keys:
            if default is None:
                raise GeometryError(f"line {self.line}: {self.name} has no {key}", self.line)
            return default
        text, line = self.keys[key]
        return _number(text, f"{self.name}/{key}", line)


def read_geom(path: Path | str, shape: tuple[int, int] | None = None) -> CrystfelGeometry:
    """Read a .geom file.

    Args:
        path: the file.
        shape: (ss, fs) of the images; None takes the smallest array that holds all panels.

    Raises:
        GeometryError: unreadable file, a wrong line (named), no panel, panels that are turned or
            disagree, or that do not fit `shape`.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as err:
        raise GeometryError(f"geometry file {path}: {err}") from err
    return parse_geom(text, shape)


def parse_geom(text: str, shape: tuple[int, int] | None = None) -> CrystfelGeometry:
    """Read the text of a .geom file; arguments and errors as `read_geom`."""
    top = _Region("the file", 0)
    panels: dict[str, _Region] = {}
    bads: dict[str, _Region] = {}
    defaults: dict[str, tuple[str, int]] = {}
    for line, key, value in _assignments(text):
        name, slash, prop = key.rpartition("/")
        if not slash:
            defaults[key] = top.keys[key] = (value, line)
            continue
        if name.startswith(("rigid_group", "group")):
            continue
        kind = bads if name.startswith("bad") else panels
        if name not in kind:
            # A default holds for panels that begin after it.
            inherited = {} if kind is bads else dict(defaults)
            kind[name] = _Region(name, line, inherited)
        kind[name].keys[prop] = (value, line)
    if not panels:
        raise GeometryError("no panel (name/min_fs = ...) in the geometry file")
    extent = _extent(panels, shape)
    pixel_size_m, beam_px = _placement(panels)
    geometry = Geometry(
        extent, (pixel_size_m, pixel_size_m), beam_px, _clen_m(panels), _energy_eV(top)
    )
    return CrystfelGeometry(geometry, _valid(panels, bads, geometry), _mask_path(panels))


def _assignments(text: str) -> Iterator[tuple[int, str, str]]:
    for line, raw in enumerate(text.splitlines(), 1):
        content = raw.partition(";")[0].strip()
        if not content:
            continue
        key, equals, value = (part.strip() for part in content.partition("="))
        if not equals or not key:
            raise GeometryError(f"line {line}: {content!r}; expected 'key = value'", line)
        yield line, key, value


def _number(text: str, key: str, line: int) -> float:
    try:
        number = float(text.split()[0])
    except (ValueError, IndexError):
        number = math.nan
    if not math.isfinite(number):
        raise GeometryError(f"line {line}: {key} = {text!r}; expected a number", line)
    return number


def _box(region: _Region) -> tuple[slice, slice]:
    """Return the (ss, fs) slices of a region given in fs/ss, both ends inclusive."""
    edges = [int(region.number(k)) for k in ("min_ss", "max_ss", "min_fs", "max_fs")]
    if edges[0] < 0 or edges[2] < 0 or edges[1] < edges[0] or edges[3] < edges[2]:
        raise GeometryError(
            f"line {region.line}: {region.name} spans ss {edges[0]} to {edges[1]}, "
            f"fs {edges[2]} to {edges[3]}; expected 0 <= min <= max",
            region.line,
        )
    return slice(edges[0], edges[1] + 1), slice(edges[2], edges[3] + 1)


def _extent(panels: dict[str, _Region], shape: tuple[int, int] | None) -> tuple[int, int]:
    boxes = [_box(p) for p in panels.values()]
    needed = max(ss.stop for ss, _ in boxes), max(fs.stop for _, fs in boxes)
    if shape is None:
        if needed[0] * needed[1] > 2**28:
            raise GeometryError(f"panels reach (ss, fs) = {needed}; no detector is that large")
        return needed
    if needed[0] > shape[0] or needed[1] > shape[1]:
        raise GeometryError(f"panels reach (ss, fs) = {needed}; the images have {shape}")
    return shape


def _direction(panel: _Region, key: str, default: str) -> tuple[float, float]:
    """Return (x, y) of a panel's fs or ss vector."""
    text, line = panel.keys.get(key, (default, panel.line))
    parts = dict.fromkeys("xyz", 0.0)
    for number, axis in DIRECTION.findall(text):
        sign = number.replace(" ", "")
        factor = sign + "1" if sign in ("", "+", "-") else sign
        parts[axis] = _number(factor, f"{panel.name}/{key}", line)
    if not (parts["x"] or parts["y"]):
        raise GeometryError(f"line {line}: {panel.name}/{key} = {text!r}; expected x and y", line)
    return parts["x"], parts["y"]


def _placement(panels: dict[str, _Region]) -> tuple[float, tuple[float, float]]:
    """Return pixel size and beam centre, mean over panels, after checking that they agree."""
    centres, sizes = [], []
    for panel in panels.values():
        fs, ss = _direction(panel, "fs", "1.0x"), _direction(panel, "ss", "1.0y")
        # A turn of 0.02 rad moves the far corner of a module by 20 px: more than rings bear.
        if abs(fs[1]) > 0.02 or abs(ss[0]) > 0.02:
            raise GeometryError(
                f"line {panel.line}: {panel.name} is turned against the image; expected fs along "
                "x and ss along y",
                panel.line,
            )
        res = panel.number("res")
        if res <= 0:
            raise GeometryError(f"line {panel.line}: {panel.name}/res = {res}", panel.line)
        sizes.append(1 / res)
        rows, columns = _box(panel)
        x = columns.start - panel.number("corner_x") / fs[0] - 0.5
        y = rows.start - panel.number("corner_y") / ss[1] - 0.5
        centres.append((x, y))
    spread = np.ptp(np.array(centres), axis=0).max()
    if spread > 20 or max(sizes) > 1.001 * min(sizes):
        raise GeometryError(
            f"panels put the beam centre {spread:.1f} px apart or differ in res; expected panels "
            "that lie as they are stored"
        )
    mean = np.mean(centres, axis=0)
    return float(np.mean(sizes)), (float(mean[0]), float(mean[1]))


def _clen_m(panels: dict[str, _Region]) -> float | None:
    """Return the camera length in metres; None where it is a path into the image file."""
    text, line = next(iter(panels.values())).keys.get("clen", ("/", 0))
    if text.startswith("/") or "$" in text:
        return None
    unit = (text.split()[1:2] or ["m"])[0].lower()
    if unit not in ("m", "mm"):
        raise GeometryError(f"line {line}: clen in {unit!r}; expected m or mm", line)
    return _number(text, "clen", line) * (1e-3 if unit == "mm" else 1.0)


def _energy_eV(top: _Region) -> float | None:
    """Return the photon energy from photon_energy or wavelength; None where it is a path."""
    for key in ("photon_energy", "wavelength"):
        text, line = top.keys.get(key, ("/", 0))
        if text.startswith("/") or "$" in text:
            continue
        number = _number(text, key, line)
        unit = (text.split()[1:2] or [""])[0]
        if key == "wavelength":
            metres = number * (1e-10 if unit == "A" else 1.0)
            return HC_EV_M / metres if metres > 0 else None
        if unit.lower() not in ELECTRONVOLTS:
            raise GeometryError(f"line {line}: photon_energy in {unit!r}; expected eV", line)
        # CrystFEL's MeV and a slip of the pen for meV look alike; only MeV exists.
        return number * ELECTRONVOLTS[unit.lower()]
    return None


def _valid(
    panels: dict[str, _Region], bads: dict[str, _Region], geometry: Geometry
) -> NDArray[np.bool_]:
    """Return pixels on a panel and in no bad region."""
    valid = np.zeros(geometry.shape, np.bool_)
    for panel in panels.values():
        if panel.number("no_index", 0) == 0:
            valid[_box(panel)] = True
    for bad in bads.values():
        if "min_fs" in bad.keys or "min_ss" in bad.keys:
            rows, columns = _box(bad)
            on = bad.keys.get("panel")
            if on is not None:
                if on[0] not in panels:
                    raise GeometryError(f"line {on[1]}: no panel {on[0]!r}", on[1])
                of = _box(panels[on[0]])
                rows = slice(max(rows.start, of[0].start), min(rows.stop, of[0].stop))
                columns = slice(max(columns.start, of[1].start), min(columns.stop, of[1].stop))
            valid[rows, columns] = False
        else:
            _cut_xy(valid, bad, geometry)
    return valid


def _cut_xy(valid: NDArray[np.bool_], bad: _Region, geometry: Geometry) -> None:
    """Take away a bad region given in laboratory x and y, pixels from the beam."""
    x = np.arange(geometry.shape[1]) - geometry.beam_center_px[0]
    y = np.arange(geometry.shape[0]) - geometry.beam_center_px[1]
    columns = (x >= bad.number("min_x")) & (x <= bad.number("max_x"))
    rows = (y >= bad.number("min_y")) & (y <= bad.number("max_y"))
    valid[np.ix_(rows, columns)] = False


def _mask_path(panels: dict[str, _Region]) -> str | None:
    keys = next(iter(panels.values())).keys
    for name in ("mask", "mask0_data", "mask_file", "mask0_file"):
        if name in keys:
            return keys[name][0]
    return None
