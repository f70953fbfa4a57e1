"""HTTP calls to an OpenAI-compatible server: retries, and its failures as vecdb's exceptions."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from vecdb.errors import (
    DeadlineExceededError,
    DecoderError,
    ModelNotFoundError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    VecdbError,
    readable,
)
from vecdb.registry.extras import needs_extra

with needs_extra():
    import httpx
    from httpx_sse import SSEError

_ATTEMPTS = 3
_BACKOFF_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 5.0
_RETRIED = {429, 502, 503, 504}
_QUOTED_CHARS = 300


def send(
    http: httpx.Client, request: httpx.Request, cancelled: threading.Event | None = None
) -> httpx.Response:
    """Send the request until it succeeds or may not be retried; return the open response.

    Only what happens before the status line is retried, and statuses that say "not now": such a
    request has generated nothing.

    Parameters
    ----------
    cancelled
        When set, a wait before another attempt ends at once.

    Raises
    ------
    UnauthenticatedError, ModelNotFoundError, OverloadedError, UnavailableError,
    DeadlineExceededError, DecoderError
        What the last attempt met.
    """
    cancelled = cancelled or threading.Event()
    for attempt in range(1, _ATTEMPTS + 1):
        wait = _BACKOFF_SECONDS * 2 ** (attempt - 1)
        try:
            with transport_errors(request.url):
                response = http.send(request, stream=True)
                if response.status_code == 200:
                    return response
                response.read()
        except UnavailableError:
            if attempt == _ATTEMPTS:
                raise
        else:
            if response.status_code not in _RETRIED or attempt == _ATTEMPTS:
                raise status_error(response)
            wait = max(wait, _retry_after(response))
        if cancelled.wait(min(wait, _LONGEST_WAIT_SECONDS)):
            break
    raise UnavailableError(f"{request.url}: given up, because the answer is no longer wanted")


@contextmanager
def transport_errors(url: httpx.URL) -> Generator[None]:
    """Map httpx's exceptions to vecdb's."""
    try:
        yield
    except httpx.TimeoutException as error:
        if isinstance(error, httpx.ConnectTimeout):
            raise UnavailableError(f"{url}: no connection within the timeout") from error
        raise DeadlineExceededError(f"{url}: nothing came within the timeout") from error
    except SSEError as error:
        raise DecoderError(f"{url}: {error}") from error
    except (httpx.TransportError, UnicodeError) as error:  # the latter of a proxy's odd name
        raise UnavailableError(f"{url}: {error or type(error).__name__}") from error


def status_error(response: httpx.Response) -> VecdbError:
    """Return the exception for a response that is not a success; its body has been read."""
    status = response.status_code
    text = f"{response.request.url} answered {status}: {_reason(response)}"
    if status in {401, 403}:
        return UnauthenticatedError(f"{text}; check the API key")
    if status == 404:
        return ModelNotFoundError(text)
    if status == 429:
        return OverloadedError(text)
    if status in {502, 503, 504}:
        return UnavailableError(text)
    return DecoderError(text)


def read_json(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object that is the response's body, and close it.

    Raises
    ------
    DecoderError
        If it is not one.
    """
    try:
        with transport_errors(response.request.url):
            response.read()
    finally:
        response.close()
    return parse_object(response.text, response.request.url)


def parse_object(text: str, url: httpx.URL) -> dict[str, Any]:
    """Return the JSON object that `text` is.

    Raises
    ------
    DecoderError
        If it is not one.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # too many digits or brackets are such, too
        raise DecoderError(f"{url}: not JSON: {text[:_QUOTED_CHARS]!r}") from error
    if not isinstance(value, dict):
        raise DecoderError(f"{url}: expected a JSON object, got {text[:_QUOTED_CHARS]!r}")
    return value


def _reason(response: httpx.Response) -> str:
    """Return what the body says, which is ``{"error": {"message": ...}}`` where it is OpenAI's."""
    try:
        body = json.loads(response.text)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return readable(str(error or response.text or response.reason_phrase), _QUOTED_CHARS)


def _retry_after(response: httpx.Response) -> float:
    header = response.headers.get("retry-after", "")
    return float(header) if header.isdecimal() else 0.0
