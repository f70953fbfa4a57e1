"""What an engine of `bench.ann` is, and our own ones: a small class each, under a name.

The peers are in `bench.ann_faiss` and `bench.ann_peers`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vecdb.index import FlatIndex, HnswIndex, IvfIndex

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class BuildOptions:
    """What every engine is built with, as far as it has such a parameter."""

    metric: str
    threads: int
    m: int
    ef_construction: int


class Engine(Protocol):
    """Built once, then asked with one value of its search parameter after the other."""

    parameter: str
    """What is swept: ef, nprobe, or nothing."""
    packages: Sequence[str]
    """Whose versions are noted."""

    def build(self, base: Matrix, options: BuildOptions) -> None:
        """Index the rows of `base` under their row numbers."""

    def values(self, k: int) -> Sequence[int]:
        """Return the values of the parameter to sweep, for k results."""

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        """Return row numbers (nq, k); -1 where the engine found fewer."""

    def index_bytes(self) -> int:
        """Return the bytes that the index holds, vectors included."""


@runtime_checkable
class Filtering(Protocol):
    """An engine that can be told which rows it may return."""

    def search_allowed(
        self, queries: Matrix, k: int, value: int, allowed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return row numbers (nq, k) of allowed rows, on one thread; -1 where it found fewer."""


@runtime_checkable
class Changing(Protocol):
    """An engine whose rows can be taken out and put in."""

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Take rows out."""

    def insert(self, vectors: Matrix, rows: NDArray[np.int64]) -> None:
        """Put vectors in under row numbers that are free."""


class UnsupportedError(Exception):
    """The engine cannot do what is measured: it is left out, with a word."""


ENGINES: dict[str, Callable[[], Engine]] = {}


def engine(name: str) -> Callable[[type], type]:
    """Register a class under the name used with ``--engines``."""

    def register(cls: type) -> type:
        ENGINES[name] = cls
        return cls

    return register


def ef_values(k: int) -> Sequence[int]:
    """Return what is swept where a search keeps `ef` candidates: no fewer than k."""
    values = (10, 16, 24, 32, 40, 48, 64, 96, 128, 192, 256, 400, 512, 1024)
    return sorted({max(k, 10), *(ef for ef in values if ef >= k)})


class _Vecdb:
    """What all of ours share."""

    packages = ("vecdb", "numba", "numpy")
    parameter = "-"
    index: FlatIndex | HnswIndex | IvfIndex
    threads = 1

    def values(self, k: int) -> Sequence[int]:
        return [0]

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        return self._search(queries, k, value, threads=threads)

    def search_allowed(
        self, queries: Matrix, k: int, value: int, allowed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        return self._search(queries, k, value, filter=allowed)

    def remove(self, rows: NDArray[np.int64]) -> None:
        self.index.remove(rows)

    def insert(self, vectors: Matrix, rows: NDArray[np.int64]) -> None:
        self.index.add(vectors, rows, threads=self.threads)

    def index_bytes(self) -> int:
        return sum(array.nbytes for array in self.index.arrays().values())

    def _map(self) -> None:
        """Take the index from a file, which is removed and stays mapped."""
        with tempfile.TemporaryDirectory() as folder:
            self.index.save(Path(folder) / "index")
            self.index = type(self.index).load(Path(folder) / "index")

    def _search(self, queries: Matrix, k: int, value: int, **how: Any) -> NDArray[np.int64]:
        asked = {} if self.parameter == "-" else {self.parameter: value}
        return self.index.search(queries, k, **asked, **how)[0]


@engine("vecdb-hnsw")
class VecdbHnsw(_Vecdb):
    parameter = "ef"
    quantization = "none"
    rerank: str | None = None

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.threads = options.threads
        # Graphs of codes are built at once, and with the ef_construction that is their default.
        effort = options.ef_construction if self.quantization == "none" else None
        self.index = HnswIndex(
            base.shape[1], options.metric, m=options.m, ef_construction=effort,
            quantization=self.quantization, rerank=self.rerank,
        )  # fmt: skip
        self.index.build(base, threads=options.threads)

    def values(self, k: int) -> Sequence[int]:
        return ef_values(k)


@engine("vecdb-hnsw-rabitq")
class VecdbHnswRabitq(VecdbHnsw):
    quantization = "rabitq"


@engine("vecdb-hnsw-sq8")
class VecdbHnswSq8(VecdbHnsw):
    """One code a row, and the rest of the vectors in memory."""

    quantization = "sq8"


@engine("vecdb-hnsw-sq8-mmap")
class VecdbHnswSq8Mapped(VecdbHnsw):
    """One code a row, and the rest of the vectors in a file."""

    quantization = "sq8"
    rerank = "mmap"

    def build(self, base: Matrix, options: BuildOptions) -> None:
        super().build(base, options)
        self._map()

    def index_bytes(self) -> int:
        """Without what is in the file, whose pages the system may take back."""
        return super().index_bytes() - self.index.arrays()["residuals"].nbytes


class _VecdbIvf(_Vecdb):
    parameter = "nprobe"
    how: Mapping[str, Any] = MappingProxyType({})
    probes: Sequence[int] = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.threads = options.threads
        self.index = IvfIndex(base.shape[1], options.metric, **self.how)
        self.index.build(base, threads=options.threads)

    def values(self, k: int) -> Sequence[int]:
        return [n for n in self.probes if n <= self.index.list_count]


@engine("vecdb-ivf")
class VecdbIvf(_VecdbIvf):
    """Vectors as they are."""

    probes = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@engine("vecdb-ivf-rabitq")
class VecdbIvfRabitq(_VecdbIvf):
    """Four bits, and the vectors in memory."""

    how = MappingProxyType({"quantization": "rabitq", "bits": 4, "rerank": "memory"})


@engine("vecdb-ivf-rabitq6-only")
class VecdbIvfRabitqOnly(_VecdbIvf):
    """Six bits, and no vectors."""

    how = MappingProxyType({"quantization": "rabitq", "bits": 6, "rerank": "none"})


@engine("vecdb-ivf-rabitq-mmap")
class VecdbIvfRabitqMapped(_VecdbIvf):
    """Four bits, and the vectors in a file."""

    how = MappingProxyType({"quantization": "rabitq", "bits": 4, "rerank": "mmap"})

    def build(self, base: Matrix, options: BuildOptions) -> None:
        super().build(base, options)
        self._map()

    def index_bytes(self) -> int:
        """Without the vectors, whose pages the system may take back."""
        return super().index_bytes() - self.index.arrays()["vectors"].nbytes


@engine("vecdb-flat")
class VecdbFlat(_Vecdb):
    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.index = FlatIndex(base.shape[1], options.metric)
        self.index.build(base)
