"""A random Llama model of a few thousand weights as a GGUF file, with a byte-level vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from vecdb.decode.tokenizer import byte_of_character

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he"]
TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

HIDDEN, HEADS, KV_HEADS, FEED_FORWARD, LAYERS = 64, 4, 2, 96, 2
CONTEXT = 160


def vocabulary() -> list[str]:
    merged = [merge.replace(" ", "") for merge in MERGES]
    return [*CONTROLS, *byte_of_character(), *merged]


def write_tiny_gguf(
    path: Path,
    kind: GGMLQuantizationType = GGMLQuantizationType.Q4_1,
    *,
    embedding_kind: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
    tied: bool = True,
    architecture: str = "llama",
    split: str = "smollm",
    context: int = CONTEXT,
    add_bos: bool = False,
    seed: int = 0,
) -> Path:
    random = np.random.default_rng(seed)
    writer = GGUFWriter(path, architecture)
    tokens = vocabulary()
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROLS) + [1] * (len(tokens) - len(CONTROLS)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(add_bos)
    writer.add_chat_template(TEMPLATE)

    def matrix(name: str, rows: int, columns: int, of: GGMLQuantizationType) -> None:
        # Of a mean that differs by block, so that minima are not at half the range.
        values = random.normal(size=(rows, columns)) + 0.3 * random.normal(size=(rows, 1))
        values = (1.5 * values / np.sqrt(columns)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", quantize(values, of), raw_dtype=of)

    def norm(name: str) -> None:
        values = (1 + 0.1 * random.normal(size=HIDDEN)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", values)

    matrix("token_embd", len(tokens), HIDDEN, embedding_kind)
    key_rows = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
        matrix(f"{block}.attn_q", HIDDEN, HIDDEN, kind)
        matrix(f"{block}.attn_k", key_rows, HIDDEN, kind)
        matrix(f"{block}.attn_v", key_rows, HIDDEN, kind)
        matrix(f"{block}.attn_output", HIDDEN, HIDDEN, kind)
        matrix(f"{block}.ffn_gate", FEED_FORWARD, HIDDEN, kind)
        matrix(f"{block}.ffn_up", FEED_FORWARD, HIDDEN, kind)
        matrix(f"{block}.ffn_down", HIDDEN, FEED_FORWARD, kind)
    norm("output_norm")
    if not tied:
        matrix("output", len(tokens), HIDDEN, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
