"""An encoder that needs no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vecdb.encode import Encoded
from vecdb.types import EncoderInfo

DIM = 4


class WordEncoder:
    """Takes one word at a time; in place of `vecdb.models.load_encoder`."""

    info = EncoderInfo("words", "a" * 64, "b" * 64, "mean", "", True, DIM, 3)
    dim = DIM
    max_tokens = 3

    def encode(self, texts: Sequence[str]) -> Encoded:
        return Encoded(
            np.ones((len(texts), DIM), np.float32), np.array([" " in text for text in texts])
        )

    def split(self, text: str) -> list[tuple[int, int]]:
        spans, start = [], 0
        for word in text.split(" "):
            spans.append((start, start + len(word)))
            start += len(word) + 1
        return spans

    def close(self) -> None:
        """There is nothing to let go of."""
