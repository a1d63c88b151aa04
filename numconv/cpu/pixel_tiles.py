"""Register tiles with pixels in the vector lanes: some output channels times some vectors of neighbouring pixels.

A tap loads the vectors from the window and broadcasts a weight for each channel, from where the caller has it. The
vectors run over the ends of rows, at the price of the few pixels between rows, which nobody reads.
Sums are [channel, pixel of the window]. Where there are few taps, tiles keep to one row each, and write their sums to
the output themselves: with 27 taps, copying the sums took a third of the time. Of a single tap, the tiles of the first
channels fill the window, too, with the vectors that they read from the input.
"""

from __future__ import annotations

import math

import numpy as np

from ..machine import Machine, machine
from ..method import Array
from ..problem import Problem
from .blocks import Blocks
from .channel_runs import LEAST_STEP, step_cycles
from .segments import Piece
from .simd.copies import copy_finish, transpose_finish
from .simd.ir import WIDE, address_of, contiguous, vector_lanes
from .simd.shares import njit
from .simd.strided import spread_rows
from .simd.tiles import NOTHING, call_tile, tile
from .window import WINDOW_BYTES, Tables, Window, all_steps
from .window_axes import meets_in_turn, pitch, readable, window_elements

# Channels and vectors of a tile: the largest has 24 sums, 3 inputs and a weight in 32 registers, or 8, 2 and 1 in 16.
CHANNELS, FEW_CHANNELS = (8, 2) if WIDE else (4, 2)
VECTORS = 3 if WIDE else 2
# Pixels of a task at most: its sums, for 64 channels, take a quarter of a megabyte of the second-level cache.
MAX_PIXELS = 1024
# Rows of more columns are cut.
UNCUT_COLUMNS = 384
# Blocks of 1x1 kernels may be so many whole tiles wide.
WHOLE_TILES = 10
# A bias for each row of the sums, as the length of a tuple.
PER_ROW = (0, 0)
# Neighbouring pixels lie together in the window.
PHASED = True
# Cycles that a tile takes to start and to load and store its sums, for each piece of a window.
TILE_START = 40
# How much longer sums of one tap take: each vector of a window serves one step, and comes from a far cache; and those
# that tiles finish at once.
ONE_TAP, ONE_TAP_FINISHED = 1.35, 0.95
# Cycles that copying a vector of sums to the output takes, and waiting for the output's lines: worth so many taps.
COPYING = 8
# Kinds of tiles by channels and vectors, fewer for what is left of a row; behind their addresses, where blocks want
# them, those of finishing ones, and behind these, those of copying ones.
EXTENTS = tuple((height, vectors) for height in (CHANNELS, FEW_CHANNELS, 1) for vectors in range(VECTORS, 0, -1))


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
    finishing = finishes(problem, rows, columns)
    runs, vectors = (
        (rows, -(-columns // lanes)) if finishing else (1, sums(problem, machine, rows, columns)[1] // lanes)
    )
    wide, left = divmod(vectors, VECTORS)
    widths = ((VECTORS, runs * wide), (left, runs * (left > 0)))
    # Vectors from the window straddle cache lines: two loads each.
    adding = sum(
        n * m * (problem.taps * max(step_cycles(h * v, LEAST_STEP), 2 * v + h) + TILE_START)
        for h, n in heights
        for v, m in widths
    )
    if math.prod(problem.kernel) == 1:
        adding = int(adding * (ONE_TAP_FINISHED if finishing else ONE_TAP))
    if finishing:
        return adding
    if problem.layout != "NCHW":
        return adding + rows * -(-channels // lanes) * -(-columns // lanes) * 8 * lanes
    return adding + channels * rows * (20 + 6 * columns // lanes)


def finishes(problem: Problem, rows: int, columns: int) -> bool:
    """Whether a block's tiles are finishing ones: its window holds all planes, a segment has all taps, and the vectors
    that the ends of rows waste are cheaper than copies of all. Tiles of few channels are too short to start so often.
    """
    if problem.layout != "NCHW" or problem.taps > min(problem.segments) or not problem.taps:
        return False
    if problem.out_channels < CHANNELS * problem.groups:
        return False
    lanes = machine(1).lanes(problem.accumulator)
    in_rows = rows * -(-columns // lanes)
    in_a_run = -(-((rows - 1) * pitch(problem, columns, PHASED) + columns) // lanes)
    in_window = window_elements(problem, rows, columns, PHASED) * problem.accumulator.itemsize <= WINDOW_BYTES
    cheaper = problem.taps * (in_rows - in_a_run) <= COPYING * in_rows
    return cheaper and in_window


def extent(columns: int) -> tuple[int, int]:
    """Rows and run of a tile with channels in the lanes: none."""
    return 0, 0


def tiles(problem: Problem, rows: int, columns: int, channels: int, finite: bool) -> Array:
    """The addresses of the tiles that blocks of so many rows, columns and channels may need, whatever the weights."""
    found = [kinds(problem, channels)]
    if finishes(problem, rows, columns):
        found.append(kinds(problem, channels, finishing=True))
    if copies(problem, rows, columns):
        found.append(kinds(problem, channels, finishing=True, copying=True))
    return np.concatenate(found)


def copies(problem: Problem, rows: int, columns: int) -> bool:
    """Whether a block's finishing tiles fill the window: with whole vectors of the input, which one tap meets."""
    in_block = columns, problem.out_spatial[-1] % columns
    whole = not any(pixels % machine(1).lanes(problem.accumulator) for pixels in in_block)
    return whole and readable(problem) and meets_in_turn(problem) and finishes(problem, rows, columns)


def kinds(problem: Problem, channels: int, finishing: bool = False, copying: bool = False) -> Array:
    """The addresses of EXTENTS, of those that blocks of so many channels may need: of few channels, for what is left of
    a group's.
    """
    group = problem.out_channels // problem.groups
    few, left = divmod(group % CHANNELS, FEW_CHANNELS)
    needed = {CHANNELS: min(channels, group) >= CHANNELS, FEW_CHANNELS: few > 0, 1: left > 0}
    return np.array(
        [
            tile(height, 1, vectors, problem.accumulator, False, finishing, NOTHING, copying).address
            if needed[height]
            else 0
            for height, vectors in EXTENTS
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
    taps, offsets = window.total_planes * window.taps, tables.offsets[piece.first : piece.end]
    rows, gap = weight[channel * taps + piece.tap + piece.first :], window.taps - len(offsets)
    tiles, size = tables.tiles, window.plane_size
    pitch, planes, fresh, lanes = blocks.sum_columns, piece.planes, piece.fresh, vector_lanes(sums)
    width = -(-((piece.rows - 1) * window.pitch + piece.columns) // lanes) * lanes
    sweep(tiles, sums, pitch, width, channels, rows, taps, 1, gap, panel, offsets, planes, size, fresh)


@njit()
def sweep(
    tiles: Array,
    sums: Array,
    pitch: int,
    width: int,
    channels: int,
    weight: Array,
    channel_step: int,
    tap_step: int,
    gap: int,
    panel: Array,
    offsets: Array,
    planes: int,
    plane_size: int,
    fresh: int,
) -> None:
    """sums[c * pitch + p] += weight[c * channel_step + t * tap_step] * panel[offsets[t] + p] for whole vectors of p, as
    many as are in `width`; of further planes, the weights lie `gap` behind the last tap's.

    The tiles of most channels and of the wide row of vectors come first.
    """
    lanes = vector_lanes(sums)
    c = 0
    while c < channels:
        left = channels - c
        kind = 0 if left >= CHANNELS else 1 if left >= FEW_CHANNELS else 2
        p = 0
        while p < width:
            vectors = min(VECTORS, (width - p) // lanes)
            call_tile(
                tiles[VECTORS * kind + VECTORS - vectors],
                weight[c * channel_step :],
                channel_step,
                0,
                panel[p:],
                offsets,
                len(offsets),
                planes,
                plane_size,
                tap_step,
                gap,
                sums[c * pitch + p :],
                pitch,
                fresh,
                0,
                0,
                0,
                weight,
                0,
                0,
                0,
            )
            p += vectors * lanes
        c += CHANNELS if kind == 0 else FEW_CHANNELS if kind == 1 else 1


@njit()
def can_finish(out: Array, tables: Tables, window: Window) -> bool:
    """Whether tiles write to the output themselves: the block has finishing ones, and the window holds all planes."""
    finishing = len(tables.tiles) > len(EXTENTS) and out.strides[4] == out.itemsize
    return finishing and window.planes >= window.total_planes


@njit()
def can_copy(x: Array, tables: Tables) -> bool:
    """Whether tiles fill the window themselves: the block has copying ones, and the input's pixels lie together."""
    return len(tables.tiles) > 2 * len(EXTENTS) and x.strides[3] == x.itemsize


@njit()
def finish(
    out: Array,
    x: Array,
    weight: Array,
    bias: Array,
    n: int,
    channel: int,
    channels: int,
    ready: int,
    panel: Array,
    od: int,
    oh: int,
    ow: int,
    tables: Tables,
    window: Window,
    blocks: Blocks,
) -> None:
    """out[n, channel:, od, oh:, ow:] = the block's sums, with bias and activation, by tiles that take a part of one row
    each. Those of the first channels fill the window from x (c, d, h, w), unless it is ready.
    """
    columns, rows = min(window.block_columns, out.shape[4] - ow), min(window.block_rows, out.shape[3] - oh)
    lanes, taps, apart = vector_lanes(out), window.total_planes * window.taps, out.strides[1] // out.itemsize
    end = channel + channels
    steps, planes, plane_size = all_steps(window)
    while channel < end:
        tiles = tables.tiles[(1 if ready else 2) * len(EXTENTS) :]
        kind = 0 if end - channel >= CHANNELS else 1 if end - channel >= FEW_CHANNELS else 2
        for row in range(rows):
            p = 0
            while p < columns:
                vectors = min(VECTORS, (columns - p + lanes - 1) // lanes)
                origin = 0 if ready else address_of(x[0, od, oh + row, ow + p :])
                call_tile(
                    tiles[VECTORS * kind + VECTORS - vectors],
                    weight[channel * taps :],
                    taps,
                    0,
                    panel[row * window.pitch + p :],
                    tables.offsets,
                    steps,
                    planes,
                    plane_size,
                    1,
                    0,
                    out[n, channel, od, oh + row, ow + p :],
                    apart,
                    1,
                    origin,
                    x.strides[0],
                    0,
                    bias[channel:],
                    blocks.relu,
                    CHANNELS,
                    columns - p,
                )
                p += vectors * lanes
        channel += CHANNELS if kind == 0 else FEW_CHANNELS if kind == 1 else 1
        ready = 1


@njit()
def store(
    out: Array,
    sums: Array,
    bias: Array,
    n: int,
    channel: int,
    channels: int,
    od: int,
    oh: int,
    ow: int,
    window: Window,
    blocks: Blocks,
) -> None:
    """out[n, channel:, od, oh:, ow:] = the block's sums, transposed for channels last, with bias and activation.

    Where an output's pixels are not neighbours, the sums are finished where they lie.
    """
    columns, rows = min(window.block_columns, out.shape[4] - ow), min(window.block_rows, out.shape[3] - oh)
    pitch, step = blocks.sum_columns, out.strides[4] // out.itemsize
    if not contiguous(out) and out.strides[1] == out.itemsize:
        lanes = vector_lanes(out)
        for row in range(rows):
            for j in range(0, columns, lanes):
                pixels = min(lanes, columns - j)
                for first in range(0, channels, lanes):
                    square, shifts = sums[first * pitch + row * window.pitch + j :], bias[channel + first :]
                    place = out[n, channel + first, od, oh + row, ow + j :]
                    count = min(lanes, channels - first)
                    transpose_finish(PER_ROW, square, pitch, place, step, count, pixels, shifts, blocks.relu, 0)
        return
    for c in range(channels):
        # The same row of the next channel lies far off, where no hardware looks ahead.
        ahead = out.strides[1] // out.itemsize if c + 1 < channels else 0
        for row in range(rows):
            source, place = sums[c * pitch + row * window.pitch :], out[n, channel + c, od, oh + row, ow:]
            if step == 1:
                copy_finish(source, place, columns, bias[channel + c], blocks.relu, ahead)
            else:
                # Rows may share a few sums, which the row above has finished.
                done = max(columns - window.pitch, 0) if row else 0
                copy_finish(source[done:], source[done:], columns - done, bias[channel + c], blocks.relu, 0)
                spread_rows(place, 0, step, source, 0, 1, columns, ahead)
