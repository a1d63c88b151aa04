"""Few outputs of very many taps on the GPU: gradients of layers by their weights, as a matrix product in segments.

The idea: a row of the product is an output channel, a column an output of a plane, and the sums run over the taps, as
many as the maps of a batch have pixels. Blocks of 128 threads hold some thousand sums in registers, and fetch each
weight and input of a chunk of taps once for all of them, by where their taps lie; no matrix of patches is ever made
[1]_. A segment of the order of summation is independent until its sum is added, so each has its own blocks: the few
outputs of a layer's gradient fill the device. The kernel is in wide_tile.py; it keeps the one order of summation.

It wins wherever the kernel is wider than a register tile takes, or outputs are few and taps many.

.. [1] S. Chetlur, C. Woolley, P. Vandermersch, J. Cohen, J. Tran, B. Catanzaro, E. Shelhamer, "cuDNN: efficient
   primitives for deep learning", arXiv:1410.0759, 2014.
"""

from __future__ import annotations

import math
from typing import Any

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, wide_geometry, wide_tile
from .kernels import allocate
from .place import place, shaped
from .tiling import THREADS

NAME = "wide"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    return wide_geometry.why_not(problem, machine)


def work(problem: Problem, machine: Machine) -> Work:
    return wide_geometry.work(problem, machine)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return wide_geometry.scratch_bytes(problem, machine)


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    """Weights where they lie, if their taps do side by side and nobody changes them before the call, else a copy."""
    wide = wide_geometry.choose(problem, machine.multiprocessors)
    channels, inner = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    kernel, stride, dilation = ((1, 1, *values)[-3:] for values in (problem.kernel, problem.stride, problem.dilation))
    sides = wide_geometry.outputs(problem, wide.deep)
    pixels, volume = math.prod(sides), math.prod(kernel)
    lying = pack.where_it_lies(problem, weight)
    packed, channel_step, input_step = lying or (None, inner * volume, volume)
    places = wide_tile.Places(
        channels=channels,
        channel_blocks=-(-channels // wide.height),
        out_h=sides[1],
        out_w=sides[2],
        out_pixels=pixels,
        kernel_h=kernel[1],
        kernel_w=kernel[2],
        stride_d=stride[0],
        stride_h=stride[1],
        stride_w=stride[2],
        dilation_d=dilation[0],
        dilation_h=dilation[1],
        dilation_w=dilation[2],
        depth_end=kernel[0] * dilation[0],
        row_end=kernel[1] * dilation[1],
        column_end=kernel[2] * dilation[2],
        volume=volume,
        taps=problem.taps,
        period=problem.segments[0],
        segment=problem.segments[1],
        segments=wide_geometry.segments(problem)[1],
        weight_channel=channel_step,
        weight_input=input_step,
        in_channels=inner,
        out_plane=pixels if wide_geometry.of_slices(problem, wide.deep) else problem.out_channels * pixels,
        out_channel=problem.pixels,
        relu=int(problem.activation == "relu"),
    )
    return pack.prepare(problem, weight, bias, 1, 1, places, (wide_tile.build(wide), wide), packed)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    """One launch, or, of several segments, two for as many as scratch holds: the second adds up their sums."""
    memory, (start, step_n, step_c, *steps) = pack.reached(problem, x, out, stream)
    weight, bias, *tables, (correlate, wide) = prepared
    if weight.pointer < out.pointer + out.nbytes and out.pointer < weight.pointer + weight.nbytes:
        # The caller's, where the result goes: it is read while that is written.
        copy = allocate(weight.size, weight.dtype, stream)
        place(shaped(weight, (weight.size,)), shaped(copy, (weight.size,)), stream=stream)
        weight = copy
    plane_step = steps[0] * problem.stride[0] if wide_geometry.of_slices(problem, wide.deep) else step_n
    planes, size = wide_geometry.planes(problem, wide.deep), math.prod(problem.out_shape)
    *blocks, count = wide_geometry.grid(problem, wide)
    on = stream or 0
    numbers = (planes, plane_step, size, start, step_c, *steps)
    if count == 1:
        correlate[(*blocks, 1), THREADS, on](memory, weight, bias, out, *tables, 0, 1, *numbers)
        return
    together = wide_geometry.together(problem, machine)
    sums = allocate(together * size, problem.accumulator, stream)
    threads, shape = -(-size // THREADS), (size, problem.pixels, problem.out_channels)
    relu = int(problem.activation == "relu")
    for first in range(0, count, together):
        some = min(together, count - first)
        correlate[(*blocks, some), THREADS, on](memory, weight, bias, sums, *tables, first, 0, *numbers)
        last = int(first + some == count)
        wide_tile.build_sums()[threads, THREADS, on](sums, bias, out, some, first, last, relu, *shape)
