"""From a model's name to an encoder that is ready."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vecdb.encode.base import Encoder
from vecdb.encode.settings import KNOWN, BertSettings, read_settings
from vecdb.errors import ModelNotFoundError
from vecdb.registry.cache import ModelCache, sha256_of
from vecdb.registry.models import fetch_all, find_model
from vecdb.types import EncoderInfo

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"


def load_encoder(
    name: str,
    *,
    device: str = "auto",
    cache_dir: Path | str | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Encoder:
    """Return the encoder of that name, fetched and converted to ONNX if that was not done before.

    Parameters
    ----------
    name
        A name or alias of the registry, or the path (with a ``/`` in it) of a directory with a
        BERT-like sentence-transformers model: ``model.safetensors``, ``tokenizer.json``,
        ``config.json``.
    device
        ``auto`` (CUDA if it works here), ``cpu`` or ``cuda``.
    cache_dir
        Where model files and graphs are kept; None is this user's cache directory.
    threads
        Threads that compute on the CPU; None is one per processor this process may use.
    progress
        Show the progress of downloads on stderr.

    Raises
    ------
    ModelNotFoundError
        If the name is unknown, or a file of the model was found nowhere.
    ModelDigestError
        If a file does not have its SHA-256.
    DeviceUnavailableError
        If `device` is ``cuda`` and CUDA does not work here.
    MissingDependencyError
        If the extra of the package that this needs is not installed.
    InvalidParameterError
        If `device` or `threads` cannot be, or the directory's model is of another kind.
    """
    if "/" in name and Path(name).is_dir():
        folder = Path(name).resolve()
        settings = read_settings(folder)
        files = {each: folder / each for each in (WEIGHTS, TOKENIZER)}
        for path in files.values():
            if not path.exists():
                raise ModelNotFoundError(f"{path} does not exist; an encoder's directory has it")
        digests = {each: sha256_of(path) for each, path in files.items()}
        known_as = str(folder)
    else:
        model = find_model(name, role="encoder")
        settings = KNOWN[model.name]
        files = fetch_all(model, cache_dir, progress=progress)
        digests = {file.name: file.sha256 for file in model.files}
        known_as = model.name
    return _start(known_as, settings, files, digests, ModelCache(cache_dir), device, threads)


def _start(
    name: str,
    settings: BertSettings,
    files: dict[str, Path],
    digests: dict[str, str],
    cache: ModelCache,
    device: str,
    threads: int | None,
) -> Encoder:
    from vecdb.encode.onnx import EncoderSession
    from vecdb.encode.tokenizer import TextTokenizer
    from vecdb.encode.transformer import TransformerEncoder

    def export(path: Path) -> None:
        # Imported only here: onnx and safetensors are not needed once the graph is cached.
        from vecdb.encode.bert_graph import export

        export(files[WEIGHTS], settings, path)

    graph = cache.derive(digests[WEIGHTS], _graph_name(settings), export)
    session = EncoderSession(graph, device=device)
    info = EncoderInfo(
        model=name,
        weights_sha256=digests[WEIGHTS],
        tokenizer_sha256=digests[TOKENIZER],
        pooling=settings.pooling,
        prefix="",
        normalized=settings.normalized,
        dim=session.dim,
        max_tokens=settings.max_tokens,
    )
    tokenizer = TextTokenizer(files[TOKENIZER], settings.max_tokens)
    return TransformerEncoder(info, tokenizer, session, threads=threads)


def _graph_name(settings: BertSettings) -> str:
    """Return a file name that changes with whatever but the weights decides the graph."""
    exporter = Path(__file__).with_name("bert_graph.py").read_bytes()
    version = hashlib.sha256(exporter + repr(settings).encode()).hexdigest()[:16]
    return f"encoder-{version}.onnx"
