"""One input channel for each output channel: depthwise layers and image filters, with rows of sums in registers.

The idea: a kernel reads each input row once for all output rows that meet it. A tile sweeps the input rows from top to
bottom, so each of its sums gets its products in the one order of summation, and the result goes from the registers to
the output, bias and activation included. Small square kernels have strips of their own, which read the input where it
lies, padding of zeros or not (simd/strips.py); the others are swept by rows and vectors of columns (simd/rows.py),
where the input lies or, with padding or a stride, through a window (window.py) of a few of its rows; a kernel of
several planes goes plane by plane. With the channels last, a tile has channels in its lanes (channel_lanes.py), or,
where they are few, rows come and go through scratch.

It wins wherever there is one input channel to a group, with any number of output channels: such layers are bound by
memory, and by the loads of neighbouring columns, which this shares over rows [1]_.

.. [1] P. Zhang, E. Lo, B. Lu, "High performance depthwise and pointwise convolutions on mobile devices", AAAI 2020.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Array, Work, allowed_scratch
from ..problem import SEGMENT, Problem
from . import channel_lanes
from .blocks import Blocks, blocks, even_sizes, locate, take, tasks
from .operands import (
    CACHE_LINE,
    biases,
    interleaved,
    no_room,
    no_vectors,
    same_dtype,
    shared_scratch,
    three,
    three_axes,
)
from .row_strips import TALL, Plane, correlate_strips, reads_in_place, served, strip_cycles, strips, zeros_length
from .row_tiles import HEIGHTS, VECTORS, Places, Sweep, correlate_rows, scatter, sweep_cycles, tiles
from .simd.fields import packed, record
from .simd.ir import vectors_fit
from .simd.shares import Share, njit
from .window import Tables, Window, fill, window
from .window_axes import copy_cycles, phases, total_planes

NAME = "depthwise"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

# Share of the FMA peak that the cycles of `_busiest` run at, and a window that leaves the first-level cache room.
EFFICIENCY = 0.75
WINDOW_BYTES = 64 << 10
# Cycles that a task takes besides: to be taken, found and started.
TASK_COST = 400
# The most that a window of several rows takes: a share of the second-level cache.
LARGEST_WINDOW = 512 << 10


class Prepared(NamedTuple):
    """weight: (output channels, taps), or (vectors, taps, lanes) for channels last, and bias: (output channels,), for
    channels last in whole vectors; in the accumulator's dtype.
    """

    weight: Array
    bias: Array


error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    if problem.in_channels != problem.groups:
        return f"each output channel sums {problem.in_channels // problem.groups} input channels, but it takes one"
    if reason := no_vectors(problem, machine, "tiles"):
        return reason
    if channel_lanes.served(problem) and (reason := channel_lanes.why_not(problem)):
        return reason
    if problem.taps > SEGMENT:
        return f"the kernel has {problem.taps} taps, but one accumulator takes {SEGMENT} at most"
    return no_room(problem, machine, scratch_bytes(problem, machine), "windows")


def work(problem: Problem, machine: Machine) -> Work:
    if channel_lanes.served(problem):
        cycles = channel_lanes.cycles(problem, machine)
    else:
        cycles = _busiest(problem, machine, _rows(problem, machine))
    flops = 2.0 * machine.threads * cycles * machine.lanes(problem.accumulator)
    share = machine.efficiency(NAME, problem.accumulator, EFFICIENCY)
    return Work(flops, share * machine.flop_rate(problem.accumulator), problem.bytes, machine.launch, 0.0)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    if channel_lanes.served(problem):
        return channel_lanes.scratch_bytes(problem, machine)
    geometry, _, _, sweep = _layout(problem, machine)
    share = sweep.planes * sweep.kernel_d * geometry.plane_size + _beside_window(problem, machine) + sweep.block
    return shared_scratch(problem, machine, share)


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    rows = weight.astype(problem.accumulator, order="C", copy=False).reshape(problem.out_channels, problem.taps)
    shifts = biases(problem, bias)
    if channel_lanes.served(problem):
        rows, shifts = channel_lanes.pack(problem, machine, rows, shifts)
    return Prepared(rows, shifts)


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
    if channel_lanes.served(problem):
        channel_lanes.run(problem, machine, *prepared, x, out, scratch)
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
    """What `correlate` is told of a Problem."""
    geometry, tables, split, sweep = _layout(problem, machine)
    kind = problem.accumulator, problem.out_spatial[-1:], sweep.tile_rows, sweep.kernel_d > 1
    lanes = machine.lanes(problem.accumulator)
    addresses = strips(problem, lanes) if sweep.strip else tiles(*kind)
    return packed(geometry, split, tables._replace(tiles=addresses), sweep)


@functools.lru_cache(maxsize=1024)
def _layout(problem: Problem, machine: Machine) -> tuple[Window, Tables, Blocks, Sweep]:
    rows, columns = _rows(problem, machine), problem.out_spatial[-1]
    lanes = machine.lanes(problem.accumulator)
    geometry, tables = window(problem, rows, columns, lanes, 0, phased=not served(problem), rows_phased=False)
    channels = max(1, problem.out_channels // problem.groups)
    split = blocks(problem, rows, columns, channels)
    # Small maps are filled several at a time.
    image = total_planes(problem) * geometry.plane_size * problem.accumulator.itemsize
    planes = max(1, WINDOW_BYTES // 4 // image)
    together = min(problem.groups, planes) if split.row_blocks == split.out_d == 1 else 1
    sweep, block = _sweep(problem, lanes), rows * columns if interleaved(problem) else 0
    return geometry, tables, split, sweep._replace(planes=together, window=sweep.window + block, block=block)


def _sweep(problem: Problem, lanes: int) -> Sweep:
    kernel_d, kernel_h, kernel_w = three(problem, "kernel")
    stride_h, dilation_h = ((1, *values)[-2] for values in (problem.stride, problem.dilation))
    above = 0 if problem.rank == 1 else problem.padding[-2][0]
    # Output rows share input rows where they lie as far apart as the kernel's do.
    shared = stride_h == 1
    rows = next(rows for rows in HEIGHTS if rows <= kernel_h) if shared else 1
    # Bytes, say, are converted as a window is filled.
    as_it_is = same_dtype(problem)
    if served(problem):
        zeros = zeros_length(problem, lanes)
        in_place = as_it_is and reads_in_place(problem)
        return Sweep(kernel_d, kernel_h, kernel_w, 1, 0, 0, in_place, 1, stride_h, above, zeros, zeros + TALL * lanes)
    plain = not any(map(any, problem.padding)) and problem.stride[-1] == 1
    direct = as_it_is and plain and problem.out_spatial[-1] >= VECTORS * lanes
    return Sweep(kernel_d, kernel_h, kernel_w, dilation_h, rows, dilation_h if shared else 1, direct, 1, 0, above, 0, 0)


@functools.lru_cache(maxsize=1024)
def _rows(problem: Problem, machine: Machine) -> int:
    """Output rows of a task: as many as the window has room for, but no fewer tasks than keep the threads even.

    Never a window of a whole large image: it would be a copy of it.
    """
    out_h = (1, *problem.out_spatial)[-2]
    # What a thread may take, less the rest of a cache line.
    left = allowed_scratch(problem, machine) // machine.threads
    left -= (_beside_window(problem, machine) + CACHE_LINE) * problem.accumulator.itemsize
    small = [rows for rows in even_sizes(out_h) if _window_size(problem, rows) <= min(LARGEST_WINDOW, left)]
    return min(small or [1], key=lambda rows: _busiest(problem, machine, rows))


def _beside_window(problem: Problem, machine: Machine) -> int:
    """Elements of a thread's scratch besides its window: what strips need, and room for tiles that read whole vectors.

    A plane is rounded up to whole vectors, and has one more behind it.
    """
    lanes = machine.lanes(problem.accumulator)
    return _sweep(problem, lanes).window + (VECTORS + 2) * lanes


def _window_size(problem: Problem, rows: int) -> int:
    """Bytes of one channel's window for so many output rows, and of their block."""
    columns = phases(problem, -1, not served(problem)).length(problem.out_spatial[-1])
    block = rows * problem.out_spatial[-1] if interleaved(problem) else 0
    plane = phases(problem, -2, False).length(rows) * columns
    return (total_planes(problem) * plane + block) * problem.accumulator.itemsize


def _busiest(problem: Problem, machine: Machine, rows: int) -> int:
    """Cycles of the busiest thread, for tasks of so many output rows."""
    lanes, columns = machine.lanes(problem.accumulator), problem.out_spatial[-1]
    sweep = _sweep(problem, lanes)
    channels = max(1, problem.out_channels // problem.groups)
    if sweep.strip:
        adding = channels * strip_cycles(problem, rows, lanes)
    else:
        adding = channels * sweep_cycles(sweep[:3], sweep.tile_rows, rows, -(-columns // lanes))
    if interleaved(problem):
        adding += 1.5 * channels * rows * columns
    far = _window_size(problem, rows) > WINDOW_BYTES
    copying = 0 if sweep.direct else copy_cycles(problem, rows, columns, lanes, not sweep.strip, False) * (1 + far)
    return -(-tasks(problem, rows, columns, channels) // machine.threads) * int(TASK_COST + copying + adding)


@njit(parallel=True)
def correlate(
    share: Share, x: Array, weight: Array, bias: Array, out: Array, flat: Array, scratch: Array, integers: Array
) -> None:
    """The tasks of one share, and then what is left of the others: x (n, groups, d, h, w), out (n, groups*co, od, oh,
    ow), and in `flat` where a row's pixels are neighbours, scratch (shares, ...).
    """
    window, blocks, tables = record(Window, integers, 0), record(Blocks, integers, 1), record(Tables, integers, 2)
    sweep = record(Sweep, integers, 3)
    own = scratch[share.number]
    zeros, spare, filled = own[: sweep.zeros], own[sweep.zeros : sweep.window - sweep.block], own[sweep.window :]
    block = own[sweep.window - sweep.block : sweep.window]
    target = block if sweep.block else flat
    zeros[:] = 0
    height, width = out.shape[3:]
    # Flat places: a slice for each tile would cost as much as a small tile.
    plane, x_plane = out.shape[2] * height * width, x.shape[2] * x.shape[3] * x.shape[4]
    task, end_task = take(share, sweep.planes, len(out), blocks)
    while task < end_task:
        n, first, _, od, oh, _ = locate(task, window, blocks)
        groups = min(end_task - task, blocks.groups - first)
        rows = min(window.block_rows, height - oh)
        direct = vectors_fit(scratch, x) and sweep.direct
        if not direct:
            fill(filled, x[n, first:], 0, groups * sweep.kernel_d, od, oh, 0, tables, window)
        for channel in range(first * blocks.channels, (first + groups) * blocks.channels):
            group = channel // blocks.channels
            start = 0 if sweep.block else (n * out.shape[1] + channel) * plane + (od * height + oh) * width
            depth = (n * x.shape[1] + group) * x_plane + od * window.stride_d * x.shape[3] * x.shape[4]
            inside = (group - first) * sweep.kernel_d * window.plane_size
            kernel, shift = weight[channel], bias[channel]
            if sweep.strip:
                if direct:
                    top, left = oh * sweep.strip - sweep.above, -window.first_column
                    place = Plane(depth, x.shape[4], x.shape[3], x.shape[4], top, left, start, rows, width)
                    correlate_strips(
                        target, x, kernel, shift, zeros, spare, place, sweep.strip, blocks.relu, tables.tiles
                    )
                else:
                    place = Plane(inside, window.pitch, window.rows, window.columns, 0, 0, start, rows, width)
                    correlate_strips(
                        target, filled, kernel, shift, zeros, spare, place, sweep.strip, blocks.relu, tables.tiles
                    )
            elif direct:
                begin = depth + oh * window.stride_h * x.shape[4]
                x_row, deep = x.shape[4], window.dilation_d * x.shape[3] * x.shape[4]
                places = Places(begin, x_row, window.stride_h * x_row, deep, start, rows, width, width, 1)
                correlate_rows(target, x, kernel, shift, places, blocks.relu, tables.offsets, tables.tiles, sweep)
            else:
                pitch, deep = window.pitch, window.plane_size
                places = Places(inside, pitch, window.row_step * pitch, deep, start, rows, width, width, 0)
                correlate_rows(target, filled, kernel, shift, places, blocks.relu, tables.offsets, tables.tiles, sweep)
            if sweep.block:
                scatter(block, out[n, channel, od, oh : oh + rows])
        task += groups
        if task == end_task:
            task, end_task = take(share, sweep.planes, len(out), blocks)
