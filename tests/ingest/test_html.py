"""HTML as documents: what is text, what is a heading, and what nobody meant to be read."""

from __future__ import annotations

from typing import Any

import pytest
from bs4.builder._htmlparser import BeautifulSoupHTMLParser

from tests.ingest.reading import blocks, outline, read
from vecdb.errors import UnreadableDocumentError
from vecdb.ingest import read_document


def test_html() -> None:
    document = read(
        "page.html",
        """
        <!DOCTYPE html><html><head><title>The
         page</title><style>p {}</style><script>alert(1)</script></head><body>
        <nav><a href="/">Home</a></nav><!-- hidden -->
        <main><h1>Top</h1><p>One <b>bold</b><br>line &amp; more.</p>loose text
        <ol start="3"><li>three</li><li><p>four</p></li></ol><ul><li>dot</li></ul>
        <h2>Sub</h2><pre>  a
            b</pre><table><tr><th>x<td>y</tr><tr><td><p>1</p></td><td>2</td></tr></table>
        <blockquote><p>said</p></blockquote></main><footer>foot</footer></body></html>
        """,
    )
    assert document.title == "The page"
    assert outline(document) == [(1, "Top"), (2, "Sub")]
    assert blocks(document) == [
        "Top", "One bold line & more.", "loose text", "3. three", "4. four", "- dot",
        "Sub", "  a\n    b", "x | y", "1 | 2", "said",
    ]  # fmt: skip


@pytest.mark.parametrize("markup", ["<a href='", "<a h='>' ", "<!--", "</", "<![if "])
def test_html_that_never_ends_is_refused_before_it_takes_minutes(markup: str) -> None:
    with pytest.raises(UnreadableDocumentError, match="without an end"):
        read_document(markup.encode() * 8_000, "a.html")
    with pytest.raises(UnreadableDocumentError, match="without an end"):
        read_document(f"<p>{markup * 8_000}\n".encode(), "a.md")


def test_html_with_few_tags_without_an_end_is_read() -> None:
    hidden = "<script>" + "write('<b>x</b>');" * 2_000 + "</script>" + "<!--<p>x-->" * 2_000
    document = read_document(f"<p>one</p>{hidden}<a h='>'<".encode() * 5, "a.html")
    assert document.text.count("one") == 5
    assert "x" not in document.text


@pytest.mark.parametrize("what", ["&#", "&#x", "&#foo;", "&#65a", "&"])
def test_what_is_no_reference_to_a_character_ends_no_markup(what: str) -> None:
    page = f"<p>a {what} b; <b>c</b></p>" * 3
    assert blocks(read_document(page.encode(), "a.html")) == [f"a {what} b; c"] * 3
    assert blocks(read("a.html", "<p>&#65;&#x42;&#67 &#x44</p><p>&amp;#69;")) == ["ABC D", "&#69;"]


def test_void_elements_of_html_cost_nothing_at_later_end_tags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met = []
    end = BeautifulSoupHTMLParser.handle_endtag

    def handle_endtag(self: BeautifulSoupHTMLParser, *args: Any, **kwargs: Any) -> None:
        met.append(len(self.already_closed_empty_element))
        end(self, *args, **kwargs)

    monkeypatch.setattr(BeautifulSoupHTMLParser, "handle_endtag", handle_endtag)
    page = (
        """<p>a<br>b<BR/>c<img src=x.png alt="1 > 2">d<hr class='x'>e<img alt=f></p>g<brx>h</brx>"""
    )
    assert blocks(read_document(page.encode(), "a.html")) == ["a b c1 > 2d", "ef", "gh"]
    assert max(met) <= 1


@pytest.mark.parametrize("name", ["article", "section"])
def test_a_page_is_more_than_the_only_article_on_it(name: str) -> None:
    page = f"<body><h1>T</h1><p>intro</p><{name}>teaser</{name}><p>outro</p></body>"
    assert blocks(read_document(page.encode(), "a.html")) == ["T", "intro", "teaser", "outro"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("<tr><th>Name<th>Age<tr><td>Bob<td>42<tr><td>Al<td>43", "Name | Age/Bob | 42/Al | 43"),
        ("<tr><td>a</td><td>x<table><tr><td>in</table>y</td><td>b</td></tr>", "a | x/in/y | b"),
        ("<tr><td>a<td><table><tr><td>in<tr><td>side</table><tr><td>b", "a/in/side/b"),
        ("<tr><td>a</td><td>b</td><p>after</p>", "a | b/after"),
        ("<tr><td>a</td><td>x<h2>Title</h2>y</td></tr>", "a | x/Title/y"),
        ("<tr><td>a</td><td>x<pre>p  q</pre></td></tr>", "a | x/p  q"),
        ("<tr><td>a</td><td></td><td>c</td></tr><tr><td></td></tr>", "a | | c"),
        ("<tr><td>a<tbody><tr><td>b", "a/b"),
        ("<td>a</td><tr><p>x</p><td>b</td></tr>", "a/x/b"),
    ],
)
def test_no_text_of_a_table_is_lost_and_it_stays_in_order(table: str, expected: str) -> None:
    document = read_document(f"<table>{table}</table><p>end".encode(), "a.html")
    assert blocks(document) == [*expected.split("/"), "end"]
    document = read_document(f"<p>start</p><table>{table}".encode(), "a.html")
    assert blocks(document) == ["start", *expected.split("/")]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ('<meta charset="iso-8859-1">', "cp1252"),
        ("<meta charset=utf-8>", "cp1252"),
        ("<meta charset=utf-8>", "utf-8"),
        ("<meta charset=utf-16>", "utf-8"),
        ("<meta charset=utf-7>", "utf-8"),
        ("<meta charset=unicode_escape>", "utf-8"),
        ("<meta charset=idna>", "utf-8"),
        ("<meta charset=base64>", "utf-8"),
        ("<meta charset=nonsense>", "utf-8"),
        ("<meta charset=shift_jis>", "cp932"),
        ('<?xml version="1.0" encoding="cp1251"?>', "cp1251"),
        ("", "cp1252"),
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
    ],
)
def test_html_encodings(declared: str, encoding: str) -> None:
    words = {"cp932": "日本語①", "cp1251": "Привет"}.get(encoding, "café à la “crème”, Genève")
    data = f"{declared}<p>{words}</p>".encode(encoding)
    assert read_document(data, "a.html").text.strip() == words


def test_html_of_odd_forms_and_depth() -> None:
    assert read_document(b"<p>plain", "a.htm").text.strip() == "plain"
    xhtml = b'<?xml version="1.0"?><html xmlns="x"><body><p>words</p></body></html>'
    assert read_document(xhtml, "a.xhtml").text.strip().endswith("words")
    deep = b"<div>" * 3000 + b"<p>bottom</p>" + b"</div>" * 3000
    assert read_document(deep, "a.html").text.strip() == "bottom"
