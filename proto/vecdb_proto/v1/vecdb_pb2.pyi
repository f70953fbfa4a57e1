from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_DOT: _ClassVar[Metric]
    METRIC_L2: _ClassVar[Metric]

class LongText(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LONG_TEXT_UNSPECIFIED: _ClassVar[LongText]
    LONG_TEXT_TRUNCATE: _ClassVar[LongText]
    LONG_TEXT_CHUNK: _ClassVar[LongText]
    LONG_TEXT_ERROR: _ClassVar[LongText]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_NO_SOURCE: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]

class WorkKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORK_KIND_UNSPECIFIED: _ClassVar[WorkKind]
    WORK_KIND_SEAL: _ClassVar[WorkKind]
    WORK_KIND_MERGE: _ClassVar[WorkKind]
    WORK_KIND_INDEX: _ClassVar[WorkKind]
METRIC_UNSPECIFIED: Metric
METRIC_COSINE: Metric
METRIC_DOT: Metric
METRIC_L2: Metric
LONG_TEXT_UNSPECIFIED: LongText
LONG_TEXT_TRUNCATE: LongText
LONG_TEXT_CHUNK: LongText
LONG_TEXT_ERROR: LongText
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_NO_SOURCE: FinishReason
FINISH_REASON_CANCELLED: FinishReason
WORK_KIND_UNSPECIFIED: WorkKind
WORK_KIND_SEAL: WorkKind
WORK_KIND_MERGE: WorkKind
WORK_KIND_INDEX: WorkKind

class PointId(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    text: str
    def __init__(self, number: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class PointIds(_message.Message):
    __slots__ = ("numbers", "texts", "is_text")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    IS_TEXT_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    is_text: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, numbers: _Optional[_Iterable[int]] = ..., texts: _Optional[_Iterable[str]] = ..., is_text: _Optional[_Iterable[bool]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("values", "absent")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    absent: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[str]] = ..., absent: _Optional[_Iterable[int]] = ...) -> None: ...

class Vectors(_message.Message):
    __slots__ = ("rows", "dim", "data")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    rows: int
    dim: int
    data: bytes
    def __init__(self, rows: _Optional[int] = ..., dim: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Payloads(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class EncoderInfo(_message.Message):
    __slots__ = ("model", "weights_sha256", "tokenizer_sha256", "pooling", "prefix", "normalized", "dim", "max_tokens")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_SHA256_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    model: str
    weights_sha256: str
    tokenizer_sha256: str
    pooling: str
    prefix: str
    normalized: bool
    dim: int
    max_tokens: int
    def __init__(self, model: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., tokenizer_sha256: _Optional[str] = ..., pooling: _Optional[str] = ..., prefix: _Optional[str] = ..., normalized: bool = ..., dim: _Optional[int] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class Quarantine(_message.Message):
    __slots__ = ("part", "files", "reason", "points", "accepted")
    PART_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    part: str
    files: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    points: int
    accepted: bool
    def __init__(self, part: _Optional[str] = ..., files: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., points: _Optional[int] = ..., accepted: bool = ...) -> None: ...

class CollectionInfo(_message.Message):
    __slots__ = ("name", "dim", "metric", "encoder", "count", "segments", "indexed", "disk_bytes", "quarantined", "closed_segments", "growing_rows", "log_bytes", "work", "memory_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    GROWING_ROWS_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    metric: Metric
    encoder: EncoderInfo
    count: int
    segments: int
    indexed: int
    disk_bytes: int
    quarantined: _containers.RepeatedCompositeFieldContainer[Quarantine]
    closed_segments: _containers.RepeatedCompositeFieldContainer[SegmentInfo]
    growing_rows: int
    log_bytes: int
    work: _containers.RepeatedCompositeFieldContainer[Work]
    memory_bytes: int
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., encoder: _Optional[_Union[EncoderInfo, _Mapping]] = ..., count: _Optional[int] = ..., segments: _Optional[int] = ..., indexed: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., quarantined: _Optional[_Iterable[_Union[Quarantine, _Mapping]]] = ..., closed_segments: _Optional[_Iterable[_Union[SegmentInfo, _Mapping]]] = ..., growing_rows: _Optional[int] = ..., log_bytes: _Optional[int] = ..., work: _Optional[_Iterable[_Union[Work, _Mapping]]] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class SegmentInfo(_message.Message):
    __slots__ = ("rows", "live_rows", "disk_bytes", "indexed")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    LIVE_ROWS_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    rows: int
    live_rows: int
    disk_bytes: int
    indexed: bool
    def __init__(self, rows: _Optional[int] = ..., live_rows: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., indexed: bool = ...) -> None: ...

class Work(_message.Message):
    __slots__ = ("kind", "rows", "done")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    kind: WorkKind
    rows: int
    done: float
    def __init__(self, kind: _Optional[_Union[WorkKind, str]] = ..., rows: _Optional[int] = ..., done: _Optional[float] = ...) -> None: ...

class BackupInfo(_message.Message):
    __slots__ = ("number", "taken", "points", "files", "bytes", "new_files", "new_bytes", "damage")
    class PointsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    NEW_FILES_FIELD_NUMBER: _ClassVar[int]
    NEW_BYTES_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    number: int
    taken: int
    points: _containers.ScalarMap[str, int]
    files: int
    bytes: int
    new_files: int
    new_bytes: int
    damage: str
    def __init__(self, number: _Optional[int] = ..., taken: _Optional[int] = ..., points: _Optional[_Mapping[str, int]] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ..., new_files: _Optional[int] = ..., new_bytes: _Optional[int] = ..., damage: _Optional[str] = ...) -> None: ...

class Hits(_message.Message):
    __slots__ = ("ids", "scores", "texts", "payloads")
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ids: PointIds
    scores: _containers.RepeatedScalarFieldContainer[float]
    texts: Texts
    payloads: Payloads
    def __init__(self, ids: _Optional[_Union[PointIds, _Mapping]] = ..., scores: _Optional[_Iterable[float]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., payloads: _Optional[_Union[Payloads, _Mapping]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("number", "id", "score", "text", "payload_json")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    number: int
    id: PointId
    score: float
    text: str
    payload_json: str
    def __init__(self, number: _Optional[int] = ..., id: _Optional[_Union[PointId, _Mapping]] = ..., score: _Optional[float] = ..., text: _Optional[str] = ..., payload_json: _Optional[str] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("source", "id", "start", "end", "chunk_start", "chunk_end", "score")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    CHUNK_START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_END_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    source: int
    id: PointId
    start: int
    end: int
    chunk_start: int
    chunk_end: int
    score: float
    def __init__(self, source: _Optional[int] = ..., id: _Optional[_Union[PointId, _Mapping]] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., chunk_start: _Optional[int] = ..., chunk_end: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class AnswerEnd(_message.Message):
    __slots__ = ("citations", "sources", "finish_reason", "prompt_tokens", "completion_tokens")
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    citations: _containers.RepeatedCompositeFieldContainer[Citation]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    def __init__(self, citations: _Optional[_Iterable[_Union[Citation, _Mapping]]] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ...) -> None: ...

class LoadedModel(_message.Message):
    __slots__ = ("name", "provider")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    name: str
    provider: str
    def __init__(self, name: _Optional[str] = ..., provider: _Optional[str] = ...) -> None: ...

class PingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PingResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "encoders", "decoder")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    version: str
    encoders: _containers.RepeatedCompositeFieldContainer[LoadedModel]
    decoder: LoadedModel
    def __init__(self, version: _Optional[str] = ..., encoders: _Optional[_Iterable[_Union[LoadedModel, _Mapping]]] = ..., decoder: _Optional[_Union[LoadedModel, _Mapping]] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("name", "dim", "metric", "encoder", "m", "ef_construction")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    M_FIELD_NUMBER: _ClassVar[int]
    EF_CONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    metric: Metric
    encoder: str
    m: int
    ef_construction: int
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., encoder: _Optional[str] = ..., m: _Optional[int] = ..., ef_construction: _Optional[int] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: CollectionInfo
    def __init__(self, info: _Optional[_Union[CollectionInfo, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UpsertRequest(_message.Message):
    __slots__ = ("collection", "ids", "texts", "vectors", "payloads", "long_text")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    LONG_TEXT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: PointIds
    texts: Texts
    vectors: Vectors
    payloads: Payloads
    long_text: LongText
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[PointIds, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., vectors: _Optional[_Union[Vectors, _Mapping]] = ..., payloads: _Optional[_Union[Payloads, _Mapping]] = ..., long_text: _Optional[_Union[LongText, str]] = ...) -> None: ...

class UpsertResponse(_message.Message):
    __slots__ = ("ids", "truncated")
    IDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ids: PointIds
    truncated: PointIds
    def __init__(self, ids: _Optional[_Union[PointIds, _Mapping]] = ..., truncated: _Optional[_Union[PointIds, _Mapping]] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "texts", "vectors", "k", "filter_json", "ef")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    collection: str
    texts: Texts
    vectors: Vectors
    k: int
    filter_json: str
    ef: int
    def __init__(self, collection: _Optional[str] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., vectors: _Optional[_Union[Vectors, _Mapping]] = ..., k: _Optional[int] = ..., filter_json: _Optional[str] = ..., ef: _Optional[int] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Hits]
    def __init__(self, results: _Optional[_Iterable[_Union[Hits, _Mapping]]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: PointIds
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[PointIds, _Mapping]] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("ids", "vectors", "texts", "payloads")
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ids: PointIds
    vectors: Vectors
    texts: Texts
    payloads: Payloads
    def __init__(self, ids: _Optional[_Union[PointIds, _Mapping]] = ..., vectors: _Optional[_Union[Vectors, _Mapping]] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ..., payloads: _Optional[_Union[Payloads, _Mapping]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "filter_json")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: PointIds
    filter_json: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[PointIds, _Mapping]] = ..., filter_json: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "filter_json")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    collection: str
    filter_json: str
    def __init__(self, collection: _Optional[str] = ..., filter_json: _Optional[str] = ...) -> None: ...

class CountResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class FlushRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class FlushResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("name", "keep")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    name: str
    keep: int
    def __init__(self, name: _Optional[str] = ..., keep: _Optional[int] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("backup",)
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    backup: BackupInfo
    def __init__(self, backup: _Optional[_Union[BackupInfo, _Mapping]] = ...) -> None: ...

class ListBackupsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListBackupsResponse(_message.Message):
    __slots__ = ("backups",)
    BACKUPS_FIELD_NUMBER: _ClassVar[int]
    backups: _containers.RepeatedCompositeFieldContainer[BackupInfo]
    def __init__(self, backups: _Optional[_Iterable[_Union[BackupInfo, _Mapping]]] = ...) -> None: ...

class AskRequest(_message.Message):
    __slots__ = ("collection", "question", "k", "filter_json", "max_tokens", "temperature", "seed")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    question: str
    k: int
    filter_json: str
    max_tokens: int
    temperature: float
    seed: int
    def __init__(self, collection: _Optional[str] = ..., question: _Optional[str] = ..., k: _Optional[int] = ..., filter_json: _Optional[str] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ("text", "end")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    text: str
    end: AnswerEnd
    def __init__(self, text: _Optional[str] = ..., end: _Optional[_Union[AnswerEnd, _Mapping]] = ...) -> None: ...
