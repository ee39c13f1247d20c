"""A change that is asked for and not made."""

from __future__ import annotations

from hitfinder import HitfinderError


class RefusedError(HitfinderError):
    """A change that is not made.

    Attributes:
        status: as HTTP names it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
