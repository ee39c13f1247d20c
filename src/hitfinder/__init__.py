"""hitfinder-stream: an online hit finder attached to a DECTRIS Eiger detector.

`hitfinder.stream` moves frames, `hitfinder.models` judges them, `hitfinder.workers` runs the
processes, `hitfinder.sim` is a detector that is not there.
"""

__version__ = "0.1.0"


class HitfinderError(Exception):
    """Root of every error this program raises on purpose.

    Children say who must act: `ConfigError` (operator), `WireError` (detector or network),
    `RingError` and `ModelError` (this program). The text says what, got, expected, next step.
    """
