"""Direct summation of any Problem in the one order of summation, block by block: what `loops` and `repair` share.

A task is a block of output pixels times a block of output channels. It gathers the inputs that some taps meet at those
pixels into a small panel (panel.py), then adds the panel to the accumulators, four channels by four taps at a time,
with pixels in the vector lanes, which LLVM finds on its own. No block and no share changes a bit.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..method import Array
from ..problem import Problem
from .operands import three
from .panel import Geometry, Sources, fill, find_sources
from .simd.fields import packed, record
from .simd.ir import is_complex
from .simd.scalar import multiply_add
from .simd.shares import Share, njit, portion

# A panel of 64 taps by 128 float32 pixels is 32 KiB; 32 taps are 5% slower on 3x3 64@56.
PANEL_TAPS = 64
LANES = 16


def scratch_elements(shares: int, pixels: int, channels: int) -> int:
    """Elements of scratch for blocks of so many pixels and channels: totals, sums and a panel for each share."""
    return shares * (2 * channels + PANEL_TAPS) * pixels


@functools.lru_cache(maxsize=1024)
def launch(problem: Problem, pixels: int, channels: int) -> tuple[Array, Array]:
    """What `correlate` is told of a Problem, in blocks of so many pixels, a multiple of the lanes, and channels: the
    value of constant padding, and the rest.
    """
    period, segment = problem.segments
    kernel_d, kernel_h, kernel_w = three(problem, "kernel")
    out_d, out_h, out_w = three(problem, "out_spatial")
    stride_d, stride_h, stride_w = three(problem, "stride")
    dilation_d, dilation_h, dilation_w = three(problem, "dilation")
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
        before_w=problem.padding[-1][0],
        block_pixels=pixels,
        block_channels=channels,
        relu=int(problem.activation == "relu"),
    )
    return np.array([problem.padding_value], problem.accumulator), packed(geometry, find_sources(problem))


@njit(parallel=True)
def correlate(
    share: Share,
    x: Array,
    weight: Array,
    bias: Array,
    out: Array,
    scratch: Array,
    outside: Array,
    integers: Array,
) -> None:
    """The tasks of one share: x (n, c, d, h, w), weight (groups, co, taps), bias (groups*co,), out (n, groups*co,
    pixels), scratch (shares, ...). No bit of the result depends on the shares.
    """
    geometry, sources = record(Geometry, integers, 0), record(Sources, integers, 1)
    group_channels = weight.shape[1]
    pixel_blocks = -(-out.shape[2] // geometry.block_pixels)
    channel_blocks = -(-group_channels // geometry.block_channels)
    tasks = out.shape[0] * geometry.groups * channel_blocks * pixel_blocks
    first_task, end_task = portion(tasks, share)
    for task in range(first_task, end_task):
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
            scratch[share.number],
            outside[0],
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
    outside: Any,
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
        fill(rows, x, first_channel, tap, pixel, pixels, outside, sources, geometry)
        rows[:, pixels:lanes] = 0
        accumulate(sums, weight[:, tap : tap + count], rows, lanes)
        tap += count
        if tap == segment_end or tap == geometry.taps:
            for channel in range(channels):
                for j in range(lanes):
                    total[channel, j] += sums[channel, j]
                    sums[channel, j] = 0
    zero = out.dtype.type(0)
    if out.strides[0] < out.strides[1]:
        # Channels last: in the order in which they lie.
        for j in range(pixels):
            for channel in range(channels):
                value = total[channel, j] + bias[channel]
                out[channel, pixel + j] = zero if geometry.relu and value.real < 0 else value
        return
    for channel in range(channels):
        for j in range(pixels):
            value = total[channel, j] + bias[channel]
            out[channel, pixel + j] = zero if geometry.relu and value.real < 0 else value


@njit()
def accumulate(sums: Array, weight: Array, panel: Array, lanes: int) -> None:
    """sums[c, j] += weight[c, t] * panel[t, j] for all c and t, taps in ascending order for every element."""
    channels, taps = weight.shape
    fours = taps // 4 * 4
    # Complex sums of four channels at once do not stay in registers: one by one is 4.4 times as fast.
    quads = 0 if is_complex(sums) else channels // 4 * 4
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
