"""Where what the best results of codes are compared by anew can be kept: ``rerank``."""

from __future__ import annotations

from vecdb.errors import InvalidParameterError, shown

RERANKS = ("memory", "mmap", "none")
"""In their order in stored headers."""


def one_of(name: str, value: str, values: tuple[str, ...]) -> str:
    """Return `value`.

    Raises
    ------
    InvalidParameterError
        If it is not among `values`.
    """
    if value not in values:
        names = ", ".join(repr(each) for each in values)
        raise InvalidParameterError(f"{name}={shown(value)}: must be one of {names}")
    return value
