"""Copies by vectors: rows into a zero frame, and blocks transposed; and sums on their way to the output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .ir import (
    INT32,
    INT64,
    at,
    between,
    broadcast,
    data,
    intrinsic,
    itemsize,
    load,
    mask_type,
    masked_load,
    masked_store,
    prefetch_to_write,
    store,
    vector_type,
)


@intrinsic
def copy_rows(
    typing_context: Any,
    step: Any,
    target: Any,
    target_pitch: Any,
    columns: Any,
    source: Any,
    source_pitch: Any,
    rows: Any,
    low: Any,
    high: Any,
    planes: Any,
    target_plane: Any,
    source_plane: Any,
) -> Any:
    """target[row * target_pitch + j] = source[row * source_pitch + (j - low) * step] for low <= j < high, else 0.

    For all rows and columns of all planes, which begin target_plane and source_plane apart; `step` is the length of a
    tuple, known at compile time. Planes and rows are copied in ascending order and by whole
    vectors: up to a vector less one behind a row is overwritten.
    """
    intp = types.intp
    signature = types.void(step, target, intp, intp, source, intp, intp, intp, intp, intp, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, to, to_pitch, width, origin, from_pitch, count, first, end, depth, to_plane, from_plane = data(
            context, builder, signature.args, args
        )
        vector, stride = vector_type(target.dtype), len(step)
        size = vector.count
        # Elements of a source row, counted from the one that column `low` takes.
        beyond = builder.sub(builder.mul(builder.sub(end, first), INT64(stride)), INT64(stride - 1))

        def within(address: Any, begin: Any) -> Any:
            return masked_load(builder, vector, address, between(builder, vector, begin, INT64(0), beyond))

        def combined(begin: Any, read: Any, row: Any) -> Any:
            """The vector of every stride-th element from `begin` on."""
            starts = [builder.add(begin, INT64(part * size)) for part in range(stride)]
            parts = [read(at(builder, row, start), start) for start in starts]
            found = parts[0]
            for number, part in enumerate(parts[1:], 1):
                # Each part brings its lanes; what lies in the first has come to its place with the second.
                picks = []
                for lane in range(size):
                    home, place = divmod(lane * stride, size)
                    picks.append(size + place if home == number else place if number == 1 and home == 0 else lane)
                found = builder.shuffle_vector(found, part, ir.Constant(ir.VectorType(INT32, size), picks))
            return found

        with (
            cgutils.for_range(builder, depth, intp=INT64) as plane,
            cgutils.for_range(builder, count, intp=INT64) as loop,
        ):
            row = at(builder, origin, builder.mul(plane.index, from_plane), builder.mul(loop.index, from_pitch))
            start = at(builder, to, builder.mul(plane.index, to_plane), builder.mul(loop.index, to_pitch))
            with cgutils.for_range_slice(builder, INT64(0), width, INT64(size), INT64) as (column, _):
                place = at(builder, start, column)
                begin = builder.mul(builder.sub(column, first), INT64(stride))
                inside = builder.and_(
                    builder.icmp_signed(">=", begin, INT64(0)),
                    builder.icmp_signed("<=", builder.add(begin, INT64(stride * size)), beyond),
                )
                with builder.if_else(inside, likely=True) as (middle, side):
                    with middle:
                        store(builder, combined(begin, lambda address, _: load(builder, vector, address), row), place)
                    with side:
                        store(builder, combined(begin, within, row), place)
        return context.get_dummy_value()

    return signature, generate


def _transposed(builder: Any, values: list[Any]) -> list[Any]:
    """The transpose of a square of vectors, or of one in each part of them: at each distance, blocks off the diagonal
    change places.
    """
    size, lanes = len(values), values[0].type.count
    index = ir.VectorType(INT32, lanes)
    distance = size // 2
    while distance:
        low = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
        high = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
        following = list(values)
        for i in range(size):
            if not i & distance:
                pair = values[i], values[i + distance]
                following[i] = builder.shuffle_vector(*pair, ir.Constant(index, low))
                following[i + distance] = builder.shuffle_vector(*pair, ir.Constant(index, high))
        values = following
        distance //= 2
    return values


def transposed_lanes(
    builder: Any, vector: Any, target: Any, there: Any, starts: list[Any], lanes: Any, columns: Any
) -> None:
    """target[j * L + lane] = the element j of a row that begins at there(starts[lane]), for the first of the L `lanes`;
    the others are zero. By half squares, so that a short row wastes little of one.
    """
    size = vector.count
    half, width = ir.VectorType(vector.element, size // 2), INT64(itemsize(vector))
    none = ir.Constant(mask_type(half), [0] * half.count)
    joined = ir.Constant(ir.VectorType(INT32, size), list(range(size)))
    every = builder.icmp_signed(">=", lanes, INT64(size))
    with cgutils.for_range_slice(builder, INT64(0), columns, INT64(half.count), INT64) as (column, _):
        offset, place = builder.mul(column, width), at(builder, target, builder.mul(column, INT64(size)))
        mask = between(builder, half, column, INT64(0), columns)

        def move(starts: list[Any], masks: list[Any], offset: Any = offset, place: Any = place) -> None:
            addresses = [there(start, offset) for start in starts]
            rows = [masked_load(builder, half, *given) for given in zip(addresses, masks, strict=True)]
            pairs = zip(rows[: size // 2], rows[size // 2 :], strict=True)
            values = [builder.shuffle_vector(*pair, joined) for pair in pairs]
            for number, value in enumerate(_transposed(builder, values)):
                store(builder, value, at(builder, place, INT64(number * size)))

        with builder.if_else(every, likely=True) as (full, partial):
            with full:
                move(starts, [mask] * size)
            with partial:
                # Processors take hundreds of cycles to read nothing from where there is no memory.
                present = [builder.icmp_signed("<", INT64(lane), lanes) for lane in range(size)]
                valid = [builder.select(here, start, starts[0]) for here, start in zip(present, starts, strict=True)]
                move(valid, [builder.select(here, mask, none) for here in present])


def _transpose_square(builder: Any, vector: Any, operands: list[Any], finish: Any) -> None:
    """One square of at most `vector.count` rows and columns: whole rows are read, masked columns written."""
    source, source_pitch, target, target_pitch, rows, columns = operands
    size = vector.count
    mask = between(builder, vector, INT64(0), INT64(0), columns)
    loaded = []
    for row in range(size):
        some = builder.icmp_signed("<", INT64(row), rows)
        lanes_ = builder.select(some, mask, ir.Constant(mask.type, [0] * size))
        loaded.append(masked_load(builder, vector, at(builder, source, builder.mul(INT64(row), source_pitch)), lanes_))
    whole = builder.icmp_signed("==", rows, INT64(size))
    written = between(builder, vector, INT64(0), INT64(0), rows)
    for column, value in _while_left(builder, _transposed(builder, loaded), columns):
        place = at(builder, target, builder.mul(INT64(column), target_pitch))
        finished = finish(column, value)
        with builder.if_else(whole, likely=True) as (full, partial):
            with full:
                store(builder, finished, place)
            with partial:
                masked_store(builder, finished, place, written)


def _while_left(builder: Any, values: list[Any], left: Any) -> Iterator[tuple[int, Any]]:
    """Each of the values with its number, in code that runs for the first `left` of them alone."""
    end = builder.append_basic_block("end")
    for number, value in enumerate(values):
        following = builder.append_basic_block("following")
        builder.cbranch(builder.icmp_signed("<", INT64(number), left), following, end)
        builder.position_at_end(following)
        yield number, value
    builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def transpose_rows(
    typing_context: Any,
    target: Any,
    target_pitch: Any,
    target_plane: Any,
    columns: Any,
    source: Any,
    source_pitch: Any,
    pixel_pitch: Any,
    rows: Any,
    low: Any,
    high: Any,
    planes: Any,
) -> Any:
    """target[plane * target_plane + row * target_pitch + j] = source[row * source_pitch + (j - low) * pixel_pitch +
    plane] for low <= j < high, else 0: `copy_rows` from where a pixel's channels are neighbours, by squares.

    As there, up to a vector less one behind a row is overwritten.
    """
    intp = types.intp
    signature = types.void(target, intp, intp, intp, source, intp, intp, intp, intp, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, to_pitch, to_plane, width, origin, from_pitch, apart, count, first, end, depth = data(
            context, builder, signature.args, args
        )
        vector = vector_type(target.dtype)
        size = vector.count
        none = ir.Constant(mask_type(vector), [0] * size)
        with (
            cgutils.for_range(builder, count, intp=INT64) as loop,
            cgutils.for_range_slice(builder, INT64(0), width, INT64(size), INT64) as (column, _),
            cgutils.for_range_slice(builder, INT64(0), depth, INT64(size), INT64) as (plane, _),
        ):
            row = at(builder, origin, builder.mul(loop.index, from_pitch), plane)
            here = between(builder, vector, plane, INT64(0), depth)
            loaded = []
            for pixel in range(size):
                place = builder.add(column, INT64(pixel))
                inside = builder.and_(builder.icmp_signed(">=", place, first), builder.icmp_signed("<", place, end))
                address = at(builder, row, builder.mul(builder.sub(place, first), apart))
                loaded.append(masked_load(builder, vector, address, builder.select(inside, here, none)))
            start = at(builder, to, builder.mul(plane, to_plane), builder.mul(loop.index, to_pitch), column)
            left = builder.sub(depth, plane)
            for number, value in _while_left(builder, _transposed(builder, loaded), left):
                store(builder, value, at(builder, start, builder.mul(INT64(number), to_plane)))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transpose(
    typing_context: Any, source: Any, source_pitch: Any, target: Any, target_pitch: Any, rows: Any, columns: Any
) -> Any:
    """target[column * target_pitch + row] = source[row * source_pitch + column], at most one vector of each.

    Nothing else is written.
    """
    intp = types.intp
    signature = types.void(source, intp, target, intp, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = vector_type(target.dtype)
        _transpose_square(builder, vector, data(context, builder, signature.args, args), lambda column, value: value)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transpose_finish(
    typing_context: Any,
    each: Any,
    source: Any,
    source_pitch: Any,
    target: Any,
    target_pitch: Any,
    rows: Any,
    columns: Any,
    bias: Any,
    relu: Any,
    ahead: Any,
) -> Any:
    """`transpose` with a bias added and, where `relu` is not 0, what is below zero made zero.

    `each` is a tuple whose length is known at compile time: of one element for bias[column], of two for bias[row]. It
    asks for the lines `ahead`, so many elements further on, that will be written next.
    """
    intp = types.intp
    signature = types.void(each, source, intp, target, intp, intp, intp, bias, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = vector_type(target.dtype)
        _, *operands, biases, flag, further = data(context, builder, signature.args, args)
        floor = lowest(builder, flag, vector)
        later = at(builder, operands[2], further)
        shifts = None
        if len(each) == 2:
            shifts = masked_load(builder, vector, biases, between(builder, vector, INT64(0), INT64(0), operands[4]))

        def finish(column: int, value: Any) -> Any:
            prefetch_to_write(builder, at(builder, later, builder.mul(INT64(column), operands[3])))
            shift = shifts or broadcast(builder, builder.load(at(builder, biases, INT64(column))), vector)
            return rectified(builder, builder.fadd(value, shift), floor)

        _transpose_square(builder, vector, operands, finish)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_finish(typing_context: Any, source: Any, target: Any, count: Any, bias: Any, relu: Any, ahead: Any) -> Any:
    """target[:count] = source[:count] + bias and, where `relu` is not 0, zero for what is below zero.

    It asks for the lines `ahead`, so many elements further on, that will be written next.
    """
    signature = types.void(source, target, types.intp, target.dtype, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        origin, to, end, shift, flag, further = data(context, builder, signature.args, args)
        vector = vector_type(target.dtype)
        size = vector.count
        shifts, floor = broadcast(builder, shift, vector), lowest(builder, flag, vector)
        whole = builder.sub(end, builder.srem(end, INT64(size)))
        later = at(builder, to, further)
        with cgutils.for_range_slice(builder, INT64(0), whole, INT64(size), INT64) as (index, _):
            prefetch_to_write(builder, at(builder, later, index))
            value = builder.fadd(load(builder, vector, at(builder, origin, index)), shifts)
            store(builder, rectified(builder, value, floor), at(builder, to, index))
        mask = between(builder, vector, whole, INT64(0), end)
        value = builder.fadd(masked_load(builder, vector, at(builder, origin, whole), mask), shifts)
        masked_store(builder, rectified(builder, value, floor), at(builder, to, whole), mask)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_finish_rows(
    typing_context: Any,
    source: Any,
    source_pitch: Any,
    target: Any,
    target_pitch: Any,
    rows: Any,
    columns: Any,
    bias: Any,
    relu: Any,
) -> Any:
    """target[row * target_pitch + j] = source[row * source_pitch + j] + bias[j], rectified as by `copy_finish`."""
    intp = types.intp
    signature = types.void(source, intp, target, intp, intp, intp, bias, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        origin, from_pitch, to, to_pitch, count, width, biases, flag = data(context, builder, signature.args, args)
        vector = vector_type(target.dtype)
        floor = lowest(builder, flag, vector)
        with cgutils.for_range_slice(builder, INT64(0), width, INT64(vector.count), INT64) as (column, _):
            mask = between(builder, vector, column, INT64(0), width)
            shifts = masked_load(builder, vector, at(builder, biases, column), mask)
            with cgutils.for_range(builder, count, intp=INT64) as loop:
                place = at(builder, origin, builder.mul(loop.index, from_pitch), column)
                value = builder.fadd(masked_load(builder, vector, place, mask), shifts)
                to_place = at(builder, to, builder.mul(loop.index, to_pitch), column)
                masked_store(builder, rectified(builder, value, floor), to_place, mask)
        return context.get_dummy_value()

    return signature, generate


def lowest(builder: Any, relu: Any, vector: Any) -> Any:
    """What `rectified` clips at: zero where the flag `relu` is not 0, else nothing."""
    clipping = builder.icmp_signed("!=", relu, INT64(0))
    least = builder.select(clipping, ir.Constant(vector.element, 0.0), ir.Constant(vector.element, float("-inf")))
    return broadcast(builder, least, vector)


def rectified(builder: Any, value: Any, floor: Any) -> Any:
    """The larger of the two. NaN stays, and so does -0 at a floor of 0."""
    return builder.select(builder.fcmp_ordered(">", floor, value), floor, value)
