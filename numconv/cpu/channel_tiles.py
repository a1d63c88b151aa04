"""Register tiles with output channels in the vector lanes: a run of output pixels times two vectors of channels.

A tap loads two vectors of weights, packed so that they lie together, and broadcasts an input from the window for each
pixel. The lanes are full whatever the map's size, which is where tiles of pixels waste; a stride costs nothing; and a
row of pixels whose kernel rows lie in the padding can leave them out, for a zero term changes no bit. So can, tap by
tap, the first and the last pixels of a row.
Sums are [block of channels and pixel, channel], and are transposed on the way to an output that has its channels first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..aligned import LINE_BYTES
from ..machine import Machine, machine
from ..method import Array
from ..problem import Problem
from .blocks import Blocks
from .channel_runs import LEAST_STEP, ONE_TAP, VECTORS, WHOLE, extent, left_out, run_length, share_left, step_cycles
from .segments import Piece
from .simd.copies import copy_finish_rows, transpose_finish
from .simd.ir import WIDE, address_of, contiguous, vector_lanes
from .simd.shares import njit
from .simd.strided import spread_rows
from .simd.tiles import SEVERAL, call_tile, tile
from .window import Ahead, Tables, Window, all_steps

# Fewer taps than these take less time than copying the sums.
FEW_TAPS = 256
# A bias for each column of the sums, as the length of a tuple.
PER_COLUMN = (0,)
# Pixels of a task at most: with 256, layers of 56x56 and 112x112 took 1.01 to 1.03 times as long.
MAX_PIXELS = 896
# No blocks of whole tiles of 1x1 kernels: each block reads all the weights anew.
WHOLE_TILES = 0
# Rows of more columns are cut: pieces of 38 in rows of 112 took 1.02 times as long as whole ones.
UNCUT_COLUMNS = 112
# A stride stays in the window.
PHASED = False
TILE_START = 60


def unit(machine: Machine, problem: Problem) -> int:
    """Channels that share a block of weights."""
    return VECTORS * machine.lanes(problem.accumulator)


def channel_step(machine: Machine, problem: Problem) -> int:
    """A task's channels are a multiple of this."""
    return unit(machine, problem)


def tiles(problem: Problem, rows: int, columns: int, channels: int, finite: bool) -> Array:
    """The addresses of the tiles that blocks of so many rows, columns and channels may need, where all weights are
    finite or any.

    Of two vectors, then of one; each of several rows, then of one row, then of one finishing row, if any; each for the
    first run, one within, the last.
    """
    height, run = extent(columns)
    group_channels = problem.out_channels // problem.groups
    lanes = machine(1).lanes(problem.accumulator)
    needed = {VECTORS: group_channels > lanes, 1: 0 < group_channels % (VECTORS * lanes) <= lanes}
    ends = left_out(problem, columns) if finite else WHOLE
    kinds = [(together, False) for together in (height, 1)] + [(1, True)] * finishes(problem, rows, columns)
    return np.array(
        [
            tile(together, run, vectors, problem.accumulator, True, finishing, skips).address if needed[vectors] else 0
            for vectors in (VECTORS, 1)
            for together, finishing in kinds
            for skips in ends
        ]
    )


def finishes(problem: Problem, rows: int, columns: int) -> bool:
    """Whether a block has finishing tiles, too: pixels' channels lie together, the taps are few, and tiles are of one
    row. With 16 registers, the masks of what they store would spill sums.
    """
    few = WIDE and 0 < problem.taps <= min(FEW_TAPS, *problem.segments)
    return few and problem.layout == "NHWC" and (columns > run_length(columns) or extent(columns)[0] == 1)


def sums(problem: Problem, machine: Machine, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of the sums of one unit of channels: each row of the map in whole runs."""
    run = run_length(columns)
    return rows * -(-columns // run) * run, unit(machine, problem)


def cycles(problem: Problem, machine: Machine, rows: int, columns: int, channels: int) -> int:
    """A task's time for its sums, in cycles: each worth a fused multiply-add or an aligned load of a vector."""
    (height, run), lanes = extent(columns), machine.lanes(problem.accumulator)
    vectors, least = -(-channels // lanes), ONE_TAP if math.prod(problem.kernel) == 1 else LEAST_STEP
    pairs, single = divmod(vectors, VECTORS)
    together, alone = divmod(rows, height) if columns <= run else (0, rows)
    runs = ((together, height * run), (alone * -(-columns // run), run))

    def step(sums: int) -> int:
        return step_cycles(sums, least)

    # Of one vector, each sum has a load of its own, and takes half as long again.
    tap = sum(n * (pairs * step(VECTORS * pixels) + single * step(3 * pixels // 2)) for n, pixels in runs)
    # A square of the transposition, for each vector of channels and of pixels, or a copy. Whole rows are stored as one;
    # where others are no whole vectors, each store goes to two cache lines.
    squares = rows * -(-columns // lanes) * (2 if columns % lanes else 1)
    if columns == problem.out_spatial[-1]:
        squares = -(-rows * columns // lanes)
    storing = squares * 8 * lanes if problem.layout == "NCHW" else rows * columns * 4
    adding = int(share_left(problem, columns) * problem.taps * tap)
    starting = rows * -(-columns // run) * vectors * TILE_START
    return adding + starting + vectors * storing * (not finishes(problem, rows, columns))


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
    ahead: Ahead,
) -> None:
    """sums[p, c] += weight[t, c] * panel[offset(t) + p] for a piece's taps, by tiles.

    Channels begin at number `channel` of the weights. Tile after tile asks for the weights of the next block of
    channels, or those of the next piece, and then for what lies ahead.
    """
    size, count = blocks.sum_columns, -(-channels // blocks.sum_columns)
    turn: Any = np.intp(0)  # not a literal, which would be another type
    for block in range(count):
        pitch, start = weights_of(block, piece.tap, channel, channels, window, blocks)
        last = block + 1 == count
        next_block, tap = (0, piece.tap + piece.planes * window.taps) if last else (block + 1, piece.tap)
        next_pitch, later = weights_of(next_block, tap, channel, channels, window, blocks)
        plane = window.taps * next_pitch * weight.itemsize
        lines = blocks.far * -(-plane // LINE_BYTES)
        soon = Ahead(address_of(weight) + later * weight.itemsize, 0, plane, 1, lines)
        part, rows = sums[block * blocks.sum_rows * size :], weight[0, start:]
        tiles = tables.tiles[0 if pitch > vector_lanes(sums) else len(tables.tiles) // 2 :]
        turn = sweep(tiles, part, rows, pitch, panel, piece, tables, window, blocks, soon, ahead, turn)


@njit()
def weights_of(block: int, tap: int, channel: int, channels: int, window: Window, blocks: Blocks) -> tuple[int, int]:
    """(channels, first element) of the weights of a block of channels, from a tap on; no channels beyond the last."""
    size, taps = blocks.sum_columns, window.total_planes * window.taps
    pitch = min(size, channels - block * size) if tap < taps else 0
    return pitch, blocks.first_weight + (channel + block * size) * taps + tap * pitch


@njit()
def sweep(
    tiles: Array,
    sums: Array,
    weight: Array,
    pitch: int,
    panel: Array,
    piece: Piece,
    tables: Tables,
    window: Window,
    blocks: Blocks,
    soon: Ahead,
    ahead: Ahead,
    turn: int,
) -> int:
    """All tiles of a block of channels: several rows at a time where one run spans a row, else run by run. They ask
    for `soon`, several lines at a time, and then for the lines of `ahead`, from number `turn` on, and return the next
    one's.
    """
    first_line = ahead.address + piece.tap // window.taps * ahead.plane_pitch
    run, width, places = blocks.tile_run, blocks.sum_columns, window.pitch
    planes, fresh = piece.planes, piece.fresh
    columns, step, size = blocks.sum_rows // window.block_rows // run, window.column_step, window.plane_size
    first_run, last_run = piece.ow // window.block_columns * columns, blocks.column_blocks * columns - 1
    row, asked = 0, 0
    while row < piece.rows:
        low, high = tap_range(piece.oh + row, piece, tables, window, blocks)
        rows = blocks.tile_rows
        if columns > 1 or row + rows > piece.rows or high - low < piece.end - piece.first:
            # A row that leaves taps out goes alone.
            rows = 1
        else:
            # The rows below meet all taps that there are, or zeros.
            low, high = piece.first, piece.end
        kinds, steps, gap = tiles[0 if rows > 1 else len(WHOLE) :], high - low, (window.taps - (high - low)) * pitch
        offsets, start = tables.offsets[low:high], weight[low * pitch :]
        if piece.fresh and low == high:
            sums[row * columns * run * width : (row + rows) * columns * run * width] = 0
        for column in range(-(-piece.columns // run) if low < high else 0):
            source = panel[row * places + column * run * step :]
            target = sums[(row * columns + column) * run * width :]
            later, line = divmod(turn, ahead.lines)
            there, further, several = 0, 0, 0
            if asked < soon.lines:
                there, further, several = soon.address + asked * LINE_BYTES, soon.plane_pitch, 1
                asked += SEVERAL
            elif later < ahead.rows:
                there, further = first_line + later * ahead.row_pitch + line * LINE_BYTES, ahead.plane_pitch
                turn += 1
            number = first_run + column
            call_tile(
                kinds[0 if number == 0 else 2 if number == last_run else 1],
                source,
                places,
                step,
                start,
                offsets,
                steps,
                planes,
                size,
                pitch,
                gap,
                target,
                width,
                fresh,
                there,
                further,
                several,
                start,
                0,
                0,
                0,
            )
        row += rows
    return turn


@njit()
def tap_range(oh: int, piece: Piece, tables: Tables, window: Window, blocks: Blocks) -> tuple[int, int]:
    """The piece's taps of a plane, or those of them that meet the input in an output row."""
    if blocks.skip and piece.end - piece.first == window.taps and oh < len(tables.first_tap):
        return tables.first_tap[oh], tables.end_tap[oh]
    return piece.first, piece.end


@njit()
def can_finish(out: Array, tables: Tables, window: Window) -> bool:
    """Whether tiles write to the output themselves: the block has finishing ones, and the window holds all planes."""
    finishing = len(tables.tiles) > 4 * len(WHOLE) and out.strides[1] == out.itemsize
    return finishing and window.planes >= window.total_planes


@njit()
def finish(
    out: Array,
    weight: Array,
    bias: Array,
    n: int,
    channel: int,
    channels: int,
    panel: Array,
    od: int,
    oh: int,
    ow: int,
    tables: Tables,
    window: Window,
    blocks: Blocks,
) -> None:
    """out[n, channel:, od, oh:, ow:], channels last, = the block's sums, with bias and activation, run by run."""
    columns, rows = min(window.block_columns, out.shape[4] - ow), min(window.block_rows, out.shape[3] - oh)
    size, run, step, taps = blocks.sum_columns, blocks.tile_run, window.column_step, window.total_planes * window.taps
    apart, in_row = out.strides[4] // out.itemsize, blocks.sum_rows // window.block_rows // run
    steps, planes, plane_size = all_steps(window)
    piece = Piece(0, 0, steps, planes, 1, oh, ow, rows, columns)
    first_run, last_run = ow // window.block_columns * in_row, blocks.column_blocks * in_row - 1
    for first in range(0, channels, size):
        pitch = min(size, channels - first)
        place = 2 * len(WHOLE) + (0 if pitch > vector_lanes(out) else len(tables.tiles) // 2)
        kinds, own = tables.tiles[place:], weight[0, blocks.first_weight + (channel + first) * taps :]
        for row in range(rows):
            low, high = tap_range(oh + row, piece, tables, window, blocks)
            if low == high:  # no tap meets the input: all of them add up zeros
                low, high = 0, steps
            start = own[low * pitch :]
            for column in range(0, columns, run):
                number = first_run + column // run
                call_tile(
                    kinds[0 if number == 0 else 2 if number == last_run else 1],
                    panel[row * window.pitch + column * step :],
                    0,
                    step,
                    start,
                    tables.offsets[low:high],
                    high - low,
                    planes,
                    plane_size,
                    pitch,
                    (steps - (high - low)) * pitch,
                    out[n, channel + first, od, oh + row, ow + column :],
                    apart,
                    1,
                    0,
                    0,
                    0,
                    bias[channel + first :],
                    blocks.relu,
                    columns - column,
                    pitch,
                )


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
    aside: Array,
    window: Window,
    blocks: Blocks,
) -> None:
    """out[n, channel:, od, oh:, ow:] = the transposed sums, or, channels last, the sums as they lie, with bias and
    activation.

    Where an output's pixels are not neighbours, a square of the transposed, or what there is room for, goes aside
    first.
    """
    size, lanes, step = blocks.sum_columns, vector_lanes(out), out.strides[4] // out.itemsize
    columns, rows = min(window.block_columns, out.shape[4] - ow), min(window.block_rows, out.shape[3] - oh)
    width = blocks.sum_rows // window.block_rows
    if not contiguous(out) and out.strides[1] == out.itemsize:
        for first in range(0, channels, size):
            count, shifts = min(size, channels - first), bias[channel + first :]
            for row in range(rows):
                source = sums[first * blocks.sum_rows + row * width * size :]
                place = out[n, channel + first, od, oh + row, ow:]
                copy_finish_rows(source, size, place, step, columns, count, shifts, blocks.relu)
        return
    if columns == width == out.shape[4] and out.strides[3] == columns * out.strides[4]:
        # Neither the sums nor the output have anything between their rows.
        rows, columns = 1, rows * columns
    apart, most = out.strides[1] // out.itemsize, lanes
    in_row = out.strides[3] // out.itemsize
    while step != 1 and most > 1 and (most + 1) * lanes > len(aside):
        most //= 2
    for first in range(0, channels, most):
        count, shifts, block = min(most, channels - first), bias[channel + first :], first // size
        for row in range(rows):
            # The same pixels of the next row, or of the next channels, lie far off, where no hardware looks ahead.
            later = in_row if row + 1 < rows else most * apart - row * in_row
            later *= step == 1 and (row + 1 < rows or first + most < channels)
            for j in range(0, columns, lanes):
                down, right = divmod(ow + j, out.shape[4])
                place = out[n, channel + first, od, oh + row + down, right:]
                square = sums[(block * blocks.sum_rows + row * width + j) * size + first % size :]
                pixels = min(lanes, columns - j)
                target, pitch = (place, apart) if step == 1 else (aside, lanes)
                transpose_finish(PER_COLUMN, square, size, target, pitch, pixels, count, shifts, blocks.relu, later)
                if step != 1:
                    # The next row lies far off, where no hardware looks ahead.
                    ahead = in_row if row + 1 < rows else 0
                    spread_rows(place, apart, step, aside, lanes, count, pixels, ahead)
