"""The instructions that Python has no name for, as numba intrinsics: the only file that emits LLVM IR.

An intrinsic must be a module global where a kernel uses it: from a closure, numba's disk cache never hits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba.core import cgutils, types

from ..machine import machine

intrinsic: Callable[..., Any] = numba.extending.intrinsic
INT64 = ir.IntType(64)


def lanes(dtype: Any) -> int:
    """Elements of a vector of the widest kind that this process compiles for."""
    return machine(1).vector_bytes // int(dtype.bitwidth // 8)


@intrinsic
def vector_lanes(typing_context: Any, array: Any) -> Any:
    """The elements of a vector of an array's dtype, a constant."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return INT64(lanes(array.dtype))

    return types.intp(array), generate


def _vector_type(dtype: Any) -> Any:
    return ir.VectorType(ir.FloatType() if dtype == types.float32 else ir.DoubleType(), lanes(dtype))


def _fused(builder: Any, vector: Any) -> Any:
    """The fused multiply-add of a vector type, declared by name: llvmlite's declare_intrinsic takes no vectors."""
    suffix = f"v{vector.count}f{32 if vector.element == ir.FloatType() else 64}"
    name = f"llvm.fma.{suffix}"
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(vector, [vector] * 3), name)


def _broadcast(builder: Any, scalar: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


@intrinsic
def vectors_fit(typing_context: Any, target: Any, source: Any) -> Any:
    """Whether `copy_vectors` can serve two arrays, a constant: contiguous, of one floating-point dtype."""
    fit = (
        target.dtype == source.dtype and isinstance(target.dtype, types.Float) and target.layout == source.layout == "C"
    )
    return types.boolean(target, source), lambda context, builder, signature, args: ir.Constant(ir.IntType(1), int(fit))


@intrinsic
def copy_vectors(typing_context: Any, target: Any, source: Any, count: Any) -> Any:
    """target[:count] = source[:count] for count >= one vector, by whole vectors, the last of which overlaps."""
    signature = types.void(target, source, types.intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = _vector_type(target.dtype)
        align = target.dtype.bitwidth // 8
        to, origin = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip((target, source), args[:2], strict=True)
        )

        def move(index: Any) -> None:
            at = (builder.bitcast(builder.gep(base, [index]), vector.as_pointer()) for base in (origin, to))
            builder.store(builder.load(next(at), align=align), next(at), align=align)

        last = builder.sub(args[2], INT64(vector.count))
        with cgutils.for_range_slice(builder, INT64(0), last, INT64(vector.count), INT64) as (index, _):
            move(index)
        move(last)
        return context.get_dummy_value()

    return signature, generate


def _define_tile(module: Any, groups: int, run: int, width: int, vector: Any, align: int, by_table: bool) -> Any:
    """The register tile as a function of its own, so that it has all registers to itself.

    void tile(T *scalars, i64 scalar_pitch, T *columns, i64 *table, i64 steps, T *sums, i64 sums_pitch), steps >= 1:
    the sums, `width` vectors in each of groups * run rows, are loaded, go through every step in registers, and are
    stored. A step broadcasts a scalar for each row and loads `width` vectors; one of the two is found by the table.
    The scalars of a run are neighbours, those of groups lie a pitch apart.
    """
    height = groups * run
    name = f"numconv_tile_{groups}x{run}x{width}_{'table' if by_table else 'step'}_v{vector.count}x{align}"
    if name in module.globals:
        return module.globals[name]
    pointer, size = vector.element.as_pointer(), vector.count
    kind = ir.FunctionType(ir.VoidType(), [pointer, INT64, pointer, INT64.as_pointer(), INT64, pointer, INT64])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    scalars, scalar_pitch, columns, table, steps, sums, sums_pitch = function.args
    entry, body, end = (function.append_basic_block(block) for block in ("entry", "step", "end"))
    builder = ir.IRBuilder(entry)
    fused = _fused(builder, vector)

    def at(base: Any, *offsets: Any) -> Any:
        return functools.reduce(lambda address, offset: builder.gep(address, [offset]), offsets, base)

    def as_vector(address: Any) -> Any:
        return builder.bitcast(address, vector.as_pointer())

    places = [
        at(sums, builder.mul(INT64(row), sums_pitch), INT64(column * size))
        for row in range(height)
        for column in range(width)
    ]
    start = [builder.load(as_vector(place), align=align) for place in places]
    # One moving pointer and a few multiples of the pitch: a pointer for each row would spill.
    group_offsets = [builder.mul(INT64(group), scalar_pitch) for group in range(groups)]
    builder.branch(body)
    builder.position_at_end(body)
    step, cursor = builder.phi(INT64), builder.phi(pointer)
    totals = [builder.phi(vector) for _ in places]
    found = builder.load(at(table, step))
    scalars_at = at(scalars, found) if by_table else cursor
    columns_at = cursor if by_table else at(columns, found)
    right = [builder.load(as_vector(at(columns_at, INT64(column * size))), align=align) for column in range(width)]
    results = []
    for row in range(height):
        left = _broadcast(builder, builder.load(at(scalars_at, group_offsets[row // run], INT64(row % run))), vector)
        results += [
            builder.call(fused, [left, value, totals[row * width + column]]) for column, value in enumerate(right)
        ]
    following = builder.add(step, INT64(1))
    loop = [
        (step, INT64(0), following),
        (cursor, columns if by_table else scalars, at(cursor, INT64(width * size if by_table else 1))),
        *zip(totals, start, results, strict=True),
    ]
    for phi, first, value in loop:
        phi.add_incoming(first, entry)
        phi.add_incoming(value, body)
    builder.cbranch(builder.icmp_signed("<", following, steps), body, end)
    builder.position_at_end(end)
    for place, value in zip(places, results, strict=True):
        builder.store(value, as_vector(place), align=align)
    builder.ret_void()
    return function


def _tile(by_table: bool) -> Any:
    """The intrinsic that defines and calls a register tile; its extents are the lengths of three tuples."""

    def tile(
        typing_context: Any,
        groups: Any,
        run: Any,
        vectors: Any,
        scalars: Any,
        scalar_pitch: Any,
        columns: Any,
        table: Any,
        steps: Any,
        sums: Any,
        sums_pitch: Any,
    ) -> Any:
        intp, dtype = types.intp, scalars.dtype
        signature = types.void(groups, run, vectors, scalars, intp, columns, table, intp, sums, intp)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = _vector_type(dtype)
            extents = len(groups), len(run), len(vectors)
            function = _define_tile(builder.module, *extents, vector, dtype.bitwidth // 8, by_table)
            values = [
                context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args[3:], args[3:], strict=True)
            ]
            builder.call(function, values)
            return context.get_dummy_value()

        return signature, generate

    return intrinsic(tile)


# For all steps in order: sums[row, vector] += scalars[row * pitch + step] * columns[table[step] + vector].
tile_pixels = _tile(by_table=False)
# For all steps in order: sums[row, vector] += scalars[table[step] + row's place] * columns[step, vector].
tile_channels = _tile(by_table=True)


@intrinsic
def multiply_add(typing_context: Any, x: Any, weight: Any, total: Any) -> Any:
    """``total + x * weight`` with one rounding: the step of the one order of summation.

    All three have the accumulator's type. Real: the hardware's fused multiply-add, or the C library's where there
    is none. Complex: re = fma(xr, wr, re); re = fma(-xi, wi, re); im = fma(xr, wi, im); im = fma(xi, wr, im).
    Integers: modulo 2**64.
    """
    signature = total(total, total, total)

    def integer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.add(builder.mul(args[0], args[1]), args[2])

    def real(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    def complex_(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        xr, xi, wr, wi, re, im = (builder.extract_value(value, part) for value in args for part in (0, 1))
        re = builder.fma(builder.fneg(xi), wi, builder.fma(xr, wr, re))
        im = builder.fma(xi, wr, builder.fma(xr, wi, im))
        return builder.insert_value(builder.insert_value(args[2], re, 0), im, 1)

    if isinstance(total, types.Complex):
        return signature, complex_
    return signature, real if isinstance(total, types.Float) else integer


@intrinsic
def call_loop(typing_context: Any, function: Any, operands: Any, dimensions: Any, steps: Any) -> Any:
    """Call a NumPy ufunc's compiled loop by its address: ``void f(char **, intp *, intp *, void *)``."""
    signature = types.void(types.intp, types.intp, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INT64] * 4)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*args[1:], INT64(0)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def call_get(typing_context: Any, function: Any) -> Any:
    """Call ``int f(void)`` by its address."""
    signature = types.int32(types.intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])

    return signature, generate


@intrinsic
def call_set(typing_context: Any, function: Any, value: Any) -> Any:
    """Call ``void f(int)`` by its address."""
    signature = types.void(types.intp, types.int32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def exchange(typing_context: Any, address: Any, value: Any) -> Any:
    """Store an int64 at an address and return what stood there, atomically (sequentially consistent)."""
    signature = types.int64(types.intp, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", builder.inttoptr(args[0], INT64.as_pointer()), args[1], "seq_cst")

    return signature, generate


@intrinsic
def spin(typing_context: Any, rounds: Any, lanes: Any) -> Any:
    """`rounds` times 12 independent fused multiply-adds on vectors of float32, from registers alone: the FMA peak.

    `lanes` is a tuple whose length is the number of lanes. Returns the sum of all lanes, so that nothing is dropped.
    """
    signature = types.float32(rounds, lanes)
    count, chains = len(lanes), 12

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), count)
        module = builder.module
        name = f"llvm.fma.v{count}f32"
        fma = module.globals.get(name) or ir.Function(module, ir.FunctionType(vector, [vector] * 3), name)
        factor, addend = (ir.Constant(vector, [value] * count) for value in (0.999, 0.001))
        before = builder.basic_block
        body = builder.append_basic_block("spin")
        after = builder.append_basic_block("spun")
        builder.branch(body)
        builder.position_at_end(body)
        index = builder.phi(INT64)
        sums = [builder.phi(vector) for _ in range(chains)]
        index.add_incoming(INT64(0), before)
        stepped = [builder.call(fma, [total, factor, addend]) for total in sums]
        for chain, (total, value) in enumerate(zip(sums, stepped, strict=True)):
            total.add_incoming(ir.Constant(vector, [float(chain)] * count), before)
            total.add_incoming(value, body)
        following = builder.add(index, INT64(1))
        index.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, args[0]), body, after)
        builder.position_at_end(after)
        total = stepped[0]
        for value in stepped[1:]:
            total = builder.fadd(total, value)
        lanes_ = [builder.extract_element(total, ir.Constant(ir.IntType(32), lane)) for lane in range(count)]
        result = lanes_[0]
        for value in lanes_[1:]:
            result = builder.fadd(result, value)
        return result

    return signature, generate
