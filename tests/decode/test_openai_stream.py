"""What servers stream as an answer, or instead of one: odd, malformed, endless, too late."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time

import pytest

from tests.decode import stand_in as server_side
from tests.decode.stand_in import MESSAGES, chunk, says, sends, used
from vecdb.decode import GenerationParams, load_chat_model
from vecdb.errors import (
    DeadlineExceededError,
    DecoderError,
    UnauthenticatedError,
    UnavailableError,
)
from vecdb.types import FinishReason


def begin(handler, code, kind="application/json", **headers):
    handler.send_response(code)
    handler.send_header("content-type", kind)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def test_an_error_that_comes_in_drops(server):
    from vecdb.decode.openai import OpenAIChatModel

    def drips(handler):
        begin(handler, 500)
        for _ in range(100):
            handler.wfile.write(b"oh")
            time.sleep(0.05)

    chat = OpenAIChatModel(server.url, timeout=0.3)
    server.responses = [drips]
    began = time.monotonic()
    with pytest.raises(DecoderError, match=r"answered 500: (oh)+$"):
        list(chat.stream(MESSAGES))
    assert time.monotonic() - began < 3
    assert server.hung_up.wait(5)


def test_an_error_without_an_end(server, chat):
    def endless_error(handler):
        begin(handler, 500)
        while True:
            handler.wfile.write(b"oh" * 5_000)

    server.responses = [endless_error]
    with pytest.raises(DecoderError, match=r"answered 500: (oh)+"):
        list(chat.stream(MESSAGES))
    assert server.hung_up.wait(5)


def test_an_error_that_breaks_off_is_still_that_error(server, chat):
    def breaks_off(handler):
        begin(handler, 401, content_length="100")
        handler.wfile.write(b"bad k")
        handler.connection.shutdown(socket.SHUT_RDWR)

    server.responses = [breaks_off]
    with pytest.raises(UnauthenticatedError, match="401: bad k"):
        list(chat.stream(MESSAGES))


def test_a_list_of_models_without_an_end(server):
    server.models = [{"id": "m", "description": "x" * 9_000_000}]
    with pytest.raises(DecoderError, match="more than 8388608 bytes"):
        load_chat_model(server.url)


@pytest.mark.parametrize("code", [200, 500])
def test_a_body_that_is_not_compressed_as_it_says(server, chat, code):
    def garbled(handler):
        begin(handler, code, "text/event-stream", content_encoding="gzip")
        handler.wfile.write(b"not gzip")

    server.responses = [garbled]
    with pytest.raises(DecoderError, match=r"incorrect header check|answered 500"):
        list(chat.stream(MESSAGES))


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (["{not json"], "not JSON"),
        (["[1]"], "expected a JSON object"),
        (['{"choices": 3}'], "no list 'choices'"),
        (['{"choices": [{}]}'], "unexpected chunk"),
        (['{"choices": [{"delta": {"content": 5}}]}'], "not a string"),
        (['{"error": {"message": "out of memory"}}'], "out of memory"),
        ([chunk("half an ans")], "broke off"),
        ([chunk("half", "content_filter"), "[DONE]"], "content filter"),
        ([chunk("half"), chunk(reason="error"), "[DONE]"], "server failed within the answer"),
        ([chunk("half"), chunk(reason="abort"), "[DONE]"], "server broke the answer off"),
        ([chunk("a \ud800 b")], "not Unicode"),
        (['{"choices":' + "[" * 100_000 + "]" * 100_000 + "}"], "not JSON"),
        (['{"choices":' + "9" * 5_000 + "}"], "not JSON"),
        ([used(completion_tokens="x")], "completion_tokens of the usage is 'x'"),
        ([used(prompt_tokens=2**70)], "prompt_tokens of the usage is 11805"),
        ([used(prompt_tokens=-5)], "prompt_tokens of the usage is -5"),
        ([used(prompt_tokens=5.5)], "prompt_tokens of the usage is 5"),
        ([used(prompt_tokens=True)], "prompt_tokens of the usage is True"),
        ([], "broke off"),
    ],
)
def test_malformed_answers(server, chat, events, message):
    server.responses = [sends(*events)]
    with pytest.raises(DecoderError, match=message):
        list(chat.stream(MESSAGES))
    assert len(server.requests) == 1


OTHER_CHOICE = json.dumps({"choices": [{"index": 1, "delta": {"content": "B"}}]})
NO_CHOICES = json.dumps({"choices": None, "usage": {"prompt_tokens": 5}})
NO_DELTA = json.dumps({"choices": [{"delta": None, "finish_reason": "stop"}]})


@pytest.mark.parametrize(
    "events",
    [
        [json.dumps({"error": None, **json.loads(chunk("é"))}), chunk(reason="stop"), "[DONE]"],
        [chunk("é"), chunk(reason="stop"), NO_CHOICES, "[DONE]"],
        [chunk("é"), NO_DELTA],
        [chunk("é"), chunk(reason="stop"), "[DONE] "],
        [OTHER_CHOICE, chunk("é"), chunk(reason="stop"), "[DONE]"],
        [chunk("é"), '\nid: 1\n\nretry: 3000\n\ndata: {"choices": []}', chunk(reason="eos")],
    ],
)
def test_answers_of_many_kinds_of_server(server, chat, events):
    server.responses = [sends(*events)]
    stream = chat.stream(MESSAGES)
    assert list(stream) == ["é"]
    assert stream.finish_reason is FinishReason.STOP
    assert stream.completion_tokens == 1


def test_a_stream_is_utf_8_whatever_its_headers_say(server, chat):
    text = f"\ufeffdata: {chunk('first ')}\n\ndata: {chunk('Bücher')}\n\ndata: [DONE]\n\n"
    text = text.replace("\\u00fc", "ü")
    kind = "text/event-stream; charset=iso-8859-1"
    server.responses = [lambda handler: server_side.send_text(handler, 200, text, kind)]
    assert list(chat.stream(MESSAGES)) == ["first ", "Bücher"]


def test_an_answer_that_is_no_stream(server, chat):
    server.responses = [lambda handler: server_side.send_json(handler, 200, {"choices": []})]
    with pytest.raises(DecoderError, match="text/event-stream"):
        list(chat.stream(MESSAGES))


def test_nothing_is_retried_once_text_has_come(server, chat):
    def breaks_off(handler):
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("content-length", "100000")
        handler.end_headers()
        handler.wfile.write(f"data: {chunk('half')}\n\n".encode())
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    server.responses = [breaks_off]
    stream = chat.stream(MESSAGES)
    assert next(stream) == "half"
    with pytest.raises(UnavailableError):
        next(stream)
    assert len(server.requests) == 1


def test_silence_ends_at_the_timeout(server):
    from vecdb.decode.openai import OpenAIChatModel

    chat = OpenAIChatModel(server.url, timeout=0.2)
    done = threading.Event()

    def silent(handler):
        sends(chunk("Wait"))(handler)
        done.wait(5)

    server.responses = [silent]
    stream = chat.stream(MESSAGES)
    assert next(stream) == "Wait"
    with pytest.raises(DeadlineExceededError, match="within the timeout"):
        next(stream)
    done.set()


def endless(handler):
    sends()(handler)
    for number in itertools.count():
        handler.wfile.write(f"data: {chunk(str(number))}\n\n".encode())
        time.sleep(0.001)


def test_closing_hangs_up(server, chat):
    server.responses = [endless]
    stream = chat.stream(MESSAGES)
    assert next(stream) == "0"
    stream.close()
    assert server.hung_up.wait(5)
    assert list(stream) == []
    assert stream.finish_reason is FinishReason.CANCELLED
    unread = chat.stream(MESSAGES)
    unread.close()
    assert list(unread) == []
    assert len(server.requests) == 1


def test_another_thread_may_close(server, chat):
    server.responses = [endless]
    stream = chat.stream(MESSAGES)
    next(stream)
    timer = threading.Timer(0.05, stream.close)
    timer.start()
    for _ in stream:
        pass
    timer.join()
    assert stream.finish_reason is FinishReason.CANCELLED


def silent(handler):
    sends()(handler)
    hold(handler)


def hold(handler):
    """Say nothing until the other side hangs up."""
    handler.connection.recv(1)
    raise ConnectionResetError


@pytest.mark.parametrize("respond", [silent, hold], ids=["in the answer", "before the status"])
def test_closing_wakes_a_thread_that_waits(server, chat, respond):
    server.responses = [respond]
    stream = chat.stream(MESSAGES)
    pieces = []
    reader = threading.Thread(target=lambda: pieces.append(list(stream)))
    reader.start()
    while not server.requests:
        time.sleep(0.005)
    stream.close()
    reader.join(5)
    assert pieces == [[]]
    assert server.hung_up.wait(5)
    assert len(server.requests) == 1


@pytest.mark.parametrize("sign", [": ping", f"data: {chunk('')}"])
def test_signs_of_life_are_no_answer(server, sign):
    from vecdb.decode.openai import OpenAIChatModel

    def pings(handler):
        sends(chunk("Wait"))(handler)
        for _ in range(500):
            handler.wfile.write(f"{sign}\n\n".encode())
            time.sleep(0.01)

    chat = OpenAIChatModel(server.url, timeout=0.2)
    server.responses = [pings]
    stream = chat.stream(MESSAGES)
    assert next(stream) == "Wait"
    with pytest.raises(DeadlineExceededError, match="signs of life"):
        next(stream)


def test_a_model_that_thinks_is_not_silent(server):
    from vecdb.decode.openai import OpenAIChatModel

    def thinks(handler):
        sends()(handler)
        thought = json.dumps({"choices": [{"delta": {"content": "", "reasoning_content": "hm"}}]})
        for _ in range(30):
            handler.wfile.write(f"data: {thought}\n\n".encode())
            time.sleep(0.02)
        handler.wfile.write(f"data: {chunk('Yes')}\n\ndata: [DONE]\n\n".encode())

    chat = OpenAIChatModel(server.url, timeout=0.3)
    server.responses = [thinks]
    assert list(chat.stream(MESSAGES)) == ["Yes"]


def test_an_event_without_an_end(server, chat):
    def endless_event(handler):
        sends()(handler)
        handler.wfile.write(b"data: ")
        for _ in range(100):
            handler.wfile.write(b"x" * 1_000_000)

    server.responses = [endless_event]
    with pytest.raises(DecoderError, match="bytes came that say nothing"):
        list(chat.stream(MESSAGES))
    assert server.hung_up.wait(5)


def test_a_server_that_does_not_heed_max_tokens(server, chat):
    server.responses = [endless]
    stream = chat.stream(MESSAGES, GenerationParams(max_tokens=8))
    assert 8 < len(list(stream)) < 1_000
    assert stream.finish_reason is FinishReason.LENGTH
    assert server.hung_up.wait(5)


@pytest.mark.parametrize("size", [1, 4, 400])
def test_what_a_server_that_heeds_it_may_send(server, chat, size):
    text = (
        "The answer, in fifty tokens: " + "=" * 80 + "\n" + "1234567890" * 9 + " extraordinary" * 20
    )
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    server.responses = [says(*pieces)]
    stream = chat.stream(MESSAGES, GenerationParams(max_tokens=50))
    assert "".join(stream) == text
    assert stream.finish_reason is FinishReason.STOP
