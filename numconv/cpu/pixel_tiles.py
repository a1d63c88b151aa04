"""Register tiles with pixels in the vector lanes: some output channels times some vectors of neighbouring pixels.

A tap loads the vectors from the window and broadcasts a weight for each channel, from where the caller has it. The
vectors run over the ends of rows, at the price of the few pixels between rows, which nobody reads.
Sums are [channel, pixel of the window].
"""

from __future__ import annotations

from ..jit import njit
from ..machine import Machine, machine
from ..method import Array
from ..problem import Problem
from .simd import tile_pixels, vector_lanes
from .window import Window, pitch

# A tile's extents are the lengths of tuples: a kernel reads them from the type, at compile time. The largest has 24
# sums, 3 inputs and a weight in 32 registers, or 8, 2 and 1 in 16.
Extent = tuple[int, ...]
ONE: Extent = (0,)
FEW_CHANNELS: Extent = (0,) * 2
CHANNELS: Extent = (0,) * (8 if machine(1).vector_bytes == 64 else 4)
VECTORS: Extent = (0,) * (3 if machine(1).vector_bytes == 64 else 2)
# Pixels of a task at most: its sums, for 64 channels, take a quarter of a megabyte of the second-level cache.
MAX_PIXELS = 1024
# Cycles that a tile takes to start and to load and store its sums, for each piece of a window.
TILE_START = 40


def unit(machine: Machine, problem: Problem) -> int:
    """Channels that share a row of weights."""
    return 1


def channel_step(machine: Machine, problem: Problem) -> int:
    """A task's channels are a multiple of this."""
    return len(CHANNELS)


def sums(problem: Problem, machine: Machine, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of the sums of one unit of channels."""
    lanes = machine.lanes(problem.accumulator)
    return 1, -(-((rows - 1) * pitch(problem, columns) + columns) // lanes) * lanes


def cycles(problem: Problem, machine: Machine, rows: int, columns: int, channels: int) -> int:
    """A task's time for its sums, in cycles: each worth a fused multiply-add or an aligned load of a vector."""
    lanes = machine.lanes(problem.accumulator)
    full, rest = divmod(channels, len(CHANNELS))
    heights = ((len(CHANNELS), full), (len(FEW_CHANNELS), rest // len(FEW_CHANNELS)), (1, rest % len(FEW_CHANNELS)))
    vectors = sums(problem, machine, rows, columns)[1] // lanes
    widths = ((len(VECTORS), vectors // len(VECTORS)), (1, vectors % len(VECTORS)))
    # Vectors from the window straddle cache lines: two loads each.
    adding = sum(n * m * (problem.taps * max(h * v, 2 * v + h) + TILE_START) for h, n in heights for v, m in widths)
    return adding + channels * rows * (20 + 6 * columns // lanes)


@njit()
def accumulate(sums: Array, weight: Array, panel: Array, offsets: Array, window: Window) -> None:
    """sums[c, p] += weight[c, t] * panel[offsets[t] + p], taps in ascending order, by tiles."""
    channels = len(sums)
    full = channels // len(CHANNELS) * len(CHANNELS)
    few = channels // len(FEW_CHANNELS) * len(FEW_CHANNELS)
    for c in range(0, full, len(CHANNELS)):
        sweep(CHANNELS, sums[c:], weight[c:], panel, offsets)
    for c in range(full, few, len(FEW_CHANNELS)):
        sweep(FEW_CHANNELS, sums[c:], weight[c:], panel, offsets)
    for c in range(few, channels):
        sweep(ONE, sums[c:], weight[c:], panel, offsets)


@njit()
def sweep(channels: Extent, sums: Array, weight: Array, panel: Array, offsets: Array) -> None:
    """Some channels' tiles, from the first pixel to the last."""
    pitch, steps = sums.shape[1], len(offsets)
    lanes = vector_lanes(sums)
    weight_pitch = weight.strides[0] // weight.itemsize
    wide = pitch // lanes // len(VECTORS) * len(VECTORS) * lanes
    for p in range(0, wide, len(VECTORS) * lanes):
        tile_pixels(channels, ONE, VECTORS, weight, weight_pitch, panel[p:], offsets, steps, sums[:, p:], pitch)
    for p in range(wide, pitch, lanes):
        tile_pixels(channels, ONE, ONE, weight, weight_pitch, panel[p:], offsets, steps, sums[:, p:], pitch)


@njit()
def store(out: Array, sums: Array, bias: Array, oh: int, ow: int, window: Window, relu: int) -> None:
    """out[co, oh:, ow:] = the block's sums, with bias and activation."""
    zero = out.dtype.type(0)
    columns = min(window.block_columns, out.shape[2] - ow)
    for row in range(min(window.block_rows, out.shape[1] - oh)):
        for channel in range(len(out)):
            target = out[channel, oh + row, ow : ow + columns]
            source = sums[channel, row * window.pitch : row * window.pitch + columns]
            for j in range(columns):
                value = source[j] + bias[channel]
                target[j] = zero if relu and value < 0 else value
