"""The panel of direct sums: what some taps meet at some output pixels, row by row, in the accumulator's dtype.

Padding, stride, dilation, memory layout and dtype end here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..method import Array
from ..problem import Problem
from .operands import padded_axes
from .simd.shares import njit


class Geometry(NamedTuple):
    """The integers of a launch. Axes are padded to three on the left: a 1-D Problem has depth and height 1."""

    groups: int
    taps: int
    period: int
    segment: int
    kernel_d: int
    kernel_h: int
    kernel_w: int
    out_d: int
    out_h: int
    out_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    block_pixels: int
    block_channels: int
    relu: int


class Sources(NamedTuple):
    """For each axis, position in the padded input -> position in the input, or -1 in constant padding. One axis each,
    so that one compiled kernel fits all.

    interior: for each column tap first and end of the output columns whose input column is not in the padding.
    """

    depth: Array
    height: Array
    width: Array
    interior: Array


def find_sources(problem: Problem) -> Sources:
    """The Sources of a Problem."""
    depth, height, width = padded_axes(problem)
    (before, _), size = problem.padding[-1], problem.spatial[-1]
    first = before - problem.dilation[-1] * np.arange(problem.kernel[-1])
    # Output column j reads padded column j*stride + tap*dilation: inside from `first` on, for `size` columns.
    edges = np.stack([first, first + size], axis=1)
    interior = np.clip(-(-edges // problem.stride[-1]), 0, problem.out_spatial[-1])
    return Sources(depth, height, width, interior.reshape(-1))


@njit()
def fill(
    panel: Array,
    x: Array,
    first_channel: int,
    tap: int,
    pixel: int,
    pixels: int,
    outside: Any,
    sources: Sources,
    geometry: Geometry,
) -> None:
    """panel[t, j] = what tap number tap + t meets at output pixel number pixel + j, `outside` in constant padding."""
    rest, kw = divmod(tap, geometry.kernel_w)
    rest, kh = divmod(rest, geometry.kernel_h)
    ci, kd = divmod(rest, geometry.kernel_d)
    row, ow = divmod(pixel, geometry.out_w)
    od, oh = divmod(row, geometry.out_h)
    for t in range(len(panel)):
        channel = x[first_channel + ci]
        planes = sources.depth[kd * geometry.dilation_d :: geometry.stride_d]
        rows = sources.height[kh * geometry.dilation_h :: geometry.stride_h]
        columns = sources.width[kw * geometry.dilation_w :: geometry.stride_w]
        interior = sources.interior[2 * kw], sources.interior[2 * kw + 1]
        gather(panel[t], pixels, channel, planes, rows, columns, interior, outside, od, oh, ow, geometry)
        kw += 1
        if kw == geometry.kernel_w:
            kw = 0
            kh += 1
        if kh == geometry.kernel_h:
            kh = 0
            kd += 1
        if kd == geometry.kernel_d:
            kd = 0
            ci += 1


@njit()
def gather(
    target: Array,
    pixels: int,
    x: Array,
    depth: Array,
    height: Array,
    width: Array,
    interior: tuple[int, int],
    outside: Any,
    od: int,
    oh: int,
    ow: int,
    geometry: Geometry,
) -> None:
    """One row of the panel, from output pixel (od, oh, ow) on; x is (d, h, w), and depth, height and width lead from
    the output's positions to the input's. Of each output row, the interior is a plain copy and the ends go through
    the table, where -1 stands for the value `outside`.
    """
    first, end = interior
    # In the interior, output column o meets input column o*stride + shift.
    shift = width[min(first, len(width) - 1)] - first * geometry.stride_w
    start = 0
    while start < pixels:
        stop = min(pixels, start + geometry.out_w - ow)
        d, h = depth[od], height[oh]
        if d < 0 or h < 0:
            target[start:stop] = outside
        else:
            row = x[d, h]
            to_column = ow - start
            low = min(max(first - to_column, start), stop)
            high = max(min(end - to_column, stop), low)
            gather_ends(target, row, width, outside, start, low, to_column)
            if geometry.stride_w == 1:
                part = target[low:high]
                middle = row[shift + to_column + low :]
                for j in range(len(part)):
                    part[j] = middle[j]
            else:
                for j in range(low, high):
                    target[j] = row[shift + (to_column + j) * geometry.stride_w]
            gather_ends(target, row, width, outside, high, stop, to_column)
        start = stop
        ow = 0
        oh += 1
        if oh == geometry.out_h:
            oh = 0
            od += 1


@njit()
def gather_ends(target: Array, row: Array, width: Array, outside: Any, first: int, end: int, to_column: int) -> None:
    """The padding beside an input row, column by column through the table."""
    for j in range(first, end):
        source = width[to_column + j]
        # Two assignments: one of either value would meet uint64 in float64.
        if source >= 0:
            target[j] = row[source]
        else:
            target[j] = outside
