"""The panel of direct sums: what some taps meet at some output pixels, row by row, in the accumulator's dtype.

Padding, stride, dilation, memory layout and dtype end here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..method import Array
from ..problem import Problem
from .operands import bordered_axes
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
    before_w: int
    block_pixels: int
    block_channels: int
    relu: int


class Sources(NamedTuple):
    """For each axis, position in the padded input -> position in the input, or -1 in constant padding; of the last one,
    for what lies before and behind the input alone. One axis each, so that one compiled kernel fits all.

    interior: for each column tap first and end of the output columns whose input column is not in the padding.
    """

    depth: Array
    height: Array
    border: Array
    interior: Array


def find_sources(problem: Problem) -> Sources:
    """The Sources of a Problem."""
    depth, height, border = bordered_axes(problem)
    (before, _), size = problem.padding[-1], problem.spatial[-1]
    first = before - problem.dilation[-1] * np.arange(problem.kernel[-1])
    # Output column j reads padded column j*stride + tap*dilation: inside from `first` on, for `size` columns.
    edges = np.stack([first, first + size], axis=1)
    interior = np.clip(-(-edges // problem.stride[-1]), 0, problem.out_spatial[-1])
    return Sources(depth, height, border, interior.reshape(-1))


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
        shift, interior = kw * geometry.dilation_w, (sources.interior[2 * kw], sources.interior[2 * kw + 1])
        gather(panel[t], pixels, channel, planes, rows, sources.border, shift, interior, outside, od, oh, ow, geometry)
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
    border: Array,
    shift: int,
    interior: tuple[int, int],
    outside: Any,
    od: int,
    oh: int,
    ow: int,
    geometry: Geometry,
) -> None:
    """One row of the panel, from output pixel (od, oh, ow) on; x is (d, h, w), and depth and height lead from the
    output's positions to the input's. Output column o meets padded column o*stride + shift. Of each output row, the
    interior is a plain copy and the ends go through the border, where -1 stands for the value `outside`.
    """
    first, end = interior
    inside = shift - geometry.before_w
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
            gather_ends(target, row, border, outside, start, low, to_column, shift, 0, geometry)
            if geometry.stride_w == 1:
                part = target[low:high]
                middle = row[inside + to_column + low :]
                for j in range(len(part)):
                    part[j] = middle[j]
            else:
                for j in range(low, high):
                    target[j] = row[inside + (to_column + j) * geometry.stride_w]
            gather_ends(target, row, border, outside, high, stop, to_column, shift, x.shape[2], geometry)
        start = stop
        ow = 0
        oh += 1
        if oh == geometry.out_h:
            oh = 0
            od += 1


@njit()
def gather_ends(
    target: Array,
    row: Array,
    border: Array,
    outside: Any,
    first: int,
    end: int,
    to_column: int,
    shift: int,
    passed: int,
    geometry: Geometry,
) -> None:
    """The padding on one side of an input row, `passed` columns of which lie before it, by the table of the border."""
    for j in range(first, end):
        source = border[shift + (to_column + j) * geometry.stride_w - passed]
        # Two assignments: one of either value would meet uint64 in float64.
        if source >= 0:
            target[j] = row[source]
        else:
            target[j] = outside
