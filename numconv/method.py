"""The method contract: what a file under cpu/ or cuda/ offers to be listed in numconv.methods."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from .machine import Machine
from .problem import Array as Array
from .problem import Problem

# Bytes of scratch that a call may take beside a quarter of its input and output.
SCRATCH_BYTES = 16 << 20


def allowed_scratch(problem: Problem, machine: Machine) -> int:
    """Bytes of scratch that a call may take: a quarter of input and output and 16 MiB, or `workspace` if less."""
    moved = math.prod(problem.x_shape) * problem.x_dtype.itemsize
    moved += math.prod(problem.out_shape) * problem.output.itemsize
    allowed = moved // 4 + SCRATCH_BYTES
    return allowed if machine.workspace is None else min(allowed, machine.workspace)


@dataclass(frozen=True, slots=True)
class Work:
    """What a method does for a Problem, which the planner's roofline turns into seconds.

    flops: operations it executes, wasted lanes included. rate: flop/s it was measured to run them at, which is
    `Machine.efficiency` of `Machine.flop_rate`. bytes: what it moves to and from memory. overhead: seconds of
    launching. prepare_bytes: what preparing the weights moves.
    """

    flops: float
    rate: float
    bytes: float
    overhead: float
    prepare_bytes: float


class Method(Protocol):
    """A module that computes correlations. A module's docstring gives the idea, the source and when it wins."""

    NAME: str
    # Whether it keeps the one order of summation, so that reproducible=True admits it.
    REPRODUCIBLE: bool
    # Whether it spends digits beyond those of sums in any order, so that "auto" takes it only where an rtol allows it.
    NEEDS_RTOL: bool
    # Whether `out` may have its elements some steps apart on any spatial axis, as a phase of a Problem wants it.
    STRIDED_OUT: bool
    # Whether x may have its channels on two axes, (n, groups, channels of a group, ...), as they lie in gradients.
    GROUPS_APART: bool

    def why_not(self, problem: Problem, machine: Machine) -> str | None:
        """A sentence when it refuses the Problem; None promises a correct result."""

    def error_bound(self, problem: Problem) -> float:
        """Proved: |y - exact| <= bound * (max|x| * max over outputs of sum|w| + max|b|), without under- or overflow."""

    def expected_error(self, problem: Problem) -> float:
        """The same figure from the probabilistic analysis: what `rtol` is compared with."""

    def work(self, problem: Problem, machine: Machine) -> Work:
        """What running it costs."""

    def scratch_bytes(self, problem: Problem, machine: Machine) -> int:
        """Bytes of scratch that `run` takes for each call, whatever number of threads `prepare` was told.

        A method takes smaller blocks, where it can, to keep within `allowed_scratch`; the planner refuses one that is
        over `workspace` all the same.
        """

    def prepare(self, problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Any:
        """The weights and bias as `run` wants them; picklable. May be views: who keeps it copies first."""

    def run(
        self,
        problem: Problem,
        machine: Machine,
        prepared: Any,
        x: Array,
        out: Array,
        scratch: Array,
        stream: object = None,
    ) -> None:
        """Fill `out`, bias and activation included. x has the Problem's shape (but see GROUPS_APART) and dtype, in
        native byte order; `out` is of the accumulator's dtype, C-contiguous once its axes are in the layout's order
        (but see STRIDED_OUT); scratch is bytes. Keeps no state; safe from any number of threads.
        """
