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
from .blocks import Blocks
from .simd.copies import copy_finish
from .simd.ir import vector_lanes
from .simd.tiles import tile_pixels
from .window import Tables, Window, pitch

# A tile's extents are the lengths of tuples: a kernel reads them from the type, at compile time. The largest has 24
# sums, 3 inputs and a weight in 32 registers, or 8, 2 and 1 in 16.
Extent = tuple[int, ...]
ONE: Extent = (0,)
FEW_CHANNELS: Extent = (0,) * 2
CHANNELS: Extent = (0,) * (8 if machine(1).vector_bytes == 64 else 4)
VECTORS: Extent = (0,) * (3 if machine(1).vector_bytes == 64 else 2)
# Pixels of a task at most: its sums, for 64 channels, take a quarter of a megabyte of the second-level cache.
MAX_PIXELS = 1024
LEAST_COLUMNS = 512
# Neighbouring pixels lie together in the window.
PHASED = True
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
    return 1, -(-((rows - 1) * pitch(problem, columns, PHASED) + columns) // lanes) * lanes


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
def accumulate(
    sums: Array,
    weight: Array,
    channel: int,
    channels: int,
    tap: int,
    panel: Array,
    first: int,
    end: int,
    planes: int,
    fresh: int,
    oh: int,
    tables: Tables,
    window: Window,
    blocks: Blocks,
) -> None:
    """sums[c, p] += weight[c, t] * panel[offset(t) + p]: the taps from first to end of each plane, by tiles.

    Fresh sums start from zero. Channels begin at number `channel` of the weights, and the first plane's tap 0 is
    number `tap`.
    """
    full = channels // len(CHANNELS) * len(CHANNELS)
    few = channels // len(FEW_CHANNELS) * len(FEW_CHANNELS)
    offsets, rows = tables.offsets[first:end], weight[channel:, tap + first :]
    for c in range(0, full, len(CHANNELS)):
        sweep(CHANNELS, sums[c:], rows[c:], panel, offsets, planes, fresh, window)
    for c in range(full, few, len(FEW_CHANNELS)):
        sweep(FEW_CHANNELS, sums[c:], rows[c:], panel, offsets, planes, fresh, window)
    for c in range(few, channels):
        sweep(ONE, sums[c:], rows[c:], panel, offsets, planes, fresh, window)


@njit()
def sweep(
    channels: Extent, sums: Array, weight: Array, panel: Array, offsets: Array, planes: int, fresh: int, window: Window
) -> None:
    """Some channels' tiles, from the first pixel to the last."""
    pitch, lanes = sums.shape[1], vector_lanes(sums)
    wide = pitch // lanes // len(VECTORS) * len(VECTORS) * lanes
    for p in range(0, wide, len(VECTORS) * lanes):
        tile(channels, VECTORS, sums[:, p:], weight, panel[p:], offsets, planes, fresh, window)
    for p in range(wide, pitch, lanes):
        tile(channels, ONE, sums[:, p:], weight, panel[p:], offsets, planes, fresh, window)


@njit()
def tile(
    channels: Extent,
    vectors: Extent,
    sums: Array,
    weight: Array,
    panel: Array,
    offsets: Array,
    planes: int,
    fresh: int,
    window: Window,
) -> None:
    """One tile, at the start of sums, weights and panel."""
    steps, size, gap = len(offsets), window.plane_size, window.taps - len(offsets)
    pitches = weight.strides[0] // weight.itemsize, sums.strides[0] // sums.itemsize
    tile_pixels(
        channels,
        ONE,
        vectors,
        weight,
        pitches[0],
        0,
        panel,
        offsets,
        steps,
        planes,
        size,
        1,
        gap,
        sums,
        pitches[1],
        fresh,
    )


@njit()
def store(out: Array, sums: Array, bias: Array, oh: int, ow: int, window: Window, blocks: Blocks) -> None:
    """out[co, oh:, ow:] = the block's sums, with bias and activation."""
    columns, rows = min(window.block_columns, out.shape[2] - ow), min(window.block_rows, out.shape[1] - oh)
    for channel in range(len(out)):
        for row in range(rows):
            source, target = sums[channel, row * window.pitch :], out[channel, oh + row, ow:]
            copy_finish(source, target, columns, bias[channel], blocks.relu)
