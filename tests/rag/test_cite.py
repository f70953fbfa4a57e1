"""Citations: the supporting stretch is found, and what supports nothing is never cited."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vecdb.rag.cite import cite
from vecdb.types import Source

STYLE = Source(
    1,
    "pep-0008.rst#0004",
    0.7,
    "PEP 8: Style Guide for Python Code > Indentation\n\nUse 4 spaces per indentation level. "
    "Continuation lines should align wrapped elements vertically. Tabs should be used solely to "
    "remain consistent with code that is already indented with tabs.",
)
WALRUS = Source(
    2,
    "pep-0572.rst#0001",
    0.5,
    "PEP 572: Assignment Expressions > Abstract\n\nThis is a proposal for creating a way to assign "
    "to variables within an expression using the notation NAME := expr.",
)
SOURCES = [STYLE, WALRUS]


def test_a_sentence_is_cited_to_the_stretch_that_supports_it() -> None:
    answer = "PEP 8 recommends four spaces per indentation level."
    (citation,) = cite(answer, SOURCES)
    assert (citation.source, citation.id) == (1, STYLE.id)
    assert answer[citation.start : citation.end] == answer
    cited = STYLE.text[citation.chunk_start : citation.chunk_end]
    assert cited == "Use 4 spaces per indentation level."
    assert 0.5 <= citation.score <= 1


def test_each_sentence_has_its_own_source() -> None:
    answer = (
        "Use 4 spaces per indentation level. Assignment expressions assign to variables within "
        "an expression. Bananas are rich in potassium."
    )
    citations = cite(answer, SOURCES)
    assert [c.source for c in citations] == [1, 2]
    assert answer[citations[1].start : citations[1].end].startswith("Assignment")


def test_a_wrong_marker_does_not_make_a_citation() -> None:
    (citation,) = cite("Use 4 spaces per indentation level [2].", SOURCES)
    assert citation.source == 1
    assert cite("Bananas are rich in potassium [1].", SOURCES) == []
    assert cite("Use 4 spaces per indentation level [17].", SOURCES)[0].source == 1


def test_a_marker_adds_a_second_source_when_it_supports_too() -> None:
    twin = Source(3, "copy", 0.4, "Always use 4 spaces per indentation level in this house.")
    sources = [STYLE, WALRUS, twin]
    assert len(cite("Use 4 spaces per indentation level.", sources)) == 1
    both = cite("Use 4 spaces per indentation level [1, 3].", sources)
    assert {c.source for c in both} == {1, 3}


def test_an_invented_number_is_not_supported() -> None:
    assert cite("Use 7 spaces per indentation level.", SOURCES) == []
    assert cite("Use eight spaces per indentation level, as PEP 8 says.", [WALRUS]) == []


def test_the_line_of_context_does_not_stand_for_the_passage() -> None:
    source = Source(
        1,
        "x",
        0.6,
        "Style Guide > Maximum Line Length\n\nLimit all lines to 79 characters. Rest.",
        {"title": "Style Guide"},
    )
    answer = "The maximum line length in the style guide is 79 characters."
    (citation,) = cite(answer, [source], question="What is the maximum line length?")
    cited = source.text[citation.chunk_start : citation.chunk_end]
    assert cited == "Limit all lines to 79 characters."


def test_the_supported_part_of_a_sentence_is_cited() -> None:
    walrus = Source(
        1, "w", 0.7,
        "PEP 572 added assignment expressions to Python, written with the walrus operator.",
    )  # fmt: skip
    supported = (
        "The PEP 572 addition of assignment expressions to Python, written with the walrus operator"
    )
    answer = supported + ", is a significant improvement over previous versions of the PEP 484."
    question = "Which PEP added assignment expressions?"
    (citation,) = cite(answer, [walrus], question=question)
    assert answer[citation.start : citation.end] == supported + ","
    assert cite("Bananas are yellow, in Python, and so on.", [walrus], question=question) == []


def test_repeating_the_question_is_no_support() -> None:
    source = Source(1, "x", 0.6, "Copies of the Mona Lisa are painted every day.")
    answer = "The Mona Lisa was painted by Leonardo."
    assert cite(answer, [source], question="Who painted the Mona Lisa?") == []


def test_a_terse_answer_is_about_the_question() -> None:
    other = Source(3, "other", 0.4, "The offset of the field is 4 bytes.")
    (citation,) = cite(
        "The answer is 4.", [other, *SOURCES], question="How many spaces per indentation level?"
    )
    assert citation.id == STYLE.id


def test_empty_things() -> None:
    assert cite("", SOURCES) == []
    assert cite("Yes.", []) == []
    assert cite("It is.", SOURCES) == []
    assert cite("Use spaces.", [Source(1, 1, 0.0, "")]) == []


fragments = st.lists(
    st.sampled_from(["use", "spaces", "4", "5", "indentation.", "Tabs", "[1]", "[9]", "\n\n", "é?"])
).map(" ".join)


@given(fragments, st.lists(fragments, max_size=3), st.floats(0, 1))
def test_spans_are_in_range_and_scores_reach_the_threshold(
    answer: str, texts: list[str], least: float
) -> None:
    sources = [Source(n, f"id{n}", 0.5, text) for n, text in enumerate(texts, start=1)]
    citations = cite(answer, sources, least)
    assert [c.start for c in citations] == sorted(c.start for c in citations)
    for c in citations:
        source = sources[c.source - 1]
        assert c.id == source.id
        assert 0 <= c.start < c.end <= len(answer)
        assert 0 <= c.chunk_start <= c.chunk_end <= len(source.text)
        assert least <= c.score <= 1


def test_a_heading_alone_supports_nothing() -> None:
    text = "Style Guide > Maximum Line Length\n\nWrap early and often."
    source = Source(1, "x", 0.6, text, {"title": "Style Guide"})
    assert cite("The style guide sets a maximum line length.", [source]) == []


def test_a_terse_answer_is_about_the_question_whatever_the_order_and_the_scores() -> None:
    other = Source(1, "other", 0.9, "The size is 4 bytes.")
    style = Source(2, STYLE.id, 0.1, STYLE.text)
    question = "How many spaces per indentation level?"
    (citation,) = cite("It is 4.", [other, style], question=question)
    assert citation.id == STYLE.id


def test_a_marker_decides_between_sources_that_support_alike() -> None:
    sentence = "Use 4 spaces per indentation level."
    twins = [Source(n, f"twin {n}", 0.5, sentence) for n in (1, 2)]
    assert cite("Use 4 spaces per indentation level [2].", twins)[0].source == 2


def test_a_stretch_has_three_sentences_at_most() -> None:
    text = "Apples grow. Berries ripen. Cherries fall. Dates dry."
    source = Source(1, "a", 0.5, text)
    (citation,) = cite("Apples grow, berries ripen, cherries fall and dates dry.", [source])
    assert text[citation.chunk_start : citation.chunk_end].count(".") <= 3


def test_a_sentence_that_adds_little_is_not_in_the_stretch() -> None:
    text = "Apples grow on old orchard trees. Some are sweet."
    (citation,) = cite("Apples grow on old orchard trees, sweet.", [Source(1, "a", 0.5, text)])
    assert text[citation.chunk_start : citation.chunk_end] == "Apples grow on old orchard trees."
