"""Reading the memory of an hnswlib index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidIdError, InvalidParameterError, InvalidVectorError
from vecdb.index.hnsw_state import HnswState, row_stride
from vecdb.index.rows import RowTable, aligned_empty, padded
from vecdb.types import Metric

_METRICS = {"cosine": Metric.COSINE, "ip": Metric.DOT, "l2": Metric.L2}
_DELETED = 1
"""The bit of the third byte of an element's base links that marks it as deleted."""


def read_hnswlib(index: Any) -> tuple[HnswState, int]:
    """Copy the vectors, labels, deletions and links of an `hnswlib.Index`.

    The index is read through the state that it gives to pickle, so hnswlib is not imported here.

    Returns
    -------
    state
        The same graph; labels become ids.
    ef_construction
        The parameter that the index was built with.

    Raises
    ------
    InvalidParameterError
        If the argument is not an initialised hnswlib index of float32 vectors.
    InvalidIdError
        If a label is 2**63 or more.
    InvalidVectorError
        If a vector holds NaN or infinity; hnswlib takes them.
    """
    try:
        memory = index.__getstate__()[0]
        space, initialised = memory["space"], memory["index_inited"]
    except (AttributeError, KeyError, TypeError, IndexError):
        raise InvalidParameterError(f"{type(index)!r} is not an hnswlib.Index") from None
    if not initialised:
        raise InvalidParameterError("the hnswlib index is not initialised: call init_index first")
    count, dim, m, m0 = (memory[n] for n in ("cur_element_count", "dim", "M", "max_M0"))
    elements = memory["data_level0"].view(np.uint8)
    element_bytes = memory["size_data_per_element"]
    elements = elements[: count * element_bytes].reshape(count, element_bytes)
    link_bytes = memory["offset_level0"] + 4
    data, label = memory["offset_data"], memory["label_offset"]

    labels = _field(elements, label, np.int64, 1).reshape(-1)
    vectors = _field(elements, data, np.float32, dim)
    _check_elements(labels, vectors)
    rows = aligned_empty((count, row_stride(dim, m0)), np.float32)
    rows[:, dim : padded(dim)] = 0
    rows[:, :dim] = vectors
    base = rows[:, padded(dim) :].view(np.int32)
    base[:] = -1
    lengths = _field(elements, link_bytes - 4, np.uint16, 1)
    base[:, :m0] = _without_unused(_field(elements, link_bytes, np.int32, m0), lengths)
    deleted = (elements[:, link_bytes - 2] & _DELETED) != 0

    levels = memory["element_levels"][:count].astype(np.int64)
    ends = np.cumsum(levels)
    slots = int(ends[-1]) if count else 0
    lists = memory["link_lists"].view(np.int32)[: slots * (m + 1)].reshape(slots, m + 1)
    return HnswState(
        RowTable.of(dim, _METRICS[space], rows, labels, ~deleted),
        m,
        m0,
        np.ascontiguousarray(_without_unused(lists[:, 1:], lists[:, :1])),
        np.where(levels > 0, ends - levels, -1).astype(np.int32),
        levels.astype(np.uint8),
        np.full(count, -1, np.int32),
        slots,
        int(memory["enterpoint_node"]) if count else -1,
        int(memory["max_level"]) if count else 0,
    ), int(memory["ef_construction"])


def _check_elements(labels: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    """Refuse what cannot be an id or a vector."""
    large = np.flatnonzero(labels < 0)
    if large.size:
        label = int(labels[large[0]]) % 2**64
        raise InvalidIdError(f"hnswlib label {label}: an id must be from 0 to {2**63 - 1}")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if wrong.size:
        raise InvalidVectorError(
            f"the vector of hnswlib label {labels[wrong[0]]} holds NaN or infinity"
        )


def _field(elements: NDArray[np.uint8], start: int, dtype: Any, count: int) -> NDArray[Any]:
    """Copy `count` numbers at byte `start` of every element."""
    width = np.dtype(dtype).itemsize * count
    return np.ascontiguousarray(elements[:, start : start + width]).view(dtype)


def _without_unused(links: NDArray[np.int32], lengths: NDArray[Any]) -> NDArray[np.int32]:
    """Replace what lies behind the ends of link lists by -1."""
    return np.where(np.arange(links.shape[1])[None, :] < lengths, links, np.int32(-1))
