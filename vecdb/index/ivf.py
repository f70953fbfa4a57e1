"""IVF: vectors in lists by their nearest centroid, of which a search looks at the nearest."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.config import DIM, IVF_BITS, IVF_NLIST, IVF_NPROBE, SEED, THREADS, K
from vecdb.errors import CorruptFileError, InvalidParameterError
from vecdb.index.base import METRIC_NUMBERS, Arrays, Distances, Ids, metric_of_number
from vecdb.index.calibration import check_target
from vecdb.index.files import PathLike, load_arrays, save_arrays
from vecdb.index.ivf_codes import InvertedCodes
from vecdb.index.ivf_lists import InvertedLists, Request, default_list_count
from vecdb.index.ivf_recall import measure_lists
from vecdb.index.layout import check_arrays, read_header, rows_in
from vecdb.index.query_rows import LEAST_ROWS, HeldOut, hashes_of, hold_out
from vecdb.index.recall_table import RecallTable
from vecdb.index.reranks import RERANKS, one_of
from vecdb.index.rows import LiveRows, aligned_copy, padded, prepared_queries
from vecdb.index.validate import as_matrix, as_metric
from vecdb.index.workers import Workers
from vecdb.types import Matrix, MatrixLike, VectorLike

FILE_KIND = "index.ivf"
"""What its file says that it is."""

LAYOUT_VERSION = 3
"""Of the arrays; a newer one is refused. Version 1 knew lists of float32 only, and before version 3
no row was used again."""

_HEADER_LENGTHS = {1: 6, 2: 8, 3: 9}

QUANTIZATIONS = ("none", "rabitq")
"""How vectors can be kept in the lists."""

_GROWTH_BEFORE_RETRAINING = 4
_STRAY_SHARE = 0.1
"""Of all rows, those unlike the first: above it, the lists are made anew."""
_DEAD_SHARE = 0.1
"""Above it, an addition takes the places of removed rows."""


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
    The lists are made by the first `build` or `add`, also after all was removed. They are made anew
    when the index has grown fourfold since, unless there are as many as `nlist` asks for already,
    and when a tenth of the rows are unlike those they were made of. With ``rerank="none"`` that is
    done from the codes, and adds their error once more: build such an index at once.
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
        self._recalls = RecallTable.none()
        # Rows that took the places of others since recalls were measured.
        self._replaced = 0
        # Whether the lists were last made anew since rows came that they did not suit.
        self._drifting = False

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
        return self._build(vectors, ids, threads, LiveRows())

    def _build(
        self, vectors: VectorLike | MatrixLike, ids: Any, threads: int, live: LiveRows
    ) -> Ids:
        checked = as_matrix(vectors, self.dim, self.metric)
        new_ids = live.new_ids(ids, len(checked))
        live.append_ids(new_ids)
        prepared = prepared_queries(checked, self.metric)
        rows = np.arange(len(prepared))
        held = hold_out(rows, hashes_of(prepared, Workers(threads)), self.seed)
        self._lists = self._make_lists(prepared, held.rows)
        self._extend(prepared, rows, threads)
        self._live, self._drifting = live, False
        self._measure(held, threads)
        return new_ids

    def add(self, vectors: VectorLike | MatrixLike, ids: Any = None, threads: int = 1) -> Ids:
        """Add vectors.

        Parameters
        ----------
        vectors
            float32 (n, dim).
        ids
            Integers from 0 to 2**63 - 1, none of them in use; by default the next row numbers,
            or those behind the largest id where that is larger. The id of a removed vector can be
            used again.
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
        if self._lists is None or len(self) == 0:
            return self._build(vectors, ids, threads, LiveRows(given=self._live.ids.given))
        checked = as_matrix(vectors, self.dim, self.metric)
        new_ids = self._live.new_ids(ids, len(checked))
        rows = self._rows_for(new_ids)
        reused = rows < len(self._live)
        self._replaced += int(np.count_nonzero(reused))
        if reused.any():
            self._lists.take_out(rows[reused])
        self._extend(prepared_queries(checked, self.metric), rows, threads)
        self._live.reuse(rows[reused], new_ids[reused])
        self._live.append_ids(new_ids[~reused])
        outgrown = len(self._live) >= _GROWTH_BEFORE_RETRAINING * self._trained_on
        more = outgrown and len(self._lists) < self._wanted_lists(len(self._live))
        strange = self._lists.strays > _STRAY_SHARE * len(self._live)
        if more or strange:
            self._drifting = strange
            held = self._held_out(0, threads)
            self._retrain(held.rows, threads)
            self._measure(held, threads)
        elif self._recalls.is_due(len(self._live) + self._replaced, drifting=self._drifting):
            self._measure(self._held_out(self._trained_on, threads), threads)
        return new_ids

    def _measure(self, held: HeldOut, threads: int) -> None:
        """Measure what searches find, with some rows as queries."""
        if self._lists is not None:
            self._recalls = measure_lists(self._lists, held, self._live.alive, threads)
        self._replaced = 0

    def _rows_for(self, ids: Ids) -> Ids:
        """Return the row numbers of new vectors: those of removed ones first, if they are many."""
        count = len(self._live)
        rows = np.full(len(ids), -1, np.int64)
        if count - len(self) > _DEAD_SHARE * count:
            rows = self._live.places_for(ids, np.flatnonzero(~self._live.alive))
        fresh = rows < 0
        rows[fresh] = np.arange(count, count + int(np.count_nonzero(fresh)))
        return rows

    def _held_out(self, first: int, threads: int) -> HeldOut:
        """Choose rows to measure with, if they can be, where there are lists already.

        They are rows from `first` on, that the centroids were found without, if those are half of
        all: of fewer, searches for what came first could be much unlike.
        """
        if self._lists is None or not self._lists.keeps_vectors:
            return HeldOut.none()
        live = np.flatnonzero(self._live.alive)
        hashes = self._lists.hashes(Workers(threads))[live]
        later = live >= first
        if np.count_nonzero(later) < max(LEAST_ROWS, len(live) / 2):
            later[:] = True
        return hold_out(live, hashes, self.seed, among=later)

    def _wanted_lists(self, rows: int) -> int:
        return min(rows, default_list_count(rows) if self.nlist is None else self.nlist)

    def _make_lists(self, prepared: Matrix, held_out: Ids) -> InvertedLists | InvertedCodes:
        """Find centroids for prepared vectors, without those that are to be queries."""
        self._trained_on = len(prepared)
        count = self._wanted_lists(len(prepared))
        if self.quantization == "none":
            return InvertedLists.train(self.metric, prepared, count, self.seed, held_out)
        lists = self._no_codes()
        lists.train(prepared, count, self.seed, held_out)
        return lists

    def _no_codes(self) -> InvertedCodes:
        keeps = self.rerank != "none"
        return InvertedCodes(self.metric, self.dim, self.bits, keeps, self.seed)

    def _extend(self, prepared: Matrix, rows: Ids, threads: int) -> None:
        if isinstance(self._lists, InvertedCodes):
            self._lists.extend(prepared, rows, threads)
        elif self._lists is not None:
            self._lists.extend(prepared, rows)

    def _retrain(self, held_out: Ids, threads: int) -> None:
        """Make the lists anew from what is in them; row numbers stay."""
        self._trained_on = len(self._live)
        count = self._wanted_lists(self._trained_on)
        if isinstance(self._lists, InvertedCodes):
            self._lists = self._lists.retrained(count, self.seed, threads, held_out)
        elif self._lists is not None:
            self._lists = self._lists.retrained(count, self.seed, held_out)

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
        threads: int = 1, filter: Any = None, target_recall: float | None = None,
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
            are looked at until as many vectors have been compared as without, and as many times
            more as the filter keeps fewer of those in the lists than of all.
        threads
            Over how many threads the queries are spread.
        filter
            bool (row_count,), or a `RowFilter`: the rows that may be returned; None for all.
        target_recall
            The share of the k nearest that is to be found on average, from 0.5 to 0.999. How many
            lists that takes was measured when they were made and as they grew; `nprobe` is the
            least beside it. All are looked at when there are fewer than 2,000 vectors.

        Returns
        -------
        ids, distances
            int64 and float32 (nq, k), best first, padded with -1 and infinity where fewer than k
            vectors can be returned. Where k can be, k are.

        Raises
        ------
        InvalidArgumentError
            One of its subclasses.
        """
        k, threads = K.check(k), THREADS.check(threads)
        prepared = prepared_queries(
            as_matrix(queries, self.dim, self.metric, name="queries"), self.metric
        )
        allowed, count = self._live.allowed(filter)
        # The nearest allowed rows are about as many nearest of all as lie evenly among them.
        nearest = k * len(self._live) / max(count, 1)
        probes = self._probes(nearest, nprobe, target_recall)
        rows = np.full((len(prepared), k), -1, np.int64)
        distances = np.full((len(prepared), k), np.inf, np.float32)
        if self._lists is not None:
            as_without = int(probes * len(self._live) / len(self._lists))
            enough = min(k, count)
            if allowed is not None:
                enough = max(enough, min(count, as_without))
            few = count <= 2 * as_without
            share = count / max(len(self._live), 1)
            self._lists.search(
                Request(prepared, k, probes, enough, share, allowed, few, threads, rows, distances)
            )
        return self._live.ids.of_rows(rows), distances

    def _probes(self, k: float, nprobe: int | None, target_recall: float | None) -> int:
        """Return how many lists are looked at for the nearest `k` rows."""
        if target_recall is None:
            return IVF_NPROBE.check(nprobe)
        target = check_target(target_recall)
        if self.rerank == "none":
            raise InvalidParameterError(
                f"target_recall={target_recall!r} with rerank='none': the bits of the codes decide "
                "what is found, and there are no vectors to measure it by; give nprobe"
            )
        least = 1 if nprobe is None else IVF_NPROBE.check(nprobe)
        effort = self._recalls.effort(target, k)
        if effort is None:
            return max(least, self.list_count)
        # So many are looked at to find k rows at all, also where fewer were measured to be enough.
        least = max(least, math.ceil(k * self.list_count / len(self._live)))
        return max(least, min(effort, self.list_count))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that the index is, as arrays.

        The large ones are copied only of lists of vectors that were added to.
        """
        coded = self.quantization != "none"
        header = [
            LAYOUT_VERSION, self.dim, METRIC_NUMBERS[self.metric], self.nlist or 0, self.seed,
            self._trained_on, self.bits if coded else 0, RERANKS.index(self.rerank),
            self._live.ids.given,
        ]  # fmt: skip
        arrays: dict[str, NDArray[Any]] = {
            "header": np.array(header, np.int64),
            "ids": self._live.ids.array,
            "alive": self._live.alive.view(np.uint8),
        }
        if self._lists is not None:
            arrays |= self._lists.to_arrays()
        return arrays | self._recalls.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Make an index over the arrays of `arrays`, which may be read-only and memory-mapped.

        Those of lists of vectors are used where they are, and the first `add` copies them; of lists
        of codes only the vectors, with ``rerank="mmap"``.

        Raises
        ------
        NewerFormatError, CorruptFileError
            If the arrays cannot be used.
        """
        rows = rows_in(arrays, "ids")
        version = arrays["header"][:1].tolist() if "header" in arrays else []
        length = next((n for v, n in _HEADER_LENGTHS.items() if version == [v]), 0)
        numbers = read_header(arrays, LAYOUT_VERSION, length)
        numbers += [0, 0, rows][len(numbers) - 5 :]
        dim, metric_number, nlist, seed, trained_on, bits, rerank, given = numbers
        check_arrays(arrays, {"ids": (np.int64, (rows,)), "alive": (np.uint8, (rows,))})
        if given < rows:
            raise CorruptFileError(f"{rows} rows cannot have been given {given} ids")
        if not 0 <= rerank < len(RERANKS):
            raise CorruptFileError(f"rerank number {rerank} is not below {len(RERANKS)}")
        coded: dict[str, Any] = {"quantization": "none"}
        if bits:
            coded = {"bits": bits, "rerank": RERANKS[rerank]}
        metric = metric_of_number(metric_number)
        index = cls(dim, metric, nlist or None, seed=seed, **coded)
        index._trained_on = trained_on
        index._live = LiveRows(arrays["ids"], arrays["alive"], given)
        index._recalls = RecallTable.from_arrays(arrays)
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
        """Open an index that `save` wrote; what stays in the file is told by `from_arrays`.

        Raises
        ------
        StoredFileNotFoundError
            If there is no such file.
        CorruptFileError, NewerFormatError
            If it is damaged, of another kind, or of a newer vecdb.
        """
        return cls.from_arrays(load_arrays(path, FILE_KIND))
