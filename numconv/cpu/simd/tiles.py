"""The register tile of dense correlations: sums of some rows and vectors that stay in registers through all taps."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from ...aligned import LINE_BYTES
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
    mask_type,
    masked_load,
    masked_store,
    own_function,
    prefetch,
    prefetch_to_write,
    store,
    unknown,
    vector_type,
)

# Of each step in turn, how many of a run's first and last scalars are left out, and so on from the start again.
Skips = tuple[tuple[int, int], ...]
NOTHING: Skips = ((0, 0),)
# Neighbouring scalars whose addresses hang on one register: x86 scales an index by 1 or 2 elements for nothing.
SPAN = 3
# Lines of weights at a time: six wait for one another, where tiles of 512 channels of 7x7 take what four bring; one a
# step makes tiles spill that leave out scalars.
SEVERAL = 4


def _define_tile(
    module: Any,
    groups: int,
    run: int,
    width: int,
    vector: Any,
    by_table: bool,
    finishing: bool,
    copying: bool,
    skips: Skips,
) -> Any:
    """The register tile.

    void tile(T *scalars, i64 scalar_pitch, i64 scalar_step, T *columns, i64 *table, i64 steps, i64 planes,
              i64 plane_size, i64 pace, i64 gap, T *sums, i64 sums_pitch, i64 fresh, i64 ahead, i64 ahead_gap,
              i64 several, T *bias, i64 relu, i64 rows_left, i64 columns_left),
    steps >= 1 and planes >= 1:
    the sums, `width` vectors in each of groups * run rows, are loaded or, where fresh, start from zero, go through
    every step of every plane in registers, and are stored. A step broadcasts a scalar for each row and loads `width`
    vectors. One of the two is found by the table, `plane_size` further on in each plane; the other moves by `pace` a
    step, and by `gap` a plane. The scalars of a run lie a step apart, those of groups a pitch. Where they are found by
    the table, each plane asks for a cache line, or where `several` for SEVERAL, that will be read later, from address
    `ahead` on, `ahead_gap` bytes from plane to plane; 0: for none.
    A finishing tile begins at zero, and what it stores, of so many rows and columns at most, has the activation and the
    bias of its channel, which is a row, or, with the scalars found by the table, a column. A copying tile reads its
    columns elsewhere, from address `ahead` on, `ahead_gap` bytes from step to step, and stores them where they should
    have been found. The steps are a multiple of the number of skips.
    """
    height = groups * run
    kind = ("table" if by_table else "step") + "_finishing" * finishing + "_copying" * copying
    kind += "".join(f"_{first}_{last}" for first, last in skips)
    name = f"numconv_tile_{groups}x{run}x{width}_{kind}_v{vector.count}x{itemsize(vector)}"
    pointer, size = vector.element.as_pointer(), vector.count
    integers, table_pointer = [INT64] * 5, INT64.as_pointer()
    operands = [pointer, INT64, INT64, pointer, table_pointer, *integers, pointer, *[INT64] * 5, pointer, *[INT64] * 3]
    function, builder, values = own_function(module, name, operands)
    scalars, pitch, spacing, columns, table, steps, planes, plane_size, pace, gap = values[:10]
    sums, sums_pitch, fresh, ahead, ahead_gap, several, bias, relu, rows_left, columns_left = values[10:]
    entry = builder.block
    resume, begin, plane_body, body, plane_end, end = (
        function.append_basic_block(block) for block in ("resume", "begin", "plane", "step", "planed", "end")
    )
    multiply_add = fused(builder, vector)
    if by_table:
        # An address that is not mapped would cost a walk through the page tables.
        ahead = builder.select(builder.icmp_signed("==", ahead, INT64(0)), builder.ptrtoint(sums, INT64), ahead)
    places = [
        at(builder, sums, builder.mul(INT64(row), sums_pitch), INT64(column * size))
        for row in range(height)
        for column in range(width)
    ]
    if finishing:
        fresh = INT64(1)
    builder.cbranch(builder.icmp_signed("!=", fresh, INT64(0)), begin, resume)
    builder.position_at_end(resume)
    loaded = [load(builder, vector, place) for place in places]
    builder.branch(begin)
    builder.position_at_end(begin)
    start = [builder.phi(vector) for _ in places]
    for phi, value in zip(start, loaded, strict=True):
        phi.add_incoming(ir.Constant(vector, [0.0] * size), entry)
        phi.add_incoming(value, resume)
    found_base, next_base = (scalars, columns) if by_table else (columns, scalars)
    # One moving pointer and a few multiples of the pitch and the step: a pointer for each row would spill.
    group_offsets = [builder.mul(INT64(group), pitch) for group in range(groups)]
    multiples = [builder.mul(INT64(multiple), spacing) for multiple in range(SPAN)]
    span = builder.mul(INT64(SPAN), spacing)
    builder.branch(plane_body)

    builder.position_at_end(plane_body)
    plane, base, first = builder.phi(INT64), builder.phi(pointer), builder.phi(pointer)
    line = builder.phi(INT64)
    plane_totals = [builder.phi(vector) for _ in places]
    if by_table:
        prefetch(builder, builder.inttoptr(line, pointer))
        with builder.if_then(builder.icmp_signed("!=", several, INT64(0))):
            for number in range(1, SEVERAL):
                prefetch(builder, builder.inttoptr(builder.add(line, INT64(number * LINE_BYTES)), pointer))
    if finishing:
        # The output's lines arrive while the sums are made, a column of them with each plane, as more at a time would
        # wait for one another. Stores would wait for each in turn.
        number = builder.select(builder.icmp_signed("<", plane, INT64(width)), plane, INT64(width - 1))
        for row in range(height):
            prefetch_to_write(builder, at(builder, places[row * width], builder.mul(number, INT64(size))))
    builder.branch(body)
    before_steps = builder.block

    builder.position_at_end(body)
    step, cursor, origin = builder.phi(INT64), builder.phi(pointer), builder.phi(INT64)
    totals = [builder.phi(vector) for _ in places]
    results, moved, copied = list(totals), cursor, origin
    for number, (before, behind) in enumerate(skips):
        found = at(builder, base, builder.load(at(builder, table, step, INT64(number))))
        scalars_at, columns_at = (found, moved) if by_table else (moved, found)
        right_at = [at(builder, columns_at, INT64(column * size)) for column in range(width)]
        if copying:
            there = builder.inttoptr(copied, pointer)
            right = [load(builder, vector, at(builder, there, INT64(column * size))) for column in range(width)]
            for value, place in zip(right, right_at, strict=True):
                store(builder, value, place)
            copied = builder.add(copied, ahead_gap)
        else:
            right = [load(builder, vector, place) for place in right_at]
        for group in range(groups):
            address = at(builder, scalars_at, group_offsets[group])
            for place in range(run - behind):
                if place and place % SPAN == 0:
                    address = at(builder, address, span)
                if place < before:
                    continue
                scalar = builder.load(at(builder, address, multiples[place % SPAN]))
                left = broadcast(builder, scalar, vector)
                for index, value in enumerate(right, (group * run + place) * width):
                    results[index] = builder.call(multiply_add, [left, value, results[index]])
        moved = at(builder, moved, pace)
    following = builder.add(step, INT64(len(skips)))
    builder.cbranch(builder.icmp_signed("<", following, steps), body, plane_end)

    builder.position_at_end(plane_end)
    next_plane = builder.add(plane, INT64(1))
    next_found = at(builder, base, plane_size)
    next_first = at(builder, moved, gap)
    next_line = copied if copying else builder.add(line, ahead_gap)
    builder.cbranch(builder.icmp_signed("<", next_plane, planes), plane_body, end)

    outer = [(plane, INT64(0), next_plane), (base, found_base, next_found), (first, next_base, next_first)]
    for phi, initial, value in [*outer, (line, ahead, next_line), *zip(plane_totals, start, results, strict=True)]:
        phi.add_incoming(initial, begin)
        phi.add_incoming(value, plane_end)
    for phi, initial, value in [
        (step, INT64(0), following),
        (cursor, first, moved),
        (origin, line, copied),
        *zip(totals, plane_totals, results, strict=True),
    ]:
        phi.add_incoming(initial, before_steps)
        phi.add_incoming(value, body)
    builder.position_at_end(end)
    if not finishing:
        for place, value in zip(places, results, strict=True):
            store(builder, value, place)
        builder.ret_void()
        return function
    floor = lowest(builder, relu, vector)

    def masks(left: Any) -> list[Any]:
        """Of each vector of a row, the columns that there are."""
        return [between(builder, vector, INT64(column * size), INT64(0), left) for column in range(width)]

    if by_table:
        shifts = [
            masked_load(builder, vector, at(builder, bias, INT64(column * size)), mask)
            for column, mask in enumerate(masks(columns_left))
        ]
    else:
        shifts = [broadcast(builder, builder.load(at(builder, bias, INT64(row))), vector) for row in range(height)]
    finished = [
        rectified(builder, builder.fadd(value, shifts[number % width if by_table else number // width]), floor)
        for number, value in enumerate(results)
    ]
    all_columns = builder.icmp_signed(">=", columns_left, INT64(width * size))
    whole = builder.and_(all_columns, builder.icmp_signed(">=", rows_left, INT64(height)))
    with builder.if_else(whole) as (as_they_are, masked):
        with as_they_are:
            for place, value in zip(places, finished, strict=True):
                store(builder, value, place)
        with masked:
            none, some = ir.Constant(mask_type(vector), [0] * size), masks(unknown(builder, columns_left))
            for number, (place, value) in enumerate(zip(places, finished, strict=True)):
                wanted = builder.icmp_signed("<", INT64(number // width), rows_left)
                masked_store(builder, value, place, builder.select(wanted, some[number % width], none))
    builder.ret_void()
    return function


@intrinsic
def define_tile(
    typing_context: Any,
    extents: Any,
    skips: Any,
    by_table: Any,
    finishing: Any,
    copying: Any,
    zero: Any,
    operands: Any,
) -> Any:
    """Run a register tile of extents (groups, run, vectors) and skips, lengths of tuples, and of the dtype of `zero`.

    `by_table` is a tuple, empty where the columns are found by the table, and `finishing` and `copying` are not empty
    where the tile finishes its sums and copies its columns. The operands lie at an address.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        groups, run, vectors = (len(extent) for extent in extents)
        vector = vector_type(zero)
        table, finishes, copies = (len(flag) > 0 for flag in (by_table, finishing, copying))
        left_out = tuple((len(first), len(last)) for first, last in skips)
        extent = groups, run, vectors
        call_own(builder, _define_tile(builder.module, *extent, vector, table, finishes, copies, left_out), args[6])
        return context.get_dummy_value()

    return types.void(extents, skips, by_table, finishing, copying, zero, types.intp), generate


@functools.lru_cache(maxsize=256)
def tile(
    groups: int,
    run: int,
    vectors: int,
    dtype: np.dtype[Any],
    by_table: bool,
    finishing: bool,
    skips: Skips = NOTHING,
    copying: bool = False,
) -> Native:
    """A register tile, to be called by `call_tile`."""
    extents = (0,) * groups, (0,) * run, (0,) * vectors
    left_out = tuple(((0,) * first, (0,) * last) for first, last in skips)
    flags, zero = ((0,) * by_table, (0,) * finishing, (0,) * copying), dtype.type(0)
    return Native(lambda operands: define_tile(extents, left_out, *flags, zero, operands))


@intrinsic
def call_tile(
    typing_context: Any,
    address: Any,
    scalars: Any,
    scalar_pitch: Any,
    scalar_step: Any,
    columns: Any,
    table: Any,
    steps: Any,
    planes: Any,
    plane_size: Any,
    pace: Any,
    gap: Any,
    sums: Any,
    sums_pitch: Any,
    fresh: Any,
    ahead: Any,
    ahead_gap: Any,
    several: Any,
    bias: Any,
    relu: Any,
    rows_left: Any,
    columns_left: Any,
) -> Any:
    """Call a tile. For all planes and steps in order, by pixels:

    sums[row, vector] += scalars[row * pitch + step] * columns[table[step] + vector],

    and by channels, where the table is the scalars':

    sums[row, vector] += scalars[table[step] + row's place] * columns[step * pace + vector].

    `ahead` is an address, `ahead_gap` counts bytes, `several` is a flag. Only a finishing tile has the bias and
    what follows it; a copying one has the columns ahead.
    """
    intp = types.intp
    integers = (intp,) * 5
    operands = (scalars, intp, intp, columns, table, *integers, sums, *integers, bias, *integers[:3])

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, args[1:]))
        return context.get_dummy_value()

    return types.void(intp, *operands), generate
