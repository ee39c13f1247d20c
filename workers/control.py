"""What the operator may change from the page or `hitfinder-stream set`, and who may.

One rule: nothing is changed without the token, and every change says from which frame on it
holds. The token is the first line of `http.token_file`; without that file nothing can be changed.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from hitfinder import HitfinderError
from hitfinder.models.calibration import GateMode, load_calibration
from hitfinder.models.errors import ModelError
from hitfinder.stream.controls import Change, Controls
from hitfinder.stream.ring import Ring
from hitfinder.workers.config import Config, ConfigError

log = logging.getLogger(__name__)

# A token that cannot be guessed; `openssl rand -hex 16` makes one of 32.
MIN_TOKEN = 16
# After a wrong token nobody is heard for so long: guessing takes for ever.
WRONG_TOKEN_S = 1.0
# Changes told in `status`.
SHOWN = 8


class RefusedError(HitfinderError):
    """A change that is not made.

    Attributes:
        status: as HTTP names it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays."""

    threshold: float | None = None
    max_false_positive_rate: float | None = None
    miss_sample_fraction: float | None = None


class Control:
    """Makes changes.

    Args:
        config: for the token, and for what a false-positive rate means.

    Raises:
        ConfigError: there is a token file, and it cannot be read or holds no token.
    """

    def __init__(self, ring: Ring, config: Config) -> None:
        self._controls, self._gate = Controls(ring), config.gate
        self._token = read_token(config.http.token_file)
        self._checking = threading.Lock()
        self._deaf_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Say whether anything can be changed at all."""
        return self._token is not None

    def check(self, authorization: str) -> None:
        """Check an `Authorization` header.

        Raises:
            RefusedError: there is no token to know, it is another one, or a wrong one was just
                tried.
        """
        if self._token is None:
            raise RefusedError(403, "http.token_file is not configured: nothing can be changed")
        with self._checking:
            if time.monotonic() < self._deaf_until_s:
                raise RefusedError(429, "a wrong token was just tried; wait a second")
            given = authorization.removeprefix("Bearer ").strip().encode()
            if not hmac.compare_digest(given, self._token):
                self._deaf_until_s = time.monotonic() + WRONG_TOKEN_S
                log.warning("a change was asked for with a wrong token")
                raise RefusedError(401, "wrong token; it is the first line of http.token_file")

    def change(self, body: bytes) -> dict[str, Any]:
        """Make the change that a JSON body asks for.

        Returns:
            What holds now, and from which frame of which series on.

        Raises:
            RefusedError: the body is no such wish, or asks for what cannot be.
        """
        try:
            wish = msgspec.json.decode(body, type=Wish)
        except msgspec.DecodeError as error:
            raise RefusedError(400, f'{error}; expected e.g. {{"threshold": 0.95}}') from error
        values = msgspec.structs.asdict(wish)
        for name, value in values.items():
            if value is not None and not 0.0 <= value <= 1.0:
                raise RefusedError(400, f"{name}: got {value}, expected 0 to 1")
        rate = values.pop("max_false_positive_rate")
        if rate is not None:
            if wish.threshold is not None:
                raise RefusedError(400, "threshold and max_false_positive_rate: give one of them")
            values["threshold"] = self._threshold(rate)
        if all(value is None for value in values.values()):
            raise RefusedError(400, "nothing to change: give " + ", ".join(Wish.__struct_fields__))
        try:
            change = self._controls.put(**values)
        except ValueError as error:
            raise RefusedError(409, str(error)) from error
        said = _said(change)
        log.info("changed by the operator: %s", said)
        return said

    def latest(self) -> list[dict[str, Any]]:
        """Return the latest changes, oldest first."""
        return [_said(change) for change in self._controls.all()[-SHOWN:]]

    def _threshold(self, max_false_positive_rate: float) -> float:
        try:
            calibration = load_calibration(Path(self._gate.model) if self._gate.model else None)
            return calibration.threshold(GateMode(self._gate.mode), max_false_positive_rate)
        except ModelError as error:
            raise RefusedError(400, str(error)) from error


def _said(change: Change) -> dict[str, Any]:
    """Return a change as it is told; a series that was still to come has no number."""
    return {name: value for name, value in change._asdict().items() if name != "key"}


def read_token(path: str | None) -> bytes | None:
    """Return the token of a file, None if there is no file to read.

    Raises:
        ConfigError: it cannot be read, or its first line is too short to be a secret.
    """
    if path is None:
        return None
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"http.token_file {path}: {error.strerror}") from error
    token = lines[0].strip() if lines else b""
    if len(token) < MIN_TOKEN:
        raise ConfigError(
            f"http.token_file {path}: its first line has {len(token)} characters, expected "
            f"{MIN_TOKEN} or more; e.g. openssl rand -hex 16"
        )
    return token
