"""What holds for every test."""

from __future__ import annotations

import os

from vecdb.kernels.jit import CHECK_TYPES

# Before any kernel is imported, and for the servers that tests start.
os.environ[CHECK_TYPES] = "1"
