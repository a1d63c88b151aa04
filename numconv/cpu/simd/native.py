"""Shares on numba's threads, calls by address, atomic exchange and addition, the loop that measures the FMA peak."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .ir import INT32, INT64, at, data, fused, intrinsic, unpacked

BYTES = ir.IntType(8).as_pointer()
# Where a team holds the addresses of numba's functions.
PARALLEL_FOR, GET_NUM_THREADS = range(2)


@intrinsic
def run_shares(typing_context: Any, team: Any, function: Any, shares: Any, arguments: Any) -> Any:
    """function(share, *arguments) for each of so many shares, on numba's threads, as in a prange.

    `team` is what a `Kernel` is told: of zeros, it lets the caller run all shares. A prange comes to the same two
    calls, but its body goes through two more functions, each of them compiled and optimised.
    """
    called = function.get_call_type(typing_context, (types.intp, *arguments.types), {})

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        body = _share_function(context, builder, function, called, arguments)
        place, _, count, values = data(context, builder, signature.args, args)
        parallel_for, threads = (builder.load(at(builder, place, INT64(i))) for i in (PARALLEL_FOR, GET_NUM_THREADS))
        # Numba steps through the arrays of a ufunc: here one that lies at address 0, a byte for each share.
        on_stack: Any = cgutils.alloca_once_value
        first, counts, steps, packed = (on_stack(builder, value) for value in (BYTES(None), count, INT64(1), values))
        operands = [first, counts, steps, builder.bitcast(packed, BYTES)]
        with builder.if_else(builder.icmp_signed("!=", parallel_for, INT64(0))) as (together, alone):
            with together:
                asking = ir.FunctionType(INT32, [])
                number = builder.sext(builder.call(builder.inttoptr(threads, asking.as_pointer()), []), INT64)
                # The ufunc has no inner axis, and this one array.
                launch = [builder.bitcast(body, BYTES), *operands, INT64(0), INT64(1), number]
                launching = ir.FunctionType(ir.VoidType(), [value.type for value in launch])
                builder.call(builder.inttoptr(parallel_for, launching.as_pointer()), launch)
            with alone:
                builder.call(body, operands)
        return context.get_dummy_value()

    return types.void(team, function, types.intp, arguments), generate


def _share_function(context: Any, builder: Any, function: Any, called: Any, arguments: Any) -> Any:
    """What numba's threads call: ``void f(char **share, intp *count, intp *steps, void *arguments)``."""
    compiled = function.dispatcher.get_compile_result(called)
    context.active_code_library.add_linking_library(compiled.library)
    callee = context.declare_function(builder.module, compiled.fndesc)
    kind = ir.FunctionType(ir.VoidType(), [BYTES.as_pointer(), INT64.as_pointer(), INT64.as_pointer(), BYTES])
    body = ir.Function(builder.module, kind, f"{builder.function.name}.shares")
    body.linkage = "internal"
    inner = ir.IRBuilder(body.append_basic_block())
    begin, count = inner.ptrtoint(inner.load(body.args[0]), INT64), inner.load(body.args[1])
    values = inner.load(inner.bitcast(body.args[3], context.get_value_type(arguments).as_pointer()))
    with cgutils.for_range_slice(inner, begin, inner.add(begin, count), INT64(1), INT64) as (share, _):
        operands = [share, *unpacked(inner, values)]
        context.call_conv.call_function(inner, callee, called.return_type, called.args, operands)
    inner.ret_void()
    return body


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
def fetch_add(typing_context: Any, array: Any, value: Any) -> Any:
    """Add to the int64 at the start of an array's memory and return what stood there, atomically, in no order."""
    signature = types.int64(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, count = data(context, builder, signature.args, args)
        return builder.atomic_rmw("add", builder.bitcast(place, INT64.as_pointer()), count, "monotonic")

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
