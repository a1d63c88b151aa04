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

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from ..accuracy import direct_bound, direct_expected
from ..jit import njit
from ..machine import Machine
from ..method import Array, Work
from ..problem import Problem
from . import channel_tiles, pixel_tiles
from .window import (
    Blocks,
    Tables,
    Window,
    blocks,
    copy_cycles,
    fill,
    flush,
    locate,
    pitch,
    segment_end,
    task_range,
    tasks,
    window,
)

NAME = "tiled"
REPRODUCIBLE = True

DTYPES = "fd"
# Share of the FMA peak that the cycles of `_busiest` were measured to run at (bench/peers.py).
EFFICIENCY = 0.75
# A window stays in the second-level cache: 24 KiB, for the first, had 3% slower tiles, which start and end more often.
WINDOW_BYTES = 256 << 10
CACHE_LINE = 64
SHAPES: dict[str, Any] = {"pixels": pixel_tiles, "channels": channel_tiles}


class Choice(NamedTuple):
    """What lies in the lanes, and the output rows, columns and channels of a task."""

    shape: str
    rows: int
    columns: int
    channels: int


class Prepared(NamedTuple):
    """weight: (groups, co, taps) for pixel tiles, (groups, blocks, taps, lanes) for channel tiles; bias: (co,)."""

    weight: Array
    bias: Array


error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    if problem.accumulator.char not in DTYPES:
        return f"the sums are {problem.accumulator.name}, but its tiles are of float32 and float64"
    if not machine.has_fma:
        return "the processor has no fused multiply-add for vectors"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    choice = _choose(problem, machine)
    flops = 2.0 * machine.threads * _busiest(problem, machine, choice) * machine.lanes(problem.accumulator)
    rate = EFFICIENCY * machine.flop_rate(problem.accumulator)
    packing = 4.0 * math.prod(problem.weight_shape) * problem.accumulator.itemsize
    return Work(flops, rate, problem.bytes, 4e-6, packing * (choice.shape == "channels"))


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    _, geometry, split = _launch(problem, machine)
    units = -(-min(split.channels, problem.out_channels // problem.groups) // split.unit)
    # Tiles read whole vectors and runs, so there is room behind the last plane.
    beyond = max(len(pixel_tiles.VECTORS) * machine.lanes(problem.accumulator), *channel_tiles.RUNS)
    share = 2 * units * split.sum_rows * split.sum_columns + geometry.planes * geometry.plane_size + beyond
    return machine.threads * -(-share // CACHE_LINE) * CACHE_LINE * problem.accumulator.itemsize


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    group_channels = problem.out_channels // problem.groups
    rows = weight.astype(problem.accumulator, order="C", copy=False)
    rows = rows.reshape(problem.groups, group_channels, problem.taps)
    if _choose(problem, machine).shape == "channels":
        rows = channel_tiles.pack(rows, channel_tiles.unit(machine, problem))
    if bias is None:
        return Prepared(rows, np.zeros(problem.out_channels, problem.accumulator))
    return Prepared(rows, np.ascontiguousarray(bias, problem.accumulator))


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
    missing = (1,) * (3 - problem.rank)
    correlate(
        x.reshape(x.shape[:2] + missing + x.shape[2:]),
        prepared.weight,
        prepared.bias,
        out.reshape(out.shape[:2] + missing + out.shape[2:]),
        scratch.view(problem.accumulator).reshape(machine.threads, -1),
        *_launch(problem, machine),
    )


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine) -> tuple[Tables, Window, Blocks]:
    shape, rows, columns, channels = _choose(problem, machine)
    geometry, tables = window(problem, rows, columns, machine.lanes(problem.accumulator), WINDOW_BYTES)
    sums = SHAPES[shape].sums(problem, machine, rows, columns)
    unit = SHAPES[shape].unit(machine, problem)
    return tables, geometry, blocks(problem, rows, columns, channels, machine.threads, unit, *sums)


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, machine: Machine) -> Choice:
    """The choice whose busiest thread has the least work; larger blocks first."""
    choices = (choice for name in SHAPES for choice in _choices(problem, machine, name))
    return min(choices, key=lambda choice: _busiest(problem, machine, choice))


def _choices(problem: Problem, machine: Machine, name: str) -> list[Choice]:
    shape = SHAPES[name]
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    columns = -(-out_w // -(-out_w // shape.MAX_PIXELS))
    step = shape.channel_step(machine, problem)
    tiles = max(1, -(-(problem.out_channels // problem.groups) // step))
    channels = sorted({-(-tiles // part) * step for part in (1, 2, 4, 8, 16, 32, 64)}, reverse=True)
    rows = sorted({-(-out_h // part) for part in range(1, out_h + 1)}, reverse=True)
    few = [r for r in rows if r == 1 or r * pitch(problem, columns) <= shape.MAX_PIXELS]
    return [Choice(name, r, columns, c) for r in few for c in channels]


def _busiest(problem: Problem, machine: Machine, choice: Choice) -> int:
    """Cycles of the busiest thread."""
    shape, rows, columns, channels = choice
    channels = min(channels, problem.out_channels // problem.groups)
    copying = copy_cycles(problem, rows, columns, machine.lanes(problem.accumulator))
    task = copying + int(SHAPES[shape].cycles(problem, machine, rows, columns, channels))
    return -(-tasks(problem, rows, columns, choice.channels) // machine.threads) * task


@njit(parallel=True)
def correlate(
    x: Array, weight: Array, bias: Array, out: Array, scratch: Array, tables: Tables, window: Window, blocks: Blocks
) -> None:
    """All tasks, in even shares: x (n, c, d, h, w), out (n, groups*co, od, oh, ow), scratch (shares, ...)."""
    group_channels = out.shape[1] // blocks.groups
    for share in prange(blocks.shares):
        first_task, end_task = task_range(share, len(out), blocks)
        for task in range(first_task, end_task):
            n, group, first, od, oh, ow = locate(task, window, blocks)
            end = min(first + blocks.channels, group_channels)
            image = x[n, group * (x.shape[1] // blocks.groups) :]
            rows = weight[group, first // blocks.unit : -(-end // blocks.unit)]
            channels = slice(group * group_channels + first, group * group_channels + end)
            target, biases = out[n, channels, od], bias[channels]
            correlate_block(image, rows, biases, target, od, oh, ow, scratch[share], tables, window, blocks)


@njit()
def correlate_block(
    x: Array,
    weight: Array,
    bias: Array,
    out: Array,
    od: int,
    oh: int,
    ow: int,
    scratch: Array,
    tables: Tables,
    window: Window,
    blocks: Blocks,
) -> None:
    """The block of out (co, oh, ow) at (od, oh, ow), from x (c, d, h, w)."""
    rows, taps = len(weight) * blocks.sum_rows, weight.shape[1]
    size = rows * blocks.sum_columns
    sums = scratch[:size].reshape(rows, blocks.sum_columns)
    # A single segment needs no totals beside its sums.
    single = taps <= min(window.period, window.segment)
    totals = sums if single else scratch[size : 2 * size].reshape(rows, blocks.sum_columns)
    panel = scratch[2 * size :]
    sums[:] = 0
    if not single:
        totals[:] = 0
    for plane in range(0, window.total_planes, window.planes):
        planes = min(window.planes, window.total_planes - plane)
        fill(panel, x, plane, planes, od, oh, ow, tables, window)
        start = plane * window.taps
        end = start + planes * window.taps
        tap = start
        while tap < end:
            limit = segment_end(tap, window)
            stop = min(end, limit)
            accumulate(sums, weight[:, tap:stop], panel, tables.offsets[tap - start : stop - start], window)
            if not single and stop in (limit, taps):
                flush(sums, totals)
            tap = stop
    store(out, totals, bias, weight, oh, ow, window, blocks.relu)


@njit()
def accumulate(sums: Array, weight: Array, panel: Array, offsets: Array, window: Window) -> None:
    """Add some taps by tiles: the weights' layout, known at compile time, tells which."""
    if weight.ndim == 2:
        pixel_tiles.accumulate(sums, weight, panel, offsets, window)
    else:
        channel_tiles.accumulate(sums, weight, panel, offsets, window)


@njit()
def store(out: Array, sums: Array, bias: Array, weight: Array, oh: int, ow: int, window: Window, relu: int) -> None:
    """Write a block's sums, with bias and activation."""
    if weight.ndim == 2:
        pixel_tiles.store(out, sums, bias, oh, ow, window, relu)
    else:
        channel_tiles.store(out, sums, bias, oh, ow, window, relu)
