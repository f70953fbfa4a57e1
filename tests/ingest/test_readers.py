"""The readers, each on small real files: structure kept, markup gone, damage reported."""

from __future__ import annotations

import codecs
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ingest.pdf_writer import pdf
from tests.ingest.reading import blocks, outline, read
from vecdb.errors import UnreadableDocumentError
from vecdb.ingest import read_document
from vecdb.ingest.document import Document


@pytest.mark.parametrize(
    "data",
    [
        "déjà vu\r\nça va\r".encode(),
        codecs.BOM_UTF8 + "déjà vu\nça va\n".encode(),
        "déjà vu\nça va\n".encode("utf-16"),
        "déjà vu\nça va\n".encode("utf-32"),
        "déjà vu\nça va\n".encode("cp1252"),
        "déjà vu\nça va\n".encode(),
    ],
)
def test_text_encodings(data: bytes) -> None:
    assert read_document(data, "vu.txt") == Document("vu", "déjà vu\nça va\n")


def test_a_few_bad_bytes_in_utf_8_stay_a_few() -> None:
    data = "中文文档内容很长".encode() + b"\xff" + "继续".encode()[:-1]
    assert read_document(data, "a.txt").text == "中文文档内容很长\ufffd继\ufffd"
    assert read_document(b"\x93CAF\xc9\x94", "a.txt").text == "“CAFÉ”"


def test_binary_and_misnamed_files_are_refused() -> None:
    with pytest.raises(UnreadableDocumentError, match="NUL"):
        read_document(b"\x7fELF\0\0", "a.txt")
    with pytest.raises(UnreadableDocumentError, match="byte order mark"):
        read_document(codecs.BOM_UTF16_LE + b"\x00\xd8x", "a.txt")
    with pytest.raises(UnreadableDocumentError, match=r"no reader for '\.docx'"):
        read_document(b"x", "a.docx")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.html", b"<p>hello</p><![foo[bar]]><p>x</p>"),
        ("a.html", b"<p>&#" + b"1" * 5_000 + b";</p>"),
        ("a.md", b"<?<![x["),
        ("a.rst", b"1" * 5_000 + b". item\n"),
    ],
)
def test_what_a_parser_fails_on_is_refused_as_any_damage(name: str, data: bytes) -> None:
    with pytest.raises(UnreadableDocumentError, match="cannot be parsed"):
        read_document(data, name)


def test_markdown() -> None:
    document = read(
        "notes.md",
        """
        ---
        title: "The notes"
        ---
        First *things* first,
        with a [link](http://example.org) and `code` and ![a cat](cat.png).

        # One

        - apples
        - pears
          and more

        3. three
        4. four

        ## Two

        ```python
        x = 1

        y = 2
        ```

        | a | b |
        |---|---|
        | 1 | **2** |

        <div>some <b>html</b></div>
        """,
    )
    assert document.title == "The notes"
    assert outline(document) == [(1, "One"), (2, "Two")]
    assert blocks(document) == [
        "First things first, with a link and code and a cat.",
        "One", "- apples", "- pears and more", "3. three", "4. four",
        "Two", "x = 1", "y = 2", "a | b", "1 | 2", "some html",
    ]  # fmt: skip
    assert read("plain.md", "just words\n").title == "plain"
    assert read("x.md", "# Heading\n\ntext").title == "Heading"


def test_markdown_front_matter_begins_with_a_field() -> None:
    rules = read("a.md", "---\nThe period is 45 days.\n\n---\n\n# Rest\n\nMore.\n")
    assert blocks(rules) == ["The period is 45 days.", "Rest", "More."]
    slides = read("a.md", "---\n# One\n\ntext: more\n\n---\n\n# Two\n")
    assert blocks(slides) == ["One", "text: more", "Two"]
    for fields in ("# said\nlayout: x\nTitle: T", '"title": T\ntitle: T', "title:  'T'\nx:\n  - y"):
        document = read("a.md", f"---\n{fields}\n---\nbody\n")
        assert (document.title, blocks(document)) == ("T", ["body"])


@pytest.mark.parametrize(
    ("field", "title"),
    [
        ("title: >\n  Long\n  title\nx: y", "Long title"),
        ("title: |-\n\tLong title", "Long title"),
        ("title: > not a block", "> not a block"),
        ("title:\nx: y", "H"),
    ],
)
def test_markdown_titles_in_blocks(field: str, title: str) -> None:
    assert read("a.md", f"---\n{field}\n---\n# H\nbody").title == title


def test_markdown_breaks_and_lists_from_zero() -> None:
    document = read(
        "a.md", "| a | b |\n|---|---|\n| one<br>two<BR/>3 | x<b>y</b> |\n\n0. no\n1. one\n"
    )
    assert blocks(document) == ["a | b", "one two 3 | xy", "0. no", "1. one"]


def test_rst_with_sphinx_markup() -> None:
    document = read(
        "guide.rst",
        """
        Guide
        =====

        See :pep:`8`, :pep:`the style guide <7>`, :func:`~os.path.join`, :c:func:`Py_Init`,
        :ref:`that section <label>`, :unknown-role:`thing`, *stress*, ``code`` and a note [1]_.

        .. versionadded:: 3.8
           The walrus.

        .. c:function:: int f(void)

           Does :term:`something`.

           .. note:: Nested.

        .. warning:: Careful.

        .. code-block:: python

           def f():
               pass

        .. _label:

        Part
        ----

        * one
        * two

          second paragraph

        Term
          Its meaning.

        ====== =====
        a      b
        ====== =====
        1      2
        ====== =====

        .. include:: /etc/passwd
        .. image:: cat.png
           :alt: a cat
        .. a comment

        .. [1] The footnote.
        """,
    )
    assert document.title == "Guide"
    assert outline(document) == [(1, "Guide"), (2, "Part")]
    assert blocks(document) == [
        "Guide",
        "See PEP 8, the style guide, join, Py_Init, that section, thing, stress, code and a note.",
        "3.8", "The walrus.", "int f(void)", "Does something.", "Note: Nested.",
        "Warning: Careful.", "def f():\n    pass", "Part", "- one", "- two",
        "second paragraph", "Term: Its meaning.", "a | b", "1 | 2", "a cat",
        "[1] The footnote.",
    ]  # fmt: skip


@pytest.mark.parametrize("mark", ["*a ", "`a ", "|a ", "``a ", "_`a ", "http:"])
def test_rst_that_docutils_would_take_minutes_for_keeps_its_marks(mark: str) -> None:
    text = (mark * 4_000).strip()
    assert blocks(read("a.rst", f"*short*\n\n{text}\n")) == ["short", text]


def test_rst_of_a_pep_has_its_number_in_the_title() -> None:
    document = read(
        "pep-0008.rst",
        """
        PEP: 8
        Title: Style Guide
        Author: Guido van Rossum <guido@python.org>,
                Barry Warsaw
        Created: 05-Jul-2001


        Introduction
        ============

        Text.
        """,
    )
    assert document.title == "PEP 8: Style Guide"
    assert blocks(document)[0].splitlines()[2] == (
        "Author: Guido van Rossum <guido@python.org>, Barry Warsaw"
    )


def test_pdf() -> None:
    data = pdf([["Page one says", "hyphen-", "ated words."], [], ["The third."]], "A title")
    document = read_document(data, "paper.pdf")
    assert document.title == "A title"
    assert outline(document) == [(1, "page 1"), (1, "page 3")]
    assert blocks(document) == ["Page one says\nhyphenated words.", "The third."]
    assert read_document(pdf([["x"]]), "paper.pdf").title == "paper"


def test_pdf_without_text_or_with_damage() -> None:
    with pytest.raises(UnreadableDocumentError, match="is it a scan"):
        read_document(pdf([[]]), "scan.pdf")
    whole = pdf([["Some words on a page."]] * 3)
    for cut in range(0, len(whole), 97):
        try:
            read_document(whole[:cut] + b"<<" + whole[cut + 40 :], "cut.pdf")
        except UnreadableDocumentError:
            continue


def test_nothing_is_printed_about_a_pdf_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "odd.pdf"
    path.write_bytes(pdf([["Some words on a page."]]).replace(b"startxref\n", b"startxref\n1"))
    script = (
        "import sys, pathlib; from vecdb.ingest import read_document; "
        "print(read_document(pathlib.Path(sys.argv[1]).read_bytes(), 'odd.pdf').text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert "Some words" in done.stdout
    assert done.stderr == ""


@given(st.binary(max_size=200), st.sampled_from(["txt", "md", "rst", "html", "pdf"]))
def test_any_bytes_are_read_or_refused(data: bytes, suffix: str) -> None:
    try:
        document = read_document(data, f"x.{suffix}")
    except UnreadableDocumentError:
        return
    document.text.encode("utf-8")
    position = 0
    for heading in document.headings:
        assert position <= heading.start <= heading.end <= len(document.text)
        position = heading.end
