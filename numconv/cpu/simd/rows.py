"""The register tile of one channel: rows of output pixels that share every input row they meet."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from .copies import rectified
from .ir import (
    INT64,
    at,
    between,
    broadcast,
    data,
    fused,
    intrinsic,
    itemsize,
    load,
    masked_store,
    prefetch_to_write,
    store,
    unknown,
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
    if name in module.globals:
        return module.globals[name]
    element, size = vector.element, vector.count
    pointer = element.as_pointer()
    operands = [pointer, INT64, INT64.as_pointer(), INT64, pointer, INT64, element, INT64, pointer, INT64, INT64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), operands), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
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


# Weights of a tile without loops that stay in registers.
MOST_KEPT = 9


def _announce(builder: Any, height: int, width: int, vector: Any, out: Any, out_pitch: Any) -> None:
    """Ask for the lines of a tile's output: they arrive while the sums are made. Stores would wait for each in turn."""
    for row in range(height):
        for column in range(width):
            place = at(builder, out, builder.mul(INT64(row), out_pitch), INT64(column * vector.count))
            prefetch_to_write(builder, place)


def _write(builder: Any, rows: Any, bias: Any, relu: Any, out: Any, out_pitch: Any, columns: Any) -> None:
    """Rows (number, sums) of a tile to the output, with bias and activation: whole vectors or the first `columns`."""
    vector = rows[0][1][0].type
    size, zeros = vector.count, ir.Constant(vector, [0.0] * vector.count)
    shift, clipping = broadcast(builder, bias, vector), builder.icmp_signed("!=", relu, INT64(0))
    whole = builder.icmp_signed("==", columns, INT64(len(rows[0][1]) * size))
    places = [
        (
            rectified(builder, builder.fadd(total, shift), clipping, zeros),
            at(builder, out, builder.mul(number, out_pitch), INT64(i * size)),
            INT64(i * size),
        )
        for number, sums in rows
        for i, total in enumerate(sums)
    ]
    with builder.if_else(whole, likely=True) as (full, partial):
        with full:
            for value, place, _ in places:
                store(builder, value, place)
        with partial:
            for value, place, first in places:
                # A masked store takes four times as long.
                fits = builder.icmp_signed("<=", builder.add(first, INT64(size)), columns)
                with builder.if_else(fits) as (inside, over):
                    with inside:
                        store(builder, value, place)
                    with over:
                        masked_store(builder, value, place, between(builder, vector, first, INT64(0), columns))


def _define_unrolled(module: Any, height: int, width: int, kernel: tuple[int, int], stride: int, vector: Any) -> Any:
    """The tile of one kernel's size and stride, without a loop: only the sums of the rows in progress are alive.

    void rows(T *x, i64 x_pitch, i64 *offsets, T *weight, T bias, i64 relu, T *out, i64 out_pitch, i64 columns)
    """
    name = f"numconv_rows_{height}x{width}_{kernel[0]}x{kernel[1]}_{stride}_v{vector.count}x{itemsize(vector)}"
    if name in module.globals:
        return module.globals[name]
    element, size = vector.element, vector.count
    pointer = element.as_pointer()
    operands = [pointer, INT64, INT64.as_pointer(), pointer, element, INT64, pointer, INT64, INT64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), operands), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    x, x_pitch, offsets, weight, bias, relu, out, out_pitch, columns = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    multiply_add = fused(builder, vector)
    _announce(builder, height, width, vector, out, out_pitch)
    taps = kernel[0] * kernel[1]

    def factor(base: Any, tap: int) -> Any:
        return broadcast(builder, builder.load(at(builder, base, INT64(tap))), vector)

    # Weights that fit in the registers beside the sums are loaded once; others again for each input row.
    factors = [factor(weight, tap) for tap in range(taps)] if taps <= MOST_KEPT else []
    starts = [builder.load(at(builder, offsets, INT64(tap))) for tap in range(kernel[1])]
    sums = [[ir.Constant(vector, [0.0] * size)] * width for _ in range(height)]
    for row in range((height - 1) * stride + kernel[0]):
        source = at(builder, x, builder.mul(INT64(row), x_pitch))
        again = weight if factors else unknown(builder, weight)
        meeting = [(r, row - r * stride) for r in range(height) if 0 <= row - r * stride < kernel[0]]
        for tap, start in enumerate(starts):
            values = [load(builder, vector, at(builder, source, start, INT64(i * size))) for i in range(width)]
            for r, kernel_row in meeting:
                number = kernel_row * kernel[1] + tap
                left = factors[number] if factors else factor(again, number)
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
def tile_unrolled(
    typing_context: Any,
    rows: Any,
    vectors: Any,
    kernel: Any,
    stride: Any,
    x: Any,
    x_start: Any,
    x_pitch: Any,
    offsets: Any,
    weight: Any,
    bias: Any,
    relu: Any,
    out: Any,
    out_start: Any,
    out_pitch: Any,
    columns: Any,
) -> Any:
    """`tile_rows` for a square kernel and a stride of rows that are known at compile time, as lengths of tuples."""
    intp, dtype = types.intp, out.dtype
    operands = (x, intp, intp, offsets, weight, dtype, intp, out, intp, intp, intp)
    signature = types.void(rows, vectors, kernel, stride, *operands)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        square = len(kernel), len(kernel)
        function = _define_unrolled(builder.module, len(rows), len(vectors), square, len(stride), vector_type(dtype))
        source, start, *rest = data(context, builder, operands, args[4:])
        *rest, target, target_start, target_pitch, width = rest
        source, target = at(builder, source, start), at(builder, target, target_start)
        builder.call(function, [source, *rest, target, target_pitch, width])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def tile_rows(
    typing_context: Any,
    rows: Any,
    vectors: Any,
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
    """out[r, j] = bias + sum over kh, kw of weight[kh, kw] * x[(r + kh) * x_pitch + offsets[kw] + j], in that order.

    For the rows of a tile and its first `columns` columns; the tile's extents are the lengths of two tuples. x and out
    are flat, and begin at their starts. `x` is read in whole vectors. The kernel has at least as many rows as the tile.
    """
    intp, dtype = types.intp, out.dtype
    operands = (x, intp, intp, offsets, intp, weight, intp, dtype, intp, out, intp, intp, intp)
    signature = types.void(rows, vectors, *operands)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = _define_rows(builder.module, len(rows), len(vectors), vector_type(dtype))
        source, start, *rest = data(context, builder, operands, args[2:])
        *rest, target, target_start, target_pitch, width = rest
        source, target = at(builder, source, start), at(builder, target, target_start)
        builder.call(function, [source, *rest, target, target_pitch, width])
        return context.get_dummy_value()

    return signature, generate
