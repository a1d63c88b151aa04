"""Kernels of rank 1 as one pass for each axis: Gaussians, boxes and Sobel's, with the sum between them in the cache.

The idea: where a kernel is the product of a column and a row, w[i, j] = u[i] * v[j], correlating with v along the rows
and then with u along the columns takes kh + kw multiply-adds for each output instead of kh * kw [1]_; a third axis is
one pass more. A task is a block of output. Its window (window.py) is swept row by row, the sums stay in the
second-level cache, and the column sweeps those: both by the register tiles of `depthwise` (row_tiles.py). No
intermediate image is made.

The factors are found from the weights (rank_one.py), and only for those who give an `rtol` or ask by name, since the
sums are others than those of direct summation: with d = sum|w - product| / sum|w| known and the errors e of sums of kw
and of kh terms, d + (1 + d) * ((1 + e(kw)) * (1 + e(kh)) - 1) bounds the error of two passes, for each rounds relative
to the sum of its absolute products, and sum|u| * sum|v| <= (1 + d) * sum|w|. The first pass has the factor with the
kernel's scale and the others are at most 1, so the passes overflow or underflow no sooner than the sum itself.

NaN and inf spread over the same outputs as by direct summation, since no product with a zero is left out; where a
factor's zero is none of the kernel's, or the reverse, an inf may come out as NaN.

It wins on image filters from about 9x9 on; small ones are bound by memory.

.. [1] S. Treitel, J. L. Shanks, "The design of multistage separable planar filters", IEEE Trans. Geoscience
   Electronics 9, 1971.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..accuracy import summed_bound, summed_expected
from ..machine import Machine
from ..method import Array, Work, allowed_scratch
from ..problem import SEGMENT, Problem
from ..rank_one import factors, kernels
from . import channel_lanes
from .blocks import Blocks, blocks, locate, take, tasks
from .operands import CACHE_LINE, biases, interleaved, no_room, no_vectors, shared_scratch, three_axes
from .row_tiles import HEIGHTS, TILES, VECTORS, Places, Sweep, correlate_rows, scatter, sweep_cycles, tiles
from .simd.fields import packed, record
from .simd.shares import Share, njit
from .window import Tables, Window, fill, window
from .window_axes import copy_cycles, phases

NAME = "separable"
REPRODUCIBLE = False
NEEDS_RTOL = True
STRIDED_OUT = False
GROUPS_APART = False

# Share of the FMA peak that the cycles of `_busiest` run at.
EFFICIENCY = 0.7
# What a block keeps in the second-level cache: its window and the sums of its rows.
BLOCK_BYTES = 384 << 10
# Output rows and columns of a block, cut evenly to at most so many.
ROWS, COLUMNS = (256, 128, 64, 32, 16, 8, 1), (512, 256, 128)


class Prepared(NamedTuple):
    """weight: (output channels, kw + kh + kd), a kernel's factors in the order of the passes but for the planes', which
    stand last; bias: (output channels,).
    """

    weight: Array
    bias: Array


class Passes(NamedTuple):
    """The kernel, its planes 1 where a pass over them is not needed; rows that lie apart in the padded input between
    output rows and between the kernel's; the column pass's tile rows and the output rows between two of them; and of
    the scratch the pitch of the sums of rows, and where those of planes and of rows begin, and the block of output that
    goes to channels which lie last, or 0.
    """

    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    dilation_h: int
    tile_rows: int
    apart: int
    pitch: int
    planes_at: int
    rows_at: int
    block_at: int


def why_not(problem: Problem, machine: Machine) -> str | None:
    if problem.in_channels != problem.groups:
        return f"each output channel sums {problem.in_channels // problem.groups} input channels, but it takes one"
    if reason := no_vectors(problem, machine, "tiles"):
        return reason
    if problem.layout != "NCHW" and problem.in_channels > channel_lanes.FEW:
        few = f"{problem.in_channels} channels lie last, which direct sums have in their lanes"
        return f"{few}, but it takes {channel_lanes.FEW} at most: one by one, as each reads all of the input"
    if problem.rank_one is None:
        return "its kernels are not known to be of rank 1: large ones are looked at, where rtol is given"
    if max(problem.kernel) > SEGMENT:
        return f"the kernel has {max(problem.kernel)} taps in a row, but one accumulator takes {SEGMENT} at most"
    return no_room(problem, machine, scratch_bytes(problem, machine), "blocks")


def error_bound(problem: Problem) -> float:
    return _in_passes(problem, summed_bound)


def expected_error(problem: Problem) -> float:
    return _in_passes(problem, summed_expected)


def _in_passes(problem: Problem, summed: Callable[[Problem, int], float]) -> float:
    """The error of all passes, by that of sums of so many roundings; infinite where nobody knows the kernels' rank."""
    if problem.rank_one is None:
        return math.inf
    kernel_d, kernel_h, kernel_w = _lengths(problem)
    # The bias is added in the last pass.
    steps = (kernel_w, kernel_h + problem.has_bias, *(kernel_d,) * (kernel_d > 1))
    return problem.rank_one + (1 + problem.rank_one) * (math.prod(1 + summed(problem, n) for n in steps) - 1)


def _lengths(problem: Problem) -> tuple[int, ...]:
    """The kernel's (planes, rows, columns)."""
    return (1, 1, *problem.kernel)[-3:]


def work(problem: Problem, machine: Machine) -> Work:
    busiest = _busiest(problem, machine, _block(problem, machine))
    flops = 2.0 * machine.threads * busiest * machine.lanes(problem.accumulator)
    rate = machine.efficiency(NAME, problem.accumulator, EFFICIENCY) * machine.flop_rate(problem.accumulator)
    return Work(flops, rate, problem.bytes, machine.launch, 0.0)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return shared_scratch(problem, machine, _elements(problem, machine, _block(problem, machine)))


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    column, row, *planes = factors(kernels(problem, weight), problem.accumulator)
    return Prepared(np.concatenate([row, column, *planes], axis=1), biases(problem, bias))


def run(
    problem: Problem,
    machine: Machine,
    prepared: Prepared,
    x: Array,
    out: Array,
    scratch: Array,
    stream: object = None,
) -> None:
    if not out.size:
        return
    own = scratch.view(problem.accumulator)
    correlate(
        machine.threads,
        three_axes(x, problem.spatial),
        prepared.weight,
        prepared.bias,
        three_axes(out, problem.out_spatial),
        own if interleaved(problem) else out.reshape(-1),
        own.reshape(machine.threads, -1),
        _launch(problem, machine),
    )


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine) -> Array:
    """What `correlate` is told of a Problem. The tables have the offsets of the kernel's columns and, behind them, of
    its planes, and the tiles of the passes over rows, columns and planes.
    """
    rows, columns = block = _block(problem, machine)
    geometry, tables = _window(problem, machine, block)
    split = blocks(problem, rows, columns, _multiplier(problem))
    passes = _passes(problem, machine, block)
    widths = (columns, problem.out_spatial[-1] % columns or columns)
    dtype, planes = problem.accumulator, range(0, passes.kernel_d * geometry.plane_size, geometry.plane_size)
    offsets = np.concatenate([tables.offsets[: passes.kernel_w], np.array(planes)])
    over_planes = tiles(dtype, (geometry.plane_size,), 1) if passes.kernel_d > 1 else np.zeros(TILES, np.int64)
    addresses = np.concatenate([tiles(dtype, widths, 1), tiles(dtype, widths, passes.tile_rows), over_planes])
    sweeps = (
        Sweep(1, 1, passes.kernel_w, 1, 1, 1, 0, 0, 0, 0, 0, 0),
        Sweep(1, passes.kernel_h, 1, passes.dilation_h, passes.tile_rows, passes.apart, 0, 0, 0, 0, 0, 0),
        Sweep(1, 1, passes.kernel_d, 1, 1, 1, 0, 0, 0, 0, 0, 0),
    )
    return packed(geometry, split, tables._replace(offsets=offsets, tiles=addresses), passes, *sweeps)


def _multiplier(problem: Problem) -> int:
    """Output channels of a group."""
    return max(1, problem.out_channels // problem.groups)


def _window(problem: Problem, machine: Machine, block: tuple[int, int]) -> tuple[Window, Tables]:
    """All planes of the kernel, the stride of the rows kept."""
    return window(problem, *block, machine.lanes(problem.accumulator), 1 << 62, phased=True, rows_phased=False)


def _passes(problem: Problem, machine: Machine, block: tuple[int, int]) -> Passes:
    geometry, _ = _window(problem, machine, block)
    kernel_d, kernel_h, kernel_w = _lengths(problem)
    stride_h, dilation_h = ((1, *values)[-2] for values in (problem.stride, problem.dilation))
    lanes = machine.lanes(problem.accumulator)
    # Tiles read whole vectors, and so beyond what they need: the last plane, or the last row.
    beyond = VECTORS * lanes
    planes_at = kernel_d * geometry.plane_size + beyond
    rows_at = planes_at + (geometry.plane_size + beyond) * (kernel_d > 1)
    # A vector more, lest rows lie a power of two apart.
    pitch = (-(-block[1] // lanes) + 1) * lanes
    block_at = rows_at + phases(problem, -2, False).length(block[0]) * pitch + beyond
    return Passes(
        kernel_d=kernel_d,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        stride_h=stride_h,
        dilation_h=dilation_h,
        # Output rows share rows of sums where they lie as far apart as the kernel's do.
        tile_rows=next(rows for rows in HEIGHTS if rows <= kernel_h) if stride_h == 1 else 1,
        apart=dilation_h if stride_h == 1 else 1,
        pitch=pitch,
        planes_at=planes_at,
        rows_at=rows_at,
        block_at=block_at if interleaved(problem) else 0,
    )


def _elements(problem: Problem, machine: Machine, block: tuple[int, int]) -> int:
    """Elements of a thread's scratch: the window, sums of planes and of rows, a block of output."""
    passes, met = _passes(problem, machine, block), phases(problem, -2, False).length(block[0])
    sums = passes.rows_at + met * passes.pitch + VECTORS * machine.lanes(problem.accumulator)
    return sums + math.prod(block) * interleaved(problem)


@functools.lru_cache(maxsize=1024)
def _block(problem: Problem, machine: Machine) -> tuple[int, int]:
    """Output (rows, columns) of a task: those whose busiest thread has the least work, of those that fit the cache."""
    out_h, out_w = (1, *problem.out_spatial)[-2:]

    def even(size: int, most: int) -> int:
        return -(-size // -(-size // most)) if size else 1

    lanes = machine.lanes(problem.accumulator)
    # Whole vectors, but for the last block of a row.
    wide = sorted({min(out_w or 1, -(-even(out_w, most) // lanes) * lanes) for most in COLUMNS}, reverse=True)
    found = [(rows, columns) for rows in sorted({even(out_h, most) for most in ROWS}, reverse=True) for columns in wide]
    left = allowed_scratch(problem, machine) // machine.threads - CACHE_LINE * problem.accumulator.itemsize
    most = min(BLOCK_BYTES, left) // problem.accumulator.itemsize
    fitting = [block for block in found if _elements(problem, machine, block) <= most] or found[-1:]
    return min(fitting, key=lambda block: _busiest(problem, machine, block))


def _busiest(problem: Problem, machine: Machine, block: tuple[int, int]) -> int:
    """Cycles of the busiest thread, if all tasks were whole."""
    rows, columns = block
    lanes, channels, passes = machine.lanes(problem.accumulator), _multiplier(problem), _passes(problem, machine, block)
    vectors, met = -(-columns // lanes), phases(problem, -2, False).length(rows)
    adding = sweep_cycles((1, 1, passes.kernel_w), 1, met, vectors)
    adding += sweep_cycles((1, passes.kernel_h, 1), passes.tile_rows, rows, vectors)
    if passes.kernel_d > 1:
        geometry, _ = _window(problem, machine, block)
        adding += sweep_cycles((1, 1, passes.kernel_d), 1, 1, geometry.plane_size // lanes)
    # Of a large image, the rows of a block's window come from memory in short pieces.
    copying = 3 * copy_cycles(problem, rows, columns, lanes, True, False)
    if interleaved(problem):
        adding += 3 * rows * columns // 2
    return -(-tasks(problem, rows, columns, channels) // machine.threads) * (100 + copying + channels * adding)


@njit(parallel=True)
def correlate(
    share: Share,
    x: Array,
    weight: Array,
    bias: Array,
    out: Array,
    whole: Array,
    scratch: Array,
    integers: Array,
) -> None:
    """The tasks of one share, and then what is left of the others: x (n, groups, d, h, w), out (n, groups*co, od, oh,
    ow), and in `whole` where a row's pixels are neighbours, scratch (shares, ...).
    """
    window, blocks, tables = record(Window, integers, 0), record(Blocks, integers, 1), record(Tables, integers, 2)
    passes = record(Passes, integers, 3)
    along_rows, down_columns, over_planes = (
        record(Sweep, integers, 4),
        record(Sweep, integers, 5),
        record(Sweep, integers, 6),
    )
    offsets, addresses = tables.offsets, tables.tiles
    kernel_d, kernel_h, kernel_w, pitch = passes.kernel_d, passes.kernel_h, passes.kernel_w, passes.pitch
    zero = out.dtype.type(0)
    own = scratch[share.number]
    filled, sums = own[: passes.planes_at], own[passes.rows_at :]
    # One plane's window, or the sum over the kernel's planes.
    flat = own[passes.planes_at : passes.rows_at] if kernel_d > 1 else filled
    block = own[passes.block_at :]
    results = block if passes.block_at else whole
    height, width = out.shape[3:]
    task, end_task = take(share, 1, len(out), blocks)
    while task < end_task:
        n, group, _, od, oh, ow = locate(task, window, blocks)
        rows, columns = min(window.block_rows, height - oh), min(window.block_columns, width - ow)
        met = (rows - 1) * passes.stride_h + (kernel_h - 1) * passes.dilation_h + 1
        fill(filled, x[n, group:], 0, kernel_d, od, oh, ow, tables, window)
        for channel in range(group * blocks.channels, (group + 1) * blocks.channels):
            row, column = weight[channel, :kernel_w], weight[channel, kernel_w : kernel_w + kernel_h]
            if kernel_d > 1:
                plane, planes_at = weight[channel, kernel_w + kernel_h :], offsets[kernel_w:]
                places = Places(0, 0, 0, 0, 0, 1, window.plane_size, 0, 0)
                correlate_rows(flat, filled, plane, zero, places, 0, planes_at, addresses[2 * TILES :], over_planes)
            places = Places(0, window.pitch, window.pitch, 0, 0, met, columns, pitch, 0)
            correlate_rows(sums, flat, row, zero, places, 0, offsets[:kernel_w], addresses, along_rows)
            start = (((n * out.shape[1] + channel) * out.shape[2] + od) * height + oh) * width + ow
            apart = width
            if passes.block_at:
                start, apart = 0, columns
            places = Places(0, pitch, passes.stride_h * pitch, 0, start, rows, columns, apart, 0)
            shift = bias[channel]
            correlate_rows(
                results, sums, column, shift, places, blocks.relu, offsets[:1], addresses[TILES:], down_columns
            )
            if passes.block_at:
                scatter(block, out[n, channel, od, oh : oh + rows, ow : ow + columns])
        task, end_task = take(share, 1, len(out), blocks)
