from __future__ import annotations

import pytest

from tests.decode.stand_in import StandIn
from tests.decode.tiny_gguf import write_tiny_gguf
from vecdb.decode import load_chat_model, openai_http
from vecdb.errors import ModelNotFoundError
from vecdb.registry.models import fetch, find_model


@pytest.fixture(scope="session")
def smollm2_path():
    try:
        return fetch(find_model("SmolLM2-135M-Instruct").files[0], progress=False)
    except ModelNotFoundError as error:
        pytest.skip(f"SmolLM2 cannot be had: {error}")


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    """The real model in its default mode."""
    model = load_chat_model("SmolLM2-135M-Instruct", device="cpu")
    yield model
    model.close()


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny(tiny_path, tmp_path_factory):
    """A chat model of a few thousand random weights, with float32 activations."""
    cache = tmp_path_factory.mktemp("cache")
    model = load_chat_model(
        str(tiny_path), device="cpu", activations="float32", cache_dir=cache, threads=1
    )
    yield model
    model.close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(openai_http, "_BACKOFF_SECONDS", 0.001)
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def chat(server):
    model = load_chat_model(server.url)
    yield model
    model.close()
