"""HTTP clients, which heed what the environment says of proxies and certificates."""

from __future__ import annotations

from typing import Any

from vecdb.errors import FailedPreconditionError
from vecdb.registry.extras import needs_extra

with needs_extra():
    import httpx


def open_client(**settings: Any) -> httpx.Client:
    """Return an `httpx.Client` with these settings.

    Raises
    ------
    FailedPreconditionError
        If the environment names a proxy or certificates that cannot be used.
    """
    try:
        return httpx.Client(**settings)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise FailedPreconditionError(
            "the environment's proxies or certificates (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, "
            f"NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR) cannot be used: {error}"
        ) from error
