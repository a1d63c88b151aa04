"""Register tiles over a window of the input: dense correlations near the FMA peak, in the one order of summation.

The idea: a window (window.py) is a copy of the inputs that a block of the output meets, laid out so that every tap is
one offset. A tile of sums stays in registers through all taps of the window, and the tiles sweep the block [1]_ [2]_.
There are two shapes of tile: pixels in the vector lanes (pixel_tiles.py), which needs no packed weights and is best
where rows are wide, and output channels in the lanes (channel_tiles.py), which keeps the lanes full on small maps.

It wins on all dense layers, and refuses only dtypes without vectors. Segments, and so the bits, are those of `loops`.

.. [1] K. Goto and R. van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34, 2008.
.. [2] E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD architectures", SC18.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from ..accuracy import direct_bound, direct_expected
from ..jit import njit, to_fields
from ..machine import Machine
from ..method import Array, Work
from ..problem import Problem
from . import channel_tiles, pixel_tiles
from .blocks import Blocks, blocks, locate, task_range, tasks
from .operands import biases, shared_scratch, three_axes
from .segments import Piece, flush, segment_end, segment_start
from .window import Tables, Window, copy_cycles, fill, pitch, window

NAME = "tiled"
REPRODUCIBLE = True

DTYPES = "fd"
# Share of the FMA peak that the cycles of `_busiest` were measured to run at (bench/peers.py).
EFFICIENCY = 0.75
# A window stays in the second-level cache: 24 KiB, for the first, had 3% slower tiles, which start and end more often.
WINDOW_BYTES = 256 << 10
PART_BYTES = 256 << 10
# A group's channels are cut into so many parts, so that all threads have work on a small map.
PARTS = (1, 2, 4, 8, 16, 32, 64)
SHAPES: dict[str, Any] = {"pixels": pixel_tiles, "channels": channel_tiles}


class Choice(NamedTuple):
    """What lies in the lanes, and the output rows, columns and channels of a task."""

    shape: str
    rows: int
    columns: int
    channels: int


class Prepared(NamedTuple):
    """weight: (groups * co, taps) for pixel tiles, packed for channel tiles; bias: (groups * co,); finite: all weights
    are, as far as it is known.
    """

    weight: Array
    bias: Array
    finite: bool


WINDOW_FIELDS, BLOCKS_FIELDS = len(Window._fields), len(Blocks._fields)
error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    if problem.accumulator.char not in DTYPES:
        return f"the sums are {problem.accumulator.name}, but its tiles are of float32 and float64"
    if not machine.has_fma:
        return "the processor has no fused multiply-add for vectors"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    choice = _choose(problem, machine)
    flops = 2.0 * machine.threads * _busiest(_flat(problem), machine, choice) * machine.lanes(problem.accumulator)
    rate = EFFICIENCY * machine.flop_rate(problem.accumulator)
    packing = float(math.prod(problem.weight_shape) * problem.accumulator.itemsize)
    return Work(flops, rate, problem.bytes, 4e-6, packing * (choice.shape == "channels"))


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    geometry, _, split = _layout(problem, machine, False)
    units = -(-min(split.channels, problem.out_channels // problem.groups) // split.unit)
    # Tiles read whole vectors and runs, so there is room behind the last plane.
    beyond = max(pixel_tiles.VECTORS * machine.lanes(problem.accumulator), *channel_tiles.RUNS)
    beyond *= geometry.column_step
    share = 2 * units * split.sum_rows * split.sum_columns + geometry.planes * geometry.plane_size + beyond
    return shared_scratch(problem, machine, share)


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    if _choose(problem, machine).shape != "channels":
        rows = weight.astype(problem.accumulator, order="C", copy=False).reshape(problem.out_channels, problem.taps)
        return Prepared(rows, biases(problem, bias), False)
    # Tiles read whole vectors, so there is room behind the last weight.
    packed = np.empty(math.prod(weight.shape) + machine.lanes(problem.accumulator), problem.accumulator)
    unit, finite = channel_tiles.unit(machine, problem), True
    for start, rows in _weight_parts(problem, weight, unit):
        blocks_finite = np.empty((len(rows), -(-rows.shape[1] // unit)), np.bool_)
        channel_tiles.pack(rows, packed[start:], blocks_finite)
        finite &= bool(blocks_finite.all())
    return Prepared(packed, biases(problem, bias), finite)


def _weight_parts(problem: Problem, weight: Array, unit: int) -> Iterator[tuple[int, Array]]:
    """Rows of weights (groups, channels, taps) to pack, and where their packed ones start.

    All at once, if that takes no copy; else a few blocks of channels, for the pages of a second large array cost more
    than the copy: 2.8 ms of 3.0 for 256 channels.
    """
    channels, taps = problem.out_channels // problem.groups, problem.taps
    if weight.flags.c_contiguous and weight.dtype == problem.accumulator:
        yield 0, weight.reshape(problem.groups, channels, taps)
        return
    step = unit * max(1, PART_BYTES // (unit * max(1, taps) * problem.accumulator.itemsize))
    for group in range(0, problem.out_channels, max(1, channels)):
        for first in range(group, group + channels, step):
            part = weight[first : min(first + step, group + channels)]
            yield first * taps, part.astype(problem.accumulator, order="C").reshape(1, len(part), taps)


@functools.lru_cache(maxsize=1024)
def _flat(problem: Problem) -> Problem:
    """The same Problem along one axis, where that is one: a kernel of one tap that meets every pixel in turn."""
    plain = all(step == 1 for step in problem.stride) and not any(map(any, problem.padding))
    if math.prod(problem.kernel) > 1 or not plain or problem.rank == 1:
        return problem
    axis: dict[str, Any] = {"kernel": (1,), "stride": (1,), "padding": ((0, 0),), "dilation": (1,)}
    axis |= {"input_dilation": (1,), "fold": ((0, 0),)}
    return dataclasses.replace(problem, spatial=(math.prod(problem.spatial),), **axis)


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
    flat = _flat(problem)
    correlate(
        three_axes(x, flat.spatial),
        prepared.weight,
        prepared.bias,
        three_axes(out, flat.out_spatial),
        scratch.view(problem.accumulator).reshape(machine.threads, -1),
        *_launch(problem, machine, prepared.finite),
    )


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine, finite: bool) -> tuple[Tables, Array]:
    """The Tables, and the integers of Window and Blocks in one array: tuples cost each call 0.1 us a field."""
    geometry, tables, split = _layout(problem, machine, finite)
    name, _, columns, channels = _choose(problem, machine)
    return tables._replace(tiles=SHAPES[name].tiles(problem, columns, channels)), np.array(geometry + split)


@functools.lru_cache(maxsize=1024)
def _layout(problem: Problem, machine: Machine, finite: bool) -> tuple[Window, Tables, Blocks]:
    name, rows, columns, channels = _choose(problem, machine)
    shape, problem = SHAPES[name], _flat(problem)
    geometry, tables = window(
        problem, rows, columns, machine.lanes(problem.accumulator), WINDOW_BYTES, phased=shape.PHASED
    )
    sum_rows, sum_columns = shape.sums(problem, machine, rows, columns)
    unit = shape.unit(machine, problem)
    tile_rows, tile_run = shape.extent(columns)
    split = blocks(
        problem, rows, columns, channels, machine.threads, unit, sum_rows, sum_columns, tile_rows, tile_run, finite
    )
    return geometry, tables, split


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, machine: Machine) -> Choice:
    """The choice whose busiest thread has the least work; larger blocks first."""
    problem = _flat(problem)
    choices = (choice for name in SHAPES for choice in _choices(problem, machine, name))
    return min(choices, key=lambda choice: _busiest(problem, machine, choice))


def _choices(problem: Problem, machine: Machine, name: str) -> list[Choice]:
    shape = SHAPES[name]
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    step = shape.channel_step(machine, problem)
    tiles = max(1, -(-(problem.out_channels // problem.groups) // step))
    channels = sorted({-(-tiles // part) * step for part in PARTS}, reverse=True)
    columns = sorted({-(-out_w // part) for part in range(1, out_w // shape.LEAST_COLUMNS + 2)}, reverse=True)
    found = []
    for c in columns:
        width = pitch(problem, c, shape.PHASED)
        most = max(1, shape.MAX_PIXELS // width)
        if c == 1 or c <= shape.MAX_PIXELS:
            rows = sorted({-(-out_h // part) for part in range(-(-out_h // most), out_h + 1)}, reverse=True)
            found += [Choice(name, r, c, co) for r in rows for co in channels]
    return found


def _busiest(problem: Problem, machine: Machine, choice: Choice) -> int:
    """Cycles of the busiest thread."""
    shape, rows, columns, channels = choice
    channels = min(channels, problem.out_channels // problem.groups)
    copying = copy_cycles(problem, rows, columns, machine.lanes(problem.accumulator), SHAPES[shape].PHASED)
    task = copying + int(SHAPES[shape].cycles(problem, machine, rows, columns, channels))
    return -(-tasks(problem, rows, columns, choice.channels) // machine.threads) * task


@njit(parallel=True)
def correlate(
    x: Array, weight: Array, bias: Array, out: Array, scratch: Array, tables: Tables, integers: Array
) -> None:
    """All tasks, in even shares: x (n, c, d, h, w), out (n, groups*co, od, oh, ow), scratch (shares, ...)."""
    window = Window(*to_fields(integers, WINDOW_FIELDS))
    blocks = Blocks(*to_fields(integers[WINDOW_FIELDS:], BLOCKS_FIELDS))
    group_channels = out.shape[1] // blocks.groups
    for share in prange(blocks.shares):
        first_task, end_task = task_range(share, len(out), blocks)
        for task in range(first_task, end_task):
            n, group, first, od, oh, ow = locate(task, window, blocks)
            end = min(first + blocks.channels, group_channels)
            image = x[n, group * (x.shape[1] // blocks.groups) :]
            channel, end_channel = group * group_channels + first, group * group_channels + end
            target = out[n, channel:end_channel, od]
            correlate_block(image, weight, bias, target, channel, od, oh, ow, scratch[share], tables, window, blocks)


@njit()
def correlate_block(
    x: Array,
    weight: Array,
    bias: Array,
    out: Array,
    channel: int,
    od: int,
    oh: int,
    ow: int,
    scratch: Array,
    tables: Tables,
    window: Window,
    blocks: Blocks,
) -> None:
    """The block of out (co, oh, ow) at (channel, od, oh, ow), from x (c, d, h, w)."""
    rows = -(-len(out) // blocks.unit) * blocks.sum_rows
    size, taps = rows * blocks.sum_columns, window.total_planes * window.taps
    sums = scratch[:size].reshape(rows, blocks.sum_columns)
    # A single segment needs no totals beside its sums.
    single = taps <= min(window.period, window.segment)
    totals = sums if single else scratch[size : 2 * size].reshape(rows, blocks.sum_columns)
    panel = scratch[2 * size :]
    if not single or taps == 0:
        totals[:] = 0
    for plane in range(0, window.total_planes, window.planes):
        planes = min(window.planes, window.total_planes - plane)
        fill(panel, x, plane, planes, od, oh, ow, tables, window)
        tap, end_tap = plane * window.taps, (plane + planes) * window.taps
        while tap < end_tap:
            limit = segment_end(tap, window)
            inside, first = divmod(tap - plane * window.taps, window.taps)
            # Whole planes, or what a segment leaves of one.
            count = (min(end_tap, limit) - tap) // window.taps if first == 0 else 0
            end = window.taps if count else min(window.taps, first + limit - tap)
            source, start = panel[inside * window.plane_size :], tap - first
            count = max(count, 1)
            fresh = int(tap == segment_start(tap, window))
            if window.taps == 1:
                # A plane of one tap is a step: the tiles' inner loop runs over planes.
                end, count = count, 1
            piece = Piece(start, first, end, count, fresh, oh)
            # The weights' layout, known at compile time, tells which tiles.
            if weight.ndim == 2:
                pixel_tiles.accumulate(sums, weight, channel, len(out), source, piece, tables, window, blocks)
            else:
                channel_tiles.accumulate(sums, weight, channel, len(out), source, piece, tables, window, blocks)
            tap = start + (count - 1) * window.taps + end
            if not single and tap in (limit, taps):
                flush(sums, totals)
    if weight.ndim == 2:
        pixel_tiles.store(out, totals, bias[channel:], oh, ow, window, blocks)
    else:
        channel_tiles.store(out, totals, bias[channel:], oh, ow, window, blocks)
