"""Reading a GGUF file: the model's dimensions, its weights as blocks, its vocabulary.

Block formats (ggml): 32 weights share a float16 scale d and, in Q4_1, a float16 minimum m.

====  ======================  ==========================
type  bytes of a block        weight of code q
====  ======================  ==========================
Q4_0  d, 16 x (q[i+16] q[i])  d * (q - 8)
Q4_1  d, m, 16 x (...)        d * q + m
Q8_0  d, 32 x int8            d * q
====  ======================  ==========================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor
from numpy.typing import NDArray

from vecdb.errors import DecoderError

BLOCK = 32

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class BlockMatrix:
    """A quantised matrix of N rows and K = 32 * blocks columns: ``scales * codes + minima``.

    Attributes
    ----------
    codes
        uint8 (N, blocks, 32), each below ``2 ** bits``.
    scales, minima
        float32 (N, blocks).
    """

    codes: NDArray[np.uint8]
    scales: Floats
    minima: Floats
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix it stands for."""
        rows, blocks = self.scales.shape
        return rows, blocks * BLOCK

    def take(self, rows: NDArray[np.int64]) -> BlockMatrix:
        """Return the matrix of those rows."""
        return BlockMatrix(self.codes[rows], self.scales[rows], self.minima[rows], self.bits)

    def dequantized(self) -> Floats:
        """Return the float32 (N, K) weights, rounded as ggml rounds them."""
        weights = self.scales[..., None] * self.codes.astype(np.float32) + self.minima[..., None]
        return weights.reshape(self.shape)


Weights = BlockMatrix | Floats
"""A matrix as (outputs, inputs), quantised or not."""


def stack(parts: list[Weights]) -> Weights:
    """Return the matrices one below the other, so that one product computes all of them.

    Raises
    ------
    DecoderError
        If they are not quantised alike.
    """
    blocks = [part for part in parts if isinstance(part, BlockMatrix)]
    if not blocks:
        return np.concatenate([part for part in parts if not isinstance(part, BlockMatrix)])
    if len(blocks) < len(parts) or len({part.bits for part in blocks}) > 1:
        raise DecoderError("weights of one layer that are quantised differently are not supported")
    return BlockMatrix(
        np.concatenate([part.codes for part in blocks]),
        np.concatenate([part.scales for part in blocks]),
        np.concatenate([part.minima for part in blocks]),
        blocks[0].bits,
    )


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The dimensions of a model of the Llama architecture."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    context_tokens: int
    rope_base: float
    norm_epsilon: float


class GgufFile:
    """A GGUF file, mapped; tensors are decoded when asked for.

    Raises
    ------
    DecoderError
        If it is not a GGUF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError) as error:
            raise DecoderError(f"{path} is not a readable GGUF file: {error}") from error
        self._tensors: dict[str, ReaderTensor] = {t.name: t for t in self._reader.tensors}

    def value(self, key: str, default: Any = None) -> Any:
        """Return the metadata value of `key`.

        Raises
        ------
        DecoderError
            If there is none and no default was given.
        """
        field = self._reader.fields.get(key)
        if field is not None:
            return field.contents()
        if default is None:
            raise DecoderError(f"{self.path}: the GGUF metadata has no {key!r}")
        return default

    def shape(self) -> LlamaShape:
        """Return the model's dimensions.

        Raises
        ------
        DecoderError
            If the architecture is not the Llama one, or uses a variant of it that is not known.
        """
        architecture = self.value("general.architecture")
        if architecture != "llama":
            raise DecoderError(
                f"{self.path}: architecture {architecture!r} is not supported, only 'llama' is"
            )
        scaling = self.value("llama.rope.scaling.type", "none")
        experts = self.value("llama.expert_count", 0)
        if scaling != "none" or experts:
            raise DecoderError(
                f"{self.path}: rope scaling {scaling!r} and {experts} experts are not supported"
            )
        heads = int(self.value("llama.attention.head_count"))
        hidden = int(self.value("llama.embedding_length"))
        return LlamaShape(
            layers=int(self.value("llama.block_count")),
            hidden=hidden,
            feed_forward=int(self.value("llama.feed_forward_length")),
            heads=heads,
            kv_heads=int(self.value("llama.attention.head_count_kv", heads)),
            head_size=int(self.value("llama.rope.dimension_count", hidden // heads)),
            context_tokens=int(self.value("llama.context_length")),
            rope_base=float(self.value("llama.rope.freq_base", 10_000.0)),
            norm_epsilon=float(self.value("llama.attention.layer_norm_rms_epsilon")),
        )

    def has(self, name: str) -> bool:
        """Tell whether there is a tensor of that name."""
        return name in self._tensors

    def vector(self, name: str) -> Floats:
        """Return a float32 vector."""
        weights = self.matrix(name)
        if isinstance(weights, BlockMatrix):
            raise DecoderError(f"{self.path}: {name} is quantised, but must be float32")
        return weights

    def matrix(self, name: str) -> Weights:
        """Return a tensor as it is stored.

        Raises
        ------
        DecoderError
            If there is none of that name, or its type is not supported.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise DecoderError(f"{self.path}: there is no tensor {name!r}")
        # GGUF lists dimensions fastest first.
        shape = tuple(int(length) for length in reversed(tensor.shape.tolist()))
        kind = tensor.tensor_type
        if kind in {GGMLQuantizationType.F32, GGMLQuantizationType.F16}:
            return np.asarray(tensor.data, dtype=np.float32).reshape(shape)
        if kind not in _BLOCK_READERS:
            raise DecoderError(
                f"{self.path}: {name} is of type {kind.name}, which is not supported; "
                f"supported: F32, F16, {', '.join(known.name for known in _BLOCK_READERS)}"
            )
        size, read = _BLOCK_READERS[kind]
        return read(np.asarray(tensor.data).reshape(shape[0], shape[1] // BLOCK, size))


def _half(data: NDArray[np.uint8], start: int) -> Floats:
    """Return the float16 at byte `start` of every block as float32."""
    two = np.ascontiguousarray(data[..., start : start + 2])
    return two.view("<f2")[..., 0].astype(np.float32)


def _nibbles(data: NDArray[np.uint8], start: int) -> NDArray[np.uint8]:
    packed = data[..., start:]
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _read_q4_0(data: NDArray[np.uint8]) -> BlockMatrix:
    scales = _half(data, 0)
    return BlockMatrix(_nibbles(data, 2), scales, -8 * scales, 4)


def _read_q4_1(data: NDArray[np.uint8]) -> BlockMatrix:
    return BlockMatrix(_nibbles(data, 4), _half(data, 0), _half(data, 2), 4)


def _read_q8_0(data: NDArray[np.uint8]) -> BlockMatrix:
    scales = _half(data, 0)
    # Adding 128 modulo 256 to the two's complement byte is flipping its sign bit.
    return BlockMatrix(data[..., 2:] ^ np.uint8(128), scales, -128 * scales, 8)


_BLOCK_READERS = {
    GGMLQuantizationType.Q4_0: (18, _read_q4_0),
    GGMLQuantizationType.Q4_1: (20, _read_q4_1),
    GGMLQuantizationType.Q8_0: (34, _read_q8_0),
}
