"""What a forked child has of its parent's database: nothing that it could use."""

from __future__ import annotations

from typing import Any, NoReturn

from vecdb.errors import FailedPreconditionError


class Inherited:
    """Stands in a forked child for a part of the parent's database, and refuses whatever is asked.

    The files are the parent's, and a lock may have been held, when it forked, by a thread that
    the child does not have: it would never be given back.

    Parameters
    ----------
    path
        The data directory.
    process
        The one that opened it.
    """

    def __init__(self, path: str, process: int) -> None:
        self._path = path
        self._process = process

    @property
    def refusal(self) -> FailedPreconditionError:
        """Why it cannot be used."""
        return FailedPreconditionError(
            f"{self._path} was opened by process {self._process}, from which this one was forked: "
            "a child cannot use its parent's database. Connect in one of them only, or to a server"
        )

    def refuse(self) -> NoReturn:
        """Say why it cannot be used.

        Raises
        ------
        FailedPreconditionError
        """
        raise self.refusal

    def __getattr__(self, name: str) -> Any:
        self.refuse()
