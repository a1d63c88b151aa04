"""The register tile with groups in the vector lanes: a few outputs of each group, sums through all pixels of a kernel.

A vector holds one number of each of neighbouring groups: an input pixel, a kernel's pixel or a sum. So each sum gets
its products in order, the lanes are full however few the outputs are, and no lane is moved. It is the tile of gradients
by the weights, where kernels are as large as maps and outputs as few as taps.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ...jit import Native
from .copies import transposed_lanes
from .ir import (
    INT64,
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
    own_function,
    store,
    unknown,
    vector_type,
)

# Of each row or column of a kernel, the first output that meets it inside the input, and the end of those that do.
Spans = tuple[tuple[int, int], ...]
# What a tile adds up, by rows and by columns; without spans, all of any kernel.
Met = tuple[Spans, Spans]
EVERYTHING: Met = ((), ())


def _define_outputs(
    module: Any, channels: int, rows: int, columns: int, vector: Any, one_for_all: bool, met: Met
) -> Any:
    """The register tile.

    void outputs(T *x, T *kernel, T *sums, i64 sums_apart, i64 sums_pitch, i64 pitch, i64 step, i64 row_pitch,
                 i64 column_step, i64 kernel_rows, i64 kernel_columns, i64 kernel_apart, i64 kernel_pitch,
                 i64 kernel_step, i64 fresh)
    with the operands of `call_outputs`. A pixel of the kernel is a vector or, `one_for_all` lanes, a number. A tile
    that leaves products out is for kernels of one size, and for a step and a column_step of one vector.
    """
    sparing = "".join(f"_{first}_{end}" for first, end in (*met[0], *met[1]))
    kind = f"{channels}x{rows}x{columns}{f'_{len(met[0])}' if sparing else ''}{sparing}{'_one' * one_for_all}"
    name = f"numconv_outputs_{kind}_v{vector.count}x{itemsize(vector)}"
    pointer = vector.element.as_pointer()
    function, builder, values = own_function(module, name, [pointer] * 3 + [INT64] * 12)
    x, kernel, sums, sums_apart, sums_pitch, pitch, step, row_pitch, column_step = values[:9]
    kernel_rows, kernel_columns, kernel_apart, kernel_pitch, kernel_step, fresh = values[9:]
    if sparing:
        step = column_step = INT64(vector.count)
    multiply_add = fused(builder, vector)
    places = list(itertools.product(range(channels), range(rows), range(columns)))
    totals = {place: builder.alloca(vector) for place in places}

    def there(channel: int, row: int, column: int) -> Any:
        start = at(builder, sums, builder.mul(INT64(channel), sums_apart), builder.mul(INT64(row), sums_pitch))
        return at(builder, start, INT64(column * vector.count))

    with builder.if_else(builder.icmp_signed("!=", fresh, INT64(0))) as (from_zero, resume):
        with from_zero:
            for total in totals.values():
                builder.store(ir.Constant(vector, [0.0] * vector.count), total)
        with resume:
            for place, total in totals.items():
                builder.store(load(builder, vector, there(*place)), total)

    def kernel_rows_met() -> Iterator[tuple[Any, tuple[int, int]]]:
        """Rows of the kernel, each with the output rows that it meets: by loops over those that meet the same."""
        end = 0
        for span, run in itertools.groupby(met[0]):
            start, end = end, end + len(list(run))
            # A loop of one step that the compiler made none of had its sums spilled.
            with cgutils.for_range(builder, unknown(builder, INT64(end)), INT64(start), intp=INT64) as loop:
                yield loop.index, span
        if not sparing:
            with cgutils.for_range(builder, kernel_rows, intp=INT64) as loop:
                yield loop.index, (0, rows)

    def kernel_columns_met() -> Iterator[tuple[Any, tuple[int, int]]]:
        """The same of columns, but those of a kernel that is known one after another: the ends of short loops, which
        processors guess wrong, took as much time as leaving products out saves.
        """
        for number, span in enumerate(met[1]):
            yield INT64(number), span
            # Else the inputs of a column would stay in registers for the next, and sums would spill.
            builder.fence("seq_cst", "singlethread")
        if not sparing:
            with cgutils.for_range(builder, kernel_columns, intp=INT64) as loop:
                yield loop.index, (0, columns)

    for kh, (first_row, end_row) in kernel_rows_met():
        first = at(builder, x, builder.mul(kh, pitch))
        factors = at(builder, kernel, builder.mul(kh, kernel_pitch))
        for kw, (first_column, end_column) in kernel_columns_met():
            begin = at(builder, factors, builder.mul(kw, kernel_step))
            factor = []
            for channel in range(channels):
                pixel = at(builder, begin, builder.mul(INT64(channel), kernel_apart))
                factor.append(
                    broadcast(builder, builder.load(pixel), vector) if one_for_all else load(builder, vector, pixel)
                )
            line = at(builder, first, builder.mul(kw, step))
            for row, column in itertools.product(range(first_row, end_row), range(first_column, end_column)):
                offsets = builder.mul(INT64(row), row_pitch), builder.mul(INT64(column), column_step)
                value = load(builder, vector, at(builder, line, *offsets))
                for channel in range(channels):
                    total = totals[channel, row, column]
                    builder.store(builder.call(multiply_add, [value, factor[channel], builder.load(total)]), total)
    for place, total in totals.items():
        store(builder, builder.load(total), there(*place))
    builder.ret_void()
    return function


@intrinsic
def define_outputs(typing_context: Any, extents: Any, met: Any, one_for_all: Any, zero: Any, operands: Any) -> Any:
    """Run a tile of extents (channels, rows, columns) and spans, lengths of tuples, for the dtype of `zero`;
    one_for_all is a tuple that is not empty where it is meant. The operands lie at an address.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        channels, rows, columns = (len(extent) for extent in extents)
        by_rows, by_columns = (tuple((len(first), len(end)) for first, end in spans) for spans in met)
        vector, flag = vector_type(zero), len(one_for_all) > 0
        function = _define_outputs(builder.module, channels, rows, columns, vector, flag, (by_rows, by_columns))
        call_own(builder, function, args[4])
        return context.get_dummy_value()

    return types.void(extents, met, one_for_all, zero, types.intp), generate


@functools.lru_cache(maxsize=256)
def outputs_tile(
    dtype: np.dtype[Any], channels: int, rows: int, columns: int, one_for_all: bool, met: Met = EVERYTHING
) -> Native:
    """A tile of so many output channels, rows and columns, to be called by `call_outputs`."""
    extents, flag, zero = ((0,) * channels, (0,) * rows, (0,) * columns), (0,) * one_for_all, dtype.type(0)
    spans = tuple(tuple(((0,) * first, (0,) * end) for first, end in axis) for axis in met)
    return Native(lambda operands: define_outputs(extents, spans, flag, zero, operands))


@intrinsic
def call_outputs(
    typing_context: Any,
    address: Any,
    x: Any,
    kernel: Any,
    sums: Any,
    sums_apart: Any,
    sums_pitch: Any,
    pitch: Any,
    step: Any,
    row_pitch: Any,
    column_step: Any,
    kernel_rows: Any,
    kernel_columns: Any,
    kernel_apart: Any,
    kernel_pitch: Any,
    kernel_step: Any,
    fresh: Any,
) -> Any:
    """Call a tile, with sums that start from zero where they are fresh. For all kh and kw in order, in every lane:

    sums[c * sums_apart + oh * sums_pitch + ow * L] += x[kh * pitch + kw * step + oh * row_pitch + ow * column_step] *
    kernel[c * kernel_apart + kh * kernel_pitch + kw * kernel_step]

    of L lanes, where `kernel` is an address.
    """
    operands = (x, types.intp, sums, *(types.intp,) * 12)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, args[1:]))
        return context.get_dummy_value()

    return types.void(types.intp, *operands), generate


@intrinsic
def gather_lanes(
    typing_context: Any, target: Any, address: Any, lane_pitch: Any, step: Any, lanes_: Any, columns: Any
) -> Any:
    """target[j * L + lane] = the element at ``address + lane * lane_pitch + j * step``, in bytes, for j < columns and
    lane < lanes_; further lanes, of the L of a vector, are zero.

    By vectors where the lanes or the columns are neighbours, else by elements. Up to half a vector of vectors behind
    the last column is overwritten.
    """
    signature = types.void(target, *(types.intp,) * 5)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, place, pitch, apart, lanes_, width = data(context, builder, signature.args, args)
        vector = vector_type(target.dtype)
        size, neighbour = vector.count, INT64(itemsize(vector))

        def there(*offsets: Any) -> Any:
            where = functools.reduce(builder.add, offsets, place)
            return builder.inttoptr(where, vector.element.as_pointer())

        with builder.if_else(builder.icmp_signed("==", apart, neighbour)) as (columns_are, others):
            with columns_are:
                starts = [builder.mul(INT64(lane), pitch) for lane in range(size)]
                transposed_lanes(builder, vector, to, there, starts, lanes_, width)
            with others, cgutils.for_range(builder, width, intp=INT64) as column:
                start, line = builder.mul(column.index, apart), at(builder, to, builder.mul(column.index, INT64(size)))
                with builder.if_else(builder.icmp_signed("==", pitch, neighbour)) as (lanes_are, neither):
                    with lanes_are:
                        mask = between(builder, vector, INT64(0), INT64(0), lanes_)
                        store(builder, masked_load(builder, vector, there(start), mask), line)
                    with neither:
                        store(builder, ir.Constant(vector, [0.0] * size), line)
                        with cgutils.for_range(builder, lanes_, intp=INT64) as lane:
                            value = builder.load(there(start, builder.mul(lane.index, pitch)))
                            builder.store(value, at(builder, line, lane.index))
        return context.get_dummy_value()

    return signature, generate
