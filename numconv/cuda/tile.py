"""The register tile of `tiled` and `matmul`: one kernel, compiled for each geometry.

A block of 128 threads computes 8 x `groups` output channels of a tile of pixels: each thread 8 channels by 8
neighbouring pixels of a row, 4 where blocks are few, or fewer of float64, so that at most 64 registers hold the sums.
Channel by channel, the window of the input that the tile meets and the channel's weights are copied to shared memory,
while the channel before is added up: two buffers. Where padding, stride and dilation send each element of the window is
worked out once, before the first channel, from the tables of padded positions; columns are split by the stride into
phases, so that a thread's pixels always lie side by side and are read by 128 bits at a time.

The shapes of kernel, stride and dilation are constants of the closure, so that every loop over them unrolls; numba
caches the compiled kernel by their values. Shared memory is indexed in units of 16 bytes, which shows the
compiler the alignment. Beyond eight taps in one loop it stops unrolling: `taps` is called for four at a time.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from ..machine import Machine
from ..problem import Problem
from . import pack
from .arrays import LIMIT, DeviceArray
from .driver import cuda, inlined
from .kernels import kernel
from .tiling import BATCH, CHANNELS, REGISTERS, RESIDENT, STAGED, THREADS, Tile, choose, grid


class Places(NamedTuple):
    """The integers of a launch, for all blocks."""

    in_channels: int
    out_channels: int
    channel_blocks: int
    out_d: int
    out_h: int
    out_w: int
    tiles_h: int
    tiles_w: int
    segment: int
    relu: int


@inlined
def taps(sums, values, weight, floats, base, first, end, channels, period, span, dilation, stride, pixels):  # type: ignore[no-untyped-def]
    """sums[i*pixels+j] += weight of channel i * value of pixel j, for the taps from first to end of one row."""
    for k in range(first, end):
        for i in range(8):
            weight[i] = floats[base + np.uint64(k * channels + i)]
        at = (k % period) * span + k * dilation // stride
        for i in range(8):
            for j in range(pixels):
                sums[i * pixels + j] = cuda.fma(values[at + j], weight[i], sums[i * pixels + j])


@inlined
def add_row(sums, values, weight, floats, x_at, w_at, x_more, w_more, spans, taps_of):  # type: ignore[no-untyped-def]
    """One row of taps: its values from the window at x_at, its weights from w_at, both in units of 16 bytes,
    and so many elements further.
    """
    phases, step, span = spans
    count, channels, period, dilation, stride, pixels, unit = taps_of
    base = np.uint64(x_at) * np.uint64(unit) + np.uint64(x_more)
    for phase in range(phases):
        for s in range(span):
            values[phase * span + s] = floats[base + np.uint64(phase * step + s)]
    base = np.uint64(w_at) * np.uint64(unit) + np.uint64(w_more)
    first, second = min(count, 4), min(count, 8)
    taps(sums, values, weight, floats, base, 0, first, channels, period, span, dilation, stride, pixels)
    taps(sums, values, weight, floats, base, first, second, channels, period, span, dilation, stride, pixels)
    taps(sums, values, weight, floats, base, second, count, channels, period, span, dilation, stride, pixels)


@inlined
def copy_weights(memory, weight, staged, at, to, thread, pairs):  # type: ignore[no-untyped-def]
    """One chunk's weights to a buffer, a few at a time, so that they hold few registers."""
    for first in range(0, -(-pairs // THREADS), BATCH):
        for i in range(BATCH):
            copy = (first + i) * THREADS
            if copy < pairs and (copy + THREADS <= pairs or thread < np.uint32(pairs - copy)):
                staged[i] = weight[np.uint64(np.uint32(at + thread)) + np.uint64(copy)]
        for i in range(BATCH):
            copy = (first + i) * THREADS
            if copy < pairs and (copy + THREADS <= pairs or thread < np.uint32(pairs - copy)):
                memory[np.uint64(to) + np.uint64(copy)] = staged[i]


@inlined
def load_window(x, bias, framed, position, staged, channel, in_channels, step, chunk, copies):  # type: ignore[no-untyped-def]
    """One chunk's elements of the window that this thread copies, into registers; moves the positions on. framed: the
    padding holds the number behind the bias.
    """
    for c in range(chunk):
        for copy in range(copies):
            value = x.dtype.type(0)
            if framed and (chunk == 1 or np.int32(channel + c) < in_channels):
                value = bias[len(bias) - 1]
            if (position[copy] >= 0) & (chunk == 1 or np.int32(channel + c) < in_channels):
                value = x[np.uint32(position[copy])]
            position[copy] = np.int32(position[copy] + step)
            staged[c * copies + copy] = value


@inlined
def store_window(floats, staged, at, size):  # type: ignore[no-untyped-def]
    """From the registers to a buffer of shared memory."""
    for copy in range(size):
        floats[np.uint64(at) + np.uint64(copy * THREADS)] = staged[copy]


@inlined
def load_weights(weight, staged, at, thread, pairs):  # type: ignore[no-untyped-def]
    """One chunk's weights that this thread copies, into registers."""
    for copy in range(-(-pairs // THREADS)):
        if copy * THREADS + THREADS <= pairs or thread < np.uint32(pairs - copy * THREADS):
            staged[copy] = weight[np.uint64(np.uint32(at + thread)) + np.uint64(copy * THREADS)]


@inlined
def store_weights(memory, staged, at, thread, pairs):  # type: ignore[no-untyped-def]
    """From the registers to a buffer of shared memory."""
    for copy in range(-(-pairs // THREADS)):
        if copy * THREADS + THREADS <= pairs or thread < np.uint32(pairs - copy * THREADS):
            memory[np.uint64(at) + np.uint64(copy * THREADS)] = staged[copy]


@functools.lru_cache(maxsize=256)
def build(tile: Tile) -> Any:
    """The kernel of a tile, for the floats of its size.

    Arguments: x (flat memory), weight (groups, channel blocks, ci, taps, channels) by 64 bits, bias (co,) and the
    padding's value, out (flat), depth, height, width (padded position -> position or -1), places, and x's start and
    strides in elements.
    """
    real, pixels, unit, framed = tile.real, tile.pixels, tile.unit, tile.framed
    kernel_d, kernel_h, kernel_w = tile.kernel_d, tile.kernel_h, tile.kernel_w
    stride_d, stride_h, stride_w = tile.stride_d, tile.stride_h, tile.stride_w
    dilation_d, dilation_h, dilation_w = tile.dilation_d, tile.dilation_h, tile.dilation_w
    groups, columns, chunk, together = tile.groups, tile.columns, tile.chunk, tile.together
    rows, width, channels, pitch, row_pitch = tile.rows, tile.width, tile.channels, tile.pitch, tile.row_pitch()
    phases, period, row_unit, row_step = tile.phases, tile.period, tile.row_unit, tile.row_step
    window_rows, columns_used = tile.window_rows, width + tile.shift
    plane = window_rows * row_pitch
    copies, pairs = tile.copies(), tile.weight_pairs()
    window = copies * THREADS
    rounds = -(-pairs // THREADS)
    span = pixels + tile.shift
    # A 1x1 kernel adds up some channels in one round, as if they were phases of a row.
    joined = together > 1
    row_taps = together if joined else kernel_w
    row_phases, phase_step = (together, window) if joined else (phases, pitch)
    row_period, row_dilation, row_stride = (together, 0, 1) if joined else (period, dilation_w, stride_w)
    rounds_of_rows = chunk // together
    round_units = window * together // unit
    spans, taps_of = (row_phases, phase_step, span), (
        row_taps, channels, row_period, row_dilation, row_stride, pixels, unit,
    )  # fmt: skip
    values_size, staged_size = span * row_phases, copies * chunk
    row_apart, row_weights = dilation_h * row_pitch, row_taps * channels
    # Shared memory: two buffers of weights, then two of the window; at the end the results.
    shared_elements, windows = tile.shared_elements(), 2 * chunk * tile.taps * channels
    shared_pairs = shared_elements * tile.itemsize // 8
    buffer_units, weight_units = chunk * window // unit, pairs // 2
    stage_pitch, tile_pixels, pixel_rounds = tile.stage_pitch(), rows * width, -(-rows * width // THREADS)
    staged_channels, parts = STAGED, CHANNELS // STAGED
    full = tile_pixels >= THREADS
    outside, lanes = -LIMIT - 1, 4 * groups
    sums_size, moved = CHANNELS * pixels, CHANNELS * pixels - staged_channels * pixels
    # Where registers are short, what is to come is stored at once instead of after this chunk's sums.
    held = (values_size + staged_size) * tile.itemsize // 4 + copies
    early, batched = held > REGISTERS, held + 2 * rounds > REGISTERS
    pair_registers = BATCH if batched else max(BATCH, rounds)
    # Up to three rows without a loop around them.
    unrolled = kernel_h <= 3 and kernel_h * row_taps <= 9 and kernel_d * rounds_of_rows > 1

    def correlate(x, weight, bias, out, depth, height, table, places, start, stride_n, stride_c, sd, sh, sw):  # type: ignore[no-untyped-def]
        memory = cuda.shared.array(shared_pairs, np.float64, alignment=16)
        floats = memory.view(real)
        # What the results' places depend on waits in shared memory, where it holds no registers.
        kept = cuda.shared.array(8, np.int32, alignment=16)
        sums = cuda.local.array(sums_size, real)
        weights = cuda.local.array(8, real)
        position = cuda.local.array(copies, np.int32)
        values = cuda.local.array(values_size, real)
        staged = cuda.local.array(staged_size, real)
        staged_pairs = cuda.local.array(pair_registers, np.float64)

        thread = np.uint32(cuda.threadIdx.x)
        pixel_group = np.uint32((thread & np.uint32(3)) + thread // np.uint32(lanes) * np.uint32(4))
        channel_group = np.uint32(thread // np.uint32(4) % np.uint32(groups))
        row = np.uint32(pixel_group // np.uint32(columns))
        column = np.uint32(pixel_group % np.uint32(columns))
        x_unit = np.uint32(
            row * np.uint32(row_step * row_pitch // unit) + column * np.uint32(pixels // unit) + np.uint32(pairs)
        )
        weight_unit = np.uint32(channel_group * np.uint32(CHANNELS // unit))

        in_channels = np.int32(places[0])
        tiles_w = np.int32(places[7])
        block = np.int32(cuda.blockIdx.x)
        rest = np.int32(block // tiles_w)
        ow0 = np.int32(np.int32(block - rest * tiles_w) * np.int32(width))
        od = np.int32(rest // np.int32(places[6]))
        oh0 = np.int32(np.int32(rest - od * np.int32(places[6])) * np.int32(rows))
        group = np.int32(cuda.blockIdx.y) // np.int32(places[2])
        channel0 = np.int32((np.int32(cuda.blockIdx.y) - group * np.int32(places[2])) * channels)
        n = np.int32(cuda.blockIdx.z)

        if thread == 0:
            kept[0] = oh0
            kept[1] = ow0
            kept[2] = od
            kept[3] = channel0
            kept[4] = n
            kept[5] = group

        image = start + n * stride_n + group * in_channels * stride_c
        for copy in range(copies):
            entry = np.int32(thread) + np.int32(copy * THREADS)
            d = entry // np.int32(plane)
            entry = entry - d * np.int32(plane)
            r = entry // np.int32(row_pitch)
            c = entry - r * np.int32(row_pitch)
            phase = c // np.int32(pitch)
            c = c - phase * np.int32(pitch)
            h = oh0 * stride_h + r * row_unit
            w = (ow0 + c) * stride_w + phase * dilation_w % stride_w
            position[copy] = np.int32(outside)
            if d < kernel_d and phase < phases and c < columns_used and h < len(height) and w < len(table):
                from_d = depth[od * stride_d + d * dilation_d]
                from_h = height[h]
                from_w = table[w]
                if from_d >= 0 and from_h >= 0 and from_w >= 0:
                    position[copy] = np.int32(image + from_d * sd + from_h * sh + from_w * sw)
        channel_step = np.int32(stride_c)

        weight_at = np.uint32(cuda.blockIdx.y) * np.uint32(-(-in_channels // chunk) * pairs)
        channel = np.int32(0)
        while channel < in_channels or channel == 0:
            # One segment of the order of summation: fresh accumulators.
            segment_end: Any = min(in_channels, np.int32(channel + np.int32(places[8])))
            first_segment = channel == 0
            for i in range(sums_size):
                sums[i] = real(0)
            x_at, store_at = x_unit, np.uint32(thread + np.uint32(windows))
            w_at, store_pair = weight_unit, thread
            load_window(x, bias, framed, position, staged, channel, in_channels, channel_step, chunk, copies)
            store_window(floats, staged, store_at, staged_size)
            if in_channels > 0:
                copy_weights(memory, weight, staged_pairs, weight_at, store_pair, thread, pairs)
            cuda.syncthreads()
            # From one buffer to the other: up, then down.
            flip = np.int32(1)
            store_at = np.uint32(store_at + np.uint32(unit * buffer_units))
            store_pair = np.uint32(store_pair + np.uint32(pairs))
            while channel < segment_end:
                channel = np.int32(channel + np.int32(chunk))
                weight_at = np.uint32(weight_at + np.uint32(pairs))
                more = channel < segment_end
                if more:
                    load_window(x, bias, framed, position, staged, channel, in_channels, channel_step, chunk, copies)
                    if early:
                        store_window(floats, staged, store_at, staged_size)
                    if batched:
                        copy_weights(memory, weight, staged_pairs, weight_at, store_pair, thread, pairs)
                    else:
                        load_weights(weight, staged_pairs, weight_at, thread, pairs)
                x_row, w_row = x_at, w_at
                for _ in range(np.int32(rounds_of_rows)):
                    next_round = np.uint32(x_row + np.uint32(round_units))
                    for _ in range(np.int32(kernel_d)):
                        if unrolled:
                            add_row(sums, values, weights, floats, x_row, w_row, 0, 0, spans, taps_of)
                            if kernel_h > 1:
                                add_row(
                                    sums, values, weights, floats, x_row, w_row, row_apart, row_weights, spans, taps_of
                                )
                            if kernel_h > 2:
                                add_row(
                                    sums,
                                    values,
                                    weights,
                                    floats,
                                    x_row,
                                    w_row,
                                    2 * row_apart,
                                    2 * row_weights,
                                    spans,
                                    taps_of,
                                )
                            w_row = np.uint32(w_row + np.uint32(kernel_h * row_weights // unit))
                            x_row = np.uint32(x_row + np.uint32(plane // unit))
                        else:
                            x_plane = x_row
                            for _ in range(np.int32(kernel_h)):
                                add_row(sums, values, weights, floats, x_plane, w_row, 0, 0, spans, taps_of)
                                x_plane = np.uint32(x_plane + np.uint32(row_apart // unit))
                                w_row = np.uint32(w_row + np.uint32(row_weights // unit))
                            x_row = np.uint32(x_row + np.uint32(plane // unit))
                    x_row = next_round
                if more and not early:
                    store_window(floats, staged, store_at, staged_size)
                if more and not batched:
                    store_weights(memory, staged_pairs, store_pair, thread, pairs)
                x_at = np.uint32(np.int32(x_at) + flip * np.int32(buffer_units))
                w_at = np.uint32(np.int32(w_at) + flip * np.int32(weight_units))
                store_at = np.uint32(np.int32(store_at) - flip * np.int32(unit * buffer_units))
                store_pair = np.uint32(np.int32(store_pair) - flip * np.int32(pairs))
                flip = np.int32(-flip)
                cuda.syncthreads()

            # The results go through shared memory, so that neighbouring threads store neighbouring pixels.
            last_segment = channel >= in_channels
            stage = np.uint64(np.uint32(channel_group * np.uint32(stage_pitch) + pixel_group * np.uint32(pixels)))
            for part in range(np.int32(parts)):
                for i in range(staged_channels):
                    for j in range(pixels):
                        floats[stage + np.uint64(i * groups * stage_pitch + j)] = sums[i * pixels + j]
                cuda.syncthreads()
                for pixel_round in range(pixel_rounds):
                    pixel = np.uint32(thread + np.uint32(pixel_round * THREADS))
                    oh = kept[0] + np.int32(pixel // np.uint32(width))
                    ow = kept[1] + np.int32(pixel % np.uint32(width))
                    # float64's tile may have fewer pixels than threads.
                    if oh < places[4] and ow < places[5] and (full or pixel < tile_pixels):
                        plane_pixels = np.int64(places[3]) * places[4] * places[5]
                        image_out = np.int64(kept[4]) * (cuda.gridDim.y // places[2]) + kept[5]
                        target = image_out * places[1] * plane_pixels + (kept[2] * places[4] + oh) * places[5] + ow
                        relu = last_segment and places[9] != 0
                        for i in range(staged_channels):
                            co = np.int32(kept[3] + part * np.int32(staged_channels) + np.int32(i))
                            to = np.uint64(target + co * plane_pixels)
                            at = np.uint64(thread) + np.uint64(i * groups * stage_pitch + pixel_round * THREADS)
                            of_bias = np.uint64(kept[5] * places[1] + co)
                            left = np.int32(np.int32(places[1]) - co + 7) >> 3
                            count = np.int32(groups if left > groups else left)
                            for _ in range(count):
                                total = real(0)
                                if not first_segment:
                                    total = out[to]
                                total = total + floats[at]
                                if last_segment:
                                    total = total + bias[of_bias]
                                if relu and total < real(0):
                                    total = real(0)
                                out[to] = total
                                of_bias += np.uint64(8)
                                to += np.uint64(8 * plane_pixels)
                                at += np.uint64(stage_pitch)
                cuda.syncthreads()
                for i in range(moved):
                    sums[i] = sums[i + sums_size - moved]
            if in_channels == 0:
                channel = np.int32(1)

    return kernel(correlate, THREADS, RESIDENT)


def prepare(problem: Problem, machine: Machine, weight: DeviceArray, bias: DeviceArray | None) -> pack.Prepared:
    """Weights in blocks of channels, input channels padded to whole chunks."""
    tile, places, launch = build_for(problem, machine.multiprocessors)
    prepared = pack.prepare(problem, weight, bias, tile.channels, tile.chunk, places, launch)
    # Copied by 64 bits, whatever they are.
    return prepared._replace(weight=prepared.weight.view(np.float64))


@functools.lru_cache(maxsize=256)
def build_for(problem: Problem, multiprocessors: int) -> tuple[Tile, Places, tuple[Any, tuple[int, int]]]:
    """The tile of a Problem, the integers of its launch, and its kernel with the blocks of one image: of a call that
    prepares weights for itself alone they would take 5 us.
    """
    tile = choose(problem, multiprocessors)
    assert tile is not None
    tiles_h, tiles_w = (
        -(-size // step) for size, step in zip((1, *problem.out_spatial)[-2:], (tile.rows, tile.width), strict=True)
    )
    channels = problem.out_channels // problem.groups
    places = Places(
        in_channels=problem.in_channels // problem.groups,
        out_channels=channels,
        channel_blocks=-(-channels // tile.channels),
        out_d=(1, 1, *problem.out_spatial)[-3],
        out_h=(1, *problem.out_spatial)[-2],
        out_w=problem.out_spatial[-1],
        tiles_h=tiles_h,
        tiles_w=tiles_w,
        segment=problem.segments[0] // tile.taps,
        relu=int(problem.activation == "relu"),
    )
    return tile, places, (build(tile), grid(problem, tile)[:2])


def run(problem: Problem, prepared: pack.Prepared, x: DeviceArray, out: Any, stream: Any) -> None:
    """One launch."""
    memory, steps = pack.reached(problem, x, out, stream)
    weight, bias, *tables, (correlate, blocks) = prepared
    correlate[(*blocks, problem.batch), THREADS, stream or 0](memory, weight, bias, out, *tables, *steps)
