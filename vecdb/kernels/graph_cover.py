"""Finding nodes from which, together, short links lead to all others."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.kernels.jit import inline, kernel
from vecdb.kernels.simd import l2_one_by_four


@inline
def _measure_links(vectors: Any, links: Any, node: Any, squares: Any) -> Any:
    """Write the squared lengths of a node's links to `squares`; return how many there are."""
    width, count = vectors.shape[1], 0
    while count < links.shape[1] and links[node, count] >= 0:
        count += 1
    last = count - 1
    for j in range(0, count, 4):
        four = l2_one_by_four(
            vectors, node, vectors, links[node, j], links[node, min(j + 1, last)],
            links[node, min(j + 2, last)], links[node, min(j + 3, last)], width,
        )  # fmt: skip
        for i in range(min(4, count - j)):
            squares[j + i] = four[i]
    return count


@kernel
def typical_squares(
    vectors: Any, links: Any, first: Any, last: Any, squares: Any, typical: Any
) -> None:
    """Tell how long the shorter links of nodes are, squared: the second of 32, or of each 32.

    Of some nodes nearly all links lead out of their cluster.

    Parameters
    ----------
    vectors : float32 (n, width)
    links : int32 (n, degree)
        -1 after a node's last.
    first, last : int
        The nodes from `first` to `last` - 1 are looked at.
    squares : float32 (degree,)
        Working memory.
    typical : float32 (n,)
        Receives it for each of these nodes; 0 for one without links.
    """
    for node in range(first, last):
        count = _measure_links(vectors, links, node, squares)
        for i in range(1, count):
            square, j = squares[i], i
            while j > 0 and squares[j - 1] > square:
                squares[j] = squares[j - 1]
                j -= 1
            squares[j] = square
        typical[node] = squares[count >> 5] if count > 0 else np.float32(0.0)


@inline
def _spread(
    vectors: Any, links: Any, typical: Any, far: Any, start: Any, covered: Any, queue: Any,
    squares: Any,
) -> None:  # fmt: skip
    """Cover whatever short links lead to from a node."""
    covered[start] = 1
    queue[0] = start
    head, tail = 0, 1
    while head < tail:
        node = queue[head]
        head += 1
        count = _measure_links(vectors, links, node, squares)
        for j in range(count):
            other = links[node, j]
            short = squares[j] <= far * min(typical[node], typical[other])
            if short and covered[other] == 0:
                covered[other] = 1
                queue[tail] = other
                tail += 1


@kernel
def cover(
    vectors: Any, links: Any, typical: Any, far: Any, order: Any, chosen: Any, given: Any,
    covered: Any, queue: Any, squares: Any,
) -> Any:  # fmt: skip
    """Choose nodes until short links lead from one of them to each node.

    Parameters
    ----------
    vectors, links, typical
        As of `typical_squares`, which filled the last.
    far : float
        A link is short that is at most so many times as long, squared, as is typical of both ends.
    order : int32 (nodes,)
        In which nodes are looked at; what is not in it is not chosen.
    chosen : int32 (most,)
        The first `given` are chosen already; receives the others.
    given : int
    covered : uint8 (n,)
        Zeros.
    queue : int32 (n,)
    squares : float32 (degree,)
        Working memory.

    Returns
    -------
    int
        How many are chosen then; no more than `chosen` has room for.
    """
    for i in range(given):
        if covered[chosen[i]] == 0:
            _spread(vectors, links, typical, far, chosen[i], covered, queue, squares)
    count = given
    for i in range(order.shape[0]):
        if count == chosen.shape[0]:
            break
        if covered[order[i]] == 0:
            chosen[count] = order[i]
            count += 1
            _spread(vectors, links, typical, far, order[i], covered, queue, squares)
    return count
