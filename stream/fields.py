"""Values of an untrusted header: read as what they should be, or None and a warning.

The one rule: a missing value is None without a word, an odd one is None with a sentence, and
nothing here raises but `natural`, for ids without which a message is nobody's. Which keys may be
missing or odd: protocol note, sections 2.1 and 4.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from hitfinder.stream.cbor import Tagged
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import MAX_FRAMES, MAX_PIXELS

# Photon energy times wavelength, eV A (CODATA 2018: h c / e).
HC_EV_A = 12398.419843320026
# Whole numbers must fit the int64 columns that they end up in.
MAX_INTEGER = (1 << 63) - 1
# Longest text kept of one value, and deepest nesting: a header is for people to read.
MAX_TEXT = 4096
MAX_DEPTH = 16

_UID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def located(error: WireError, series: int | None, frame: int | None) -> WireError:
    """Return the error with the ids of the message it happened in."""
    if series is None:
        return WireError(str(error))
    where = f"series {series}" if frame is None else f"frame {frame} of series {series}"
    return WireError(f"{where}: {error}", series, frame)


def is_natural(value: object, limit: int = MAX_INTEGER) -> TypeGuard[int]:
    """Tell whether a value is a whole number from 0 to `limit` (and not a truth value)."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def natural(mapping: Mapping[Any, Any], key: str, limit: int = MAX_INTEGER) -> int:
    """Return a whole number that a message must have.

    Raises:
        WireError: missing, not a whole number, negative or above `limit`.
    """
    value = mapping.get(key)
    if not is_natural(value, limit):
        raise WireError(f"{key} is {shown(value)}; expected a whole number from 0 to {limit}")
    return value


def shown(value: object) -> str:
    """Return a short text of any value, for an error."""
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, float | bool | None) or is_natural(value):
        return repr(value)
    return f"a {type(value).__name__}"


class Fields:
    """The values of one header by name; `warnings` gathers what was odd."""

    def __init__(self, mapping: Mapping[Any, Any]) -> None:
        self._mapping = mapping
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        """Note something odd but survivable."""
        self.warnings.append(sentence)

    def number(self, key: str) -> float | None:
        """Return a finite number, in the unit of the wire."""
        value = self._mapping.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Comparing first: float() of a huge integer overflows.
            if -1e300 < value < 1e300:
                return float(value)
        self.warn(f"{key} is {shown(value)}; expected a finite number")
        return None

    def positive(self, key: str) -> float | None:
        """Return a number above zero. Zero is how a detector says "not set" [REAL1]."""
        value = self.number(key)
        if value is not None and value < 0:
            self.warn(f"{key} is {value}; expected a number above 0")
        return value if value is not None and value > 0 else None

    def pair(self, x: str, y: str) -> tuple[float, float] | None:
        """Return two numbers, unless one is missing or both are 0, which means "not set"."""
        first, second = self.number(x), self.number(y)
        if first is None or second is None or (first == 0 and second == 0):
            return None
        return first, second

    def positive_pair(self, x: str, y: str) -> tuple[float, float] | None:
        """Return two numbers above zero, or None if one is missing."""
        first, second = self.positive(x), self.positive(y)
        return None if first is None or second is None else (first, second)

    def photon_energy_eV(self, *keys: str) -> float | None:
        """Return the first energy that is set; the last key is a wavelength in A."""
        for key in keys[:-1]:
            energy_eV = self.positive(key)
            if energy_eV is not None:
                return energy_eV
        wavelength_A = self.positive(keys[-1])
        return None if wavelength_A is None else HC_EV_A / wavelength_A

    def bounded_n_frames(self, n_frames: int | None) -> int | None:
        """Return the announced count, unless it means "until stopped by hand" (or is absurd)."""
        if n_frames is None or 0 < n_frames <= MAX_FRAMES:
            return n_frames
        self.warn(f"number of images is not within 1 to {MAX_FRAMES}; only the end will tell")
        return None

    def integer(self, key: str) -> int | None:
        """Return a whole number from 0; 12440.0 is one."""
        value = self._mapping.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None:
            return None
        if not is_natural(value):
            self.warn(f"{key} is {shown(value)}; expected a whole number")
            return None
        return value

    def shape(self, x: str, y: str) -> tuple[int, int] | None:
        """Return the announced (ss, fs), if an image may have it."""
        fs, ss = self.integer(x), self.integer(y)
        if fs is None or ss is None:
            return None
        if not 0 < fs * ss <= MAX_PIXELS:
            self.warn(f"{x}, {y} = {fs}, {ss}; expected 1 to {MAX_PIXELS} pixels")
            return None
        return ss, fs

    def text(self, key: str) -> str | None:
        """Return a text, or the text of a CBOR DateTime."""
        value = self._mapping.get(key)
        if isinstance(value, Tagged) and value.tag == 0:
            value = value.value
        if value is None:
            return None
        if not isinstance(value, str):
            self.warn(f"{key} is {shown(value)}; expected text")
            return None
        return _printable(value)


def uid(value: object) -> str | None:
    """Return a series' unique id if a folder may be named after it."""
    return value if isinstance(value, str) and _UID.fullmatch(value) else None


def plain(value: Any, depth: int = 0) -> Any:
    """Return a JSON-like copy of a header value, fit to be packed, printed and kept.

    Byte strings become a text that tells their length; numbers and nesting out of bounds too.
    """
    if isinstance(value, Tagged):
        return plain(value.value, depth)
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, Mapping | list):
        if depth >= MAX_DEPTH:
            return "<nested deeper>"
        if isinstance(value, list):
            return [plain(v, depth + 1) for v in value]
        return {_printable(str(k)): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, bytes | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        return "<integer beyond 64 bit>"
    return value


def _printable(text: str) -> str:
    """Return text that can be encoded (JSON may hold lone surrogates), cut to a bound."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
