"""IVF: vectors in lists by their nearest centroid, of which a search looks at the nearest."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.config import DIM, IVF_BITS, IVF_NLIST, IVF_NPROBE, SEED, THREADS, K
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index.base import METRIC_NUMBERS, Arrays, Distances, Ids, metric_of_number
from vecdb.index.files import PathLike, load_arrays, save_arrays
from vecdb.index.ivf_codes import InvertedCodes
from vecdb.index.ivf_lists import InvertedLists, Request, default_list_count
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.reranks import RERANKS, one_of
from vecdb.index.rows import LiveRows, aligned_copy, padded, prepared_queries
from vecdb.index.validate import as_matrix, as_metric
from vecdb.types import Matrix, MatrixLike, VectorLike

FILE_KIND = "index.ivf"
"""What its file says that it is."""

LAYOUT_VERSION = 2
"""Of the arrays; a newer one is refused. Version 1 knew lists of float32 only."""

QUANTIZATIONS = ("none", "rabitq")
"""How vectors can be kept in the lists."""

_GROWTH_BEFORE_RETRAINING = 4


class IvfIndex:
    """Approximate search in the lists whose centroids are nearest to the query.

    Parameters
    ----------
    dim
        Dimension of the vectors.
    metric
        cosine, dot or l2.
    nlist
        How many lists to make; never more than there were vectors when they were made. By default
        four times the square root of the number of vectors.
    quantization
        How vectors are kept in the lists: "rabitq" for codes of a few bits, "none" for float32.
    bits
        Of a code, for each dimension, from 1 to 8. More bits leave fewer vectors to compare
        exactly. They decide the recall when there is no such comparison: about .90, .95 and .99
        with 4, 5 and 7.
    rerank
        Where the vectors are kept that the best codes are compared by: "memory"; "mmap", which
        leaves them in the file of a loaded index, of which only what is used becomes resident; or
        "none", not at all: distances are estimates then.
    seed
        Decides the rotation, the sample, and the first centroids of k-means.

    Notes
    -----
    The lists are made by the first `build` or `add`. They are made anew when the index has grown
    fourfold since, unless there are as many as `nlist` asks for already. With ``rerank="none"``
    that is done from the codes, and adds their error once more: build such an index at once.
    """

    def __init__(
        self, dim: int, metric: str = "cosine", nlist: int | None = None, *,
        quantization: str = "rabitq", bits: int | None = None, rerank: str = "memory",
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.dim = DIM.check(dim)
        self.metric = as_metric(metric)
        self.nlist = None if nlist is None else IVF_NLIST.check(nlist)
        self.quantization = one_of("quantization", quantization, QUANTIZATIONS)
        self.bits = IVF_BITS.check(bits)
        self.rerank = one_of("rerank", rerank, RERANKS)
        if quantization == "none" and (bits is not None or rerank != "memory"):
            raise InvalidParameterError(
                "bits and rerank are about codes, which need quantization='rabitq'"
            )
        self.seed = SEED.check(seed)
        self._live = LiveRows()
        self._lists: InvertedLists | InvertedCodes | None = None
        self._trained_on = 0

    def __len__(self) -> int:
        """Return how many vectors can be found."""
        return self._live.live_count

    @property
    def row_count(self) -> int:
        """How many rows there are, removed ones included: the length of a filter."""
        return len(self._live)

    @property
    def list_count(self) -> int:
        """How many lists there are."""
        return 0 if self._lists is None else len(self._lists)

    def build(self, vectors: MatrixLike, *, ids: Any = None, threads: int = 1) -> Ids:
        """Replace the contents; return the ids. See `add`."""
        THREADS.check(threads)
        return self._build(vectors, ids, threads)

    def _build(self, vectors: VectorLike | MatrixLike, ids: Any, threads: int) -> Ids:
        checked = as_matrix(vectors, self.dim, self.metric)
        live = LiveRows()
        new_ids = live.new_ids(ids, len(checked))
        live.append_ids(new_ids)
        prepared = prepared_queries(checked, self.metric)
        self._lists = self._make_lists(prepared)
        self._extend(prepared, 0, threads)
        self._live = live
        return new_ids

    def add(self, vectors: VectorLike | MatrixLike, ids: Any = None, threads: int = 1) -> Ids:
        """Add vectors.

        Parameters
        ----------
        vectors
            float32 (n, dim).
        ids
            Integers from 0 to 2**63 - 1, none of them in use; by default the next row numbers.
            The id of a removed vector can be used again.
        threads
            Over how many threads codes are made; the matrix products use those that numpy's BLAS
            was given.

        Returns
        -------
        ndarray
            The ids, int64 (n,).

        Raises
        ------
        InvalidArgumentError
            One of its subclasses; the index is unchanged then.
        """
        THREADS.check(threads)
        if self._lists is None:
            return self._build(vectors, ids, threads)
        checked = as_matrix(vectors, self.dim, self.metric)
        new_ids = self._live.new_ids(ids, len(checked))
        self._extend(prepared_queries(checked, self.metric), len(self._live), threads)
        self._live.append_ids(new_ids)
        outgrown = len(self._live) >= _GROWTH_BEFORE_RETRAINING * self._trained_on
        if outgrown and len(self._lists) < self._wanted_lists(len(self._live)):
            self._retrain(threads)
        return new_ids

    def _wanted_lists(self, rows: int) -> int:
        return min(rows, default_list_count(rows) if self.nlist is None else self.nlist)

    def _make_lists(self, prepared: Matrix) -> InvertedLists | InvertedCodes:
        """Find centroids for prepared vectors."""
        self._trained_on = len(prepared)
        count = self._wanted_lists(len(prepared))
        if self.quantization == "none":
            return InvertedLists.train(self.metric, prepared, count, self.seed)
        lists = self._no_codes()
        lists.train(prepared, count, self.seed)
        return lists

    def _no_codes(self) -> InvertedCodes:
        keeps = self.rerank != "none"
        return InvertedCodes(self.metric, self.dim, self.bits, keeps, self.seed)

    def _extend(self, prepared: Matrix, first: int, threads: int) -> None:
        if isinstance(self._lists, InvertedCodes):
            self._lists.extend(prepared, threads)
        elif self._lists is not None:
            self._lists.extend(prepared, first)

    def _retrain(self, threads: int) -> None:
        """Make the lists anew from what is in them; row numbers stay."""
        self._trained_on = len(self._live)
        count = self._wanted_lists(self._trained_on)
        if isinstance(self._lists, InvertedCodes):
            self._lists = self._lists.retrained(count, self.seed, threads)
        elif self._lists is not None:
            self._lists = self._lists.retrained(count, self.seed)

    def remove(self, ids: Any) -> None:
        """Remove vectors, so that they are not found any more.

        Raises
        ------
        InvalidIdError
            If an id is not in the index; nothing is removed then.
        """
        self._live.remove(ids)

    def search(
        self, queries: VectorLike | MatrixLike, k: int = 10, nprobe: int | None = None,
        threads: int = 1, filter: Any = None,
    ) -> tuple[Ids, Distances]:  # fmt: skip
        """Find the nearest vectors of each query.

        Parameters
        ----------
        queries
            float32 (nq, dim) or (dim,).
        k
            How many to return for each query.
        nprobe
            How many lists are looked at: more find better ones, slower. With a filter, more lists
            are looked at until as many vectors have been compared as without.
        threads
            Over how many threads the queries are spread.
        filter
            bool (row_count,): the rows that may be returned; None for all.

        Returns
        -------
        ids, distances
            int64 and float32 (nq, k), best first, padded with -1 and infinity where fewer than k
            vectors can be returned. Where k can be, k are.
        """
        k, threads, probes = K.check(k), THREADS.check(threads), IVF_NPROBE.check(nprobe)
        prepared = prepared_queries(
            as_matrix(queries, self.dim, self.metric, name="queries"), self.metric
        )
        allowed, count = self._live.allowed(filter)
        rows = np.full((len(prepared), k), -1, np.int64)
        distances = np.full((len(prepared), k), np.inf, np.float32)
        if self._lists is not None:
            as_without = int(probes * len(self._live) / len(self._lists))
            enough = min(k, count)
            if allowed is not None:
                enough = max(enough, min(count, as_without))
            few = count <= 2 * as_without
            self._lists.search(
                Request(prepared, k, probes, enough, allowed, few, threads, rows, distances)
            )
        return self._live.ids.of_rows(rows), distances

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that the index is, as arrays; the large ones are not copied."""
        coded = self.quantization != "none"
        header = [
            LAYOUT_VERSION, self.dim, METRIC_NUMBERS[self.metric], self.nlist or 0, self.seed,
            self._trained_on, self.bits if coded else 0, RERANKS.index(self.rerank),
        ]  # fmt: skip
        arrays: dict[str, NDArray[Any]] = {
            "header": np.array(header, np.int64),
            "ids": self._live.ids.array,
            "alive": self._live.alive.view(np.uint8),
        }
        if self._lists is not None:
            arrays |= self._lists.to_arrays()
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make an index over the arrays of `arrays`, which may be read-only and memory-mapped.

        They are used where they are; the first `add` copies them.

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        oldest = "header" in arrays and arrays["header"][:1].tolist() == [1]
        numbers = read_header(arrays, LAYOUT_VERSION, 6 if oldest else 8)
        dim, metric_number, nlist, seed, trained_on, bits, rerank = [*numbers, 0, 0][:7]
        rows = rows_in(arrays, "ids")
        check_arrays(arrays, {"ids": (np.int64, (rows,)), "alive": (np.uint8, (rows,))})
        if not 0 <= rerank < len(RERANKS):
            raise CorruptFileError(f"rerank number {rerank} is not below {len(RERANKS)}")
        coded: dict[str, Any] = {"quantization": "none"}
        if bits:
            coded = {"bits": bits, "rerank": RERANKS[rerank]}
        metric = metric_of_number(metric_number)
        index = cls(dim, metric, nlist or None, seed=seed, **coded)
        index._trained_on = trained_on
        index._live = LiveRows(arrays["ids"], arrays["alive"])
        if "centroids" in arrays:
            index._lists = index._lists_of(arrays, rows)
        return index

    def _lists_of(self, arrays: Arrays, rows: int) -> InvertedLists | InvertedCodes:
        lists: InvertedLists | InvertedCodes
        if self.quantization == "none":
            lists = InvertedLists.of(self.metric, padded(self.dim), arrays)
        else:
            if self.rerank == "memory" and "vectors" in arrays:
                arrays = {**arrays, "vectors": aligned_copy(arrays["vectors"])}
            lists = self._no_codes()
            lists.take_over(arrays, rows)
        if int(lists.length.sum()) != rows:
            raise CorruptFileError(f"the lists do not hold the {rows} vectors of the index")
        return lists

    def save(self, path: PathLike) -> None:
        """Write the index to a file, durably and all at once; an existing file is replaced."""
        save_arrays(path, self.arrays(), FILE_KIND)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Open an index that `save` wrote. Its vectors stay in the file, mapped into memory.

        Raises
        ------
        StoredFileNotFoundError
            If there is no such file.
        CorruptFileError, NewerFormatError
            If it is damaged, of another kind, or of a newer vecdb.
        """
        return cls.from_arrays(load_arrays(path, FILE_KIND))
