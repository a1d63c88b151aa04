"""The register tile of depthwise layers with the channels last: a run of pixels of two output rows, channels in lanes.

A vector holds neighbouring channels of one pixel, and so does a vector of weights: every load is contiguous, and no
lane is moved. Where each input pixel lies, or that it is padding, a table of addresses says, the same for all channels.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ...jit import Native
from .copies import lowest, rectified
from .ir import (
    INT64,
    WIDE,
    at,
    between,
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
    store,
    unknown,
    vector_type,
)

# For the sums and weights of a tile, of 32, less one for each step of the stride: with a stride of 2 more inputs are on
# their way, and compilers for several processors spilled two rows of 7 weights beside 14 sums.
REGISTERS = 29


def _define_pixels(module: Any, extents: list[int], vector: Any) -> Any:
    """Tiles of extents (rows, height, run, stride, width), one beside the other, each for all channels.

    void pixels(i64 *sources, i64 *sizes, T *weight, T *bias, T *spare, T *out, i64 out_start, i64 first, i64 end,
                i64 present, i64 pixels)
    A tile is `width` pixels of one or two output rows. Kernels are of `height` rows and `run` columns or, where height
    is 0, of any size, and met in runs of so many columns. `sources` are the addresses of the input pixels, row by row;
    `sizes` those of `call_pixels`. The input rows are met from top to bottom, and in each the columns from left to
    right, so each sum gets its taps in the one order. What is of a tile, but neither of the `present` rows nor of the
    `pixels`, goes to `spare`.
    """
    rows, height, run, stride, width = extents
    name = f"numconv_pixels_{rows}x{width}_{height}x{run}_{stride}_v{vector.count}x{itemsize(vector)}"
    pointer, size = vector.element.as_pointer(), vector.count
    operands = [*[INT64.as_pointer()] * 2, *[pointer] * 4, *[INT64] * 5]
    function, builder, given = own_function(module, name, operands)
    sources, sizes, weight, bias, spare, out, out_start, first, end, present, pixels = given
    out = at(builder, out, out_start)
    multiply_add, zeros = fused(builder, vector), ir.Constant(vector, [0.0] * size)
    depth, kernel_h, kernel_w, dilation, lag, columns, pitch, apart = (
        builder.load(at(builder, sizes, INT64(number))) for number in range(8)
    )
    sums = [[builder.alloca(vector) for _ in range(width)] for _ in range(rows)]
    line = builder.mul(kernel_w, INT64(size))
    in_runs = builder.sub(kernel_w, builder.srem(kernel_w, INT64(run)))
    plane = builder.mul(kernel_h, line)
    taps = builder.mul(depth, plane)
    # Weights are loaded once for all pixels, those of so many output rows as there are registers for.
    kept = min(rows, (REGISTERS - stride - rows * width) // run) if WIDE else 0

    def entry(base: Any, number: int, j: Any) -> Any:
        """The address that stands in a table, so many channels on."""
        return at(builder, builder.inttoptr(builder.load(at(builder, base, INT64(number))), pointer), j)

    def meet(places: Any, weights: dict[int, Any], run: int, j: Any, mask: Any) -> None:
        """A run of an input row, with the weights that the output rows in progress have for it."""
        held = list(weights)[:kept]

        def factor(row: int, tap: int) -> Any:
            place = weights[row] if row in held else unknown(builder, weights[row])
            return load(builder, vector, at(builder, place, INT64(tap * size)))

        # Loads stay behind the run before: early, they would spill the sums.
        places = unknown(builder, places)
        factors = {(row, tap): factor(row, tap) for row in held for tap in range(run)}
        for column in range((width - 1) * stride + run):
            meeting = [(pixel, column - pixel * stride) for pixel in range(width)]
            meeting = [(pixel, tap) for pixel, tap in meeting if 0 <= tap < run]
            if meeting:
                value = masked_load(builder, vector, entry(places, column, j), mask)
            for pixel, tap in meeting:
                for row in weights:
                    total, weight = sums[row][pixel], factors.get((row, tap)) or factor(row, tap)
                    builder.store(builder.call(multiply_add, [value, weight, builder.load(total)]), total)

    def sweep(places: Any, block: Any, j: Any, mask: Any) -> None:
        """All taps, row by row: those that meet the first output row alone, both, and the second alone."""
        if height:
            for number in range(height + (rows - 1) * stride):
                active = [row for row in range(rows) if 0 <= number - row * stride < height]
                meet(
                    at(builder, places, builder.mul(columns, INT64(number))),
                    {row: at(builder, block, INT64((number - row * stride) * run * size)) for row in active},
                    run,
                    j,
                    mask,
                )
            return
        stretches = [(INT64(0), lag, [0]), (lag, kernel_h, [0, 1]), (kernel_h, builder.add(kernel_h, lag), [1])]
        with cgutils.for_range(builder, depth, intp=INT64) as kd:
            top = at(builder, places, builder.mul(builder.mul(kd.index, builder.add(kernel_h, lag)), columns))
            begin = at(builder, block, builder.mul(kd.index, plane))
            for start, stop, active in stretches if rows > 1 else [(INT64(0), kernel_h, [0])]:
                with cgutils.for_range_slice(builder, start, stop, INT64(1), INT64) as (number, _):
                    source = at(builder, top, builder.mul(number, columns))
                    starts = {}
                    for row in active:
                        kernel_row = builder.sub(number, builder.mul(lag, INT64(row)))
                        starts[row] = at(builder, begin, builder.mul(kernel_row, line))
                    for low, high, taps in ((INT64(0), in_runs, run), (in_runs, kernel_w, 1)):
                        with cgutils.for_range_slice(builder, low, high, INT64(taps), INT64) as (tap, _):
                            weights = {row: at(builder, start, builder.mul(tap, INT64(size)))
                                       for row, start in starts.items()}  # fmt: skip
                            meet(at(builder, source, builder.mul(tap, dilation)), weights, taps, j, mask)

    with cgutils.for_range_slice(builder, INT64(0), pixels, INT64(width), INT64) as (beside, _):
        start = at(builder, out, builder.mul(beside, pitch))
        places = at(builder, sources, builder.mul(beside, INT64(stride)))
        targets = []
        for row in range(rows):
            there = builder.icmp_signed("<", INT64(row), present)
            for pixel in range(width):
                inside = builder.icmp_signed("<", builder.add(beside, INT64(pixel)), pixels)
                place = at(builder, start, builder.mul(apart, INT64(row)), builder.mul(pitch, INT64(pixel)))
                targets.append(builder.select(builder.and_(there, inside), place, spare))
        with cgutils.for_range_slice(builder, first, end, INT64(size), INT64) as (j, _):
            mask = between(builder, vector, j, INT64(0), end)
            for total in itertools.chain(*sums):
                builder.store(zeros, total)
            sweep(places, at(builder, weight, builder.mul(builder.sdiv(j, INT64(size)), taps)), j, mask)
            # Read here, for a register of its own would spill a sum.
            floor = lowest(builder, builder.load(at(builder, sizes, INT64(8))), vector)
            shift = load(builder, vector, at(builder, bias, j))
            totals = [rectified(builder, builder.fadd(builder.load(total), shift), floor)
                      for total in itertools.chain(*sums)]  # fmt: skip
            whole = builder.icmp_signed("<=", builder.add(j, INT64(size)), end)
            with builder.if_else(whole, likely=True) as (full, partial):
                with full:
                    for total, target in zip(totals, targets, strict=True):
                        store(builder, total, at(builder, target, j))
                with partial:
                    for total, target in zip(totals, targets, strict=True):
                        masked_store(builder, total, at(builder, target, j), mask)
    builder.ret_void()
    return function


@intrinsic
def define_pixels(typing_context: Any, extents: Any, zero: Any, operands: Any) -> Any:
    """Run tiles of extents (rows, kernel's rows, run, stride, pixels), lengths of tuples, for the dtype of `zero`;
    their operands lie at an address.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = _define_pixels(builder.module, [len(extent) for extent in extents], vector_type(zero))
        call_own(builder, function, args[2])
        return context.get_dummy_value()

    return types.void(extents, zero, types.intp), generate


@functools.lru_cache(maxsize=256)
def pixels_tile(dtype: np.dtype[Any], rows: int, height: int, run: int, stride: int, width: int) -> Native:
    """Tiles of so many rows and pixels, to be called by `call_pixels`."""
    extents, zero = ((0,) * rows, (0,) * height, (0,) * run, (0,) * stride, (0,) * width), dtype.type(0)
    return Native(lambda operands: define_pixels(extents, zero, operands))


@intrinsic
def call_pixels(
    typing_context: Any,
    address: Any,
    sources: Any,
    sizes: Any,
    weight: Any,
    bias: Any,
    spare: Any,
    out: Any,
    out_start: Any,
    first: Any,
    end: Any,
    present: Any,
    pixels: Any,
) -> Any:
    """out[r, p, c] = bias[c] + sum over kd, kh, kw of weight[kd, kh, kw, c] * x[kd, r * lag + kh, p * stride + kw, c].

    For channels first <= c < end, of all rows of a tile those `present`, and so many pixels. `sources` (kernel depth,
    kernel height + lag, columns) are addresses of channel 0 of x; columns of the kernel lie a dilation apart. weight is
    (vectors of channels, taps, lanes), and `first` begins a vector. `spare` has room for a pixel. `sizes` are the
    kernel's depth, height and width, the dilation, the lag, the columns, the elements from pixel to pixel and from row
    to row of the output, which begins at `out_start`, and whether to clip at zero.
    """
    intp = types.intp
    operands = (sources, sizes, weight, bias, spare, out, *(intp,) * 5)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, args[1:]))
        return context.get_dummy_value()

    return types.void(intp, *operands), generate
