"""A BERT sentence encoder as an ONNX graph, built from its weights.

::

    input_ids (batch, width) int64 ─ word + position embeddings ─ layer norm
        ─ layers of [ attention ─ add & norm ─ feed-forward ─ add & norm ] ─ tokens
    lengths (batch,) int32 ─ mask ────────────────────────────── pooling ─ sentence

Standard operators only, so that the same file runs on every execution provider; onnxruntime
fuses what is worth fusing when it loads the graph. (Its transformer optimiser, and the contrib
operators Attention and SkipLayerNormalization that it inserts, were measured slower on CPU:
bench/notes/encoder.md.)

Four identities make the graph smaller than the published one without changing what it computes:

- every text is a single segment, so the embedding of segment 0 is added to the positions' here;
- the query's weights and bias carry the 1/sqrt(head size) of the attention scores;
- the key's bias adds the same number to every score of a query, which softmax ignores: left out;
- a query's attention weights sum to 1, so the value's bias passes through attention unchanged
  and is moved behind the output projection: ``b_out + b_value @ W_out``.

The graph follows Devlin et al., "BERT" (2019), with layer norms behind the residuals.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.encode.settings import BertSettings
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.registry.extras import needs_extra

with needs_extra():
    import onnx
    from onnx import TensorProto, helper, numpy_helper

_OPSET = 20  # the first with Gelu; onnxruntime 1.17 and later read it
_IR_VERSION = 9

Weights = Mapping[str, NDArray[Any]]


def export(weights_path: Path, settings: BertSettings, graph_path: Path) -> None:
    """Write the graph of a safetensors file to `graph_path`.

    Raises
    ------
    CorruptFileError
        If the file is not in the safetensors format.
    """
    with needs_extra():
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(weights_path, framework="numpy") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no __iter__
    except SafetensorError as error:
        raise CorruptFileError(f"{weights_path} is not a safetensors file: {error}") from error
    graph_path.write_bytes(build(weights, settings).SerializeToString())


def build(weights: Weights, settings: BertSettings) -> onnx.ModelProto:
    """Return the graph of a BERT encoder.

    Parameters
    ----------
    weights
        The checkpoint's tensors by name, with or without the prefix ``bert.``.

    Raises
    ------
    InvalidParameterError
        If a tensor is missing or does not fit the settings.
    """
    graph = _GraphBuilder(weights)
    hidden = graph.weight("embeddings.word_embeddings.weight").shape[1]
    if hidden % settings.heads:
        raise InvalidParameterError(f"hidden size {hidden} is not a multiple of {settings.heads}")
    eps = settings.layer_norm_eps
    width = graph.op("Shape", "input_ids", start=1, end=2)
    mask = graph.mask(width)
    x = graph.embed(width, eps)
    for layer in range(settings.layers):
        name = f"encoder.layer.{layer}"
        attended = graph.attend(x, f"{name}.attention", mask, hidden, settings.heads)
        x = graph.add_norm(attended, x, f"{name}.attention.output.LayerNorm", eps)
        inner = graph.op("Gelu", graph.linear(x, f"{name}.intermediate.dense"))
        x = graph.add_norm(
            graph.linear(inner, f"{name}.output.dense"), x, f"{name}.output.LayerNorm", eps
        )
    graph.op("Identity", x, output="tokens")
    graph.pool(x, mask, settings)
    return graph.finish(hidden)


class _GraphBuilder:
    """The nodes and constants of a graph in the making."""

    def __init__(self, weights: Weights) -> None:
        self._weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str) -> NDArray[np.float32]:
        """Return a tensor of the checkpoint as float32."""
        try:
            return self._weights[name].astype(np.float32)
        except KeyError:
            raise InvalidParameterError(
                f"the weights hold no tensor {name!r}: not a BERT encoder?"
            ) from None

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add `value` to the graph once and return its name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """Return the name of a constant vector of int64."""
        return self.constant(f"ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def mask(self, width: str) -> str:
        """Add (batch, width): which positions hold a token of their text."""
        zero, one = np.array(0, np.int64), np.array(1, np.int64)
        positions = self.op(
            "Range",
            self.constant("zero", zero),
            self.op("Squeeze", width, self.ints(0)),
            self.constant("one", one),
        )
        lengths = self.op("Cast", "lengths", to=TensorProto.INT64)
        return self.op("Less", positions, self.op("Unsqueeze", lengths, self.ints(1)))

    def embed(self, width: str, eps: float) -> str:
        """Add (batch, width, hidden): what the first layer reads."""
        words = self.weight("embeddings.word_embeddings.weight")
        positions = self.weight("embeddings.position_embeddings.weight")
        segment = self.weight("embeddings.token_type_embeddings.weight")[0]
        word = self.op("Gather", self.constant("words", words), "input_ids")
        position = self.op(
            "Slice",
            self.constant("positions", positions + segment),
            self.ints(0),
            width,
            self.ints(0),
        )
        return self.add_norm(word, position, "embeddings.LayerNorm", eps)

    def linear(self, x: str, name: str) -> str:
        """Add ``x @ weight.T + bias`` of the checkpoint's layer `name`."""
        return self.project(x, name, self.weight(f"{name}.weight").T, self.weight(f"{name}.bias"))

    def project(
        self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> str:
        """Add ``x @ weight + bias``, the constants named after `name`."""
        product = self.op("MatMul", x, self.constant(f"{name}.weight", weight))
        if bias is None:
            return product
        return self.op("Add", product, self.constant(f"{name}.bias", bias))

    def add_norm(self, x: str, residual: str, name: str, eps: float) -> str:
        """Add the residual connection and the layer norm `name` behind it."""
        return self.op(
            "LayerNormalization",
            self.op("Add", x, residual),
            self.constant(f"{name}.weight", self.weight(f"{name}.weight")),
            self.constant(f"{name}.bias", self.weight(f"{name}.bias")),
            axis=-1,
            epsilon=eps,
        )

    def attend(self, x: str, name: str, mask: str, hidden: int, heads: int) -> str:
        """Add multi-head self-attention and its output projection, (batch, width, hidden)."""
        query, key, value = (f"{name}.self.{part}" for part in ("query", "key", "value"))
        scale = np.float32(1 / np.sqrt(hidden // heads))
        q = self.project(
            x, query, self.weight(f"{query}.weight").T * scale, self.weight(f"{query}.bias") * scale
        )
        k = self.project(x, key, self.weight(f"{key}.weight").T, None)
        v = self.project(x, value, self.weight(f"{value}.weight").T, None)
        split = self.ints(0, 0, heads, hidden // heads)

        def by_head(y: str, perm: list[int]) -> str:
            return self.op("Transpose", self.op("Reshape", y, split), perm=perm)

        scores = self.op("MatMul", by_head(q, [0, 2, 1, 3]), by_head(k, [0, 2, 3, 1]))
        shares = self.op("Softmax", self.op("Add", scores, self.bias_of(mask)), axis=-1)
        mixed = self.op("MatMul", shares, by_head(v, [0, 2, 1, 3]))
        joined = self.op(
            "Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, hidden)
        )
        output = f"{name}.output.dense"
        weight = self.weight(f"{output}.weight").T
        bias = self.weight(f"{output}.bias") + self.weight(f"{value}.bias") @ weight
        return self.project(joined, output, weight, bias)

    def bias_of(self, mask: str) -> str:
        """Return (batch, 1, 1, width), added once: 0 for a token, the least float32 for padding."""
        name = "score_bias"
        if all(node.name != name for node in self._nodes):
            least = self.constant("least", np.array(np.finfo(np.float32).min))
            chosen = self.op("Where", mask, self.constant("none", np.array(0, np.float32)), least)
            self.op("Unsqueeze", chosen, self.ints(1, 2), output=name)
        return name

    def pool(self, tokens: str, mask: str, settings: BertSettings) -> None:
        """Add `sentence`, (batch, hidden), from the token vectors."""
        if settings.pooling == "cls":
            first = self.constant("first", np.array(0, np.int64))
            pooled = self.op("Gather", tokens, first, axis=1)
        else:
            row = self.op("Unsqueeze", self.op("Cast", mask, to=TensorProto.FLOAT), self.ints(1))
            total = self.op("Squeeze", self.op("MatMul", row, tokens), self.ints(1))
            lengths = self.op("Cast", "lengths", to=TensorProto.FLOAT)
            pooled = self.op("Div", total, self.op("Unsqueeze", lengths, self.ints(1)))
        if settings.normalized:
            norm = self.op("ReduceL2", pooled, self.ints(1), keepdims=1)
            self.op("Div", pooled, norm, output="sentence")
        else:
            self.op("Identity", pooled, output="sentence")

    def finish(self, hidden: int) -> onnx.ModelProto:
        """Return the checked model."""
        graph = helper.make_graph(
            self._nodes,
            "bert_encoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "width"]),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
            ],
            [
                helper.make_tensor_value_info("sentence", TensorProto.FLOAT, ["batch", hidden]),
                helper.make_tensor_value_info(
                    "tokens", TensorProto.FLOAT, ["batch", "width", hidden]
                ),
            ],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(model)
        return model
