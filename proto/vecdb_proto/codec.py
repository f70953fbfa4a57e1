"""The values of `vecdb.types` as messages and back, for both ends of the wire."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from vecdb.errors import (
    InvalidIdError,
    InvalidParameterError,
    InvalidTextError,
    InvalidVectorError,
    shown,
)
from vecdb.types import (
    AnswerEnd,
    Citation,
    FinishReason,
    Hit,
    HitColumns,
    LongText,
    Matrix,
    Metric,
    Payload,
    PointId,
    Record,
    Source,
    UpsertResult,
    is_single,
)
from vecdb_proto.v1 import vecdb_pb2 as pb

Member = TypeVar("Member")

METRICS = {
    Metric.COSINE: pb.METRIC_COSINE,
    Metric.DOT: pb.METRIC_DOT,
    Metric.L2: pb.METRIC_L2,
}
LONG_TEXTS = {
    LongText.TRUNCATE: pb.LONG_TEXT_TRUNCATE,
    LongText.CHUNK: pb.LONG_TEXT_CHUNK,
    LongText.ERROR: pb.LONG_TEXT_ERROR,
}
FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.NO_SOURCE: pb.FINISH_REASON_NO_SOURCE,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
}
_METRIC_OF = {pb.METRIC_UNSPECIFIED: Metric.COSINE} | {n: metric for metric, n in METRICS.items()}
_LONG_TEXT_OF = {pb.LONG_TEXT_UNSPECIFIED: LongText.TRUNCATE} | {
    number: long_text for long_text, number in LONG_TEXTS.items()
}
_FINISH_REASON_OF = {number: reason for reason, number in FINISH_REASONS.items()}

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_WIRE_FLOAT = np.dtype("<f4")


def metric_value(number: pb.Metric) -> Metric:
    """Return the metric; unspecified is cosine, the protocol's default.

    Raises
    ------
    InvalidParameterError
        If the number is none of the protocol's.
    """
    return _member(_METRIC_OF, number, "metric")


def long_text_value(number: pb.LongText) -> LongText:
    """Return what to do with long texts; unspecified is truncate, the protocol's default.

    Raises
    ------
    InvalidParameterError
        If the number is none of the protocol's.
    """
    return _member(_LONG_TEXT_OF, number, "long_text")


def _member(members: Mapping[Any, Member], number: int, name: str) -> Member:
    try:
        return members[number]
    except KeyError:
        known = ", ".join(f"{n} ({member})" for n, member in members.items())
        raise InvalidParameterError(f"{name}={number}: must be one of {known}") from None


def id_message(value: PointId) -> pb.PointId:
    """Return an id as a message.

    Raises
    ------
    InvalidIdError
        If it is neither an int in [0, 2**64) nor a str.
    """
    try:
        if isinstance(value, str):
            return pb.PointId(text=value)
        if not isinstance(value, bool):
            return pb.PointId(number=operator.index(value))
    except (TypeError, ValueError):
        pass
    raise InvalidIdError(f"id {shown(value)}: must be an int from 0 to 2**64 - 1 or a str")


def ids_message(ids: Iterable[PointId]) -> pb.PointIds:
    """Return ids, which may be an integer array, as columns.

    Raises
    ------
    InvalidIdError
        If one of them is neither an int in [0, 2**64) nor a str.
    """
    if is_single(ids):
        raise InvalidIdError(f"ids={shown(ids)}: must be a sequence of ids, not a single one")
    message = pb.PointIds()
    _write_ids(list(ids), message)
    return message


def _write_ids(ids: list[Any], message: pb.PointIds) -> None:
    """Write ids to an empty message; raises as `ids_message` does."""
    kinds = set(map(type, ids))
    try:
        if kinds == {int}:
            message.numbers.extend(ids)
            return
        if kinds == {str}:
            message.texts.extend(ids)
            return
    except ValueError:
        pass  # one of them is refused below, by its value
    messages = [id_message(value) for value in ids]
    flags = [each.HasField("text") for each in messages]
    pairs = list(zip(messages, flags, strict=True))
    message.numbers.extend([each.number for each, is_text in pairs if not is_text])
    message.texts.extend([each.text for each, is_text in pairs if is_text])
    if len(set(flags)) == 2:
        message.is_text.extend(flags)


def ids_value(message: pb.PointIds) -> list[PointId]:
    """Return the ids of a message.

    Raises
    ------
    InvalidIdError
        If the columns do not fit each other.
    """
    if not message.texts:
        return list(message.numbers)
    if not message.numbers:
        return list(message.texts)
    flags = message.is_text
    if sum(flags) != len(message.texts) or len(flags) - sum(flags) != len(message.numbers):
        raise InvalidIdError(
            f"ids message of {len(message.numbers)} numbers and {len(message.texts)} texts: "
            "is_text must have one entry for each"
        )
    numbers, texts = iter(message.numbers), iter(message.texts)
    return [next(texts) if is_text else next(numbers) for is_text in flags]


def id_value(message: pb.PointId) -> PointId:
    """Return the id that a message holds.

    Raises
    ------
    InvalidIdError
        If it holds none.
    """
    kind = message.WhichOneof("id")
    if kind == "number":
        return message.number
    if kind == "text":
        return message.text
    raise InvalidIdError("an id message is empty: must hold a number or a text")


def vectors_message(vectors: Matrix) -> pb.Vectors:
    """Return float32 rows, shape (n, dim), as a message."""
    rows, dim = vectors.shape
    return pb.Vectors(rows=rows, dim=dim, data=vectors.astype(_WIRE_FLOAT, copy=False).tobytes())


def vectors_value(message: pb.Vectors) -> Matrix:
    """Return the rows of a message as a read-only float32 array, shape (n, dim).

    Raises
    ------
    InvalidVectorError
        If the bytes are not as many as the shape says.
    """
    data = message.data
    expected = message.rows * message.dim * _WIRE_FLOAT.itemsize
    if len(data) != expected:
        raise InvalidVectorError(
            f"vectors message of {message.rows} rows of dimension {message.dim} holds "
            f"{len(data)} bytes: must hold {expected} (float32)"
        )
    flat: Matrix = np.frombuffer(data, _WIRE_FLOAT)
    if not _WIRE_FLOAT.isnative:  # a big-endian machine
        flat = flat.astype(np.float32)
    return flat.reshape(message.rows, message.dim)


def texts_message(texts: Sequence[str | None]) -> pb.Texts:
    """Return texts, of which some points may have none, as a message."""
    return pb.Texts(
        values=["" if text is None else text for text in texts],
        absent=[row for row, text in enumerate(texts) if text is None],
    )


def texts_value(message: pb.Texts) -> list[str | None]:
    """Return the texts of a message, None where there is none.

    Raises
    ------
    InvalidTextError
        If a position lies outside the list.
    """
    texts: list[str | None] = list(message.values)
    for row in message.absent:
        if row >= len(texts):
            raise InvalidTextError(f"text {row} is absent from a list of {len(texts)}")
        texts[row] = None
    return texts


def json_text(value: object) -> str:
    """Return a value that is known to have a JSON form as compact JSON text."""
    return _JSON.encode(value)


def json_array(objects: Iterable[bytes | None]) -> str:
    """Return objects that are JSON already as one array, with null for None."""
    return f"[{b','.join([each or b'null' for each in objects]).decode()}]"


def write_hits(hits: HitColumns, message: pb.Hits) -> None:
    """Write one query's results to an empty message."""
    _write_ids(hits.ids, message.ids)
    message.scores.extend(hits.scores)
    if hits.texts and None not in hits.texts:
        message.texts.values.extend(hits.texts)  # type: ignore[arg-type]
    elif (texts := _texts_if_any(hits.texts)) is not None:
        message.texts.CopyFrom(texts)
    if any(hits.payloads):
        message.payloads.json = json_array(hits.payloads)


def hits_value(message: pb.Hits) -> list[Hit]:
    """Return one query's results from a message."""
    texts, payloads = _texts_or_none(message), _payloads_or_none(message)
    return list(map(Hit, ids_value(message.ids), message.scores, texts, payloads))


def record_messages(records: Sequence[Record]) -> pb.GetResponse:
    """Return stored points, all of one dimension, as a message."""
    rows = [record.vector for record in records]
    return pb.GetResponse(
        ids=ids_message([record.id for record in records]),
        vectors=vectors_message(np.stack(rows)) if rows else None,
        texts=_texts_if_any([record.text for record in records]),
        payloads=_payloads_if_any([record.payload for record in records]),
    )


def record_values(message: pb.GetResponse) -> list[Record]:
    """Return the stored points of a message."""
    vectors = vectors_value(message.vectors)
    texts, payloads = _texts_or_none(message), _payloads_or_none(message)
    return list(map(Record, ids_value(message.ids), vectors, texts, payloads))


def upsert_result_message(result: UpsertResult) -> pb.UpsertResponse:
    """Return what an upsert did as a message."""
    return pb.UpsertResponse(ids=ids_message(result.ids), truncated=ids_message(result.truncated))


def upsert_result_value(message: pb.UpsertResponse) -> UpsertResult:
    """Return what an upsert did from a message."""
    return UpsertResult(ids_value(message.ids), ids_value(message.truncated))


def answer_end_message(end: AnswerEnd) -> pb.AnswerEnd:
    """Return what is known at the end of an answer as a message."""
    return pb.AnswerEnd(
        citations=[
            pb.Citation(
                source=citation.source,
                id=id_message(citation.id),
                start=citation.start,
                end=citation.end,
                chunk_start=citation.chunk_start,
                chunk_end=citation.chunk_end,
                score=citation.score,
            )
            for citation in end.citations
        ],
        sources=[
            pb.Source(
                number=source.number,
                id=id_message(source.id),
                score=source.score,
                text=source.text,
                payload_json=None if source.payload is None else json_text(source.payload),
            )
            for source in end.sources
        ],
        finish_reason=FINISH_REASONS[end.finish_reason],
        prompt_tokens=end.prompt_tokens,
        completion_tokens=end.completion_tokens,
    )


def answer_end_value(message: pb.AnswerEnd) -> AnswerEnd:
    """Return what is known at the end of an answer from a message."""
    return AnswerEnd(
        citations=[
            Citation(
                source=citation.source,
                id=id_value(citation.id),
                start=citation.start,
                end=citation.end,
                chunk_start=citation.chunk_start,
                chunk_end=citation.chunk_end,
                score=citation.score,
            )
            for citation in message.citations
        ],
        sources=[
            Source(
                number=source.number,
                id=id_value(source.id),
                score=source.score,
                text=source.text,
                payload=_payload(source),
            )
            for source in message.sources
        ],
        finish_reason=_FINISH_REASON_OF.get(message.finish_reason, FinishReason.STOP),
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
    )


def _texts_if_any(texts: list[str | None]) -> pb.Texts | None:
    return texts_message(texts) if texts.count(None) < len(texts) else None


def _payloads_if_any(payloads: list[Payload | None]) -> pb.Payloads | None:
    if all(payload is None for payload in payloads):
        return None
    return pb.Payloads(json=json_text(payloads))


def _texts_or_none(message: pb.Hits | pb.GetResponse) -> Iterable[str | None]:
    return texts_value(message.texts) if message.HasField("texts") else itertools.repeat(None)


def _payloads_or_none(message: pb.Hits | pb.GetResponse) -> Iterable[Payload | None]:
    if not message.HasField("payloads"):
        return itertools.repeat(None)
    payloads: list[Payload | None] = json.loads(message.payloads.json)
    return payloads


def _payload(message: pb.Source) -> Payload | None:
    return json.loads(message.payload_json) if message.HasField("payload_json") else None
