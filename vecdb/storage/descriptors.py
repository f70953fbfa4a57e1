"""How many files this process may have open."""

from __future__ import annotations

import resource
import threading
from contextlib import suppress

_MANY = 1 << 16  # where the hard limit is none: some systems refuse to have none for a process

_changing = threading.Lock()  # held while the limit is read and raised


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one, as far as the system lets us.

    Each collection keeps its log open, and each file of a segment that is mapped: a thousand
    collections reach the soft limit of 1,024 that is usual.
    """
    with _changing, suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MANY if hard == resource.RLIM_INFINITY else hard
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
