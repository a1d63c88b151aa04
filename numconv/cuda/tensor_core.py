"""Instructions that numba has no names for: tensor cores of both kinds, and copies that pass no registers.

This is the one file that needs numba's extension API. The PTX that it emits is described in NVIDIA's "PTX ISA".
"""

from __future__ import annotations

from typing import Any

from .driver import extension, types

# Of each thread, in a product of 64 by 128.
SUMS = 64


@extension
def rounded(typing: Any, value: Any) -> Any:
    """A float32 as the bits of a TF32, half away from zero."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
        return builder.call(ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f"), values)

    return types().uint32(value), emit


@extension
def four(typing: Any, words: Any, index: Any) -> Any:
    """Four words from words[4 * index] on, in one access of 128 bits."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(32)
        first = context.make_array(signature.args[0])(context, builder, values[0]).data
        here = builder.gep(first, [builder.mul(values[1], ir.Constant(values[1].type, 4))])
        read = builder.load(builder.bitcast(here, ir.VectorType(word, 4).as_pointer()))
        read.align = 16
        parts = [builder.extract_element(read, ir.Constant(word, i)) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types().UniTuple(types().uint32, 4)(words, index), emit


@extension
def multiplied(
    typing: Any, a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, c0: Any, c1: Any, c2: Any, c3: Any
) -> Any:
    """A warp's sums c, 16 by 8, plus a, 16 by 8, times b, 8 by 8: each thread's part of each."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real, word = ir.FloatType(), ir.IntType(32)
        kind = ir.FunctionType(ir.LiteralStructType([real] * 4), [word] * 6 + [real] * 4)
        text = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        text += "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
        # All threads of a warp meet it: it must not move into a branch.
        call = builder.call(ir.InlineAsm(kind, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", side_effect=True), values)
        return context.make_tuple(builder, signature.return_type, [builder.extract_value(call, i) for i in range(4)])

    return types().UniTuple(c0, 4)(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3), emit


@extension
def copy_16_bytes(typing: Any, to: Any, to_index: Any, source: Any, index: Any) -> Any:
    """Start to copy source[4 * index] and the three words behind it to shared memory, at to[4 * to_index]."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(32)
        places = []
        for i in (0, 2):
            first = context.make_array(signature.args[i])(context, builder, values[i]).data
            wide = builder.zext(values[i + 1], ir.IntType(64)) if values[i + 1].type.width < 64 else values[i + 1]
            places.append(builder.gep(first, [builder.mul(wide, ir.Constant(wide.type, 4))]))
        shared = builder.ptrtoint(builder.addrspacecast(places[0], ir.PointerType(word, 3)), word)
        memory = builder.ptrtoint(places[1], ir.IntType(64))
        kind = ir.FunctionType(ir.VoidType(), [word, ir.IntType(64)])
        text = "cp.async.ca.shared.global [$0], [$1], 16;"
        builder.call(ir.InlineAsm(kind, text, "r,l,~{memory}", side_effect=True), [shared, memory])
        return context.get_dummy_value()

    return types().none(to, to_index, source, index), emit


@extension
def commit_copies(typing: Any) -> Any:
    """The copies that this thread started since the last time are a group, of none too."""
    return types().none(), _text("cp.async.commit_group;")


@extension
def wait_for_copies(typing: Any) -> Any:
    """Wait until all groups of this thread's copies have arrived but for the last one."""
    return types().none(), _text("cp.async.wait_group 1;")


@extension
def show_copies(typing: Any) -> Any:
    """What this thread wrote to shared memory is seen by warp groups' products from here on."""
    return types().none(), _text("fence.proxy.async.shared::cta;")


@extension
def described(typing: Any, words: Any) -> Any:
    """Shared memory as warp groups' products read it: rows of 128 bytes, eight a swizzled atom, K-major."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word, wide = ir.IntType(32), ir.IntType(64)
        first = context.make_array(signature.args[0])(context, builder, values[0]).data
        address = builder.ptrtoint(builder.addrspacecast(first, ir.PointerType(word, 3)), word)
        place = builder.zext(builder.lshr(address, ir.Constant(word, 4)), wide)
        # From atom to atom 1024 bytes, in units of 16; the swizzle of 128 bytes.
        return builder.or_(place, ir.Constant(wide, (1 << 62) | (1024 >> 4) << 32 | 1 << 16))

    return types().uint64(words), emit


@extension
def start_products(typing: Any, sums: Any, first: Any, factors: Any, at: Any, inputs: Any) -> Any:
    """Start four products of a warp group, one behind another: sums[first:first + 64] of each thread, 64 by 128, are
    added the weights factors[at:at + 16], 64 by 32, times the 32 by 128 inputs that are described. Literal places.
    """
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real, word, wide = ir.FloatType(), ir.IntType(32), ir.IntType(64)
        totals = _elements(context, builder, signature.args[0], values[0], values[1], SUMS)
        weights = _elements(context, builder, signature.args[2], values[2], values[3], 16)
        places = [builder.add(values[4], ir.Constant(wide, 2 * k)) for k in range(4)]
        names = ", ".join(f"${i}" for i in range(SUMS))
        # That sums are added to, not replaced, a predicate says.
        text = f"{{\n.reg .pred %adding;\nsetp.ne.b32 %adding, ${2 * SUMS + 20}, 0;\nwgmma.fence.sync.aligned;\n"
        for k in range(4):
            row = ", ".join(f"${2 * SUMS + 4 * k + i}" for i in range(4))
            text += f"wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 {{{names}}}, {{{row}}}, "
            text += f"${2 * SUMS + 16 + k}, %adding, 1, 1;\n"
        text += "wgmma.commit_group.sync.aligned;\n}"
        kinds = [real] * SUMS + [word] * 16 + [wide] * 4 + [word]
        constraints = ["=f"] * SUMS + [str(i) for i in range(SUMS)] + ["r"] * 16 + ["l"] * 4 + ["r"]
        kind = ir.FunctionType(ir.LiteralStructType([real] * SUMS), kinds)
        given = [*map(builder.load, totals), *map(builder.load, weights), *places, ir.Constant(word, 1)]
        call = builder.call(ir.InlineAsm(kind, text, ",".join(constraints), side_effect=True), given)
        for i, place in enumerate(totals):
            builder.store(builder.extract_value(call, i), place)
        return context.get_dummy_value()

    return types().none(sums, first, factors, at, inputs), emit


@extension
def end_products(typing: Any, sums: Any, first: Any) -> Any:
    """Wait until all products of the warp group are done; sums[first:first + 64] may be read then."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real = ir.FloatType()
        totals = _elements(context, builder, signature.args[0], values[0], values[1], SUMS)
        constraints = ["=f"] * SUMS + [str(i) for i in range(SUMS)]
        kind = ir.FunctionType(ir.LiteralStructType([real] * SUMS), [real] * SUMS)
        text = "wgmma.wait_group.sync.aligned 0;"
        code = ir.InlineAsm(kind, text, ",".join(constraints), side_effect=True)
        call = builder.call(code, list(map(builder.load, totals)))
        for i, place in enumerate(totals):
            builder.store(builder.extract_value(call, i), place)
        return context.get_dummy_value()

    return types().none(sums, first), emit


def _elements(context: Any, builder: Any, kind: Any, array: Any, first: Any, count: int) -> list[Any]:
    """Where so many elements of an array lie, from one on."""
    lies = context.make_array(kind)(context, builder, array).data
    return [builder.gep(lies, [builder.add(first, first.type(i))]) for i in range(count)]


def _text(text: str) -> Any:
    """What emits an instruction without operands."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(ir.InlineAsm(kind, text, "~{memory}", side_effect=True), [])
        return context.get_dummy_value()

    return emit
