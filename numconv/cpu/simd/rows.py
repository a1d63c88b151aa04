"""The register tile of one channel and any kernel: rows of output pixels that share every input row they meet."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...jit import Native
from .copies import lowest, rectified
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
    masked_store,
    own_function,
    prefetch_to_write,
    store,
    vector_type,
)


def _define_rows(module: Any, height: int, width: int, deep: bool, vector: Any) -> Any:
    """A tile of `height` output rows and `width` vectors of columns, for kernels of `height` rows or more, and of one
    plane unless it is deep.

    void rows(T *x, i64 x_start, i64 x_pitch, i64 *offsets, i64 kernel_w, T *weight, i64 kernel_h, i64 kernel_d,
              i64 plane_pitch, T bias, i64 relu, T *out, i64 out_start, i64 out_pitch, i64 columns)
    Of each plane of the kernel in turn, input rows are met from top to bottom, and in each the kernel's columns from
    left to right: a load serves all output rows that meet the input row, and each sum gets its taps in the one order.
    While the tile's first rows are begun and its last ones ended, fewer sums take part: stretches that are written out.
    """
    name = f"numconv_rows_{height}x{width}{'_deep' * deep}_v{vector.count}x{itemsize(vector)}"
    element, size = vector.element, vector.count
    pointer = element.as_pointer()
    operands = [pointer, INT64, INT64, INT64.as_pointer(), INT64, pointer, *[INT64] * 3, element, INT64, pointer,
                *[INT64] * 3]  # fmt: skip
    function, builder, values = own_function(module, name, operands)
    x, x_start, x_pitch, offsets, kernel_w, weight, kernel_h, kernel_d, plane_pitch = values[:9]
    bias, relu, out, out_start, out_pitch, columns = values[9:]
    x, out = at(builder, x, x_start), at(builder, out, out_start)
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

    def one_plane(source: Any, weights: Any, sums: list[Any]) -> tuple[Any, list[Any]]:
        """One plane of the kernel, and where the next one's weights begin."""
        # Output row r joins at input row r; row 0 has met kernel rows 0 to r by then.
        for row in range(height - 1):
            sums = sweep(source, weights, range(row + 1), sums)
            source, weights = at(builder, source, x_pitch), at(builder, weights, kernel_w)
        before = builder.basic_block
        steady, after = function.append_basic_block("steady"), function.append_basic_block("ending")
        builder.branch(steady)
        builder.position_at_end(steady)
        kernel_row, source_phi, weights_phi = builder.phi(INT64), builder.phi(pointer), builder.phi(pointer)
        totals = [builder.phi(vector) for _ in sums]
        results = sweep(source_phi, weights_phi, range(height), list(totals))
        next_row = builder.add(kernel_row, INT64(1))
        next_source, next_weights = at(builder, source_phi, x_pitch), at(builder, weights_phi, kernel_w)
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
        return next_weights, sums

    sums = [zeros] * (height * width)
    if deep:
        before = builder.basic_block
        planes, done = function.append_basic_block("plane"), function.append_basic_block("done")
        builder.branch(planes)
        builder.position_at_end(planes)
        plane, source, weights = builder.phi(INT64), builder.phi(pointer), builder.phi(pointer)
        totals = [builder.phi(vector) for _ in sums]
        next_weights, results = one_plane(source, weights, list(totals))
        next_plane = builder.add(plane, INT64(1))
        for phi, initial, value in [
            (plane, INT64(0), next_plane),
            (source, x, at(builder, source, plane_pitch)),
            (weights, weight, next_weights),
            *zip(totals, sums, results, strict=True),
        ]:
            phi.add_incoming(initial, before)
            phi.add_incoming(value, builder.basic_block)
        builder.cbranch(builder.icmp_signed("<", next_plane, kernel_d), planes, done)
        builder.position_at_end(done)
        sums = results
    else:
        # A loop of one turn took up to 15% longer.
        _, sums = one_plane(x, weight, sums)
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
    size, width = vector.count, len(rows[0][1])
    shift, floor = broadcast(builder, bias, vector), lowest(builder, relu, vector)
    whole = builder.icmp_signed("==", columns, INT64(width * size))
    places = [
        (
            rectified(builder, builder.fadd(total, shift), floor),
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


@intrinsic
def define_rows(typing_context: Any, extents: Any, zero: Any, operands: Any) -> Any:
    """Run a tile of extents (rows, vectors, deep), lengths of tuples, for the dtype of `zero`; its operands lie at an
    address.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = vector_type(zero)
        rows, vectors, deep = (len(extent) for extent in extents)
        call_own(builder, _define_rows(builder.module, rows, vectors, deep > 0, vector), args[2])
        return context.get_dummy_value()

    return types.void(extents, zero, types.intp), generate


@functools.lru_cache(maxsize=256)
def rows_tile(dtype: np.dtype[Any], rows: int, vectors: int, deep: bool = False) -> Native:
    """A tile of so many rows and vectors, for kernels of one plane or deep ones, to be called by `call_rows`."""
    lengths, zero = ((0,) * rows, (0,) * vectors, (0,) * deep), dtype.type(0)
    return Native(lambda operands: define_rows(lengths, zero, operands))


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
    kernel_d: Any,
    plane_pitch: Any,
    bias: Any,
    relu: Any,
    out: Any,
    out_start: Any,
    out_pitch: Any,
    columns: Any,
) -> Any:
    """out[r, j] = bias + sum over kd, kh, kw of weight[kd, kh, kw] * x[kd * plane_pitch + (r + kh) * x_pitch +
    offsets[kw] + j].

    For the rows of a tile and its first `columns` columns, kernel planes, rows and columns in order. x and out are
    flat, and begin at their starts. `x` is read in whole vectors. The kernel has at least as many rows as the tile.
    """
    intp = types.intp
    operands = (x, intp, intp, offsets, intp, weight, intp, intp, intp, out.dtype, intp, out, intp, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, args[1:]))
        return context.get_dummy_value()

    return types.void(intp, *operands), generate
