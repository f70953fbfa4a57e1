"""Log lines as ``key=value`` pairs, for people and for machines."""

from __future__ import annotations

import json
import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """``time=… level=… logger=… message=…`` and then whatever was passed as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback is in it, with its line ends escaped."""
        moment = time.gmtime(record.created)
        pairs = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        pairs |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            pairs["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_value(value)}" for key, value in pairs.items())


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the log of this process to stderr, unless something has set up logging already."""
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    # It names every URL that is asked, and the decoder's may hold a password or a key.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _value(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and not set(text) & set(' "=')
    return text if text and plain else json.dumps(text, ensure_ascii=False)
