"""From question to answer: retrieve, refuse, pack, stream, stop, cite; with a scripted model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from vecdb.errors import DecoderError, InvalidParameterError, InvalidTextError
from vecdb.rag import NO_ANSWER, AnswerOptions, Relevance, answer
from vecdb.rag.prompt import Message, messages_for
from vecdb.rag.retrieve import CollectionRetriever, relevant_hits, similarity
from vecdb.types import Answer, AnswerEnd, Filter, FinishReason, Hit, Metric

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


class ScriptedChat:
    """Counts words as tokens; streams its reply word by word."""

    def __init__(self, reply: str, context_tokens: int = 1000) -> None:
        self.reply = reply
        self.context_tokens = context_tokens
        self.messages: list[Message] = []
        self.written = 0
        self.stopped = False
        self.before_word = threading.Event()
        self.before_word.set()

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message["content"].split()) for message in messages)

    def stream(self, messages: Sequence[Message], params: Params) -> Iterator[str]:
        self.messages = list(messages)
        try:
            for word in self.reply.split(" ")[: params.max_tokens]:
                self.before_word.wait(10)
                self.written += 1
                yield word + " "
        finally:
            self.stopped = True


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
    assert found.end.prompt_tokens == chat.count(chat.messages)
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
    assert chat.written == 0


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
    with pytest.raises(InvalidTextError, match="no room for a source"):
        ask(ScriptedChat("x"), prompt_tokens=room)


def test_closing_stops_the_model() -> None:
    chat = ScriptedChat("one two three four")
    events = answer(QUESTION, ScriptedRetriever([INDENT]), chat, Params())
    assert next(events) == "one "
    events.close()
    assert chat.stopped
    assert chat.written == 1
    assert list(events) == []
    events.close()


def test_closing_before_the_first_piece_never_starts_the_model() -> None:
    chat = ScriptedChat("one two")
    answer(QUESTION, ScriptedRetriever([INDENT]), chat, Params()).close()
    assert chat.written == 0


def test_another_thread_may_close_while_one_waits() -> None:
    chat = ScriptedChat("one two three four")
    events = answer(QUESTION, ScriptedRetriever([INDENT]), chat, Params())
    got: list[str | AnswerEnd] = [next(events)]
    chat.before_word.clear()
    reader = threading.Thread(target=lambda: got.extend(events))
    reader.start()
    events.close()
    assert not chat.stopped
    chat.before_word.set()
    reader.join(10)
    assert not reader.is_alive()
    assert chat.stopped
    assert got == ["one "]
    assert chat.written <= 2


def test_cancelling_keeps_what_was_written() -> None:
    found = ask(ScriptedChat("one two three"))
    assert next(iter(found)) == "one "
    found.cancel()
    assert found.text == "one "
    assert found.finish_reason is FinishReason.CANCELLED


def test_a_failing_model_fails_the_answer() -> None:
    class Failing(ScriptedChat):
        def stream(self, messages: Sequence[Message], params: Params) -> Iterator[str]:
            yield "one "
            raise DecoderError("out of memory")

    found = ask(Failing("x"))
    with pytest.raises(DecoderError, match="out of memory"):
        list(found)


def test_scores_of_every_metric_are_read_as_cosines() -> None:
    assert similarity(0.3, Metric.COSINE) == similarity(0.3, Metric.DOT) == 0.3
    assert similarity(1.0, Metric.L2) == pytest.approx(0.5)
    near = Hit("x", 0.8, "some text")
    assert relevant_hits("question", [near], Metric.L2, Relevance(certain=0.6)) == [near]
    assert relevant_hits("question", [near], Metric.L2, Relevance(certain=0.7)) == []


def test_a_doubtful_hit_needs_the_questions_words() -> None:
    relevance = Relevance(certain=0.5, possible=0.35, words=0.5)
    doubtful = Hit("x", 0.4, "Indentation uses spaces.")
    for question, relevant in (("Spaces for indentation?", 1), ("Bread and butter?", 0)):
        assert len(relevant_hits(question, [doubtful], Metric.COSINE, relevance)) == relevant
    assert relevant_hits("Spaces?", [Hit("x", 0.3, "Spaces")], Metric.COSINE, relevance) == []


def test_a_collection_is_searched_by_text() -> None:
    class Collection:
        def search(self, query: str, *, k: int, filter: Filter | None) -> list[Hit]:
            return [Hit(query, float(k), str(filter))]

    retriever = CollectionRetriever(Collection(), Metric.COSINE)
    assert retriever.retrieve("q", 3, {"a": 1}) == [Hit("q", 3.0, "{'a': 1}")]
