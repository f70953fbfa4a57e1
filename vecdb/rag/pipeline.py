"""From a question to a streamed answer with citations: retrieve, judge, pack, generate, cite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from vecdb.config import ANSWER_K, K
from vecdb.errors import InvalidParameterError, InvalidTextError, shown
from vecdb.rag.cite import cite
from vecdb.rag.guard import AnswerGuard
from vecdb.rag.prompt import NO_ANSWER, Message, Prompt, pack
from vecdb.rag.retrieve import Relevance, Retriever, relevant_hits
from vecdb.types import AnswerEnd, Citation, Filter, FinishReason

_CHARS_OF_A_TOKEN = 8
"""About twice what text has in the mean. What is longer than a prompt of such tokens will be
trimmed anyway, and to look at all of a megabyte takes seconds."""


class GenerationLimit(Protocol):
    """What answering needs to know of a chat model's parameters."""

    @property
    def max_tokens(self) -> int:
        """The most tokens that the model may write."""


class ChatStream(Protocol):
    """An answer as the model writes it, in pieces of text."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, as the model counted them once it has."""

    @property
    def completion_tokens(self) -> int:
        """Tokens written so far."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model ended; None while it has not."""

    def __iter__(self) -> Iterator[str]: ...
    def __next__(self) -> str: ...

    def close(self) -> None:
        """Stop the work; any thread may call it."""


Params_contra = TypeVar("Params_contra", bound=GenerationLimit, contravariant=True)
Params = TypeVar("Params", bound=GenerationLimit)


class ChatModel(Protocol[Params_contra]):
    """What answering needs of a chat model; its parameters pass through unread."""

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""

    def count(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the prompt made of `messages` has, template included."""

    def stream(self, messages: Sequence[Message], params: Params_contra) -> ChatStream:
        """Answer `messages`; the work begins when the stream is iterated."""


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How a question is answered.

    Attributes
    ----------
    k
        How many hits are retrieved.
    filter
        Which points may be sources.
    relevance
        Which hits count as being about the question. When none does, the answer is
        `vecdb.rag.prompt.NO_ANSWER` and no model is asked.
    min_support
        The least score at which a sentence is cited to a source; see `vecdb.rag.cite.cite`.
    prompt_tokens
        The most tokens of a prompt; by default, all that the context leaves beside the answer.
    """

    k: int = ANSWER_K.default
    filter: Filter | None = None
    relevance: Relevance = field(default_factory=Relevance)
    min_support: float = 0.5
    prompt_tokens: int | None = None


class AnswerEvents:
    """The stream of an answer: pieces of text, then one `AnswerEnd`.

    Any thread may close it, also while another waits in `__next__` for the model.
    """

    def __init__(self, events: Iterator[str | AnswerEnd], stop: Callable[[], None]) -> None:
        self._events = events
        self._stop = stop
        self._closed = threading.Event()

    def __iter__(self) -> AnswerEvents:
        return self

    def __next__(self) -> str | AnswerEnd:
        if self._closed.is_set():
            raise StopIteration
        event = next(self._events)
        # Closed meanwhile: the model's stream ended early, and its end is no end of the answer.
        if self._closed.is_set():
            raise StopIteration
        return event

    def close(self) -> None:
        """Stop the generation; nothing more comes."""
        self._closed.set()
        self._stop()


def answer(
    question: str,
    retriever: Retriever,
    chat: ChatModel[Params],
    params: Params,
    options: AnswerOptions | None = None,
) -> AnswerEvents:
    """Answer `question` from what `retriever` finds.

    Retrieval and packing are done before this returns, so that bad arguments raise here; the
    model works while the stream is iterated.

    Parameters
    ----------
    question
        What the user asks.
    retriever
        Finds the sources.
    chat
        Writes the answer.
    params
        The model's own parameters, handed through to `chat.stream`.
    options
        The defaults when None.

    Raises
    ------
    InvalidTextError
        If the question is empty, not a str, or too long for the model's context.
    InvalidParameterError
        If `max_tokens` leaves no room for a prompt, or `k` is out of range.
    """
    options = options or AnswerOptions()
    if not isinstance(question, str) or not question.strip():
        raise InvalidTextError(f"question={shown(question)}: must be a str that is not empty")
    budget = _prompt_budget(chat.context_tokens, params.max_tokens, options.prompt_tokens)
    found = retriever.retrieve(question, K.check(options.k), options.filter)
    most = _CHARS_OF_A_TOKEN * budget
    hits = [hit._replace(text=hit.text and hit.text[:most]) for hit in found]
    relevant = relevant_hits(question, hits, retriever.metric, options.relevance)
    if not relevant:
        return AnswerEvents(_no_answer(), lambda: None)
    prompt = pack(question, relevant, chat, budget)
    if not prompt.sources:
        raise InvalidTextError(
            f"none of the sources fits beside the question into a prompt of {budget} tokens, not "
            f"even the beginning of {shown(relevant[0].id)}: shorten the question, or ask for a "
            "shorter answer (max_tokens)"
        )
    stream = chat.stream(prompt.messages, params)
    return AnswerEvents(_generate(question, prompt, stream, options.min_support), stream.close)


def _prompt_budget(context: int, max_tokens: int, wanted: int | None) -> int:
    room = context - max_tokens
    if room < 1:
        raise InvalidParameterError(
            f"max_tokens={max_tokens}: must be less than the model's context of {context} tokens"
        )
    return room if wanted is None else min(room, wanted)


def _no_answer() -> Iterator[str | AnswerEnd]:
    yield NO_ANSWER
    yield AnswerEnd([], [], FinishReason.NO_SOURCE, 0, 0)


def _generate(
    question: str, prompt: Prompt, stream: ChatStream, min_support: float
) -> Iterator[str | AnswerEnd]:
    guard = AnswerGuard()
    try:
        yield from guard.passed(stream)
        reason = FinishReason.STOP if guard.ended else stream.finish_reason
    finally:
        stream.close()
    citations: list[Citation] = []
    if NO_ANSWER.rstrip(".").casefold() in guard.text.casefold():
        reason = FinishReason.NO_SOURCE
    else:
        citations = cite(guard.text, prompt.sources, min_support, question)
    yield AnswerEnd(
        citations,
        prompt.sources,
        reason or FinishReason.STOP,
        stream.prompt_tokens,
        stream.completion_tokens,
    )
