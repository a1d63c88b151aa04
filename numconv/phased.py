"""Phased: what serves a Problem that no method takes as it is, with the contract of a method.

Each phase (phases.py) goes through a method of its own, in the one order of summation of its own taps, bias and
activation included. It writes to its places of the output where its method can; else the phases of a row go through
scratch, from where they become whole rows of the output (cpu/interleave.py). Where tiles serve all phases, these run in
one launch (cpu/phased_tiles.py).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .aligned import LINE_BYTES, whole_lines
from .machine import Machine
from .method import Array, Method, Work
from .phases import Box, Phase, Row, boxes, sources
from .problem import Problem


class Weave(NamedTuple):
    """How the results of a row's phases become rows of the output: the bytes of scratch of each, and of all together;
    the dtype of whose elements they are seen as; and, for `interleave`, the output's shape, the table and the fields of
    Rows.
    """

    places: tuple[slice, ...]
    bytes: int
    unit: np.dtype[Any]
    shape: tuple[int, ...]
    table: Array
    fields: tuple[int, ...]


class Served(NamedTuple):
    """A phase and its method, with that one's number; None where it has no taps."""

    phase: Phase
    method: Method | None
    number: int


class Part(NamedTuple):
    """A row of a box: so many images at a time, its phases, and how their results become rows of the output, or None
    where each is written to its places.
    """

    images: int
    served: tuple[Served, ...]
    weave: Weave | None


class Room(NamedTuple):
    """Bytes of scratch that the method of each phase takes, and where in scratch the phases' results lie, where the
    largest box beside the middle, and where it ends.
    """

    sizes: tuple[int, ...]
    phases: int
    aside: int
    total: int


class Phased:
    """The methods of a Problem's phases, one for each that has taps."""

    STRIDED_OUT = False
    GROUPS_APART = False

    def __init__(self, problem: Problem, methods: tuple[Method, ...], name: str | None = None) -> None:
        self.methods = methods
        self.NAME = name or "+".join(dict.fromkeys(method.NAME for method in methods))
        self.REPRODUCIBLE = all(method.REPRODUCIBLE for method in methods)
        self.NEEDS_RTOL = any(method.NEEDS_RTOL for method in methods)
        self._serves = tuple(zip(summing(problem), methods, strict=True))
        numbers = itertools.count()
        self._boxes = tuple(
            tuple(_part(problem, box, row, methods, numbers) for row in box.rows) for box in boxes(problem)
        )
        self._folds = has_fold(problem)
        # A method takes up to 50 us to find its scratch, and every run asks for that of each phase.
        self._room = functools.cache(functools.partial(self._rooms, problem))

    def why_not(self, problem: Problem, machine: Machine) -> str | None:
        return next(filter(None, (method.why_not(phase.problem, machine) for phase, method in self._serves)), None)

    def error_bound(self, problem: Problem) -> float:
        return _folded(problem, max((method.error_bound(phase.problem) for phase, method in self._serves), default=0.0))

    def expected_error(self, problem: Problem) -> float:
        errors = (method.expected_error(phase.problem) for phase, method in self._serves)
        return _folded(problem, max(errors, default=0.0))

    def work(self, problem: Problem, machine: Machine) -> Work:
        """The sums over the phases, at a rate for which the operations take the sum of their seconds."""
        flops = moved = busy = overhead = prepare_bytes = 0.0
        for images, served, weave in itertools.chain(*self._boxes):
            runs = problem.batch // max(1, images)
            overhead += runs * machine.launch * (weave is not None)
            for phase, method, _ in served:
                if method is None:
                    continue
                work = method.work(phase.problem, machine)
                # A result that goes through scratch is read and written once more.
                through = 0 if weave is None else 2 * _out_bytes(phase.problem)
                flops, moved = flops + runs * work.flops, moved + runs * (work.bytes + through)
                busy += runs * work.flops / work.rate
                overhead += runs * work.overhead
                prepare_bytes += work.prepare_bytes
        return Work(flops, flops / busy if flops else 1.0, max(moved, problem.bytes), overhead, prepare_bytes)

    def scratch_bytes(self, problem: Problem, machine: Machine) -> int:
        return self._room(machine).total

    def _rooms(self, problem: Problem, machine: Machine) -> Room:
        sizes = tuple(method.scratch_bytes(phase.problem, machine) for phase, method in self._serves)
        phases = whole_lines(max(sizes, default=0))
        weaves = (part.weave for part in itertools.chain(*self._boxes))
        aside = phases + max((weave.bytes for weave in weaves if weave), default=0)
        beside = (math.prod(box.shape) * problem.accumulator.itemsize for box in boxes(problem) if not box.middle)
        return Room(sizes, phases, aside, aside + max(beside, default=0))

    def prepare(self, problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> tuple[Any, ...]:
        """What each method prepares, and behind it the bias, (output channels, 1...), for what no method adds it to."""
        inside = None if has_fold(problem) else bias
        ready = [method.prepare(phase.problem, machine, weight[phase.taps], inside) for phase, method in self._serves]
        shape = (problem.out_channels,) + (1,) * problem.rank
        values = np.zeros(shape, problem.accumulator)
        if bias is not None:
            values += bias.reshape(shape)
        return (*ready, values)

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
        room, bias, folds = self._room(machine), prepared[-1], self._folds
        constant = 0 if folds else _finished(bias, problem)
        for box, parts in zip(boxes(problem), self._boxes, strict=True):
            whole = out if box.middle else _array(scratch[room.aside :], box.shape, problem)
            for images, served, weave in parts:
                results = scratch[room.phases : room.phases + weave.bytes] if weave else scratch
                for n in range(0, problem.batch, max(1, images)):
                    inputs, target = x[n : n + images], whole[n : n + images]
                    for index, (phase, method, number) in enumerate(served):
                        if weave is None:
                            part = target[phase.outputs]
                        else:
                            part = _array(results[weave.places[index]], phase.problem.out_shape, problem)
                        if method is None:
                            part[...] = constant
                            continue
                        weights, space = prepared[number], scratch[: room.sizes[number]]
                        method.run(phase.problem, machine, weights, inputs[phase.inputs], part, space, stream)
                    if weave is not None:
                        _interleave(weave, results, target, problem, machine)
            if not box.middle:
                _fold(out, whole, box)
        if folds:
            out += bias
            if problem.activation == "relu":
                np.maximum(out, 0, out=out)


def summing(problem: Problem) -> tuple[Phase, ...]:
    """The phases that add up any product."""
    return tuple(phase for box in boxes(problem) for phase in box.phases if phase.taps)


def _finished(bias: Array, problem: Problem) -> Array:
    """The output where no product is added up."""
    return np.maximum(bias, 0) if problem.activation == "relu" else bias


def has_fold(problem: Problem) -> bool:
    return any(map(any, problem.fold))


def is_whole(phase: Phase, shape: tuple[int, ...]) -> bool:
    """Whether a phase is all of an array of that shape."""
    return phase.problem.out_shape == shape


def _array(scratch: Array, shape: tuple[int, ...], problem: Problem) -> Array:
    """An array at the start of scratch, in the Problem's layout and sums' dtype."""
    values = scratch[: math.prod(shape) * problem.accumulator.itemsize].view(problem.accumulator)
    return problem.channels_first(values.reshape(problem.laid_out(shape)), shape)


def _out_bytes(problem: Problem) -> int:
    return math.prod(problem.out_shape) * problem.accumulator.itemsize


def _part(problem: Problem, box: Box, row: Row, methods: tuple[Method, ...], numbers: Iterator[int]) -> Part:
    """A row of a box with the next methods."""
    given = (next(numbers) if phase.taps else None for phase in row.phases)
    served = tuple(
        Served(phase, None, 0) if number is None else Served(phase, methods[number], number)
        for phase, number in zip(row.phases, given, strict=True)
    )
    found = [one.method for one in served if one.method is not None]
    strided = len(found) == len(served) and all(method.STRIDED_OUT for method in found)
    direct = strided or not found or is_whole(row.phases[0], box.shape)
    return Part(row.images, served, None if direct else _weave(problem, box.shape, row))


def _weave(problem: Problem, shape: tuple[int, ...], row: Row) -> Weave:
    """How the results of a row's phases become rows of a box of that shape."""
    itemsize = problem.accumulator.itemsize
    # Elements of any dtype are moved as so many of these; with the channels last, a pixel has all channels' elements.
    unit = np.dtype(np.float32 if itemsize == 4 else np.float64)
    outer, run = (row.images * shape[1], 1) if problem.layout == "NCHW" else (row.images, shape[1])
    run *= itemsize // unit.itemsize
    depth, height, columns = (1, 1, *shape[2:])[-3:]
    planes, lines = (slice(0, None, 1), slice(0, None, 1), *row.phases[0].outputs[2:-1])[-2:]
    period = row.phases[0].outputs[-1].step
    sizes = [whole_lines(_out_bytes(phase.problem)) for phase in row.phases]
    starts = list(itertools.accumulate(sizes, initial=0))
    table = [
        (start // unit.itemsize, phase.problem.out_spatial[-1] * run, phase.outputs[-1].start)
        for start, phase in zip(starts, row.phases, strict=False)
    ]
    # A single phase has all columns, whose elements are neighbours.
    fields = (planes.start, planes.step, lines.start, lines.step, period, 1 if period == 1 else run)
    return Weave(
        places=tuple(itertools.starmap(slice, itertools.pairwise(starts))),
        # Vectors are read from the end of the last phase, too.
        bytes=starts[-1] + LINE_BYTES,
        unit=unit,
        shape=(outer, depth, height, columns * run),
        table=np.array(table),
        fields=fields,
    )


def _interleave(weave: Weave, results: Array, part: Array, problem: Problem, machine: Machine) -> None:
    """The phases' results to their places in some images of the output."""
    # Imported late: numba takes a while to set up a kernel, and `import numconv` should not.
    from .cpu.interleave import interleave, rows

    lying = part if problem.layout == "NCHW" else np.moveaxis(part, 1, -1)
    out = lying.reshape(-1).view(weave.unit).reshape(weave.shape)
    interleave(machine.threads, results.view(weave.unit), out, weave.table, rows(*weave.fields))


def _fold(out: Array, box: Array, place: Box) -> None:
    """Add a box of the result to the outputs that it falls on, axis by axis: neighbours stay neighbours."""
    where: list[slice] = [slice(None)] * 2
    for axis, target in enumerate(place.targets, 2):
        if target is None:
            where.append(slice(None))
            continue
        low, high = int(target.min()), int(target.max()) + 1
        where.append(slice(low, high))
        folded = np.zeros((*box.shape[:axis], high - low, *box.shape[axis + 1 :]), box.dtype)
        lines, sums = np.moveaxis(box, axis, 0), np.moveaxis(folded, axis, 0)
        for line, index in zip(lines, target, strict=True):
            sums[index - low] += line
        box = folded
    out[tuple(where)] += box


def _folded(problem: Problem, error: float) -> float:
    """The error of outputs that add up several sums of such an error: the bias included, one step for each."""
    if not has_fold(problem) or problem.accumulator.kind in "iu":
        return error
    most = math.prod(int(np.bincount(sources(problem, axis)).max()) for axis in range(problem.rank))
    rounding = most * float(np.finfo(problem.accumulator).eps) / 2
    return most * ((1 + error) * (1 + rounding / (1 - rounding)) - 1) if rounding < 1 else math.inf
