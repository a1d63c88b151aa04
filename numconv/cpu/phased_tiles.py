"""Phases by tiles: all phases of a Problem with an input dilation in one launch.

The idea: a task computes every phase of a region of the output, from one window. So the region's cache lines, of which
each phase has every so-manieth element, stay with one thread; the inputs are gathered once; and no thread waits between
the phases. 3x3 layers of stride 2 take 7 to 8% less time on one thread, 12 to 22% less on two.

The tiles are those with channels in the lanes (channel_tiles.py). Each phase has a part of the packed weights.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from .. import aligned
from ..machine import Machine, machine
from ..method import Array, Method, Work, allowed_scratch
from ..phased import Phased, has_fold
from ..phases import Phase, boxes
from ..problem import Problem
from . import channel_tiles, packing, pixel_tiles, tiled
from .blocks import Blocks, blocks, locate, take, tasks
from .channel_runs import VECTORS
from .operands import best_that_fits, biases, no_room, no_vectors, shared_scratch, three_axes
from .simd.fields import packed, record
from .simd.ir import vector_lanes
from .simd.shares import Share, njit, portion
from .tile_choice import FAR_COPY, TASK_COST, WEIGHT_BYTES, Choice, choices
from .window import Ahead, Tables, Window, clear_gaps
from .window_axes import copy_cycles, tap_ranges


class Member(NamedTuple):
    """A phase of a group: the row and column of the group's windows that its first tap meets, and where its packed
    weights begin.
    """

    phase: Phase
    row: int
    column: int
    start: int


class Group(NamedTuple):
    """The phases of one depth; the plain Problem whose windows hold all inputs that they meet, and where those lie."""

    whole: Problem
    inputs: tuple[slice, ...]
    members: tuple[Member, ...]


class Place(NamedTuple):
    """The rows and columns of the output that are a phase's: the first, and the steps from one to the next."""

    row: int
    row_step: int
    column: int
    column_step: int


class Prepared(NamedTuple):
    """weight: (1, ...), packed, phase behind phase; bias: (out_channels,); finite: whether all weights are."""

    weight: Array
    bias: Array
    finite: bool


def phased(problem: Problem, methods: tuple[Method, ...], name: str | None = None) -> Phased:
    """What serves a Problem with a method for each of its phases."""
    # With fewer channels than lanes, tiles of pixels are faster: 2.5 times with three channels.
    full = _group_channels(problem) >= machine(1).lanes(problem.accumulator)
    together = full and all(method is tiled for method in methods) and serves(problem)
    return (PhasedTiles if together else Phased)(problem, methods, name)


def serves(problem: Problem) -> bool:
    """Whether all phases can run in one launch: several, each with taps and inputs, and without a stride."""
    if has_fold(problem) or not problem.batch or problem.accumulator.char not in "fd":
        return False
    phases = [phase.problem for phase in boxes(problem)[0].phases]
    return len(phases) > 1 and all(one.taps * math.prod(one.spatial) and max(one.stride[-2:]) == 1 for one in phases)


@functools.lru_cache(maxsize=1024)
def groups(problem: Problem) -> tuple[Group, ...]:
    """The phases of each depth; of one or two axes, all."""
    phases = boxes(problem)[0].phases
    sizes = (math.prod(phase.problem.weight_shape) for phase in phases)
    depths = itertools.groupby(
        zip(phases, itertools.accumulate(sizes, initial=0), strict=False), key=lambda pair: pair[0].outputs[2:-2]
    )
    return tuple(_group(problem, *zip(*pairs, strict=True)) for _, pairs in depths)


def _group(problem: Problem, phases: tuple[Phase, ...], starts: tuple[int, ...]) -> Group:
    """The group of some phases whose weights begin there."""
    stride = phases[0].problem.stride
    kernel, dilation = list(phases[0].problem.kernel), list(phases[0].problem.dilation)
    inputs, padding, shifts = [slice(None)] * 2, [], []
    for axis, size in enumerate(problem.spatial):
        firsts = [phase.inputs[axis + 2].start - phase.problem.padding[axis][0] for phase in phases]
        first = min(firsts)
        shifts.append([start - first for start in firsts])
        if axis >= problem.rank - 2:
            # What lies between the taps is in the window, too.
            reach = (
                shift + (phase.problem.kernel[axis] - 1) * dilation[axis]
                for phase, shift in zip(phases, shifts[-1], strict=True)
            )
            kernel[axis], dilation[axis] = max(reach) + 1, 1
        outputs = max(phase.problem.out_spatial[axis] for phase in phases)
        end = first + (outputs - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        inputs.append(slice(max(first, 0), min(end, size)))
        padding.append((inputs[-1].start - first, end - inputs[-1].stop))
    whole = dataclasses.replace(
        problem,
        spatial=tuple(part.stop - part.start for part in inputs[2:]),
        kernel=tuple(kernel),
        stride=stride,
        padding=tuple(padding),
        dilation=tuple(dilation),
        input_dilation=(1,) * problem.rank,
    )
    rows, columns = ([0] * len(phases), *shifts)[-2:]
    members = map(Member, phases, rows, columns, starts)
    return Group(whole, tuple(inputs), tuple(members))


class PhasedTiles(Phased):
    """A Problem's phases by tiles, in one launch, or one for each depth."""

    def why_not(self, problem: Problem, machine: Machine) -> str | None:
        reason = no_vectors(problem, machine, "tiles")
        return reason or no_room(problem, machine, self.scratch_bytes(problem, machine), "windows")

    def work(self, problem: Problem, machine: Machine) -> Work:
        busiest = sum(_busiest(problem, group, machine, choice) for group, choice in _chosen(problem, machine))
        flops = 2.0 * machine.threads * busiest * machine.lanes(problem.accumulator)
        share = machine.efficiency(tiled.NAME, problem.accumulator, tiled.EFFICIENCY)
        packing = float(math.prod(problem.weight_shape) * problem.accumulator.itemsize)
        rate, overhead = share * machine.flop_rate(problem.accumulator), machine.launch * len(groups(problem))
        return Work(flops, rate, problem.bytes, overhead, packing)

    def scratch_bytes(self, problem: Problem, machine: Machine) -> int:
        return max(_scratch(problem, group, machine, choice) for group, choice in _chosen(problem, machine))

    def prepare(self, problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
        lanes, unit, table = machine.lanes(problem.accumulator), channel_tiles.unit(machine, problem), _taps(problem)
        weight = weight.astype(problem.accumulator, copy=False)
        rows = weight.reshape(problem.groups, _group_channels(problem), weight.shape[1], len(table))
        # Tiles read whole vectors, so there is room behind the last weight.
        blocked = aligned.empty((weight.size + lanes,), problem.accumulator)
        blocked[weight.size :] = 0
        finite = np.empty((problem.groups, -(-rows.shape[1] // unit)), np.bool_)
        buffers = np.empty((machine.threads, len(table) * unit), problem.accumulator)
        pack_phases(machine.threads, rows, blocked, finite, buffers, table)
        return Prepared(blocked[None], biases(problem, bias), bool(finite.all()))

    def run(
        self,
        problem: Problem,
        machine: Machine,
        prepared: tuple[Any, ...],
        x: Array,
        out: Array,
        scratch: Array,
        stream: object = None,
    ) -> None:
        weight, bias, finite = prepared
        for number, group in enumerate(groups(problem)):
            part = out[group.members[0].phase.outputs[:-2]] if problem.rank == 3 else out
            correlate_phases(
                machine.threads,
                three_axes(x[group.inputs], group.whole.spatial),
                weight,
                bias,
                three_axes(part, problem.out_spatial),
                scratch.view(problem.accumulator).reshape(machine.threads, -1),
                _launch(problem, number, machine, finite),
            )


def _group_channels(problem: Problem) -> int:
    return problem.out_channels // problem.groups


@functools.lru_cache(maxsize=1024)
def _taps(problem: Problem) -> Array:
    """For each tap of the kernel, where its phase's packed weights begin, how many taps that phase has, and the number
    of the tap among them; -1 for one that no output meets.
    """
    numbers = np.arange(math.prod(problem.kernel)).reshape(problem.kernel)
    table = np.full((numbers.size, 3), -1)
    for member in itertools.chain(*(group.members for group in groups(problem))):
        taps = numbers[member.phase.taps[2:]].reshape(-1)
        table[taps, 0], table[taps, 1], table[taps, 2] = member.start, len(taps), range(len(taps))
    return table


@functools.lru_cache(maxsize=1024)
def _chosen(problem: Problem, machine: Machine) -> tuple[tuple[Group, Choice], ...]:
    """The groups, each with the choice whose busiest thread has the least work, of those whose scratch is allowed."""
    found, allowed = [], allowed_scratch(problem, machine)
    for group in groups(problem):
        cost, scratch = (functools.partial(of, problem, group, machine) for of in (_cost, _scratch))
        offered = choices(group.whole, machine, "channels")
        found.append((group, best_that_fits(offered, cost, scratch, allowed)))
    return tuple(found)


def _cost(problem: Problem, group: Group, machine: Machine, choice: Choice) -> int:
    """What choices are compared by: the busiest thread's cycles, and those in which the weights of its tasks come."""
    taps = sum(member.phase.problem.taps for member in group.members)
    weights = taps * min(choice.channels, _group_channels(problem)) * problem.accumulator.itemsize
    count = -(-tasks(group.whole, *choice[1:]) // machine.threads)
    return _busiest(problem, group, machine, choice) + count * weights // WEIGHT_BYTES


def _busiest(problem: Problem, group: Group, machine: Machine, choice: Choice) -> int:
    """Cycles of the busiest thread, if all tasks were whole."""
    _, rows, columns, channels = choice
    copying = copy_cycles(group.whole, rows, columns, machine.lanes(problem.accumulator), channel_tiles.PHASED)
    task = TASK_COST + FAR_COPY * copying
    for phase, *_ in group.members:
        _, own_rows, own_columns, most = _own_choice(phase, choice)
        task += channel_tiles.cycles(phase.problem, machine, own_rows, own_columns, min(most, _group_channels(problem)))
    return -(-tasks(group.whole, rows, columns, channels) // machine.threads) * task


def _own_choice(phase: Phase, choice: Choice) -> Choice:
    """What a task has of a phase."""
    height, width = (1, *phase.problem.out_spatial)[-2:]
    return choice._replace(rows=min(choice.rows, height), columns=min(choice.columns, width))


def _scratch(problem: Problem, group: Group, machine: Machine, choice: Choice) -> int:
    """Bytes that all threads take, whose windows hold a plane at least."""
    geometry, _ = _window(problem, group, machine, choice)
    elements = geometry.planes * geometry.plane_size + _beside_window(group, machine, choice)
    return shared_scratch(problem, machine, elements)


def _beside_window(group: Group, machine: Machine, choice: Choice) -> int:
    """Elements of a thread's scratch besides its window: one phase's at a time, and what it is stored through."""
    own = [(phase.problem, _own_choice(phase, choice)) for phase, *_ in group.members]
    return _aside(group, machine) + max(tiled.beside_window(problem, machine, one) for problem, one in own)


def _aside(group: Group, machine: Machine) -> int:
    """Elements of a square of vectors, whose last one is read beyond: the window is still wanted."""
    lanes = machine.lanes(group.whole.accumulator)
    return lanes * (lanes + 1)


def _window(problem: Problem, group: Group, machine: Machine, choice: Choice) -> tuple[Window, Tables]:
    beside, allowed = _beside_window(group, machine, choice), allowed_scratch(problem, machine)
    return tiled.window_beside(group.whole, machine, choice, beside, allowed)


@functools.lru_cache(maxsize=1024)
def _launch(problem: Problem, number: int, machine: Machine, finite: bool) -> Array:
    """What `correlate_phases` is told of a group: the Window, Blocks and Tables of its windows and tasks; and for each
    phase its Window, Tables, Blocks and Place.
    """
    group, choice = _chosen(problem, machine)[number]
    geometry, tables = _window(problem, group, machine, choice)
    own = [(member, _own_choice(member.phase, choice)) for member in group.members]
    splits = [tiled.split(member.phase.problem, machine, one, finite) for member, one in own]
    panel = max(split.panel for split in splits) + _aside(group, machine)
    records: list[NamedTuple] = [geometry, blocks(group.whole, *choice[1:]), tables]
    for (member, one), split in zip(own, splits, strict=True):
        records += _within(member, one, geometry, tables, finite)
        records.append(split._replace(panel=panel, first_weight=member.start))
        row, column = (slice(0, None, 1), *member.phase.outputs[2:])[-2:]
        records.append(Place(row.start, row.step, column.start, column.step))
    return packed(*records)


def _within(member: Member, choice: Choice, geometry: Window, tables: Tables, finite: bool) -> tuple[Window, Tables]:
    """The Window and Tables of a phase, within the window of its group."""
    problem = member.phase.problem
    sides = zip(member[1:3], (1, *problem.dilation)[-2:], (1, *problem.kernel)[-2:], strict=True)
    rows, columns = (first + step * np.arange(taps) for first, step, taps in sides)
    offsets = np.add.outer(rows * geometry.pitch, columns).reshape(-1)
    period, segment = problem.segments
    own = geometry._replace(
        taps=len(offsets),
        block_rows=choice.rows,
        block_columns=choice.columns,
        period=period,
        segment=segment,
    )
    if len(offsets) == 1:
        offsets = offsets + geometry.plane_size * np.arange(geometry.planes)
    first_tap, end_tap = tap_ranges(problem)
    tiles = channel_tiles.tiles(problem, *choice[1:], finite)
    return own, tables._replace(offsets=offsets, first_tap=first_tap, end_tap=end_tap, tiles=tiles)


@njit(parallel=True)
def pack_phases(share: Share, weight: Array, packed: Array, finite: Array, buffers: Array, table: Array) -> None:
    """Weights (groups, co, ci, taps) as `packing.pack` has them, phase behind phase: one pass for all.

    finite (groups, blocks): whether all weights of a block are. buffers (shares, ...): the taps of one channel, from
    where `table` (taps, 3) tells the place of each.
    """
    _, channels, inputs, taps = weight.shape
    buffer, unit = buffers[share.number], VECTORS * vector_lanes(packed)
    first_task, end_task = portion(finite.size, share)
    for task in range(first_task, end_task):
        group, block = divmod(task, finite.shape[1])
        first = block * unit
        count, before = min(unit, channels - first), group * channels + first
        finite[group, block] = True
        for ci in range(inputs):
            finite[group, block] &= packing.pack_block(weight[group, :, ci : ci + 1], buffer, -first, block)
            for tap in range(taps):
                start, run, number = table[tap]
                if start >= 0:
                    target = packed[start + (before * inputs + ci * count) * run + number * count :]
                    source = buffer[tap * count :]
                    for channel in range(count):
                        target[channel] = source[channel]


@njit(parallel=True)
def correlate_phases(
    share: Share, x: Array, weight: Array, bias: Array, out: Array, scratch: Array, integers: Array
) -> None:
    """The tasks of one share, and then what is left of the others: x (n, c, d, h, w), out (n, groups*co, od, oh, ow) of
    all phases, scratch (shares, ...).
    """
    window, blocks, tables = record(Window, integers, 0), record(Blocks, integers, 1), record(Tables, integers, 2)
    group_channels = out.shape[1] // blocks.groups
    nothing = Ahead(0, 0, 0, 0, 1)
    clear_gaps(scratch[share.number, blocks.panel :], window, pixel_tiles.VECTORS)
    task, end_task = take(share, 1, len(out), blocks)
    while task < end_task:
        n, group, first, od, oh, ow = locate(task, window, blocks)
        image, own = x[n, group * (x.shape[1] // blocks.groups) :], scratch[share.number]
        following = tiled.look_ahead(task + 1, x, tables, window, blocks)
        channel, channels = group * group_channels + first, min(blocks.channels, group_channels - first)
        filled = 0
        # The first record begins behind the numbers of all.
        for number in range(3, integers[0], 4):
            place = record(Place, integers, number + 3)
            part = out[:, :, :, place.row :: place.row_step, place.column :: place.column_step]
            if oh < part.shape[3] and ow < part.shape[4]:
                tiled.correlate_block(
                    image,
                    weight,
                    bias,
                    part,
                    n,
                    channel,
                    channels,
                    od,
                    oh,
                    ow,
                    own,
                    record(Tables, integers, number + 1),
                    record(Window, integers, number),
                    record(Blocks, integers, number + 2),
                    following if number + 4 == integers[0] else nothing,
                    filled,
                )
                filled = 1 if window.planes >= window.total_planes else 0
        task, end_task = take(share, 1, len(out), blocks)
