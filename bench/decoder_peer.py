"""Model folders for onnxruntime-genai from the weights of our GGUF.

Two kinds: one around vecdb's own graph, so that the runtimes compute the same, and one by genai's
model builder, which requantises the weights.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def wrap_graph(graph: Path, folder: Path) -> Path:
    """Return `folder` with vecdb's graph behind the inputs that genai knows."""
    model = onnx.load(graph)
    inputs = {value.name: value for value in model.graph.input}
    cache = inputs["past_key_values.0.key"].type.tensor_type.shape.dim
    layers = sum(name.endswith(".key") for name in inputs)
    logits = model.graph.output[0].type.tensor_type.shape.dim
    query_width = next(
        list(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name == "blk.0.attn_norm.weight"
    )[0]
    for name in ("logit_rows", "seqlens_k", "total_sequence_length"):
        model.graph.input.remove(inputs[name])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [1, "total"])
    model.graph.input.append(mask)
    constants = {
        "logit_rows": np.array([-1], dtype=np.int64),
        "one": np.array(1, dtype=np.int64),
        "second_axis": np.array([1], dtype=np.int64),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    node = helper.make_node
    lengths = [
        node("ReduceSum", ["attention_mask", "second_axis"], ["tokens"], keepdims=0),
        node("Sub", ["tokens", "one"], ["tokens_less_one"]),
        node("Cast", ["tokens_less_one"], ["seqlens_k"], to=TensorProto.INT32),
        node("Shape", ["attention_mask"], ["mask_shape"]),
        node("Gather", ["mask_shape", "one"], ["total"], axis=0),
        node("Cast", ["total"], ["total_sequence_length"], to=TensorProto.INT32),
    ]
    for place, added in enumerate(lengths):
        model.graph.node.insert(place, added)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    kv_heads, head_size = cache[1].dim_value, cache[3].dim_value
    config = _config(layers, kv_heads, head_size, query_width, logits[2].dim_value)
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def _config(
    layers: int, kv_heads: int, head_size: int, hidden: int, vocabulary: int
) -> dict[str, object]:
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": head_size,
        "hidden_size": hidden,
        "num_attention_heads": hidden // head_size,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    return {
        "model": {
            "type": "llama",
            "context_length": 8_192,
            "vocab_size": vocabulary,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "decoder": decoder,
        },
        "search": {"max_length": 8_192, "past_present_share_buffer": True},
    }


def build_with_genai(gguf: Path, folder: Path, head_bits: int) -> Path:
    """Return `folder`, built now unless it is there, with an output head of 4 or 8 bits."""
    if (folder / "genai_config.json").exists():
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "transformers"
        _write_transformers_folder(gguf, source, tied=head_bits == 4)
        command = [
            *(sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", "local"),
            *("-i", str(source), "-o", str(folder), "-c", str(Path(temporary) / "cache")),
            *("-p", "int4", "-e", "cpu", "--extra_options", "int4_accuracy_level=4"),
            *("int4_block_size=32", "hf_token=false"),
        ]
        if head_bits == 8:
            command.append("matmul_mixed_precision=last_matmul:int8")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise click.ClickException(f"genai's builder failed:\n{done.stderr[-2_000:]}")
    return folder


def _write_transformers_folder(gguf: Path, folder: Path, tied: bool) -> None:
    """Write the dequantised weights as a Hugging Face model with its tokenizer.

    genai's builder loses an 8-bit head that is tied to the embedding.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from vecdb.decode.gguf_file import BlockMatrix, GgufFile
    from vecdb.decode.gguf_tokenizer import describe_tokenizer
    from vecdb.decode.llama_graph import rotated_by_halves
    from vecdb.decode.tokenizer import DecoderTokenizer

    file = GgufFile(gguf)
    shape = file.shape()

    def weight(name: str) -> torch.Tensor:
        stored = file.matrix(name)
        values = stored.dequantized() if isinstance(stored, BlockMatrix) else stored
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            values = values[rotated_by_halves(len(values), shape.head_size)]
        return torch.from_numpy(np.array(values))

    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    state = {
        f"model.layers.{layer}.{theirs}.weight": weight(f"blk.{layer}.{ours}.weight")
        for layer in range(shape.layers)
        for theirs, ours in names.items()
    }
    state["model.norm.weight"] = weight("output_norm.weight")
    state["model.embed_tokens.weight"] = weight("token_embd.weight")
    config = LlamaConfig(
        vocab_size=len(state["model.embed_tokens.weight"]),
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        max_position_embeddings=shape.context_tokens,
        rms_norm_eps=shape.norm_epsilon,
        rope_theta=shape.rope_base,
        tie_word_embeddings=tied,
        eos_token_id=2,
        pad_token_id=2,
    )
    if not tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=False)
    model.save_pretrained(folder)
    bpe = DecoderTokenizer(describe_tokenizer(file)).bpe
    PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|im_end|>"
    ).save_pretrained(folder)
