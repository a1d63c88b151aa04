"""Runs: which tiles with channels in the lanes cover the rows of a block, and which products they leave out."""

from __future__ import annotations

import functools
import math

import numpy as np

from ..method import Array
from ..problem import Problem
from .blocks import skips_taps
from .operands import meets
from .simd.ir import WIDE
from .simd.tiles import NOTHING, Skips
from .window_axes import readable, tap_ranges

# Vectors of channels in a tile, and its (rows, run) of pixels: 28 to 16 sums, 2 weights and an input in 32 registers;
# 12, 2 and 1 in 16. Several rows at once where one run spans the map.
VECTORS = 2
EXTENTS: tuple[tuple[int, int], ...] = ((1, 6), (1, 5), (1, 4), (2, 3), (3, 2))
if WIDE:
    EXTENTS = ((1, 14), (1, 13), (1, 12), (1, 10), (1, 9), (1, 8), (2, 7), (2, 5), (3, 4))
# For maps of one to three columns alone, such as the gradients of weights: a run of 4 wastes a quarter there, and more
# rows than these have addresses that spill.
NARROW = {1: (10, 1), 2: (6, 2), 3: (3, 3)} if WIDE else {1: (6, 1)}
RUNS = tuple(run for _, run in EXTENTS)
# The longest kernel row whose taps leave out pixels: it is one step of the tile, and longer ones spill, with some runs
# earlier than with others. Leaving out less than such a share of a row is not worth tiles of its own.
MOST_TAPS, LONGEST_ROW = {2: 1, 4: 3} if WIDE else {5: 5}, 7
LEAST_LEFT_OUT = 0.01
# Cycles that a step takes besides its sums, and at least, since its sums wait for those of the step before: rows of 64
# as 16 runs of 4 took 1.3 times as long as with runs of 13. Of one tap, each step has other weights to wait for.
LOADING, LEAST_STEP, ONE_TAP = 2, 12, 16
# What tiles leave out: those of the first run of a row, of one within, of the last.
Ends = tuple[Skips, Skips, Skips]
WHOLE: Ends = (NOTHING, NOTHING, NOTHING)


def run_length(columns: int) -> int:
    """Pixels of a run."""
    return extent(columns)[1]


def extent(columns: int) -> tuple[int, int]:
    """(rows, run) of the tiles of a block of so many columns: those that take the least time for a row."""

    def row(extent: tuple[int, int]) -> float:
        rows, run = extent
        together = rows if columns <= run else 1
        return -(-columns // run) * step_cycles(together * run * VECTORS, LEAST_STEP) / together

    return NARROW.get(columns) or min(EXTENTS, key=row)


def step_cycles(sums: int, least: int) -> int:
    """Cycles of a step of a tile of either shape with so many sums."""
    return max(sums + LOADING, least)


@functools.lru_cache(maxsize=1024)
def left_out(problem: Problem, columns: int) -> Ends:
    """What tiles of the first run of a row, of one within and of the last leave out, in blocks of so many columns: for
    each tap of a kernel row, the pixels that meet zeros of the padding, or lie behind the end of the row.
    """
    run, taps, width = run_length(columns), problem.kernel[-1], problem.out_spatial[-1]
    if problem.padding_mode != "zeros" or taps > MOST_TAPS.get(run, LONGEST_ROW):
        return WHOLE
    first = np.arange(run)
    last = first + (-(-width // columns) - 1) * columns + (-(-columns // run) - 1) * run

    def skips(pixels: Array) -> Skips:
        found = map(np.flatnonzero, meets(problem, -1, pixels) & (pixels < width))
        return tuple((int(some[0]), run - 1 - int(some[-1])) if some.size else (run, 0) for some in found)

    # Rows of one run or two have none within.
    ends = skips(first), NOTHING if last[0] > run else skips(first), skips(last)
    worthwhile = _pixels(ends, width, run) >= LEAST_LEFT_OUT * taps * width
    needed = _inside(problem, columns, ends) and not _inside(problem, columns, WHOLE)
    return ends if worthwhile or needed else WHOLE


@functools.lru_cache(maxsize=1024)
def reads_inside(problem: Problem, columns: int) -> bool:
    """Whether tiles in blocks of so many columns meet nothing but the input, where all weights are finite and it is
    contiguous: then they may read it where it lies.
    """
    plain = problem.rank < 3 and readable(problem)
    # Rows that a tile takes together meet all taps, or zeros.
    one_by_one = extent(columns)[0] == 1 or columns > run_length(columns)
    above = problem.rank == 2 and any(problem.padding[0])
    rows = not above or (one_by_one and skips_taps(problem))
    # Each output has an input at its place, from which the taps are counted.
    sizes = zip(problem.out_spatial, problem.stride, problem.spatial, strict=True)
    there = all((outputs - 1) * stride < size for outputs, stride, size in sizes)
    return plain and rows and there and _inside(problem, columns, left_out(problem, columns))


def _inside(problem: Problem, columns: int, ends: Ends) -> bool:
    """Whether runs that leave that out meet nothing beside the input's rows, in rows of whole blocks."""
    width, run = problem.out_spatial[-1], run_length(columns)
    in_block = -(-columns // run)
    count = width // columns * in_block
    # Between the second run and the last but one there is nothing that they do not meet.
    kinds = {1: ends[1], count - 2: ends[1], count - 1: ends[2], 0: ends[0]}

    def met(number: int, skips: Skips) -> bool:
        start = number // in_block * columns + number % in_block * run
        taps = meets(problem, -1, start + np.arange(run))
        left = skips * (len(taps) // len(skips))
        return all(tap[before : run - behind].all() for tap, (before, behind) in zip(taps, left, strict=True))

    return width % columns == 0 and all(met(*kind) for kind in kinds.items() if 0 <= kind[0] < count)


def _pixels(ends: Ends, width: int, run: int) -> int:
    """How many pixels the taps of a kernel row leave out in a row of such a width, all together."""
    return sum(map(sum, ends[0] + (ends[2] if width > run else ())))


@functools.lru_cache(maxsize=1024)
def share_left(problem: Problem, columns: int) -> float:
    """The share of their products that tiles add up in blocks of so many columns, where all weights are finite."""
    run, width = run_length(columns), problem.out_spatial[-1]
    in_row = -(-width // columns) * -(-columns // run) * run * problem.kernel[-1]
    first, end = tap_ranges(problem)
    rows = float(np.mean(end - first)) / math.prod(problem.kernel[-2:]) if skips_taps(problem) else 1.0
    return rows * (1 - _pixels(left_out(problem, columns), width, run) / in_row)
