"""From question to answer: retrieve, refuse, pack, stream, stop, cite; with a scripted model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from vecdb.answer import Answer
from vecdb.errors import (
    CancelledError,
    DecoderError,
    FailedPreconditionError,
    InvalidParameterError,
    InvalidTextError,
)
from vecdb.rag import NO_ANSWER, AnswerOptions, Relevance, answer
from vecdb.rag.prompt import Message, messages_for
from vecdb.rag.retrieve import CollectionRetriever, relevant_hits, similarity
from vecdb.types import AnswerEnd, Filter, FinishReason, Hit, Metric

INDENT = Hit(
    "pep-0008.rst#0003",
    0.71,
    "PEP 8: Style Guide for Python Code > Indentation\n\nUse 4 spaces per indentation level.",
    {"title": "PEP 8"},
)
TABS = Hit("pep-0008.rst#0005", 0.62, "Spaces are the preferred indentation method.", None)
OFF = Hit("pep-0001.rst#0001", 0.12, "A PEP is a design document.", None)
QUESTION = "How many spaces should be used per indentation level?"


@dataclass(frozen=True)
class Params:
    max_tokens: int = 64


@dataclass
class ScriptedRetriever:
    hits: list[Hit]
    metric: Metric = Metric.COSINE
    asked: list[tuple[str, int, Filter | None]] = field(default_factory=list)

    def retrieve(self, question: str, k: int, filter: Filter | None) -> list[Hit]:
        self.asked.append((question, k, filter))
        return self.hits[:k]


class ScriptedStream:
    def __init__(self, chat: ScriptedChat, words: list[str], cut: bool) -> None:
        self._chat = chat
        self._words = words
        self._cut = cut
        self.prompt_tokens = chat.count(chat.messages)
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None

    def __iter__(self) -> ScriptedStream:
        return self

    def __next__(self) -> str:
        self._chat.waiting.set()
        self._chat.before_word.wait(10)
        if self._chat.stopped:
            self.finish_reason = FinishReason.CANCELLED
            raise StopIteration
        if not self._words:
            self.prompt_tokens += 1  # the model's own count; the other was an estimate
            self.finish_reason = FinishReason.LENGTH if self._cut else FinishReason.STOP
            raise StopIteration
        self.completion_tokens += 1
        return self._words.pop(0) + " "

    def close(self) -> None:
        self._chat.stopped = True
        self._chat.before_word.set()


class ScriptedChat:
    """Counts words as tokens; streams its reply word by word."""

    def __init__(self, reply: str, context_tokens: int = 1000) -> None:
        self.reply = reply
        self.context_tokens = context_tokens
        self.messages: list[Message] = []
        self.streams: list[ScriptedStream] = []
        self.stopped = False
        self.before_word = threading.Event()
        self.before_word.set()
        self.waiting = threading.Event()

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message["content"].split()) for message in messages)

    def stream(self, messages: Sequence[Message], params: Params) -> ScriptedStream:
        self.messages = list(messages)
        words = self.reply.split(" ")
        stream = ScriptedStream(self, words[: params.max_tokens], len(words) > params.max_tokens)
        self.streams.append(stream)
        return stream


def ask(chat: ScriptedChat, hits: Sequence[Hit] = (INDENT, TABS, OFF), **options: object) -> Answer:
    retriever = ScriptedRetriever(list(hits))
    return Answer(answer(QUESTION, retriever, chat, Params(), AnswerOptions(**options)))  # type: ignore[arg-type]


def test_a_cited_answer() -> None:
    chat = ScriptedChat("Use 4 spaces per indentation level. Bananas are yellow.")
    found = ask(chat)
    pieces = list(found)
    assert len(pieces) == 9
    assert "".join(pieces) == found.text
    (citation,) = found.citations
    assert citation.id == INDENT.id
    assert found.text[citation.start : citation.end] == "Use 4 spaces per indentation level."
    assert (INDENT.text or "")[citation.chunk_start : citation.chunk_end] == (
        "Use 4 spaces per indentation level."
    )
    assert [s.id for s in found.sources] == [INDENT.id, TABS.id]
    assert found.sources[0].payload == {"title": "PEP 8"}
    assert found.finish_reason is FinishReason.STOP
    assert found.end.prompt_tokens == chat.count(chat.messages) + 1
    assert found.end.completion_tokens == 9


def test_options_reach_retrieval() -> None:
    retriever = ScriptedRetriever([INDENT])
    answer(QUESTION, retriever, ScriptedChat("x"), Params(), AnswerOptions(k=3, filter={"a": 1}))
    assert retriever.asked == [(QUESTION, 3, {"a": 1})]


@pytest.mark.parametrize("hits", [[], [OFF], [Hit("n", 0.99, None), Hit("e", 0.99, "")]])
def test_without_a_relevant_source_no_model_is_asked(hits: list[Hit]) -> None:
    chat = ScriptedChat("I made this up.")
    found = ask(chat, hits)
    assert found.text == NO_ANSWER
    assert found.finish_reason is FinishReason.NO_SOURCE
    assert (found.citations, found.sources) == ([], [])
    assert chat.streams == []


def test_a_model_that_declines_has_no_citations() -> None:
    found = ask(ScriptedChat(NO_ANSWER))
    assert found.finish_reason is FinishReason.NO_SOURCE
    assert found.citations == []


def test_a_reply_cut_at_the_limit_says_so() -> None:
    assert ask(ScriptedChat("word " * 500)).finish_reason is FinishReason.LENGTH


def test_the_prompt_keeps_room_for_the_answer() -> None:
    long = [Hit(n, 0.9, " ".join(f"Word{n}x{i} goes." for i in range(60))) for n in range(5)]
    chat = ScriptedChat("ok", context_tokens=300)
    ask(chat, long).text  # noqa: B018
    assert chat.count(chat.messages) <= 300 - Params().max_tokens
    chat = ScriptedChat("ok", context_tokens=1000)
    ask(chat, long, prompt_tokens=200).text  # noqa: B018
    assert chat.count(chat.messages) <= 200


def test_no_more_of_a_text_is_looked_at_than_could_fit() -> None:
    class Recording(ScriptedChat):
        longest = 0

        def count(self, messages: Sequence[Message]) -> int:
            self.longest = max(self.longest, *(len(message["content"]) for message in messages))
            return super().count(messages)

    text = "Use 4 spaces per indentation level. " + "The rest is of no use at all. " * 30_000
    chat = Recording("Use 4 spaces.", context_tokens=400)
    given = ask(chat, [Hit("long", 0.9, text)])
    assert given.text.strip() == "Use 4 spaces."
    assert chat.longest < 10 * 400
    (citation,) = given.citations
    assert text.startswith(given.sources[0].text)
    assert text[citation.chunk_start : citation.chunk_end] == "Use 4 spaces per indentation level."


@pytest.mark.parametrize("question", ["", "  \n", None, 7])
def test_an_empty_question_is_refused_at_once(question: object) -> None:
    with pytest.raises(InvalidTextError, match="must be a str"):
        answer(question, ScriptedRetriever([]), ScriptedChat("x"), Params())  # type: ignore[arg-type]


def test_limits_are_refused_at_once() -> None:
    with pytest.raises(InvalidParameterError, match="max_tokens=64"):
        answer(QUESTION, ScriptedRetriever([]), ScriptedChat("x", context_tokens=64), Params())
    with pytest.raises(InvalidParameterError, match="k=0"):
        ask(ScriptedChat("x"), k=0)
    room = ScriptedChat("x").count(messages_for(QUESTION, [])) + 3
    with pytest.raises(InvalidTextError, match=r"none of the sources fits.*'pep-0008.rst#0003'"):
        ask(ScriptedChat("x"), prompt_tokens=room)


def test_closing_stops_the_model() -> None:
    chat = ScriptedChat("one two three four")
    events = answer(QUESTION, ScriptedRetriever([INDENT]), chat, Params())
    assert next(events) == "one"
    events.close()
    assert chat.stopped
    assert chat.streams[0].completion_tokens == 1
    assert list(events) == []
    events.close()


def test_closing_before_the_first_piece_never_starts_the_model() -> None:
    chat = ScriptedChat("one two")
    events = answer(QUESTION, ScriptedRetriever([INDENT]), chat, Params())
    events.close()
    assert list(events) == []
    assert chat.streams[0].completion_tokens == 0


def test_another_thread_may_close_while_one_waits() -> None:
    chat = ScriptedChat("one two three four")
    events = answer(QUESTION, ScriptedRetriever([INDENT]), chat, Params())
    got: list[str | AnswerEnd] = [next(events)]
    chat.before_word.clear()
    chat.waiting.clear()
    reader = threading.Thread(target=lambda: got.extend(events))
    reader.start()
    assert chat.waiting.wait(10)
    events.close()
    reader.join(10)
    assert not reader.is_alive()
    assert got == ["one"]


def test_cancelling_keeps_what_was_written() -> None:
    found = ask(ScriptedChat("one two three"))
    assert next(iter(found)) == "one"
    found.cancel()
    assert found.text == "one"
    assert found.finish_reason is FinishReason.CANCELLED


def test_another_thread_may_cancel_while_one_iterates() -> None:
    chat = ScriptedChat("one two three four")
    found = ask(chat)
    pieces = iter(found)
    assert next(pieces) == "one"
    chat.before_word.clear()
    chat.waiting.clear()
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(list, pieces)
        assert chat.waiting.wait(10)
        found.cancel()
        assert rest.result(10) == []
    assert (found.text, found.finish_reason) == ("one", FinishReason.CANCELLED)


def test_a_stream_that_fails_because_it_is_cancelled_ends_the_iteration() -> None:
    class Stream:
        def __iter__(self) -> Stream:
            return self

        def __next__(self) -> str | AnswerEnd:
            found.cancel()
            raise CancelledError("the call was cancelled")

        def close(self) -> None:
            pass

    found = Answer(Stream())
    assert list(found) == []
    assert found.finish_reason is FinishReason.CANCELLED


def test_an_answer_without_an_end_says_so() -> None:
    events = answer(QUESTION, ScriptedRetriever([INDENT]), ScriptedChat("one two"), Params())
    found = Answer(events)
    events.close()
    with pytest.raises(FailedPreconditionError, match="broke off before its end"):
        _ = found.text


def test_a_failing_model_fails_the_answer() -> None:
    class FailingStream(ScriptedStream):
        def __next__(self) -> str:
            raise DecoderError("out of memory")

    class Failing(ScriptedChat):
        def stream(self, messages: Sequence[Message], params: Params) -> ScriptedStream:
            return FailingStream(self, [], cut=False)

    found = ask(Failing("x"))
    with pytest.raises(DecoderError, match="out of memory"):
        list(found)
    with pytest.raises(DecoderError, match="out of memory"):
        _ = found.text
    found.cancel()
    assert (found.text, found.finish_reason) == ("", FinishReason.CANCELLED)


def test_scores_of_every_metric_are_read_as_cosines() -> None:
    assert similarity(0.3, Metric.COSINE) == similarity(0.3, Metric.DOT) == 0.3
    assert similarity(1.0, Metric.L2) == pytest.approx(0.5)
    near = Hit("x", 0.8, "some text")
    assert relevant_hits("question", [near], Metric.L2, Relevance(0.65)) == [near]
    assert relevant_hits("question", [near], Metric.L2, Relevance(0.69)) == []


def test_the_questions_words_help_a_doubtful_hit() -> None:
    relevance = Relevance(threshold=0.5, word_weight=0.2)
    doubtful = Hit("x", 0.4, "Indentation uses spaces.")
    for question, relevant in (("Spaces for indentation?", 1), ("Bread and butter?", 0)):
        assert len(relevant_hits(question, [doubtful], Metric.COSINE, relevance)) == relevant
    assert relevant_hits("Spaces?", [Hit("x", 0.2, "Spaces")], Metric.COSINE, relevance) == []


def test_a_collection_is_searched_by_text() -> None:
    class Collection:
        def search(self, query: str, *, k: int, filter: Filter | None) -> list[Hit]:
            return [Hit(query, float(k), str(filter))]

    retriever = CollectionRetriever(Collection(), Metric.COSINE)
    assert retriever.retrieve("q", 3, {"a": 1}) == [Hit("q", 3.0, "{'a': 1}")]
