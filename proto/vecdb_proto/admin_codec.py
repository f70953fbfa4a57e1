"""What is told of servers, collections and backups, as messages and back; see `codec`."""

from __future__ import annotations

from datetime import UTC, datetime

from vecdb.types import (
    BackupInfo,
    CollectionInfo,
    EncoderInfo,
    LoadedModel,
    Quarantine,
    SegmentInfo,
    ServerInfo,
    Work,
    WorkKind,
)
from vecdb_proto.codec import METRICS, metric_value
from vecdb_proto.v1 import vecdb_pb2 as pb

_WORK = {
    WorkKind.SEAL: pb.WORK_KIND_SEAL,
    WorkKind.MERGE: pb.WORK_KIND_MERGE,
    WorkKind.INDEX: pb.WORK_KIND_INDEX,
}
_WORK_OF = {number: kind for kind, number in _WORK.items()}


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
    return pb.CollectionInfo(
        name=info.name,
        dim=info.dim,
        metric=METRICS[info.metric],
        encoder=None if info.encoder is None else _encoder_message(info.encoder),
        count=info.count,
        segments=info.segments,
        indexed=info.indexed,
        disk_bytes=info.disk_bytes,
        memory_bytes=info.memory_bytes,
        quarantined=[
            pb.Quarantine(
                part=q.part, files=q.files, reason=q.reason, points=q.points, accepted=q.accepted
            )
            for q in info.quarantined
        ],
        closed_segments=[
            pb.SegmentInfo(
                rows=s.rows, live_rows=s.live_rows, disk_bytes=s.disk_bytes, indexed=s.indexed
            )
            for s in info.closed_segments
        ],
        growing_rows=info.growing_rows,
        log_bytes=info.log_bytes,
        work=[pb.Work(kind=_WORK[w.kind], rows=w.rows, done=w.done) for w in info.work],
    )


def info_value(message: pb.CollectionInfo) -> CollectionInfo:
    """Return the collection's settings and size that a message holds."""
    return CollectionInfo(
        name=message.name,
        dim=message.dim,
        metric=metric_value(message.metric),
        encoder=_encoder_value(message.encoder) if message.HasField("encoder") else None,
        count=message.count,
        segments=message.segments,
        indexed=message.indexed,
        disk_bytes=message.disk_bytes,
        memory_bytes=message.memory_bytes,
        quarantined=tuple(
            Quarantine(
                q.part,
                tuple(q.files),
                q.reason,
                q.points if q.HasField("points") else None,
                q.accepted,
            )
            for q in message.quarantined
        ),
        closed_segments=tuple(
            SegmentInfo(s.rows, s.live_rows, s.disk_bytes, s.indexed)
            for s in message.closed_segments
        ),
        growing_rows=message.growing_rows,
        log_bytes=message.log_bytes,
        work=tuple(
            # Work of a kind that only a newer server knows is left out.
            Work(_WORK_OF[w.kind], w.rows, w.done)
            for w in message.work
            if w.kind in _WORK_OF
        ),
    )


def _encoder_message(encoder: EncoderInfo) -> pb.EncoderInfo:
    return pb.EncoderInfo(
        model=encoder.model,
        weights_sha256=encoder.weights_sha256,
        tokenizer_sha256=encoder.tokenizer_sha256,
        pooling=encoder.pooling,
        prefix=encoder.prefix,
        normalized=encoder.normalized,
        dim=encoder.dim,
        max_tokens=encoder.max_tokens,
    )


def _encoder_value(message: pb.EncoderInfo) -> EncoderInfo:
    return EncoderInfo(
        model=message.model,
        weights_sha256=message.weights_sha256,
        tokenizer_sha256=message.tokenizer_sha256,
        pooling=message.pooling,
        prefix=message.prefix,
        normalized=message.normalized,
        dim=message.dim,
        max_tokens=message.max_tokens,
    )


def backup_message(info: BackupInfo) -> pb.BackupInfo:
    """Return what is told of a backup as a message."""
    return pb.BackupInfo(
        number=info.number,
        taken=None if info.taken is None else int(info.taken.timestamp()),
        points=info.points,
        files=info.files,
        bytes=info.bytes,
        new_files=info.new_files,
        new_bytes=info.new_bytes,
        damage=info.damage,
    )


def backup_value(message: pb.BackupInfo) -> BackupInfo:
    """Return what is told of a backup from a message."""
    return BackupInfo(
        number=message.number,
        taken=datetime.fromtimestamp(message.taken, UTC) if message.HasField("taken") else None,
        points=dict(sorted(message.points.items())),
        files=message.files,
        bytes=message.bytes,
        new_files=message.new_files,
        new_bytes=message.new_bytes,
        damage=message.damage if message.HasField("damage") else None,
    )
