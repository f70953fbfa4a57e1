"""From the vocabulary in a GGUF file to the JSON description that `DecoderTokenizer` reads."""

from __future__ import annotations

import json

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from vecdb.decode.gguf_file import GgufFile
from vecdb.errors import DecoderError

_CONTROL = 3  # llama.cpp's LLAMA_TOKEN_TYPE_CONTROL
_CONTROL_TYPES = {2, _CONTROL}  # unknown and control

_END_OF_TURN = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>"}
"""Tokens that end a turn in models whose metadata name only one of them."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_APART = (r"\p{N}", _GPT2)

_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": _DIGITS_APART,
    "starcoder": _DIGITS_APART,
    "llama-bpe": (_LLAMA3,),
}
"""What words are cut out before the merges, by the name llama.cpp gives it; applied in turn."""


def describe_tokenizer(weights: GgufFile) -> str:
    """Return the description of the file's tokenizer and chat template, as JSON.

    Raises
    ------
    DecoderError
        If it is not a byte-level BPE with a known split, or there is no chat template.
    """
    kind = weights.value("tokenizer.ggml.model")
    split = weights.value("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or split not in _SPLITS:
        raise DecoderError(
            f"{weights.path}: tokenizer {kind!r} with split {split!r} is not supported; "
            f"supported: 'gpt2' with {', '.join(map(repr, _SPLITS))}"
        )
    tokens: list[str] = weights.value("tokenizer.ggml.tokens")
    types: list[int] = weights.value("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in weights.value("tokenizer.ggml.merges")]
    bpe = Tokenizer(
        models.BPE(
            vocab={token: token_id for token_id, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=split == "llama-bpe",
        )
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(regex), "isolated") for regex in _SPLITS[split]),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    bpe.decoder = decoders.ByteLevel()
    controls = {
        token: token_id
        for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in _CONTROL_TYPES
    }
    named = {
        f"{name}_token": weights.value(f"tokenizer.ggml.{name}_token_id", -1)
        for name in ("bos", "eos", "eot")
    }
    ends = {named["eos_token"], named["eot_token"]} - {-1}
    ends |= {token_id for token, token_id in controls.items() if token in _END_OF_TURN}
    prefix = [named["bos_token"]] if weights.value("tokenizer.ggml.add_bos_token", False) else []
    return json.dumps(
        {
            "bpe": bpe.to_str(),
            "controls": controls,
            "end_token_ids": sorted(ends),
            "prefix": prefix,
            "chat_template": weights.value("tokenizer.chat_template"),
            "special_tokens": {
                name: tokens[token_id] for name, token_id in named.items() if token_id != -1
            },
        }
    )
