"""The window: the part of the input that a block of output meets, copied so that every tap is one offset.

For a block of output rows and columns, a window holds the rows of some planes (a plane is one input channel and
kernel plane). The padding is filled in, whatever its mode; the dtype is the accumulator's; and a stride s is split
into phases (column j of phase p is column j*s + p of the padded input), or kept for tiles that can step. So output
pixel (row, column) of the block meets tap t of plane q at ``q * plane_size + offset(t) + row * row_step * pitch +
column * column_step``: dilation and padding end here, and strides but for the two steps.

Where the padding is zeros, the right end of a row and the left end of the next are stored once, which keeps vectors
that run over the ends of rows fuller.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from ..aligned import LINE_BYTES
from ..method import Array
from ..problem import Problem
from .operands import bordered_axes, three
from .simd.copies import copy_rows, transpose_rows
from .simd.ir import address_of, contiguous, floats_alike, vector_lanes, vectors_fit
from .simd.shares import njit
from .simd.strided import clear_vectors
from .window_axes import LEAST_PLANES, ONE, SIX, THREE, TWO, overlap, phases, pitch, tap_ranges, total_planes

# A window stays in the second-level cache: 24 KiB, for the first, had 3% slower tiles, which start and end more often.
WINDOW_BYTES = 256 << 10


class Window(NamedTuple):
    """The integers of a window and of its block; spatial axes are padded to three on the left.

    first_column and end_column bound the padded columns that are not padding; rows, columns and pitch are those of
    one phase; neighbouring pixels lie column_step and row_step apart, and neighbouring elements were copy_step and
    row_copy_step apart in the input; planes are those that a window holds, of total_planes for each group. in_place:
    it is the input itself, where that lies.
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
    column_step: int
    copy_step: int
    row_step: int
    row_copy_step: int
    zeros: int
    phase_size: int
    plane_size: int
    planes: int
    total_planes: int
    period: int
    segment: int
    in_place: int = 0


class Tables(NamedTuple):
    """offsets: [tap of a plane] in the window, or [plane] where a plane has one tap; the phases in use; the input
    index of each padded index, or -1, of columns those of the border alone, before and behind the input; for each
    padded row, how many rows from it on lie evenly in the input or in the padding; for each output row, the first tap
    that meets the input and the tap behind the last; the value of constant padding; tiles by address.
    """

    offsets: Array
    row_phases: Array
    column_phases: Array
    depth: Array
    height: Array
    border: Array
    row_runs: Array
    first_tap: Array
    end_tap: Array
    padding: float
    tiles: Array


class Ahead(NamedTuple):
    """What will be read later, weights or what a window will hold of the input: the address of the first element, bytes
    from row to row and from plane to plane, and so many rows of so many cache lines. No rows, or no lines: nothing.
    """

    address: int
    row_pitch: int
    plane_pitch: int
    rows: int
    lines: int


def input_as_window(problem: Problem, geometry: Window, tables: Tables) -> tuple[Window, Tables]:
    """The same window, but for where its elements lie: in a contiguous input, relative to what the first tap of a
    kernel without padding meets.
    """
    width, size = problem.spatial[-1], math.prod(problem.spatial)
    pitch, planes = geometry.stride_h * width, geometry.total_planes
    found = geometry._replace(pitch=pitch, plane_size=size, planes=planes, in_place=1)
    if geometry.taps == 1:
        return found, tables._replace(offsets=size * np.arange(planes))
    axes = zip(
        three(problem, "kernel")[1:], three(problem, "dilation")[1:], three(problem, "padding", (0, 0))[1:], strict=True
    )
    rows, columns = (dilation * np.arange(kernel) - before for kernel, dilation, (before, _) in axes)
    return found, tables._replace(offsets=(rows[:, None] * width + columns).reshape(-1))


@njit()
def all_steps(window: Window) -> tuple[int, int, int]:
    """(steps of a tile's inner loop, times it runs, elements of the window from one time to the next) for all planes: a
    plane of one tap is a step, and the loop runs four times, since with each time an output's line is asked for.
    """
    if window.taps != 1:
        return window.taps, window.total_planes, window.plane_size
    times = 4 if window.total_planes % 4 == 0 else 1
    steps = window.total_planes // times
    return steps, times, steps * window.plane_size


@functools.lru_cache(maxsize=1024)
def window(
    problem: Problem, rows: int, columns: int, lanes: int, size: int, phased: bool, rows_phased: bool = True
) -> tuple[Window, Tables]:
    """The window of blocks of so many output rows and columns, with as many planes as fit in `size` bytes.

    A stride is split into phases, or kept in the window.
    """
    row_axis, column_axis = phases(problem, -2, rows_phased), phases(problem, -1, phased)
    kernel_d, kernel_h, kernel_w = three(problem, "kernel")
    stride_d, stride_h, stride_w = three(problem, "stride")
    row_pitch = pitch(problem, columns, phased)
    phase_size = row_axis.length(rows) * row_pitch + overlap(problem, columns)
    # A row is copied by whole vectors, so there is room behind the last.
    plane_size = (-(-len(row_axis.used) * len(column_axis.used) * phase_size // lanes) + 1) * lanes
    planes = max(1, min(total_planes(problem), size // (plane_size * problem.accumulator.itemsize)))
    period, segment = problem.segments
    first_column = problem.padding[-1][0]
    taps = [
        (row_phase * len(column_axis.used) + column_phase) * phase_size + row_shift * row_pitch + column_shift
        for row_phase, row_shift in row_axis.taps
        for column_phase, column_shift in column_axis.taps
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
        rows=row_axis.length(rows),
        columns=column_axis.length(columns),
        pitch=row_pitch,
        column_step=column_axis.step,
        copy_step=column_axis.copy_step,
        row_step=row_axis.step,
        row_copy_step=row_axis.copy_step,
        zeros=int(problem.padding_mode == "zeros"),
        phase_size=phase_size,
        plane_size=plane_size,
        planes=planes,
        total_planes=total_planes(problem),
        period=period,
        segment=segment,
    )
    depth, height, border = bordered_axes(problem)
    tables = Tables(
        np.array(taps) if len(taps) > 1 else taps[0] + plane_size * np.arange(planes),
        np.array(row_axis.used),
        np.array(column_axis.used),
        depth,
        height,
        border,
        row_runs(problem, row_axis.copy_step),
        *tap_ranges(problem),
        padding=float(problem.padding_value.real),
        tiles=np.zeros(0, np.int64),
    )
    return geometry, tables


@functools.lru_cache(maxsize=1024)
def row_runs(problem: Problem, step: int) -> Array:
    """How many of the padded rows i, i + step, ... have sources that are a step apart, or all -1."""
    _, sources, _ = bordered_axes(problem)
    here, following = sources[: max(len(sources) - step, 0)], sources[step:]
    together = np.append(
        following == np.where(here >= 0, here + step, -1), np.zeros(len(sources) - len(here), np.bool_)
    )
    runs = np.empty(len(sources), np.int64)
    for first in range(min(step, len(sources))):
        places, last = np.arange(len(runs[first::step])), np.flatnonzero(~together[first::step])
        runs[first::step] = last[np.searchsorted(last, places)] - places + 1
    return runs


@njit()
def clear_gaps(room: Array, window: Window, vectors: int) -> None:
    """Zeros behind each plane of a window that begins with `room`, and for so many vectors of pixels behind the last.

    Tiles multiply whole vectors and runs. Of subnormal numbers, which may lie there, that takes a hundred times as
    long, and nobody wants the products.
    """
    if window.in_place:
        return
    lanes = vector_lanes(room)
    for gap in (max(0, window.plane_size - 2 * lanes), window.plane_size - lanes):
        clear_vectors(room[gap:], window.plane_size, window.planes)
    clear_vectors(room[window.planes * window.plane_size :], lanes, vectors * window.column_step)


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
    # Phases in ascending order: copies may overwrite a little of what follows them.
    for row_phase in range(len(tables.row_phases)):
        padded = oh * window.stride_h + tables.row_phases[row_phase]
        for column_phase in range(len(tables.column_phases)):
            column = ow * window.stride_w + tables.column_phases[column_phase]
            start = (row_phase * len(tables.column_phases) + column_phase) * window.phase_size
            row = 0
            while row < window.rows:
                # Rows that are as far apart in the input as in the window, or all padding, are copied together.
                inside = padded + row * window.row_copy_step < len(tables.height)
                h = tables.height[padded + row * window.row_copy_step] if inside else -1
                rows = window.rows - row
                if inside:
                    rows = min(rows, tables.row_runs[padded + row * window.row_copy_step])
                place = target[start + row * window.pitch :]
                # Kernel planes come from different depths of the input; those of one depth are channels.
                for kd in range(window.kernel_d):
                    plane = (kd - first_plane) % window.kernel_d
                    channels = -(-(planes - plane) // window.kernel_d)
                    if channels > 0:
                        ci = (first_plane + plane) // window.kernel_d
                        d = tables.depth[od * window.stride_d + kd * window.dilation_d]
                        part = place[plane * window.plane_size :]
                        fill_rows(part, x, ci, channels, d, h, rows, column, tables, window)
                row += rows


@njit()
def read_by(x: Array, od: int, oh: int, ow: int, tables: Tables, window: Window) -> Ahead:
    """What the window of the block at output plane od, row oh, column ow will hold of x (c, d, h, w)."""
    # Hardware foresees none of its rows, which are short and lie far apart.
    d, h = max(tables.depth[od * window.stride_d], 0), max(tables.height[oh * window.stride_h], 0)
    w = max(ow * window.stride_w - window.first_column, 0)
    rows = min(window.rows * window.row_copy_step, x.shape[2] - h)
    columns = min(window.columns * window.copy_step, x.shape[3] - w)
    plain = x.strides[3] == x.itemsize and window.kernel_d == 1
    # The first line may begin before the first column.
    lines = -(-max(columns, 0) * x.itemsize // LINE_BYTES) + 1
    address = address_of(x) + d * x.strides[1] + h * x.strides[2] + w * x.strides[3]
    return Ahead(address, x.strides[2], x.strides[0], rows if plain else 0, lines)


@njit()
def fill_rows(
    target: Array,
    x: Array,
    ci: int,
    planes: int,
    d: int,
    h: int,
    rows: int,
    column: int,
    tables: Tables,
    window: Window,
) -> None:
    """Some rows of a phase that starts at a padded column, from row h on, for so many channels from x[ci, d] on.

    x is (c, d, h, w). Where d or h is -1, the rows are padding.
    """
    step, size = window.copy_step, window.plane_size * window.kernel_d
    # Of a row's columns, those from low to high are the input's; low is the input's column number first.
    low = min(max(-((column - window.first_column) // step), 0), window.columns)
    high = max(min(-((column - window.end_column) // step), window.columns), low)
    first = column + low * step - window.first_column
    padding = d < 0 or h < 0
    d, h = max(d, 0), max(h, 0)
    if padding:
        low = high = 0
    # A slice of one row alone: of a contiguous array, the compiler knows that it is contiguous.
    source = x[ci, d, h, min(max(first, 0), x.shape[3]) :]
    row_pitch, plane_pitch = x.strides[2] // x.itemsize * window.row_copy_step, x.strides[0] // x.itemsize
    apart = x.strides[3] // x.itemsize * step
    if vectors_fit(target, x) and step == 1:
        copy_rows(
            ONE, target, window.pitch, window.columns, source, row_pitch, rows, low, high, planes, size, plane_pitch
        )
    elif vectors_fit(target, x) and step == 2:
        copy_rows(
            TWO, target, window.pitch, window.columns, source, row_pitch, rows, low, high, planes, size, plane_pitch
        )
    elif not contiguous(x) and floats_alike(target, x) and channels_are_neighbours(x) and apart == len(TWO):
        copy_rows(TWO, target, window.pitch, window.columns, source, row_pitch, rows, low, high, planes, size, 1)
    elif not contiguous(x) and floats_alike(target, x) and channels_are_neighbours(x) and apart == len(THREE):
        copy_rows(THREE, target, window.pitch, window.columns, source, row_pitch, rows, low, high, planes, size, 1)
    elif not contiguous(x) and floats_alike(target, x) and channels_are_neighbours(x) and apart == len(SIX):
        copy_rows(SIX, target, window.pitch, window.columns, source, row_pitch, rows, low, high, planes, size, 1)
    elif not contiguous(x) and floats_alike(target, x) and planes >= LEAST_PLANES and channels_are_neighbours(x):
        transpose_rows(target, window.pitch, size, window.columns, source, row_pitch, apart, rows, low, high, planes)
    else:
        for plane in range(planes):
            for row in range(rows):
                at = plane * size + row * window.pitch
                line, values = target[at : at + window.columns], x[ci + plane, d, h + row * window.row_copy_step]
                line[:low] = 0
                if step == 1:
                    # Slices from 0 on: dtypes are converted by vectors.
                    middle, part = line[low:high], values[max(first, 0) :]
                    for j in range(len(middle)):
                        middle[j] = part[j]
                else:
                    for j in range(low, high):
                        line[j] = values[first + (j - low) * step]
                line[high:] = 0
    if not window.zeros:
        for plane in range(planes):
            if padding:
                for row in range(rows):
                    at = plane * size + row * window.pitch
                    target[at : at + window.columns] = tables.padding
            else:
                fill_sides(target[plane * size :], x[ci + plane, d], h, rows, low, high, column, tables, window)


@njit()
def channels_are_neighbours(x: Array) -> bool:
    """Whether a pixel's channels of x (c, d, h, w) lie together, whole elements from the next pixel's."""
    return x.strides[0] == x.itemsize and x.strides[2] % x.itemsize == 0 and x.strides[3] % x.itemsize == 0


@njit()
def fill_sides(
    target: Array, x: Array, h: int, rows: int, low: int, high: int, column: int, tables: Tables, window: Window
) -> None:
    """The padding beside the input, by the table of the border; what is behind the padding is never used."""
    step, border = window.copy_step, tables.border
    for row in range(rows):
        line, source = target[row * window.pitch :], x[h + row * window.row_copy_step]
        for side in range(2):
            first, end = (0, low) if side == 0 else (high, window.columns)
            # Between the two sides of the border lies the input.
            place = column - side * (window.end_column - window.first_column)
            for j in range(first, min(end, -((place - len(border)) // step))):
                w = border[place + j * step]
                if w >= 0:
                    line[j] = source[w]
                else:
                    line[j] = tables.padding
