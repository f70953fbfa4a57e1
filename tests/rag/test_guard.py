"""The guard over a model's text: repetitions and invented turns end it, all else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.rag.guard import AnswerGuard


def passed(text: str, size: int = 3) -> tuple[list[str], bool]:
    guard = AnswerGuard()
    shown = list(guard.passed(text[n : n + size] for n in range(0, len(text), size)))
    assert guard.text == "".join(shown)
    return shown, guard.ended


FIRST = "The style guide asks for four spaces."


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "ended"),
    [
        (f"{FIRST} Tabs are discouraged.", None, False),
        (f"{FIRST} {FIRST} {FIRST}", FIRST, True),
        (f"{FIRST}\n\n{FIRST.upper()}\n\nMore.", FIRST, True),
        (f"{FIRST} The style guide also asks for more.", None, False),
        (f"{FIRST} Why? Because. {FIRST}", f"{FIRST} Why? Because.", True),
        (f"{FIRST} The style guide asks", FIRST, False),
        ("Yes. No. Yes. No.", None, False),
        (f"{FIRST}\n\nQuestion: How many?\nAnswer: four", FIRST, True),
        (f'{FIRST}\n\n<source id="1" title="x">\nmore', FIRST, True),
        (f"{FIRST} Quite so. Quest over.", None, False),
        ("<source>", None, False),
        ("Question: is it?", None, False),
        ("  \n spaced out \n", "spaced out", False),
        ("", "", False),
        (
            "- one item of the list\n- another item\n",
            "- one item of the list\n- another item",
            False,
        ),
    ],
)
def test_what_passes(text: str, shown: str | None, ended: bool, size: int) -> None:
    pieces, over = passed(text, size)
    assert "".join(pieces) == (text if shown is None else shown)
    assert over is ended


def test_ordinary_text_is_not_delayed() -> None:
    guard = AnswerGuard()
    given_so_far: list[str] = []

    def model() -> list[str]:
        return ["The", " style", " guide."]

    for piece in model():
        given_so_far += guard.passed([piece])
    assert given_so_far == ["The", " style", " guide."]


def test_the_model_is_not_asked_for_more_after_a_repetition() -> None:
    taken = []

    def model() -> object:
        for n in range(100):
            taken.append(n)
            yield FIRST + " "

    assert "".join(AnswerGuard().passed(model())) == FIRST  # type: ignore[arg-type]
    assert len(taken) == 2


@given(
    st.lists(
        st.sampled_from([FIRST + " ", "Quite so. ", "c", " ", "\n\n", "Question: ", "The style"])
    ),
    st.integers(1, 9),
)
def test_what_is_shown_is_a_beginning_of_what_was_written(parts: list[str], size: int) -> None:
    text = "".join(parts)
    pieces, _ = passed(text, size)
    shown = "".join(pieces)
    assert text.strip().startswith(shown)
    assert shown == shown.strip()


def test_short_sentences_may_come_again() -> None:
    text = "It is true. So they say. It is true. The end is near now."
    assert "".join(AnswerGuard().passed([text])) == text
