"""Strided stores by vectors: rows interleaved into one row, and a row to every other element of another."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .ir import (
    BIT,
    INT32,
    INT64,
    at,
    between,
    data,
    intrinsic,
    load,
    mask_type,
    masked_store,
    prefetch_to_write,
    store,
    vector_type,
)


@intrinsic
def interleave_rows(
    typing_context: Any,
    phases: Any,
    target: Any,
    target_pitch: Any,
    columns: Any,
    source: Any,
    table: Any,
    first: Any,
    rows: Any,
) -> Any:
    """target[row * target_pitch + j] = source[start + (first + row) * width + j // P] for j < columns, with the start
    and width that begin row j % P of `table` (P, ...). `phases` is a tuple of P elements, a vector's at most.

    Up to a vector behind the source is read.
    """
    intp = types.intp
    signature = types.void(phases, target, intp, intp, source, table, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, to, to_pitch, end, origin, facts, number, count = data(context, builder, signature.args, args)
        fields = builder.extract_value(context.make_array(table)(context, builder, args[5]).shape, 1)
        vector, period = vector_type(target.dtype), len(phases)
        size = vector.count
        sources = []
        for phase in range(period):
            fact = at(builder, facts, builder.mul(INT64(phase), fields))
            width = builder.load(at(builder, fact, INT64(1)))
            sources.append((at(builder, origin, builder.load(fact), builder.mul(number, width)), width))

        def woven(row: Any, index: Any) -> Any:
            """The vector of the columns from that index of each phase on."""
            lines = [
                load(builder, vector, at(builder, start, builder.mul(row, width), index)) for start, width in sources
            ]
            joined = lines[0]
            for phase, line in enumerate(lines[1:], 1):
                # Lane l takes element l // P of phase l % P: the first shuffle puts those of phase 0 in their places.
                kept = [lane // period if phase == 1 else lane for lane in range(size)]
                lanes_ = [size + lane // period if lane % period == phase else kept[lane] for lane in range(size)]
                joined = builder.shuffle_vector(joined, line, ir.Constant(ir.VectorType(INT32, size), lanes_))
            return joined

        step = max(1, size // period)
        with (
            cgutils.for_range(builder, count, intp=INT64) as loop,
            cgutils.for_range_slice(builder, INT64(0), end, INT64(step * period), INT64) as (column, turn),
        ):
            value = woven(loop.index, builder.mul(turn, INT64(step)))
            place = at(builder, to, builder.mul(loop.index, to_pitch), column)
            whole = builder.icmp_signed("<=", builder.add(column, INT64(size)), end)
            with builder.if_else(whole, likely=True) as (middle, side):
                with middle:
                    store(builder, value, place)
                with side:
                    masked_store(builder, value, place, between(builder, vector, column, INT64(0), end))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def spread_rows(
    typing_context: Any,
    target: Any,
    target_pitch: Any,
    step: Any,
    source: Any,
    source_pitch: Any,
    rows: Any,
    columns: Any,
    ahead: Any,
) -> Any:
    """target[row * target_pitch + j * step] = source[row * source_pitch + j] for j < columns; nothing else is written.

    Up to a vector behind a source row is read. A step other than two goes element by element. It asks for the lines
    `ahead`, so many elements further on, that will be written next.
    """
    intp = types.intp
    signature = types.void(target, intp, intp, source, intp, intp, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, to_pitch, apart, origin, from_pitch, count, end, further = data(context, builder, signature.args, args)
        vector = vector_type(target.dtype)
        size = vector.count
        doubled = ir.Constant(ir.VectorType(INT32, size), [lane // 2 for lane in range(size)])
        evens, odds = (
            ir.Constant(mask_type(vector), [BIT(lane % 2 == parity) for lane in range(size)]) for parity in (0, 1)
        )
        half = INT64(size // 2)
        with cgutils.for_range(builder, count, intp=INT64) as loop:
            line = at(builder, origin, builder.mul(loop.index, from_pitch))
            start = at(builder, to, builder.mul(loop.index, to_pitch))
            with builder.if_else(builder.icmp_signed("==", apart, INT64(2))) as (pairs, single):
                with pairs, cgutils.for_range_slice(builder, INT64(0), end, half, INT64) as (column, _):
                    # The last vector ends with the row. Lanes that are masked off, too, take the lines that they lie
                    # in from the thread that writes there.
                    ends = builder.icmp_signed(">=", builder.add(column, half), end)
                    ends = builder.and_(ends, builder.icmp_signed(">", end, half))
                    begin = builder.select(ends, builder.sub(end, half), column)
                    value = load(builder, vector, at(builder, line, begin))
                    first, last = builder.mul(begin, INT64(2)), builder.mul(end, INT64(2))
                    mask = builder.and_(between(builder, vector, first, INT64(0), last), evens)
                    mask = builder.select(ends, odds, mask)
                    place = at(builder, start, builder.sub(first, builder.zext(ends, INT64)))
                    prefetch_to_write(builder, at(builder, place, further))
                    masked_store(builder, builder.shuffle_vector(value, value, doubled), place, mask)
                with single, cgutils.for_range(builder, end, intp=INT64) as element:
                    value = builder.load(at(builder, line, element.index))
                    builder.store(value, at(builder, start, builder.mul(element.index, apart)))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def clear_vectors(typing_context: Any, target: Any, step: Any, count: Any) -> Any:
    """target[i * step + lane] = 0 for i < count and all lanes of a vector."""
    signature = types.void(target, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, apart, vectors = data(context, builder, signature.args, args)
        vector = vector_type(target.dtype)
        with cgutils.for_range(builder, vectors, intp=INT64) as loop:
            none = ir.Constant(vector, [0.0] * vector.count)
            store(builder, none, at(builder, to, builder.mul(loop.index, apart)))
        return context.get_dummy_value()

    return signature, generate
