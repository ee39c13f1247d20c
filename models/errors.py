"""Errors of the models floor. One tree under `HitfinderError`; children by who must act."""

from hitfinder import HitfinderError


class ModelError(HitfinderError):
    """Weights, calibration or arguments of a model that cannot be used as they are."""


class GeometryError(HitfinderError):
    """A geometry or mask file of the operator that cannot be read or does not fit the detector.

    Attributes:
        line: line number in the file, counted from 1, where one line is at fault.
    """

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line
