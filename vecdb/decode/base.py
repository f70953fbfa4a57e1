"""What a decoder and a chat model are, and how they are told to generate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vecdb.config import GENERATED_TOKENS, SEED, TOP_K
from vecdb.errors import InvalidParameterError, shown
from vecdb.types import FinishReason

Message = Mapping[str, str]
"""One turn of a chat: ``role`` ("system", "user" or "assistant") and ``content``."""


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """How tokens are chosen, and when to stop.

    Attributes
    ----------
    max_tokens
        The most tokens to generate; fewer when the context is full.
    temperature
        0 takes the most likely token every time; above, logits are divided by it and sampled.
    top_k
        Sample from the `top_k` most likely tokens; 0 means all.
    top_p
        Sample from the fewest tokens whose probabilities sum to `top_p` (Holtzman et al., 2020).
    min_p
        Leave out tokens less likely than `min_p` times the most likely one.
    repetition_penalty
        Divides the positive and multiplies the negative logits of tokens already in the prompt or
        the answer (Keskar et al., 2019); 1 changes nothing.
    seed
        Makes sampling repeatable; None takes a fresh one.
    stop
        Strings that end the answer; they are not part of it.
    stop_token_ids
        Tokens that end the answer beside the model's own; they are not part of it.

    Raises
    ------
    InvalidParameterError
        If one of them is out of its range.
    """

    max_tokens: int = GENERATED_TOKENS.default
    temperature: float = 0.0
    top_k: int = TOP_K.default
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        GENERATED_TOKENS.check(self.max_tokens)
        TOP_K.check(self.top_k)
        SEED.check(self.seed)
        _check_range("temperature", self.temperature, 0.0, 100.0)
        _check_range("top_p", self.top_p, 0.0, 1.0, open_below=True)
        _check_range("min_p", self.min_p, 0.0, 1.0)
        _check_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        # A bare string would pass for a sequence of one-letter stops.
        strings: object = self.stop
        if not isinstance(strings, tuple) or not all(isinstance(s, str) and s for s in strings):
            raise InvalidParameterError(
                f"stop={shown(self.stop)}: must be a tuple of non-empty strings"
            )


def _check_range(
    name: str, value: float, least: float, greatest: float, *, open_below: bool = False
) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    above = number and (least < value if open_below else least <= value)
    if not (above and value <= greatest):
        low = "greater than" if open_below else "at least"
        raise InvalidParameterError(
            f"{name}={shown(value)}: must be a number, {low} {least:g} and at most {greatest:g}"
        )


class TokenStream(Protocol):
    """Generated token ids; `close` stops the work, from any thread."""

    def __iter__(self) -> Iterator[int]: ...
    def __next__(self) -> int: ...
    def close(self) -> None:
        """Stop the work; nothing more comes."""


class Decoder(Protocol):
    """A language model that continues token ids. It knows no text and no template."""

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and continuation may have together."""

    @property
    def provider(self) -> str:
        """What executes the model, for instance ``CPUExecutionProvider``."""

    def generate(self, token_ids: Sequence[int], params: GenerationParams) -> TokenStream:
        """Continue `token_ids`; tokens that stop the generation are not yielded.

        `params.stop` is not looked at: it concerns text.
        """

    def close(self) -> None:
        """Free the model."""


class ChatStream(Protocol):
    """An answer as it is written, in pieces of text; `close` stops the work, from any thread."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None while it has not."""

    def __iter__(self) -> Iterator[str]: ...
    def __next__(self) -> str: ...
    def close(self) -> None:
        """Stop the work; nothing more comes."""


class ChatModel(Protocol):
    """A decoder with its tokenizer and chat template: messages in, text out."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""

    @property
    def provider(self) -> str:
        """What executes the model."""

    def count(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the prompt made of `messages` has, template included."""

    def stream(
        self, messages: Sequence[Message], params: GenerationParams | None = None
    ) -> ChatStream:
        """Answer `messages`.

        Raises
        ------
        InvalidTextError
            If the prompt leaves no room for an answer in the context.
        """

    def close(self) -> None:
        """Free the model."""
