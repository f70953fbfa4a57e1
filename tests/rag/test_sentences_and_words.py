"""Sentence boundaries and content words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.rag.sentences import sentence_spans
from vecdb.rag.words import content_words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("Use it, e.g. here. Then stop.", ["Use it, e.g. here.", "Then stop."]),
        ("By G. van Rossum et al. in 3.11. Done", ["By G. van Rossum et al. in 3.11.", "Done"]),
        ('He said "yes." She left.', ['He said "yes."', "She left."]),
        ("It is four [1]. And so [2]", ["It is four [1].", "And so [2]"]),
        ("It is four. [1] And so. [2]", ["It is four. [1]", "And so. [2]"]),
        ("Two ways:\n- this one\n- that one", ["Two ways:", "- this one", "- that one"]),
        ("1. First thing. 2. Second", ["1. First thing.", "2. Second"]),
        ("a paragraph\n\nanother", ["a paragraph", "another"]),
        ("wrapped\nline. next", ["wrapped\nline. next"]),
        ("x = 3.5 is. Fine", ["x = 3.5 is.", "Fine"]),
        ("これは文です。次の文です。", ["これは文です。", "次の文です。"]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


@given(st.text(st.sampled_from("aB.!? \n-1[]\"'。é"), max_size=60) | st.text(max_size=40))
def test_spans_are_in_order_and_leave_out_only_space(text: str) -> None:
    position = 0
    for start, end in sentence_spans(text):
        assert position <= start < end <= len(text)
        assert not text[position:start].strip()
        assert text[start:end] == text[start:end].strip()
        position = end
    assert not text[position:].strip()


MARK_FROM_ANYWHERE = re.compile(
    r"(?P<mark>[.!?\u2026]+)[\"'\u2019\u201d)\]*`]*(?:[ ]?\[\d{1,3}\])*[.]?(?=\s|$)"
    r"|[\u3002\uff01\uff1f][\u300d\u300f\uff09]*"
)
"""What ends a sentence as first written: right, and quadratic in a run of marks."""


@given(st.text(st.sampled_from(".!?\u2026\"')]*[1] \na\u3002\u300d"), max_size=25))
def test_a_mark_begins_a_run_of_marks(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vecdb.rag.sentences._SENTENCE_END", MARK_FROM_ANYWHERE)
        expected = sentence_spans(text)
    assert sentence_spans(text) == expected


@pytest.mark.parametrize(
    "repeated",
    ["e.g. x ", ".", "...!?", '.")', ". [1]", ".[1].", " ", "\n ", "\n\n", "\n -", "1. ", "\u3002"],
)
def test_hundreds_of_thousands_of_one_thing_take_no_quadratic_time(repeated: str) -> None:
    half = repeated * (200_000 // len(repeated))
    closing = '")' * 100_000
    for text in (half, half + "x", half + closing + "x", half + "." * 200_000 + closing + "x"):
        found = "".join(text[start:end] for start, end in sentence_spans(text))
        assert "".join(found.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("indentation", "indented"),
        ("spaces", "space"),
        ("classes", "class"),
        ("queries", "query"),
        ("running", "run"),
        ("typed types", "typing type"),
        ("Guido's", "guido"),
        ("four", "4"),
        ("1,000", "1000"),
    ],
)
def test_forms_of_one_word_share_a_stem(left: str, right: str) -> None:
    assert [w.stem for w in content_words(left)] == [w.stem for w in content_words(right)]


def test_stop_words_carry_no_content_and_spans_are_exact() -> None:
    text = "What is the walrus_operator of PEP 572, in 3.8?"
    words = content_words(text)
    assert [text[w.start : w.end] for w in words] == [
        "walrus", "operator", "PEP", "572", "3.8",
    ]  # fmt: skip
    assert [w.is_number for w in words] == [False, False, False, True, True]
    assert len(content_words("日本語")) == 3


@given(st.text(max_size=80))
def test_any_text_has_words_inside_it(text: str) -> None:
    for word in content_words(text):
        assert 0 <= word.start < word.end <= len(text)
        assert word.stem
