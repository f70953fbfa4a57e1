"""What the rest of vecdb knows about an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.types import EncoderInfo, Matrix

Output = Literal["sentence", "tokens"]
"""What the graph computes: one vector per text, or one per token."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The vectors of some texts.

    Attributes
    ----------
    vectors
        Float32 (n, dim), row i for text i.
    truncated
        Bool (n,): the texts that were longer than the limit and count only up to it.
    """

    vectors: Matrix
    truncated: NDArray[np.bool_]


class Encoder(Protocol):
    """Turns texts into vectors. Safe to call from any number of threads, which share batches."""

    @property
    def info(self) -> EncoderInfo:
        """Everything that decides which vector a text gets."""
        ...

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        ...

    @property
    def max_tokens(self) -> int:
        """The longest text that is encoded whole, in tokens, [CLS] and [SEP] included."""
        ...

    @property
    def provider(self) -> str:
        """The onnxruntime execution provider that really computes."""
        ...

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return one vector per text.

        Raises
        ------
        EmptyBatchError
            If there is no text.
        InvalidTextError
            If a text is empty, too long, or not a str.
        OverloadedError
            If too much work is waiting already.
        ClosedError
            If the encoder was closed.
        """
        ...

    def token_vectors(self, texts: Sequence[str]) -> list[Matrix]:
        """Return, for each text, float32 (tokens, dim): the last layer, [CLS] to [SEP].

        Raises as `encode` does.
        """
        ...

    def split(self, text: str) -> list[tuple[int, int]]:
        """Return spans of characters, in order, that each fit `max_tokens`, cut between words.

        Raises
        ------
        InvalidTextError
            If the text is empty, too long, or not a str.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the text has, [CLS] and [SEP] included.

        Raises
        ------
        InvalidTextError
            If the text is empty, too long, or not a str.
        """
        ...

    def close(self) -> None:
        """Refuse further work and fail what is waiting."""
        ...
