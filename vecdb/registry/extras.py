"""What to say when a package of the `cpu` or `gpu` extra is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vecdb.errors import MissingDependencyError


@contextmanager
def needs_extra() -> Iterator[None]:
    """Wrap imports of the extra's packages.

    Raises
    ------
    MissingDependencyError
        If one of them is not installed; the message is the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the package {error.name!r} is not installed; language models need it: "
            'pip install "vecdb[cpu]" (or "vecdb[gpu]" on a machine with CUDA)'
        ) from error
