"""The window: the part of the input that a block of output meets, copied so that every tap is one offset.

For a block of output rows and columns, a window holds the rows of some planes (a plane is one input channel and
kernel plane). The padding is filled in, whatever its mode; the dtype is the accumulator's; and a stride s is split
into phases: column j of phase p is column j*s + p of the padded input. So output pixel (row, column) of the block
meets tap t of plane q at ``q * plane_size + offset(t) + row * pitch + column``: stride, dilation and padding end here.

Where the padding is zeros, the right end of a row and the left end of the next are stored once, which keeps vectors
that run over the ends of rows fuller.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from ..jit import njit
from ..method import Array
from ..problem import PADDING_MODES, Problem
from .simd import copy_vectors, vector_lanes, vectors_fit


class Window(NamedTuple):
    """The integers of a window and of its block; spatial axes are padded to three on the left.

    first_column and end_column bound the padded columns that are not padding; rows, columns and pitch are those of
    one phase; planes are those that a window holds, of total_planes for each group.
    """

    kernel_d: int
    taps: int
    stride_d: int
    stride_h: int
    stride_w: int
    dilation_d: int
    first_column: int
    end_column: int
    block_rows: int
    block_columns: int
    rows: int
    columns: int
    pitch: int
    phase_size: int
    plane_size: int
    planes: int
    total_planes: int
    period: int
    segment: int


class Tables(NamedTuple):
    """offsets: [plane * taps + tap] in the window; the phases in use; the input index of each padded index, or -1."""

    offsets: Array
    row_phases: Array
    column_phases: Array
    depth: Array
    height: Array
    width: Array


class Phases(NamedTuple):
    """How the taps of one axis fall into the phases of its stride: (phase's number, shift) of each tap."""

    used: list[int]
    taps: list[tuple[int, int]]
    shift: int


def phases(problem: Problem, axis: int) -> Phases:
    """The phases of an axis counted from the end; an axis that the Problem lacks has one tap."""
    if axis < -problem.rank:
        return Phases([0], [(0, 0)], 0)
    stride = problem.stride[axis]
    positions = [k * problem.dilation[axis] for k in range(problem.kernel[axis])]
    used = sorted({position % stride for position in positions})
    taps = [(used.index(position % stride), position // stride) for position in positions]
    return Phases(used, taps, max(shift for _, shift in taps))


def overlap(problem: Problem, columns: int) -> int:
    """Zeros that the end of one window row shares with the start of the next."""
    whole = problem.padding_mode == "zeros" and problem.stride[-1] == 1 and columns == problem.out_spatial[-1]
    return min(problem.padding[-1]) if whole else 0


def pitch(problem: Problem, columns: int) -> int:
    """Elements from one row of a phase to the next."""
    return columns + phases(problem, -1).shift - overlap(problem, columns)


def copy_cycles(problem: Problem, rows: int, columns: int, lanes: int) -> int:
    """About how long filling the windows of one block takes, in cycles: all planes of a group."""
    row_phases, column_phases = phases(problem, -2), phases(problem, -1)
    copies = len(row_phases.used) * len(column_phases.used) * (rows + row_phases.shift)
    # 50 cycles to start a row, and each vector comes from memory or a far cache; a stride loads element by element.
    width = columns + column_phases.shift
    row = 50 + (8 * width // lanes if problem.stride[-1] == 1 else 2 * width)
    return total_planes(problem) * copies * row


def total_planes(problem: Problem) -> int:
    """Planes of one group: input channels times kernel planes."""
    return problem.in_channels // problem.groups * (problem.kernel[0] if problem.rank == 3 else 1)


@functools.lru_cache(maxsize=1024)
def window(problem: Problem, rows: int, columns: int, lanes: int, size: int) -> tuple[Window, Tables]:
    """The window of blocks of so many output rows and columns, with as many planes as fit in `size` bytes."""
    row_phases, column_phases = phases(problem, -2), phases(problem, -1)
    missing = (1,) * (3 - problem.rank)
    kernel_d, kernel_h, kernel_w = (*missing, *problem.kernel)
    stride_d, stride_h, stride_w = (*missing, *problem.stride)
    row_pitch = pitch(problem, columns)
    phase_size = (rows + row_phases.shift) * row_pitch + overlap(problem, columns)
    plane_size = -(-len(row_phases.used) * len(column_phases.used) * phase_size // lanes) * lanes
    planes = max(1, min(total_planes(problem), size // (plane_size * problem.accumulator.itemsize)))
    period, segment = problem.segments
    first_column = problem.padding[-1][0]
    taps = [
        (row_phase * len(column_phases.used) + column_phase) * phase_size + row_shift * row_pitch + column_shift
        for row_phase, row_shift in row_phases.taps
        for column_phase, column_shift in column_phases.taps
    ]
    geometry = Window(
        kernel_d=kernel_d,
        taps=kernel_h * kernel_w,
        stride_d=stride_d,
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_d=problem.dilation[0] if problem.rank == 3 else 1,
        first_column=first_column,
        end_column=first_column + problem.spatial[-1],
        block_rows=rows,
        block_columns=columns,
        rows=rows + row_phases.shift,
        columns=columns + column_phases.shift,
        pitch=row_pitch,
        phase_size=phase_size,
        plane_size=plane_size,
        planes=planes,
        total_planes=total_planes(problem),
        period=period,
        segment=segment,
    )
    tables = Tables(
        (np.arange(planes)[:, None] * plane_size + np.array(taps)).ravel(),
        np.array(row_phases.used),
        np.array(column_phases.used),
        *(_sources(problem, axis) for axis in (-3, -2, -1)),
    )
    return geometry, tables


def _sources(problem: Problem, axis: int) -> Array:
    """The input index of each index of the padded axis, -1 in zero padding; np.pad knows every padding mode."""
    if axis < -problem.rank:
        return np.zeros(1, np.int64)
    mode: Any = PADDING_MODES[problem.padding_mode]
    outside = {"constant_values": -1} if mode == "constant" else {}
    return np.pad(np.arange(problem.spatial[axis]), problem.padding[axis], mode, **outside)


@njit()
def fill(
    target: Array,
    x: Array,
    first_plane: int,
    planes: int,
    od: int,
    oh: int,
    ow: int,
    tables: Tables,
    window: Window,
) -> None:
    """Fill `target` with planes of x (c, d, h, w) for the block at output plane od, row oh, column ow."""
    stride = window.stride_w
    for column_phase in range(len(tables.column_phases)):
        phase = tables.column_phases[column_phase]
        # Of a row's columns, those from low to high are the input's; low is the input's column number first.
        low = min(max(-(-(window.first_column - phase) // stride) - ow, 0), window.columns)
        high = max(min(-(-(window.end_column - phase) // stride) - ow, window.columns), low)
        first = (ow + low) * stride + phase - window.first_column
        width = tables.width[min(ow * stride + phase, len(tables.width)) :: stride]
        for plane in range(planes):
            ci, kd = divmod(first_plane + plane, window.kernel_d)
            d = tables.depth[od * window.stride_d + kd * window.dilation_d]
            for row_phase in range(len(tables.row_phases)):
                start = plane * window.plane_size
                start += (row_phase * len(tables.column_phases) + column_phase) * window.phase_size
                for row in range(window.rows):
                    padded = (oh + row) * window.stride_h + tables.row_phases[row_phase]
                    h = tables.height[padded] if padded < len(tables.height) else -1
                    at = start + row * window.pitch
                    if d < 0 or h < 0:
                        target[at : at + window.columns] = 0
                    else:
                        fill_row(target[at : at + window.columns], x[ci, d, h], low, high, first, width, stride)


@njit()
def fill_row(target: Array, row: Array, low: int, high: int, first: int, width: Array, stride: int) -> None:
    """target[low:high] = row[first::stride], and the rest by the table, where -1 and what is beyond it is zero."""
    zero = row.dtype.type(0)
    for j in range(low):
        target[j] = row[width[j]] if width[j] >= 0 else zero
    if vectors_fit(target, row) and stride == 1 and high - low >= vector_lanes(target):
        copy_vectors(target[low:], row[first:], high - low)
    else:
        for j in range(low, high):
            target[j] = row[first + (j - low) * stride]
    for j in range(high, len(target)):
        target[j] = row[width[j]] if j < len(width) and width[j] >= 0 else zero


@njit()
def segment_end(tap: int, window: Window) -> int:
    """The tap before which the accumulator that `tap` belongs to ends."""
    inside = tap % window.period
    return tap - inside + min(window.period, (inside // window.segment + 1) * window.segment)


class Blocks(NamedTuple):
    """How the output falls into tasks: (image, group, channels, plane, rows, columns), columns fastest.

    Channels of a task; unit of them that share a row of weights; and for each unit, so many rows of so many sums.
    """

    groups: int
    channels: int
    channel_blocks: int
    unit: int
    out_d: int
    row_blocks: int
    column_blocks: int
    sum_rows: int
    sum_columns: int
    relu: int
    shares: int


def tasks(problem: Problem, rows: int, columns: int, channels: int) -> int:
    """The number of tasks of so many output rows, columns and channels."""
    out_d, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    group_channels = problem.out_channels // problem.groups
    in_image = -(-group_channels // channels) * out_d * -(-out_h // rows) * -(-out_w // columns)
    return problem.batch * problem.groups * in_image


def blocks(
    problem: Problem, rows: int, columns: int, channels: int, threads: int, unit: int, sum_rows: int, sum_columns: int
) -> Blocks:
    """The tasks of so many output rows, columns and channels each."""
    out_d, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    return Blocks(
        groups=problem.groups,
        channels=channels,
        channel_blocks=-(-(problem.out_channels // problem.groups) // channels),
        unit=unit,
        out_d=out_d,
        row_blocks=-(-out_h // rows),
        column_blocks=-(-out_w // columns),
        sum_rows=sum_rows,
        sum_columns=sum_columns,
        relu=int(problem.activation == "relu"),
        shares=threads,
    )


@njit()
def task_range(share: int, batch: int, blocks: Blocks) -> tuple[int, int]:
    """The tasks of one share: even shares, neighbours together."""
    count = batch * blocks.groups * blocks.channel_blocks * blocks.out_d * blocks.row_blocks * blocks.column_blocks
    return count * share // blocks.shares, count * (share + 1) // blocks.shares


@njit()
def locate(task: int, window: Window, blocks: Blocks) -> tuple[int, int, int, int, int, int]:
    """(image, group, first channel of the group, output plane, first row, first column) of a task."""
    rest, column_block = divmod(task, blocks.column_blocks)
    rest, row_block = divmod(rest, blocks.row_blocks)
    rest, od = divmod(rest, blocks.out_d)
    rest, channel_block = divmod(rest, blocks.channel_blocks)
    n, group = divmod(rest, blocks.groups)
    first = channel_block * blocks.channels
    return n, group, first, od, row_block * window.block_rows, column_block * window.block_columns


@njit()
def flush(sums: Array, totals: Array) -> None:
    """Add the accumulators of a segment to the totals and start fresh ones."""
    for i in range(len(sums)):
        for j in range(sums.shape[1]):
            totals[i, j] += sums[i, j]
            sums[i, j] = 0
