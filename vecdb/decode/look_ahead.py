"""Guessing a token from what stood before, so that one step of the model can give two tokens.

An answer repeats names and phrases of its prompt. The guess is whatever followed the last time that
the last two tokens stood side by side. The model reads it together with the token before it, which
takes about a fifth longer than that token alone, since reading the weights is most of a step. The
token that is then chosen without knowledge of the guess either equals it, and the logits after it
are there already, or the guess is taken out of the cache again. So no token comes that the model
did not choose. With float32 activations the output is that of one token a step; with int8 ones the
kernels for one row and for more round differently, so where two tokens are nearly as likely the
other may come. Prompt lookup decoding (Saxena, 2023), a form of
speculative decoding (Leviathan et al., 2023), with a draft of one token.
"""

from __future__ import annotations

from collections.abc import Iterable


class Recall:
    """What followed each pair of tokens the last time, over one growing sequence."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self._followed: dict[tuple[int, int], int] = {}
        self._last = (-1, -1)  # no token has that id
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token to the sequence."""
        self._followed[self._last] = token
        self._last = (self._last[1], token)

    def guess(self) -> int | None:
        """Return the token that may come next, None when the last two never stood together."""
        return self._followed.get(self._last)
