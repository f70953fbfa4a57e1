"""A Llama decoder in numpy, float32, over the dequantised weights of a GGUF file.

The oracle of the decoder's tests. It shares nothing with vecdb: the gguf package dequantises, and
rotation is the interleaved form in which llama.cpp stores queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class ReferenceDecoder:
    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        value = {name: field.contents() for name, field in reader.fields.items()
                 if name.startswith(("llama.", "general."))}  # fmt: skip
        self.weights = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            for tensor in reader.tensors
        }
        self.layers = value["llama.block_count"]
        self.heads = value["llama.attention.head_count"]
        self.kv_heads = value["llama.attention.head_count_kv"]
        self.head_size = value["llama.rope.dimension_count"]
        self.epsilon = np.float32(value["llama.attention.layer_norm_rms_epsilon"])
        exponents = np.arange(0, self.head_size, 2) / self.head_size
        self.frequencies = value["llama.rope.freq_base"] ** -exponents
        self.reset()

    def reset(self) -> None:
        self.length = 0
        empty = np.zeros((self.kv_heads, 0, self.head_size), np.float32)
        self.cache = [[empty, empty] for _ in range(self.layers)]

    def logits(self, token_ids: list[int]) -> np.ndarray:
        """Append the tokens; return the logits after each, (n, vocabulary)."""
        w = self.weights
        x = w["token_embd.weight"][token_ids]
        positions = self.length + np.arange(len(token_ids))
        for layer in range(self.layers):
            block = f"blk.{layer}."
            x = x + self._attention(layer, self._norm(x, block + "attn_norm"), positions)
            h = self._norm(x, block + "ffn_norm")
            gate = h @ w[block + "ffn_gate.weight"].T
            up = h @ w[block + "ffn_up.weight"].T
            silu = gate / (1 + np.exp(-gate))
            x = x + (silu * up) @ w[block + "ffn_down.weight"].T
        self.length += len(token_ids)
        head = w.get("output.weight", w["token_embd.weight"])
        return self._norm(x, "output_norm") @ head.T

    def greedy(self, prompt: list[int], n: int) -> Iterator[int]:
        self.reset()
        logits = self.logits(prompt)[-1]
        for _ in range(n):
            token = int(logits.argmax())
            yield token
            logits = self.logits([token])[-1]

    def log_probabilities(self, token_ids: list[int]) -> np.ndarray:
        self.reset()
        logits = self.logits(token_ids)[:-1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits[np.arange(len(token_ids) - 1), token_ids[1:]]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x * scale * self.weights[name + ".weight"]

    def _attention(self, layer: int, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        block = f"blk.{layer}."
        q, k, v = (
            (x @ self.weights[f"{block}attn_{part}.weight"].T)
            .reshape(len(x), -1, self.head_size)
            .transpose(1, 0, 2)
            for part in "qkv"
        )
        past_k, past_v = self.cache[layer]
        k = np.concatenate([past_k, self._rotate(k, positions)], axis=1)
        v = np.concatenate([past_v, v], axis=1)
        self.cache[layer] = [k, v]
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
        scores = (
            self._rotate(q, positions) @ k.transpose(0, 2, 1) / np.sqrt(np.float32(self.head_size))
        )
        scores[:, np.arange(k.shape[1])[None, :] > positions[:, None]] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        output = (scores @ v).transpose(1, 0, 2).reshape(len(x), -1)
        return output @ self.weights[block + "attn_output.weight"].T

    def _rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        angles = positions[:, None] * self.frequencies
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        even, odd = x[..., 0::2], x[..., 1::2]
        rotated = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
        return rotated.reshape(x.shape)
