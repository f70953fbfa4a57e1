"""The protocol's own files: the stubs, the error table, what an import costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grpc
import numpy as np
import pytest

from vecdb import errors
from vecdb.types import FinishReason, HitColumns, LongText, Metric
from vecdb_proto import codec
from vecdb_proto.status import MAX_DETAILS, WIRE_ERRORS, WIRE_KEY, error_of, wire_details
from vecdb_proto.v1 import vecdb_pb2 as pb
from vecdb_proto.v1.vecdb_pb2_grpc import VecdbServiceStub

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "proto" / "vecdb_proto" / "v1"


def without_versions(stub):
    """Return a stub as every release of the generator writes it."""
    text = stub.read_text()
    text = re.sub(r"# Protobuf Python Version: .*", "", text)
    text = re.sub(r"Domain\.PUBLIC,\n +\d+,\n +\d+,\n +\d+,", "", text)
    text = re.sub(r"GRPC_GENERATED_VERSION = '.*'", "", text)
    return text.replace("(object):", ":").replace("_Optional[bool]", "bool")


def test_the_stubs_are_current(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    source = "proto/vecdb_proto/v1/vecdb.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *outputs, source]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("vecdb_pb2.py", "vecdb_pb2.pyi", "vecdb_pb2_grpc.py"):
        fresh = tmp_path / "vecdb_proto" / "v1" / name
        assert without_versions(fresh) == without_versions(STUBS / name), "run `make proto`"


def test_the_stubs_work_with_the_oldest_releases_allowed():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(entry.split(">=") for entry in dependencies)
    grpc_stub = (STUBS / "vecdb_pb2_grpc.py").read_text()
    assert f"GRPC_GENERATED_VERSION = '{least['grpcio']}.0'" in grpc_stub
    message_stub = (STUBS / "vecdb_pb2.py").read_text()
    assert re.search(rf"Protobuf Python Version: {re.escape(least['protobuf'])}\.", message_stub)


def all_errors(kind=errors.VecdbError):
    return {kind}.union(*(all_errors(sub) for sub in kind.__subclasses__()))


class Failed:
    """A failed call as grpc describes it."""

    def __init__(self, code, message="", metadata=()):
        self.code = lambda: code
        self.details = lambda: message
        self.trailing_metadata = lambda: metadata


def test_every_error_is_in_the_table_under_a_name_of_its_own():
    ours = {kind for kind in all_errors() if kind.__module__ == errors.__name__}
    assert set(WIRE_ERRORS) == ours
    assert len({name for _, name in WIRE_ERRORS.values()}) == len(WIRE_ERRORS)
    for kind, (code, name) in WIRE_ERRORS.items():
        error = error_of(Failed(code, "message", [("other", "x"), (WIRE_KEY, name)]))
        assert type(error) is kind
        assert str(error) == "message"
        if kind is not errors.InternalError:
            assert code is not grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("UNAVAILABLE", "refused", errors.UnavailableError),
        ("DEADLINE_EXCEEDED", "late", errors.DeadlineExceededError),
        ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!", errors.OverloadedError),
        (
            "RESOURCE_EXHAUSTED",
            "CLIENT: Received message larger than max (5 vs. 4)",
            errors.MessageTooLargeError,
        ),
        ("UNIMPLEMENTED", "Method not found!", errors.FailedPreconditionError),
        ("ABORTED", "?", errors.VecdbError),
    ],
)
def test_what_grpc_itself_answers_has_a_class_too(code, message, kind):
    error = error_of(Failed(grpc.StatusCode[code], message, None))
    assert type(error) is kind
    assert message in str(error)


def test_an_error_of_a_newer_server_becomes_the_nearest_known():
    error = error_of(Failed(grpc.StatusCode.NOT_FOUND, "x", [(WIRE_KEY, "FROM_THE_FUTURE")]))
    assert type(error) is errors.NotFoundError


@pytest.mark.parametrize(("character", "takes"), [("x", 1), ("%", 3), ("\n", 3), ("漢", 9)])
def test_long_messages_are_shortened_to_what_they_take_when_sent(character, takes):
    fits = character * (MAX_DETAILS // takes)
    assert wire_details(errors.InvalidNameError(fits)) == fits
    details = wire_details(errors.InvalidNameError(fits + character))
    assert details == character * ((MAX_DETAILS - 3) // takes) + "..."


@pytest.mark.parametrize("character", ["x", "%", "漢"])
def test_a_long_message_arrives_with_its_class(engine, client, character):
    def fail(_):
        raise errors.DiskFullError(character * 10_000)

    engine.before = fail
    for _ in range(5):  # above the limit, gRPC breaks off some calls, chosen at random
        with pytest.raises(errors.DiskFullError, match=rf"{character}\.\.\.$"):
            client.create_collection("v", dim=2)


def test_every_member_of_an_enumeration_has_a_number():
    for kind, numbers, value_of in (
        (Metric, codec.METRICS, codec.metric_value),
        (LongText, codec.LONG_TEXTS, codec.long_text_value),
    ):
        assert all(value_of(numbers[member]) is member for member in kind)
    assert set(codec.FINISH_REASONS) == set(FinishReason)
    assert codec.metric_value(0) is Metric.COSINE
    assert codec.long_text_value(0) is LongText.TRUNCATE


def test_unknown_numbers_are_refused(start):
    with grpc.insecure_channel(start()) as channel:
        stub = VecdbServiceStub(channel)
        stub.CreateCollection(pb.CreateCollectionRequest(name="v", dim=2))
        for send, request, words in (
            (stub.CreateCollection, pb.CreateCollectionRequest(name="w", metric=9), "metric=9"),
            (stub.Upsert, pb.UpsertRequest(collection="v", long_text=7), "long_text=7"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                send(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert words in caught.value.details()
            assert (WIRE_KEY, "INVALID_PARAMETER") in caught.value.trailing_metadata()


def test_vectors_are_little_endian_and_their_shape_is_checked():
    message = codec.vectors_message(np.array([[1.0, 2.0]], np.float32))
    assert message.data == b"\0\0\x80\x3f\0\0\0\x40"
    assert not codec.vectors_value(message).flags.writeable
    with pytest.raises(errors.InvalidVectorError, match="must hold 12"):
        codec.vectors_value(pb.Vectors(rows=1, dim=3, data=message.data))


@pytest.mark.parametrize(
    "ids", [[], [1, 2], ["a", "b"], [1, "1", 2**64 - 1, "b", 0], ["0"], np.array([3, 4])]
)
def test_ids_come_back_in_their_order(ids):
    message = pb.PointIds.FromString(codec.ids_message(ids).SerializeToString())
    assert codec.ids_value(message) == list(ids)


@pytest.mark.parametrize("flags", [[], [True], [True, True], [True, False, True]])
def test_id_columns_that_do_not_fit_each_other(flags):
    with pytest.raises(errors.InvalidIdError, match="is_text"):
        codec.ids_value(pb.PointIds(numbers=[1], texts=["a"], is_text=flags))


def test_an_empty_id_message_is_refused():
    with pytest.raises(errors.InvalidIdError):
        codec.id_value(pb.PointId())


@pytest.mark.parametrize(
    ("ids", "texts", "payloads"),
    [
        ([], [], []),
        ([1, 2], [None, None], [None, None]),
        (["a", "b"], ["x", "y"], [b'{"n":1}', None]),
        ([1, "a"], [None, "x"], [None, b"{}"]),
    ],
)
def test_hits_say_only_what_they_have(ids, texts, payloads):
    hits = HitColumns(ids, [0.5] * len(ids), texts, payloads)
    written = pb.SearchResponse().results.add()
    codec.write_hits(hits, written)
    message = pb.Hits.FromString(written.SerializeToString())
    assert message.HasField("texts") == any(texts)
    assert message.HasField("payloads") == any(payloads)
    read = codec.hits_value(message)
    assert [(hit.id, hit.text) for hit in read] == list(zip(ids, texts, strict=True))
    assert [hit.payload for hit in read] == [p and json.loads(p) for p in payloads]


def test_an_absent_text_must_be_in_the_list():
    with pytest.raises(errors.InvalidTextError):
        codec.texts_value(pb.Texts(values=["a"], absent=[1]))


def test_importing_the_client_loads_neither_the_kernels_nor_the_models():
    code = (
        "import sys, vecdb_client\n"
        "heavy = {'numba', 'llvmlite', 'onnxruntime', 'tokenizers', 'vecdb.database'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
