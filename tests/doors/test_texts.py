"""Texts in, answers out, through both doors and with the real models."""

from __future__ import annotations

from typing import Any

import pytest

from vecdb import FinishReason, errors

ENCODER = "all-MiniLM-L6-v2"
FACTS = {
    "walrus": "PEP 572 added assignment expressions to Python, written with the walrus operator.",
    "match": "PEP 634 specifies structural pattern matching: the match statement and its blocks.",
    "zen": "The Zen of Python, by Tim Peters, says that explicit is better than implicit.",
    "typing": "PEP 484 introduced a standard syntax for type hints in function signatures.",
    "bread": "Sourdough bread is made from flour, water, salt and a fermented starter.",
}


@pytest.fixture
def docs(db: Any, name: str) -> Any:
    docs = db.create_collection(name, encoder=ENCODER)
    docs.upsert(list(FACTS), texts=list(FACTS.values()), payloads=[{"n": i} for i in range(5)])
    return docs


def test_a_question_finds_its_text(docs: Any) -> None:
    hits = docs.search("Which PEP is about the walrus?", k=2)
    assert hits[0].id == "walrus"
    assert hits[0].text == FACTS["walrus"]
    assert hits[0].payload == {"n": 0}
    both = docs.search_batch(["How do I bake?", "type hints"], k=1)
    assert [hits[0].id for hits in both] == ["bread", "typing"]


def test_the_stored_vector_is_the_encoders(docs: Any) -> None:
    records = docs.get(["zen", "match"])
    assert [r.id for r in records] == ["zen", "match"]
    assert docs.search(vector=records[0].vector, k=1)[0].score == pytest.approx(1.0, abs=1e-5)
    info = docs.info()
    assert info.dim == 384
    assert info.encoder is not None
    assert info.encoder.model == ENCODER


def test_a_long_text_is_reported_refused_or_chunked(docs: Any) -> None:
    long = " ".join(f"Sentence number {i} is about topic {i * 7}." for i in range(120))
    assert docs.upsert(["long", "short"], texts=[long, "Short."]).truncated == ["long"]
    with pytest.raises(errors.InvalidTextError, match="256"):
        docs.upsert(["refused", "other"], texts=[long, "Short."], long_text="error")
    assert docs.get(["refused", "other"]) == []
    result = docs.upsert(["doc"], texts=[long], payloads=[{"a": 1}], long_text="chunk")
    assert result.ids[:2] == ["doc#0", "doc#1"]
    assert result.truncated == []
    chunks = docs.get(result.ids)
    for number, chunk in enumerate(chunks):
        where = chunk.payload["chunk"]
        assert (where["of"], where["number"], chunk.payload["a"]) == ("doc", number, 1)
        assert chunk.text == long[where["start"] : where["end"]]
    assert "".join("".join(c.text.split()) for c in chunks) == "".join(long.split())
    assert docs.upsert(["doc"], texts=["Now short."], long_text="chunk").ids == ["doc#0"]
    assert len(docs.get(result.ids)) == 1


def test_an_answer_streams_and_cites(docs: Any) -> None:
    answer = docs.ask("Which PEP added assignment expressions?", max_tokens=40)
    pieces = list(answer)
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text
    assert "572" in answer.text
    assert answer.finish_reason in {FinishReason.STOP, FinishReason.LENGTH}
    assert answer.citations
    cited = answer.citations[0]
    assert cited.id == "walrus"
    assert answer.text[cited.start : cited.end].strip()
    assert FACTS["walrus"][cited.chunk_start : cited.chunk_end]
    assert {source.number for source in answer.sources} >= {c.source for c in answer.citations}


def test_nothing_relevant_is_said_so(docs: Any) -> None:
    answer = docs.ask("What is the boiling point of tungsten?")
    assert answer.finish_reason is FinishReason.NO_SOURCE
    assert answer.citations == []
    assert "do not answer" in answer.text
    filtered = docs.ask("Which PEP added assignment expressions?", filter={"n": 4})
    assert filtered.finish_reason is FinishReason.NO_SOURCE


def test_a_cancelled_answer_leaves_the_decoder_free(docs: Any) -> None:
    answer = docs.ask("Which PEP added assignment expressions?", max_tokens=200)
    next(iter(answer))
    answer.cancel()
    assert answer.finish_reason is FinishReason.CANCELLED
    assert "634" in docs.ask("Which PEP specifies the match statement?", max_tokens=40).text


def test_bad_texts(docs: Any) -> None:
    with pytest.raises(errors.InvalidTextError):
        docs.upsert([1], texts=[""])
    with pytest.raises(errors.InvalidTextError):
        docs.upsert([1, 2], texts=["fine", None])
    with pytest.raises(errors.InvalidTextError):
        docs.search("  ")
    with pytest.raises(errors.InvalidTextError):
        _ = docs.ask("").text  # a server answers when the stream is read
    with pytest.raises(errors.InvalidParameterError):
        _ = docs.ask("Why?", max_tokens=0).text
    with pytest.raises(errors.InvalidParameterError):
        docs.upsert([1], texts=["fine"], long_text="shorten")
    assert docs.count() == 5


def test_both_doors_embed_alike(both: tuple[Any, Any], name: str) -> None:
    answers = []
    for door in both:
        docs = door.create_collection(name, encoder=ENCODER)
        docs.upsert(list(FACTS), texts=list(FACTS.values()))
        answers.append(docs.search("assignment in an expression", k=5))
    mine, theirs = answers
    assert [h.id for h in mine] == [h.id for h in theirs]
    assert [h.score for h in mine] == pytest.approx([h.score for h in theirs], abs=1e-5)
