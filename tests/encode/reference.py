"""A BERT sentence encoder in plain numpy: one text at a time, no padding, no identities.

``python reference.py WEIGHTS IDS OUT`` computes MiniLM's vectors of the id arrays in IDS (npz).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.encode.settings import BertSettings

Array = NDArray[Any]


def erf(x: Array) -> Array:
    """Abramowitz & Stegun 7.1.26: absolute error below 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    poly = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    return np.sign(x) * (1 - poly * np.exp(-x * x))


def tokens(weights: Mapping[str, Array], settings: BertSettings, ids: Array) -> Array:
    """Return (tokens, hidden), computed in the weights' dtype."""
    w = {name.removeprefix("bert."): value for name, value in weights.items()}

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + settings.layer_norm_eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = norm(
        w["embeddings.word_embeddings.weight"][ids]
        + w["embeddings.position_embeddings.weight"][: len(ids)]
        + w["embeddings.token_type_embeddings.weight"][0],
        "embeddings.LayerNorm",
    )
    size = x.shape[1] // settings.heads
    for layer in range(settings.layers):
        name = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{name}.attention.self.{part}")
            .reshape(len(ids), settings.heads, size)
            .swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / math.sqrt(size)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ v).swapaxes(0, 1).reshape(x.shape)
        x = norm(
            x + linear(mixed, f"{name}.attention.output.dense"),
            f"{name}.attention.output.LayerNorm",
        )
        inner = linear(x, f"{name}.intermediate.dense")
        inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
        x = norm(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return x


def sentence(weights: Mapping[str, Array], settings: BertSettings, ids: Array) -> Array:
    """Return (hidden,)."""
    rows = tokens(weights, settings, ids)
    pooled = rows.mean(0) if settings.pooling == "mean" else rows[0]
    return pooled / np.linalg.norm(pooled) if settings.normalized else pooled


if __name__ == "__main__":
    from safetensors.numpy import load_file

    from vecdb.encode.settings import KNOWN

    loaded = load_file(sys.argv[1])
    with np.load(sys.argv[2]) as texts:
        vectors = [sentence(loaded, KNOWN["all-MiniLM-L6-v2"], texts[name]) for name in texts]
    np.save(sys.argv[3], np.stack(vectors))
