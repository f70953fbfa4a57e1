"""HTTP calls to an OpenAI-compatible server: retries, and its failures as vecdb's exceptions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from vecdb.decode.openai_url import shown_url
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
_MOST_ERROR_BYTES = 64 << 10
_MOST_JSON_BYTES = 8 << 20


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
            with transport_errors(shown_url(request)):
                response = http.send(request, stream=True)
            if response.status_code == 200:
                return response
            said = _error_body(response, http.timeout.read)
        except UnavailableError:
            if attempt == _ATTEMPTS:
                raise
        else:
            if response.status_code not in _RETRIED or attempt == _ATTEMPTS:
                raise status_error(response, said)
            wait = max(wait, _retry_after(response))
        if cancelled.wait(min(wait, _LONGEST_WAIT_SECONDS)):
            break
    raise UnavailableError(
        f"{shown_url(request)}: given up, because the answer is no longer wanted"
    )


@contextmanager
def transport_errors(url: str) -> Generator[None]:
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
    except httpx.RequestError as error:  # of these, that the body is not compressed as it says
        raise DecoderError(f"{url}: {error or type(error).__name__}") from error


def status_error(response: httpx.Response, said: str) -> VecdbError:
    """Return the exception for a response that is not a success; `said` is its body."""
    status = response.status_code
    reason = _reason(said) or response.reason_phrase
    text = f"{shown_url(response.request)} answered {status}: {readable(reason, _QUOTED_CHARS)}"
    if status in {401, 403}:
        return UnauthenticatedError(f"{text}; check the API key")
    if status == 404:
        return ModelNotFoundError(text)
    if status == 429:
        return OverloadedError(text)
    if status in {502, 503, 504}:
        return UnavailableError(text)
    return DecoderError(text)


def read_json(response: httpx.Response, seconds: float | None) -> dict[str, Any]:
    """Return the JSON object that the response's body is, and close the response.

    Raises
    ------
    DeadlineExceededError
        If the body takes longer than about `seconds`.
    UnavailableError
        If the connection breaks.
    DecoderError
        If it is not a JSON object, or has more than 8 MiB (lists of hundreds of models have one).
    """
    url = shown_url(response.request)
    body = bytearray()
    with closing(response), transport_errors(url):
        for part in _until(response, seconds):
            body += part
            if len(body) > _MOST_JSON_BYTES:
                raise DecoderError(f"{url}: the answer has more than {_MOST_JSON_BYTES} bytes")
    return parse_object(body.decode("utf-8", "replace"), url)


def _error_body(response: httpx.Response, seconds: float | None) -> str:
    """Return what a response that is not a success says, as far as it comes in time; close it."""
    body = bytearray()
    # Its status is what counts, also when the rest breaks off.
    with closing(response), suppress(httpx.RequestError, DeadlineExceededError):
        for part in _until(response, seconds):
            body += part
            if len(body) > _MOST_ERROR_BYTES:
                break
    return body.decode("utf-8", "replace")


def _until(response: httpx.Response, seconds: float | None) -> Iterator[bytes]:
    """Yield the body as it comes; a limit on each read does not end one that comes in drops."""
    end = None if seconds is None else time.monotonic() + seconds
    for part in response.iter_bytes():
        yield part
        if end is not None and time.monotonic() > end:
            raise DeadlineExceededError(
                f"{shown_url(response.request)}: no whole answer in the timeout"
            )


def parse_object(text: str, url: str) -> dict[str, Any]:
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


def _reason(said: str) -> str:
    """Return what a body says, which is ``{"error": {"message": ...}}`` where it is OpenAI's."""
    try:
        body = json.loads(said)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return str(error or said)


def _retry_after(response: httpx.Response) -> float:
    header = response.headers.get("retry-after", "")
    return float(header) if header.isdecimal() else 0.0
