"""Sizes as people write them: ``512MiB``, ``20 GB``."""

from __future__ import annotations

import re

from vecdb.errors import InvalidParameterError

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE | re.ASCII)
_POWERS = " kmgtp"


def parse_size(text: str) -> int:
    """Return the bytes that a size stands for; kB is 1,000 of them and KiB 1,024.

    Raises
    ------
    InvalidParameterError
        If it is not a number with or without a unit.

    Examples
    --------
    >>> parse_size("1.5 GiB"), parse_size("20GB"), parse_size("4096")
    (1610612736, 20000000000, 4096)
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        raise InvalidParameterError(
            f"size {text!r:.100}: must be a number of bytes, or one with a unit, such as 512MiB or "
            "20GB"
        )
    base = 1_024 if match[3] else 1_000
    return int(float(match[1]) * base ** _POWERS.index(match[2].lower() or " "))
