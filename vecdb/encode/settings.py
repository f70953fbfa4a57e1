"""What a BERT-like sentence encoder is made of, apart from its weights.

Read from the files that sentence-transformers keeps beside the weights, or written here for the
models of the registry, whose only fetched files are weights and tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vecdb.errors import InvalidParameterError, ModelNotFoundError


@dataclass(frozen=True, slots=True)
class BertSettings:
    """The architecture of a BERT encoder, and how its token vectors become a text's vector.

    Attributes
    ----------
    heads
        Attention heads per layer; the hidden size is a multiple of it.
    layers
        Transformer layers.
    layer_norm_eps
        Added to the variance in every layer norm.
    pooling
        ``mean`` over all tokens, or ``cls``: the first token's vector.
    normalized
        Whether the pooled vector is scaled to unit length.
    max_tokens
        Longest input, [CLS] and [SEP] included.
    """

    heads: int
    layers: int
    layer_norm_eps: float = 1e-12
    pooling: Literal["mean", "cls"] = "mean"
    normalized: bool = True
    max_tokens: int = 512


KNOWN: dict[str, BertSettings] = {
    "all-MiniLM-L6-v2": BertSettings(heads=12, layers=6, max_tokens=256),
}
"""The settings of the encoders in the registry, by model name."""


def read_settings(folder: Path) -> BertSettings:
    """Return the settings of a model directory as sentence-transformers or transformers saves it.

    Raises
    ------
    ModelNotFoundError
        If the directory holds no ``config.json``.
    InvalidParameterError
        If the model is not a BERT encoder, or has a part that vecdb does not know.
    """
    if not (folder / "config.json").exists():
        raise ModelNotFoundError(f"{folder}: no config.json; a model directory has one")
    config = _read_json(folder / "config.json")
    for key, must in (
        ("model_type", "bert"),
        ("hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
    ):
        if config.get(key, must) != must:
            raise InvalidParameterError(f"{folder}: {key} is {config[key]!r}; only {must!r} works")
    pooling, normalized = _read_modules(folder)
    positions = int(config.get("max_position_embeddings", 512))
    limit = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return BertSettings(
        heads=int(config.get("num_attention_heads", 12)),
        layers=int(config.get("num_hidden_layers", 12)),
        layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        pooling=pooling,
        normalized=normalized,
        max_tokens=min(positions, int(limit)) if limit else positions,
    )


def _read_modules(folder: Path) -> tuple[Literal["mean", "cls"], bool]:
    """Return the pooling and whether a Normalize module follows it."""
    pooling: Literal["mean", "cls"] = "mean"
    normalized = False
    # Without modules.json, sentence-transformers itself takes the mean and does not normalise.
    for module in _read_json(folder / "modules.json", default=[]):
        kind = str(module["type"]).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _read_pooling(folder / module["path"] / "config.json")
        elif kind == "Normalize":
            normalized = True
        elif kind != "Transformer":
            raise InvalidParameterError(
                f"{folder}: module {kind!r} is not supported; Transformer, Pooling, Normalize are"
            )
    prompts = _read_json(folder / "config_sentence_transformers.json")
    if prompts.get("default_prompt_name"):
        raise InvalidParameterError(
            f"{folder}: default prompt {prompts['default_prompt_name']!r} is not supported; "
            "only models that take the bare text are"
        )
    return pooling, normalized


def _read_pooling(path: Path) -> Literal["mean", "cls"]:
    config = _read_json(path)
    modes = {key for key, value in config.items() if key.startswith("pooling_mode_") and value}
    mode = str(config.get("pooling_mode", "+".join(sorted(modes))))
    if mode in {"mean", "pooling_mode_mean_tokens"}:
        return "mean"
    if mode in {"cls", "pooling_mode_cls_token"}:
        return "cls"
    raise InvalidParameterError(f"{path}: pooling {mode!r} is not supported; mean and cls are")


def _read_json(path: Path, default: Any = None) -> Any:
    """Return what the file holds, or `default` (``{}`` when not given) without the file."""
    if not path.exists():
        return {} if default is None else default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidParameterError(f"{path}: not valid JSON: {error}") from error
