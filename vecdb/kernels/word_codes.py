"""Codes of two bytes a coordinate: what float vectors are compared by first, where pairs are many.

A processor multiplies and adds four of these in the time that the difference of two floats takes.
How far the code of a row is from the row is kept beside it, so a distance of codes bounds that of
the rows: by the triangle inequality these differ by at most as much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from vecdb.kernels.emit import I16, I32, I64, llvm, load, or_python, tile_addresses
from vecdb.kernels.jit import inline, kernel

WORDS = 32
"""Codes handled at once: rows of them are padded with zeros to a multiple of it."""

STEP, REST, SQUARE = range(3)
"""What stands in a row's facts: the size of a level, how far the code is from the row, and the
squared length of the code."""
FACTS = 3

_LANES = 16
_MOST_LEVEL = 8_191
_LARGEST_SUM = float(2**30)
_LEAST_INVERTED = np.float32(1e-37)
_ROUNDED = np.float32(1e-6)
"""How much of a sum in float32 may be wrong; the products themselves are exact."""


class Words(NamedTuple):
    """The codes of rows, and what is known of them."""

    codes: NDArray[np.int16]
    """(n, `word_width` of the vectors)."""
    facts: NDArray[np.float32]
    """(n, FACTS)."""


_WORDS_I16 = ir.VectorType(I16, WORDS)
_WORDS_I32 = ir.VectorType(I32, WORDS)
_LANES_I32 = ir.VectorType(I32, _LANES)


def _emit_pairs(builder: Any, products: Any) -> Any:
    """Emit the sums of neighbouring products: LLVM knows an instruction for what is so written."""
    undefined = ir.Constant(_WORDS_I32, ir.Undefined)
    even, odd = (
        builder.shuffle_vector(
            products, undefined, ir.Constant(_LANES_I32, list(range(first, WORDS, 2)))
        )
        for first in (0, 1)
    )
    return builder.add(even, odd)


def _type_dot_words(_: Any, xs: Any, x: Any, ys: Any, a: Any, b: Any, width: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        four, two = tile_addresses(context, builder, sig, args)
        zero = ir.Constant(_LANES_I32, [0] * _LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(8)]
        with cgutils.for_range(builder, builder.sdiv(args[5], I64(WORDS))) as loop:
            byte = builder.mul(loop.index, I64(2 * WORDS))
            wide = [
                builder.sext(load(builder, row, byte, _WORDS_I16, align=2), _WORDS_I32)
                for row in (*four, *two)
            ]
            pairs = [(p, q) for p in wide[:4] for q in wide[4:]]
            for (p, q), total in zip(pairs, sums, strict=True):
                so_far = builder.load(total, typ=_LANES_I32)
                builder.store(builder.add(so_far, _emit_pairs(builder, builder.mul(p, q))), total)
        add_up = llvm(builder, f"vector.reduce.add.v{_LANES}i32", I32, _LANES_I32)
        totals = [builder.call(add_up, [builder.load(s, typ=_LANES_I32)]) for s in sums]
        return cgutils.pack_array(builder, totals)

    index = types.intp
    return types.UniTuple(types.int32, 8)(xs, index, ys, index, index, index), codegen


def _dot_words_in_python(xs: Any, x: int, ys: Any, a: int, b: int, width: int) -> Any:
    left, right = xs[x : x + 4, :width].astype(np.int32), ys[[a, b], :width].astype(np.int32)
    return tuple((left @ right.T).reshape(-1))


dot_words: Callable[..., Any] = or_python(_type_dot_words, _dot_words_in_python)
"""Inner products of the codes x to x + 3 with the codes a and b: eight int32, those of x first.
`width` is a multiple of `WORDS`: (codes, x, other codes, a, b, width)."""


def word_width(width: int) -> int:
    """Return the length of the codes of vectors."""
    return -(-width // WORDS) * WORDS


def top_level(width: int) -> int:
    """Return the largest level at which no sum of so many products overflows."""
    return min(_MOST_LEVEL, int((_LARGEST_SUM / width) ** 0.5))


@kernel
def encode_words(vectors: Any, first: Any, last: Any, top: Any, words: Any) -> None:
    """Encode the rows from `first` to before `last`.

    Parameters
    ----------
    vectors : float32 (n, width)
    first, last : int
    top : int
        The largest level: `top_level` of the codes' width.
    words : Words
    """
    codes, facts, width = words.codes, words.facts, vectors.shape[1]
    for row in range(first, last):
        most = np.float32(0.0)
        for i in range(width):
            most = max(most, abs(vectors[row, i]))
        step = most / np.float32(top)
        inverse = np.float32(1.0) / step if step > _LEAST_INVERTED else np.float32(0.0)
        rest, square = np.float64(0.0), np.float64(0.0)
        for i in range(width):
            level = np.int32(np.floor(vectors[row, i] * inverse + np.float32(0.5)))
            apart = np.float64(vectors[row, i]) - np.float64(level) * np.float64(step)
            rest += apart * apart
            square += np.float64(level) * np.float64(level)
            codes[row, i] = level
        for i in range(width, codes.shape[1]):
            codes[row, i] = 0
        facts[row, STEP] = step
        facts[row, REST] = np.sqrt(rest)
        facts[row, SQUARE] = square * np.float64(step) * np.float64(step)


@inline
def squared_of_codes(product: Any, steps: Any, squares: Any) -> Any:
    """Return about the squared distance of two codes; each argument is that of both."""
    lengths = squares[0] + squares[1]
    return max(lengths - np.float32(2.0) * steps[0] * steps[1] * np.float32(product), np.float32(0))


@inline
def least_squared(product: Any, steps: Any, rests: Any, squares: Any) -> Any:
    """Return what the squared distance of two rows cannot be less than."""
    apart = squared_of_codes(product, steps, squares) - _ROUNDED * (squares[0] + squares[1])
    apart = np.sqrt(max(apart, np.float32(0.0))) - (rests[0] + rests[1])
    apart = max(apart, np.float32(0.0))
    return apart * apart * (np.float32(1.0) - _ROUNDED)
