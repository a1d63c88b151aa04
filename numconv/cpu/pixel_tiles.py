"""Register tiles with pixels in the vector lanes: some output channels times some vectors of neighbouring pixels.

A tap loads the vectors from the window and broadcasts a weight for each channel, from where the caller has it. The
vectors run over the ends of rows, at the price of the few pixels between rows, which nobody reads.
Sums are [channel, pixel of the window].
"""

from __future__ import annotations

import numpy as np

from ..jit import njit
from ..machine import Machine
from ..method import Array
from ..problem import Problem
from .blocks import Blocks
from .segments import Piece
from .simd.copies import copy_finish, transpose_finish
from .simd.ir import WIDE, vector_lanes
from .simd.tiles import call_tile, tile
from .window import Tables, Window, pitch

# Channels and vectors of a tile: the largest has 24 sums, 3 inputs and a weight in 32 registers, or 8, 2 and 1 in 16.
CHANNELS, FEW_CHANNELS = (8, 2) if WIDE else (4, 2)
VECTORS = 3 if WIDE else 2
# Pixels of a task at most: its sums, for 64 channels, take a quarter of a megabyte of the second-level cache.
MAX_PIXELS = 1024
LEAST_COLUMNS = 512
# A bias for each row of the sums, as the length of a tuple.
PER_ROW = (0, 0)
# Neighbouring pixels lie together in the window.
PHASED = True
# Cycles that a tile takes to start and to load and store its sums, for each piece of a window.
TILE_START = 40


def unit(machine: Machine, problem: Problem) -> int:
    """Channels that share a row of weights."""
    return 1


def channel_step(machine: Machine, problem: Problem) -> int:
    """A task's channels are a multiple of this."""
    return CHANNELS


def sums(problem: Problem, machine: Machine, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of the sums of one unit of channels."""
    lanes = machine.lanes(problem.accumulator)
    return 1, -(-((rows - 1) * pitch(problem, columns, PHASED) + columns) // lanes) * lanes


def cycles(problem: Problem, machine: Machine, rows: int, columns: int, channels: int) -> int:
    """A task's time for its sums, in cycles: each worth a fused multiply-add or an aligned load of a vector."""
    lanes = machine.lanes(problem.accumulator)
    full, rest = divmod(channels, CHANNELS)
    heights = ((CHANNELS, full), (FEW_CHANNELS, rest // FEW_CHANNELS), (1, rest % FEW_CHANNELS))
    vectors = sums(problem, machine, rows, columns)[1] // lanes
    widths = ((VECTORS, vectors // VECTORS), (1, vectors % VECTORS))
    # Vectors from the window straddle cache lines: two loads each.
    adding = sum(n * m * (problem.taps * max(h * v, 2 * v + h) + TILE_START) for h, n in heights for v, m in widths)
    if problem.layout != "NCHW":
        return adding + rows * -(-channels // lanes) * -(-columns // lanes) * 12 * lanes
    return adding + channels * rows * (20 + 6 * columns // lanes)


def extent(columns: int) -> tuple[int, int]:
    """Rows and run of a tile with channels in the lanes: none."""
    return 0, 0


def tiles(problem: Problem, columns: int, channels: int) -> Array:
    """The addresses of the tiles that blocks of so many columns and channels may need: by channels, then by vectors."""
    least = min(channels, problem.out_channels // problem.groups)
    extents = [(height, vectors) for height in (CHANNELS, FEW_CHANNELS, 1) for vectors in (VECTORS, 1)]
    return np.array(
        [
            tile(height, 1, vectors, problem.accumulator, False).address if height <= least else 0
            for height, vectors in extents
        ]
    )


@njit()
def accumulate(
    sums: Array,
    weight: Array,
    channel: int,
    channels: int,
    panel: Array,
    piece: Piece,
    tables: Tables,
    window: Window,
    blocks: Blocks,
) -> None:
    """sums[c, p] += weight[c, t] * panel[offset(t) + p] for a piece's taps, by tiles.

    Channels begin at number `channel` of the weights.
    """
    offsets, rows = tables.offsets[piece.first : piece.end], weight[channel:, piece.tap + piece.first :]
    c = 0
    while c < channels:
        left = channels - c
        if left >= CHANNELS:
            sweep(tables.tiles[0:], sums[c:], rows[c:], panel, offsets, piece, window)
            c += CHANNELS
        elif left >= FEW_CHANNELS:
            sweep(tables.tiles[2:], sums[c:], rows[c:], panel, offsets, piece, window)
            c += FEW_CHANNELS
        else:
            sweep(tables.tiles[4:], sums[c:], rows[c:], panel, offsets, piece, window)
            c += 1


@njit()
def sweep(tiles: Array, sums: Array, weight: Array, panel: Array, offsets: Array, piece: Piece, window: Window) -> None:
    """Some channels' tiles, the wide one and the one of a vector, from the first pixel to the last."""
    steps, size, gap = len(offsets), window.plane_size, window.taps - len(offsets)
    planes, fresh = piece.planes, piece.fresh
    weight_pitch, pitch, lanes = weight.strides[0] // weight.itemsize, sums.shape[1], vector_lanes(sums)
    p = 0
    while p < pitch:
        wide = p + VECTORS * lanes <= pitch
        address, source, target = tiles[0 if wide else 1], panel[p:], sums[0, p:]
        call_tile(
            address, weight, weight_pitch, 0, source, offsets, steps, planes, size, 1, gap, target, pitch, fresh, 0, 0
        )
        p += VECTORS * lanes if wide else lanes


@njit()
def store(out: Array, sums: Array, bias: Array, oh: int, ow: int, window: Window, blocks: Blocks) -> None:
    """out[co, oh:, ow:] = the block's sums, transposed for channels last, with bias and activation."""
    columns, rows = min(window.block_columns, out.shape[2] - ow), min(window.block_rows, out.shape[1] - oh)
    if out.strides[0] == out.itemsize:
        lanes, pitch, apart = vector_lanes(out), sums.shape[1], out.strides[2] // out.itemsize
        for row in range(rows):
            for j in range(0, columns, lanes):
                pixels = min(lanes, columns - j)
                for first in range(0, len(out), lanes):
                    square, place = sums[first, row * window.pitch + j :], out[first, oh + row, ow + j :]
                    channels = min(lanes, len(out) - first)
                    transpose_finish(PER_ROW, square, pitch, place, apart, channels, pixels, bias[first:], blocks.relu)
        return
    for channel in range(len(out)):
        # The same row of the next channel lies far off, where no hardware looks ahead.
        ahead = out.strides[0] // out.itemsize if channel + 1 < len(out) else 0
        for row in range(rows):
            source, target = sums[channel, row * window.pitch :], out[channel, oh + row, ow:]
            copy_finish(source, target, columns, bias[channel], blocks.relu, ahead)
