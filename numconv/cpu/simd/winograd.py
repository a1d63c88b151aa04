"""Winograd's transforms on vectors: a lane is a tile of outputs, a vector some neighbouring tiles."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ...jit import Native
from ..toom_cook import Matrix, transforms
from .ir import (
    INT32,
    INT64,
    at,
    call_address,
    call_own,
    data,
    fused,
    intrinsic,
    load,
    own_function,
    store,
    unpacked,
    vector_type,
)


def _combined(builder: Any, terms: list[tuple[Fraction, Any]]) -> Any:
    """The sum of coefficient * vector, by fused multiply-adds."""
    # A term of coefficient 1, if there is one, starts the sum for nothing.
    ordered = sorted(terms, key=lambda term: term[0] != 1)
    (first, total), *rest = ordered
    kind = total.type
    if first != 1:
        total = builder.fmul(ir.Constant(kind, [float(first)] * kind.count), total)
    for coefficient, value in rest:
        if abs(coefficient) == 1:
            total = builder.fadd(total, value) if coefficient > 0 else builder.fsub(total, value)
        else:
            factor = ir.Constant(kind, [float(coefficient)] * kind.count)
            total = builder.call(fused(builder, kind), [factor, value, total])
    return total


def _opposite(a: tuple[Fraction, ...], b: tuple[Fraction, ...]) -> bool:
    """Whether the odd elements differ in sign, and nothing else: what opposite points make of rows or columns."""
    return all(x == (-y if k % 2 else y) for k, (x, y) in enumerate(zip(a, b, strict=True)))


def _applied(builder: Any, matrix: Matrix, values: list[Any]) -> list[Any]:
    """The matrix times the vectors. Opposite columns share their sum and difference, opposite rows their parts."""
    columns = list(zip(*matrix, strict=True))
    pairs = [k for k in range(len(columns) - 1) if _opposite(columns[k], columns[k + 1])]
    return _by_rows(builder, matrix, values) if not pairs else _by_columns(builder, matrix, values, pairs)


def _by_columns(builder: Any, matrix: Matrix, values: list[Any], pairs: list[int]) -> list[Any]:
    """Even rows meet the sum of a pair's vectors, odd ones the difference."""
    shared = list(values)
    for k in pairs:
        pair = values[k], values[k + 1]
        shared[k : k + 2] = builder.fadd(*pair), builder.fsub(*pair)
    return [
        _combined(
            builder,
            [
                (factor, shared[k + r % 2 if k in pairs else k])
                for k, factor in enumerate(row)
                if factor and k - 1 not in pairs
            ],
        )
        for r, row in enumerate(matrix)
    ]


def _by_rows(builder: Any, matrix: Matrix, values: list[Any]) -> list[Any]:
    """A pair of rows is the sum and the difference of its even and its odd columns' part."""

    def part(row: tuple[Fraction, ...], first: int, step: int) -> Any:
        return _combined(builder, [(row[k], values[k]) for k in range(first, len(row), step) if row[k]])

    results: list[Any] = []
    while len(results) < len(matrix):
        here, following = matrix[len(results)], matrix[min(len(results) + 1, len(matrix) - 1)]
        if following is not here and _opposite(here, following):
            even, odd = part(here, 0, 2), part(here, 1, 2)
            results += [builder.fadd(even, odd), builder.fsub(even, odd)]
        else:
            results.append(part(here, 0, 1))
    return results


def _shuffled(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(lanes)), lanes))


def _parted(builder: Any, vectors: list[Any], wanted: int) -> list[Any]:
    """Every len(vectors)-th element of the vectors in a row, from the first on, from the second on, ...: so many."""
    if len(vectors) == 1:
        return vectors
    size = vectors[0].type.count
    evens, odds = (
        [_shuffled(builder, a, b, list(range(parity, 2 * size, 2))) for a, b in zip(*[iter(vectors)] * 2, strict=True)]
        for parity in (0, 1)
    )
    half = [_parted(builder, part, -(-(wanted - parity) // 2)) for parity, part in enumerate((evens, odds))]
    return [half[k % 2][k // 2] for k in range(wanted)]


def _joined(builder: Any, vectors: list[Any]) -> list[Any]:
    """The reverse of `_parted`."""
    if len(vectors) == 1:
        return vectors
    size = vectors[0].type.count
    evens, odds = _joined(builder, vectors[::2]), _joined(builder, vectors[1::2])
    masks = [[start + lane // 2 + size * (lane % 2) for lane in range(size)] for start in (0, size // 2)]
    return [_shuffled(builder, a, b, mask) for a, b in zip(evens, odds, strict=True) for mask in masks]


def _define_input(module: Any, outputs: int, vector: Any) -> Any:
    """The transform of inputs.

    void transform(T *source, i64 source_plane, i64 pitch, i64 *offsets, T *buffer, T *target, i64 target_plane,
                   i64 step, i64 half, i64 planes):
    for each plane, a vector of tiles. Their inputs come from `outputs` places of each row, one vector long: tiles lie
    behind one another in them. They and those `outputs` columns further on begin at `offsets`. Element f of the
    transformed tiles goes to target + f * step, the second half of a vector `half` behind the first. The buffer holds
    what is transformed along one axis.
    """
    name = f"numconv_winograd_input_{outputs}_v{vector.count}x{vector.element}"
    pointer, matrix = vector.element.as_pointer(), transforms(outputs).data
    operands = [pointer, INT64, INT64, INT64.as_pointer(), pointer, pointer, INT64, INT64, INT64, INT64]
    function, builder, given = own_function(module, name, operands)
    source, source_plane, pitch, offsets, buffer, target, target_plane, step, half, planes = given
    size, extent = vector.count, len(matrix)
    with cgutils.for_range(builder, planes, intp=INT64) as plane:
        origin = at(builder, source, builder.mul(plane.index, source_plane))
        place = at(builder, target, builder.mul(plane.index, target_plane))
        with cgutils.for_range(builder, INT64(2 * outputs), intp=INT64) as part:
            column = at(builder, origin, builder.load(at(builder, offsets, part.index)))
            values = [load(builder, vector, at(builder, column, builder.mul(INT64(k), pitch))) for k in range(extent)]
            for k, value in enumerate(_applied(builder, matrix, values)):
                row = builder.add(INT64(k * 2 * outputs), part.index)
                store(builder, value, at(builder, buffer, builder.mul(row, INT64(size))))
        with cgutils.for_range(builder, INT64(extent), intp=INT64) as row:
            start = at(builder, buffer, builder.mul(row.index, INT64(2 * outputs * size)))
            values = [load(builder, vector, at(builder, start, INT64(k * size))) for k in range(2 * outputs)]
            tiles = _parted(builder, values[:outputs], outputs) + _parted(builder, values[outputs:], extent - outputs)
            first = at(builder, place, builder.mul(row.index, builder.mul(step, INT64(extent))))
            for k, value in enumerate(_applied(builder, matrix, tiles)):
                line = at(builder, first, builder.mul(INT64(k), step))
                low, high = (_shuffled(builder, value, value, list(range(s, s + size // 2))) for s in (0, size // 2))
                store(builder, low, line)
                store(builder, high, at(builder, line, half))
    builder.ret_void()
    return function


def _define_output(module: Any, outputs: int, vector: Any) -> Any:
    """The transform of results.

    void transform(T *sums, i64 step, T *checks, T *target, i64 pitch, i64 vectors):
    for so many vectors of tiles, whose element f lies at sums + f * step: row k of their outputs, tile behind tile,
    goes to target + k * pitch. A check becomes NaN where an output of its tile is not finite.
    """
    name = f"numconv_winograd_output_{outputs}_v{vector.count}x{vector.element}"
    pointer, matrix = vector.element.as_pointer(), transforms(outputs).result
    function, builder, given = own_function(module, name, [pointer, INT64, pointer, pointer, INT64, INT64])
    sums, step, checks, target, pitch, vectors = given
    size, extent = vector.count, len(matrix[0])
    zero = ir.Constant(vector, [0.0] * size)
    with cgutils.for_range(builder, vectors, intp=INT64) as part:
        tile = builder.mul(part.index, INT64(size))
        origin, place = at(builder, sums, tile), at(builder, target, builder.mul(tile, INT64(outputs)))
        columns = []
        for column in range(extent):
            rows = [INT64(row * extent + column) for row in range(extent)]
            values = [load(builder, vector, at(builder, origin, builder.mul(row, step))) for row in rows]
            columns.append(_applied(builder, matrix, values))
        check = load(builder, vector, at(builder, checks, tile))
        for row in range(outputs):
            results = _applied(builder, matrix, [column[row] for column in columns])
            for value in results:
                check = builder.call(fused(builder, vector), [value, zero, check])
            line = at(builder, place, builder.mul(INT64(row), pitch))
            for k, value in enumerate(_joined(builder, results)):
                store(builder, value, at(builder, line, INT64(k * size)))
        store(builder, check, at(builder, checks, tile))
    builder.ret_void()
    return function


@intrinsic
def define_transform(typing_context: Any, outputs: Any, of_input: Any, zero: Any, operands: Any) -> Any:
    """Run a transform of F(outputs, 3), the length of a tuple, in the dtype of `zero`: the input's, or, where the tuple
    `of_input` is empty, the output's. The operands lie at an address.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        define = _define_input if len(of_input) else _define_output
        function = define(builder.module, len(outputs), vector_type(zero))
        call_own(builder, function, args[3])
        return context.get_dummy_value()

    return types.void(outputs, of_input, zero, types.intp), generate


@functools.lru_cache(maxsize=16)
def input_transform(outputs: int, dtype: np.dtype[Any]) -> Native:
    """The transform of inputs, to be called by `call_transform`."""
    length, one, zero = (0,) * outputs, (0,), dtype.type(0)
    return Native(lambda operands: define_transform(length, one, zero, operands))


@functools.lru_cache(maxsize=16)
def output_transform(outputs: int, dtype: np.dtype[Any]) -> Native:
    """The transform of results, to be called by `call_transform`."""
    length, none, zero = (0,) * outputs, (), dtype.type(0)
    return Native(lambda operands: define_transform(length, none, zero, operands))


@intrinsic
def call_transform(typing_context: Any, address: Any, operands: Any) -> Any:
    """Call a transform by its address, with a tuple of its operands."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, unpacked(builder, args[1])))
        return context.get_dummy_value()

    return types.void(types.intp, operands), generate
