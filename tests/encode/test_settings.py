"""Model directories: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.encode import tiny
from vecdb.encode.settings import BertSettings, read_settings
from vecdb.errors import InvalidParameterError, ModelNotFoundError


@pytest.mark.parametrize(
    "settings",
    [
        BertSettings(heads=4, layers=2, max_tokens=16),
        BertSettings(4, 1, 1e-5, pooling="cls", normalized=False, max_tokens=20),
    ],
)
def test_round_trip(tmp_path: Path, settings: BertSettings) -> None:
    folder = tiny.write_model(tmp_path, settings, max_tokens=settings.max_tokens)
    assert read_settings(folder) == settings


def test_bare_transformers_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bert", "max_position_embeddings": 128})
    )
    assert read_settings(tmp_path) == BertSettings(
        heads=12, layers=12, pooling="mean", normalized=False, max_tokens=128
    )


def test_limit_never_exceeds_the_positions(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path, BertSettings(heads=4, layers=1), max_tokens=4000)
    assert read_settings(folder).max_tokens == 32


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", '{"model_type": "mpnet"}', "model_type is 'mpnet'; only 'bert'"),
        ("config.json", '{"model_type": "bert", "hidden_act": "relu"}', "hidden_act is 'relu'"),
        ("config.json", "{", "not valid JSON"),
        ("modules.json", '[{"type": "x.Dense", "path": "2_Dense"}]', "module 'Dense'"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "pooling_mode_max_tokens"),
        ("1_Pooling/config.json", '{"pooling_mode": "lasttoken"}', "'lasttoken' is not supported"),
        ("config_sentence_transformers.json", '{"default_prompt_name": "query"}', "default prompt"),
    ],
)
def test_unknown_parts_are_refused(tmp_path: Path, file: str, content: str, message: str) -> None:
    folder = tiny.write_model(tmp_path, BertSettings(heads=4, layers=1))
    (folder / file).write_text(content)
    with pytest.raises(InvalidParameterError, match=message):
        read_settings(folder)


def test_not_a_model_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        read_settings(tmp_path)
