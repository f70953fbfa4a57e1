"""From GGUF weights to an ONNX graph of a Llama decoder, with onnxruntime's contrib operators.

One step of the graph takes S new tokens and a key/value cache that already holds earlier ones:

====================================  ==========================  ================================
input_ids                             int64 (1, S)                the new tokens
logit_rows                            int64 (R,)                  of which of them logits are wanted
seqlens_k                             int32 (1,)                  tokens in the cache after it, - 1
total_sequence_length                 int32 ()                    tokens in the cache after it
past_key_values.<layer>.{key,value}   (1, kv heads, C, head)      the cache, capacity C
logits (output)                       float32 (1, R, vocabulary)
present.<layer>.{key,value} (output)  as the past                 bound to the same memory
====================================  ==========================  ================================

How the weights stay what they are. MatMulNBits computes with ``scale * (code - zero point)``. A
zero point that is not a small integer sends its CPU kernel down a path that dequantises the whole
matrix at every call; Q4_1's, -m/d, is any number. So the nearest integer z is given to the kernel,
and there is a remainder r = m + d*z, one number per block of 32 columns:

    W x  =  sum over blocks of  d (q - z) . x_block  +  32 r * mean(x_block)

The block means are one AveragePool. With float32 activations, and on CUDA, their product with 32 r
is added: exact. With int8 activations they are appended to x as K/32 more columns, and 32 r,
quantised to 4 bits itself, to the matrix: a quarter faster at a token a step, with an error in the
minima of at most a 28th of d.

8-bit weights have a CPU kernel for int8 activations only; with float32 activations they are written
as two 4-bit matrices, q = 16 hi + lo, which is exact as well.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vecdb.decode.gguf_file import BLOCK, BlockMatrix, Floats, GgufFile, LlamaShape, Weights, stack

Activations = Literal["int8", "float32"]
Target = Literal["cpu", "cuda"]

_CONTRIB = "com.microsoft"
_ACCURACY_LEVEL = {"float32": 1, "int8": 4}  # as MatMulNBits numbers them


def build_llama(
    weights: GgufFile, activations: Activations, target: Target = "cpu"
) -> onnx.ModelProto:
    """Return the ONNX model of a GGUF file.

    Parameters
    ----------
    activations
        "float32" multiplies exactly; "int8" quantises the inputs of every product by blocks of 32.
        CUDA's kernels do not, whatever is asked.
    target
        Where it will run. On CUDA keys, values and attention are float16: its attention kernel
        has no float32.

    Raises
    ------
    DecoderError
        If the file holds something that is not supported.
    """
    return _LlamaGraph(weights, activations, target).build()


def nearest_zero_points(matrix: BlockMatrix) -> tuple[NDArray[np.uint8], Floats]:
    """Return integer zero points (N, blocks), and what of the minima they leave: ``m + d * z``."""
    middle = np.divide(
        -matrix.minima, matrix.scales, out=np.zeros_like(matrix.scales), where=matrix.scales != 0
    )
    zero_points = np.clip(np.rint(middle), 0, (1 << matrix.bits) - 1)
    remainder = matrix.minima + matrix.scales * zero_points.astype(np.float32)
    return zero_points.astype(np.uint8), remainder


def fold_remainder(
    matrix: BlockMatrix, zero_points: NDArray[np.uint8], remainder: Floats
) -> tuple[BlockMatrix, NDArray[np.uint8]]:
    """Return the matrix with the remainder as further columns, in 4 bits, and its zero points.

    The last block is filled up with zeros when the remainder's columns end within it.
    """
    filled = np.pad(remainder, ((0, 0), (0, -remainder.shape[1] % BLOCK)))
    blocks = filled.reshape(len(filled), -1, BLOCK)
    scales = np.abs(blocks).max(axis=-1) / 7
    units = np.divide(
        blocks, scales[..., None], out=np.zeros_like(blocks), where=scales[..., None] != 0
    )
    codes = (np.rint(units) + 8).astype(np.uint8)
    folded = BlockMatrix(
        np.concatenate([matrix.codes, codes], axis=1),
        np.concatenate([matrix.scales, scales], axis=1),
        np.concatenate([matrix.minima, -8 * scales], axis=1),
        matrix.bits,
    )
    return folded, np.concatenate([zero_points, np.full_like(codes[..., 0], 8)], axis=1)


def pack_codes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack along the last axis, the first code in the low bits; an odd end is padded with 0."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], axis=-1)
    packed: NDArray[np.uint8] = codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))
    return packed


def rotated_by_halves(rows: int, head_size: int) -> NDArray[np.int64]:
    """Return the rows of q or k in the order for rotation by halves.

    llama.cpp stores the two members of a rotated pair beside each other; onnxruntime's faster
    form wants the first members of all pairs, then the second. Scores do not depend on the order.
    """
    order = np.arange(rows).reshape(-1, head_size // 2, 2)
    return order.transpose(0, 2, 1).reshape(-1)


class _LlamaGraph:
    """The graph while it is written."""

    def __init__(self, weights: GgufFile, activations: Activations, target: Target) -> None:
        self._weights = weights
        self._shape: LlamaShape = weights.shape()
        self._activations = activations
        self._half_cache = target == "cuda"
        self._folds = target == "cpu" and activations == "int8"
        self._splits_8_bit = target == "cpu" and activations == "float32"
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._means: dict[str, str] = {}  # tensor -> its block means, for those already computed

    def build(self) -> onnx.ModelProto:
        shape = self._shape
        embedding = self._weights.matrix("token_embd.weight")
        vocabulary = embedding.shape[0]
        self._rotary_tables()
        residual = self._embed(embedding)
        normed = self._node(
            "SimplifiedLayerNormalization",
            [residual, self._norm_weight("blk.0.attn_norm.weight")],
            "blk.0.attn_norm",
            domain="",
            axis=-1,
            epsilon=shape.norm_epsilon,
            stash_type=1,
        )
        for layer in range(shape.layers):
            normed, residual = self._layer(layer, normed, residual)
        if self._weights.has("output.weight"):
            self._linear(normed, self._weights.matrix("output.weight"), "logits")
        else:
            self._linear(normed, embedding, "logits", codes="token_embd.codes")
        return self._model(vocabulary)

    def _layer(self, layer: int, normed: str, residual: str) -> tuple[str, str]:
        """Add one layer; return its output, normed for what follows, and the residual stream."""
        block = f"blk.{layer}"
        attention = self._attention(block, layer, normed)
        output = self._linear(
            attention, self._weights.matrix(f"{block}.attn_output.weight"), f"{block}.attn_output"
        )
        normed, residual = self._add_norm(output, residual, f"{block}.ffn_norm")
        output = self._feed_forward(block, normed)
        last = layer == self._shape.layers - 1
        if last:
            # Only these rows are wanted from here on; of a prompt, that is one.
            output = self._node("Gather", [output, "logit_rows"], "rows", domain="", axis=1)
            residual = self._node(
                "Gather", [residual, "logit_rows"], "rows.residual", domain="", axis=1
            )
        following = "output_norm" if last else f"blk.{layer + 1}.attn_norm"
        return self._add_norm(output, residual, following)

    def _attention(self, block: str, layer: int, normed: str) -> str:
        shape = self._shape
        query, key = (self._weights.matrix(f"{block}.attn_{part}.weight") for part in "qk")
        packed = stack([
            _take(query, rotated_by_halves(query.shape[0], shape.head_size)),
            _take(key, rotated_by_halves(key.shape[0], shape.head_size)),
            self._weights.matrix(f"{block}.attn_v.weight"),
        ])  # fmt: skip
        qkv = self._linear(normed, packed, f"{block}.attn_qkv")
        if self._half_cache:
            qkv = self._node("Cast", [qkv], f"{qkv}.half", domain="", to=TensorProto.FLOAT16)
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        output = f"{block}.attention"
        self._nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [qkv, "", "", *past, "seqlens_k", "total_sequence_length", "cos", "sin"],
                [output, *present],
                name=output,
                domain=_CONTRIB,
                num_heads=shape.heads,
                kv_num_heads=shape.kv_heads,
                do_rotary=1,
                rotary_interleaved=0,
            )
        )
        if self._half_cache:
            output = self._node(
                "Cast", [output], f"{output}.float", domain="", to=TensorProto.FLOAT
            )
        return output

    def _feed_forward(self, block: str, normed: str) -> str:
        """Add SwiGLU (Shazeer, 2020): ``down(silu(gate(x)) * up(x))``."""
        both = stack(
            [self._weights.matrix(f"{block}.ffn_{part}.weight") for part in ("gate", "up")]
        )
        gate_up = self._linear(normed, both, f"{block}.ffn_gate_up")
        gate, up = f"{block}.ffn_gate", f"{block}.ffn_up"
        self._nodes.append(
            helper.make_node("Split", [gate_up], [gate, up], name=f"{block}.split", axis=-1,
                             num_outputs=2)
        )  # fmt: skip
        sigmoid = self._node("Sigmoid", [gate], f"{gate}.sigmoid", domain="")
        silu = self._node("Mul", [gate, sigmoid], f"{gate}.silu", domain="")
        product = self._node("Mul", [silu, up], f"{block}.ffn_product", domain="")
        down = self._weights.matrix(f"{block}.ffn_down.weight")
        return self._linear(product, down, f"{block}.ffn_down")

    def _add_norm(self, output: str, residual: str, norm: str) -> tuple[str, str]:
        """Add the residual and the RMS norm after it; return both results."""
        total = f"{norm}.residual"
        self._nodes.append(
            helper.make_node(
                "SkipSimplifiedLayerNormalization",
                [output, residual, self._norm_weight(f"{norm}.weight")],
                [norm, "", "", total],
                name=norm,
                domain=_CONTRIB,
                epsilon=self._shape.norm_epsilon,
            )
        )
        return norm, total

    def _embed(self, embedding: Weights) -> str:
        if isinstance(embedding, BlockMatrix) and embedding.bits == 8:
            # The head of a tied model uses the same codes and scales.
            codes = self._initializer("token_embd.codes", embedding.codes)
            flat = self._reshape(codes, [-1, embedding.shape[1]])
            scales = self._initializer("token_embd.scales", embedding.scales)
            return self._node(
                "GatherBlockQuantized",
                [flat, "input_ids", scales],
                "embedding",
                bits=8,
                block_size=BLOCK,
                gather_axis=0,
                quantize_axis=1,
            )
        table = embedding.dequantized() if isinstance(embedding, BlockMatrix) else embedding
        name = self._initializer("token_embd.table", table)
        return self._node("Gather", [name, "input_ids"], "embedding", domain="", axis=0)

    def _linear(self, x: str, weights: Weights, output: str, codes: str | None = None) -> str:
        """Add ``output = x @ weights.T``; `codes` names an initializer that has them already."""
        if not isinstance(weights, BlockMatrix):
            table = self._initializer(f"{output}.weight", np.ascontiguousarray(weights.T))
            return self._node("MatMul", [x, table], output, domain="")
        if weights.bits == 8 and self._splits_8_bit:
            high = BlockMatrix(weights.codes >> np.uint8(4), 16 * weights.scales, weights.minima, 4)
            low = BlockMatrix(
                weights.codes & np.uint8(15), weights.scales, np.zeros_like(weights.minima), 4
            )
            parts = [self._linear(x, high, f"{output}.high"), self._linear(x, low, f"{output}.low")]
            return self._node("Add", parts, output, domain="")
        zero_points, remainder = nearest_zero_points(weights)
        if not np.any(remainder):
            return self._block_linear(x, weights, zero_points, output, codes)
        means = self._block_means(x)
        if self._folds:
            longer = self._node("Concat", [x, means], f"{x}.longer", domain="", axis=-1)
            folded, zero_points = fold_remainder(weights, zero_points, BLOCK * remainder)
            columns = weights.shape[1] + remainder.shape[1]
            return self._block_linear(longer, folded, zero_points, output, columns=columns)
        product = self._block_linear(x, weights, zero_points, f"{output}.product", codes)
        rest = self._initializer(f"{output}.remainder", BLOCK * remainder.T)
        correction = self._node("MatMul", [means, rest], f"{output}.correction", domain="")
        return self._node("Add", [product, correction], output, domain="")

    def _block_linear(
        self,
        x: str,
        weights: BlockMatrix,
        zero_points: NDArray[np.uint8],
        output: str,
        codes: str | None = None,
        columns: int | None = None,
    ) -> str:
        """Add one MatMulNBits; `columns` is less than the matrix's when the last block is short."""
        rows, whole = weights.shape
        if codes is None or codes not in self._initializers:
            packed = pack_codes(weights.codes, weights.bits)
            codes = self._initializer(f"{output}.codes", packed)
        inputs = [x, codes, self._initializer(f"{output}.scales", weights.scales)]
        if np.any(zero_points != 1 << (weights.bits - 1)):
            packed = pack_codes(zero_points, weights.bits)
            inputs.append(self._initializer(f"{output}.zero_points", packed))
        return self._node(
            "MatMulNBits",
            inputs,
            output,
            N=rows,
            K=columns or whole,
            bits=weights.bits,
            block_size=BLOCK,
            accuracy_level=_ACCURACY_LEVEL[self._activations],
        )

    def _block_means(self, x: str) -> str:
        """Return the means of x over blocks, (1, S, K/32); the matrices that read x share them."""
        if x not in self._means:
            self._means[x] = self._node(
                "AveragePool",
                [x],
                f"{x}.means",
                domain="",
                kernel_shape=[BLOCK],
                strides=[BLOCK],
            )
        return self._means[x]

    def _rotary_tables(self) -> None:
        """Add cosines and sines of position * base^(-2i/head size), (context, head size / 2)."""
        shape = self._shape
        exponents = np.arange(0, shape.head_size, 2) / shape.head_size
        frequencies = shape.rope_base**-exponents
        if self._weights.has("rope_freqs.weight"):
            frequencies = frequencies / self._weights.vector("rope_freqs.weight")
        angles = np.arange(shape.context_tokens)[:, None] * frequencies
        kind = np.float16 if self._half_cache else np.float32
        self._initializer("cos", np.cos(angles).astype(kind))
        self._initializer("sin", np.sin(angles).astype(kind))

    def _norm_weight(self, name: str) -> str:
        return self._initializer(name, self._weights.vector(name))

    def _initializer(self, name: str, values: NDArray[np.generic]) -> str:
        if name not in self._initializers:
            array = np.ascontiguousarray(values)
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def _reshape(self, x: str, shape: list[int]) -> str:
        name = "shape." + "x".join(map(str, shape))
        self._initializer(name, np.array(shape, dtype=np.int64))
        return self._node("Reshape", [x, name], f"{x}.reshaped", domain="")

    def _node(
        self, op: str, inputs: list[str], output: str, domain: str = _CONTRIB, **attributes: Any
    ) -> str:
        node = helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes)
        self._nodes.append(node)
        return output

    def _model(self, vocabulary: int) -> onnx.ModelProto:
        shape = self._shape
        value = helper.make_tensor_value_info
        inputs = [
            value("input_ids", TensorProto.INT64, [1, "new_tokens"]),
            value("logit_rows", TensorProto.INT64, ["rows"]),
            value("seqlens_k", TensorProto.INT32, [1]),
            value("total_sequence_length", TensorProto.INT32, []),
        ]
        outputs = [value("logits", TensorProto.FLOAT, [1, "rows", vocabulary])]
        cache: list[int | str | None] = [1, shape.kv_heads, "capacity", shape.head_size]
        kind = TensorProto.FLOAT16 if self._half_cache else TensorProto.FLOAT
        for layer in range(shape.layers):
            for part in ("key", "value"):
                inputs.append(value(f"past_key_values.{layer}.{part}", kind, cache))
                outputs.append(value(f"present.{layer}.{part}", kind, cache))
        graph = helper.make_graph(
            self._nodes, "llama", inputs, outputs, list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            producer_name="vecdb",
            ir_version=10,
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(_CONTRIB, 1)],
        )
        helper.set_model_props(model, {"context_tokens": str(shape.context_tokens)})
        return model


def _take(weights: Weights, rows: NDArray[np.int64]) -> Weights:
    return weights.take(rows) if isinstance(weights, BlockMatrix) else weights[rows]
