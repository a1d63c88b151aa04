"""Explicit loops: every Problem, any dtype, in the one order of summation.

The idea: a task is a block of output pixels times a block of output channels. It gathers the inputs that some taps
meet at those pixels into a small panel (padding, stride, dilation, layout and dtype end there), then adds the panel
to the accumulators, four channels by four taps at a time, with pixels in the vector lanes. It is the matrix product
of im2col [1]_, with panels that never leave the first-level cache and a fixed order: input channel, kernel plane,
row, column, each a fused multiply-add.

It wins where nothing faster applies; it refuses nothing. The loops are those of direct.py; the blocks are chosen here.

.. [1] K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document
   processing", 2006, section 3.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Array, Work, allowed_scratch
from ..problem import Problem
from .direct import LANES, correlate, launch, scratch_elements
from .operands import biases, three_axes

NAME = "loops"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

PIXELS = (256, 128, 96, 64, 48, 32, 16)
CHANNELS = (64, 32, 16, 8, 4)
# What a task does besides its multiply-adds, for each tap, in the time of a multiply-add of one pixel: starting a
# row of the panel, copying a pixel into it, a neighbour of the last or one some columns on, starting a channel's loop.
ROW_COST = 1000
PIXEL_COST, STRIDED_PIXEL_COST = 8, 32
CHANNEL_COST = 14
# And for each run of pixels that lies in one row of the output: 3x3 maps ran at a third of what wide ones do.
RUN_COST = 400
# What each sum takes besides its taps, in the same unit: to be cleared, added to its total, and stored.
SUM_COST = 30
# Share of the FMA peak that it was measured to run at, by the accumulator's kind (bench/auto_regret.py).
EFFICIENCY = {"f": 0.6, "c": 0.45, "i": 0.55, "u": 0.55}


class Prepared(NamedTuple):
    """weight: (groups, output channels per group, taps) and bias: (output channels,), in the accumulator's dtype."""

    weight: Array
    bias: Array


error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    return None


def work(problem: Problem, machine: Machine) -> Work:
    pixels, channels = _blocks(problem, machine)
    flops = 2.0 * machine.threads * _busiest(problem, machine.threads, pixels, channels)
    share = machine.efficiency(NAME, problem.accumulator, EFFICIENCY[problem.accumulator.kind])
    rate = share * machine.flop_rate(problem.accumulator)
    return Work(flops, rate, problem.bytes, machine.launch, _prepare_bytes(problem))


def _prepare_bytes(problem: Problem) -> float:
    moved = problem.weight_dtype != problem.accumulator
    return math.prod(problem.weight_shape) * problem.accumulator.itemsize * 2.0 * moved


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    pixels, channels = _blocks(problem, machine)
    return _scratch(problem, machine, pixels, channels)


def _scratch(problem: Problem, machine: Machine, pixels: int, channels: int) -> int:
    return scratch_elements(machine.threads, pixels, channels) * problem.accumulator.itemsize


def prepare(problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
    channels = problem.out_channels // problem.groups
    packed = weight.astype(problem.accumulator, order="C", copy=False)
    return Prepared(
        packed.reshape(problem.groups, channels, problem.taps),
        biases(problem, bias),
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
    correlate(
        machine.threads,
        three_axes(x, problem.spatial),
        prepared.weight,
        prepared.bias,
        out.reshape(problem.batch, problem.out_channels, problem.pixels),
        scratch.view(problem.accumulator).reshape(machine.threads, -1),
        *launch(problem, *_blocks(problem, machine)),
    )


@functools.lru_cache(maxsize=1024)
def _blocks(problem: Problem, machine: Machine) -> tuple[int, int]:
    """(pixels, output channels) of a task: the pair whose busiest thread has the least work, larger blocks first.

    Of those whose scratch is allowed, or the smallest.
    """
    pairs = [(pixels, channels) for pixels in PIXELS for channels in CHANNELS]
    allowed = allowed_scratch(problem, machine)
    fitting = [pair for pair in pairs if _scratch(problem, machine, *pair) <= allowed] or pairs[-1:]
    return min(fitting, key=lambda pair: _busiest(problem, machine.threads, *pair))


def _busiest(problem: Problem, threads: int, pixels: int, channels: int) -> int:
    """The work of the busiest thread, in multiply-adds of one pixel."""
    group_channels = problem.out_channels // problem.groups
    blocks = max(1, -(-problem.pixels // pixels))
    tasks = problem.batch * problem.groups * blocks * -(-group_channels // channels)
    # Of several blocks of pixels, the last is not whole.
    whole = problem.pixels / (blocks * pixels) if blocks > 1 else 1
    lanes = min(pixels, -(-problem.pixels // LANES) * LANES)
    runs = -(-min(pixels, problem.pixels) // problem.out_spatial[-1]) if problem.pixels else 0
    pixel = PIXEL_COST if problem.stride[-1] == 1 else STRIDED_PIXEL_COST
    copying = lanes * pixel + runs * RUN_COST + ROW_COST
    sums = min(channels, group_channels)
    # A complex product is four.
    adding = sums * (lanes + CHANNEL_COST) * (4 if problem.accumulator.kind == "c" else 1)
    return int(-(-tasks // threads) * whole * ((adding + copying) * problem.taps + sums * lanes * SUM_COST))
