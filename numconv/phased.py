"""Phased: what serves a Problem that no method takes as it is, with the contract of a method.

Each phase (phases.py) goes through a method of its own, in the one order of summation of its own taps, bias and
activation included. A single phase writes to the output; of several, each goes through scratch to its places.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .machine import Machine
from .method import Array, Method, Work
from .phases import Box, Phase, boxes, sources
from .problem import Problem

LINE = 64


class Phased:
    """The methods of a Problem's phases, one for each that has taps."""

    def __init__(self, problem: Problem, methods: tuple[Method, ...], name: str | None = None) -> None:
        self.methods = methods
        self.NAME = name or "+".join(dict.fromkeys(method.NAME for method in methods))
        self.REPRODUCIBLE = all(method.REPRODUCIBLE for method in methods)
        self.NEEDS_RTOL = any(method.NEEDS_RTOL for method in methods)
        self._serves = tuple(zip(summing(problem), methods, strict=True))
        # A method takes up to 50 us to find its scratch, and every run asks for that of each phase.
        self._scratch = functools.cache(
            lambda machine: tuple(method.scratch_bytes(phase.problem, machine) for phase, method in self._serves)
        )

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
        for phase, method in self._serves:
            runs = problem.batch // max(1, phase.problem.batch)
            work = method.work(phase.problem, machine)
            # A result that goes through scratch is read and written once more.
            through = 0 if is_whole(phase, problem.out_shape) else 2 * _out_bytes(phase.problem)
            flops, moved = flops + runs * work.flops, moved + runs * (work.bytes + through)
            busy += runs * work.flops / work.rate
            overhead += runs * work.overhead
            prepare_bytes += work.prepare_bytes
        return Work(flops, flops / busy if flops else 1.0, max(moved, problem.bytes), overhead, prepare_bytes)

    def scratch_bytes(self, problem: Problem, machine: Machine) -> int:
        return sum(_layout(problem, self._scratch(machine)))

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
        ready = iter(prepared[:-1])
        methods, sizes = iter(self.methods), iter(self._scratch(machine))
        method_bytes, phase_bytes, _ = _layout(problem, self._scratch(machine))
        room, aside = scratch[method_bytes : method_bytes + phase_bytes], scratch[method_bytes + phase_bytes :]
        bias, folds = prepared[-1], has_fold(problem)
        for box in boxes(problem):
            whole = out if box.middle else _array(aside, box.shape, problem)
            for phase in box.phases:
                target = whole[phase.outputs]
                if not phase.taps:
                    target[...] = 0 if folds else _finished(bias, problem)
                    continue
                method, weights = next(methods), next(ready)
                images, space = phase.problem.batch, scratch[: next(sizes)]
                direct = is_whole(phase, box.shape)
                for n in range(0, problem.batch, max(1, images)):
                    part = target[n : n + images]
                    result = part if direct else _array(room, part.shape, problem)
                    inputs = x[n : n + images][phase.inputs]
                    method.run(phase.problem, machine, weights, inputs, result, space, stream)
                    if not direct:
                        part[...] = result
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


def _layout(problem: Problem, sizes: tuple[int, ...]) -> tuple[int, int, int]:
    """Bytes of scratch: of the method that takes most, of the largest phase, of the largest box beside the middle."""
    methods = max(sizes, default=0)
    found = boxes(problem)
    phases = max(
        (
            _out_bytes(phase.problem)
            for box in found
            for phase in box.phases
            if phase.taps and not is_whole(phase, box.shape)
        ),
        default=0,
    )
    aside = max((math.prod(box.shape) for box in found if not box.middle), default=0) * problem.accumulator.itemsize
    return -(-methods // LINE) * LINE, -(-phases // LINE) * LINE, aside


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
