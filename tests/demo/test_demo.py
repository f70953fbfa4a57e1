"""The demo leaves nothing running, however it ends; its corpus is whole and says whose it is.

The demo itself needs the models: `make demo` is its test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from vecdb.answer import Answer
from vecdb.demo import CORPUS, _recall, running_server, show_answer
from vecdb.errors import UnavailableError
from vecdb.ingest import read_document
from vecdb.types import AnswerEnd, Citation, FinishReason, Hit, Source
from vecdb_client import Client


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def server_pid(shown: str) -> int:
    return int(shown.split("(process ")[1].split(",")[0])


def test_the_server_runs_while_it_is_needed_and_not_longer(tmp_path: Path) -> None:
    shown: list[str] = []
    with running_server(tmp_path / "data", shown.append) as url:
        with Client(url) as database:
            assert database.list_collections() == []
        assert is_running(server_pid(shown[0]))
    assert not is_running(server_pid(shown[0]))


def test_an_error_stops_the_server_too(tmp_path: Path) -> None:
    shown: list[str] = []
    with pytest.raises(ZeroDivisionError), running_server(tmp_path / "data", shown.append):
        raise ZeroDivisionError
    assert not is_running(server_pid(shown[0]))


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("not a directory")
    with (
        pytest.raises(UnavailableError, match=r"status \d+ before it listened:\n.*\S"),
        running_server(occupied, lambda _: None),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_server_too(tmp_path: Path, number: signal.Signals) -> None:
    script = f"""
        import signal, sys, time
        from pathlib import Path
        from vecdb.demo import running_server
        signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
        def show(text):
            print(text, end="", flush=True)
        with running_server(Path({str(tmp_path / "data")!r}), show):
            time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        pid = server_pid(process.stdout.readline())
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
    assert not is_running(pid)


def test_the_corpus_is_readable_and_its_licence_stated() -> None:
    files = sorted(CORPUS.iterdir())
    assert len(files) == 50
    for file in files:
        data = file.read_bytes()
        assert b"public domain" in data.lower()
        assert read_document(data, file.name).title.startswith("PEP ")
    assert "public domain" in (CORPUS.parent / "README.md").read_text()


def test_an_answer_is_shown_with_what_it_rests_on() -> None:
    source = Source(2, "pep#0001", 0.9, "PEP stands for Python Enhancement Proposal.", None)
    end = AnswerEnd([Citation(2, "pep#0001", 0, 9, 0, 43, 0.93)], [source], FinishReason.STOP, 5, 2)

    class Events(list[str | AnswerEnd]):
        def __next__(self) -> str | AnswerEnd:
            return self.pop(0)

        def close(self) -> None:
            self.clear()

    shown: list[str] = []
    show_answer("What?", Answer(Events(["It", " stands", end])), shown.append)
    assert "".join(shown) == (
        '\nQ: What?\nA: It stands\n   "It stands"\n      rests on [2] pep#0001 (support 0.93): '
        '"PEP stands for Python Enhancement Proposal."\n'
    )


def test_recall_counts_equal_scores_as_found() -> None:
    ids = np.array([*"abcdefghijklm"], dtype=object)
    scores = np.array([0.9] * 11 + [0.1, 0.2], dtype=np.float32)
    assert _recall([Hit(i, 0.9) for i in "bcdefghijk"], scores, ids) == 1.0
    assert _recall([Hit(i, 0.9) for i in "bcdefghilm"], scores, ids) == 0.8
