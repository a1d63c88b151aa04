"""Calls by address, atomic exchange and addition, the loop that measures the FMA peak."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from .ir import INT64, fused, intrinsic


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
def fetch_add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an address and return what stood there, atomically, in no order."""
    signature = types.int64(types.intp, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], INT64.as_pointer()), args[1], "monotonic")

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
        fma = fused(builder, vector)
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
