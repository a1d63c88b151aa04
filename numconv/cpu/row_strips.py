"""Strips of rows: the part of `depthwise` that sweeps a plane with a small square kernel, strip by strip."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..method import Array
from ..problem import Problem
from .simd.ir import WIDE
from .simd.shares import njit
from .simd.strips import call_strip, most_vectors, strip_tile

# Each size of kernel and stride is code of its own, without loops: for those that networks and filters have.
KERNELS, STRIDES = (3, 5, 7), (1, 2)
# Rows of a strip: the common sizes of maps are multiples. The low one serves what the tall one leaves over.
TALL, LOW = 14, 7
# Vectors side by side of tall strips, and how many a row has at least where they are: their loads need no masks, which
# cost as much as a multiply-add, but the first and the last of a row do. One load of a weight serves all of them.
SIDE_BY_SIDE = ((4, 6), (3, 5), (2, 4))


class Plane(NamedTuple):
    """Where a block lies: in x its plane's start, pitch, rows and columns, and the row and column that the first sum
    meets first, which may lie before the plane; in the output its start, rows and columns.
    """

    x: int
    pitch: int
    x_rows: int
    x_columns: int
    row: int
    column: int
    out: int
    rows: int
    columns: int


def served(problem: Problem) -> bool:
    """Whether there are strips for the kernel and stride."""
    kernel, stride, dilation = ((1, *values)[-2:] for values in (problem.kernel, problem.stride, problem.dilation))
    flat = problem.rank < 3 or problem.kernel[0] == 1
    square = kernel[0] == kernel[1] in KERNELS and stride[0] == stride[1] in STRIDES
    return flat and square and dilation == (1, 1)


def reads_in_place(problem: Problem) -> bool:
    """Whether strips read a contiguous input of the accumulator's dtype where it lies: padding of zeros is no bar."""
    depth = problem.padding[0] if problem.rank == 3 else (0, 0)
    return WIDE and problem.padding_mode == "zeros" and depth == (0, 0)


def strips(problem: Problem, lanes: int) -> Array:
    """The addresses of the tall strip and the low one, where rows are left for it."""
    out_h = (1, *problem.out_spatial)[-2]
    kind = problem.accumulator, problem.kernel[-1], problem.stride[-1]
    return np.array([strip_tile(*kind, TALL, side_by_side(problem, lanes)).address if out_h > LOW else 0,
                     strip_tile(*kind, LOW, 1).address])  # fmt: skip


def side_by_side(problem: Problem, lanes: int) -> int:
    """Vectors of a tile of the tall strip."""
    room = most_vectors(problem.kernel[-1], problem.stride[-1])
    vectors = -(-problem.out_spatial[-1] // lanes)
    return next((several for several, least in SIDE_BY_SIDE if several <= room and vectors >= least), 1)


def zeros_length(problem: Problem, lanes: int) -> int:
    """Elements of the row of zeros: what strips read of a row, of the input or of a window."""
    return max(problem.spatial[-1], problem.out_spatial[-1] * problem.stride[-1] + problem.kernel[-1]) + 4 * lanes


def strip_cycles(problem: Problem, rows: int, lanes: int) -> float:
    """About how long one channel of a block takes, in cycles."""
    tall, rest = divmod(rows, TALL)
    low, tall = int(0 < rest <= LOW), tall + (rest > LOW)
    out_rows, strips, stride = tall * TALL + low * LOW, tall + low, problem.stride[-1]
    # A start, of which narrow maps have many; for each vector a multiply-add a tap and the row's end; and, with a
    # stride, shuffles of each vector that is loaded. Several vectors share the loads of weights.
    low_row = 0.75 * problem.taps + 3.5
    tall_row = 0.6 * problem.taps + 2 if side_by_side(problem, lanes) > 1 else low_row
    adding = tall * TALL * tall_row + low * LOW * low_row
    loads = (out_rows * stride + strips * (problem.kernel[-1] - stride)) * problem.kernel[-1]
    vectors = -(-problem.out_spatial[-1] // lanes)
    return strips * 150 + vectors * (adding + 1.5 * loads * (stride - 1))


@njit()
def correlate_strips(
    out: Array,
    x: Array,
    weight: Array,
    bias: float,
    zeros: Array,
    spare: Array,
    plane: Plane,
    stride: int,
    relu: int,
    tiles: Array,
) -> None:
    """All rows of a block, from top to bottom."""
    row = 0
    while row < plane.rows:
        left = plane.rows - row
        height, tile = (LOW, tiles[1]) if left <= LOW else (TALL, tiles[0])
        if left < height < plane.rows:
            # The last strip ends with the block: to meet some rows again costs less than to store others one by one.
            row = plane.rows - height
        call_strip(
            tile,
            x,
            plane.x,
            plane.pitch,
            plane.row + row * stride,
            plane.x_rows,
            zeros,
            plane.column,
            plane.x_columns,
            weight,
            bias,
            relu,
            out,
            plane.out + row * plane.columns,
            plane.columns,
            spare,
            min(plane.rows, height),
            plane.columns,
        )
        row += height
