"""A document's chunks: what is embedded, and what each says about itself."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from vecdb.config import BATCH_ROWS, CHUNK_TOKENS
from vecdb.ingest.document import Document
from vecdb.ingest.tokens import estimate_tokens
from vecdb.rag.chunk import CountTokens, heading_paths, split_passages
from vecdb.types import Payload

_SPLIT_VERSION = 2
"""Raised when readers or splitting change, so that unchanged files are ingested anew."""

_BETWEEN_HEADINGS = " > "
_MOST_CONTEXT = 0.4
"""The greatest share of a chunk that its line of context may take."""

_CHARACTERS_PER_TOKEN = 8
"""More than a title has for each token; a longer line is cut without being counted."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How documents are split and written.

    Attributes
    ----------
    chunk_tokens
        The most tokens of a chunk, its line of context included.
    overlap_tokens
        How much of a chunk's end the next one repeats; less than `chunk_tokens`, and half a
        passage where a document's headings leave no room for more.
    count_tokens
        Counts tokens; an estimate by default, since the encoder may be on a server.
    batch_rows
        The most chunks of one upsert.
    """

    chunk_tokens: int = CHUNK_TOKENS.default
    overlap_tokens: int = 0
    count_tokens: CountTokens = estimate_tokens
    batch_rows: int = BATCH_ROWS.default

    @property
    def split(self) -> str:
        """What, beside the file, decides about its chunks."""
        return f"{_SPLIT_VERSION}:{self.chunk_tokens}:{self.overlap_tokens}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One point to be written."""

    id: str
    text: str
    payload: Payload


def chunk_id(name: str, number: int) -> str:
    """Return the id of a document's chunk."""
    return f"{name}#{number:04d}"


def split_document(
    document: Document, name: str, sha256: str, options: IngestOptions
) -> list[Chunk]:
    """Split a document into the chunks that are written for it.

    A chunk's text is a line of context (the title and the headings that it stands under), an
    empty line, and a passage of the document. ``start`` and ``end`` in the payload are the
    passage's span in the document's text as its reader gave it.
    """
    most = int(options.chunk_tokens * _MOST_CONTEXT)
    contexts = {
        path: _context(document.title, path, options.count_tokens, most)
        for path in [(), *heading_paths(document.headings)]
    }
    room = options.chunk_tokens - max(map(options.count_tokens, contexts.values()))
    limit = max(CHUNK_TOKENS.least, room)
    overlap = options.overlap_tokens
    passages = split_passages(
        document.text,
        options.count_tokens,
        max_tokens=limit,
        # Headings may leave less room than the overlap asked for.
        overlap_tokens=overlap if overlap < limit else limit // 2,
        headings=document.headings,
    )
    return [
        Chunk(
            id=chunk_id(name, number),
            text=f"{contexts[p.headings]}\n\n{document.text[p.start : p.end]}",
            payload={
                "path": name,
                "title": document.title,
                "heading": _BETWEEN_HEADINGS.join(p.headings),
                "chunk": number,
                "chunks": len(passages),
                "start": p.start,
                "end": p.end,
                "sha256": sha256,
                "split": options.split,
            },
        )
        for number, p in enumerate(passages)
    ]


def _context(title: str, path: tuple[str, ...], count_tokens: CountTokens, most: int) -> str:
    """Return the line of context; what is too long loses its middle headings, then its end."""
    if path[:1] == (title,):
        path = path[1:]
    longest = most * _CHARACTERS_PER_TOKEN
    for headings in (path, path[-1:], ()):
        parts = (title, *headings)
        if sum(map(len, parts)) <= longest:
            line = _BETWEEN_HEADINGS.join(parts)
            if count_tokens(line) <= most:
                return line
    words = title[:longest].split()

    def tokens(kept: int) -> int:
        return count_tokens(" ".join(words[:kept]))

    kept = 1 + bisect_right(range(2, len(words) + 1), most, key=tokens)
    return " ".join(words[:kept])
