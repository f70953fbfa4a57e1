"""Passages: within the limit, nothing lost, along the document's structure."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidParameterError
from vecdb.rag.chunk import Heading, Passage, split_passages


def words(text: str) -> int:
    return len(text.split())


def pieces(text: str, passages: list[Passage]) -> list[str]:
    return [text[p.start : p.end] for p in passages]


def paragraph(name: str, sentences: int, length: int) -> str:
    return " ".join(f"{name.upper()}{s}" + " w" * (length - 2) + " end." for s in range(sentences))


def test_whole_paragraphs_are_packed_together() -> None:
    text = "\n\n".join(paragraph(n, 2, 5) for n in "abcde")
    passages = split_passages(text, words, max_tokens=25)
    assert [p.count("\n\n") for p in pieces(text, passages)] == [1, 1, 0]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = paragraph("a", 7, 8)
    passages = split_passages(text, words, max_tokens=20)
    assert [words(p) for p in pieces(text, passages)] == [16, 16, 16, 8]
    assert all(p.endswith("end.") for p in pieces(text, passages))


def test_no_passage_crosses_a_heading_and_each_knows_its_path() -> None:
    text = "lead in\nTOP\nunder top\nSUB\nunder sub\nNEXT\nunder next"
    headings = [
        Heading(found.start(), found.end(), level, found.group())
        for level, name in ((1, "TOP"), (2, "SUB"), (1, "NEXT"))
        for found in [re.search(name, text)]
        if found
    ]
    passages = split_passages(text, words, headings=headings)
    assert [(text[p.start : p.end], p.headings) for p in passages] == [
        ("lead in", ()),
        ("under top", ("TOP",)),
        ("under sub", ("TOP", "SUB")),
        ("under next", ("NEXT",)),
    ]


def test_overlap_repeats_whole_sentences() -> None:
    text = paragraph("a", 6, 6)
    passages = split_passages(text, words, max_tokens=18, overlap_tokens=7)
    found = pieces(text, passages)
    assert len(found) > 2
    for before, after in pairwise(found):
        repeated = after.split(" end.")[0] + " end."
        assert before.endswith(repeated)
    assert all(words(p) <= 18 for p in found)


def test_one_endless_word_is_cut_too() -> None:
    text = "x" * 1000
    passages = split_passages(text, len, max_tokens=100)
    assert "".join(pieces(text, passages)) == text
    assert max(map(len, pieces(text, passages))) <= 100


@pytest.mark.parametrize(("limit", "overlap"), [(0, 0), (15, 0), (10**9, 0), (20, 20), (20, -1)])
def test_limits_are_checked(limit: int, overlap: int) -> None:
    with pytest.raises(InvalidParameterError):
        split_passages("text", words, max_tokens=limit, overlap_tokens=overlap)


def rough_tokens(text: str) -> int:
    return sum(1 + len(word) // 4 for word in re.findall(r"\w+|[^\w\s]", text))


documents = st.lists(
    st.sampled_from(
        ["a", "word", "x" * 90, "End.", "Why?", "\n", "\n\n", "- item", "    code", "é"]
    ),
    max_size=120,
).map(" ".join)


@given(documents, st.integers(16, 60), st.integers(0, 15), st.lists(st.integers(0, 500)))
def test_passages_fit_cover_and_never_cross_headings(
    text: str, limit: int, overlap: int, cuts: list[int]
) -> None:
    starts = sorted({cut for cut in cuts if cut < len(text)})
    headings = [Heading(s, s, 1 + s % 3, f"h{s}") for s in starts]
    passages = split_passages(
        text, rough_tokens, max_tokens=limit, overlap_tokens=overlap, headings=headings
    )
    covered = bytearray(len(text))
    for p in passages:
        assert 0 <= p.start < p.end <= len(text)
        assert rough_tokens(text[p.start : p.end]) <= limit
        assert not any(p.start < s < p.end for s in starts)
        covered[p.start : p.end] = b"\1" * (p.end - p.start)
    assert all(seen or char.isspace() for char, seen in zip(text, covered, strict=True))
    for before, after in pairwise(passages):
        assert before.end < after.end
        if not overlap:
            assert before.end <= after.start


@pytest.mark.parametrize("overlap", [0, 4])
def test_what_takes_no_tokens_is_not_counted_again_for_each_sentence(overlap: int) -> None:
    text = "\x01\n\n" * 3_000 + " ".join(f"word{n}." for n in range(60))
    counted = 0

    def tokens(piece: str) -> int:
        nonlocal counted
        counted += len(piece)
        return words(piece.replace("\x01", ""))

    split_passages(text, tokens, max_tokens=20, overlap_tokens=overlap)
    assert counted < 60 * len(text)
