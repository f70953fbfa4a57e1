"""From logits to a token: greedy, or sampled with temperature, top-k, top-p and min-p."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vecdb.decode.base import GenerationParams

_NEGLIGIBLE = 40.0  # exp(-40) = 4e-18


class Sampler:
    """Chooses the tokens of one generation.

    Parameters
    ----------
    prompt
        The prompt's tokens: they count as repeated for the repetition penalty.
    """

    def __init__(self, params: GenerationParams, prompt: Iterable[int]) -> None:
        self._params = params
        self._random = np.random.default_rng(params.seed)
        self._seen = set(prompt)

    def choose(self, logits: NDArray[np.float32]) -> int:
        """Return the next token, from the logits (vocabulary,)."""
        params = self._params
        if params.repetition_penalty != 1.0:
            logits = penalized(logits, self._seen, params.repetition_penalty)
        if params.temperature == 0.0:
            token = int(logits.argmax())
        else:
            tokens, probabilities = distribution(logits, params)
            token = int(self._random.choice(tokens, p=probabilities))
        self._seen.add(token)
        return token


def penalized(
    logits: NDArray[np.float32], seen: Iterable[int], penalty: float
) -> NDArray[np.float32]:
    """Return the logits with those of the tokens `seen` made smaller (Keskar et al., 2019)."""
    tokens = np.fromiter(seen, dtype=np.int64)
    result = logits.copy()
    result[tokens] = np.where(
        result[tokens] > 0, result[tokens] / penalty, result[tokens] * penalty
    )
    return result


def distribution(
    logits: NDArray[np.float32], params: GenerationParams
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the tokens that may be sampled, most likely first, and their probabilities.

    The order of the filters is that of most engines: top-k, then temperature, min-p, top-p.
    """
    # Tokens below have, together, less than 1e-12 of the probability; sorting them would take
    # longer than the model does.
    least = logits.max() - _NEGLIGIBLE * params.temperature
    if 0 < params.top_k < logits.size:
        least = max(least, np.partition(logits, -params.top_k)[-params.top_k])
    tokens = np.flatnonzero(logits >= least)
    # Ties are broken by token id, so that a seed gives one answer on every machine.
    tokens = tokens[np.lexsort((tokens, -logits[tokens]))][: params.top_k or None]
    best_first = logits[tokens].astype(np.float64)
    # Divided after the subtraction: however low the temperature is, nothing overflows.
    probabilities = np.exp((best_first - best_first[0]) / params.temperature)
    probabilities /= probabilities.sum()
    kept = int(np.count_nonzero(probabilities >= params.min_p * probabilities[0]))
    if params.top_p < 1.0:
        # The token that crosses the threshold belongs to the nucleus.
        nucleus = int(np.searchsorted(np.cumsum(probabilities), params.top_p)) + 1
        kept = min(kept, nucleus)
    probabilities = probabilities[:kept]
    return tokens[:kept], probabilities / probabilities.sum()
