"""Real processes, killed while they write: what was acknowledged is there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vecdb.storage import PosixStore, Wal

WRITER = """
import sys
from pathlib import Path
from vecdb.storage import PosixStore, Wal
store = PosixStore(Path(sys.argv[1]))
held = store.lock()
wal = Wal.open(store.within("wal"), file_bytes=20_000)
while True:
    seq = wal.last_seq + 1
    wal.append([(1, b"%d " % seq * (seq % 50)), (2, b"%d" % (seq + 1))])
    print(seq + 1, flush=True)
"""


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.1])
def test_kill_9_loses_nothing_acknowledged(tmp_path: Path, seconds: float) -> None:
    last = 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            last = int((first + process.stdout.read()).rsplit("\n", 2)[-2])
    store = PosixStore(tmp_path)
    held = store.lock()
    found = {r.seq: r.body for r in Wal.open(store.within("wal")).replay()}
    held.release()
    assert found.keys() >= set(range(1, last + 1))
    for seq, body in found.items():
        assert body in (b"%d " % seq * (seq % 50), b"%d" % seq)
