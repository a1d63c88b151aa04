"""The register tile of one channel and a small kernel: a strip of output rows, read where the input lies.

A tile is one vector of columns by many rows, so that a load serves every row that meets it. Padding of zeros costs no
copy: masked loads leave out the columns beside the input, and a row of zeros stands for the rows above and below it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ...jit import Native
from .copies import lowest, rectified
from .ir import (
    INT32,
    INT64,
    WIDE,
    at,
    between,
    broadcast,
    call_address,
    call_own,
    data,
    fused,
    intrinsic,
    itemsize,
    load,
    masked_load,
    masked_store,
    own_function,
    prefetch_to_write,
    store,
    unknown,
    vector_type,
)

# Up to so many taps, 32 registers have room for the weights.
KEPT_TAPS = 9


def _define_strip(module: Any, kernel: int, stride: int, height: int, vector: Any) -> Any:
    """Strips of `height` output rows, swept by tiles of one vector.

    void strip(T *x, i64 x_pitch, i64 row, i64 x_rows, T *zeros, i64 column, i64 x_columns, T *weight, T bias,
               i64 relu, T *out, i64 out_pitch, T *spare, i64 rows, i64 columns)
    Output row 0 and column 0 meet input `row` and `column` first. Input rows are met from top to bottom, and in each
    the kernel's columns from left to right, so each sum gets its taps in the one order; only the sums of the rows in
    progress are alive. `spare` has room for a tile.
    """
    name = f"numconv_strip_{kernel}x{kernel}_{stride}_{height}_v{vector.count}x{itemsize(vector)}"
    element, size = vector.element, vector.count
    pointer = element.as_pointer()
    operands = [pointer, INT64, INT64, INT64, INT64, pointer, INT64, INT64, pointer, element, INT64, pointer, INT64,
                INT64, pointer, INT64, INT64]  # fmt: skip
    function, builder, given = own_function(module, name, operands)
    x, x_start, x_pitch, first_row, x_rows, zeros, column, x_columns, *rest = given
    weight, bias, relu, out, out_start, out_pitch, spare, rows, columns = rest
    x, out = at(builder, x, x_start), at(builder, out, out_start)
    multiply_add = fused(builder, vector)
    kept = WIDE and kernel * kernel <= KEPT_TAPS

    def factor(base: Any, number: int) -> Any:
        return broadcast(builder, builder.load(at(builder, base, INT64(number))), vector)

    factors = [factor(weight, number) for number in range(kernel * kernel)] if kept else []
    picks = [
        ir.Constant(ir.VectorType(INT32, size), [lane * stride + p for lane in range(size)]) for p in range(stride)
    ]
    shift, floor = broadcast(builder, bias, vector), lowest(builder, relu, vector)
    sources = []
    for r in range((height - 1) * stride + kernel):
        row = builder.add(first_row, INT64(r))
        source = at(builder, x, builder.mul(row, x_pitch))
        sources.append(builder.select(builder.icmp_unsigned("<", row, x_rows), source, zeros))
    complete = builder.icmp_signed(">=", rows, INT64(height))
    with cgutils.for_range_slice(builder, INT64(0), columns, INT64(size), INT64) as (j, _):
        start = builder.add(builder.mul(j, INT64(stride)), column)
        # What is not a whole tile of the output goes to the spare one, and from there to its place.
        whole = builder.and_(complete, builder.icmp_signed("<=", builder.add(j, INT64(size)), columns))
        place = at(builder, out, j)
        target = builder.select(whole, place, spare)
        target_pitch = builder.select(whole, out_pitch, INT64(size))
        targets = [at(builder, target, builder.mul(INT64(o), target_pitch)) for o in range(height)]
        for row in targets:
            prefetch_to_write(builder, row)
        # Of each group of taps as wide as the stride, the vectors that hold its inputs.
        begins = [[builder.add(start, INT64(tap + part * size)) for part in range(stride)]
                  for tap in range(0, kernel, stride)]  # fmt: skip
        reads = [[_reader(builder, vector, begin, x_columns) for begin in group] for group in begins]

        def values(source: Any) -> list[Any]:
            """The inputs that each of the kernel's columns meets."""
            found: list[Any] = []
            for group in reads:
                parts = [read(source) for read in group]
                found += parts if stride == 1 else [builder.shuffle_vector(*parts, pick) for pick in picks]
            return found

        sums = [ir.Constant(vector, [0.0] * size)] * height
        for r, source in enumerate(sources):
            # Loads stay behind the row before: early, they would spill the sums.
            inputs = values(unknown(builder, source))
            again = weight if kept else unknown(builder, weight)
            meeting = [(o, r - o * stride) for o in range(height) if 0 <= r - o * stride < kernel]
            for tap in range(kernel):
                for o, kernel_row in meeting:
                    number = kernel_row * kernel + tap
                    value = factors[number] if kept else factor(again, number)
                    sums[o] = builder.call(multiply_add, [value, inputs[tap], sums[o]])
            for o, kernel_row in meeting:
                if kernel_row == kernel - 1:
                    total = rectified(builder, builder.fadd(sums[o], shift), floor)
                    store(builder, total, targets[o])
        with builder.if_then(builder.not_(whole), likely=False):
            some = between(builder, vector, j, INT64(0), columns)
            with cgutils.for_range(builder, rows, intp=INT64) as row:
                total = load(builder, vector, at(builder, spare, builder.mul(row.index, INT64(size))))
                masked_store(builder, total, at(builder, place, builder.mul(row.index, out_pitch)), some)
    builder.ret_void()
    return function


def _reader(builder: Any, vector: Any, begin: Any, end: Any) -> Callable[[Any], Any]:
    """Loads of a vector from column `begin` of a row, in which the columns below 0 and from `end` on are zero."""
    if not WIDE:
        # Without registers for masks, the input is a window with its padding filled in.
        return lambda row: load(builder, vector, at(builder, row, begin))
    mask = between(builder, vector, begin, INT64(0), end)
    return lambda row: masked_load(builder, vector, at(builder, row, begin), mask)


@intrinsic
def define_strip(typing_context: Any, extents: Any, zero: Any, operands: Any) -> Any:
    """Run strips of extents (kernel, stride, rows), lengths of tuples, for the dtype of `zero`; their operands lie at
    an address.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = vector_type(zero)
        kernel, stride, height = (len(extent) for extent in extents)
        call_own(builder, _define_strip(builder.module, kernel, stride, height, vector), args[2])
        return context.get_dummy_value()

    return types.void(extents, zero, types.intp), generate


@functools.lru_cache(maxsize=256)
def strip_tile(dtype: np.dtype[Any], kernel: int, stride: int, rows: int) -> Native:
    """Strips of so many rows for a kernel of that size and stride, to be called by `call_strip`."""
    lengths, zero = ((0,) * kernel, (0,) * stride, (0,) * rows), dtype.type(0)
    return Native(lambda operands: define_strip(lengths, zero, operands))


@intrinsic
def call_strip(
    typing_context: Any,
    address: Any,
    x: Any,
    x_start: Any,
    x_pitch: Any,
    row: Any,
    x_rows: Any,
    zeros: Any,
    column: Any,
    x_columns: Any,
    weight: Any,
    bias: Any,
    relu: Any,
    out: Any,
    out_start: Any,
    out_pitch: Any,
    spare: Any,
    rows: Any,
    columns: Any,
) -> Any:
    """out[o, j] = bias + sum over kh, kw of weight[kh, kw] * x[row + o * stride + kh, column + j * stride + kw].

    For o < rows and j < columns. x has x_rows of x_columns, with zeros above and below, and beside where vectors have
    masks; `zeros` holds a row of them, `spare` has room for a tile. x and out are flat, and begin at their starts.
    """
    intp = types.intp
    operands = (
        x,
        intp,
        intp,
        intp,
        intp,
        zeros,
        intp,
        intp,
        weight,
        out.dtype,
        intp,
        out,
        intp,
        intp,
        spare,
        intp,
        intp,
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, args[1:]))
        return context.get_dummy_value()

    return types.void(intp, *operands), generate
