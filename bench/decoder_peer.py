"""A model folder for onnxruntime-genai, by its own builder, from the weights of our GGUF."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np


def make_genai_folder(gguf: Path, folder: Path, head_bits: int) -> Path:
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
