"""A chat model behind an OpenAI-compatible endpoint: Ollama, vLLM, llama.cpp, or a hosted one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vecdb.config import CONTEXT_TOKENS
from vecdb.decode.base import GenerationParams, Message
from vecdb.decode.chat_template import check_messages
from vecdb.decode.estimate import estimated_tokens
from vecdb.decode.openai_http import read_json, send
from vecdb.decode.openai_stream import RemoteStream
from vecdb.decode.openai_url import Endpoint, shown_url
from vecdb.errors import (
    ClosedError,
    DecoderError,
    InvalidParameterError,
    InvalidTextError,
    ModelNotFoundError,
    VecdbError,
)
from vecdb.registry.extras import needs_extra
from vecdb.registry.http_client import open_client

with needs_extra():
    import httpx

_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")
"""Where servers put the size of a model's context in their list of models (vLLM's is the first)."""

_TOKENS_PER_MESSAGE = 8
_NAMES_SHOWN = 20


class OpenAIChatModel:
    """A `ChatModel` over HTTP; any number of threads may use it at once.

    Requests are retried, twice, while nothing of the answer has come: when the connection fails,
    and on status 429, 502, 503 and 504.

    Parameters
    ----------
    url
        Base URL, such as ``http://127.0.0.1:11434/v1``; a fragment names the model. Without a
        path, ``/v1`` is assumed. A user and password in it are sent by basic authentication, and
        shown nowhere; a query is added to the URL of every request, and shown nowhere either.
    api_key
        Sent as a bearer token; not beside a user and password.
    model
        The model's name at the server; None takes the URL's fragment, or the only model there is.
    context_tokens
        The size of its context; None takes what the server says, else 4,096.
    timeout
        Seconds to wait for each next piece of an answer, or of what the model thinks before it,
        and, at most 10, for a connection.

    Raises
    ------
    InvalidParameterError
        If the URL is not one, or names no model and the server has several, or the key cannot be
        sent, or there is a password as well.
    ModelNotFoundError
        If the server does not have the model.
    FailedPreconditionError
        If the environment names a proxy or certificates that cannot be used.
    UnauthenticatedError, OverloadedError, UnavailableError, DeadlineExceededError, DecoderError
        If the server cannot be asked for its models.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        context_tokens: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._endpoint = Endpoint.parse(url)
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise InvalidParameterError("api_key: must be printable ASCII characters")
        if api_key and self._endpoint.auth:
            raise InvalidParameterError(
                "api_key: the URL has a user or password, and only one of the two can be sent: "
                "leave one out"
            )
        self._http = open_client(
            auth=self._endpoint.auth,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            # Only where a connection is made can a stream learn which one is its own.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        try:
            self._name, told = self._choose(model or self._endpoint.model or None)
            given = told if context_tokens is None else context_tokens
            self._context_tokens = CONTEXT_TOKENS.check(given)
        except VecdbError:
            self._http.close()
            raise

    @property
    def name(self) -> str:
        """The model's name at the server."""
        return self._name

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self._context_tokens

    @property
    def provider(self) -> str:
        """The server's URL, without user, password and query."""
        return self._endpoint.base

    def count(self, messages: Sequence[Message]) -> int:
        """Return an estimate of the prompt's tokens that is rarely too low.

        The server's tokenizer is not known here; see `estimated_tokens`.
        """
        check_messages(messages)
        contents = sum(estimated_tokens(message["content"]) for message in messages)
        return contents + _TOKENS_PER_MESSAGE * (len(messages) + 1)

    def stream(
        self, messages: Sequence[Message], params: GenerationParams | None = None
    ) -> RemoteStream:
        """Answer `messages`; the request is made when the result is first iterated.

        ``top_k``, ``min_p`` and ``repetition_penalty`` are sent only when they are set, since
        OpenAI's own endpoint refuses them; ``stop_token_ids`` is not sent. An answer that goes on
        far beyond ``max_tokens`` is cut off.

        Raises
        ------
        InvalidParameterError
            If the messages are not of the documented form.
        InvalidTextError
            If the prompt is estimated to leave no room for an answer in the context.
        """
        if self._http.is_closed:
            raise ClosedError("the chat model was closed")
        params = params or GenerationParams()
        prompt = self.count(messages)
        room = self._context_tokens - prompt
        if room < 1:
            raise InvalidTextError(
                f"the prompt has about {prompt} tokens, but the context of {self._name} is "
                f"{self._context_tokens} tokens, answer included: shorten the messages"
            )
        most = min(params.max_tokens, room)
        body = _request_body(self._name, messages, params, most)
        request = self._http.build_request("POST", self._endpoint.at("chat/completions"), json=body)
        return RemoteStream(self._http, request, prompt, most)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _choose(self, wanted: str | None) -> tuple[str, int | None]:
        """Return the model's name and, if the server tells it, the size of its context."""
        request = self._http.build_request("GET", self._endpoint.at("models"))
        try:
            models = read_json(send(self._http, request), self._http.timeout.read).get("data")
        except ModelNotFoundError:
            if wanted is None:
                raise
            return wanted, None  # the server lists no models; it will say whether it has this one
        if not isinstance(models, list) or not all(isinstance(entry, dict) for entry in models):
            url = shown_url(request)
            raise DecoderError(f"{url}: expected an object with a list of objects, 'data'")
        by_name = {str(entry.get("id")): entry for entry in models}
        known = ", ".join(sorted(by_name)[:_NAMES_SHOWN]) or "none"
        if wanted is None:
            if len(by_name) != 1:
                raise InvalidParameterError(
                    f"{self.provider} has {len(by_name)} models ({known}): "
                    "name one of them after a '#' in the URL"
                )
            wanted = next(iter(by_name))
        # Ollama lists as "name:latest" what may be asked for as "name".
        entry = by_name.get(wanted) or by_name.get(f"{wanted}:latest")
        if entry is None:
            raise ModelNotFoundError(f"{self.provider} has no model {wanted!r}; it has: {known}")
        told = (entry.get(field) for field in _CONTEXT_FIELDS)
        return wanted, next((size for size in told if isinstance(size, int)), None)


def _request_body(
    model: str, messages: Sequence[Message], params: GenerationParams, max_tokens: int
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [dict(message) for message in messages],
        "stream": True,
        "max_tokens": max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
    }
    optional = {
        "stop": list(params.stop),
        "seed": params.seed,
        "top_k": params.top_k or None,
        "min_p": params.min_p or None,
        "repetition_penalty": None if params.repetition_penalty == 1 else params.repetition_penalty,
    }
    body.update({name: value for name, value in optional.items() if value not in (None, [])})
    return body
