"""The 1x1 correlation as a matrix product on the GPU, in the one order of summation.

The idea: with a kernel of one tap, an image is one product of (out_channels, in_channels) by (in_channels, pixels)
[1]_, so its pixels are taken in one row, and no tile ends where a row of the image does. The register tile of tile.py
does the rest, with eight channels between two barriers.

It wins on 1x1 layers without stride and padding.

.. [1] V. Volkov, J. Demmel, "Benchmarking GPUs to tune dense linear algebra", SC 2008.
"""

from __future__ import annotations

from typing import Any

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, tile, tiling

NAME = "matmul"
REPRODUCIBLE = True
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

error_bound, expected_error = direct_bound, direct_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    return tiling.no_product(problem) or tiling.why_not(problem.in_a_row, machine)


def work(problem: Problem, machine: Machine) -> Work:
    return tiling.work(problem.in_a_row, machine)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    flat = weight.seen((*weight.shape[:2], 1), (*weight.strides[:2], 0))
    return tile.prepare(problem.in_a_row, machine, flat, bias)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    tile.run(problem.in_a_row, prepared, pack.in_a_row(problem, x, stream), out, stream)
