"""The register tile of depthwise layers with the channels last: some pixels times two vectors of channels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .copies import lowest, rectified
from .ir import INT64, at, between, data, fused, intrinsic, load, masked_load, masked_store, store, vector_type

VECTORS = 2


@intrinsic
def correlate_pixels(
    typing_context: Any,
    pixels: Any,
    places: Any,
    first: Any,
    taps: Any,
    weight: Any,
    bias: Any,
    relu: Any,
    out: Any,
    pitch: Any,
    channel: Any,
    channels: Any,
) -> Any:
    """out[p * pitch + c] = sum over t of x[p, t][c] * weight[t * pitch + c], then + bias[c]; relu is a flag.

    For so many channels c from number `channel` on.

    For as many pixels as the tuple `pixels` has elements, known at compile time. The channels that pixel p meets by tap
    t, x[p, t], begin at places[2 * t] + (first + p) * places[2 * t + 1]. Sums stay in registers through all taps.
    """
    intp = types.intp
    signature = types.void(pixels, places, intp, intp, weight, bias, intp, out, intp, intp, intp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, table, number, depth, weights, biases, flag, to, pitch, start, count = data(
            context, builder, signature.args, args
        )
        vector = vector_type(out.dtype)
        size, pointer = vector.count, vector.element.as_pointer()
        multiply_add, floor = fused(builder, vector), lowest(builder, flag, vector)
        with builder.goto_entry_block():
            sums = [[builder.alloca(vector) for _ in range(VECTORS)] for _ in range(len(pixels))]

        def block(channel: Any, vectors: int, read: Any, write: Any) -> None:
            """All taps of some vectors of channels."""
            parts = [INT64(part * size) for part in range(vectors)]
            for row in sums:
                for place in row[:vectors]:
                    builder.store(ir.Constant(vector, [0.0] * size), place)
            with cgutils.for_range(builder, depth, intp=INT64) as loop:
                line = at(builder, weights, builder.mul(loop.index, pitch), channel)
                factors = [read(at(builder, line, part)) for part in parts]
                entry = at(builder, table, builder.mul(loop.index, INT64(2)))
                step = builder.load(at(builder, entry, INT64(1)))
                address = builder.add(builder.load(entry), builder.mul(number, step))
                for pixel, row in enumerate(sums):
                    source = builder.inttoptr(builder.add(address, builder.mul(INT64(pixel), step)), pointer)
                    for part, factor, place in zip(parts, factors, row, strict=False):
                        value = read(at(builder, source, channel, part))
                        builder.store(builder.call(multiply_add, [value, factor, builder.load(place)]), place)
            for pixel, row in enumerate(sums):
                target = at(builder, to, builder.mul(INT64(pixel), pitch), channel)
                for part, place in zip(parts, row, strict=False):
                    total = builder.fadd(builder.load(place), read(at(builder, biases, channel, part)))
                    write(rectified(builder, total, floor), at(builder, target, part))

        end = builder.add(start, count)
        whole = builder.sub(end, builder.srem(count, INT64(VECTORS * size)))
        with cgutils.for_range_slice(builder, start, whole, INT64(VECTORS * size), INT64) as (channel, _):
            block(
                channel,
                VECTORS,
                lambda address: load(builder, vector, address),
                lambda value, address: store(builder, value, address),
            )
        with cgutils.for_range_slice(builder, whole, end, INT64(size), INT64) as (channel, _):
            mask = between(builder, vector, channel, INT64(0), end)
            block(
                channel,
                1,
                lambda address: masked_load(builder, vector, address, mask),
                lambda value, address: masked_store(builder, value, address, mask),
            )
        return context.get_dummy_value()

    return signature, generate
