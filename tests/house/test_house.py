"""What the project promises about itself: names, imports, commands, documents, locks."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from vecdb.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "package",
    ["vecdb", "vecdb.index", "vecdb.storage", "vecdb.rag", "vecdb_client", "vecdb_server"],
)
def test_public_names_are_there_and_sorted(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__, key=_isort_key)
    for name in module.__all__:
        assert getattr(module, name) is not None


def _isort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts `__all__`."""
    if name.isupper():
        return (0, name)
    return (1, name) if name[0].isupper() else (2, name)


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh process has after `statement`."""
    code = f"import sys; {statement}; print(*sorted(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_vecdb_gives_its_errors_and_types() -> None:
    loaded_by("import vecdb; vecdb.errors.VecdbError; vecdb.types.Hit")


def test_importing_the_client_loads_no_engine() -> None:
    loaded = loaded_by("import vecdb_client")
    assert not loaded & {"numba", "llvmlite", "onnxruntime", "onnx", "tokenizers", "httpx"}


def test_importing_vecdb_is_light() -> None:
    assert not loaded_by("import vecdb") & {"numba", "llvmlite", "onnxruntime", "grpc", "tqdm"}


def test_the_engine_needs_no_grpc_and_vectors_need_no_models() -> None:
    loaded = loaded_by("import vecdb.database")
    assert not loaded & {"grpc", "onnxruntime", "onnx", "tokenizers", "httpx", "gguf", "jinja2"}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command."""
    found = []
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
        else:
            found.append((*path, name))
    return found


@pytest.mark.parametrize("words", commands(main), ids=" ".join)
def test_every_command_has_help_and_stands_in_the_readme(words: tuple[str, ...]) -> None:
    context = click.Context(main)
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    text = command.get_help(context)
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(words)} {parameter.opts}"
    assert text
    assert f"vecdb {' '.join(words)}" in README


def test_the_readmes_vector_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of Python marked `<!-- runs -->` run as they stand, one after the other."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"<!-- runs -->\n```python\n(.*?)```", README, flags=re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-dev.lock", "requirements-peer.lock"]
)
def test_locks_pin_by_hash_and_name_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|file:", text)
    for requirement in re.findall(r"^[a-z].*?(?=^[a-z]|\Z)", text, flags=re.S | re.M):
        assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[a-z,]+\])?==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


def test_the_lock_has_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = set(re.findall(r"^([a-z0-9._-]+)", (ROOT / "requirements.lock").read_text(), re.M))
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["text"], *extras["cpu"]]:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name is not None
        assert name.group() in locked | {"vecdb"}


def test_the_changelog_tells_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
