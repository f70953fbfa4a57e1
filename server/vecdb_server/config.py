"""What a server is started with."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vecdb.config import DEFAULT_PORT, MESSAGE_BYTES, SCRUB_BYTES_PER_SECOND, SCRUB_SECONDS
from vecdb.errors import InvalidParameterError


@dataclass(frozen=True, slots=True)
class ClassLimit:
    """How many calls of one class run at a time, and how many more may wait for their turn."""

    running: int
    waiting: int

    def __post_init__(self) -> None:
        if self.running < 1 or self.waiting < 0:
            raise InvalidParameterError(
                f"running={self.running}, waiting={self.waiting}: must be at least 1 and at least 0"
            )


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of each class of call; a call over them is refused at once.

    Searches run one to a core and a little more, since some wait for the encoder's batch; writes
    share an fsync when several run together; generation takes every core for itself.
    """

    search: ClassLimit = field(default_factory=lambda: ClassLimit(2 * (os.cpu_count() or 1), 64))
    write: ClassLimit = ClassLimit(8, 32)
    admin: ClassLimit = ClassLimit(4, 16)
    generate: ClassLimit = ClassLimit(1, 8)

    @property
    def calls(self) -> int:
        """How many calls can be in the server at once."""
        classes = (self.search, self.write, self.admin, self.generate)
        return sum(limit.running + limit.waiting for limit in classes)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where a server listens, who may call it, and what it serves.

    Attributes
    ----------
    data
        The directory of the database.
    listen
        ``host:port``; port 0 takes a free one.
    api_keys
        The keys that callers may use; none means that no key is asked for.
    tls_cert, tls_key
        Files with the server's certificate chain and key, PEM.
    tls_client_ca
        A file of PEM certificates; callers must then show a certificate signed by one of them.
    insecure
        Listen off loopback without TLS or without keys.
    backup_dir
        The directory below which callers may have backups put; None lets them have none.
    encoder
        An encoder to load before the first call; others are loaded when first needed.
    decoder
        Who writes answers, a model's name or the URL of an OpenAI-compatible endpoint, loaded
        before the first call; None for the default one, when it is first needed.
    decoder_api_key
        Sent to that endpoint.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``, for the models.
    cache_dir
        Where model files are kept; None for the user's cache directory.
    durability
        See `vecdb.database.Database`.
    max_disk_bytes, max_memory_bytes, min_free_bytes, scrub_seconds, scrub_bytes_per_second
        See `vecdb.database.Database`.
    message_bytes
        The largest message taken or sent.
    grace_seconds
        How long calls that are under way may go on after a signal to stop.
    limits
        How many calls of each class run and wait.
    """

    data: Path
    listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    api_keys: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure: bool = False
    backup_dir: Path | None = None
    encoder: str | None = None
    decoder: str | None = None
    decoder_api_key: str | None = None
    device: str = "auto"
    cache_dir: Path | None = None
    durability: Literal["disk", "os"] = "disk"
    max_disk_bytes: int | None = None
    max_memory_bytes: int | None = None
    min_free_bytes: int | None = None
    scrub_seconds: int = SCRUB_SECONDS.default
    scrub_bytes_per_second: int = SCRUB_BYTES_PER_SECOND.default
    message_bytes: int = MESSAGE_BYTES.default
    grace_seconds: float = 30.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check what can be checked before anything is opened.

        Raises
        ------
        InvalidParameterError
        """
        MESSAGE_BYTES.check(self.message_bytes)
        SCRUB_SECONDS.check(self.scrub_seconds)
        SCRUB_BYTES_PER_SECOND.check(self.scrub_bytes_per_second)
        host, _ = split_address(self.listen)
        if self.backup_dir is not None and self.backup_dir.resolve().is_relative_to(
            self.data.resolve()
        ):
            raise InvalidParameterError(
                f"backup_dir={str(self.backup_dir)!r} lies in the data directory {self.data}: "
                "must be outside it, at best on another disk"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidParameterError("tls_cert and tls_key: must be given together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise InvalidParameterError("tls_client_ca: needs tls_cert and tls_key")
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or key != key.strip():
                raise InvalidParameterError("api_keys: must be printable ASCII, no outer spaces")
        missing = [
            what
            for what, there in (
                ("TLS (tls_cert and tls_key)", self.tls_cert),
                ("an API key (api_keys)", self.api_keys),
            )
            if not there
        ]
        if missing and not self.insecure and not is_loopback(host):
            raise InvalidParameterError(
                f"listen={self.listen!r} can be reached from other machines: needs "
                f"{' and '.join(missing)}, or insecure=True when something else protects it"
            )


def split_address(listen: str) -> tuple[str, int]:
    """Return the host and the port of ``host:port`` or ``[host]:port``.

    Raises
    ------
    InvalidParameterError
    """
    host, colon, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not colon
        or not host.strip("[]")
        or (":" in host and not bracketed)
        or not (port.isascii() and port.isdigit() and int(port) < 1 << 16)
    ):
        raise InvalidParameterError(
            f"listen={listen!r}: must be host:port with a port from 0 to 65535, "
            "such as 127.0.0.1:7654 or [::1]:7654"
        )
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
