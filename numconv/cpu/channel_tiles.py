"""Register tiles with output channels in the vector lanes: a run of output pixels times two vectors of channels.

A tap loads two vectors of weights, packed so that they lie together, and broadcasts an input from the window for each
pixel. The lanes are full whatever the map's size, which is where tiles of pixels waste.
Sums are [block of channels and pixel, channel], and are transposed on the way to the output.
"""

from __future__ import annotations

import numpy as np

from ..jit import njit
from ..machine import Machine, machine
from ..method import Array
from ..problem import Problem
from .simd import tile_channels
from .window import Window

# (rows, run) of pixels in a tile, the lengths of tuples: 28 or 24 sums, 2 weights and an input in 32 registers; 12, 2
# and 1 in 16. Several rows at once where one run spans the map.
Extent = tuple[int, ...]
WIDE = machine(1).vector_bytes == 64
ONE: Extent = (0,)
VECTORS: Extent = (0,) * 2
LONG: tuple[Extent, Extent] = (ONE, (0,) * (14 if WIDE else 6))
SHORT: tuple[Extent, Extent] = ((0,) * 2, (0,) * (7 if WIDE else 3))
SHORTEST: tuple[Extent, Extent] = ((0,) * 3, (0,) * (4 if WIDE else 2))
RUNS = tuple(len(run) for _, run in (LONG, SHORT, SHORTEST))
MAX_PIXELS = 256
TILE_START = 60


def unit(machine: Machine, problem: Problem) -> int:
    """Channels that share a row of weights."""
    return len(VECTORS) * machine.lanes(problem.accumulator)


def channel_step(machine: Machine, problem: Problem) -> int:
    """A task's channels are a multiple of this."""
    return unit(machine, problem)


def run_length(columns: int) -> int:
    """Pixels of a run: the length that covers a row with the least waste, longer first."""
    return min(RUNS, key=lambda run: -(-columns // run) * run)


def sums(problem: Problem, machine: Machine, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of the sums of one unit of channels: each row of the map in whole runs."""
    run = run_length(columns)
    return rows * -(-columns // run) * run, unit(machine, problem)


def cycles(problem: Problem, machine: Machine, rows: int, columns: int, channels: int) -> int:
    """A task's time for its sums, in cycles: each worth a fused multiply-add or an aligned load of a vector."""
    run = run_length(columns)
    runs = -(-channels // unit(machine, problem)) * rows * -(-columns // run)
    adding = runs * (problem.taps * max(run * len(VECTORS), run + len(VECTORS)) + TILE_START)
    return adding + channels * rows * (10 + columns)


def pack(weight: Array, lanes: int) -> Array:
    """(groups, co, taps) as (groups, blocks, taps, lanes), zeros behind the last channel."""
    groups, channels, taps = weight.shape
    packed = np.zeros((groups, -(-channels // lanes), taps, lanes), weight.dtype)
    for block in range(packed.shape[1]):
        part = weight[:, block * lanes : (block + 1) * lanes]
        packed[:, block, :, : part.shape[1]] = part.transpose(0, 2, 1)
    return packed


@njit()
def accumulate(sums: Array, weight: Array, panel: Array, offsets: Array, window: Window) -> None:
    """sums[p, c] += weight[t, c] * panel[offsets[t] + pixel p], taps in ascending order, by tiles, block by block."""
    pixels = len(sums) // len(weight)
    for block in range(len(weight)):
        part = sums[block * pixels : (block + 1) * pixels]
        run = pixels // window.block_rows
        if run % len(LONG[1]) == 0:
            sweep(LONG[0], LONG[1], part, weight[block], panel, offsets, window)
        elif run % len(SHORT[1]) == 0:
            sweep(SHORT[0], SHORT[1], part, weight[block], panel, offsets, window)
        else:
            sweep(SHORTEST[0], SHORTEST[1], part, weight[block], panel, offsets, window)


@njit()
def sweep(rows: Extent, run: Extent, sums: Array, weight: Array, panel: Array, offsets: Array, window: Window) -> None:
    """All tiles of a block: several rows at a time where one run spans a row, else run by run."""
    steps, pitch, columns = len(offsets), sums.shape[1], len(sums) // window.block_rows // len(run)
    together = window.block_rows // len(rows) * len(rows) if columns == 1 else 0
    for row in range(0, together, len(rows)):
        at, pixel = row * window.pitch, row * len(run)
        tile_channels(rows, run, VECTORS, panel[at:], window.pitch, weight, offsets, steps, sums[pixel:], pitch)
    for row in range(together, window.block_rows):
        for column in range(columns):
            at, pixel = row * window.pitch + column * len(run), (row * columns + column) * len(run)
            tile_channels(ONE, run, VECTORS, panel[at:], window.pitch, weight, offsets, steps, sums[pixel:], pitch)


@njit()
def store(out: Array, sums: Array, bias: Array, oh: int, ow: int, window: Window, relu: int) -> None:
    """out[co, oh:, ow:] = the transposed sums, with bias and activation."""
    zero = out.dtype.type(0)
    lanes = sums.shape[1]
    pixels = len(sums) // -(-len(out) // lanes)
    width = pixels // window.block_rows
    columns = min(window.block_columns, out.shape[2] - ow)
    for row in range(min(window.block_rows, out.shape[1] - oh)):
        for channel in range(len(out)):
            target = out[channel, oh + row, ow : ow + columns]
            first = channel // lanes * pixels + row * width
            source = sums[first : first + columns, channel % lanes]
            for j in range(columns):
                value = source[j] + bias[channel]
                target[j] = zero if relu and value < 0 else value
