"""A server as a process: it opens the database, serves until a signal, drains, and closes."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from vecdb_server.config import ServerConfig
from vecdb_server.logs import log_to_stderr
from vecdb_server.server import Server

if TYPE_CHECKING:
    from vecdb.database import Database

_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(config: ServerConfig, announce: Callable[[str], None] | None = None) -> None:
    """Serve the database in `config.data` until SIGTERM or SIGINT; returns once it is closed.

    Must be called in the main thread, which is where signals arrive. When a call does not end
    though it was cancelled, the process exits from here, with status 0.

    Parameters
    ----------
    config
        Where to listen, who may call, what to serve.
    announce
        Called with the ``host:port`` that was bound, once calls are taken.

    Raises
    ------
    VecdbError
        What opening the database raises, and `FailedPreconditionError` when the address cannot
        be listened on.
    """
    # The engine takes longer to import than a mistake in the configuration takes to report.
    from vecdb.config import DEFAULT_DECODER
    from vecdb.database import Database

    log_to_stderr()
    with Database(
        config.data,
        durability=config.durability,
        decoder=config.decoder or DEFAULT_DECODER,
        decoder_api_key=config.decoder_api_key,
        device=config.device,
        cache_dir=config.cache_dir,
        max_disk_bytes=config.max_disk_bytes,
        max_memory_bytes=config.max_memory_bytes,
        min_free_bytes=config.min_free_bytes,
        scrub_seconds=config.scrub_seconds,
        scrub_bytes_per_second=config.scrub_bytes_per_second,
    ) as database:
        if config.encoder is not None:
            database.models.encoder(config.encoder)
        if config.decoder is not None:
            database.models.chat()
        ended = run(database, config, announce)
    if not ended:
        # The interpreter would wait for the calls' threads.
        _LOG.warning("exiting while a cancelled call still runs")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def run(
    database: Database, config: ServerConfig, announce: Callable[[str], None] | None = None
) -> bool:
    """Serve an open database until SIGTERM or SIGINT, and drain; see `Server.stop`.

    After the first signal the next one has its usual effect: it ends the process at once, which
    loses nothing that was acknowledged.

    Returns
    -------
    bool
        Whether every call has ended.
    """
    # A SimpleQueue may be put to from a signal handler whatever the main thread is doing.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def note(number: int, _: FrameType | None) -> None:
        signals.put(number)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        server = Server(database, config)
        server.start()
        tls = "on" if config.tls_cert else "off"
        keys = len(config.api_keys)
        _LOG.info("serving", extra={"address": server.address, "tls": tls, "api_keys": keys})
        if announce is not None:
            announce(server.address)
        number = signals.get()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    _LOG.info("draining", extra={"signal": signal.Signals(number).name})
    ended = server.stop(config.grace_seconds)
    _LOG.info("stopped")
    return ended
