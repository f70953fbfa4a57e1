"""Emitting LLVM vector code from intrinsics: what every module with explicit SIMD needs.

An operation is written once for generic vectors, which LLVM lowers for AVX-512, AVX2 and NEON
alike, and once in numpy, used when the JIT is off. Arrays are passed whole, and addressed by row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.kernels.jit import COMPILED

BYTE, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()
REORDER = ("reassoc", "contract")


def or_python(typing: Callable[..., Any], python_form: Callable[..., Any]) -> Callable[..., Any]:
    """Return the intrinsic that `typing` describes, or its numpy twin when the JIT is off."""
    return intrinsic(typing) if COMPILED else python_form


def row_address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Emit the byte pointer to row `index` of a 2-D array, or element `index` of a 1-D one."""
    struct = context.make_array(array_type)(context, builder, array)
    offset = builder.mul(index, builder.extract_value(struct.strides, 0))
    return cgutils.pointer_add(builder, struct.data, offset, return_type=BYTE.as_pointer())


def tile_addresses(context: Any, builder: Any, sig: Any, args: Any) -> tuple[list[Any], list[Any]]:
    """Emit the pointers to rows x to x + 3 and to rows a and b of (rows, x, other rows, a, b)."""
    four = [
        row_address(context, builder, sig.args[0], args[0], builder.add(args[1], I64(i)))
        for i in range(4)
    ]
    return four, [row_address(context, builder, sig.args[2], args[2], row) for row in args[3:5]]


def load(builder: Any, base: Any, byte: Any, type_: Any, align: int = 4) -> Any:
    """Emit the load of a value of `type_` that stands `byte` bytes behind `base`."""
    address = cgutils.pointer_add(builder, base, byte, return_type=type_.as_pointer())
    return builder.load(address, align=align, typ=type_)


def store(builder: Any, value: Any, base: Any, byte: Any, align: int = 4) -> None:
    """Emit the store of a value `byte` bytes behind `base`."""
    address = cgutils.pointer_add(builder, base, byte, return_type=value.type.as_pointer())
    builder.store(value, address, align=align)


def splat(builder: Any, scalar: Any, lanes: int) -> Any:
    """Emit the vector with `scalar` in each lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(
        one, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    )


def llvm(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Declare an LLVM intrinsic by its full name; llvmlite's own helper lacks vector types."""
    return cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, arguments), f"llvm.{name}"
    )
