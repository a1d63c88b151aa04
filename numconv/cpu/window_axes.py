"""How windows lie along the axes of a Problem: what is asked before there is one, and what filling it costs."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from ..method import Array
from ..problem import Problem

# The distance of neighbours in a row that is copied, as the length of a tuple: known at compile time.
ONE, TWO, THREE, SIX = ((0,) * apart for apart in (1, 2, 3, 6))
# Fewer channels than these are read one by one, where a pixel's lie together: a square of vectors takes as long.
LEAST_PLANES = 3


class Axis(NamedTuple):
    """How the taps of one axis find their window elements: phases in use, (phase's number, shift) of each tap, the
    steps from one pixel to the next within the window and within the input, and the largest shift.
    """

    used: list[int]
    taps: list[tuple[int, int]]
    step: int
    copy_step: int
    shift: int

    def length(self, pixels: int) -> int:
        """Elements of a phase that so many pixels meet."""
        return (pixels - 1) * self.step + self.shift + 1


@functools.lru_cache(maxsize=1024)
def phases(problem: Problem, axis: int, phased: bool = True) -> Axis:
    """An axis counted from the end, its stride split into phases or kept; one that the Problem lacks has one tap."""
    if axis < -problem.rank:
        return Axis([0], [(0, 0)], 1, 1, 0)
    stride = problem.stride[axis]
    positions = [k * problem.dilation[axis] for k in range(problem.kernel[axis])]
    if not phased:
        return Axis([0], [(0, position) for position in positions], stride, 1, positions[-1])
    used = sorted({position % stride for position in positions})
    taps = [(used.index(position % stride), position // stride) for position in positions]
    return Axis(used, taps, 1, stride, max(shift for _, shift in taps))


def overlap(problem: Problem, columns: int) -> int:
    """Zeros that the end of one window row shares with the start of the next."""
    whole = problem.padding_mode == "zeros" and problem.stride[-1] == 1 and columns == problem.out_spatial[-1]
    return min(problem.padding[-1]) if whole else 0


def pitch(problem: Problem, columns: int, phased: bool) -> int:
    """Elements from one row of a phase to the next."""
    return phases(problem, -1, phased).length(columns) - overlap(problem, columns)


def copy_cycles(problem: Problem, rows: int, columns: int, lanes: int, phased: bool, rows_phased: bool = True) -> int:
    """About how long filling the windows of one block takes, in cycles: all planes of a group."""
    row_axis, column_axis = phases(problem, -2, rows_phased), phases(problem, -1, phased)
    copies, width = len(row_axis.used) * len(column_axis.used), column_axis.length(columns)
    # Each vector comes from memory or a far cache; a stride beyond two loads element by element.
    vectors = -(-width // lanes)
    row = 6 * vectors if column_axis.copy_step == 1 else 10 * vectors if column_axis.copy_step == 2 else 2 * width
    if problem.layout != "NCHW":
        channels = problem.in_channels // problem.groups
        apart = problem.in_channels * column_axis.copy_step
        if apart in map(len, (TWO, THREE, SIX)):
            row = (4 + 3 * apart) * vectors
        else:  # squares of vectors are transposed, whose lanes have channels or nothing
            squares = 12 * vectors * lanes * -(-channels // lanes) // max(1, channels)
            row = squares if channels >= LEAST_PLANES else 2 * width
    return total_planes(problem) * copies * (40 + row_axis.length(rows) * row)


def window_elements(problem: Problem, rows: int, columns: int, phased: bool) -> int:
    """Elements of a window that holds all planes of a block, without the ends of its planes."""
    row_axis, column_axis = phases(problem, -2), phases(problem, -1, phased)
    plane = len(row_axis.used) * len(column_axis.used) * row_axis.length(rows) * pitch(problem, columns, phased)
    return total_planes(problem) * plane


def total_planes(problem: Problem) -> int:
    """Planes of one group: input channels times kernel planes."""
    return problem.in_channels // problem.groups * (problem.kernel[0] if problem.rank == 3 else 1)


def readable(problem: Problem) -> bool:
    """Whether tiles can read a contiguous input like a window: planes of the dtype of the sums, in a single segment."""
    plain = problem.layout == "NCHW" and problem.x_dtype == problem.accumulator
    return plain and 0 < problem.taps <= min(problem.segments)


def lies_in_place(problem: Problem, rows: int, columns: int, step: int) -> bool:
    """Whether blocks of so many rows and columns, in steps of so many pixels, can be read from the input itself, if it
    is contiguous: one tap meets each pixel in turn, and no tile ends beyond the input.
    """
    out_h = (1, *problem.out_spatial)[-2]
    return readable(problem) and meets_in_turn(problem) and out_h % rows == columns % step == 0


def meets_in_turn(problem: Problem) -> bool:
    """Whether one tap meets each pixel in turn."""
    one_tap = math.prod(problem.kernel) == 1 and all(step == 1 for step in problem.stride)
    return one_tap and not any(map(any, problem.padding))


@functools.lru_cache(maxsize=1024)
def tap_ranges(problem: Problem) -> tuple[Array, Array]:
    """(first, end) of the taps whose kernel row meets the input, for each output row; none: the same number twice."""
    out_h, kernel_w = (1, *problem.out_spatial)[-2], problem.kernel[-1]
    if problem.rank == 1:
        return np.zeros(1, np.int64), np.full(1, kernel_w)
    (before, _), height, dilation = problem.padding[-2], problem.spatial[-2], problem.dilation[-2]
    start = before - problem.stride[-2] * np.arange(out_h)
    # Kernel row kh meets the input where start <= kh * dilation < start + height.
    first, end = (np.clip(-(-edge // dilation), 0, problem.kernel[-2]) for edge in (start, start + height))
    return first * kernel_w, end * kernel_w
