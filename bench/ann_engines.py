"""The engines that `bench.ann` compares: one small class each, registered under a name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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

    def search(self, queries: Matrix, k: int, value: int) -> NDArray[np.int64]:
        """Return row numbers (nq, k), on one thread."""

    def index_bytes(self) -> int:
        """Return the bytes that the index holds, vectors included."""


ENGINES: dict[str, Callable[[], Engine]] = {}


def engine(name: str) -> Callable[[type], type]:
    """Register a class under the name used with ``--engines``."""

    def register(cls: type) -> type:
        ENGINES[name] = cls
        return cls

    return register


def _ef_values(k: int) -> Sequence[int]:
    return [
        ef for ef in (10, 16, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024) if ef >= k
    ]  # fmt: skip


def _array_bytes(index: Any) -> int:
    return int(sum(array.nbytes for array in index.arrays().values()))


@engine("vecdb-hnsw")
class VecdbHnsw:
    parameter = "ef"
    packages = ("vecdb", "numba", "numpy")

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.index = HnswIndex(
            base.shape[1], options.metric, m=options.m, ef_construction=options.ef_construction
        )
        self.index.build(base, threads=options.threads)

    def values(self, k: int) -> Sequence[int]:
        return _ef_values(k)

    def search(self, queries: Matrix, k: int, value: int) -> NDArray[np.int64]:
        return self.index.search(queries, k, ef=value)[0]

    def index_bytes(self) -> int:
        return _array_bytes(self.index)


@engine("vecdb-ivf")
class VecdbIvf:
    parameter = "nprobe"
    packages = ("vecdb", "numba", "numpy")

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.index = IvfIndex(base.shape[1], options.metric)
        self.index.build(base, threads=options.threads)

    def values(self, k: int) -> Sequence[int]:
        return [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= self.index.list_count]

    def search(self, queries: Matrix, k: int, value: int) -> NDArray[np.int64]:
        return self.index.search(queries, k, nprobe=value)[0]

    def index_bytes(self) -> int:
        return _array_bytes(self.index)


class _VecdbCodes:
    parameter = "nprobe"
    packages = ("vecdb", "numba", "numpy")
    bits = 4
    rerank = "memory"

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.index = IvfIndex(
            base.shape[1], options.metric, bits=self.bits, rerank=self.rerank,
            quantization="rabitq",
        )  # fmt: skip
        self.index.build(base, threads=options.threads)

    def values(self, k: int) -> Sequence[int]:
        return [
            n for n in (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
            if n <= self.index.list_count
        ]  # fmt: skip

    def search(self, queries: Matrix, k: int, value: int) -> NDArray[np.int64]:
        return self.index.search(queries, k, nprobe=value)[0]

    def index_bytes(self) -> int:
        return _array_bytes(self.index)


@engine("vecdb-ivf-rabitq")
class VecdbIvfRabitq(_VecdbCodes):
    """Four bits, and the vectors in memory."""


@engine("vecdb-ivf-rabitq6-only")
class VecdbIvfRabitqOnly(_VecdbCodes):
    """Six bits, and no vectors."""

    bits = 6
    rerank = "none"


@engine("vecdb-ivf-rabitq-mmap")
class VecdbIvfRabitqMapped(_VecdbCodes):
    """Four bits, and the vectors in a file."""

    rerank = "mmap"

    def build(self, base: Matrix, options: BuildOptions) -> None:
        super().build(base, options)
        with tempfile.TemporaryDirectory() as folder:
            self.index.save(Path(folder) / "index")
            self.index = IvfIndex.load(Path(folder) / "index")

    def index_bytes(self) -> int:
        """Without the vectors, whose pages the system may take back."""
        return _array_bytes(self.index) - self.index.arrays()["vectors"].nbytes


@engine("faiss-ivf-pqfs")
class FaissIvfPqFastScan:
    """IVF with 4-bit product quantisation, fast scan and refinement: faiss's fastest IVF."""

    parameter = "nprobe * 100 + k_factor"
    packages = ("faiss-cpu",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import faiss

        lists = max(1, int(4 * len(base) ** 0.5))
        metric = faiss.METRIC_L2 if options.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        faiss.omp_set_num_threads(options.threads)
        self.index = faiss.index_factory(
            base.shape[1], f"IVF{lists},PQ{base.shape[1] // 4}x4fs,RFlat", metric
        )
        self.index.train(base)
        self.index.add(base)
        self.lists = faiss.downcast_index(self.index.base_index)
        faiss.omp_set_num_threads(1)

    def values(self, k: int) -> Sequence[int]:
        probes = [n for n in (8, 16, 24, 32, 48, 64, 96, 128, 256) if n <= self.lists.nlist]
        return [100 * n + factor for factor in (4, 8, 16) for n in probes]

    def search(self, queries: Matrix, k: int, value: int) -> NDArray[np.int64]:
        self.lists.nprobe, self.index.k_factor = divmod(value, 100)
        return self.index.search(queries, k)[1]

    def index_bytes(self) -> int:
        import faiss

        return int(faiss.serialize_index(self.index).nbytes)


@engine("vecdb-flat")
class VecdbFlat:
    parameter = "-"
    packages = ("vecdb", "numba", "numpy")

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.index = FlatIndex(base.shape[1], options.metric)
        self.index.build(base)

    def values(self, k: int) -> Sequence[int]:
        return [0]

    def search(self, queries: Matrix, k: int, value: int) -> NDArray[np.int64]:
        return self.index.search(queries, k)[0]

    def index_bytes(self) -> int:
        return _array_bytes(self.index)


@engine("hnswlib")
class Hnswlib:
    parameter = "ef"
    packages = ("hnswlib",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import hnswlib

        space = {"dot": "ip"}.get(options.metric, options.metric)
        self.index = hnswlib.Index(space=space, dim=base.shape[1])
        self.index.init_index(
            max_elements=len(base), M=options.m, ef_construction=options.ef_construction
        )
        self.index.add_items(base, num_threads=options.threads)

    def values(self, k: int) -> Sequence[int]:
        return _ef_values(k)

    def search(self, queries: Matrix, k: int, value: int) -> NDArray[np.int64]:
        self.index.set_ef(value)
        labels, _ = self.index.knn_query(queries, k=k, num_threads=1)
        return labels.astype(np.int64)

    def index_bytes(self) -> int:
        return int(self.index.index_file_size())
