"""Register tiles over a window of the input: dense correlations near the FMA peak, in the one order of summation.

The idea: a window (window.py) is a copy of the inputs that a block of the output meets, laid out so that every tap is
one offset. A tile of sums stays in registers through all taps of the window, and the tiles sweep the block [1]_ [2]_.
Where tiles leave out all that meets padding, the window is the input itself, where it lies.
There are two shapes of tile: pixels in the vector lanes (pixel_tiles.py), which needs no packed weights and is best
where rows are wide, and output channels in the lanes (channel_tiles.py), which keeps the lanes full on small maps.

It wins on all dense layers, and refuses only dtypes without vectors. Segments, and so the bits, are those of `loops`.

.. [1] K. Goto and R. van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34, 2008.
.. [2] E. Georganas et al., "Anatomy of high-performance deep learning convolutions on SIMD architectures", SC18.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from .. import aligned
from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Array, Work, allowed_scratch
from ..problem import Problem
from . import channel_runs, channel_tiles, packing, pixel_tiles
from .blocks import Blocks, blocks, locate, share_costs, take
from .operands import CACHE_LINE, best_that_fits, biases, no_room, no_vectors, shared_scratch, three_axes
from .segments import Piece, flush, segment_end, segment_start
from .simd.fields import packed, record
from .simd.ir import contiguous, vectors_fit
from .simd.shares import Share, njit
from .tile_choice import SHAPES, Choice, busiest, choices, far_bytes, in_place, task_cycles
from .window import WINDOW_BYTES, Ahead, Tables, Window, clear_gaps, fill, input_as_window, read_by, window
from .window_axes import meets_in_turn

NAME = "tiled"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = True
GROUPS_APART = False

# Share of the FMA peak that the cycles of `busiest` were measured to run at (bench/auto_regret.py).
EFFICIENCY = 0.86


class Prepared(NamedTuple):
    """weight: (groups * co * taps,) for pixel tiles, (1, ...), packed, for channel tiles; bias: (groups * co,); finite:
    all weights are, as far as it is known; shape: of the tiles that they are prepared for, whatever the threads of a
    later call.
    """

    weight: Array
    bias: Array
    finite: bool
    shape: str


error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    if reason := no_vectors(problem, machine, "tiles"):
        return reason
    return no_room(problem, machine, scratch_bytes(problem, machine), "windows")


def work(problem: Problem, machine: Machine) -> Work:
    flat = _flat(problem, machine)
    choice = _choose(flat, machine, _shape(problem, machine))
    flops = 2.0 * machine.threads * busiest(flat, machine, choice) * machine.lanes(problem.accumulator)
    share = machine.efficiency(NAME, problem.accumulator, EFFICIENCY)
    rate = share * machine.flop_rate(problem.accumulator)
    # Weights are read and written.
    packing = 2.0 * math.prod(problem.weight_shape) * problem.accumulator.itemsize
    return Work(flops, rate, problem.bytes, machine.launch, packing * (choice.shape == "channels"))


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    # Weights may have been prepared for either shape, by the choice of another number of threads.
    cases = itertools.product({problem, _flat(problem, machine)}, SHAPES)
    return max(_scratch(one, machine, _choose(one, machine, shape)) for one, shape in cases)


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    shape = _shape(problem, machine)
    if shape != "channels":
        plain = weight.astype(problem.accumulator, order="C", copy=False).reshape(-1)
        return Prepared(plain, biases(problem, bias), False, shape)
    # Tiles read whole vectors, so there is room behind the last weight.
    size = math.prod(weight.shape)
    blocked = aligned.empty((size + machine.lanes(problem.accumulator),), problem.accumulator)
    blocked[size:] = 0
    rows = _weight_rows(problem, weight)
    finite = np.empty((problem.groups, -(-rows.shape[1] // channel_tiles.unit(machine, problem))), np.bool_)
    packing.pack(machine.threads, rows, blocked, finite)
    return Prepared(blocked[None], biases(problem, bias), bool(finite.all()), shape)


def _weight_rows(problem: Problem, weight: Array) -> Array:
    """Weights to pack, (groups, channels, ci, taps), where they lie, if their taps are a row: all of them, if it is one
    row.
    """
    weight = weight.astype(problem.accumulator, copy=False)
    channels = problem.out_channels // problem.groups
    inputs = 1 if weight.flags.c_contiguous else weight.shape[1]
    return weight.reshape(problem.groups, channels, inputs, problem.taps // max(1, inputs))


@functools.lru_cache(maxsize=1024)
def _flat(problem: Problem, machine: Machine) -> Problem:
    """The same Problem along one axis, where that is one, a kernel of one tap that meets every pixel in turn, and is
    less work: on maps of 7x7 tiles take two rows at a time.
    """
    if problem.rank == 1 or not meets_in_turn(problem):
        return problem

    def cycles(one: Problem) -> int:
        return min(busiest(one, machine, _choose(one, machine, name)) for name in SHAPES)

    return min((problem.in_a_row, problem), key=cycles)


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
    flat = _flat(problem, machine)
    if flat is not problem and not _flattens(out):
        flat = problem
    correlate(
        machine.threads,
        three_axes(x, flat.spatial),
        prepared.weight,
        prepared.bias,
        three_axes(out, flat.out_spatial),
        scratch.view(problem.accumulator).reshape(machine.threads, -1),
        _launch(flat, machine, prepared.shape, prepared.finite, x.flags.c_contiguous),
    )


def _flattens(out: Array) -> bool:
    """Whether a view of it has all pixels on one axis."""
    pitches = zip(out.strides[2:], out.shape[3:], out.strides[3:], strict=False)
    return all(pitch == size * step for pitch, size, step in pitches)


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine, shape: str, finite: bool, contiguous: bool) -> Array:
    """What `correlate` is told of a Problem, whose input is contiguous or not."""
    choice = _choose(problem, machine, shape)
    geometry, tables = _window(problem, machine, choice)
    if contiguous and in_place(problem, machine, choice, finite):
        geometry, tables = input_as_window(problem, geometry, tables)
    tables = tables._replace(tiles=SHAPES[shape].tiles(problem, *choice[1:], finite))
    return packed(geometry, split(problem, machine, choice, finite), tables)


def _window(problem: Problem, machine: Machine, choice: Choice) -> tuple[Window, Tables]:
    allowed = allowed_scratch(problem, machine)
    return window_beside(problem, machine, choice, beside_window(problem, machine, choice), allowed)


def window_beside(
    problem: Problem, machine: Machine, choice: Choice, beside: int, allowed: int
) -> tuple[Window, Tables]:
    """The window of a choice: as many planes as fit beside so many elements into a thread's share of allowed bytes."""
    lanes, itemsize = machine.lanes(problem.accumulator), problem.accumulator.itemsize
    # What a thread may take, less its sums and the rest of a cache line.
    left = allowed // machine.threads - (beside + CACHE_LINE) * itemsize
    return window(problem, *choice[1:3], lanes, min(WINDOW_BYTES, left), phased=SHAPES[choice.shape].PHASED)


def split(problem: Problem, machine: Machine, choice: Choice, finite: bool) -> Blocks:
    """The tasks of a choice, and where in a thread's scratch the window begins."""
    name, rows, columns, channels = choice
    shape = SHAPES[name]
    unit = shape.unit(machine, problem)
    sum_rows, sum_columns = shape.sums(problem, machine, rows, columns)
    tile_rows, tile_run = shape.extent(columns)
    # Before the window lie the sums, and the totals of several segments.
    units = -(-min(channels, problem.out_channels // problem.groups) // unit)
    panel = units * sum_rows * sum_columns * (1 if problem.taps <= min(problem.segments) else 2)
    found = blocks(problem, rows, columns, channels, unit, sum_rows, sum_columns, tile_rows, tile_run, finite)
    return found._replace(panel=panel, far=int(far_bytes(problem, machine, *choice[1:], problem.taps) > 0))


def beside_window(problem: Problem, machine: Machine, choice: Choice) -> int:
    """Elements of a thread's scratch besides its window."""
    # Tiles read whole vectors and runs, so there is room behind the last plane.
    beyond = max(pixel_tiles.VECTORS * machine.lanes(problem.accumulator), *channel_runs.RUNS)
    return split(problem, machine, choice, False).panel + beyond * problem.stride[-1]


def _scratch(problem: Problem, machine: Machine, choice: Choice) -> int:
    """Bytes that all threads take, whose windows hold a plane at least."""
    geometry, _ = _window(problem, machine, choice)
    elements = geometry.planes * geometry.plane_size + beside_window(problem, machine, choice)
    return shared_scratch(problem, machine, elements)


@functools.lru_cache(maxsize=1024)
def _shape(problem: Problem, machine: Machine) -> str:
    """The shape of tile whose busiest thread has the least work."""
    flat = _flat(problem, machine)
    return min(SHAPES, key=lambda name: busiest(flat, machine, _choose(flat, machine, name)))


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, machine: Machine, shape: str) -> Choice:
    """The choice whose busiest thread has the least work, larger blocks first; of those whose scratch is allowed."""
    cost, scratch = (functools.partial(of, problem, machine) for of in (busiest, _scratch))
    return best_that_fits(choices(problem, machine, shape), cost, scratch, allowed_scratch(problem, machine))


def shares(problem: Problem, machine: Machine) -> list[int]:
    """Cycles of each thread's share."""
    shape, problem = _shape(problem, machine), _flat(problem, machine)
    _, rows, columns, channels = _choose(problem, machine, shape)
    cost = functools.partial(task_cycles, problem, machine, shape)
    return share_costs(problem, rows, columns, channels, machine.threads, cost)


@njit(parallel=True)
def correlate(share: Share, x: Array, weight: Array, bias: Array, out: Array, scratch: Array, integers: Array) -> None:
    """The tasks of one share, and then what is left of the others: x (n, c, d, h, w), out (n, groups*co, od, oh, ow),
    scratch (shares, ...).
    """
    window, blocks, tables = record(Window, integers, 0), record(Blocks, integers, 1), record(Tables, integers, 2)
    group_channels = out.shape[1] // blocks.groups
    clear_gaps(scratch[share.number, blocks.panel :], window, pixel_tiles.VECTORS)
    task, end_task = take(share, 1, len(out), blocks)
    while task < end_task:
        n, group, first, od, oh, ow = locate(task, window, blocks)
        if window.in_place and window.taps == 1:
            # The last block ends with the input.
            ow = min(ow, out.shape[4] - window.block_columns)
        image, own = x[n, group * (x.shape[1] // blocks.groups) :], scratch[share.number]
        following = look_ahead(task + 1, x, tables, window, blocks)
        channel, channels = group * group_channels + first, min(blocks.channels, group_channels - first)
        correlate_block(
            image, weight, bias, out, n, channel, channels, od, oh, ow, own, tables, window, blocks, following, 0
        )
        task, end_task = take(share, 1, len(out), blocks)


@njit()
def look_ahead(task: int, x: Array, tables: Tables, window: Window, blocks: Blocks) -> Ahead:
    """The inputs of a task, which is probably the next one of the same thread."""
    n, group, _, od, oh, ow = locate(task, window, blocks)
    if n >= len(x):
        return Ahead(0, 0, 0, 0, 1)
    return read_by(x[n, group * (x.shape[1] // blocks.groups) :], od, oh, ow, tables, window)


@njit()
def correlate_block(
    x: Array,
    weight: Array,
    bias: Array,
    out: Array,
    n: int,
    channel: int,
    channels: int,
    od: int,
    oh: int,
    ow: int,
    scratch: Array,
    tables: Tables,
    window: Window,
    blocks: Blocks,
    ahead: Ahead,
    filled: int,
) -> None:
    """The block of out at (n, channel, od, oh, ow) with so many channels, from x (c, d, h, w), or, where `filled`, from
    the window as it is.
    """
    size, taps = -(-channels // blocks.unit) * blocks.sum_rows * blocks.sum_columns, window.total_planes * window.taps
    sums = scratch[:size]
    # A single segment needs no totals beside its sums.
    single = taps <= min(window.period, window.segment)
    totals = sums if single else scratch[size : 2 * size]
    # What is stored goes through room before the window, or through the window itself.
    room, aside = scratch[blocks.panel :], scratch[size if single else 2 * size :]
    panel = room
    if vectors_fit(scratch, x):  # noqa: SIM102  # known at compile time, and alone in its test
        if window.in_place:
            panel = x.reshape(x.size)[(od * x.shape[2] + oh * window.stride_h) * x.shape[3] + ow * window.stride_w :]
    if not single or taps == 0:
        # The sums, too: those behind a group's last channel, which no tile writes, are added to their totals.
        scratch[: size if single else 2 * size] = 0
    for plane in range(0, window.total_planes, window.planes):
        planes = min(window.planes, window.total_planes - plane)
        finishing = weight.ndim == 1 and pixel_tiles.can_finish(out, tables, window)
        ready = filled or window.in_place
        if not ready and not (finishing and pixel_tiles.can_copy(x, tables)):
            fill(room, x, plane, planes, od, oh, ow, tables, window)
            ready = 1
        if weight.ndim == 1 and finishing:
            pixel_tiles.finish(
                out, x, weight, bias, n, channel, channels, ready, panel, od, oh, ow, tables, window, blocks
            )
            return
        if weight.ndim == 2 and not contiguous(out) and channel_tiles.can_finish(out, tables, window):
            channel_tiles.finish(out, weight, bias, n, channel, channels, panel, od, oh, ow, tables, window, blocks)
            return
        tap, end_tap = plane * window.taps, (plane + planes) * window.taps
        while tap < end_tap:
            limit = segment_end(tap, window)
            inside, first = divmod(tap - plane * window.taps, window.taps)
            # Whole planes, or what a segment leaves of one.
            count = (min(end_tap, limit) - tap) // window.taps if first == 0 else 0
            end = window.taps if count else min(window.taps, first + limit - tap)
            source, start = panel[inside * window.plane_size :], tap - first
            count = max(count, 1)
            fresh = 1 if tap == segment_start(tap, window) else 0
            if window.taps == 1:
                # A plane of one tap is a step: the tiles' inner loop runs over planes.
                end, count = count, 1
            rows, columns = min(window.block_rows, out.shape[3] - oh), min(window.block_columns, out.shape[4] - ow)
            piece = Piece(start, first, end, count, fresh, oh, ow, rows, columns)
            # The weights' layout, known at compile time, tells which tiles.
            if weight.ndim == 1:
                pixel_tiles.accumulate(sums, weight, channel, channels, source, piece, tables, window, blocks)
            else:
                channel_tiles.accumulate(sums, weight, channel, channels, source, piece, tables, window, blocks, ahead)
            tap = start + (count - 1) * window.taps + end
            if not single and tap == min(limit, taps):
                flush(sums, totals)
    if weight.ndim == 1:
        pixel_tiles.store(out, totals, bias, n, channel, channels, od, oh, ow, window, blocks)
    else:
        channel_tiles.store(out, totals, bias, n, channel, channels, od, oh, ow, aside, window, blocks)
