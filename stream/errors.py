"""Errors of the stream floor. One tree under `HitfinderError`; children by who must act."""

from hitfinder import HitfinderError


class WireError(HitfinderError):
    """Bytes from a detector or a recording that do not follow their format.

    Attributes:
        series: series id, if the message got far enough to name one.
        frame: frame number, if known; then the frame gets a `corrupt` verdict.
    """

    def __init__(self, text: str, series: int | None = None, frame: int | None = None) -> None:
        super().__init__(text)
        self.series = series
        self.frame = frame


class RingError(HitfinderError):
    """The shared-memory ring was asked for something impossible."""


class StoreError(HitfinderError):
    """A file of a run cannot be written or read back."""
