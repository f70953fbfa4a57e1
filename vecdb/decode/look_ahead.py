"""Guessing tokens from what stood before, so that one step of the model can give several.

An answer repeats names, phrases and whole sentences of its prompt. The guess is what followed the
last time that the newest tokens stood there. The model reads it together with the token before it,
which takes far less than a step for each, since reading the weights is most of a step. The tokens
that are then chosen without knowledge of the guess either equal it, and the logits after them are
there already, or what is left of the guess is taken out of the cache again. So no token comes that
the model did not choose. With float32 activations the output is that of one token a step; with int8
ones the kernels for one row and for more round differently, so where two tokens are nearly as
likely the other may come. Prompt lookup decoding (Saxena, 2023), a form of speculative decoding
(Leviathan et al., 2023).

A wrong guess costs a quarter of a step after a short prompt and two fifths after a long one, where
two tokens also stand side by side by chance more often. So how many tokens have to agree is learnt
from how the guesses fare, those that were only thought of included: text that copies is followed
boldly, and text that does not is left alone. Nothing here looks at a clock: the same prompt gives
the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable

_LEAST, _MOST_NEEDED, _CERTAIN = 2, 5, 6
_PLACES = 32
"""So many of the latest places are compared; a pair such as a line end may have thousands."""
_DRAFTS = {_LEAST: 1, 3: 3, _CERTAIN: 7}
"""Tokens in agreement, at least -> tokens guessed. Steps of 2, 4 and 8 tokens take 1.2 to 1.4,
1.7 to 1.9 and 2.7 times as long as a step of one."""


class Recall:
    """One growing sequence, and where in it each pair of tokens stood."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._places: dict[tuple[int, int], list[int]] = {}  # pair -> where what follows stands
        self._needed = _LEAST
        self._expected: int | None = None
        for token in tokens:
            self._append(token)

    def add(self, token: int) -> None:
        """Append the token that was chosen."""
        if self._expected is not None:
            step = -1 if token == self._expected else 1
            self._needed = min(max(self._needed + step, _LEAST), _MOST_NEEDED)
            self._expected = None
        self._append(token)

    def draft(self, most: int) -> list[int]:
        """Return the tokens that may come next, `most` of them or fewer, or none at all."""
        agreeing, place = self._longest_match()
        if place is None:
            return []
        self._expected = self._tokens[place]
        if agreeing < self._needed:
            return []
        length = max(count for least, count in _DRAFTS.items() if least <= agreeing)
        # A text that repeats itself goes on doing so: the copy may run into what it copies.
        period = len(self._tokens) - place
        return [self._tokens[place + i % period] for i in range(min(length, most))]

    def _append(self, token: int) -> None:
        if len(self._tokens) >= _LEAST:
            pair = (self._tokens[-2], self._tokens[-1])
            self._places.setdefault(pair, []).append(len(self._tokens))
        self._tokens.append(token)

    def _longest_match(self) -> tuple[int, int | None]:
        """Return how many of the last tokens stood together before, and the place after them.

        The place is the latest with that many; none when another token stands at another such one.
        """
        tokens = self._tokens
        if len(tokens) < _LEAST:
            return 0, None
        best, found = 0, None
        for place in reversed(self._places.get((tokens[-2], tokens[-1]), [])[-_PLACES:]):
            length = _LEAST
            longest = min(_CERTAIN, place)
            while length < longest and tokens[place - length - 1] == tokens[-length - 1]:
                length += 1
            if length > best:
                best, found, token = length, place, tokens[place]
            elif length == best and tokens[place] != token:
                found = None
        return best, found
