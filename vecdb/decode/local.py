"""The chat model that runs in this process: decoder, tokenizer and template of one GGUF file."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Generator, Iterator, Sequence

from vecdb.decode.base import Decoder, GenerationParams, Message, TokenStream
from vecdb.decode.stop import StopStrings
from vecdb.decode.tokenizer import DecoderTokenizer, TextAssembler
from vecdb.errors import InvalidTextError
from vecdb.types import FinishReason


class LocalChatModel:
    """A `ChatModel` over a decoder; any number of threads may use it at once."""

    def __init__(self, name: str, decoder: Decoder, tokenizer: DecoderTokenizer) -> None:
        self._name = name
        self._decoder = decoder
        self._tokenizer = tokenizer

    @property
    def name(self) -> str:
        """The model's name."""
        return self._name

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self._decoder.context_tokens

    @property
    def provider(self) -> str:
        """The execution provider that runs the model."""
        return self._decoder.provider

    @property
    def decoder(self) -> Decoder:
        """The model below the text."""
        return self._decoder

    @property
    def tokenizer(self) -> DecoderTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    def count(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the prompt made of `messages` has, exactly."""
        return len(self._tokenizer.encode_messages(messages))

    def stream(
        self, messages: Sequence[Message], params: GenerationParams | None = None
    ) -> LocalStream:
        """Answer `messages`; the model works while the result is iterated.

        Raises
        ------
        InvalidParameterError
            If the messages are not of the documented form.
        InvalidTextError
            If the prompt leaves no room for an answer in the context.
        """
        params = params or GenerationParams()
        prompt = self._tokenizer.encode_messages(messages)
        room = self.context_tokens - len(prompt)
        if room < 1:
            raise InvalidTextError(
                f"the prompt has {len(prompt)} tokens, but the context of {self._name} is "
                f"{self.context_tokens} tokens, answer included: shorten the messages"
            )
        ends = (*params.stop_token_ids, *self._tokenizer.end_token_ids)
        tokens = self._decoder.generate(prompt, dataclasses.replace(params, stop_token_ids=ends))
        most = min(room, params.max_tokens)
        return LocalStream(tokens, self._tokenizer, params.stop, len(prompt), most)

    def close(self) -> None:
        """Free the model."""
        self._decoder.close()


class LocalStream:
    """An answer being written. Any thread may close it."""

    def __init__(
        self,
        tokens: TokenStream,
        tokenizer: DecoderTokenizer,
        stops: Sequence[str],
        prompt_tokens: int,
        most_tokens: int,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self._tokens = tokens
        self._most = most_tokens
        self._closed = threading.Event()
        self._pieces = self._text(TextAssembler(tokenizer), StopStrings(stops))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stop the generation; a thread that waits for text gets the end of the stream."""
        self._closed.set()
        self._tokens.close()
        if self.finish_reason is None:
            self.finish_reason = FinishReason.CANCELLED

    def _text(self, assembler: TextAssembler, stops: StopStrings) -> Generator[str]:
        for token in self._tokens:
            self.completion_tokens += 1
            if piece := stops.add(assembler.add(token)):
                yield piece
            if stops.found:
                self._tokens.close()
                break
        if self._closed.is_set():
            return
        if not stops.found and (piece := stops.add(assembler.finish()) + stops.finish()):
            yield piece
        # Decided last: a stream that was not read to its end has not finished.
        full = self.completion_tokens >= self._most and not stops.found
        self.finish_reason = FinishReason.LENGTH if full else FinishReason.STOP
