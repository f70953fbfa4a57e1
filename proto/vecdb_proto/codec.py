"""The values of `vecdb.types` as messages and back, for both ends of the wire."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Sequence

import numpy as np

from vecdb.errors import InvalidIdError, InvalidTextError, InvalidVectorError
from vecdb.types import (
    AnswerEnd,
    Citation,
    CollectionInfo,
    EncoderInfo,
    FinishReason,
    Hit,
    LoadedModel,
    LongText,
    Matrix,
    Metric,
    Payload,
    PointId,
    Record,
    ServerInfo,
    Source,
    UpsertResult,
)
from vecdb_proto.v1 import vecdb_pb2 as pb

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
_METRIC_OF = {number: metric for metric, number in METRICS.items()}
_LONG_TEXT_OF = {number: long_text for long_text, number in LONG_TEXTS.items()}
_FINISH_REASON_OF = {number: reason for reason, number in FINISH_REASONS.items()}

_WIRE_FLOAT = np.dtype("<f4")


def metric_value(number: pb.Metric) -> Metric:
    """Return the metric; unspecified and unknown numbers are cosine, the protocol's default."""
    return _METRIC_OF.get(number, Metric.COSINE)


def long_text_value(number: pb.LongText) -> LongText:
    """Return what to do with long texts; unspecified is truncate, the protocol's default."""
    return _LONG_TEXT_OF.get(number, LongText.TRUNCATE)


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
    raise InvalidIdError(f"id {value!r:.100}: must be an int from 0 to 2**64 - 1 or a str")


def id_messages(ids: Iterable[PointId]) -> list[pb.PointId]:
    """Return ids, which may be an integer array, as messages.

    Raises
    ------
    InvalidIdError
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidIdError(f"ids={ids!r:.100}: must be a sequence of ids, not a single one")
    return [id_message(value) for value in ids]


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


def id_values(messages: Iterable[pb.PointId]) -> list[PointId]:
    """Return the ids that messages hold."""
    return [id_value(message) for message in messages]


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
    expected = message.rows * message.dim * _WIRE_FLOAT.itemsize
    if len(message.data) != expected:
        raise InvalidVectorError(
            f"vectors message of {message.rows} rows of dimension {message.dim} holds "
            f"{len(message.data)} bytes: must hold {expected} (float32)"
        )
    flat = np.frombuffer(message.data, dtype=_WIRE_FLOAT)
    return flat.astype(np.float32, copy=False).reshape(message.rows, message.dim)


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
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def hit_message(hit: Hit) -> pb.Hit:
    """Return a search result as a message."""
    return pb.Hit(
        id=id_message(hit.id),
        score=hit.score,
        text=hit.text,
        payload_json=None if hit.payload is None else json_text(hit.payload),
    )


def hit_value(message: pb.Hit) -> Hit:
    """Return the search result that a message holds."""
    return Hit(
        id_value(message.id),
        message.score,
        message.text if message.HasField("text") else None,
        _payload(message),
    )


def record_messages(records: Sequence[Record]) -> pb.GetResponse:
    """Return stored points, all of one dimension, as one message."""
    points = [
        pb.Point(
            id=id_message(record.id),
            text=record.text,
            payload_json=None if record.payload is None else json_text(record.payload),
        )
        for record in records
    ]
    rows = [record.vector for record in records]
    vectors = np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
    return pb.GetResponse(points=points, vectors=vectors_message(vectors))


def record_values(message: pb.GetResponse) -> list[Record]:
    """Return the stored points that a message holds."""
    return [
        Record(
            id_value(point.id),
            vector,
            point.text if point.HasField("text") else None,
            _payload(point),
        )
        for point, vector in zip(message.points, vectors_value(message.vectors), strict=True)
    ]


def upsert_result_message(result: UpsertResult) -> pb.UpsertResponse:
    """Return what an upsert did as a message."""
    return pb.UpsertResponse(ids=id_messages(result.ids), truncated=id_messages(result.truncated))


def upsert_result_value(message: pb.UpsertResponse) -> UpsertResult:
    """Return what an upsert did from a message."""
    return UpsertResult(id_values(message.ids), id_values(message.truncated))


def server_info_message(info: ServerInfo) -> pb.GetServerInfoResponse:
    """Return what a server says about itself as a message."""
    decoder = info.decoder
    return pb.GetServerInfoResponse(
        version=info.version,
        encoders=[pb.LoadedModel(name=m.name, provider=m.provider) for m in info.encoders],
        decoder=None
        if decoder is None
        else pb.LoadedModel(name=decoder.name, provider=decoder.provider),
    )


def server_info_value(message: pb.GetServerInfoResponse) -> ServerInfo:
    """Return what a server says about itself from a message."""
    decoder = message.decoder
    return ServerInfo(
        message.version,
        [LoadedModel(model.name, model.provider) for model in message.encoders],
        LoadedModel(decoder.name, decoder.provider) if message.HasField("decoder") else None,
    )


def info_message(info: CollectionInfo) -> pb.CollectionInfo:
    """Return a collection's settings and size as a message."""
    encoder = info.encoder
    return pb.CollectionInfo(
        name=info.name,
        dim=info.dim,
        metric=METRICS[info.metric],
        encoder=None
        if encoder is None
        else pb.EncoderInfo(
            model=encoder.model,
            weights_sha256=encoder.weights_sha256,
            tokenizer_sha256=encoder.tokenizer_sha256,
            pooling=encoder.pooling,
            prefix=encoder.prefix,
            normalized=encoder.normalized,
            dim=encoder.dim,
            max_tokens=encoder.max_tokens,
        ),
        count=info.count,
        segments=info.segments,
        indexed=info.indexed,
        disk_bytes=info.disk_bytes,
    )


def info_value(message: pb.CollectionInfo) -> CollectionInfo:
    """Return the collection's settings and size that a message holds."""
    encoder = message.encoder
    return CollectionInfo(
        name=message.name,
        dim=message.dim,
        metric=metric_value(message.metric),
        encoder=EncoderInfo(
            model=encoder.model,
            weights_sha256=encoder.weights_sha256,
            tokenizer_sha256=encoder.tokenizer_sha256,
            pooling=encoder.pooling,
            prefix=encoder.prefix,
            normalized=encoder.normalized,
            dim=encoder.dim,
            max_tokens=encoder.max_tokens,
        )
        if message.HasField("encoder")
        else None,
        count=message.count,
        segments=message.segments,
        indexed=message.indexed,
        disk_bytes=message.disk_bytes,
    )


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


def _payload(message: pb.Hit | pb.Point | pb.Source) -> Payload | None:
    if not message.HasField("payload_json"):
        return None
    payload: Payload = json.loads(message.payload_json)
    return payload
