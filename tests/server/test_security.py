"""Who may listen where, and who may call."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from vecdb import errors
from vecdb_client import AsyncClient, Client
from vecdb_proto.v1 import vecdb_pb2 as pb
from vecdb_proto.v1.vecdb_pb2_grpc import VecdbServiceStub
from vecdb_server import ClassLimit, Server, ServerConfig
from vecdb_server.auth import ApiKeys

pytest.importorskip("cryptography", reason="cryptography is not installed")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOT_LET_IN = (errors.UnavailableError, errors.DeadlineExceededError)


@dataclass
class Pair:
    """A certificate and its key, in files."""

    cert: Path
    key: Path


def make_pair(folder: Path, name: str) -> Pair:
    """Write a self-signed certificate for this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pair


@pytest.fixture(scope="module")
def server_pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture(scope="module")
def client_pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("tls"), "client")


def test_keys(start):
    address = start(api_keys=("first", "second"))
    for key in ("first", "second"):
        with Client(f"grpc://{address}", api_key=key) as client:
            assert client.list_collections() == []
    for key in ("third", "firs", "first1"):
        with Client(f"grpc://{address}", api_key=key) as client:
            with pytest.raises(errors.UnauthenticatedError, match="not one of"):
                client.list_collections()
            with pytest.raises(errors.UnauthenticatedError):
                client.ping()
    with (
        Client(f"grpc://{address}") as client,
        pytest.raises(errors.UnauthenticatedError, match="no API key"),
    ):
        client.list_collections()


async def test_keys_from_the_async_client(start):
    address = start(api_keys=("first",))
    async with AsyncClient(f"grpc://{address}", api_key="first") as client:
        assert await client.list_collections() == []
    async with AsyncClient(f"grpc://{address}") as client:
        with pytest.raises(errors.UnauthenticatedError):
            await client.list_collections()


def test_a_key_is_compared_whole_and_as_it_is(start):
    key = "K" * 40 + "a"
    address = start(api_keys=(key,))
    for wrong in (key[:-1] + "b", key[:-1], key + "x", key.lower()):
        with (
            Client(f"grpc://{address}", api_key=wrong) as client,
            pytest.raises(errors.UnauthenticatedError),
        ):
            client.list_collections()


def test_of_many_wrong_keys_none_is_right(start):
    """Keys are compared by digests: one of these begins as that of the right key does."""
    interceptor = ApiKeys(["right"])
    assert not any(interceptor._knows(f"wrong{n}") for n in range(2_000))
    assert interceptor._knows("right")


def test_a_key_is_asked_for_by_the_scheme_bearer(start):
    with grpc.insecure_channel(start(api_keys=("first",))) as channel:
        ping = VecdbServiceStub(channel).Ping
        ping(pb.PingRequest(), metadata=(("authorization", "bearer first"),))
        for given in ("Basic first", "first", "Bearer"):
            with pytest.raises(grpc.RpcError) as caught:
                ping(pb.PingRequest(), metadata=(("authorization", given),))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("key", [" k", "k ", "k\t", "\u00a0k"])
def test_keys_have_no_outer_spaces(key):
    with pytest.raises(errors.InvalidParameterError, match="outer spaces"):
        ServerConfig(Path("d"), api_keys=(key,))


@pytest.mark.parametrize(
    "host", ["127.example.com", "localhost.example.com", "[::10]", "1127.0.0.1"]
)
def test_a_name_that_only_looks_like_loopback_is_not(host):
    with pytest.raises(errors.InvalidParameterError, match="needs TLS"):
        ServerConfig(Path("d"), listen=f"{host}:1")


def test_backups_may_not_lie_in_the_data_directory(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for inside in (data, data / "backups", tmp_path / "link" / "b"):
        with pytest.raises(errors.InvalidParameterError, match="backup_dir"):
            ServerConfig(data, backup_dir=inside)
    ServerConfig(data, backup_dir=tmp_path / "data2")


def test_tls(start, server_pair):
    address = start(tls_cert=server_pair.cert, tls_key=server_pair.key, api_keys=("k",))
    with Client(f"grpcs://{address}", api_key="k", tls_ca=server_pair.cert) as client:
        assert client.list_collections() == []
    for url in (f"grpcs://{address}", f"grpc://{address}"):
        with Client(url, api_key="k", timeout=2) as client, pytest.raises(NOT_LET_IN):
            client.list_collections()


async def test_tls_from_the_async_client(start, server_pair):
    address = start(tls_cert=server_pair.cert, tls_key=server_pair.key)
    async with AsyncClient(f"grpcs://{address}", tls_ca=server_pair.cert) as client:
        assert await client.list_collections() == []


def test_tls_with_client_certificates(start, server_pair, client_pair):
    address = start(
        tls_cert=server_pair.cert, tls_key=server_pair.key, tls_client_ca=client_pair.cert
    )
    trust = {"tls_ca": server_pair.cert, "timeout": 2}
    own = {"tls_cert": client_pair.cert, "tls_key": client_pair.key}
    with Client(f"grpcs://{address}", **trust, **own) as client:
        assert client.list_collections() == []
    with Client(f"grpcs://{address}", **trust) as client, pytest.raises(NOT_LET_IN):
        client.list_collections()


@pytest.mark.parametrize("listen", ["0.0.0.0:7654", "[::]:7654", "example.org:7654", "10.0.0.1:1"])
def test_off_loopback_needs_both_tls_and_a_key(listen):
    tls = {"tls_cert": Path("cert.pem"), "tls_key": Path("key.pem")}
    with pytest.raises(errors.InvalidParameterError, match=r"TLS .* and an API key .*insecure"):
        ServerConfig(Path("x"), listen=listen)
    with pytest.raises(errors.InvalidParameterError, match="needs TLS"):
        ServerConfig(Path("x"), listen=listen, api_keys=("k",))
    with pytest.raises(errors.InvalidParameterError, match="needs an API key"):
        ServerConfig(Path("x"), listen=listen, **tls)
    ServerConfig(Path("x"), listen=listen, api_keys=("k",), **tls)
    ServerConfig(Path("x"), listen=listen, insecure=True)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.9.9.9:1", "localhost:0", "[::1]:7654"])
def test_loopback_needs_nothing(listen):
    ServerConfig(Path("x"), listen=listen)


@pytest.mark.parametrize("listen", ["", "7654", ":7654", "h:", "h:x", "h:65536", "::1:7", "h:-1"])
def test_bad_addresses(listen):
    with pytest.raises(errors.InvalidParameterError, match="host:port"):
        ServerConfig(Path("x"), listen=listen)


def test_bad_settings(engine, tmp_path):
    for settings in (
        {"tls_cert": Path("x")},
        {"tls_client_ca": Path("x")},
        {"api_keys": ("",)},
        {"api_keys": ("a\nb",)},
        {"message_bytes": 5},
    ):
        with pytest.raises(errors.InvalidParameterError):
            ServerConfig(Path("x"), **settings)
    with pytest.raises(errors.InvalidParameterError):
        ClassLimit(0, 1)
    tls = {"tls_cert": tmp_path / "no.pem", "tls_key": tmp_path / "no.key"}
    with pytest.raises(errors.InvalidParameterError, match="no\\.key"):
        Server(engine, ServerConfig(Path("x"), listen="127.0.0.1:0", **tls))


@pytest.mark.parametrize("text", ["not PEM", ""])
def test_tls_files_that_are_none_are_named(engine, server_pair, client_pair, tmp_path, text):
    bad = tmp_path / "bad.pem"
    bad.write_text(text)
    right = {"tls_cert": server_pair.cert, "tls_key": server_pair.key}
    for wrong, named in (
        ({"tls_cert": bad}, "bad"),
        ({"tls_key": bad}, "bad"),
        ({"tls_key": client_pair.key}, "client\\.key"),
        ({"tls_client_ca": bad}, "tls_client_ca=.*bad"),
        ({"tls_client_ca": server_pair.key}, "tls_client_ca=.*server\\.key"),
    ):
        config = ServerConfig(Path("x"), listen="127.0.0.1:0", **right | wrong)
        with pytest.raises(errors.InvalidParameterError, match=named):
            Server(engine, config)


def test_an_unauthenticated_stream_of_requests_is_refused(start):
    with grpc.insecure_channel(start(api_keys=("k",))) as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        with pytest.raises(grpc.RpcError) as caught:
            next(call(iter(())))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_log_does_not_name_the_urls_that_the_server_asks():
    script = (
        "import logging, vecdb_server.logs as logs; logs.log_to_stderr()\n"
        "for name in 'httpx', 'vecdb': logging.getLogger(name).info('POST http://b:pw@h/v1')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.count("\n") == 1
    assert "logger=vecdb " in done.stderr
