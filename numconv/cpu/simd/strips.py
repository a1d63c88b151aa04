"""The register tile of one channel and a small kernel: a strip of output rows, read where the input lies.

A tile is one vector of columns by many rows, so that a load serves every row that meets it. Padding of zeros costs no
copy: masked loads leave out the columns beside the input, and a row of zeros stands for the rows above and below it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ...jit import Native
from .copies import lowest, rectified
from .ir import (
    INT32,
    INT64,
    WIDE,
    after,
    at,
    between,
    broadcast,
    call_address,
    call_own,
    data,
    fused,
    intrinsic,
    itemsize,
    lesser,
    load,
    masked_load,
    masked_store,
    own_function,
    prefetch,
    prefetch_to_write,
    store,
    unknown,
    vector_type,
)

# Up to so many taps, 32 registers have room for the weights.
KEPT_TAPS = 9
# Registers of a tile of one vector that neither a sum in progress nor a kept weight has: the bias, the floor, a weight
# that is not kept, and inputs on their way. With fewer, some were spilled.
ROOM = 12
# Tiles of several vectors ask for the input that the one so many tiles on will read, and tiles of one vector for what
# the next strip will read there, of this channel or the next: a sweep meets more rows at once than some processors
# follow by themselves.
TILES_AHEAD = 2


class _Strip:
    """The code of a strip: `height` output rows of a kernel and stride, by vectors of columns, at `builder`.

    factors: all the weights, where registers keep them. strip_ahead: how far on in the input the next strip's rows lie.
    """

    def __init__(
        self,
        builder: Any,
        kernel: int,
        stride: int,
        height: int,
        vector: Any,
        x_pitch: Any,
        weight: Any,
        bias: Any,
        relu: Any,
    ) -> None:
        self.builder, self.kernel, self.stride, self.height, self.vector = builder, kernel, stride, height, vector
        self.multiply_add = fused(builder, vector)
        self.strip_ahead = builder.mul(x_pitch, INT64(height * stride))
        self.weight = weight
        kept = WIDE and kernel**2 <= KEPT_TAPS
        self.factors = [self.factor(weight, number) for number in range(kernel**2)] if kept else []
        self.shift, self.floor = broadcast(builder, bias, vector), lowest(builder, relu, vector)

    def factor(self, weight: Any, number: int) -> Any:
        """A weight in all lanes."""
        scalar = self.builder.load(at(self.builder, weight, INT64(number)))
        return broadcast(self.builder, scalar, self.vector)

    def sources(self, x: Any, x_pitch: Any, first_row: Any, x_rows: Any, zeros: Any) -> list[Any]:
        """The input rows that the strip meets."""
        builder, found = self.builder, []
        for r in range((self.height - 1) * self.stride + self.kernel):
            row = builder.add(first_row, INT64(r))
            source = at(builder, x, builder.mul(row, x_pitch))
            found.append(builder.select(builder.icmp_unsigned("<", row, x_rows), source, zeros))
        return found

    def tile(
        self, sources: list[Any], start: Any, targets: list[Any], vectors: int, end: Any, mask: Any = None
    ) -> None:
        """The sums of so many vectors of columns, from input column `start` on, into rows at `targets`. end: of the
        input's rows, or None where all that is read lies within them. mask: of the columns to store, if not all.

        Input rows are met from top to bottom, and in each the kernel's columns from left to right, so each sum gets its
        taps in the one order; only the sums of the rows in progress are alive.
        """
        builder, stride, size = self.builder, self.stride, self.vector.count
        factors = self.factors or self._some_factors(vectors)
        sums = [[ir.Constant(self.vector, [0.0] * size)] * vectors for _ in range(self.height)]
        # Of each group of taps as wide as the stride, and each vector of columns, those that hold its inputs.
        reads = [[[_reader(builder, self.vector, builder.add(start, INT64((v * stride + part) * size + tap)), end)
                   for part in range(stride)] for v in range(vectors)]
                 for tap in range(0, self.kernel, stride)]  # fmt: skip
        for r, source in enumerate(sources):
            weight = self.weight if self.factors else unknown(builder, self.weight)
            soon, rest = divmod(r - 1, stride)
            if rest == 0 and 0 <= soon < self.height:
                # Of all rows at once, a cache whose lines lie a power of two apart would keep few until they are due.
                for v in range(vectors):
                    prefetch_to_write(builder, at(builder, targets[soon], INT64(v * size)))
            ahead = INT64(TILES_AHEAD * vectors * size) if vectors > 1 else self.strip_ahead
            # Where registers are few, tiles of one vector have none for it.
            for v in range(vectors * stride if WIDE or vectors > 1 else 0):
                prefetch(builder, at(builder, source, builder.add(builder.add(start, ahead), INT64(v * size))))
            rows = [(o, r - o * stride) for o in range(self.height) if 0 <= r - o * stride < self.kernel]
            for tap in range(self.kernel):
                if tap % stride == 0:
                    # Loads stay behind those of the tap before: early, they would spill the sums.
                    source = unknown(builder, source)
                    if factors and not self.factors and (r or tap):
                        # Nor do they come before the products of the tap before, and take the room of weights.
                        o = rows[-1 if tap else 0][0]
                        source, sums[o][0] = after(builder, source, sums[o][0])
                    found = [[read(source) for read in parts] for parts in reads[tap // stride]]
                inputs = [self._phase(parts, tap % stride) for parts in found]
                for o, kernel_row in rows:
                    number = kernel_row * self.kernel + tap
                    value = factors[number] if number < len(factors) else self.factor(weight, number)
                    sums[o] = [builder.call(self.multiply_add, [value, *pair])
                               for pair in zip(inputs, sums[o], strict=True)]  # fmt: skip
            for o, kernel_row in rows:
                if kernel_row == self.kernel - 1:
                    for v, total in enumerate(sums[o]):
                        finished = rectified(builder, builder.fadd(total, self.shift), self.floor)
                        place = at(builder, targets[o], INT64(v * size))
                        if mask is None:
                            store(builder, finished, place)
                        else:
                            masked_store(builder, finished, place, mask)

    def _some_factors(self, vectors: int) -> list[Any]:
        """The first weights of a larger kernel, as many as a tile leaves room for: where each meets one vector of input
        only, loads of weights would take longer than the products.
        """
        if not WIDE or vectors > 1 or self.stride > 1:
            return []
        weight = unknown(self.builder, self.weight)
        return [self.factor(weight, number) for number in range(min(self.kernel**2, 32 - ROOM - self.kernel))]

    def _phase(self, parts: list[Any], phase: int) -> Any:
        """Each stride-th element of some vectors, from that one on."""
        if self.stride == 1:
            return parts[0]
        picks = [lane * self.stride + phase for lane in range(self.vector.count)]
        return self.builder.shuffle_vector(*parts, ir.Constant(ir.VectorType(INT32, len(picks)), picks))


def most_vectors(kernel: int, stride: int) -> int:
    """How many vectors of columns registers have room for, side by side; a stride takes them for what it picks from."""
    kept = kernel**2 if WIDE and kernel**2 <= KEPT_TAPS else 1
    # Besides the bias and the floor; for each vector the sums of the rows in progress, and what they meet.
    return 1 if stride > 1 else ((32 if WIDE else 16) - kept - 2) // (kernel + 1)


def _define_strip(module: Any, kernel: int, stride: int, height: int, vectors: int, vector: Any) -> Any:
    """Strips of `height` output rows, swept by tiles of so many vectors where no mask is needed, else of one.

    void strip(T *x, i64 x_pitch, i64 row, i64 x_rows, T *zeros, i64 column, i64 x_columns, T *weight, T bias,
               i64 relu, T *out, i64 out_pitch, T *spare, i64 rows, i64 columns)
    Output row 0 and column 0 meet input `row` and `column` first. `spare` has room for a tile of one vector.
    """
    name = f"numconv_strip_{kernel}x{kernel}_{stride}_{height}x{vectors}_v{vector.count}x{itemsize(vector)}"
    element, size = vector.element, vector.count
    pointer = element.as_pointer()
    operands = [pointer, INT64, INT64, INT64, INT64, pointer, INT64, INT64, pointer, element, INT64, pointer, INT64,
                INT64, pointer, INT64, INT64]  # fmt: skip
    function, builder, given = own_function(module, name, operands)
    x, x_start, x_pitch, first_row, x_rows, zeros, column, x_columns, *rest = given
    weight, bias, relu, out, out_start, out_pitch, spare, rows, columns = rest
    x, out = at(builder, x, x_start), at(builder, out, out_start)
    strip = _Strip(builder, kernel, stride, height, vector, x_pitch, weight, bias, relu)
    sources = strip.sources(x, x_pitch, first_row, x_rows, zeros)
    complete = builder.icmp_signed(">=", rows, INT64(height))
    # Where a row's last tile begins at the latest: it ends with the row, and so meets columns again, but not with a
    # stride, where that was slower than a tile that hangs over.
    behind = builder.sub(columns, INT64(size))
    last = columns if stride > 1 else builder.select(builder.icmp_signed(">", behind, INT64(0)), behind, INT64(0))
    done = builder.alloca(INT64)
    builder.store(INT64(0), done)
    body, end = (function.append_basic_block(part) for part in ("body", "end"))
    builder.branch(body)
    builder.position_at_end(body)
    j = builder.load(done)

    def single() -> None:
        """One vector. What is not a whole tile of the output goes to the spare one, and from there to its place.

        Where all tiles have one vector, as on narrow maps, columns that hang over are left out by masked stores: they
        took less time than that detour. Beside wide tiles, where few hang over, plain stores took less than these.
        """
        narrow = WIDE and vectors == 1
        mask = between(builder, vector, j, INT64(0), columns) if narrow else None
        fits = builder.icmp_signed("<=", builder.add(j, INT64(size)), columns)
        whole = complete if narrow else builder.and_(complete, fits)
        place = at(builder, out, j)
        target = builder.select(whole, place, spare)
        pitch = builder.select(whole, out_pitch, INT64(size))
        targets = [at(builder, target, builder.mul(INT64(o), pitch)) for o in range(height)]
        start = builder.add(builder.mul(j, INT64(stride)), column)
        strip.tile(sources, start, targets, 1, x_columns, mask)
        with builder.if_then(builder.not_(whole), likely=False):
            some = mask or between(builder, vector, j, INT64(0), columns)
            with cgutils.for_range(builder, rows, intp=INT64) as row:
                total = load(builder, vector, at(builder, spare, builder.mul(row.index, INT64(size))))
                masked_store(builder, total, at(builder, place, builder.mul(row.index, out_pitch)), some)
        builder.store(builder.add(j, INT64(size)), done)

    if vectors == 1:
        single()
    else:
        side = vectors * size
        first = lesser(builder, j, builder.sub(columns, INT64(side)))
        more = builder.icmp_signed(">", builder.sub(columns, j), INT64(side // 2))
        unmasked = builder.and_(more, builder.icmp_signed(">=", first, INT64(0)))
        if WIDE:
            # No input is read that lies beside a row.
            start = builder.add(first, column)
            met = builder.add(start, INT64(side + kernel - 1))
            unmasked = builder.and_(unmasked, builder.icmp_signed(">=", start, INT64(0)))
            unmasked = builder.and_(unmasked, builder.icmp_signed("<=", met, x_columns))
        with builder.if_else(builder.and_(complete, unmasked)) as (then, otherwise):
            with then:
                targets = [at(builder, out, builder.add(first, builder.mul(INT64(o), out_pitch)))
                           for o in range(height)]  # fmt: skip
                strip.tile(sources, builder.add(first, column), targets, vectors, None)
                builder.store(builder.add(first, INT64(side)), done)
            with otherwise:
                single()
    following = builder.load(done)
    builder.store(lesser(builder, following, last), done)
    builder.cbranch(builder.icmp_signed("<", following, columns), body, end)
    builder.position_at_end(end)
    builder.ret_void()
    return function


def _reader(builder: Any, vector: Any, begin: Any, end: Any) -> Callable[[Any], Any]:
    """Loads of a vector from column `begin` of a row, in which the columns below 0 and from `end` on, if there is one,
    are zero.
    """
    if end is None or not WIDE:
        # Without registers for masks, the input is a window with its padding filled in.
        return lambda row: load(builder, vector, at(builder, row, begin))
    mask = between(builder, vector, begin, INT64(0), end)
    return lambda row: masked_load(builder, vector, at(builder, row, begin), mask)


@intrinsic
def define_strip(typing_context: Any, extents: Any, zero: Any, operands: Any) -> Any:
    """Run strips of extents (kernel, stride, rows, vectors), lengths of tuples, for the dtype of `zero`; their operands
    lie at an address.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = vector_type(zero)
        kernel, stride, height, vectors = (len(extent) for extent in extents)
        call_own(builder, _define_strip(builder.module, kernel, stride, height, vectors, vector), args[2])
        return context.get_dummy_value()

    return types.void(extents, zero, types.intp), generate


@functools.lru_cache(maxsize=256)
def strip_tile(dtype: np.dtype[Any], kernel: int, stride: int, rows: int, vectors: int) -> Native:
    """Strips of so many rows, by so many vectors at a time, for a kernel of that size and stride, to be called by
    `call_strip`.
    """
    lengths, zero = ((0,) * kernel, (0,) * stride, (0,) * rows, (0,) * vectors), dtype.type(0)
    return Native(lambda operands: define_strip(lengths, zero, operands))


@intrinsic
def call_strip(
    typing_context: Any,
    address: Any,
    x: Any,
    x_start: Any,
    x_pitch: Any,
    row: Any,
    x_rows: Any,
    zeros: Any,
    column: Any,
    x_columns: Any,
    weight: Any,
    bias: Any,
    relu: Any,
    out: Any,
    out_start: Any,
    out_pitch: Any,
    spare: Any,
    rows: Any,
    columns: Any,
) -> Any:
    """out[o, j] = bias + sum over kh, kw of weight[kh, kw] * x[row + o * stride + kh, column + j * stride + kw].

    For o < rows and j < columns. x has x_rows of x_columns, with zeros above and below, and beside where vectors have
    masks; `zeros` holds a row of them, `spare` has room for a tile. x and out are flat, and begin at their starts.
    """
    intp = types.intp
    operands = (
        x,
        intp,
        intp,
        intp,
        intp,
        zeros,
        intp,
        intp,
        weight,
        out.dtype,
        intp,
        out,
        intp,
        intp,
        spare,
        intp,
        intp,
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        call_address(builder, args[0], data(context, builder, operands, args[1:]))
        return context.get_dummy_value()

    return types.void(intp, *operands), generate
