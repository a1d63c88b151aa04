"""The tiles of a transform, read from an image and written to its result, row by row.

Two tiles of real numbers share a transform: one is the real part of its numbers, the other the imaginary part. Their
rows are put together, and taken apart, in the first-level cache.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

from ..method import Array
from ..problem import Problem
from .operands import three
from .overlap import Tiling
from .simd.fields import packed, record
from .simd.shares import njit


class Rows(NamedTuple):
    """The integers of a transform's tiles: elements from one group, channel, plane, row and column to the next (an
    element is a number, or of two tiles half of one); the planes, rows and columns of a tile, and padded inputs from
    one to the next; and the padded columns that are the input's, from the first to behind the last.
    """

    group_pitch: int
    channel_pitch: int
    depth_pitch: int
    row_pitch: int
    column_pitch: int
    depth: int
    height: int
    width: int
    step_d: int
    step_h: int
    step_w: int
    first_column: int
    end_column: int


@functools.lru_cache(maxsize=1024)
def tile_rows(problem: Problem, tiling: Tiling, shape: tuple[int, ...], writes: bool) -> Array:
    """The Rows by which an array of transforms (transforms, *axes without one, groups, channels, *axes with one) is
    filled, or those of its outputs, packed. A transform has all inputs, and so as many sums.
    """
    stride = three(problem, "stride")
    steps = [step if (axis in tiling.axes) == writes else 1 for axis, step in enumerate(stride)]
    first = itertools.count(1)
    behind = itertools.count(len(shape) - len(tiling.axes))
    places = [next(behind if axis in tiling.axes else first) for axis in range(3)]
    groups = len(shape) - len(tiling.axes) - 2
    pitches = [math.prod(shape[place + 1 :]) * tiling.parts for place in (groups, groups + 1, *places)]
    first_column, sizes = three(problem, "padding", (0, 0))[2][0], tiling.outputs if writes else tiling.lengths
    end_column = first_column + three(problem, "spatial")[2]
    return packed(Rows._make((*pitches, *sizes, *steps, first_column, end_column)))


@njit()
def read(
    room: Array,
    x: Array,
    corners: Array,
    planes: Array,
    lines: Array,
    border: Array,
    padding: Array,
    buffer: Array,
    integers: Array,
) -> None:
    """The tiles, one or two, at some corners (tiles, 3) of the padded input, from x (groups, channels, d, h, w).

    planes and lines: the input index of each padded index, or -1; border: of the columns before and behind the input.
    Behind the padded input's end lies padding, which no output needs. buffer (parts, width): a row of each; a part
    without a tile is zeros.
    """
    rows = record(Rows, integers, 0)
    buffer[len(corners) :] = 0
    for group in range(x.shape[0]):
        for channel in range(x.shape[1]):
            for plane in range(rows.depth):
                for row in range(rows.height):
                    for part in range(len(corners)):
                        d, h, first = corners[part]
                        d, h = at(planes, d + plane * rows.step_d), at(lines, h + row * rows.step_h)
                        if d < 0 or h < 0:
                            buffer[part] = padding[0]
                        else:
                            read_row(buffer[part], x[group, channel, d, h], first, border, padding, rows)
                    place = group * rows.group_pitch + channel * rows.channel_pitch
                    join(room[place + plane * rows.depth_pitch + row * rows.row_pitch :], buffer, rows.column_pitch)


@njit()
def at(table: Array, index: int) -> int:
    """The input index of a padded one, or -1."""
    return table[index] if index < len(table) else -1


@njit()
def read_row(target: Array, source: Array, first: int, border: Array, padding: Array, rows: Rows) -> None:
    """The row of a tile that begins at a padded column, from a row of the input."""
    width, step = rows.width, rows.step_w
    # Those from low to high lie in a row in the input.
    low = min(max(-((first - rows.first_column) // step), 0), width)
    high = min(max(-((first - rows.end_column) // step), low), width)
    for j in range(low):
        index = at(border, first + j * step)
        target[j] = source[index] if index >= 0 else padding[0]
    inside, values = target[low:high], source[max(first + low * step - rows.first_column, 0) :]
    if step == 1:
        for j in range(len(inside)):
            inside[j] = values[j]
    else:
        for j in range(len(inside)):
            inside[j] = values[j * step]
    # In the border, what lies behind the input follows what lies before it.
    first -= rows.end_column - rows.first_column
    for j in range(high, width):
        index = at(border, first + j * step)
        target[j] = source[index] if index >= 0 else padding[0]


@njit()
def join(target: Array, buffer: Array, pitch: int) -> None:
    """The rows of a transform's tiles, as parts of its numbers that lie so many elements apart."""
    if len(buffer) == 2 and pitch == 2:
        # Both at once, and no array taken apart: so compilers find the vectors.
        real, imaginary = buffer[0], buffer[1]
        for j in range(len(real)):
            target[2 * j] = real[j]
            target[2 * j + 1] = imaginary[j]
    else:
        for part in range(len(buffer)):
            values = buffer[part]
            for j in range(len(values)):
                target[j * pitch + part] = values[j]


@njit()
def write(out: Array, room: Array, corners: Array, bias: Array, buffer: Array, integers: Array) -> bool:
    """The sums of a transform's tiles, with a bias (groups, channels): out (groups, channels, d, h, w) from the corner
    of each on (tiles, 3). Here a tile's planes, rows and columns are outputs, and steps are numbers from one to the
    next. buffer (parts, width) is for a row of each. Returns whether none is NaN or inf.
    """
    rows, finite = record(Rows, integers, 0), True
    for group in range(out.shape[0]):
        for channel in range(out.shape[1]):
            shift = bias[group, channel]
            for plane in range(rows.depth):
                for row in range(rows.height):
                    place = group * rows.group_pitch + channel * rows.channel_pitch
                    place += plane * rows.step_d * rows.depth_pitch + row * rows.step_h * rows.row_pitch
                    split(buffer, room[place:], rows.step_w * rows.column_pitch)
                    for part in range(len(corners)):
                        d, h, w = corners[part]
                        if d + plane < out.shape[2] and h + row < out.shape[3]:
                            target, sums = out[group, channel, d + plane, h + row, w:], buffer[part]
                            for j in range(min(len(target), len(sums))):
                                target[j] = sums[j] + shift
                                finite &= target[j] - target[j] == 0
    return finite


@njit()
def split(buffer: Array, source: Array, pitch: int) -> None:
    """A row of each of a transform's tiles, from parts of numbers that lie so many elements apart."""
    if len(buffer) == 2 and pitch == 2:
        real, imaginary = buffer[0], buffer[1]
        for j in range(len(real)):
            real[j] = source[2 * j]
            imaginary[j] = source[2 * j + 1]
    else:
        for part in range(len(buffer)):
            values = buffer[part]
            for j in range(len(values)):
                values[j] = source[j * pitch + part]
