"""The local chat model on a tiny random one."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.decode.tiny_gguf import CONTEXT
from vecdb.decode import GenerationParams, load_chat_model
from vecdb.errors import InvalidParameterError, InvalidTextError, ModelNotFoundError
from vecdb.types import FinishReason

MESSAGES = [{"role": "user", "content": "hello the"}]


def test_count_is_exact(tiny):
    stream = tiny.stream(MESSAGES, GenerationParams(max_tokens=1))
    assert tiny.count(MESSAGES) == stream.prompt_tokens
    assert stream.finish_reason is None
    list(stream)
    assert (stream.completion_tokens, stream.finish_reason) == (1, FinishReason.LENGTH)


def test_text_is_that_of_the_tokens(tiny):
    params = GenerationParams(max_tokens=30, stop_token_ids=tiny.tokenizer.end_token_ids)
    tokens = tiny.decoder.generate(tiny.tokenizer.encode_messages(MESSAGES), params)
    expected = b"".join(map(tiny.tokenizer.token_bytes, tokens)).decode("utf-8", "replace")
    assert "".join(tiny.stream(MESSAGES, GenerationParams(max_tokens=30))) == expected


def test_stop_string_ends_the_answer(tiny):
    params = GenerationParams(max_tokens=60, temperature=1.0, seed=5)
    whole = "".join(tiny.stream(MESSAGES, params))
    stop = whole[9:12]
    stream = tiny.stream(
        MESSAGES, GenerationParams(max_tokens=60, temperature=1.0, seed=5, stop=(stop,))
    )
    assert "".join(stream) == whole[: whole.index(stop)]
    assert stream.finish_reason is FinishReason.STOP


def test_end_token_ends_the_answer(tiny, monkeypatch):
    tokens = list(tiny.decoder.generate(tiny.tokenizer.encode_messages(MESSAGES),
                                        GenerationParams(max_tokens=10)))  # fmt: skip
    monkeypatch.setattr(tiny.tokenizer, "end_token_ids", (tokens[4],))
    stream = tiny.stream(MESSAGES, GenerationParams(max_tokens=10))
    list(stream)
    assert stream.finish_reason is FinishReason.STOP
    assert stream.completion_tokens == tokens.index(tokens[4])


def test_closing_is_cancelling(tiny):
    stream = tiny.stream(MESSAGES, GenerationParams(max_tokens=100))
    next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.finish_reason is FinishReason.CANCELLED


def test_prompt_over_the_context(tiny):
    long = [{"role": "user", "content": "x" * 200}]
    with pytest.raises(InvalidTextError, match=rf"has 2\d\d tokens.*{CONTEXT} tokens"):
        tiny.stream(long)


def test_answer_is_cut_where_the_context_ends(tiny):
    room = CONTEXT - tiny.count([{"role": "user", "content": ""}])
    messages = [{"role": "user", "content": "x" * (room - 5)}]
    stream = tiny.stream(messages, GenerationParams(max_tokens=100, seed=1))
    list(stream)
    assert stream.completion_tokens <= 5


def test_unknown_models_and_arguments(tmp_path):
    with pytest.raises(ModelNotFoundError, match="SmolLM2-135M-Instruct"):
        load_chat_model("gpt-17")
    with pytest.raises(ModelNotFoundError, match="decoder"):
        load_chat_model("all-MiniLM-L6-v2")
    with pytest.raises(InvalidParameterError, match="no such file"):
        load_chat_model(str(tmp_path / "no.gguf"))
    with pytest.raises(InvalidParameterError, match="device='tpu'"):
        load_chat_model("SmolLM2-135M-Instruct", device="tpu")
    with pytest.raises(InvalidParameterError, match="activations='int4'"):
        load_chat_model("SmolLM2-135M-Instruct", activations="int4")
    with pytest.raises(InvalidParameterError, match="threads"):
        load_chat_model("SmolLM2-135M-Instruct", threads=0)


def test_what_is_cached_needs_no_exporter(tiny_path, tmp_path):
    load_chat_model(str(tiny_path), device="cpu", cache_dir=tmp_path).close()
    program = """
        import sys
        import vecdb.decode
        heavy = {"onnx", "gguf", "onnxruntime", "tokenizers", "jinja2", "httpx", "torch"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        model = vecdb.decode.load_chat_model(sys.argv[1], device="cpu", cache_dir=sys.argv[2])
        assert not {"onnx", "gguf", "torch", "httpx"} & set(sys.modules)
        assert model.provider == "CPUExecutionProvider"
        print(model.name)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tiny_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "tiny\n"


def test_missing_extra_says_what_to_install(tiny_path, tmp_path):
    program = """
        import sys
        sys.modules["onnxruntime"] = None
        import vecdb.decode
        from vecdb.errors import MissingDependencyError
        try:
            vecdb.decode.load_chat_model(sys.argv[1], cache_dir=sys.argv[2])
        except MissingDependencyError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tiny_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 'pip install "vecdb[cpu]"' in done.stdout
