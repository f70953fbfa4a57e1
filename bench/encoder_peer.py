"""sentence-transformers on the very files that vecdb uses, as the peer of `bench.encoder`."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.registry.models import fetch_all, find_model

_TYPES = "sentence_transformers.models"
_FILES: dict[str, Any] = {
    # As the hub has them beside the weights; what merely describes the training is left out.
    "config.json": {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": 384, "intermediate_size": 1536, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 6,
        "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30522,
    },
    "tokenizer_config.json": {
        "do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 512,
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    },
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": f"{_TYPES}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{_TYPES}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{_TYPES}.Normalize"},
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 384, "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
}  # fmt: skip


def load_peer(
    device: str, *, threads: int | None, batch_size: int
) -> Callable[[Sequence[str]], NDArray[np.float32]] | None:
    """Return the peer's encode, or None when sentence-transformers is not installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return None
    import torch
    from sentence_transformers import SentenceTransformer

    if threads is not None:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in _FILES.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(json.dumps(content))
        for file, path in fetch_all(find_model("all-MiniLM-L6-v2")).items():
            (folder / file).symlink_to(path)
        model = SentenceTransformer(str(folder), device=device)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(model.encode(list(texts), batch_size=batch_size, show_progress_bar=False))

    return encode
