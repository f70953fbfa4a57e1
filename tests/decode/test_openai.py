"""The OpenAI-compatible chat model against a stand-in server."""

from __future__ import annotations

import base64
import socket

import pytest

from tests.decode import stand_in as server_side
from tests.decode.make_golden import QUESTIONS
from tests.decode.stand_in import MESSAGES, chunk, says, sends, status, used
from vecdb.decode import GenerationParams, load_chat_model
from vecdb.decode.estimate import estimated_tokens
from vecdb.errors import (
    ClosedError,
    DecoderError,
    FailedPreconditionError,
    InvalidParameterError,
    InvalidTextError,
    ModelNotFoundError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)
from vecdb.types import FinishReason


def test_an_answer(server, chat):
    server.responses = [says("Bon", "jour", " 🙂")]
    stream = chat.stream(MESSAGES)
    assert list(stream) == ["Bon", "jour", " 🙂"]
    assert stream.finish_reason is FinishReason.STOP
    assert stream.completion_tokens == 3
    assert (chat.name, chat.provider) == ("stand-in", server.url)


def test_the_request(server, chat):
    list(chat.stream(MESSAGES, GenerationParams(max_tokens=7)))
    assert server.requests == [
        {
            "model": "stand-in",
            "messages": MESSAGES,
            "stream": True,
            "max_tokens": 7,
            "temperature": 0.0,
            "top_p": 1.0,
        }
    ]
    params = GenerationParams(stop=("\n",), seed=3, top_k=5, min_p=0.1, repetition_penalty=1.2)
    list(chat.stream(MESSAGES, params))
    sent = server.requests[1]
    assert sent["stop"] == ["\n"]
    assert [sent[key] for key in ("seed", "top_k", "min_p", "repetition_penalty")] == [
        3, 5, 0.1, 1.2,
    ]  # fmt: skip


def test_length_and_usage(server, chat):
    usage = used(prompt_tokens=11, completion_tokens=5)
    untold = used(prompt_tokens=None)
    server.responses = [sends(chunk("x"), chunk(reason="length"), usage, untold, "[DONE]")]
    stream = chat.stream(MESSAGES)
    assert "".join(stream) == "x"
    assert stream.finish_reason is FinishReason.LENGTH
    assert (stream.prompt_tokens, stream.completion_tokens) == (11, 5)
    server.responses = [says("x", reason="model_length")]
    stream = chat.stream(MESSAGES)
    list(stream)
    assert stream.finish_reason is FinishReason.LENGTH


def test_key(server):
    server.api_key = "s3cret"
    assert list(load_chat_model(server.url, api_key="s3cret").stream(MESSAGES)) == ["Hi"]
    with pytest.raises(UnauthenticatedError, match=r"401: bad key.*API key") as raised:
        load_chat_model(server.url, api_key="wr0ng")
    assert "wr0ng" not in str(raised.value)


def test_a_password_in_the_url_is_sent_and_shown_nowhere(server):
    url = server.url.replace("//", "//bob:s3cr%20et@")
    chat = load_chat_model(url + "#stand-in")
    server.responses = [status(500)]
    with pytest.raises(DecoderError, match="500: not now") as failed:
        list(chat.stream(MESSAGES))
    basic = "Basic " + base64.b64encode(b"bob:s3cr et").decode()
    assert server.authorizations == [basic, basic]
    assert (chat.name, chat.provider) == ("stand-in", server.url)
    with pytest.raises(ModelNotFoundError, match="no model 'else'") as unknown:
        load_chat_model(url + "#else")
    with pytest.raises(InvalidParameterError, match="api_key: the URL has a user") as both:
        load_chat_model(url, api_key="k3y")
    for raised in (failed, unknown, both):
        assert "s3cr" not in str(raised.value)
    assert "s3cr" not in repr(chat._endpoint)


@pytest.mark.parametrize(
    "url", ["http://bob:s3cr/et@h/v1", "HTTP://b:s3cr@[h/v1", "http://s3cr@", "http://?s3cr"]
)
def test_a_password_in_a_bad_url_is_not_shown(url):
    with pytest.raises(InvalidParameterError, match="http://host:port/v1#model") as raised:
        load_chat_model(url)
    assert "s3cr" not in str(raised.value)


def test_a_query_in_the_url_follows_every_path_and_is_not_shown(server):
    chat = load_chat_model(server.url + "/?api-version=2024&key=s3cret#stand-in")
    server.responses = [status(500)]
    with pytest.raises(DecoderError, match=r"/v1/chat/completions answered 500") as raised:
        list(chat.stream(MESSAGES))
    asked = "?api-version=2024&key=s3cret"
    assert server.paths == [f"/v1/models{asked}", f"/v1/chat/completions{asked}"]
    server.responses = [sends("[1]")]
    with pytest.raises(DecoderError, match="expected a JSON object") as malformed:
        list(chat.stream(MESSAGES))
    assert chat.provider == server.url
    for each in (raised, malformed):
        assert "s3cret" not in str(each.value)


def test_choosing_a_model(server):
    server.models = [{"id": "a", "max_model_len": 9_000}, {"id": "b:latest"}]
    assert load_chat_model(server.url + "#a").context_tokens == 9_000
    assert load_chat_model(server.url + "#b").context_tokens == 4_096
    assert load_chat_model(server.url, model="a", context_tokens=100).context_tokens == 100
    with pytest.raises(InvalidParameterError, match=r"2 models \(a, b:latest\)"):
        load_chat_model(server.url)
    with pytest.raises(ModelNotFoundError, match=r"no model 'c'; it has: a, b:latest"):
        load_chat_model(server.url + "#c")
    with pytest.raises(InvalidParameterError, match="context_tokens=3"):
        load_chat_model(server.url + "#a", context_tokens=3)


def test_server_without_a_list_of_models(server):
    server.models = []
    assert load_chat_model(server.url + "#a").name == "a"
    with pytest.raises(ModelNotFoundError, match="404: no such page"):
        load_chat_model(server.url)


def test_url_without_a_path(server):
    assert load_chat_model(server.url.removesuffix("/v1") + "/").provider == server.url


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://[bad/v1",
        "http://h:x/v1",
        "http://h:99999/v1",
        "http://h:0/v1",
        "http://a..b",
        f"http://{'a' * 70}",
        "http://\0",
    ],
)
def test_bad_urls(url):
    with pytest.raises(InvalidParameterError, match="http://host:port/v1#model"):
        load_chat_model(url)


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_that_cannot_be_sent(server, key):
    with pytest.raises(InvalidParameterError, match="api_key: must be printable ASCII") as raised:
        load_chat_model(server.url, api_key=key)
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", FailedPreconditionError),  # needs another package
        ("HTTP_PROXY", "foo://x", FailedPreconditionError),
        ("HTTP_PROXY", "http://h:x", FailedPreconditionError),
        ("SSL_CERT_FILE", "/nonexistent", FailedPreconditionError),
        ("HTTP_PROXY", "http://a..b", UnavailableError),
    ],
)
def test_an_environment_that_cannot_be_used(server, monkeypatch, variable, value, error):
    monkeypatch.setenv(variable, value)
    monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(error):
        load_chat_model(server.url)


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_not_now_is_retried(server, chat, code):
    server.responses = [status(code), status(code, retry_after="0"), says("at last")]
    assert list(chat.stream(MESSAGES)) == ["at last"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("code", "error", "requests"),
    [
        (401, UnauthenticatedError, 1),
        (403, UnauthenticatedError, 1),
        (404, ModelNotFoundError, 1),
        (429, OverloadedError, 3),
        (503, UnavailableError, 3),
        (400, DecoderError, 1),
        (500, DecoderError, 1),
    ],
)
def test_statuses(server, chat, code, error, requests):
    server.responses = [status(code, "because")]
    with pytest.raises(error, match=f"{code}: because"):
        list(chat.stream(MESSAGES))
    assert len(server.requests) == requests


def test_an_error_that_is_not_unicode(server, chat):
    server.responses = [status(500, "oh \ud800")]
    with pytest.raises(DecoderError, match=r"500: oh \\ud800"):
        list(chat.stream(MESSAGES))


def test_error_that_is_not_json(server, chat):
    server.responses = [lambda handler: server_side.send_text(handler, 500, "<p>oh", "text/html")]
    with pytest.raises(DecoderError, match="500: <p>oh"):
        list(chat.stream(MESSAGES))


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UnavailableError, match=url):
        load_chat_model(url)


def test_prompt_over_the_context(server):
    chat = load_chat_model(server.url, context_tokens=64)
    with pytest.raises(InvalidTextError, match=r"about \d+ tokens.*64 tokens"):
        chat.stream([{"role": "user", "content": "word " * 100}])
    room = 64 - chat.count(MESSAGES)
    list(chat.stream(MESSAGES))
    assert server.requests[0]["max_tokens"] == room


def test_closed(chat):
    chat.close()
    with pytest.raises(ClosedError):
        chat.stream(MESSAGES)


def test_the_estimate_is_not_below_a_real_tokenizer(smollm2):
    texts = [
        *QUESTIONS,
        "1234567890 " * 20,
        "if (a[i] != b[j]) { return -1; }\n" * 9,
        "中文字符" * 30,
    ]
    for text in texts:
        assert estimated_tokens(text) >= len(smollm2.tokenizer.encode(text)), text
