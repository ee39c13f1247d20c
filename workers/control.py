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

from hitfinder.models.calibration import GateMode, load_calibration
from hitfinder.models.errors import ModelError
from hitfinder.models.weights_file import shipped_path
from hitfinder.stream.controls import Change, Controls, Replacement
from hitfinder.stream.ring import Ring
from hitfinder.workers.candidates import Candidates
from hitfinder.workers.config import Config, ConfigError
from hitfinder.workers.refusal import RefusedError

log = logging.getLogger(__name__)

# A token that cannot be guessed; `openssl rand -hex 16` makes one of 32.
MIN_TOKEN = 16
# After a wrong token nobody is heard for so long: guessing takes for ever.
WRONG_TOKEN_S = 1.0
# Changes told in `status`.
SHOWN = 8
# The longest that two models are compared: who asks waits for the answer.
MOST_SHADOW_FRAMES, MOST_SHADOW_S = 1_000_000, 3600.0


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays."""

    threshold: float | None = None
    max_false_positive_rate: float | None = None
    miss_sample_fraction: float | None = None
    model: str | None = None
    """Weights, a file on the daemon's machine with its card beside it, or `configured`."""
    mask: str | None = None
    """The operator's mask, such a file, or `configured`."""
    shadow_frames: int = 200
    """Frames that both models judge before the new one holds; 0 takes it unseen."""
    shadow_s: float = 60.0
    """Less will do after this time, but not none."""
    compare_only: bool = False
    """The new one does not come to hold."""

    def shares(self) -> dict[str, float | None]:
        """Return what is a share or a probability."""
        names = ("threshold", "max_false_positive_rate", "miss_sample_fraction")
        return {name: getattr(self, name) for name in names}

    @property
    def replaces(self) -> bool:
        """Say whether model or mask are to be replaced."""
        return self.model is not None or self.mask is not None


class Control:
    """Makes changes.

    Args:
        config: for the token, and for what a false-positive rate means.
        runtime: folder that the daemon's processes share.
        n_workers: of the daemon; 0 where other hosts judge.

    Attributes:
        candidates: brings another model or mask into force.

    Raises:
        ConfigError: there is a token file, and it cannot be read or holds no token.
    """

    def __init__(self, ring: Ring, config: Config, runtime: Path, n_workers: int) -> None:
        self._controls, self._gate, self._n_workers = Controls(ring), config.gate, n_workers
        configured = Path(config.gate.model) if config.gate.model else shipped_path()
        self.candidates = Candidates(ring, runtime, n_workers, configured)
        self._token = read_token(config.http.token_file)
        self._checking, self._replacing = threading.Lock(), threading.Lock()
        self._deaf_until_s = 0.0
        # What the threshold follows from: it is kept when the model changes.
        is_given = config.gate.threshold is not None
        self._rate = None if is_given else config.gate.max_false_positive_rate

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
        """Make the change that a JSON body asks for; a model or mask takes its time.

        Returns:
            What holds now, and from which frame of which series on; `compared` is what
            `Candidates` says of another model or mask, and all there is where it was to be
            compared only.

        Raises:
            RefusedError: the body is no such wish, or asks for what cannot be.
        """
        wish = _read(body)
        if not wish.replaces:
            return self._put(wish, None, None, None)
        if not self._n_workers:
            raise RefusedError(
                409,
                "this daemon's judges stand on other hosts, and take no other model or mask while "
                "they judge; replay into another --out with gate.model or geometry.mask set",
            )
        if not self._replacing.acquire(blocking=False):
            raise RefusedError(409, "another model or mask is on its way; see `candidate`")
        model = mask = None
        try:
            model = self.candidates.copy_model(wish.model) if wish.model is not None else None
            mask = self.candidates.copy_mask(wish.mask) if wish.mask is not None else None
            compared = self._compare(wish, model, mask)
            if wish.compare_only:
                return {"compared": compared}
            said = self._put(wish, model, mask, compared)
            self.candidates.put_in_force()
            return said
        finally:
            self.candidates.end(model, mask)
            self._replacing.release()

    def latest(self) -> list[dict[str, Any]]:
        """Return the latest changes, oldest first."""
        return [_said(change) for change in self._controls.all()[-SHOWN:]]

    def _put(
        self,
        wish: Wish,
        model: Replacement | None,
        mask: Replacement | None,
        compared: dict[str, Any] | None,
    ) -> dict[str, Any]:
        # Found anew: a threshold may have been set while models were compared.
        threshold, rate = self._threshold(wish, model)
        try:
            change = self._controls.put(
                threshold=threshold,
                miss_sample_fraction=wish.miss_sample_fraction,
                model=model,
                mask=mask,
            )
        except ValueError as error:
            raise RefusedError(409, str(error)) from error
        self._rate = rate
        said = _said(change)
        log.info("changed by the operator: %s", said, extra={"said": said})
        return {**said, "compared": compared}

    def _compare(
        self, wish: Wish, model: Replacement | None, mask: Replacement | None
    ) -> dict[str, Any]:
        now, (threshold, _) = self._controls.latest(), self._threshold(wish, model)
        in_force = self._gate.threshold if now.threshold is None else now.threshold
        would_be = now._replace(
            threshold=in_force if threshold is None else threshold,
            model=now.model if model is None else model.sha256,
            mask=now.mask if mask is None else mask.sha256,
            n_masks=now.n_masks + (mask is not None),
        )
        return self.candidates.compare(
            would_be, wish.shadow_frames, wish.shadow_s, has_model=model is not None
        )

    def _threshold(
        self, wish: Wish, model: Replacement | None
    ) -> tuple[float | None, float | None]:
        """Return the threshold to put, None if it stays, and the rate that it follows from."""
        if wish.threshold is not None:
            return wish.threshold, None
        asked = wish.max_false_positive_rate
        rate = self._rate if asked is None else asked
        if rate is None or (asked is None and model is None):
            return None, rate
        sha256 = self._controls.latest().model if model is None else model.sha256
        try:
            calibration = load_calibration(self.candidates.weights(sha256))
            return calibration.threshold(GateMode(self._gate.mode), rate), rate
        except ModelError as error:
            raise RefusedError(400, str(error)) from error


def _read(body: bytes) -> Wish:
    """Return what is wished for.

    Raises:
        RefusedError: it is not in the form of a wish, or cannot be.
    """
    try:
        wish = msgspec.json.decode(body, type=Wish)
    except msgspec.DecodeError as error:
        raise RefusedError(400, f'{error}; expected e.g. {{"threshold": 0.95}}') from error
    shares = wish.shares()
    for name, value in shares.items():
        if value is not None and not 0.0 <= value <= 1.0:
            raise RefusedError(400, f"{name}: got {value}, expected 0 to 1")
    if wish.threshold is not None and wish.max_false_positive_rate is not None:
        raise RefusedError(400, "threshold and max_false_positive_rate: give one of them")
    if not wish.replaces and all(value is None for value in shares.values()):
        names = ", ".join([*shares, "model", "mask"])
        raise RefusedError(400, f"nothing to change: give {names}")
    for name, most in (("shadow_frames", MOST_SHADOW_FRAMES), ("shadow_s", MOST_SHADOW_S)):
        if not 0 <= getattr(wish, name) <= most:
            raise RefusedError(400, f"{name}: got {getattr(wish, name)}, expected 0 to {most:g}")
    if wish.compare_only and wish.model is None:
        raise RefusedError(400, "compare_only: give a model")
    return wish


def _said(change: Change) -> dict[str, Any]:
    """Return a change as it is told; a series that was still to come has no number."""
    return {"series": change.series, **change.values()}


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
