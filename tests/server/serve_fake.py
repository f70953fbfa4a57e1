"""A server process around the fake engine: ``python serve_fake.py GRACE_SECONDS``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.server.fake_engine import FakeDatabase
from vecdb_server import ServerConfig, run
from vecdb_server.logs import log_to_stderr


def main() -> None:
    log_to_stderr()
    engine = FakeDatabase()
    engine.create_collection("v", dim=2)
    engine.create_collection("docs", encoder="letters")
    engine.seconds_per_piece = 0.02

    def before(kind: str) -> None:
        if kind == "search":
            print("searching", flush=True)
            time.sleep(0.7)

    engine.before = before
    config = ServerConfig(Path("x"), listen="127.0.0.1:0", grace_seconds=float(sys.argv[1]))
    run(engine, config, lambda address: print(address, flush=True))
    print(f"closed after {engine.pieces} pieces", flush=True)


main()
