"""How likely a decoder finds a text: what its graph is compared by."""

from __future__ import annotations

import numpy as np

from vecdb.decode.onnx import OnnxDecoder

_AT_ONCE = 128


def log_probabilities(decoder: OnnxDecoder, token_ids: list[int]) -> np.ndarray:
    """Return the natural log-probability of each token after the first, shape (n - 1,)."""
    tokens = np.array(token_ids, np.int64)
    steps = decoder.steps(len(tokens))
    scores = []
    for start in range(0, len(tokens) - 1, _AT_ONCE):
        part = tokens[start : start + _AT_ONCE]
        following = tokens[start + 1 : start + 1 + len(part)]
        logits = steps.run(part, np.arange(len(part)))[: len(following)].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        scores.append(logits[np.arange(len(following)), following])
    return np.concatenate(scores)
