"""Channels in the vector lanes: the part of `depthwise` for inputs and outputs that have them last.

A channel's sums meet its own inputs alone, and a pixel's channels lie together in the input, the weights and the
output: so tiles (simd/pixels.py) read the input where it lies. The addresses of the input pixels that some output rows
meet, of which padding is one, are found once for all channels. A task is one output row, or two that share input rows.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from ..machine import Machine, machine
from ..method import Array
from ..problem import Problem
from .operands import CACHE_LINE, padded_axes, same_dtype, three, three_axes
from .simd.fields import packed, record
from .simd.ir import WIDE
from .simd.pixels import call_pixels, pixels_tile
from .simd.shares import Share, njit, portion

# Output rows of a tile and its pixels: 14 sums, 14 weights and an input in 32 registers; 8 sums in 16.
ROWS = 2
WIDTHS = (7, 6, 5) if WIDE else (4, 3)
# Columns of a kernel that a tile takes at once: those that leave least of its width, which is taken one by one.
RUNS = (7, 5, 3)
# Square kernels that have tiles of their own, without loops over taps: 1.5 times as fast for 3x3, 1.08 for 5x5.
KERNELS = RUNS if WIDE else (3,)
# So few channels, an image's, may be taken one by one, as planes.
FEW = 4
# Pixels whose addresses are found at once.
BLOCK = 112
# What a table of offsets says of padding.
OUTSIDE = -(1 << 63)


class Shape(NamedTuple):
    """The tiles of a Problem, and the rows of a task.

    height: the rows of the kernel that tiles are made for, 0 for any; run: the columns that they take at once; width:
    their pixels. Of a task's output rows each lies `row_step` below the one before, and meets the input `lag` kernel
    rows later. block: pixels whose addresses are found at once, which meet so many `columns`.
    """

    rows: int
    height: int
    run: int
    width: int
    row_step: int
    lag: int
    block: int
    columns: int


class Launch(NamedTuple):
    """The integers of a launch; spatial axes are padded to three on the left.

    See Shape and, for the first, `call_pixels`. tile: its address. Of the channels there are so many `parts`, each of
    `part` channels, that are tasks of their own.
    """

    kernel_d: int
    kernel_h: int
    kernel_w: int
    dilation_w: int
    lag: int
    columns: int
    pitch: int
    apart: int
    relu: int
    dilation_d: int
    dilation_h: int
    stride_d: int
    stride_h: int
    stride_w: int
    tile: int
    rows: int
    row_step: int
    part: int
    parts: int
    block: int


class Positions(NamedTuple):
    """The input's position, or -1, of each padded position on each axis."""

    depth: Array
    height: Array
    width: Array


def served(problem: Problem) -> bool:
    """Whether channels lie last and are more than `FEW`, or fill half a vector, or meet a deep kernel, where the lanes
    take them.
    """
    if problem.layout == "NCHW" or problem.in_channels == 1:
        return False
    deep = problem.rank == 3 and problem.kernel[0] > 1
    filled = 2 * problem.in_channels >= machine(1).lanes(problem.accumulator)
    return problem.in_channels > FEW or ((deep or filled) and why_not(problem) is None)


def why_not(problem: Problem) -> str | None:
    """What a Problem with the channels last has that the lanes do not take."""
    if problem.out_channels != problem.groups:
        count = problem.out_channels // problem.groups
        return f"each input channel has {count} output channels, but with the channels last it takes one"
    if not same_dtype(problem):
        return f"the input is {problem.x_dtype.name}, and would need a copy in {problem.accumulator.name}"
    return None


def cycles(problem: Problem, machine: Machine) -> float:
    """Cycles of the busiest thread: one for a multiply-add, and what tiles, their loops and the addresses take."""
    shape = _shape(problem)
    vectors, taps = -(-problem.out_channels // machine.lanes(problem.accumulator)), problem.taps
    loops = 0 if shape.height else 3 * shape.rows * taps // shape.run
    tile = 60 + vectors * (25 + loops + shape.rows * shape.width * taps)
    out_w, parts = problem.out_spatial[-1], _parts(problem, machine)
    task = 150 + -(-out_w // shape.width) * tile + -(-out_w // shape.block) * _entries(problem)[0]
    return -(-_tasks(problem) * parts // machine.threads) * task / parts


def pack(problem: Problem, machine: Machine, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Weights (channels, taps) as (vectors, taps, lanes), and the biases, both in whole vectors."""
    lanes = machine.lanes(problem.accumulator)
    beyond = -len(weight) % lanes
    rows = np.pad(weight, ((0, beyond), (0, 0))).reshape(-1, lanes, problem.taps)
    return np.ascontiguousarray(rows.swapaxes(1, 2)), np.pad(bias, (0, beyond))


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    """For each thread: the addresses of inputs, the offsets of columns, and a pixel."""
    return machine.threads * -(-sum(_entries(problem)) // CACHE_LINE) * CACHE_LINE * 8


def _entries(problem: Problem) -> tuple[int, int, int]:
    """The same in entries of 8 bytes."""
    shape, (before, after), stride = _shape(problem), problem.padding[-1], problem.stride[-1]
    kernel_d, kernel_h, _ = three(problem, "kernel")
    sources = kernel_d * (kernel_h + shape.lag) * shape.columns
    return sources, before + problem.spatial[-1] + after + shape.width * stride, problem.out_channels


@functools.lru_cache(maxsize=1024)
def _shape(problem: Problem) -> Shape:
    """The Shape of a Problem: two rows wherever they share input rows, and the pixels that waste least."""
    (kernel_d, kernel_h, kernel_w), (_, stride_h, stride_w), (_, dilation_h, dilation_w) = (
        three(problem, name) for name in ("kernel", "stride", "dilation")
    )
    _, out_h, out_w = three(problem, "out_spatial")
    common = math.gcd(stride_h, dilation_h)
    step, lag = dilation_h // common, stride_h // common
    shared = lag < kernel_h and step < out_h
    rows, row_step, lag = (ROWS, step, lag) if shared else (1, 1, 0)
    # A single row has as many sums.
    width = min((width * ROWS // rows for width in WIDTHS), key=lambda width: -(-out_w // width) * width)
    run = min((run for run in RUNS if run <= kernel_w and dilation_w == 1), key=lambda run: kernel_w % run, default=1)
    own = shared and run in KERNELS and (kernel_d, kernel_h, kernel_w) == (1, run, run)
    height = run if own and stride_h == stride_w and dilation_h == 1 else 0
    block = min(-(-out_w // width), BLOCK // width) * width
    columns = (block - 1) * stride_w + (kernel_w - 1) * dilation_w + 1
    return Shape(rows, height, run, width, row_step, lag, block, columns)


def _tasks(problem: Problem) -> int:
    """Rows, or pairs of rows, of all planes; those that would begin below the last row included."""
    (out_d, out_h, _), shape = three(problem, "out_spatial"), _shape(problem)
    return int(problem.batch * out_d * -(-out_h // (shape.rows * shape.row_step)) * shape.row_step)


def _parts(problem: Problem, machine: Machine) -> int:
    """Parts of the channels that are tasks of their own, where there are few rows for the threads."""
    vectors = -(-problem.out_channels // machine.lanes(problem.accumulator))
    return min(-(-machine.threads // max(1, _tasks(problem))), vectors)


def run(problem: Problem, machine: Machine, weight: Array, bias: Array, x: Array, out: Array, scratch: Array) -> None:
    """Fill `out` (n, c, ...), from x (n, c, ...) and what `pack` made."""
    x = three_axes(x, problem.spatial)
    if x.strides[1] != x.itemsize:
        # Views of every other channel, say, which no vector can read.
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    n, _, d, h, w = x.strides
    correlate(
        machine.threads,
        np.array([x.ctypes.data, n, d, h, w]),
        weight,
        bias,
        three_axes(out, problem.out_spatial).transpose(0, 2, 3, 4, 1),
        scratch.view(np.int64).reshape(machine.threads, -1),
        *_launch(problem, machine),
    )


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine) -> tuple[Array, Array]:
    """A pixel of padding, and what else `correlate` is told of a Problem."""
    shape, channels, parts = _shape(problem), problem.out_channels, _parts(problem, machine)
    kernel, stride, dilation = (three(problem, name) for name in ("kernel", "stride", "dilation"))
    lanes = machine.lanes(problem.accumulator)
    tile = pixels_tile(problem.accumulator, shape.rows, shape.height, shape.run, stride[2], shape.width)
    launch = Launch(
        kernel_d=kernel[0],
        kernel_h=kernel[1],
        kernel_w=kernel[2],
        dilation_w=dilation[2],
        lag=shape.lag,
        columns=shape.columns,
        pitch=channels,
        apart=shape.row_step * problem.out_spatial[-1] * channels,
        relu=int(problem.activation == "relu"),
        dilation_d=dilation[0],
        dilation_h=dilation[1],
        stride_d=stride[0],
        stride_h=stride[1],
        stride_w=stride[2],
        tile=tile.address,
        rows=shape.rows,
        row_step=shape.row_step,
        part=-(-channels // (lanes * parts)) * lanes,
        parts=parts,
        block=shape.block,
    )
    depth, height, columns = padded_axes(problem)
    # What is more of a tile than of the output meets positions behind the last.
    height = np.append(height, np.full(shape.row_step * stride[1], -1))
    columns = np.append(columns, np.full(shape.width * stride[2], -1))
    outside = np.full(channels, problem.padding_value, problem.accumulator)
    return outside, packed(launch, Positions(depth, height, columns))


@njit(parallel=True)
def correlate(
    share: Share,
    place: Array,
    weight: Array,
    bias: Array,
    out: Array,
    scratch: Array,
    outside: Array,
    integers: Array,
) -> None:
    """The tasks of one share: out (n, od, oh, ow, c), weight (vectors, taps, lanes), scratch (shares, ...).

    place: the address of the input and the bytes from one image, plane, row and column to the next. outside (c,).
    """
    launch, positions = record(Launch, integers, 0), record(Positions, integers, 1)
    told, width = integers[integers[0] :], positions.width
    images, out_d, out_h, out_w, channels = out.shape
    own = scratch[share.number]
    offsets, spare, sources = own[: len(width)], own[len(width) :], own[len(width) + channels :]
    for column in range(len(width)):
        offsets[column] = width[column] * place[4] if width[column] >= 0 else OUTSIDE
    together = launch.rows * launch.row_step
    pairs = -(-out_h // together) * launch.row_step
    begin, stop = portion(images * out_d * pairs * launch.parts, share)
    for task in range(begin, stop):
        rest, part = divmod(task, launch.parts)
        rest, pair = divmod(rest, pairs)
        n, od = divmod(rest, out_d)
        turn, inside = divmod(pair, launch.row_step)
        oh = turn * together + inside
        if oh >= out_h:
            continue
        present = 1 if oh + launch.row_step >= out_h else launch.rows
        first = part * launch.part
        end = min(first + launch.part, channels)
        for ow in range(0, out_w, launch.block):
            image = place[0] + n * place[1]
            find_sources(sources, image, place, od, oh, ow, outside, positions, offsets, launch)
            start = (((n * out_d + od) * out_h + oh) * out_w + ow) * channels
            pixels = min(launch.block, out_w - ow)
            call_pixels(launch.tile, sources, told, weight, bias, spare, out, start, first, end, present, pixels)


@njit()
def find_sources(
    sources: Array,
    image: int,
    place: Array,
    od: int,
    oh: int,
    ow: int,
    outside: Array,
    positions: Positions,
    offsets: Array,
    launch: Launch,
) -> None:
    """The address of each input pixel that a block of output pixels meets: `outside` for padding."""
    nowhere, columns = outside.ctypes.data, offsets[ow * launch.stride_w :][: launch.columns]
    entry = 0
    for kd in range(launch.kernel_d):
        d = positions.depth[od * launch.stride_d + kd * launch.dilation_d]
        for number in range(launch.kernel_h + launch.lag):
            h = positions.height[oh * launch.stride_h + number * launch.dilation_h]
            row, part = image + d * place[2] + h * place[3], sources[entry : entry + len(columns)]
            if d >= 0 and h >= 0:
                for column in range(len(columns)):
                    part[column] = row + columns[column] if columns[column] != OUTSIDE else nowhere
            else:
                part[:] = nowhere
            entry += launch.columns
