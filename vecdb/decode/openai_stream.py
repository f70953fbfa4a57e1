"""An answer as an OpenAI-compatible server streams it."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from vecdb.config import CONTEXT_TOKENS
from vecdb.decode.estimate import token_estimate
from vecdb.decode.openai_connection import Heard, OpenConnection
from vecdb.decode.openai_http import parse_object, send, transport_errors
from vecdb.decode.openai_url import shown_url
from vecdb.errors import DecoderError, VecdbError
from vecdb.registry.extras import needs_extra
from vecdb.types import FinishReason

with needs_extra():
    import httpx
    from httpx_sse import EventSource

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair, which JSON may name and no encoding has."""

_ENDED_BY_LENGTH = {"length", "max_tokens", "model_length"}
_FAILED = {
    "content_filter": "a content filter cut the answer off",
    "error": "the server failed within the answer",
    "abort": "the server broke the answer off",
    "insufficient_system_resource": "the server had no room to go on with the answer",
}
"""Why an answer ended that is none; every other word is a whole answer's."""

_MOST_TIMES = 4
_MOST_BESIDE = 256
"""An answer is cut at so many times as many tokens as were asked for, and these: no server that
heeds the limit comes to that, however much the estimate of its tokens is above their number."""


class _Delta(NamedTuple):
    """What a chunk adds to the answer: text, and why the answer ended with it, if it did.

    `says` is whether there is anything in it, which may also be what a model thinks.
    """

    text: str
    reason: Any
    says: bool


class RemoteStream:
    """An answer as a server sends it. Any thread may close it."""

    def __init__(
        self, http: httpx.Client, request: httpx.Request, prompt_tokens: int, max_tokens: int
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        """Pieces received, which most servers send token by token; exact if the server tells."""
        self.finish_reason: FinishReason | None = None
        self._request = request
        self._url = shown_url(request)
        self._most_tokens = _MOST_TIMES * max_tokens + _MOST_BESIDE
        self._connection = OpenConnection(request)
        self._closed = threading.Event()
        self._pieces = self._text(http)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """End the connection, at which servers stop generating; who waits for text gets the end."""
        self._closed.set()
        if self.finish_reason is None:
            self.finish_reason = FinishReason.CANCELLED
        self._connection.hang_up()

    def _text(self, http: httpx.Client) -> Generator[str]:
        if self._closed.is_set():
            return
        try:
            with closing(send(http, self._request, self._closed)) as response:
                heard = Heard(response, http.timeout.read)
                # Streams of events are UTF-8 whatever a header says, and may begin with its mark.
                response.encoding = "utf-8-sig"
                with transport_errors(self._url):
                    yield from self._events(EventSource(response), heard)
        except (httpx.StreamError, VecdbError):
            # Hanging up under a thread that reads makes the read fail.
            if not self._closed.is_set():
                raise

    def _events(self, source: EventSource, heard: Heard) -> Generator[str]:
        reason: str | None = None
        tokens = 0.0
        for event in source.iter_sse():
            if self._closed.is_set():
                return
            data = event.data.strip()
            if data == "[DONE]":
                break
            if not data:  # it names an id or a time to wait, and is no event
                continue
            chunk = parse_object(data, self._url)
            delta = self._delta(chunk)
            reason = str(delta.reason) if delta.reason else reason
            if delta.text:
                yield delta.text
                tokens += token_estimate(delta.text)
            if tokens > self._most_tokens:
                reason = "length"
                break
            if delta.says:
                heard.now()
        else:
            if reason is None and not self._closed.is_set():
                raise DecoderError(f"{self._url}: the stream broke off before its end")
        if not self._closed.is_set():
            if reason in _FAILED:
                raise DecoderError(f"{self._url}: {_FAILED[reason]}")
            length = reason in _ENDED_BY_LENGTH
            self.finish_reason = FinishReason.LENGTH if length else FinishReason.STOP

    def _delta(self, chunk: dict[str, Any]) -> _Delta:
        url = self._url
        if chunk.get("error"):
            raise DecoderError(f"{url}: the server failed: {chunk['error']!r:.300}")
        usage = chunk.get("usage")
        choices = chunk.get("choices", ())
        if not isinstance(choices, list | None):
            raise DecoderError(f"{url}: a chunk has no list 'choices': {str(chunk)[:300]}")
        piece, reason, says = "", None, False
        try:
            # A chunk that only tells the usage has none; one that was not asked for is left out.
            for choice in choices or ():
                if not choice.get("index"):
                    delta = choice["delta"] or {}
                    piece = delta.get("content") or ""
                    reason = choice.get("finish_reason")
                    says = any(value for name, value in delta.items() if name != "role")
        except (KeyError, TypeError, AttributeError) as error:
            raise DecoderError(f"{url}: unexpected chunk {str(chunk)[:300]}") from error
        if piece:
            if not isinstance(piece, str):
                raise DecoderError(f"{url}: the content of a chunk is not a string: {piece!r}")
            if not piece.isascii() and _SURROGATE.search(piece):
                raise DecoderError(f"{url}: the content of a chunk is not Unicode: {piece!r:.300}")
            self.completion_tokens += 1
        if isinstance(usage, dict):
            self.prompt_tokens = self._told(usage, "prompt_tokens", self.prompt_tokens)
            self.completion_tokens = self._told(usage, "completion_tokens", self.completion_tokens)
        return _Delta(piece, reason, says)

    def _told(self, usage: dict[str, Any], name: str, otherwise: int) -> int:
        """Return a count that the server told, or `otherwise` where it told none."""
        count = usage.get(name)
        if count is None:
            return otherwise
        if type(count) is not int or not 0 <= count <= CONTEXT_TOKENS.greatest:
            raise DecoderError(
                f"{self._url}: {name} of the usage is {count!r:.100}: must be an integer "
                f"from 0 to {CONTEXT_TOKENS.greatest}"
            )
        return count
