"""The command line's own part: what it takes, what it refuses, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import vecdb
from tests.words import WordEncoder
from vecdb.cli import main
from vecdb.types import Citation, Source


@pytest.mark.parametrize(
    ("options", "variable", "keys"),
    [
        ((), "my secret key", ("my secret key",)),
        ((), "", ()),
        (("--api-key", "one", "--api-key", "t wo"), "three", ("one", "t wo")),
    ],
)
def test_the_variable_holds_one_api_key(
    options: tuple[str, ...], variable: str, keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[Any] = []
    monkeypatch.setattr("vecdb_server.serve", lambda config, _: configs.append(config))
    done = CliRunner().invoke(
        main, ["serve", "--data", "d", *options], env={"VECDB_API_KEY": variable}
    )
    assert done.exit_code == 0, done.output
    assert [config.api_keys for config in configs] == [keys]


@pytest.mark.parametrize(
    "command",
    [
        ["info", "--db", "{}"],
        ["search", "notes", "words", "--db", "{}"],
        ["ask", "notes", "why?", "--db", "{}"],
        ["backup", "backups", "--db", "{}"],
        ["check", "{}"],
        ["check", "--repair", "{}"],
    ],
    ids=lambda words: " ".join(words),
)
def test_a_directory_without_a_database_is_refused_and_left_alone(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("words")
    done = CliRunner().invoke(main, [word.format(other) for word in command])
    assert done.exit_code == 1
    assert f"'{other}' holds no collections" in done.output
    assert [path.name for path in tmp_path.rglob("*")] == ["other", "letter.txt"]


def test_a_database_is_known_by_its_collections(tmp_path: Path) -> None:
    with vecdb.connect(str(tmp_path)) as db:
        db.create_collection("points", dim=2)
    for command in (["info", "--db", str(tmp_path)], ["check", str(tmp_path)]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
    for path in (tmp_path / "catalog").iterdir():
        path.unlink()
    (tmp_path / "catalog").rmdir()
    done = CliRunner().invoke(main, ["check", str(tmp_path)])
    assert done.exit_code == 1
    assert "has no readable manifest" in done.output


def test_backups_of_a_directory_that_is_not_there_are_not_listed(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["backups", str(tmp_path / "nosuch")])
    assert done.exit_code == 1
    assert "there is no such directory" in done.output
    done = CliRunner().invoke(main, ["backups", str(tmp_path)])
    assert done.exit_code == 0
    assert "no backups" in done.output


def test_ingest_prunes_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.models.load_encoder", lambda *_, **__: WordEncoder())
    for folder in ("notes", "data"):
        (tmp_path / folder).mkdir()
    for name in ("kept.txt", "gone.txt"):
        (tmp_path / "notes" / name).write_text("some words")
    command = ["ingest", str(tmp_path / "notes"), "-c", "docs", "--db", str(tmp_path / "data")]
    assert CliRunner().invoke(main, command).exit_code == 0
    (tmp_path / "notes" / "gone.txt").unlink()
    for options, left in ((), 2), (("--prune",), 1):
        done = CliRunner().invoke(main, [*command, *options])
        assert done.exit_code == 0, done.output
        assert ("1 chunks of documents that are gone deleted" in done.output) == bool(options)
        with vecdb.connect(str(tmp_path / "data")) as db:
            assert db.collection("docs").count() == left


_ESCAPES = "\x1b[2J\x1b]0;pwned\x07 \x9b2J\x7fturtles"
_SHOWN = "\\u001b[2J\\u001b]0;pwned\\u0007 \\u009b2J\\u007fturtles"


def test_what_documents_hold_is_shown_and_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.models.load_encoder", lambda *_, **__: WordEncoder())
    notes, data = tmp_path / "notes", tmp_path / "data"
    notes.mkdir()
    data.mkdir()
    (notes / "\x1b[2Jesc.txt").write_text(_ESCAPES)
    (notes / "\x1b[2Jbad.txt").write_bytes(b"\0")
    command = ["ingest", str(notes), "-c", "docs", "--db", str(data)]
    assert "failed notes/\\u001b[2Jbad.txt: " in CliRunner().invoke(main, command).output
    done = CliRunner().invoke(main, ["search", "docs", "turtles", "--db", str(data)])
    assert done.exit_code == 0, done.output
    assert "notes/\\u001b[2Jesc.txt#0000\n" in done.output
    assert _SHOWN in done.output
    done = CliRunner().invoke(main, ["search", "docs", "turtles", "--json", "--db", str(data)])
    assert "\x9b" not in done.output
    assert json.loads(done.output)["text"].endswith(_ESCAPES)
    done = CliRunner().invoke(main, ["search", "\x1b[2J", "turtles", "--db", str(data)])
    assert done.exit_code == 1
    assert "\x1b" not in done.output


def test_an_answer_is_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pieces(list[str]):
        citations = (Citation(1, _ESCAPES, 0, 1, 0, 1, 1.0),)
        sources = (Source(1, _ESCAPES, 1.0, "text"),)

    class Database:
        def collection(self, _: str) -> Database:
            return self

        def ask(self, _: str, **__: object) -> Pieces:
            return Pieces(["one\n", "\x1b", "[2J two"])

    monkeypatch.setattr("vecdb.cli.connected", lambda *_: nullcontext(Database()))
    done = CliRunner().invoke(main, ["ask", "docs", "why?"])
    assert done.exit_code == 0, done.output
    assert done.output == f"one\n\\u001b[2J two\n  [1] {_SHOWN}  (support 1.00)\n"


def test_bench_runs_in_a_checkout_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    told = CliRunner().invoke(main, ["bench", "--", "--help"])
    assert told.exit_code == 0
    assert "--filter-selectivity" in told.output
    refused = CliRunner().invoke(main, ["bench", "--base", str(tmp_path), "--out", "o.json"])
    assert refused.exit_code != 0
    monkeypatch.setattr("vecdb.cli_bench._REPOSITORY", tmp_path)
    elsewhere = CliRunner().invoke(main, ["bench", "--k", "10"])
    assert elsewhere.exit_code == 1
    assert "clone vecdb's repository" in elsewhere.output


def test_an_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vecdb.cli", "models", "list"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "Error: cannot write the output: No space left on device\n"


def test_pulling_makes_the_graphs_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[str] = []

    def load(name: str, **_: object) -> WordEncoder:
        made.append(name)
        return WordEncoder()

    monkeypatch.setattr("vecdb.registry.models.fetch_all", lambda _: {"f": tmp_path / "f"})
    monkeypatch.setattr("vecdb.models.load_encoder", load)
    monkeypatch.setattr("vecdb.models.load_chat_model", load)
    done = CliRunner().invoke(main, ["models", "pull"])
    assert done.exit_code == 0, done.output
    assert made == ["all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"]
