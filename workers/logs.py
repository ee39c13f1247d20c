"""The log of a daemon's processes, to stderr: lines for people, or one JSON object a line.

One rule: both say the same. An object has `t` (UTC), `level`, `process`, `logger`, `message`, and
for what a program may act on the figures by name: `extra={"said": {...}}` where it is logged.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

from hitfinder.workers.config import LogConfig

TEXT = "%(asctime)s %(levelname)s {prefix}%(message)s"


class JsonLines(logging.Formatter):
    """Makes one JSON object of a log record.

    Args:
        process: who logs, e.g. `worker`.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as a line."""
        line = {
            "t": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode({**line, **getattr(record, "said", {})}).decode()


def log_to_stderr(config: LogConfig, process: str = "supervisor") -> None:
    """Log from here on in this form."""
    handler = logging.StreamHandler(sys.stderr)
    if config.form == "json":
        handler.setFormatter(JsonLines(process))
    else:
        prefix = "" if process == "supervisor" else f"{process}: "
        handler.setFormatter(logging.Formatter(TEXT.format(prefix=prefix)))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
