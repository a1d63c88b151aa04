"""The register tile of one channel: rows of output pixels that share every input row they meet."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Native
from .copies import rectified
from .ir import (
    INT64,
    as_types,
    at,
    between,
    broadcast,
    call_address,
    data,
    fused,
    intrinsic,
    itemsize,
    load,
    masked_store,
    own_function,
    prefetch_to_write,
    store,
    unknown,
    unpacked,
    vector_type,
)


def _define_rows(module: Any, height: int, width: int, vector: Any) -> Any:
    """A tile of `height` output rows and `width` vectors of columns, for kernels of `height` rows or more.

    void rows(T *x, i64 x_pitch, i64 *offsets, i64 kernel_w, T *weight, i64 kernel_h, T bias, i64 relu,
              T *out, i64 out_pitch, i64 columns)
    Input rows are met from top to bottom, and in each the kernel's columns from left to right: a load serves all
    output rows that meet the input row, and each sum gets its taps in the one order. While the tile's first rows are
    begun and its last ones ended, fewer sums take part; those stretches are written out.
    """
    name = f"numconv_rows_{height}x{width}_v{vector.count}x{itemsize(vector)}"
    element, size = vector.element, vector.count
    pointer = element.as_pointer()
    operands = [pointer, INT64, INT64.as_pointer(), INT64, pointer, INT64, element, INT64, pointer, INT64, INT64]
    function = own_function(module, name, operands)
    x, x_pitch, offsets, kernel_w, weight, kernel_h, bias, relu, out, out_pitch, columns = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    multiply_add = fused(builder, vector)
    zeros = ir.Constant(vector, [0.0] * size)
    _announce(builder, height, width, vector, out, out_pitch)

    def sweep(source: Any, weights: Any, active: range, sums: list[Any]) -> list[Any]:
        """One input row: every column of the kernel, into the sums of the active output rows.

        The first active row's weights are at `weights`; each further row meets the kernel's row before.
        """
        before = builder.basic_block
        body, after = function.append_basic_block("tap"), function.append_basic_block("row")
        builder.branch(body)
        builder.position_at_end(body)
        tap = builder.phi(INT64)
        totals = [builder.phi(vector) for _ in active for _ in range(width)]
        place = at(builder, source, builder.load(at(builder, offsets, tap)))
        values = [load(builder, vector, at(builder, place, INT64(column * size))) for column in range(width)]
        results: list[Any] = []
        address = at(builder, weights, tap)
        for _ in active:
            factor = broadcast(builder, builder.load(address), vector)
            results += [builder.call(multiply_add, [factor, value, totals[len(results) + i]])
                        for i, value in enumerate(values)]  # fmt: skip
            address = at(builder, address, builder.neg(kernel_w))
        following = builder.add(tap, INT64(1))
        builder.cbranch(builder.icmp_signed("<", following, kernel_w), body, after)
        changed = [row * width + i for row in active for i in range(width)]
        for phi, initial, value in [
            (tap, INT64(0), following),
            *zip(totals, (sums[i] for i in changed), results, strict=True),
        ]:
            phi.add_incoming(initial, before)
            phi.add_incoming(value, body)
        builder.position_at_end(after)
        return [results[changed.index(i)] if i in changed else total for i, total in enumerate(sums)]

    sums = [zeros] * (height * width)
    source, weights = x, weight
    # Output row r joins at input row r; row 0 has met kernel rows 0 to r by then.
    for row in range(height - 1):
        sums = sweep(source, weights, range(row + 1), sums)
        source, weights = at(builder, source, x_pitch), at(builder, weights, kernel_w)
    before = builder.basic_block
    steady = function.append_basic_block("steady")
    builder.branch(steady)
    builder.position_at_end(steady)
    kernel_row, source_phi, weights_phi = builder.phi(INT64), builder.phi(pointer), builder.phi(pointer)
    totals = [builder.phi(vector) for _ in sums]
    results = sweep(source_phi, weights_phi, range(height), list(totals))
    next_row = builder.add(kernel_row, INT64(1))
    next_source, next_weights = at(builder, source_phi, x_pitch), at(builder, weights_phi, kernel_w)
    after = function.append_basic_block("ending")
    for phi, initial, value in [
        (kernel_row, INT64(height - 1), next_row),
        (source_phi, source, next_source),
        (weights_phi, weights, next_weights),
        *zip(totals, sums, results, strict=True),
    ]:
        phi.add_incoming(initial, before)
        phi.add_incoming(value, builder.basic_block)
    builder.cbranch(builder.icmp_signed("<", next_row, kernel_h), steady, after)
    builder.position_at_end(after)
    sums, source = results, next_source
    last = at(builder, next_weights, builder.neg(kernel_w))
    for row in range(1, height):
        sums = sweep(source, last, range(row, height), sums)
        source = at(builder, source, x_pitch)
    rows_out = [(INT64(row), sums[row * width : (row + 1) * width]) for row in range(height)]
    _write(builder, rows_out, bias, relu, out, out_pitch, columns)
    builder.ret_void()
    return function


def _announce(builder: Any, height: int, width: int, vector: Any, out: Any, out_pitch: Any) -> None:
    """Ask for the lines of a tile's output: they arrive while the sums are made. Stores would wait for each in turn."""
    for row in range(height):
        for column in range(width):
            place = at(builder, out, builder.mul(INT64(row), out_pitch), INT64(column * vector.count))
            prefetch_to_write(builder, place)


def _write(builder: Any, rows: Any, bias: Any, relu: Any, out: Any, out_pitch: Any, columns: Any) -> None:
    """Rows (number, sums) of a tile to the output, with bias and activation: whole vectors or the first `columns`."""
    vector = rows[0][1][0].type
    size, width, zeros = vector.count, len(rows[0][1]), ir.Constant(vector, [0.0] * vector.count)
    shift, clipping = broadcast(builder, bias, vector), builder.icmp_signed("!=", relu, INT64(0))
    whole = builder.icmp_signed("==", columns, INT64(width * size))
    places = [
        (
            rectified(builder, builder.fadd(total, shift), clipping, zeros),
            at(builder, out, builder.mul(number, out_pitch), INT64(i * size)),
            i,
        )
        for number, sums in rows
        for i, total in enumerate(sums)
    ]
    with builder.if_else(whole, likely=True) as (full, partial):
        with full:
            for value, place, _ in places:
                store(builder, value, place)
        with partial:
            for value, place, i in places:
                # A masked store takes four times as long, and the caller takes a tile for more columns than half of it.
                if (i + 1) * 2 <= width:
                    store(builder, value, place)
                else:
                    masked_store(builder, value, place, between(builder, vector, INT64(i * size), INT64(0), columns))


def _define_unrolled(module: Any, height: int, width: int, kernel: tuple[int, int], stride: int, vector: Any) -> Any:
    """The tile of one kernel's size and stride, without a loop: only the sums of the rows in progress are alive.

    void rows(T *x, i64 x_pitch, i64 *offsets, T *weight, T bias, i64 relu, T *out, i64 out_pitch, i64 columns)
    """
    name = f"numconv_rows_{height}x{width}_{kernel[0]}x{kernel[1]}_{stride}_v{vector.count}x{itemsize(vector)}"
    element, size = vector.element, vector.count
    pointer = element.as_pointer()
    operands = [pointer, INT64, INT64.as_pointer(), pointer, element, INT64, pointer, INT64, INT64]
    function = own_function(module, name, operands)
    x, x_pitch, offsets, weight, bias, relu, out, out_pitch, columns = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    multiply_add = fused(builder, vector)
    _announce(builder, height, width, vector, out, out_pitch)
    starts = [builder.load(at(builder, offsets, INT64(tap))) for tap in range(kernel[1])]
    sums = [[ir.Constant(vector, [0.0] * size)] * width for _ in range(height)]
    for row in range((height - 1) * stride + kernel[0]):
        # Weights are loaded for each input row, and inputs not before theirs: kept or early, they would spill the sums.
        source, again = unknown(builder, at(builder, x, builder.mul(INT64(row), x_pitch))), unknown(builder, weight)
        meeting = [(r, row - r * stride) for r in range(height) if 0 <= row - r * stride < kernel[0]]
        for tap, start in enumerate(starts):
            values = [load(builder, vector, at(builder, source, start, INT64(i * size))) for i in range(width)]
            for r, kernel_row in meeting:
                number = kernel_row * kernel[1] + tap
                left = broadcast(builder, builder.load(at(builder, again, INT64(number))), vector)
                sums[r] = [
                    builder.call(multiply_add, [left, value, total])
                    for value, total in zip(values, sums[r], strict=True)
                ]
        for r, kernel_row in meeting:
            if kernel_row == kernel[0] - 1:
                _write(builder, [(INT64(r), sums[r])], bias, relu, out, out_pitch, columns)
    builder.ret_void()
    return function


@intrinsic
def define_rows(typing_context: Any, extents: Any, zero: Any, operands: Any, bias: Any) -> Any:
    """Run a tile of extents (rows, vectors) or (rows, vectors, kernel, stride), lengths of tuples.

    The dtype is that of `zero`; the operands are all integers, addresses for pointers.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, vectors, *straight = (len(extent) for extent in extents)
        vector = vector_type(zero)
        if straight:
            kernel, stride = straight
            function = _define_unrolled(builder.module, rows, vectors, (kernel, kernel), stride, vector)
        else:
            function = _define_rows(builder.module, rows, vectors, vector)
        values = unpacked(builder, args[2])
        x, x_start, x_pitch, offsets, kernel_w, weight, kernel_h, relu, out, out_start, out_pitch, columns = values
        pointer = vector.element.as_pointer()
        x = at(builder, builder.inttoptr(x, pointer), x_start)
        out = at(builder, builder.inttoptr(out, pointer), out_start)
        sizes = () if straight else (kernel_w, kernel_h)
        given = [x, x_pitch, offsets, *sizes[:1], weight, *sizes[1:], args[3], relu, out, out_pitch, columns]
        builder.call(function, as_types(builder, given, function.ftype.args))
        return context.get_dummy_value()

    return types.void(extents, zero, operands, bias), generate


@functools.lru_cache(maxsize=256)
def rows_tile(dtype: np.dtype[Any], *extents: int) -> Native:
    """A tile of (rows, vectors), or of (rows, vectors, kernel, stride) without a loop, to be called by `call_rows`."""
    lengths, zero = tuple((0,) * extent for extent in extents), dtype.type(0)

    real = types.float32 if dtype.itemsize == 4 else types.float64
    return Native(
        lambda a, b, c, d, e, f, g, bias, h, i, j, k, m: define_rows(
            lengths, zero, (a, b, c, d, e, f, g, h, i, j, k, m), bias
        ),
        (*(types.intp,) * 7, real, *(types.intp,) * 5),
    )


@intrinsic
def call_rows(
    typing_context: Any,
    address: Any,
    x: Any,
    x_start: Any,
    x_pitch: Any,
    offsets: Any,
    kernel_w: Any,
    weight: Any,
    kernel_h: Any,
    bias: Any,
    relu: Any,
    out: Any,
    out_start: Any,
    out_pitch: Any,
    columns: Any,
) -> Any:
    """out[r, j] = bias + sum over kh, kw of weight[kh, kw] * x[(r * stride + kh) * x_pitch + offsets[kw] + j].

    For the rows of a tile and its first `columns` columns, kernel rows and columns in order. x and out are flat, and
    begin at their starts. `x` is read in whole vectors. Without a stride the kernel has at least as many rows as the
    tile.
    """
    intp = types.intp
    operands = (x, intp, intp, offsets, intp, weight, intp, out.dtype, intp, out, intp, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, args[1:]))
        return context.get_dummy_value()

    return types.void(intp, *operands), generate
