"""A BERT of a few thousand random weights, with a tokenizer of a few words, as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from vecdb.encode.settings import BertSettings

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", ".", ",", "un", "##believ", "##able"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]


def weights(
    settings: BertSettings, *, hidden: int = 24, inner: int = 40, positions: int = 32, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int, mean: float = 0.0, spread: float = 0.3) -> NDArray[np.float32]:
        return rng.normal(mean, spread, shape).astype(np.float32)

    made = {
        "embeddings.word_embeddings.weight": draw(len(VOCABULARY), hidden),
        "embeddings.position_embeddings.weight": draw(positions, hidden),
        "embeddings.token_type_embeddings.weight": draw(2, hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(settings.layers):
        name = f"encoder.layer.{layer}"
        for part, rows, columns in (
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", inner, hidden),
            ("output.dense", hidden, inner),
        ):
            made[f"{name}.{part}.weight"] = draw(rows, columns)
            made[f"{name}.{part}.bias"] = draw(rows)
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    for norm in norms:
        made[f"{norm}.weight"] = draw(hidden, mean=1.0)
        made[f"{norm}.bias"] = draw(hidden)
    return made


def write_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    # What is written into the file must not matter.
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(path))


def write_model(folder: Path, settings: BertSettings, *, max_tokens: int = 16) -> Path:
    """Write a model directory as sentence-transformers does."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights(settings), folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_attention_heads": settings.heads,
        "num_hidden_layers": settings.layers,
        "layer_norm_eps": settings.layer_norm_eps,
        "max_position_embeddings": 32,
    }
    (folder / "config.json").write_text(json.dumps(config))
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * settings.normalized
    modules = [
        {"idx": i, "path": "" if i == 0 else f"{i}_{kind}", "type": f"sentence_transformers.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": 24,
        "pooling_mode_cls_token": settings.pooling == "cls",
        "pooling_mode_mean_tokens": settings.pooling == "mean",
        "pooling_mode_max_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
