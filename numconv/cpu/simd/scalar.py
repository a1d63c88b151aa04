"""The step of the one order of summation, for one element of any dtype."""

from __future__ import annotations

from typing import Any

from numba.core import types

from .ir import intrinsic


@intrinsic
def multiply_add(typing_context: Any, x: Any, weight: Any, total: Any) -> Any:
    """``total + x * weight`` with one rounding: the step of the one order of summation.

    All three have the accumulator's type. Real: the hardware's fused multiply-add, or the C library's where there
    is none. Complex: re = fma(xr, wr, re); re = fma(-xi, wi, re); im = fma(xr, wi, im); im = fma(xi, wr, im).
    Integers: modulo 2**64.
    """
    signature = total(total, total, total)

    def integer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.add(builder.mul(args[0], args[1]), args[2])

    def real(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    def complex_(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        xr, xi, wr, wi, re, im = (builder.extract_value(value, part) for value in args for part in (0, 1))
        re = builder.fma(builder.fneg(xi), wi, builder.fma(xr, wr, re))
        im = builder.fma(xi, wr, builder.fma(xr, wi, im))
        return builder.insert_value(builder.insert_value(args[2], re, 0), im, 1)

    if isinstance(total, types.Complex):
        return signature, complex_
    return signature, real if isinstance(total, types.Float) else integer
