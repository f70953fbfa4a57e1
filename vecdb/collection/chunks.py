"""Texts over the encoder's limit, written as several points."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from vecdb.collection.segments import Segments
from vecdb.config import STR_ID_BYTES
from vecdb.errors import DuplicateIdError, InvalidIdError, InvalidPayloadError
from vecdb.payload import decode_payload, encode_payload
from vecdb.types import PointId, Record

_FIELD = "chunk"
_FIRST_BLOCK = 256
_IDS_AT_ONCE = 16  # thousands of look-ups, while writers wait

Span = tuple[int, int]


def chunk_id(point_id: PointId, number: int) -> str:
    """Return the id of the chunk of that number, from 0, of the text of `point_id`."""
    return f"{point_id}#{number}"


def chunk_batch(
    ids: Sequence[PointId],
    texts: Sequence[str],
    payloads: Sequence[bytes | None],
    split: Callable[[str], list[Span]],
) -> tuple[list[PointId], list[str], list[bytes | None]]:
    """Return ids, texts and payloads with a point for each chunk in place of each text.

    A chunk's payload is its text's, with ``chunk`` added: ``{"of": id, "number": n, "start": s,
    "end": e}``, the span in characters.

    Raises
    ------
    DuplicateIdError
        If two of `ids` give one chunk the same id, as 1 and "1" do.
    InvalidIdError
        If an id leaves no room for its chunks' numbers.
    InvalidPayloadError
        If a payload has a field ``chunk`` of its own.
    """
    new_ids: list[PointId] = []
    new_texts: list[str] = []
    new_payloads: list[bytes | None] = []
    fields = [{} if payload is None else decode_payload(payload) for payload in payloads]
    spelt: dict[str, PointId] = {}
    for point_id, own in zip(ids, fields, strict=True):
        if _FIELD in own:
            raise InvalidPayloadError(
                f"payload of id {point_id!r:.100} has a field {_FIELD!r}, where long_text='chunk' "
                "writes what a point is a chunk of: rename it"
            )
        other = spelt.setdefault(str(point_id), point_id)
        if other is not point_id:
            raise DuplicateIdError(
                f"ids {other!r:.100} and {point_id!r:.100} would both have chunks named "
                f"{chunk_id(point_id, 0)!r:.100}: rename one of them"
            )
    for point_id, text, own in zip(ids, texts, fields, strict=True):
        for number, (start, end) in enumerate(split(text)):
            chunk = {"of": point_id, "number": number, "start": start, "end": end}
            new_ids.append(_valid_chunk_id(point_id, number))
            new_texts.append(text[start:end])
            new_payloads.append(encode_payload({**own, _FIELD: chunk}))
    return new_ids, new_texts, new_payloads


def _valid_chunk_id(point_id: PointId, number: int) -> str:
    found = chunk_id(point_id, number)
    size, most = len(found.encode()), STR_ID_BYTES.greatest
    if size > most:
        room = len(f"#{number}")
        raise InvalidIdError(
            f"id {point_id!r:.100} has {size - room} bytes in UTF-8, and its chunk {number} needs "
            f"{room} more for its number: must have at most {most - room}"
        )
    return found


def stale_points(
    segments: Segments, ids: Sequence[PointId], written: Sequence[PointId]
) -> list[PointId]:
    """Return the ids of points that earlier texts of `ids` left, without those `written`.

    They are the points under `ids` and all their chunks; other points whose ids look like those of
    chunks are not among them. Chunks may have been deleted one by one, so a number that is missing
    is not the end. They are looked for in blocks of numbers, each as large as all before it: the
    first that is empty ends the search. So it finds every chunk of a text that had up to
    `_FIRST_BLOCK`, and those of a longer one unless half of its numbers, in a row, are gone.
    """
    kept = set(written)
    stale = segments.present([point_id for point_id in ids if point_id not in kept])
    for first in range(0, len(ids), _IDS_AT_ONCE):
        searched = ids[first : first + _IDS_AT_ONCE]
        numbers = range(_FIRST_BLOCK)
        while searched:
            block = [chunk_id(point_id, number) for point_id in searched for number in numbers]
            there = segments.present(block)
            stale.extend(_chunks_of(searched, segments, [i for i in there if i not in kept]))
            going_on = {str(i).rpartition("#")[0] for i in there}
            searched = [point_id for point_id in searched if str(point_id) in going_on]
            numbers = range(numbers.stop, 2 * numbers.stop)
    return stale


def chunked_ids(segments: Segments, ids: Sequence[PointId]) -> list[PointId]:
    """Return those of `ids` whose text was written as chunks, as far as the first shows it."""
    first_chunks = [chunk_id(point_id, 0) for point_id in ids]
    there = set(segments.present(first_chunks))
    return [i for i, first in zip(ids, first_chunks, strict=True) if first in there]


def still_stale(
    segments: Segments, ids: Sequence[PointId], found: Sequence[PointId]
) -> list[PointId]:
    """Return those that `stale_points` has `found` and that are not other points by now."""
    own = set(ids)
    there = segments.present(found)
    chunks = [point_id for point_id in there if point_id not in own]
    return [i for i in there if i in own] + _chunks_of(own, segments, chunks)


def _chunks_of(
    ids: Collection[PointId], segments: Segments, points: Sequence[PointId]
) -> list[PointId]:
    return [record.id for record in segments.get(points) if _chunked(record) in ids]


def _chunked(record: Record) -> PointId | None:
    """Return the id of the text that a point is a chunk of, if it is one."""
    match record.payload:
        case {"chunk": {"of": int() | str() as of, "number": number}}:
            return of if chunk_id(of, number) == record.id else None
    return None
