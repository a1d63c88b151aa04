"""One input channel for each output channel on the GPU: depthwise layers and image filters, 64 pixels in registers.

The idea: a block copies the windows of one or several planes to shared memory once; each thread sums some rows of
neighbouring pixels in registers and goes through the kernel's rows from top to bottom, so that a row of weights is
read once for all its pixels and a row of the window once for 8 to 28 [1]_. The kernel is in strip.py; it keeps the one
order of summation.

It wins wherever there is one input channel to a group: such layers are bound by memory.

.. [1] P. Zhang, E. Lo, B. Lu, "High performance depthwise and pointwise convolutions on mobile devices", AAAI 2020.
"""

from __future__ import annotations

from typing import Any

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, strip, strip_geometry
from .arrays import too_long
from .tiling import MAX_COLUMNS, THREADS, floats_alone

NAME = "depthwise"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    if problem.in_channels != problem.groups:
        return f"each output channel sums {problem.in_channels // problem.groups} input channels, but it takes one"
    if reason := floats_alone(problem):
        return reason
    if problem.rank == 3 and problem.kernel[0] != 1:
        return f"the kernel is {problem.kernel[0]} planes deep, but it takes one"
    if problem.taps > problem.segments[1]:
        return f"the kernel has {problem.taps} taps, but one accumulator takes {problem.segments[1]} at most"
    reach = (problem.kernel[-1] - 1) * problem.dilation[-1] // problem.stride[-1]
    if max(problem.kernel[-1], reach) > MAX_COLUMNS:
        return f"the kernel is {max(problem.kernel[-1], reach)} columns wide, but it takes {MAX_COLUMNS} at most"
    if reason := too_long(problem):
        return reason
    if strip_geometry.choose(problem) is None:
        kilobytes = strip_geometry.BYTES >> 10
        return f"its windows take more than {kilobytes} KiB of shared memory, or its rows too many registers"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    found = strip_geometry.choose(problem)
    assert found is not None
    assert machine.gpu is not None
    # On an H100 its predicted cycles were those of the driver's clock, within a tenth.
    seconds = strip_geometry.cycles(problem, found) / machine.gpu.clock
    rate = machine.flop_rate(problem.accumulator) * strip_geometry.MULTIPROCESSORS / machine.multiprocessors
    return Work(max(rate * seconds, problem.flops), rate, problem.bytes, machine.launch, 0.0)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    found = strip_geometry.choose(problem)
    assert found is not None
    places = (
        problem.out_channels,
        problem.out_channels // max(1, problem.groups),
        *(1, 1, *problem.out_spatial)[-3:],
        *strip_geometry.tiles(problem, found),
        (1, 1, *problem.stride)[-3],
        int(problem.activation == "relu"),
    )
    return pack.prepare(problem, weight, bias, 1, 1, places, (strip.build(found), found))


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    memory, steps = pack.reached(problem, x, out, stream)
    weight, bias, *tables, (correlate, geometry) = prepared
    grid = strip_geometry.blocks(problem, geometry)
    correlate[grid, THREADS, stream or 0](memory, weight, bias, out, *tables, *steps)
