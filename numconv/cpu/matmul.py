"""The 1x1 correlation as a matrix product, by np.matmul and its BLAS.

The idea: with a kernel of one tap, each output pixel is weight @ (the input's channels at that pixel) [1]_, so an
image is one product of (out_channels, in_channels) by (in_channels, pixels), on views: nothing is copied or packed.

A kernel that spans the last axes of the input, and has one tap on the others, is a product for each input channel,
added up: what the gradient of a 1x1 layer by its weights is, images in the place of channels.

It wins on 1x1 layers of many channels, where a BLAS runs near the peak. It leaves the one order of summation to the
BLAS, so `reproducible=True` excludes it, and integers never go through it.

The product is cut into one part a thread and each part runs np.matmul's own loop on a thread of numba's pool; see
blas.py for why. Where the BLAS cannot be held to one thread, the call is np.matmul, with the BLAS's threads.

.. [1] A. Zhang et al., "Dive into Deep Learning", section 7.4.3.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ..accuracy import any_order_bound, any_order_expected
from ..machine import Machine
from ..method import Array, Work
from ..problem import Problem
from .blas import find_blas, held, hold, matmul_loop, release
from .blocks import even_shares
from .operands import no_room, same_dtype
from .simd.fields import packed, record
from .simd.native import call_loop
from .simd.shares import Share, counted, njit, portion

NAME = "matmul"
REPRODUCIBLE = False
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

DTYPES = "fdFD"
# Share of the FMA peak of large products (bench/auto_regret.py), the depth, rows and columns at which half of it is
# reached, and the part of it that is left at depth 1, which np.matmul gives to a loop of its own and to no BLAS.
EFFICIENCY = 0.72
HALF_DEPTH, HALF_ROWS, HALF_COLUMNS = 4, 8, {"NCHW": 12, "NHWC": 50}
OUTER = 0.02
# Parts begin at whole multiples of this many rows or columns: a cache line of float32, and of BLAS tiles.
GRAIN = 16
# One row of scratch per thread: 3 addresses, 4 dimensions, 9 steps.
JOB = 16


class Prepared(NamedTuple):
    """weight: (groups, terms, output channels per group, depth), what is summed in a product and the products that are
    added up; bias: (out_channels,), empty for none.
    """

    weight: Array
    bias: Array


class Launch(NamedTuple):
    """The integers of a launch: np.matmul's loop and the BLAS's functions by address, and how a product is cut, into so
    many parts by rows and by columns; relu and bias are flags.
    """

    loop: int
    get_threads: int
    set_threads: int
    rows: int
    columns: int
    bias: int
    relu: int


error_bound, expected_error = any_order_bound, any_order_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    kept = _kept(problem)
    if math.prod(problem.kernel[:kept]) != 1:
        return f"the kernel has {math.prod(problem.kernel)} taps, but a matrix product takes 1x1"
    if any(step != 1 for step in problem.stride[:kept]) or any(map(any, problem.padding)):
        return "stride and padding would need a copy of the input: a matrix product takes neither"
    if problem.accumulator.char not in DTYPES:
        return f"{problem.accumulator.name} sums must be exact, but a BLAS takes floating-point numbers"
    if not same_dtype(problem):
        return f"the input is {problem.x_dtype.name}, and a BLAS would need a copy of it in {problem.accumulator.name}"
    return no_room(problem, machine, scratch_bytes(problem, machine), "parts")


@functools.lru_cache(maxsize=1024)
def _kept(problem: Problem) -> int:
    """The first axes, one at least, that keep their pixels; the kernel spans the others, and sums them up."""
    axes = list(zip(problem.kernel, problem.spatial, problem.padding, problem.dilation, strict=True))
    while problem.taps and len(axes) > 1 and axes[-1][0] == axes[-1][1] > 1 and axes[-1][2:] == ((0, 0), 1):
        axes.pop()
    return len(axes)


def _products(problem: Problem) -> tuple[int, int]:
    """(terms, depth): the products that are added up, and what each sums. What a kernel spans of one input channel lies
    together, but not with that of the next.
    """
    if _kept(problem) == problem.rank:
        return 1, problem.taps
    return problem.in_channels // problem.groups, math.prod(problem.kernel)


def work(problem: Problem, machine: Machine) -> Work:
    (terms, depth), ((height, width), parts) = _products(problem), _parts(problem, machine.threads)
    tasks = problem.batch * problem.groups * parts
    # The busiest thread, if all parts were as large as the largest.
    products = machine.threads * -(-tasks // machine.threads) * problem.taps * height * width
    # What is spanned comes with its columns apart, as channels last do.
    half = HALF_COLUMNS[problem.layout if _kept(problem) == problem.rank else "NHWC"]
    full = _fullness(depth, height, width, half)
    share = machine.efficiency(NAME, problem.accumulator, EFFICIENCY) * full
    flops = products * (8 if problem.accumulator.kind == "c" else 2)
    # Further terms go through scratch.
    moved = problem.bytes + 3 * (terms - 1) * math.prod(problem.out_shape) * problem.accumulator.itemsize
    return Work(flops, share * machine.flop_rate(problem.accumulator), moved, machine.launch, 0.0)


def _parts(problem: Problem, threads: int) -> tuple[tuple[int, int], int]:
    """((height, width) of the largest part, parts) of one product."""
    grid = _grid(problem, threads)
    heights, widths = _part_sizes(problem, *grid)
    return (max(heights), max(widths)), math.prod(grid)


def _fullness(depth: int, height: int, width: int, half_width: int) -> float:
    """What a product reaches of a large one's rate. A single row or column is another kernel, bound by memory."""
    if depth <= 1:
        return OUTER
    sides = ((depth, HALF_DEPTH), (height, HALF_ROWS), (width, half_width))
    return math.prod(side / (side + half) for side, half in sides if side > 1)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return machine.threads * (JOB * 8 + _room(problem, machine.threads) * problem.accumulator.itemsize)


def _room(problem: Problem, threads: int) -> int:
    """Elements of a part, where there are further terms to add."""
    return math.prod(_parts(problem, threads)[0]) if _products(problem)[0] > 1 else 0


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    rows = weight.reshape(problem.groups, problem.out_channels // problem.groups, *_products(problem))
    return Prepared(
        rows.swapaxes(1, 2).astype(problem.accumulator, order="C", copy=False),
        np.empty(0, problem.accumulator) if bias is None else np.ascontiguousarray(bias, problem.accumulator),
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
    weight, bias = prepared
    groups, pixels, (terms, depth) = problem.groups, problem.pixels, _products(problem)
    if _kept(problem) == problem.rank:
        columns = x.reshape(problem.batch, groups, terms, depth, pixels)
    else:
        columns = x.reshape(problem.batch, groups, terms, pixels, depth).swapaxes(3, 4)
    result = out.reshape(problem.batch, groups, problem.out_channels // groups, pixels)
    launch = _launch(problem, machine.threads)
    if launch is not None and problem.taps:
        jobs = machine.threads * JOB * 8
        room = scratch[jobs:].view(problem.accumulator).reshape(machine.threads, -1)
        multiply(machine.threads, weight, columns, result, bias, scratch[:jobs], room, held(), launch)
        return
    np.matmul(weight[:, 0], columns[:, :, 0], out=result)
    for term in range(1, terms):
        result += weight[:, term] @ columns[:, :, term]
    if problem.has_bias:
        result += bias.reshape(groups, -1, 1)
    if problem.activation == "relu":
        np.maximum(result, 0, out=result)


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, threads: int) -> Array | None:
    """A Launch as an array, for a tuple costs each call 0.8 us; None where the BLAS cannot be held to one thread."""
    blas = find_blas()
    if blas is None:
        return None
    flags = int(problem.has_bias), int(problem.activation == "relu")
    return packed(Launch(matmul_loop(problem.accumulator), *blas, *_grid(problem, threads), *flags))


def _grid(problem: Problem, threads: int) -> tuple[int, int]:
    """(rows, columns) of parts that a product is cut into: one a thread, unless the batch and groups give every thread
    its share already. The grid whose largest part is least, and then the squarest: 784 columns as 384 and 400 cost 2%.
    """
    units = problem.batch * problem.groups
    parts = 1 if units % threads == 0 or units >= 8 * threads else threads

    def largest(grid: tuple[int, int]) -> tuple[int, int]:
        height, width = (max(sizes) for sizes in _part_sizes(problem, *grid))
        return height * width, height + width

    return min(((rows, parts // rows) for rows in range(1, parts + 1) if parts % rows == 0), key=largest)


def _part_sizes(problem: Problem, rows: int, columns: int) -> tuple[list[int], list[int]]:
    """The heights and the widths of the parts of a product."""
    compiled: Any = cut
    sides = (problem.out_channels // problem.groups, rows), (problem.pixels, columns)
    edges = ([compiled.py_func(side, parts, part) for part in range(parts + 1)] for side, parts in sides)
    heights, widths = ([int(size) for size in np.diff(ends)] for ends in edges)
    return heights, widths


def shares(problem: Problem, machine: Machine) -> list[int]:
    """Multiplications of each thread's share."""
    heights, widths = _part_sizes(problem, *_grid(problem, machine.threads))
    parts = [problem.taps * height * width for height in heights for width in widths]
    return even_shares(parts * (problem.batch * problem.groups), machine.threads)


@njit(parallel=True)
def multiply(
    share: Share,
    weight: Array,
    x: Array,
    out: Array,
    bias: Array,
    scratch: Array,
    room: Array,
    state: Array,
    integers: Array,
) -> None:
    """The tasks of one share: out (n, groups, co, pixels) = the sum over terms of weight (groups, terms, co, depth) @ x
    (n, groups, terms, depth, pixels), by np.matmul's loop; a thread has room for a part of further terms.
    """
    launch = record(Launch, integers, 0)
    job = scratch.view(np.int64)[share.number * JOB : (share.number + 1) * JOB]
    groups = x.shape[1]
    parts = launch.rows * launch.columns
    hold(launch, state)
    first, end = portion(x.shape[0] * groups * parts, share)
    for task in range(first, end):
        unit, part = divmod(task, parts)
        n, group = divmod(unit, groups)
        row, column = divmod(part, launch.columns)
        top, bottom = cut(out.shape[2], launch.rows, row), cut(out.shape[2], launch.rows, row + 1)
        left, right = cut(out.shape[3], launch.columns, column), cut(out.shape[3], launch.columns, column + 1)
        target = out[n, group, top:bottom, left:right]
        rows, columns = weight[group, :, top:bottom], x[n, group, :, :, left:right]
        multiply_part(launch.loop, rows[0], columns[0], target, job)
        for term in range(1, len(rows)):
            more = room[share.number, : target.size].reshape(target.shape)
            multiply_part(launch.loop, rows[term], columns[term], more, job)
            add(target, more)
        if launch.bias or launch.relu:
            finish(target, bias[group * out.shape[2] + top :], launch)
    # The last to end releases for all: the BLAS's threads are set once to begin with and once in the end.
    if counted(share, 0, 1) + 1 == share.total:
        release(launch, state, share.total)


@njit()
def cut(length: int, parts: int, part: int) -> int:
    """Where part number `part` begins: even shares in multiples of the grain."""
    if part == parts:
        return length
    return min(length, length * part // parts // GRAIN * GRAIN)


@njit()
def multiply_part(loop: int, weight: Array, x: Array, out: Array, job: Array) -> None:
    """Out = weight @ x by one call of the loop; job is where its arguments are laid out."""
    if not out.size:
        return
    job[0], job[1], job[2] = weight.ctypes.data, x.ctypes.data, out.ctypes.data
    job[3], job[4], job[5], job[6] = 1, weight.shape[0], weight.shape[1], x.shape[1]
    job[7:10] = 0
    job[10], job[11] = weight.strides
    job[12], job[13] = x.strides
    job[14], job[15] = out.strides
    start = job.ctypes.data
    call_loop(loop, start, start + 3 * 8, start + 7 * 8)


@njit()
def add(out: Array, more: Array) -> None:
    """Add a further term's part to what the first terms gave."""
    for row in range(len(out)):
        for j in range(out.shape[1]):
            out[row, j] += more[row, j]


@njit()
def finish(out: Array, bias: Array, launch: Launch) -> None:
    """The bias, empty for none, and the activation, while the part (co, pixels) is in the cache, as it lies there."""
    zero = out.dtype.type(0)
    if out.strides[0] < out.strides[1]:
        for j in range(out.shape[1]):
            for channel in range(len(out)):
                value = out[channel, j] + (bias[channel] if launch.bias else zero)
                out[channel, j] = zero if launch.relu and value.real < 0 else value
        return
    for channel in range(len(out)):
        row, shift = out[channel], bias[channel] if launch.bias else zero
        for j in range(len(row)):
            value = row[j] + shift
            row[j] = zero if launch.relu and value.real < 0 else value
