"""Explicit loops on the GPU: every Problem, any dtype, one thread for each output element.

The idea: a thread walks through the taps of its element in the one order of summation; neighbouring threads take
neighbouring pixels, so they read neighbouring inputs. It is the definition, in parallel [1]_. It wins where nothing
faster applies; it refuses nothing but dtypes that no GPU has.

.. [1] J. Nickolls, I. Buck, M. Garland, K. Skadron, "Scalable parallel programming with CUDA", ACM Queue 6, 2008.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack
from .arrays import DeviceArray
from .driver import cuda
from .kernels import kernel

NAME = "loops"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

THREADS = 128
MAX_GRID = 65535
# Of the peak at the driver's clock, by the accumulator's kind: for floats as measured on an H100, where each product
# waits for the places that it is read from.
EFFICIENCY = {"f": 0.007, "c": 0.009, "i": 0.003, "u": 0.003}
FLOAT, COMPLEX, INTEGER = range(3)
KINDS = {"f": FLOAT, "c": COMPLEX, "i": INTEGER, "u": INTEGER}

Prepared = pack.Prepared
error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    return None


def work(problem: Problem, machine: Machine) -> Work:
    rate = EFFICIENCY[problem.accumulator.kind] * machine.flop_rate(problem.accumulator)
    blocks = -(-problem.pixels // THREADS) * problem.batch * problem.out_channels
    filled = max(blocks, machine.multiprocessors) * THREADS / max(1, math.prod(problem.out_shape))
    return Work(problem.flops * max(1.0, filled), rate, problem.bytes, machine.launch, 0.0)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> Prepared:
    period, segment = problem.segments
    row = problem.kernel[-1]
    places = (
        problem.in_channels // problem.groups,
        problem.out_channels // problem.groups,
        problem.groups,
        *(1, 1, *problem.out_spatial)[-3:],
        *(1, 1, *problem.kernel)[-3:],
        *(1, 1, *problem.stride)[-3:],
        *(1, 1, *problem.dilation)[-3:],
        period // row,
        segment // row,
        int(problem.activation == "relu"),
    )
    return pack.prepare(problem, weight, bias, 1, 1, places)


def run(
    problem: Problem, machine: Machine, prepared: Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    launch = build(KINDS[problem.accumulator.kind])
    grid = (-(-problem.pixels * problem.out_channels // THREADS), 1, min(problem.batch, MAX_GRID))
    array: DeviceArray = x
    steps = (*array.strides[:2], *(0, 0, *array.strides[2:])[-3:])
    launch[grid, THREADS, stream or 0](
        array.flat() if array.size else prepared.bias, *prepared[:-1], out, array.span[1], *steps
    )


@functools.cache
def build(kind: int) -> Any:
    """The kernel for floats, complex numbers or integers.

    Arguments: x (flat), weight (groups*co, ci, taps), bias and the padding's value, depth, height, width
    (padded position -> position or -1), places, out (flat), and x's start and strides in elements.
    """

    def correlate(x, weight, bias, depth, height, width, places, out, start, stride_n, stride_c, sd, sh, sw):  # type: ignore[no-untyped-def]
        channels, group_channels, groups = places[0], places[1], places[2]
        out_d, out_h, out_w = places[3], places[4], places[5]
        kernel_d, kernel_h, kernel_w = places[6], places[7], places[8]
        pixels = np.int64(out_d) * out_h * out_w
        place = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if place >= pixels * groups * group_channels:
            return
        co, pixel = place // pixels, place % pixels
        batch = out.size // max(np.int64(1), pixels * groups * group_channels)
        ow = pixel % out_w
        oh = pixel // out_w % out_h
        od = pixel // out_w // out_h
        frame = bias[len(bias) - 1]
        for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
            zero = weight.dtype.type(0)
            total, part = zero, zero
            tap = co * channels * kernel_d * kernel_h * kernel_w
            period_left, segment_left = places[15], places[16]
            for ci in range(channels):
                channel = start + n * stride_n + (co // group_channels * channels + ci) * stride_c
                for kd in range(kernel_d):
                    d = depth[od * places[9] + kd * places[12]]
                    for kh in range(kernel_h):
                        if period_left == 0 or segment_left == 0:
                            total = total + part
                            part = zero
                            segment_left = places[16]
                        if period_left == 0:
                            period_left = places[15]
                        period_left -= 1
                        segment_left -= 1
                        h = height[oh * places[10] + kh * places[13]]
                        for kw in range(kernel_w):
                            w = width[ow * places[11] + kw * places[14]]
                            value = frame
                            if d >= 0 and h >= 0 and w >= 0:
                                value = weight.dtype.type(x[channel + d * sd + h * sh + w * sw])
                            factor = weight[tap]
                            tap += 1
                            if kind == FLOAT:
                                part = cuda.fma(value, factor, part)
                            elif kind == COMPLEX:
                                real = cuda.fma(value.real, factor.real, part.real)
                                real = cuda.fma(-value.imag, factor.imag, real)
                                imag = cuda.fma(value.real, factor.imag, part.imag)
                                imag = cuda.fma(value.imag, factor.real, imag)
                                part = weight.dtype.type(complex(real, imag))
                            else:
                                part = part + value * factor
            total = total + part
            total = total + bias[co]
            if kind != COMPLEX:  # noqa: SIM102  # numba leaves out a branch on a constant alone
                if places[17] != 0 and total < zero:
                    total = zero
            out[(np.int64(n) * (groups * group_channels) + co) * pixels + pixel] = total

    return kernel(correlate, THREADS, 1)
