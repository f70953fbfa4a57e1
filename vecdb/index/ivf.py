"""IVF: vectors in lists by their nearest centroid, of which a search looks at the nearest."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.config import DIM, IVF_NLIST, IVF_NPROBE, SEED, THREADS, K
from vecdb.errors import CorruptFileError
from vecdb.index.base import (
    CORRECTIONS,
    METRIC_NUMBERS,
    Arrays,
    Distances,
    Ids,
    check_quantization,
    metric_of_number,
    over_threads,
)
from vecdb.index.files import PathLike, load_arrays, save_arrays
from vecdb.index.ivf_lists import InvertedLists, default_list_count
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.rows import LiveRows, frozen, padded, prepared_queries
from vecdb.index.validate import as_matrix, as_metric
from vecdb.kernels.ivf import search_lists
from vecdb.types import Matrix, MatrixLike, VectorLike

FILE_KIND = "index.ivf"
"""What its file says that it is."""

LAYOUT_VERSION = 1
"""Of the arrays; a newer one is refused."""

_GROWTH_BEFORE_RETRAINING = 4
_NO_BITS = frozen(np.empty(0, np.uint8))


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
        How vectors are kept in the lists; "none" for float32.
    seed
        Decides the sample and the first centroids of k-means.

    Notes
    -----
    The lists are made by the first `build` or `add`. They are made anew when the index has grown
    fourfold since, unless there are as many as `nlist` asks for already.
    """

    def __init__(
        self, dim: int, metric: str = "cosine", nlist: int | None = None, *,
        quantization: str = "none", seed: int = 0,
    ) -> None:  # fmt: skip
        self.dim = DIM.check(dim)
        self.metric = as_metric(metric)
        self.nlist = None if nlist is None else IVF_NLIST.check(nlist)
        self.quantization = check_quantization(quantization)
        self.seed = SEED.check(seed)
        self._live = LiveRows()
        self._lists: InvertedLists | None = None
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
        return self._build(vectors, ids)

    def _build(self, vectors: VectorLike | MatrixLike, ids: Any) -> Ids:
        checked = as_matrix(vectors, self.dim, self.metric)
        live = LiveRows()
        new_ids = live.new_ids(ids, len(checked))
        live.append_ids(new_ids)
        prepared = prepared_queries(checked, self.metric)
        self._lists = self._make_lists(prepared)
        self._lists.extend(prepared, 0)
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
            Accepted for the sake of one signature; the matrix products use the threads that
            numpy's BLAS was given.

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
            return self._build(vectors, ids)
        checked = as_matrix(vectors, self.dim, self.metric)
        new_ids = self._live.new_ids(ids, len(checked))
        self._lists.extend(prepared_queries(checked, self.metric), len(self._live))
        self._live.append_ids(new_ids)
        outgrown = len(self._live) >= _GROWTH_BEFORE_RETRAINING * self._trained_on
        if outgrown and len(self._lists) < self._wanted_lists(len(self._live)):
            self._retrain()
        return new_ids

    def _wanted_lists(self, rows: int) -> int:
        return min(rows, default_list_count(rows) if self.nlist is None else self.nlist)

    def _make_lists(self, prepared: Matrix) -> InvertedLists:
        """Find centroids for prepared vectors."""
        self._trained_on = len(prepared)
        count = self._wanted_lists(len(prepared))
        return InvertedLists.train(self.metric, prepared, count, self.seed)

    def _retrain(self) -> None:
        """Make the lists anew from the vectors in them; row numbers stay."""
        if self._lists is None:
            return
        vectors, _ = self._lists.contents()
        self._lists = self._make_lists(vectors)
        self._lists.extend(vectors, 0)

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
        enough = min(k, count)
        if allowed is not None and self._lists is not None:
            per_list = len(self._live) / len(self._lists)
            enough = max(enough, min(count, int(probes * per_list)))
        rows = np.full((len(prepared), k), -1, np.int64)
        distances = np.full((len(prepared), k), np.inf, np.float32)
        if self._lists is not None:
            lists = self._lists.arguments()

            def work(first: int, last: int) -> None:
                search_lists(
                    lists, prepared[first:last], probes, enough,
                    _NO_BITS if allowed is None else frozen(allowed), allowed is not None, k,
                    CORRECTIONS[self.metric], rows[first:last], distances[first:last],
                )  # fmt: skip

            over_threads(threads, len(prepared), work)
        return self._live.ids.of_rows(rows), distances

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that the index is, as arrays; the large ones are not copied."""
        header = [
            LAYOUT_VERSION, self.dim, METRIC_NUMBERS[self.metric], self.nlist or 0, self.seed,
            self._trained_on,
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
        dim, metric_number, nlist, seed, trained_on = read_header(arrays, LAYOUT_VERSION, 6)
        rows = rows_in(arrays, "ids")
        check_arrays(arrays, {"ids": (np.int64, (rows,)), "alive": (np.uint8, (rows,))})
        metric = metric_of_number(metric_number)
        index = cls(dim, metric, nlist or None, seed=seed)
        index._trained_on = trained_on
        index._live = LiveRows(arrays["ids"], arrays["alive"])
        if "centroids" in arrays:
            index._lists = InvertedLists.of(metric, padded(dim), arrays)
            if int(index._lists.length.sum()) != rows:
                raise CorruptFileError(f"the lists do not hold the {rows} vectors of the index")
        return index

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
