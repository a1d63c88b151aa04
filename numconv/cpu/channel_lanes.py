"""Channels in the vector lanes: the part of `depthwise` for inputs and outputs that have them last.

A channel's sums meet its own inputs alone, and a pixel's channels lie together in the input, the weights and the
output: so a tap of a row is an address, in the input or in a pixel of padding, and nothing is copied or transposed.
A tile takes four pixels at once, which share each load of weights.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from ..jit import njit
from ..machine import Machine
from ..method import Array
from ..problem import Problem
from .operands import CACHE_LINE, three, three_axes
from .panel import Sources, find_sources
from .simd.fields import packed, record
from .simd.pixels import correlate_pixels
from .simd.shares import Share, kernel, portion

# Pixels of a tile, as the length of a tuple.
PIXELS, ONE = (0,) * 4, (0,)
# Channels of a row that are swept together, so that the weights and the inputs stay in the first-level cache.
CHANNELS = 64


class Launch(NamedTuple):
    """The integers of a launch; spatial axes are padded to three on the left. relu is a flag."""

    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    relu: int


def served(problem: Problem) -> bool:
    """Whether channels lie last, and there are several: one is a plane in either layout."""
    return problem.layout != "NCHW" and problem.out_channels > 1


def why_not(problem: Problem) -> str | None:
    """What a Problem with the channels last has that the lanes do not take."""
    if problem.out_channels != problem.groups:
        count = problem.out_channels // problem.groups
        return f"each input channel has {count} output channels, but with the channels last it takes one"
    if problem.x_dtype not in (problem.accumulator, np.float16):
        return f"the input is {problem.x_dtype.name}, and would need a copy in {problem.accumulator.name}"
    return None


def cycles(problem: Problem, machine: Machine) -> int:
    """Cycles of the busiest thread: about one for a multiply-add, and so many to start a tile and each of its taps."""
    out_w = problem.out_spatial[-1]
    rows = math.prod((problem.batch, *problem.out_spatial[:-1]))
    vectors = -(-problem.out_channels // machine.lanes(problem.accumulator))
    return -(-rows // machine.threads) * out_w * (30 + problem.taps * (4 + vectors))


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    """The places of a row's taps, for each thread."""
    return machine.threads * _entries(problem) * 8


def _entries(problem: Problem) -> int:
    return -(-2 * problem.taps // CACHE_LINE) * CACHE_LINE


def run(problem: Problem, machine: Machine, weight: Array, bias: Array, x: Array, out: Array, scratch: Array) -> None:
    """Fill `out` (n, c, ...), from x (n, c, ...) and weight (taps, c)."""
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
        np.moveaxis(three_axes(out, problem.out_spatial), 1, -1),
        scratch.view(np.int64).reshape(machine.threads, -1),
        *_launch(problem),
    )


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem) -> tuple[Array, Array]:
    """A pixel of padding, and what else `correlate` is told of a Problem."""
    axes = (*three(problem, "kernel"), *three(problem, "stride"), *three(problem, "dilation"))
    launch = Launch._make((*axes, int(problem.activation == "relu")))
    outside = np.full(problem.out_channels, problem.padding_value, problem.accumulator)
    return outside, packed(launch, find_sources(problem))


@kernel
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
    """The rows of one share: out (n, od, oh, ow, c), weight (taps, c), scratch (shares, ...), outside (c,).

    place: the address of the input and the bytes from one image, plane, row and column to the next.
    """
    launch, sources = record(Launch, integers, 0), record(Sources, integers, 1)
    rows = out.shape[0] * out.shape[1] * out.shape[2]
    first, end = portion(rows, share)
    for row in range(first, end):
        rest, oh = divmod(row, out.shape[2])
        n, od = divmod(rest, out.shape[1])
        image = place[0] + n * place[1]
        correlate_row(
            image, place, weight, bias, out[n, od, oh], od, oh, scratch[share.number], outside, sources, launch
        )


@njit()
def correlate_row(
    image: int,
    place: Array,
    weight: Array,
    bias: Array,
    out: Array,
    od: int,
    oh: int,
    places: Array,
    outside: Array,
    sources: Sources,
    launch: Launch,
) -> None:
    """One output row (ow, c): four pixels at a time where all their taps are inside, one by one beside the padding."""
    width, channels = out.shape
    low, high = 0, width
    for kw in range(launch.kernel_w):
        low, high = max(low, sources.interior[2 * kw]), min(high, sources.interior[2 * kw + 1])
    ow, taps = 0, len(weight)
    while ow < width:
        if low <= ow <= high - 4:
            find_places(places, image, place, od, oh, ow, outside, sources, launch)
            for channel in range(0, channels, CHANNELS):
                count = min(CHANNELS, channels - channel)
                for first in range(0, high - ow - 3, 4):
                    target = out[ow + first]
                    correlate_pixels(
                        PIXELS, places, first, taps, weight, bias, launch.relu, target, channels, channel, count
                    )
            ow += (high - ow) // 4 * 4
        else:
            find_places(places, image, place, od, oh, ow, outside, sources, launch)
            correlate_pixels(ONE, places, 0, taps, weight, bias, launch.relu, out[ow], channels, 0, channels)
            ow += 1


@njit()
def find_places(
    places: Array,
    image: int,
    place: Array,
    od: int,
    oh: int,
    ow: int,
    outside: Array,
    sources: Sources,
    launch: Launch,
) -> None:
    """For each tap, the address of the channels that output pixel ow meets, and the bytes from there to what the next
    pixel meets, if both are inside.
    """
    nowhere = outside.ctypes.data
    entry = 0
    for kd in range(launch.kernel_d):
        d = sources.depth[od * launch.stride_d + kd * launch.dilation_d]
        for kh in range(launch.kernel_h):
            h = sources.height[oh * launch.stride_h + kh * launch.dilation_h]
            row = image + d * place[2] + h * place[3]
            for kw in range(launch.kernel_w):
                w = sources.width[ow * launch.stride_w + kw * launch.dilation_w]
                inside = d >= 0 and h >= 0 and w >= 0
                places[entry] = row + w * place[4] if inside else nowhere
                places[entry + 1] = launch.stride_w * place[4] if inside else 0
                entry += 2
