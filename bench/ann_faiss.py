"""faiss's indexes, as peers of `bench.ann`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ann_engines import BuildOptions, Matrix, ef_values, engine


class _Faiss(ABC):
    packages = ("faiss-cpu",)
    parameter = ""
    index: Any

    def _begin(self, spec: str, base: Matrix, options: BuildOptions) -> None:
        import faiss

        metric = faiss.METRIC_L2 if options.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        faiss.omp_set_num_threads(options.threads)
        self.index = faiss.index_factory(base.shape[1], spec, metric)

    def _fill(self, base: Matrix) -> None:
        self.index.train(base)
        self.index.add(base)

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        return self._search(queries, k, self._parameters(value), threads)

    def search_allowed(
        self, queries: Matrix, k: int, value: int, allowed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        import faiss

        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        return self._search(queries, k, self._parameters(value, sel=selector), 1)

    @abstractmethod
    def _parameters(self, value: int, **more: Any) -> Any:
        """Return faiss's search parameters for a value of ours."""

    def _search(self, queries: Matrix, k: int, how: Any, threads: int) -> NDArray[np.int64]:
        import faiss

        faiss.omp_set_num_threads(threads)
        return self.index.search(queries, k, params=how)[1]

    def index_bytes(self) -> int:
        import faiss

        return int(faiss.serialize_index(self.index).nbytes)


@engine("faiss-hnsw")
class FaissHnsw(_Faiss):
    parameter = "ef"
    storage = "Flat"

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self._begin(f"HNSW{options.m},{self.storage}", base, options)
        self.index.hnsw.efConstruction = options.ef_construction
        self._fill(base)

    def values(self, k: int) -> Sequence[int]:
        return ef_values(k)

    def _parameters(self, value: int, **more: Any) -> Any:
        import faiss

        return faiss.SearchParametersHNSW(efSearch=value, **more)


@engine("faiss-hnsw-sq8")
class FaissHnswSq8(FaissHnsw):
    storage = "SQ8"


@engine("faiss-ivf-pqfs")
class FaissIvfPqFastScan(_Faiss):
    """IVF with 4-bit product quantisation, fast scan and refinement: faiss's fastest IVF."""

    parameter = "nprobe * 100 + k_factor"

    def build(self, base: Matrix, options: BuildOptions) -> None:
        self.lists = max(1, int(4 * len(base) ** 0.5))
        self._begin(f"IVF{self.lists},PQ{base.shape[1] // 4}x4fs,RFlat", base, options)
        self._fill(base)

    def values(self, k: int) -> Sequence[int]:
        probes = [n for n in (8, 16, 24, 32, 48, 64, 96, 128, 256) if n <= self.lists]
        return [100 * n + factor for factor in (4, 8, 16) for n in probes]

    def _parameters(self, value: int, **more: Any) -> Any:
        import faiss

        probes, factor = divmod(value, 100)
        lists = faiss.SearchParametersIVF(nprobe=probes, **more)
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=lists)
