"""What the intrinsics of this folder share: vector types and the few LLVM operations that llvmlite does not spell."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba.core import types

from ...jit import TypeTest
from ...machine import machine

intrinsic: Callable[..., Any] = numba.extending.intrinsic
INT64 = ir.IntType(64)
INT32 = ir.IntType(32)
BIT = ir.IntType(1)
# Vectors of 64 bytes come with 32 registers and with masks of their own; others with 16, whose masks take data's place.
WIDE = machine(1).vector_bytes == 64


def lanes(dtype: Any) -> int:
    """Elements of a vector of the widest kind that this process compiles for."""
    return machine(1).vector_bytes // int(dtype.bitwidth // 8)


@intrinsic
def vector_lanes(typing_context: Any, array: Any) -> Any:
    """The elements of a vector of an array's dtype, a constant."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return INT64(lanes(array.dtype))

    return types.intp(array), generate


@TypeTest
def floats_alike(target: Any, source: Any) -> bool:
    """Whether two arrays are of one floating-point dtype."""
    return bool(target.dtype == source.dtype) and isinstance(target.dtype, types.Float)


@TypeTest
def vectors_fit(target: Any, source: Any) -> bool:
    """Whether vectors can go from one array to the other: contiguous, of one floating-point dtype."""
    return bool(floats_alike.test(target, source) and target.layout == source.layout == "C")


@TypeTest
def contiguous(array: Any) -> bool:
    """Whether an array is contiguous for certain."""
    return bool(array.layout == "C")


@TypeTest
def is_complex(array: Any) -> bool:
    """Whether an array's numbers are complex."""
    return isinstance(array.dtype, types.Complex)


@intrinsic
def address_of(typing_context: Any, array: Any) -> Any:
    """Where an array begins."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (place,) = data(context, builder, signature.args, args)
        return builder.ptrtoint(place, INT64)

    return types.intp(array), generate


def vector_type(dtype: Any) -> Any:
    """A vector of numba's float32 or float64."""
    return ir.VectorType(ir.FloatType() if dtype == types.float32 else ir.DoubleType(), lanes(dtype))


def itemsize(vector: Any) -> int:
    """Bytes of an element: the alignment that vectors in memory have."""
    return 4 if vector.element == ir.FloatType() else 8


def data(context: Any, builder: Any, kinds: Any, values: Any) -> list[Any]:
    """The arguments of an intrinsic, arrays as pointers to their first elements."""
    return [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(kinds, values, strict=True)
    ]


def own_function(module: Any, name: str, kinds: list[Any]) -> tuple[Any, Any, list[Any]]:
    """A new function ``void f(i64 *operands)``, a builder at its start, and its operands, of those types.

    It is kept a function of its own, so that it has all registers to itself. Operands lie in memory: on the stack, as
    arguments beyond the sixth, compilers copied them by vectors, which waited for the stores before.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64.as_pointer()]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    operands = []
    for number, kind in enumerate(kinds):
        slot = at(builder, function.args[0], INT64(number))
        operands.append(builder.load(builder.bitcast(slot, kind.as_pointer())))
    return function, builder, operands


def unpacked(builder: Any, values: Any) -> list[Any]:
    """The elements of a tuple."""
    return [builder.extract_value(values, i) for i in range(len(values.type))]


def call_address(builder: Any, address: Any, values: Any) -> None:
    """Call a `Native` function by its address, with operands for `own_function`."""
    with builder.goto_entry_block():
        block = builder.alloca(INT64, len(values))
    for number, value in enumerate(values):
        slot = at(builder, block, INT64(number))
        builder.store(value, builder.bitcast(slot, value.type.as_pointer()))
    kind = ir.FunctionType(ir.VoidType(), [INT64])
    builder.call(builder.inttoptr(address, kind.as_pointer()), [builder.ptrtoint(block, INT64)])


def call_own(builder: Any, function: Any, operands: Any) -> None:
    """Call an `own_function` with the address of its operands."""
    builder.call(function, [builder.inttoptr(operands, INT64.as_pointer())])


def at(builder: Any, base: Any, *offsets: Any) -> Any:
    """The address so many elements on."""
    return functools.reduce(lambda address, offset: builder.gep(address, [offset]), offsets, base)


def _named(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """An LLVM intrinsic, declared by name: llvmlite's declare_intrinsic takes no vectors."""
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _suffix(vector: Any) -> str:
    return f"v{vector.count}f{8 * itemsize(vector)}"


def fused(builder: Any, vector: Any) -> Any:
    """The fused multiply-add of a vector type."""
    return _named(builder, f"llvm.fma.{_suffix(vector)}", vector, [vector] * 3)


def lesser(builder: Any, one: Any, other: Any) -> Any:
    """The lesser of two whole numbers."""
    return builder.select(builder.icmp_signed("<", one, other), one, other)


def broadcast(builder: Any, scalar: Any, vector: Any) -> Any:
    """A vector of one value."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, INT32(0))
    mask = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def load(builder: Any, vector: Any, address: Any) -> Any:
    """A vector at any address that its elements may have."""
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=itemsize(vector))


def store(builder: Any, value: Any, address: Any) -> None:
    """The reverse of `load`."""
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=itemsize(value.type))


def unknown(builder: Any, value: Any) -> Any:
    """The same value, which the compiler cannot tell: what hangs on it is made again, not kept or spilled."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.asm(kind, "", "=r,0", [value], side_effect=True)


def after(builder: Any, value: Any, made: Any) -> tuple[Any, Any]:
    """The same value and vector, which the compiler cannot tell: what hangs on the value comes after what makes the
    vector. Processors see nothing of it. The vector lies in a register of x86.
    """
    both = ir.LiteralStructType([value.type, made.type])
    kind = ir.FunctionType(both, [value.type, made.type])
    pair = builder.asm(kind, "", "=r,=v,0,1", [value, made], side_effect=True)
    return builder.extract_value(pair, 0), builder.extract_value(pair, 1)


def prefetch(builder: Any, address: Any) -> None:
    """Ask for a cache line that will be read, into the second-level cache."""
    _ask(builder, address, INT32(0), INT32(2))


def prefetch_to_write(builder: Any, address: Any) -> None:
    """Ask for a cache line that will be written."""
    _ask(builder, address, INT32(1), INT32(3))


@intrinsic
def ask_to_write(typing_context: Any, array: Any, element: Any) -> Any:
    """Ask for the cache line of a contiguous array's element of that number, which will be written."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, number = data(context, builder, signature.args, args)
        prefetch_to_write(builder, at(builder, place, number))
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _ask(builder: Any, address: Any, to_write: Any, near: Any) -> None:
    pointer = ir.IntType(8).as_pointer()
    function = _named(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, INT32, INT32, INT32])
    builder.call(function, [builder.bitcast(address, pointer), to_write, near, INT32(1)])


def mask_type(vector: Any) -> Any:
    return ir.VectorType(BIT, vector.count)


def masked_load(builder: Any, vector: Any, address: Any, mask: Any) -> Any:
    """A vector of which only the lanes of the mask are read; the others are zero."""
    name = f"llvm.masked.load.{_suffix(vector)}.p0"
    function = _named(builder, name, vector, [vector.as_pointer(), INT32, mask_type(vector), vector])
    place = builder.bitcast(address, vector.as_pointer())
    zeros = ir.Constant(vector, [0.0] * vector.count)
    return builder.call(function, [place, INT32(itemsize(vector)), mask, zeros])


def masked_store(builder: Any, value: Any, address: Any, mask: Any) -> None:
    """Write only the lanes of the mask."""
    vector = value.type
    name = f"llvm.masked.store.{_suffix(vector)}.p0"
    function = _named(builder, name, ir.VoidType(), [vector, vector.as_pointer(), INT32, mask_type(vector)])
    builder.call(function, [value, builder.bitcast(address, vector.as_pointer()), INT32(itemsize(vector)), mask])


def between(builder: Any, vector: Any, first: Any, low: Any, high: Any) -> Any:
    """The mask of lanes l with low <= first + l < high."""
    kind = ir.VectorType(INT32, vector.count)
    lanes_ = ir.Constant(kind, list(range(vector.count)))

    def edge(end: Any) -> Any:
        """How many lanes lie before it, in all lanes: as a small number, which takes half a 64-bit one's work."""
        before = builder.sub(end, first)
        before = builder.select(builder.icmp_signed("<", before, INT64(0)), INT64(0), before)
        before = lesser(builder, before, INT64(vector.count))
        return broadcast(builder, builder.trunc(before, INT32), kind)

    return builder.and_(builder.icmp_signed(">=", lanes_, edge(low)), builder.icmp_signed("<", lanes_, edge(high)))
