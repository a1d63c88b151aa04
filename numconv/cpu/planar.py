"""Planes in the vector lanes: few outputs of many input planes, such as the gradients of layers by their weights.

The idea: where no output of one lane meets the input of another, a vector holds a pixel of as many planes as it has
lanes, and is multiplied and added without moving a lane: each sum gets its products in the one order of summation.
Lanes are groups, with a vector for each pixel of their kernels, or the output planes of a group that have an input
plane each, with one number for all lanes; a gradient by the weights has its layer's channels there. A task gathers some
rows of its planes into a panel of such vectors, half a square of them transposed at a time, and the sums of a few
outputs stay in registers through all of them (simd/outputs.py). Each pixel is gathered once, and serves as many sums
as there are outputs: those are the taps of the layer, for its gradient. With planes in the lanes, tiles leave out
products with zeros of the padding, a fifth of them at maps of 7x7, where all weights are finite.

It wins where planes are many, and outputs are few and of many taps: the gradients by the weights of depthwise
layers [1]_, of layers in groups of up to a dozen channels, and of others where output channels or pixels are few.
Segments, and so the bits, are those of `loops`. The kernel is that of plane_lanes.py; its blocks are chosen here.

.. [1] Z. Qin, Z. Zhang, D. Li, Y. Zhang, Y. Peng, "Diagonalwise refactorization: an efficient training method for
   depthwise convolutions", IJCNN 2018.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Array, Work, allowed_scratch
from ..problem import Problem
from .operands import (
    best_that_fits,
    biases,
    interleaved,
    meets,
    no_room,
    no_vectors,
    padded_axes,
    same_dtype,
    shared_scratch,
    three,
    three_axes,
)
from .plane_lanes import Launch, Positions, correlate
from .simd.fields import packed
from .simd.ir import WIDE
from .simd.outputs import EVERYTHING, Met, Spans, outputs_tile

NAME = "planar"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = True

# Sums of a tile: with a vector of the kernel, in 32 registers or 16; inputs are read as they are multiplied, or, with
# several output channels, whose kernels then take a register each, into one.
SUMS = 28 if WIDE else 14
REGISTERS = 31 if WIDE else 15
# Output channels of a tile at most, of groups and of planes: three numbers for all lanes took 1.7 times as long as two.
MOST_CHANNELS = 3, 2
# Bytes of the panels of a piece: a quarter of the second-level cache, and less where a task may take less. Panels of
# the first level's size took 1.1 to 1.4 times as long: of each, some rows of the input are gathered again.
PANELS = (1 << 18, 1 << 16, 1 << 14, 1 << 12)
# Tasks have all of each group, or one of so many parts.
PARTS = (1, 2, 4, 16, 64)
# The longest row of a kernel whose tiles leave out zeros of the padding, which have code for each of its columns: rows
# of 28 took 1.16 times as long with it. And the least share of the products that is worth such tiles.
LONGEST_ROW, LEAST_LEFT_OUT = 14, 0.05
# Cycles that a column takes to be gathered, a tile and a row to be started, and a vector of sums to be written; and
# those after which a multiply-add's result is there for the next.
GATHERING, TILE_START, ROW_START, STORING, LATENCY = 6, 100, 16, 20, 4
# Share of the FMA peak that the cycles of `_busiest` were measured to run at.
EFFICIENCY = 0.8


class Choice(NamedTuple):
    """What a task and a piece of it are: output channels of each group, slices (output planes of all images) and rows
    of a task; rows and columns of the kernel of a piece; and whether lanes are output planes, not groups.
    """

    channels: int
    slices: int
    rows: int
    kernel_rows: int
    kernel_columns: int
    planes: int


class Prepared(NamedTuple):
    """weight: (output channels, ci, *kernel), where it lies; bias: (output channels,); in the accumulator's dtype.

    finite: whether all weights are, where tiles could leave out zeros of the padding: such terms change no bit, as the
    bias makes a zero of either sign +0.
    """

    weight: Array
    bias: Array
    finite: bool


error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    if problem.groups == 1 and not _has_planes(problem):
        return "there is one group and no axis of planes, but its lanes hold either"
    if reason := no_vectors(problem, machine, "tiles"):
        return reason
    if not same_dtype(problem):
        return f"the input is {problem.x_dtype.name}, and would need a copy in {problem.accumulator.name}"
    if (pixels := math.prod(problem.out_spatial[-2:])) > problem.taps:
        return f"an output plane has {pixels} pixels, but it is for no more than the {problem.taps} taps of each"
    if interleaved(problem):
        return "the output has its channels last, but their sums are written one channel after another"
    return no_room(problem, machine, scratch_bytes(problem, machine), "panels")


def work(problem: Problem, machine: Machine) -> Work:
    cycles = _busiest(problem, machine, _choose(problem, machine))
    flops = 2.0 * machine.threads * cycles * machine.lanes(problem.accumulator)
    share = machine.efficiency(NAME, problem.accumulator, EFFICIENCY)
    return Work(flops, share * machine.flop_rate(problem.accumulator), problem.bytes, machine.launch, 0.0)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return _scratch(problem, machine, _choose(problem, machine))


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    weight = weight.astype(problem.accumulator, copy=False)
    spares = _has_planes(problem) and _spares(problem, machine)
    return Prepared(weight, biases(problem, bias), spares and bool(np.isfinite(weight).all()))


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
    inputs, channels = (count // problem.groups for count in (problem.in_channels, problem.out_channels))
    parts = x.reshape(problem.batch, problem.groups, inputs, *problem.spatial)
    kernel = prepared.weight.reshape(problem.groups, channels, inputs, *problem.kernel)
    correlate(
        machine.threads,
        np.array([parts.ctypes.data, *_strides(parts), kernel.ctypes.data, *_strides(kernel)]),
        prepared.bias,
        three_axes(out, problem.out_spatial),
        scratch.view(problem.accumulator).reshape(machine.threads, -1),
        _launch(problem, machine, prepared.finite),
    )


def _strides(array: Array) -> tuple[int, ...]:
    """Of three axes and three spatial ones."""
    return (*array.strides[:3], *(0,) * (6 - array.ndim), *array.strides[3:])


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, machine: Machine, finite: bool) -> Array:
    """What `correlate` is told of a Problem, whose weights are finite or any."""
    choice = _choose(problem, machine)
    tile = _tile(problem, choice.planes)
    sides = problem.out_channels // problem.groups, *(1, *problem.out_spatial)[-2:]
    extents = itertools.product(*((most, side % most) for most, side in zip(tile, sides, strict=True)))
    one_for_all, met = bool(choice.planes), _met(problem, choice) if finite else EVERYTHING
    tiles = [
        outputs_tile(problem.accumulator, *extent, one_for_all, met).address if all(extent) else 0 for extent in extents
    ]
    axes = {
        f"{name}_{axis}": value
        for name in ("kernel", "stride", "dilation")
        for axis, value in zip("dhw", three(problem, name), strict=True)
    }
    period, segment = problem.segments
    launch = Launch(
        **axes,
        **choice._asdict(),
        groups=problem.groups,
        inputs=problem.in_channels // problem.groups,
        tile_channels=tile[0],
        tile_rows=tile[1],
        tile_columns=tile[2],
        before=problem.padding[-1][0],
        width=problem.spatial[-1],
        period=period,
        segment=segment,
        single=int(problem.taps <= min(problem.segments)),
        relu=int(problem.activation == "relu"),
        padding=float(problem.padding_value.real),
        tiles=np.array(tiles),
    )
    return packed(launch, Positions(*padded_axes(problem)))


def _has_planes(problem: Problem) -> bool:
    """Whether each output plane meets one input plane of each channel, of its own: lanes may then be planes."""
    return problem.rank == 3 and problem.out_spatial[0] > 1 and problem.kernel[0] == 1 and not any(problem.padding[0])


def _tile(problem: Problem, planes: int) -> tuple[int, int, int]:
    """(channels, rows, columns) of the largest tile: the output in as few as there can be, of even sizes."""
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    columns = -(-out_w // -(-out_w // SUMS))
    rows = -(-out_h // -(-out_h // (SUMS // columns)))
    channels = max(1, problem.out_channels // problem.groups)
    most = max(1, min(REGISTERS // (rows * columns + 1), MOST_CHANNELS[planes]))
    return -(-channels // -(-channels // most)), rows, columns


@functools.lru_cache(maxsize=1024)
def _spares(problem: Problem, machine: Machine) -> bool:
    """Whether tiles leave out zeros of the padding, where all weights are finite."""
    return _met(problem, _choose(problem, machine)) != EVERYTHING


def _met(problem: Problem, choice: Choice) -> Met:
    """What the tiles of a choice add up where all weights are finite: all but the zeros of the padding, if that leaves
    out enough, a piece is a whole kernel and a tile a whole output. With groups in the lanes each weight serves one of
    them, and to find out whether it is finite would cost what it saves.
    """
    if not choice.planes or problem.padding_mode != "zeros":
        return EVERYTHING
    whole_piece = (choice.kernel_rows, choice.kernel_columns) == problem.kernel[1:]
    whole_piece = whole_piece and math.prod(problem.kernel) <= min(problem.segments)
    if not whole_piece or _tile(problem, 1)[1:] != problem.out_spatial[1:]:
        return EVERYTHING
    # Steps of one vector, known to the tile, leave it registers for the addresses of each column.
    if (problem.stride[-1], problem.dilation[-1]) != (1, 1) or problem.kernel[-1] > LONGEST_ROW:
        return EVERYTHING
    met = _spans(problem, 1), _spans(problem, 2)
    return met if _share(problem, met) <= 1 - LEAST_LEFT_OUT else EVERYTHING


@functools.lru_cache(maxsize=1024)
def _spans(problem: Problem, axis: int) -> Spans:
    """Of each position of the kernel on an axis, the first output that meets it inside the input, and the end."""
    inside = meets(problem, axis, np.arange(problem.out_spatial[axis]))
    return tuple((int(row.argmax()), int(row.argmax() + row.sum())) for row in inside)


def _share(problem: Problem, met: Met) -> float:
    """The share of the products that tiles add up."""
    if met == EVERYTHING:
        return 1.0
    by_rows, by_columns = (sum(end - first for first, end in spans) for spans in met)
    return by_rows * by_columns / math.prod((*problem.kernel[-2:], *problem.out_spatial[-2:]))


def _slices(problem: Problem) -> int:
    return problem.batch * (problem.out_spatial[0] if problem.rank == 3 else 1)


def _panel(problem: Problem, choice: Choice) -> tuple[int, int, int]:
    """Vectors of the panels of a piece: of the kernel; and rows and columns of the input."""
    _, stride_h, stride_w = three(problem, "stride")
    _, dilation_h, dilation_w = three(problem, "dilation")
    rows = (choice.kernel_rows - 1) * dilation_h + (choice.rows - 1) * stride_h + 1
    columns = (choice.kernel_columns - 1) * dilation_w + (problem.out_spatial[-1] - 1) * stride_w + 1
    kernel = 0 if choice.planes else choice.channels * choice.kernel_rows * choice.kernel_columns
    return kernel, rows, columns


def _scratch(problem: Problem, machine: Machine, choice: Choice) -> int:
    lanes, (kernel, rows, columns) = machine.lanes(problem.accumulator), _panel(problem, choice)
    sums = choice.channels * choice.slices * choice.rows * problem.out_spatial[-1]
    several = problem.taps > min(problem.segments)
    # A square of room behind the last panel, for columns gathered by the half.
    return shared_scratch(problem, machine, (sums * (1 + several) + kernel + rows * columns + lanes) * lanes)


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, machine: Machine) -> Choice:
    """The choice whose busiest thread has the least work, of those whose scratch is allowed."""
    cost, scratch = (functools.partial(of, problem, machine) for of in (_busiest, _scratch))
    return best_that_fits(_choices(problem, machine), cost, scratch, allowed_scratch(problem, machine))


def _choices(problem: Problem, machine: Machine) -> list[Choice]:
    def divided(length: int, unit: int = 1) -> list[int]:
        """So many for each of some parts."""
        units = max(1, -(-length // unit))
        return sorted({max(1, min(-(-units // part) * unit, length)) for part in (*PARTS, units)}, reverse=True)

    tasks: list[tuple[int, int, int, int]] = []
    for planes in ([0] if problem.groups > 1 else []) + ([1] if _has_planes(problem) else []):
        tile_channels, tile_rows, _ = _tile(problem, planes)
        channels = divided(problem.out_channels // problem.groups, tile_channels)
        rows, slices = divided((1, *problem.out_spatial)[-2], tile_rows), [1] if planes else divided(_slices(problem))
        tasks += itertools.product(channels, slices, rows, [planes])
    return [_largest(problem, machine, *task) for task in tasks]


def _largest(problem: Problem, machine: Machine, channels: int, slices: int, rows: int, planes: int) -> Choice:
    """The choice of the largest pieces whose scratch is allowed, or of the smallest."""
    pieces = (_piece(problem, machine, channels, slices, rows, planes, size) for size in PANELS)
    allowed = allowed_scratch(problem, machine)
    for choice in pieces:
        if _scratch(problem, machine, choice) <= allowed:
            break
    return choice


def _piece(problem: Problem, machine: Machine, channels: int, slices: int, rows: int, planes: int, size: int) -> Choice:
    """The choice of the largest even pieces whose panels take so many bytes, or of the smallest: whole rows of the
    kernel, or parts of one.
    """
    kernel_h, kernel_w = (1, *problem.kernel)[-2:]
    vectors = size // machine.vector_bytes

    def taken(kernel_rows: int, kernel_columns: int) -> int:
        kernel, *panel = _panel(problem, Choice(channels, slices, rows, kernel_rows, kernel_columns, planes))
        return kernel + math.prod(panel)

    one, two = taken(1, kernel_w), taken(2, kernel_w)
    if one <= vectors:
        most = 1 + (vectors - one) // (two - one)
        return Choice(channels, slices, rows, -(-kernel_h // -(-kernel_h // most)), kernel_w, planes)
    one, two = taken(1, 1), taken(1, 2)
    most = max(1, 1 + (vectors - one) // (two - one))
    return Choice(channels, slices, rows, 1, -(-kernel_w // -(-kernel_w // most)), planes)


def _busiest(problem: Problem, machine: Machine, choice: Choice) -> int:
    """Cycles of the busiest thread, if all tasks were whole."""
    lanes, (_, panel_rows, panel_columns) = machine.lanes(problem.accumulator), _panel(problem, choice)
    kernel_d, kernel_h, kernel_w = three(problem, "kernel")
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    half = max(1, lanes // 2)
    row_parts = -(-kernel_h // choice.kernel_rows)
    pieces = problem.in_channels // problem.groups * kernel_d * row_parts * -(-kernel_w // choice.kernel_columns)
    pixels = choice.kernel_rows * choice.kernel_columns
    gathered = 0 if choice.planes else choice.channels * -(-pixels // half) * half
    gathered += choice.slices * panel_rows * -(-panel_columns // half) * half
    sides = zip((choice.channels, choice.rows, out_w), _tile(problem, choice.planes), strict=True)
    # On each axis, (size, number) of whole tiles and of the last one.
    kinds = [((size, side // size), (side % size, int(side % size > 0))) for side, size in sides]
    adding, share = 0.0, _share(problem, _met(problem, choice))
    for kind in itertools.product(*kinds):
        sums, tiles = (math.prod(values) for values in zip(*kind, strict=True))
        adding += tiles * (share * pixels * max(sums + 1, LATENCY) + choice.kernel_rows * ROW_START + TILE_START)
    outputs = choice.channels * choice.slices * choice.rows * out_w
    piece = GATHERING * gathered + choice.slices * (panel_rows * ROW_START + adding)
    parts = -(-problem.out_channels // problem.groups // choice.channels) * -(-out_h // choice.rows)
    if choice.planes:
        parts *= problem.batch * problem.groups * -(-problem.out_spatial[0] // lanes)
    else:
        parts *= -(-problem.groups // lanes) * -(-_slices(problem) // choice.slices)
    return -(-parts // machine.threads) * int(pieces * piece + outputs * STORING)
