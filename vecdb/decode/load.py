"""Finding a chat model by name or by URL. Nothing heavy is imported before one is loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from vecdb.config import THREADS
from vecdb.decode.base import ChatModel
from vecdb.errors import InvalidParameterError, shown

if TYPE_CHECKING:
    from vecdb.decode.local import LocalChatModel

Device = Literal["auto", "cpu", "cuda"]
ActivationType = Literal["int8", "float32"]


def load_chat_model(
    name_or_url: str,
    *,
    device: str = "auto",
    activations: str = "int8",
    cache_dir: Path | str | None = None,
    threads: int | None = None,
    progress: bool = True,
    api_key: str | None = None,
    model: str | None = None,
    context_tokens: int | None = None,
) -> ChatModel:
    """Return a chat model: one known by name, a GGUF file, or a server behind a URL.

    Parameters
    ----------
    name_or_url
        A name of `vecdb models list`, a path that ends in ``.gguf``, or the base URL of an
        OpenAI-compatible server, such as ``http://127.0.0.1:11434/v1#model``.
    device
        "auto" takes CUDA when it is there; "cuda" fails when it is not. Not for a URL.
    activations
        "int8" quantises the inputs of matrix products by blocks of 32, as most engines do on a
        CPU; "float32" does not and is slower. Neither for CUDA nor for a URL.
    cache_dir
        Where model files and the graphs made from them are kept; None is this user's cache.
    threads
        CPU threads of one step; None takes the CPUs that this process may use.
    progress
        Show the progress of a download.
    api_key, model, context_tokens
        Of a server behind a URL: its key, the model's name there (instead of the URL's fragment),
        and the size of its context when the server does not tell it.

    Raises
    ------
    InvalidParameterError
        If an argument is out of its range.
    ModelNotFoundError
        If the name is not known, or the files could not be had.
    DeviceUnavailableError
        If `device` is "cuda" and it is not there.
    MissingDependencyError
        If the extra is not installed.
    """
    if device not in get_args(Device):
        raise InvalidParameterError(f"device={shown(device)}: must be one of {get_args(Device)}")
    if activations not in get_args(ActivationType):
        raise InvalidParameterError(
            f"activations={shown(activations)}: must be one of {get_args(ActivationType)}"
        )
    threads = None if threads is None else THREADS.check(threads)
    if name_or_url.lower().startswith(("http://", "https://")):
        from vecdb.decode.openai import OpenAIChatModel

        return OpenAIChatModel(
            name_or_url, api_key=api_key, model=model, context_tokens=context_tokens
        )
    if name_or_url.endswith(".gguf"):
        from vecdb.registry.cache import sha256_of

        path = Path(name_or_url)
        if not path.is_file():
            raise InvalidParameterError(f"{name_or_url!r}: there is no such file")
        name, sha256 = path.stem, sha256_of(path)
    else:
        from vecdb.registry.models import fetch, find_model

        known = find_model(name_or_url, role="decoder")
        file = known.files[0]
        name, sha256 = known.name, file.sha256
        path = fetch(file, cache_dir, progress=progress)
    return _load(name, path, sha256, device, activations, cache_dir, threads)


def _load(
    name: str,
    path: Path,
    sha256: str,
    device: str,
    activations: str,
    cache_dir: Path | str | None,
    threads: int | None,
) -> LocalChatModel:
    from vecdb.decode.local import LocalChatModel
    from vecdb.decode.onnx import OnnxDecoder
    from vecdb.decode.tokenizer import DecoderTokenizer
    from vecdb.onnx_sessions import on_device, require_cuda

    def open_on(where: Literal["cpu", "cuda"]) -> OnnxDecoder:
        if where == "cuda":
            require_cuda()  # before a graph is made for it
        # CUDA's kernels take float32 activations whatever is asked: one graph for both.
        kind = "float32" if where == "cuda" else activations
        graph = cached_graph(path, sha256, kind, where, cache_dir)
        # Measured for int8 on a CPU: there, more tokens a step take little longer than one.
        ahead = kind == "int8"
        return OnnxDecoder(graph, device=where, threads=threads, look_ahead=ahead)

    decoder = on_device(device, open_on)
    tokenizer = DecoderTokenizer(cached_tokenizer(path, sha256, cache_dir).read_text("utf-8"))
    return LocalChatModel(name, decoder, tokenizer)


def cached_graph(
    path: Path,
    sha256: str,
    activations: str,
    device: Literal["cpu", "cuda"],
    cache_dir: Path | str | None,
) -> Path:
    """Return the ONNX graph of a GGUF file, made now unless an earlier call left it."""
    from vecdb.registry.cache import ModelCache

    def build(target: Path) -> None:
        from vecdb.registry.extras import needs_extra

        with needs_extra():
            import onnx

            from vecdb.decode.gguf_file import GgufFile
            from vecdb.decode.llama_graph import build_llama
        kind: ActivationType = "int8" if activations == "int8" else "float32"
        onnx.save(build_llama(GgufFile(path), kind, device), str(target))

    version = _source_version("gguf_file.py", "llama_graph.py")
    name = f"decoder-{version}-{activations}-{device}.onnx"
    return ModelCache(cache_dir).derive(sha256, name, build)


def cached_tokenizer(path: Path, sha256: str, cache_dir: Path | str | None) -> Path:
    """Return the description of a GGUF file's tokenizer, made now unless it is there."""
    from vecdb.registry.cache import ModelCache

    def build(target: Path) -> None:
        from vecdb.registry.extras import needs_extra

        with needs_extra():
            from vecdb.decode.gguf_file import GgufFile
            from vecdb.decode.gguf_tokenizer import describe_tokenizer
        target.write_text(describe_tokenizer(GgufFile(path)), encoding="utf-8")

    version = _source_version("gguf_file.py", "gguf_tokenizer.py")
    return ModelCache(cache_dir).derive(sha256, f"tokenizer-{version}.json", build)


def _source_version(*modules: str) -> str:
    """Return a digest of the source of modules: when it changes, what they made is made again."""
    folder = Path(__file__).parent
    digest = hashlib.sha256(json.dumps(modules).encode())
    for module in modules:
        digest.update((folder / module).read_bytes())
    return digest.hexdigest()[:12]
