"""Explicit loops: every Problem, any dtype, in the one order of summation.

The idea: a task is a block of output pixels times a block of output channels. It gathers the inputs that some taps
meet at those pixels into a small panel (padding, stride, dilation, layout and dtype end there), then adds the panel
to the accumulators, four channels by four taps at a time, with pixels in the vector lanes. It is the matrix product
of im2col [1]_, with panels that never leave the first-level cache and a fixed order: input channel, kernel plane,
row, column, each a fused multiply-add.

It wins where nothing faster applies; it refuses nothing. The loops below are what LLVM vectorises on its own.

.. [1] K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document
   processing", 2006, section 3.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from ..accuracy import direct_bound, direct_expected
from ..jit import njit, to_fields
from ..machine import Machine
from ..method import Array, Work, allowed_scratch
from ..problem import Problem
from .operands import biases, three_axes
from .panel import Geometry, Sources, fill, find_sources
from .simd.scalar import multiply_add

NAME = "loops"
REPRODUCIBLE = True

# A panel of 64 taps by 128 float32 pixels is 32 KiB; 32 taps are 5% slower on 3x3 64@56.
PANEL_TAPS = 64
PIXELS = (256, 128, 96, 64, 48, 32, 16)
CHANNELS = (64, 32, 16, 8, 4)
LANES = 16
# What a task does besides its multiply-adds, for each tap, in the time of a multiply-add of one pixel: starting a
# row of the panel, copying a pixel into it, starting a channel's loop.
ROW_COST = 1000
PIXEL_COST = 8
CHANNEL_COST = 14
# And for each run of pixels that lies in one row of the output: 3x3 maps ran at a third of what wide ones do.
RUN_COST = 400
# Share of the FMA peak that it was measured to run at, by the accumulator's kind (bench/test_resnet50.py).
EFFICIENCY = {"f": 0.7, "c": 0.15, "i": 0.55, "u": 0.55}


class Prepared(NamedTuple):
    """weight: (groups, output channels per group, taps) and bias: (output channels,), in the accumulator's dtype."""

    weight: Array
    bias: Array


GEOMETRY_FIELDS = len(Geometry._fields)
error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    return None


def work(problem: Problem, machine: Machine) -> Work:
    pixels, channels = _blocks(problem, machine)
    steps = machine.threads * _busiest(problem, machine.threads, pixels, channels)
    flops_per_step = 8 if problem.accumulator.kind == "c" else 2
    rate = EFFICIENCY[problem.accumulator.kind] * machine.flop_rate(problem.accumulator)
    return Work(steps * flops_per_step, rate, problem.bytes, 4e-6, _prepare_bytes(problem))


def _prepare_bytes(problem: Problem) -> float:
    moved = problem.weight_dtype != problem.accumulator
    return math.prod(problem.weight_shape) * problem.accumulator.itemsize * 2.0 * moved


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    pixels, channels = _blocks(problem, machine)
    return _scratch(problem, machine, pixels, channels)


def _scratch(problem: Problem, machine: Machine, pixels: int, channels: int) -> int:
    return machine.threads * (2 * channels + PANEL_TAPS) * pixels * problem.accumulator.itemsize


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    channels = problem.out_channels // problem.groups
    packed = weight.astype(problem.accumulator, order="C", copy=False)
    return Prepared(
        packed.reshape(problem.groups, channels, problem.taps),
        biases(problem, bias),
    )


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
    sources, integers = _launch(problem, machine)
    correlate(
        three_axes(x, problem.spatial),
        prepared.weight,
        prepared.bias,
        out.reshape(problem.batch, problem.out_channels, problem.pixels),
        scratch.view(problem.accumulator).reshape(machine.threads, -1),
        sources,
        integers,
    )


@functools.lru_cache(maxsize=1024)
def _blocks(problem: Problem, machine: Machine) -> tuple[int, int]:
    """(pixels, output channels) of a task: the pair whose busiest thread has the least work, larger blocks first.

    Of those whose scratch is allowed, or the smallest.
    """
    pairs = [(pixels, channels) for pixels in PIXELS for channels in CHANNELS]
    allowed = allowed_scratch(problem, machine)
    fitting = [pair for pair in pairs if _scratch(problem, machine, *pair) <= allowed] or pairs[-1:]
    return min(fitting, key=lambda pair: _busiest(problem, machine.threads, *pair))


def _busiest(problem: Problem, threads: int, pixels: int, channels: int) -> int:
    """The work of the busiest thread, in multiply-adds of one pixel."""
    group_channels = problem.out_channels // problem.groups
    tasks = problem.batch * problem.groups * -(-problem.pixels // pixels) * -(-group_channels // channels)
    lanes = min(pixels, -(-problem.pixels // LANES) * LANES)
    runs = -(-min(pixels, problem.pixels) // problem.out_spatial[-1]) if problem.pixels else 0
    copying = lanes * PIXEL_COST + runs * RUN_COST + ROW_COST
    per_tap = min(channels, group_channels) * (lanes + CHANNEL_COST) + copying
    return -(-tasks // threads) * per_tap * problem.taps


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine) -> tuple[Sources, Array]:
    missing = 3 - problem.rank
    ones = (1,) * missing
    pixels, channels = _blocks(problem, machine)
    period, segment = problem.segments
    kernel_d, kernel_h, kernel_w = (*ones, *problem.kernel)
    out_d, out_h, out_w = (*ones, *problem.out_spatial)
    stride_d, stride_h, stride_w = (*ones, *problem.stride)
    dilation_d, dilation_h, dilation_w = (*ones, *problem.dilation)
    geometry = Geometry(
        groups=problem.groups,
        taps=problem.taps,
        period=period,
        segment=segment,
        kernel_d=kernel_d,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        out_d=out_d,
        out_h=out_h,
        out_w=out_w,
        stride_d=stride_d,
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_d=dilation_d,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        block_pixels=pixels,
        block_channels=channels,
        relu=int(problem.activation == "relu"),
        shares=machine.threads,
    )
    return find_sources(problem), np.array(geometry)


@njit(parallel=True)
def correlate(
    x: Array,
    weight: Array,
    bias: Array,
    out: Array,
    scratch: Array,
    sources: Sources,
    integers: Array,
) -> None:
    """All tasks, in even shares: x (n, c, d, h, w), weight (groups, co, taps), bias (groups*co,), out (n, groups*co,
    pixels), scratch (shares, ...). The shares are fixed by the number of threads, and no bit of the result depends
    on them.
    """
    geometry = Geometry(*to_fields(integers, GEOMETRY_FIELDS))
    group_channels = weight.shape[1]
    pixel_blocks = -(-out.shape[2] // geometry.block_pixels)
    channel_blocks = -(-group_channels // geometry.block_channels)
    tasks = out.shape[0] * geometry.groups * channel_blocks * pixel_blocks
    for share in prange(geometry.shares):
        for task in range(tasks * share // geometry.shares, tasks * (share + 1) // geometry.shares):
            block, pixel_block = divmod(task, pixel_blocks)
            rest, channel_block = divmod(block, channel_blocks)
            n, group = divmod(rest, geometry.groups)
            first = channel_block * geometry.block_channels
            end = min(first + geometry.block_channels, group_channels)
            channels = slice(group * group_channels + first, group * group_channels + end)
            correlate_block(
                x[n],
                group * (x.shape[1] // geometry.groups),
                weight[group, first:end],
                bias[channels],
                out[n, channels],
                pixel_block * geometry.block_pixels,
                scratch[share],
                sources,
                geometry,
            )


@njit()
def correlate_block(
    x: Array,
    first_channel: int,
    weight: Array,
    bias: Array,
    out: Array,
    pixel: int,
    scratch: Array,
    sources: Sources,
    geometry: Geometry,
) -> None:
    """One task: out[:, pixel:pixel+block] from x (c, d, h, w) and weight (co, taps)."""
    size = geometry.block_pixels
    channels = len(weight)
    pixels = min(size, out.shape[1] - pixel)
    lanes = -(-pixels // LANES) * LANES
    block = channels * size
    total = scratch[:block].reshape(channels, size)
    sums = scratch[block : 2 * block].reshape(channels, size)
    panel = scratch[2 * block : 2 * block + PANEL_TAPS * size].reshape(PANEL_TAPS, size)
    total[:] = 0
    sums[:] = 0
    tap = 0
    while tap < geometry.taps:
        inside = tap % geometry.period
        segment_end = tap - inside + min(geometry.period, (inside // geometry.segment + 1) * geometry.segment)
        count = min(PANEL_TAPS, segment_end - tap, geometry.taps - tap)
        rows = panel[:count]
        fill(rows, x, first_channel, tap, pixel, pixels, sources, geometry)
        accumulate(sums, weight[:, tap : tap + count], rows, lanes)
        tap += count
        if tap == segment_end or tap == geometry.taps:
            for channel in range(channels):
                for j in range(lanes):
                    total[channel, j] += sums[channel, j]
                    sums[channel, j] = 0
    zero = out.dtype.type(0)
    for channel in range(channels):
        for j in range(pixels):
            value = total[channel, j] + bias[channel]
            out[channel, pixel + j] = zero if geometry.relu and value.real < 0 else value


@njit()
def accumulate(sums: Array, weight: Array, panel: Array, lanes: int) -> None:
    """sums[c, j] += weight[c, t] * panel[t, j] for all c and t, taps in ascending order for every element."""
    channels, taps = weight.shape
    fours = taps // 4 * 4
    quads = channels // 4 * 4
    for c in range(0, quads, 4):
        s0, s1, s2, s3 = sums[c], sums[c + 1], sums[c + 2], sums[c + 3]
        w0, w1, w2, w3 = weight[c], weight[c + 1], weight[c + 2], weight[c + 3]
        for t in range(0, fours, 4):
            x0, x1, x2, x3 = panel[t], panel[t + 1], panel[t + 2], panel[t + 3]
            a0, a1, a2, a3 = w0[t], w0[t + 1], w0[t + 2], w0[t + 3]
            b0, b1, b2, b3 = w1[t], w1[t + 1], w1[t + 2], w1[t + 3]
            c0, c1, c2, c3 = w2[t], w2[t + 1], w2[t + 2], w2[t + 3]
            d0, d1, d2, d3 = w3[t], w3[t + 1], w3[t + 2], w3[t + 3]
            for j in range(lanes):
                v0, v1, v2, v3 = x0[j], x1[j], x2[j], x3[j]
                s0[j] = four(v0, v1, v2, v3, a0, a1, a2, a3, s0[j])
                s1[j] = four(v0, v1, v2, v3, b0, b1, b2, b3, s1[j])
                s2[j] = four(v0, v1, v2, v3, c0, c1, c2, c3, s2[j])
                s3[j] = four(v0, v1, v2, v3, d0, d1, d2, d3, s3[j])
    for c in range(channels):
        accumulate_one(sums[c], weight[c], panel, fours if c < quads else 0, lanes)


@njit()
def accumulate_one(sums: Array, weight: Array, panel: Array, first: int, lanes: int) -> None:
    """One channel, taps from `first` on: what the blocks of four by four leave over."""
    taps = len(weight)
    t = first
    while t + 4 <= taps:
        x0, x1, x2, x3 = panel[t], panel[t + 1], panel[t + 2], panel[t + 3]
        w0, w1, w2, w3 = weight[t], weight[t + 1], weight[t + 2], weight[t + 3]
        for j in range(lanes):
            sums[j] = four(x0[j], x1[j], x2[j], x3[j], w0, w1, w2, w3, sums[j])
        t += 4
    for rest in range(t, taps):
        x0, w0 = panel[rest], weight[rest]
        for j in range(lanes):
            sums[j] = multiply_add(x0[j], w0, sums[j])


@njit()
def four(x0: Any, x1: Any, x2: Any, x3: Any, w0: Any, w1: Any, w2: Any, w3: Any, total: Any) -> Any:
    """Four steps of the one order of summation."""
    return multiply_add(x3, w3, multiply_add(x2, w2, multiply_add(x1, w1, multiply_add(x0, w0, total))))
