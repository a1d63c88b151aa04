"""Matrix products on tensor cores, in TF32: the method for many channels where ten bits of each factor are enough.

The idea: tap by tap, eight input channels of 128 pixels and their weights for 64 output channels go to shared memory,
rounded to TF32, while the eight before them are multiplied: four warps, each with 32 channels by 64 pixels in registers
[1]_. A thread gathers one pixel, so that padding of any mode, stride and dilation cost nothing further. The products
are exact and their sums truncated to 23 bits at least [2]_, in an order of the hardware's own.

It wins where an `rtol` of two thousandths is asked for, on GPUs of compute capability 8.0 and later. This is the one
file that needs numba's extension API.

.. [1] NVIDIA, "PTX ISA", section "Matrix Fragments for mma.m16n8k8".
.. [2] M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer
   Science 7, 2021.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, tiling
from .arrays import too_long
from .driver import cuda, extension, inlined, simulated, types
from .kernels import kernel
from .tiling import MAX_GRID, THREADS

NAME = "tensor"
REPRODUCIBLE = False
NEEDS_RTOL = True
STRIDED_OUT = False
GROUPS_APART = False

CHANNELS, PIXELS, DEPTH = 64, 128, 8
RESIDENT = 4
# Elements of shared memory from one input channel to the next: a fragment's lanes meet all banks.
WEIGHT_PITCH, PIXEL_PITCH = CHANNELS + 8, PIXELS + 8
WEIGHTS, WINDOW = DEPTH * WEIGHT_PITCH, DEPTH * PIXEL_PITCH
# Two buffers of each.
WEIGHT_ELEMENTS, WINDOW_ELEMENTS = 2 * WEIGHTS, 2 * WINDOW
# Elements from one channel of results to the next, on their way through the window's memory.
STAGE_PITCH = PIXELS + 4
# Multiply-adds of a multiprocessor in a clock at most, by the instructions that a warp issues for eight channels of a
# tap (tests/test_cuda_tensor.py); the 192 wavefronts in which a block reads and writes them allow as many.
ISSUED = 200
FED = CHANNELS * PIXELS * DEPTH / ISSUED
UNIT, ADDING = 2.0**-11, 2.0**-22


@extension
def rounded(typing: Any, value: Any) -> Any:
    """A float32 as the bits of a TF32, half away from zero."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
        return builder.call(ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f"), values)

    return types().uint32(value), emit


@extension
def multiplied(
    typing: Any, a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, c0: Any, c1: Any, c2: Any, c3: Any
) -> Any:
    """A warp's sums c, 16 by 8, plus a, 16 by 8, times b, 8 by 8: each thread's part of each."""
    from llvmlite import ir

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real, word = ir.FloatType(), ir.IntType(32)
        kind = ir.FunctionType(ir.LiteralStructType([real] * 4), [word] * 6 + [real] * 4)
        text = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        text += "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
        # All threads of a warp meet it: it must not move into a branch.
        call = builder.call(ir.InlineAsm(kind, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", side_effect=True), values)
        return context.make_tuple(builder, signature.return_type, [builder.extract_value(call, i) for i in range(4)])

    return types().UniTuple(c0, 4)(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3), emit


@inlined
def store(out, to, here, left, pixels, floats, at, thread, sums, first, bias, channel, offset, relu):  # type: ignore[no-untyped-def]
    """Every fourth group of eight channels: through shared memory, so that neighbouring threads store neighbours."""
    for n in range(8):
        for k in range(2):
            floats[np.uint64(at) + np.uint64(8 * n + 4 * k)] = sums[first + 4 * n + k]
    cuda.syncthreads()
    for i in range(np.int32(16)):
        co = np.int32(i // 8 * 32 + offset + i % 8)
        if here and co < left:
            total = floats[np.uint32(i * STAGE_PITCH + thread)] + bias[channel + co]
            if relu and total < np.float32(0):
                total = np.float32(0)
            out[to + np.int64(co) * pixels] = total
    cuda.syncthreads()


def error_bound(problem: Problem) -> float:
    """Both factors are rounded once, and each sum is truncated."""
    steps = (problem.taps + DEPTH + problem.has_bias) * ADDING
    return (1 + UNIT) ** 2 * (1 + steps / (1 - steps)) - 1 if steps < 1 else math.inf


# Truncation errs to one side, and one large product may be all there is.
expected_error = error_bound


def why_not(problem: Problem, machine: Machine) -> str | None:
    if simulated():
        return "numba's simulator has no tensor cores"
    if machine.gpu is not None and not machine.gpu.tensor_lanes:
        return f"{machine.gpu.name} multiplies no TF32: that takes compute capability 8.0"
    if reason := tiling.floats_alone(problem):
        return reason
    if problem.accumulator != np.float32:
        return f"the sums are {problem.accumulator.name}, but TF32 has ten bits"
    if reason := too_long(problem):
        return reason
    if max(_grid(problem)[1:]) > MAX_GRID:
        return "there are more than 65535 images or blocks of channels, but a grid has no more"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    assert machine.gpu is not None
    gpu = machine.gpu
    busiest = -(-math.prod(_grid(problem)) // gpu.multiprocessors) * gpu.multiprocessors
    depth = -(-max(1, problem.in_channels // problem.groups) // DEPTH) * DEPTH * math.prod(problem.kernel)
    rate = 2.0 * gpu.multiprocessors * gpu.clock * min(float(gpu.tensor_lanes), FED)
    flops = max(2.0 * busiest * CHANNELS * PIXELS * depth, problem.flops)
    return Work(flops, rate, problem.bytes, machine.launch, float(math.prod(problem.weight_shape)) * 8)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def _grid(problem: Problem) -> tuple[int, int, int]:
    """Blocks: of pixels, of channels, images."""
    blocks = problem.groups * -(-(problem.out_channels // problem.groups) // CHANNELS)
    return -(-problem.pixels // PIXELS), blocks, problem.batch


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    channels = problem.out_channels // problem.groups
    places = (
        problem.in_channels // problem.groups,
        channels,
        -(-channels // CHANNELS),
        *(1, 1, *problem.out_spatial)[-3:],
        *(1, 1, *problem.kernel)[-3:],
        *(1, 1, *problem.stride)[-3:],
        *(1, 1, *problem.dilation)[-3:],
        int(problem.activation == "relu"),
        problem.out_channels,
    )
    return pack.prepare(problem, weight, bias, CHANNELS, DEPTH, places)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    memory, steps = pack.reached(problem, x, out, stream)
    build()[_grid(problem), THREADS, stream or 0](memory, *prepared[:-1], out, *steps)


@functools.cache
def build() -> Any:
    """The kernel.

    Arguments: x (flat), weight (groups, channel blocks, ci, taps, 64), bias and the padding's value, depth, height,
    width (padded position -> position or -1), places, out (flat), and x's start and strides in elements.
    """

    def correlate(x, weight, bias, depth, height, width, places, out, start, stride_n, stride_c, sd, sh, sw):  # type: ignore[no-untyped-def]
        memory = cuda.shared.array(WEIGHT_ELEMENTS, np.uint32, alignment=16)
        window = cuda.shared.array(WINDOW_ELEMENTS, np.uint32, alignment=16)
        floats = window.view(np.float32)
        sums = cuda.local.array(64, np.float32)
        factors = cuda.local.array(8, np.uint32)
        values = cuda.local.array(DEPTH, np.float32)
        staged = cuda.local.array(4, np.float32)
        for i in range(64):
            sums[i] = np.float32(0)
        thread = np.uint32(cuda.threadIdx.x)
        lane, warp = np.uint32(thread % np.uint32(32)), np.uint32(thread // np.uint32(32))
        across, down = np.uint32(lane // np.uint32(4)), np.uint32(lane % np.uint32(4))
        channel0 = np.uint32(warp % np.uint32(2) * np.uint32(32))
        pixel0 = np.uint32(warp // np.uint32(2) * np.uint32(64))
        # The products' columns are pixels in such an order that a thread's two lie four apart.
        turned = np.uint32(across // np.uint32(2) + across % np.uint32(2) * np.uint32(4))
        in_channels, out_channels = np.int32(places[0]), np.int32(places[1])
        out_h, out_w = np.int32(places[4]), np.int32(places[5])
        pixels = np.int32(np.int32(places[3]) * out_h * out_w)
        kernel_h, kernel_w = np.int32(places[7]), np.int32(places[8])
        taps = np.int32(np.int32(places[6]) * kernel_h * kernel_w)
        chunks = np.int32((in_channels + DEPTH - 1) // DEPTH)
        group = np.int32(np.int32(cuda.blockIdx.y) // np.int32(places[2]))
        block = np.int32(np.int32(cuda.blockIdx.y) - group * np.int32(places[2]))
        image = start + np.int64(cuda.blockIdx.z) * stride_n + np.int64(group) * in_channels * stride_c
        channel_step = np.int32(stride_c)
        # From one channel's weights to the next; a chunk's eight channels lie so far apart, and two rows of threads.
        weight_step = np.uint32(np.uint32(taps) * np.uint32(CHANNELS))
        weight0 = np.uint32(np.uint32(cuda.blockIdx.y) * np.uint32(chunks) * np.uint32(DEPTH) * weight_step)
        weight0 = np.uint32(weight0 + thread // np.uint32(CHANNELS) * weight_step + thread % np.uint32(CHANNELS))
        # The pixel that this thread gathers.
        mine = np.int32(np.int32(cuda.blockIdx.x) * PIXELS + np.int32(thread))
        here = mine < pixels
        row = np.int32(mine // out_w)
        d0 = np.int32(np.int32(row // out_h) * np.int32(places[9]))
        h0 = np.int32(np.int32(row % out_h) * np.int32(places[10]))
        w0 = np.int32(np.int32(mine - row * out_w) * np.int32(places[11]))
        frame = bias[len(bias) - 1]

        steps = np.int32(taps * chunks)
        kd, kh, kw, chunk = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        position, weight_at = np.int32(-1), weight0
        for turn in range(np.int32(steps + 1)):
            step = np.int32(turn)
            if step < steps:
                if chunk == 0:
                    position = np.int32(-1)
                    if here:
                        d = depth[np.int32(d0 + kd * np.int32(places[12]))]
                        h = height[np.int32(h0 + kh * np.int32(places[13]))]
                        w = width[np.int32(w0 + kw * np.int32(places[14]))]
                        if d >= 0 and h >= 0 and w >= 0:
                            position = np.int32(image + d * sd + h * sh + w * sw)
                channels_left = np.int32(in_channels - chunk * np.int32(DEPTH))
                for i in range(DEPTH):
                    value = np.float32(0)
                    if i < channels_left:
                        value = frame
                        if position >= 0:
                            value = x[np.uint32(position + np.int32(i) * channel_step)]
                    values[i] = value
                for i in range(4):
                    staged[i] = weight[np.uint32(weight_at + np.uint32(2 * i) * weight_step)]
                weight_at = np.uint32(weight_at + np.uint32(DEPTH) * weight_step)
                if position >= 0:
                    position = np.int32(position + np.int32(DEPTH) * channel_step)
                chunk = np.int32(chunk + 1)
                if chunk == chunks:
                    chunk, kw = np.int32(0), np.int32(kw + 1)
                    weight0 = np.uint32(weight0 + np.uint32(CHANNELS))
                    weight_at = weight0
                    if kw == kernel_w:
                        kw, kh = np.int32(0), np.int32(kh + 1)
                        if kh == kernel_h:
                            kh, kd = np.int32(0), np.int32(kd + 1)
            if step > 0:
                buffer = np.uint32(np.uint32(step - 1) % np.uint32(2))
                a_at = np.uint32(buffer * np.uint32(WEIGHTS) + down * np.uint32(WEIGHT_PITCH) + channel0 + across)
                b_at = np.uint32(buffer * np.uint32(WINDOW) + down * np.uint32(PIXEL_PITCH) + pixel0 + turned)
                for m in range(2):
                    for i in range(4):
                        factors[4 * m + i] = memory[
                            np.uint64(a_at) + np.uint64(16 * m + i % 2 * 8 + i // 2 * 4 * WEIGHT_PITCH)
                        ]
                for n in range(8):
                    b0 = window[np.uint64(b_at) + np.uint64(8 * n)]
                    b1 = window[np.uint64(b_at) + np.uint64(8 * n + 4 * PIXEL_PITCH)]
                    for m in range(2):
                        at = 32 * m + 4 * n
                        result = multiplied(
                            factors[4 * m],
                            factors[4 * m + 1],
                            factors[4 * m + 2],
                            factors[4 * m + 3],
                            b0,
                            b1,
                            sums[at],
                            sums[at + 1],
                            sums[at + 2],
                            sums[at + 3],
                        )
                        sums[at], sums[at + 1] = result[0], result[1]
                        sums[at + 2], sums[at + 3] = result[2], result[3]
            if step < steps:
                buffer = np.uint32(np.uint32(step) % np.uint32(2))
                to = np.uint32(buffer * np.uint32(WINDOW) + thread)
                for i in range(DEPTH):
                    window[np.uint64(to) + np.uint64(i * PIXEL_PITCH)] = rounded(values[i])
                to = np.uint32(thread // np.uint32(CHANNELS) * np.uint32(WEIGHT_PITCH) + thread % np.uint32(CHANNELS))
                to = np.uint32(to + buffer * np.uint32(WEIGHTS))
                for i in range(4):
                    memory[np.uint64(to) + np.uint64(2 * i * WEIGHT_PITCH)] = rounded(staged[i])
            cuda.syncthreads()

        relu = places[15] != 0
        co = np.int32(block * CHANNELS)
        channel = np.int64(group * out_channels + co)
        target = (np.int64(cuda.blockIdx.z) * places[16] + channel) * pixels + mine
        left = np.int32(out_channels - co)
        stage = np.uint32((warp % np.uint32(2) * np.uint32(8) + across) * np.uint32(STAGE_PITCH) + pixel0 + down)
        # Written out, since a loop over them would not unroll.
        store(out, target, here, left, pixels, floats, stage, thread, sums, 0, bias, channel, 0, relu)
        store(out, target, here, left, pixels, floats, stage, thread, sums, 2, bias, channel, 8, relu)
        store(out, target, here, left, pixels, floats, stage, thread, sums, 32, bias, channel, 16, relu)
        store(out, target, here, left, pixels, floats, stage, thread, sums, 34, bias, channel, 24, relu)

    return kernel(correlate, THREADS, RESIDENT)
