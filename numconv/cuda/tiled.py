"""Register tiles over a window in shared memory: the GPU's method for layers of many channels.

The idea: a block holds 8192 outputs in the registers of 128 threads, 64 each, or half as many where blocks are few, and
reads every input of its window and every weight once for all of them [1]_; the next channel is on its way to shared
memory while one is added up. Padding of any mode, stride, dilation and groups end where the window is filled. The
kernel is in tile.py; it keeps the one order of summation.

It wins wherever input and output channels are many enough to fill a tile.

.. [1] V. Volkov, J. Demmel, "Benchmarking GPUs to tune dense linear algebra", SC 2008.
"""

from __future__ import annotations

from typing import Any

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, tile, tiling

NAME = "tiled"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    return tiling.why_not(problem, machine)


def work(problem: Problem, machine: Machine) -> Work:
    return tiling.work(problem, machine)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    return tile.prepare(problem, machine, weight, bias)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    tile.run(problem, prepared, x, out, stream)
