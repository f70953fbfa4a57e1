"""The peers that `bench.ann` compares with; each is optional, and so is imported where it is used.

All get vectors of unit norm under cosine, so where a peer has no cosine, l2 gives the same order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ann_engines import BuildOptions, Matrix, UnsupportedError, ef_values, engine


class _Ef:
    parameter = "ef"
    packages: Sequence[str] = ()
    index: Any

    def values(self, k: int) -> Sequence[int]:
        return ef_values(k)


def _only(options: BuildOptions, *metrics: str) -> None:
    if options.metric not in metrics:
        raise UnsupportedError(f"knows {', '.join(metrics)}, not {options.metric}")


def _saved_bytes(save: Callable[[str], Any]) -> int:
    """Return the size of what an index writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        save(str(path))
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


@engine("hnswlib")
class Hnswlib(_Ef):
    packages = ("hnswlib",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import hnswlib

        space = {"dot": "ip"}.get(options.metric, options.metric)
        self.index = hnswlib.Index(space=space, dim=base.shape[1])
        self.index.init_index(
            max_elements=len(base), M=options.m, ef_construction=options.ef_construction
        )
        self.threads = options.threads
        self.index.add_items(base, num_threads=options.threads)

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        self.index.set_ef(value)
        labels, _ = self.index.knn_query(queries, k=k, num_threads=threads)
        return labels.astype(np.int64)

    def search_allowed(
        self, queries: Matrix, k: int, value: int, allowed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        self.index.set_ef(value)
        may = allowed.tolist().__getitem__
        found = np.full((len(queries), k), -1, np.int64)
        for row, query in zip(found, queries, strict=True):
            try:
                row[:] = self.index.knn_query(query, k=k, num_threads=1, filter=may)[0][0]
            except RuntimeError:
                continue  # It found fewer than k, and then returns none.
        return found

    def remove(self, rows: NDArray[np.int64]) -> None:
        for row in rows.tolist():
            self.index.mark_deleted(row)

    def insert(self, vectors: Matrix, rows: NDArray[np.int64]) -> None:
        self.index.add_items(vectors, rows, num_threads=self.threads)  # Links its old node anew.

    def index_bytes(self) -> int:
        return int(self.index.index_file_size())


class _Symqg(_Ef):
    packages = ("rabitqlib",)
    bits = 0

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import rabitqlib

        metric = {"cosine": "l2", "dot": "ip"}.get(options.metric, options.metric)
        self.index = rabitqlib.SymqgIndex(base.shape[1], 2 * options.m, metric, self.bits)
        self.index.build(base, options.ef_construction, options.threads)

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        return np.asarray(self.index.search_batch(queries, k, value, threads)[0]).astype(np.int64)

    def index_bytes(self) -> int:
        return _saved_bytes(self.index.save)


@engine("symqg")
class Symqg(_Symqg):
    """SymphonyQG: one-bit codes in a graph's rows, and float32 vectors."""


@engine("symqg-8bit")
class SymqgEightBits(_Symqg):
    """SymphonyQG, its vectors in eight bits."""

    bits = 8


@engine("usearch")
class Usearch(_Ef):
    packages = ("usearch",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        from usearch.index import Index

        metric = {"cosine": "ip", "dot": "ip", "l2": "l2sq"}[options.metric]
        self.index = Index(
            ndim=base.shape[1], metric=metric, dtype="f32", connectivity=options.m,
            expansion_add=options.ef_construction,
        )  # fmt: skip
        self.threads = options.threads
        self.insert(base, np.arange(len(base)))

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        self.index.expansion_search = value
        keys = np.asarray(self.index.search(queries, k, threads=threads).keys).astype(np.int64)
        return keys.reshape(len(queries), -1)

    def remove(self, rows: NDArray[np.int64]) -> None:
        self.index.remove(rows, threads=self.threads)

    def insert(self, vectors: Matrix, rows: NDArray[np.int64]) -> None:
        self.index.add(rows, vectors, threads=self.threads)

    def index_bytes(self) -> int:
        return int(self.index.memory_usage)


@engine("voyager")
class Voyager(_Ef):
    packages = ("voyager",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import voyager

        space = {
            "cosine": voyager.Space.InnerProduct,
            "dot": voyager.Space.InnerProduct,
            "l2": voyager.Space.Euclidean,
        }[options.metric]
        self.index = voyager.Index(
            space, base.shape[1], M=options.m, ef_construction=options.ef_construction,
            max_elements=len(base),
        )  # fmt: skip
        self.index.add_items(base, list(range(len(base))), num_threads=options.threads)

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        found = self.index.query(queries, k=k, num_threads=threads, query_ef=value)[0]
        return found.astype(np.int64)

    def index_bytes(self) -> int:
        return _saved_bytes(self.index.save)


@engine("svs-vamana")
class SvsVamana(_Ef):
    """Intel's Scalable Vector Search, float32: its compressed vectors are not in the free build."""

    parameter = "window"
    packages = ("scalable-vs",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import svs

        kind = svs.DistanceType.L2 if options.metric != "dot" else svs.DistanceType.MIP
        how = svs.VamanaBuildParameters(
            alpha=1.2 if options.metric != "dot" else 0.95, graph_max_degree=2 * options.m,
            window_size=options.ef_construction,
        )  # fmt: skip
        self.index = svs.Vamana.build(how, base, kind, num_threads=options.threads)

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        self.index.search_window_size = value
        if self.index.num_threads != threads:
            self.index.num_threads = threads
        return np.asarray(self.index.search(queries, k)[0]).astype(np.int64)

    def index_bytes(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            self.index.save(*(f"{folder}/{name}" for name in ("config", "graph", "data")))
            return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


@engine("scann")
class Scann:
    """Anisotropic quantisation in a tree, scored by hash, with exact reordering."""

    parameter = "leaves * 10,000 + reordered"
    packages = ("scann",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import scann

        kind = "squared_l2" if options.metric == "l2" else "dot_product"
        self.leaves = max(1, int(len(base) ** 0.5))
        maker = scann.scann_ops_pybind.builder(base, 10, kind).tree(
            num_leaves=self.leaves, num_leaves_to_search=1, training_sample_size=len(base)
        )
        self.index = maker.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()

    def values(self, k: int) -> Sequence[int]:
        leaves = [n for n in (2, 4, 8, 12, 16, 24, 32, 64, 128) if n <= self.leaves]
        return [10_000 * n + k * factor for factor in (3, 10) for n in leaves or [1]]

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        leaves, reordered = divmod(value, 10_000)
        if threads > 1:
            self.index.set_num_threads(threads)
        ask = self.index.search_batched if threads == 1 else self.index.search_batched_parallel
        found = ask(
            queries, final_num_neighbors=k, pre_reorder_num_neighbors=reordered,
            leaves_to_search=leaves,
        )[0]  # fmt: skip
        return np.asarray(found).astype(np.int64)

    def index_bytes(self) -> int:
        return _saved_bytes(_into_folder(self.index.serialize))


@engine("pynndescent")
class PyNNDescent:
    """Its epsilon, in hundredths; it searches on one thread."""

    parameter = "epsilon / 100"
    packages = ("pynndescent", "numba")

    def build(self, base: Matrix, options: BuildOptions) -> None:
        from pynndescent import NNDescent

        metric = {"cosine": "cosine", "dot": "dot", "l2": "euclidean"}[options.metric]
        if options.metric == "dot" and np.ptp(np.linalg.norm(base, axis=1)) > 1e-3:
            raise UnsupportedError("its dot needs unit vectors")
        self.index = NNDescent(
            base, metric, n_neighbors=2 * options.m, n_jobs=options.threads, random_state=0
        )
        self.index.prepare()
        self.bytes = base.nbytes + 8 * base.shape[0] * 2 * options.m

    def values(self, k: int) -> Sequence[int]:
        return (0, 2, 5, 10, 15, 20, 25, 30, 40)

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        if threads > 1:
            raise UnsupportedError("searches on one thread")
        return self.index.query(queries, k=k, epsilon=value / 100)[0].astype(np.int64)

    def index_bytes(self) -> int:
        """The vectors and the links, reckoned: it can only be pickled."""
        return self.bytes


@engine("ngt")
class Ngt:
    """NGT's graph and tree; its epsilon, in thousandths above -0.1."""

    parameter = "epsilon * 1,000 + 100"
    packages = ("ngt",)

    def build(self, base: Matrix, options: BuildOptions) -> None:
        import ngtpy

        kind = {"cosine": "Normalized L2", "dot": None, "l2": "L2"}[options.metric]
        if kind is None:
            raise UnsupportedError("knows no dot product of vectors of any length")
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/index"
            ngtpy.create(path, base.shape[1], 2 * options.m, 2 * options.m, kind)
            self.index = ngtpy.Index(path)
            self.index.batch_insert(base, num_threads=options.threads)
            self.index.save()
            self.bytes = sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())

    def values(self, k: int) -> Sequence[int]:
        return (0, 50, 80, 100, 120, 150, 200, 250, 300)

    def search(self, queries: Matrix, k: int, value: int, threads: int = 1) -> NDArray[np.int64]:
        found = np.full((len(queries), k), -1, np.int64)

        def ask(number: int) -> None:
            rows = self.index.search(
                queries[number], k, epsilon=(value - 100) / 1000, with_distance=False
            )
            found[number, : len(rows)] = rows

        if threads == 1:
            for number in range(len(queries)):
                ask(number)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(ask, range(len(queries))))
        return found

    def index_bytes(self) -> int:
        return self.bytes


def _into_folder(save: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make the folder first, for those that do not."""

    def into(path: str) -> None:
        Path(path).mkdir()
        save(path)

    return into
