"""A Problem in phases on the GPU: phased.py of the CPU, with kernels in the place of NumPy's views and additions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..machine import Machine
from ..phased import Phased, has_fold, is_whole
from ..phases import boxes
from ..problem import Problem
from . import pack
from .arrays import DeviceArray
from .driver import cuda
from .place import folded, new, place, shaped


class Parts(NamedTuple):
    """On the device: what each phase's method prepared, the bias with a zero behind it, and each fold's targets."""

    ready: tuple[Any, ...]
    bias: Any
    tables: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        """What it takes there."""
        return sum(int(part.nbytes) for part in (*self.ready, self.bias, *self.tables))


class PhasedOnGpu(Phased):
    """The methods of a Problem's phases, one for each that has taps."""

    def scratch_bytes(self, problem: Problem, machine: Machine) -> int:
        return 0

    def prepare(self, problem: Problem, machine: Machine, weight: Any, bias: Any) -> Any:
        inside = None if has_fold(problem) else bias
        ready = [method.prepare(phase.problem, machine, weight[phase.taps], inside) for phase, method in self._serves]
        targets = [target for box in boxes(problem) for target in box.targets if target is not None]
        tables = [cuda.to_device(target.astype(np.int32)) for target in targets]
        return Parts(tuple(ready), pack.biases(problem, bias, weight.device), tuple(tables))

    def run(
        self, problem: Problem, machine: Machine, prepared: Any, x: Any, out: Any, scratch: Any, stream: Any = None
    ) -> None:
        kind, folds = problem.accumulator, has_fold(problem)
        ready, methods, tables = iter(prepared.ready), iter(self.methods), iter(prepared.tables)
        relu = problem.activation == "relu"
        result = shaped(out, problem.out_shape)

        def everywhere(like: DeviceArray, zero: bool = False) -> DeviceArray:
            """The bias of each channel, or zero, for each element of an array."""
            flat = shaped(prepared.bias, (problem.out_channels + 1,))[slice(problem.out_channels if zero else 0, None),]
            return shaped(flat.flat(), like.shape, (0, 0 if zero else 1, *(0,) * problem.rank))

        for box in boxes(problem):
            whole = result if box.middle else new(box.shape, kind, stream)
            for phase in box.phases:
                target = whole[phase.outputs]
                if not phase.taps:
                    place(everywhere(target, folds), target, change=relu and not folds, stream=stream)
                    continue
                method, weights, images = next(methods), next(ready), max(1, phase.problem.batch)
                for n in range(0, problem.batch, images):
                    part = target[slice(n, n + images),]
                    sums = part if is_whole(phase, box.shape) else new(phase.problem.out_shape, kind, stream)
                    inputs = x[slice(n, n + images),][phase.inputs]
                    if sums.size:
                        run: Any = method.run
                        run(phase.problem, machine, weights, inputs, sums.flat(), None, stream)
                    if sums is not part:
                        place(sums, part, stream=stream)
            if not box.middle:
                where = [slice(None)] * 2
                for axis, places in enumerate(box.targets, 2):
                    if places is None:
                        where.append(slice(None))
                        continue
                    where.append(slice(int(places.min()), int(places.max()) + 1))
                    whole = folded(whole, axis, next(tables), where[-1].start, where[-1].stop, stream)
                place(whole, result[tuple(where)], add=True, stream=stream)
        if folds:
            place(everywhere(result), result, add=True, change=relu, stream=stream)
